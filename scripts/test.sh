#!/usr/bin/env bash
# Runs the tests: bash scripts/test.sh [--slow] [pytest arguments...]
#
# Installs everything that the tests need, Horovod too, into .venv-test, or into the folder that
# GLUON_TRICKS_TEST_VENV names. --slow adds the tests that take minutes. Paths among the
# arguments are relative to the root of the clone.
set -euo pipefail

# shellcheck source=scripts/_venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_venv.sh"

has_horovod() { # DIR
    "$1/bin/python" -c 'import horovod.mxnet' 2>/dev/null
}

# Horovod comes as source only.
require_compiler() { # DIR
    local include missing=()
    command -v g++ >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    include=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [[ -f $include/Python.h ]] || missing+=(python3.11-dev)
    _require "to build Horovod" "${missing[@]}"
}

install_horovod() { # DIR
    ! has_horovod "$1" || return 0
    require_compiler "$1" || return
    echo "building Horovod for MXNet on the CPU (2 to 5 minutes, once)"
    _pip "$1" install 'setuptools<70' wheel packaging 'cmake<4' || return 1
    build_horovod "$1" || return 1
    # pip's cache may have held a wheel that was built for another framework.
    has_horovod "$1" || build_horovod "$1" --no-cache-dir || return 1
    "$1/bin/python" -c 'import horovod.mxnet' || return 1
}

# Without build isolation, since Horovod's CMake imports mxnet; through a link, since it cannot
# find mxnet where the path has a space.
build_horovod() { # DIR PIP-ARGUMENTS...
    local dir=$1 work status=0
    shift
    work=$(mktemp -d) && ln -s -- "$dir" "$work/venv" || return
    PATH=$work/venv/bin:$PATH \
        HOROVOD_WITH_MXNET=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 \
        HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO \
        _pip "$work/venv" wheel --no-build-isolation --no-deps --wheel-dir "$work" "$@" \
        horovod==0.28.1 \
        && _pip "$dir" install --force-reinstall --no-deps "$work"/horovod-*.whl \
        && _pip "$dir" install horovod || status=$?
    rm -rf -- "$work"
    return "$status"
}

venv=$(realpath -m -- "${GLUON_TRICKS_TEST_VENV:-$clone/.venv-test}")
if [[ ${1:-} == --slow ]]; then
    shift
    set -- -m "" "$@" # undoes the `-m 'not slow'` of pyproject.toml
fi

make_venv "$venv" cpu,test
_locked "$venv" install_horovod "$venv"
mend_opencv "$venv"

cd -- "$clone"
export PATH="$venv/bin:$PATH" # for tests that start horovodrun or python by name
exec python -m pytest "$@"
