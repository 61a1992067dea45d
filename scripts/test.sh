#!/usr/bin/env bash
# Runs the tests: bash scripts/test.sh [--slow] [pytest arguments...]
#
# Installs everything that the tests need, including Horovod, into .venv-test or the folder that
# GLUON_TRICKS_TEST_VENV names. --slow adds the tests that take minutes. Paths among the arguments
# are relative to the root of the clone. Builds the native decoder if g++ and libjpeg's headers are
# installed (as root in CI it installs them), and otherwise skips its tests.
#
# Runs pytest twice, with the same arguments: on all cores, up to 8, without the tests marked
# `alone`; then these, one by one. -m narrows both runs (and replaces "not slow", as in pytest), -n
# applies to the first, and with -x or --maxfail a failure in the first skips the second. --pdb runs
# both in one process. A file named by --junitxml is the second run's.
set -euo pipefail

# shellcheck source=scripts/_venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_venv.sh"

has_horovod() { # DIR
    "$1/bin/python" -c 'import horovod.mxnet' 2>/dev/null
}

# Horovod comes as source only. On a minimal Debian, g++ also brings the libraries MXNet needs.
require_compiler() {
    local python include missing=()
    python=$(find_python) || return
    command -v g++ >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])') \
        || return
    [[ -f $include/Python.h ]] || missing+=(python3.11-dev)
    require_packages "the tests build Horovod, for which packages are missing" "${missing[@]}"
}

install_horovod() { # DIR
    ! has_horovod "$1" || return 0
    require_compiler || return
    echo "building Horovod for MXNet on the CPU (2 to 5 minutes, once)"
    build_horovod "$1" || return 1
    # pip's cache may have a wheel that was built for another framework.
    has_horovod "$1" || build_horovod "$1" --no-cache-dir || return 1
    "$1/bin/python" -c 'import horovod.mxnet' || return 1
}

# Without build isolation, since Horovod's CMake imports mxnet; through a symlink, since it cannot
# find mxnet if the path has a space.
build_horovod() ( # DIR PIP-ARGUMENTS...
    dir=$1
    shift
    work=$(mktemp -d) || exit
    trap 'rm -rf -- "$work"' EXIT
    ln -s -- "$dir" "$work/venv" || exit
    # Without MAKEFLAGS it runs eight compilers on any machine.
    PATH=$work/venv/bin:$PATH MAKEFLAGS=${MAKEFLAGS:--j$(nproc)} \
        HOROVOD_WITH_MXNET=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 \
        HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO \
        pip_in "$work/venv" wheel --no-build-isolation --no-deps --wheel-dir "$work" "$@" \
        --require-hashes -r "$clone/docker/requirements-horovod.txt" || exit
    pip_in "$dir" install --force-reinstall --no-deps "$work"/horovod-*.whl
)

# has_native DIR: whether the C++ decoder is built from the current sources.
has_native() {
    "$1/bin/python" -I 2>/dev/null - <<'END'
import sys

from gluon_tricks.data.native import why_not

sys.exit(why_not() is not None)
END
}

# require_native PYTHON: checks for what the C++ decoder's build needs, like require_packages.
require_native() {
    local include missing=()
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_paths()["include"])') || return
    command -v g++ >/dev/null || missing+=(g++)
    [[ -f $include/Python.h ]] || missing+=(python3.11-dev)
    g++ -E -x c++ - <<<$'#include <cstdio>\n#include <jpeglib.h>' &>/dev/null \
        || missing+=(libjpeg62-turbo-dev)
    require_packages "the tests of the native decoder will skip" "${missing[@]}"
}

# build_native DIR: builds the C++ decoder. Unlike in make_venv, which continues without it, a
# failed build shows the compiler's output and returns nonzero.
build_native() {
    ! has_native "$1" || return 0
    echo "building the native decoder"
    GLUON_TRICKS_NATIVE=required install_project "$1"
}

# The tests of these functions source this file.
[[ $0 == "${BASH_SOURCE[0]}" ]] || return 0

venv=$(realpath -m -- "${GLUON_TRICKS_TEST_VENV:-$clone/.venv-test}")
arguments=()
marks="not slow" stop=0
while (($#)); do
    case $1 in
        --slow) marks="" ;;
        -m) marks=${2?"-m needs an expression"} && shift ;;
        -m?*) marks=${1#-m} ;;
        -x | --exitfirst | --maxfail*) stop=1 && arguments+=("$1") ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

native=0
if ! has_native "$venv"; then
    python=$venv/bin/python
    [[ -x $python ]] || python=$(find_python)
    require_native "$python" || native=$?
    ((native == 0 || native == 2)) || exit "$native" # 2: it said what is missing
fi

locks=(docker/requirements-{cpu,test}.txt)
if ! is_installed "$venv" "${locks[@]}" || ! has_horovod "$venv"; then
    has_horovod "$venv" || require_compiler # said now, not after the install
    make_venv "$venv" "${locks[@]}"
    locked "$venv" install_horovod "$venv"
fi
((native)) || locked "$venv" build_native "$venv"

cd -- "$clone"
export PATH="$venv/bin:$PATH" # for tests that start horovodrun or python by name

run() { # MARKS ARGUMENTS...: returns 5 if no test is left
    echo "== tests marked: $1"
    python -m pytest -m "$1" "${@:2}"
}

many=0 alone=0
run "${marks:+($marks) and }not alone" -n "$(nproc)" --maxprocesses 8 --dist loadfile \
    --no-loadscope-reorder "${arguments[@]}" || many=$?
# 2 and more: interrupted, or pytest cannot run at all; except 5, no tests.
if ((many > 1 && many != 5)) || ((many == 1 && stop)); then
    exit "$many"
fi
run "${marks:+($marks) and }alone" "${arguments[@]}" -n 0 || alone=$?
case $many,$alone in
    0,5) exit 0 ;;
    0,* | 5,*) exit "$alone" ;;
    *) ((alone <= 1 || alone == 5)) && exit "$many" || exit "$alone" ;;
esac
