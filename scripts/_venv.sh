# shellcheck shell=bash
# Finds Python 3.11 and creates virtual environments; sourced by quickstart.sh and test.sh. Each
# step that may fail ends in `|| return`: bash ignores `set -e` in a function whose result is tested.

clone=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)

# find_python: prints the path of a Python 3.11 that can create virtual environments.
find_python() {
    local name version path found="" bare=""
    for name in python3.11 python3 python; do
        # Run it, do not only look it up: a version manager's shim may exist and lead nowhere.
        path=$("$name" -c 'import sys; print(sys.executable)' 2>/dev/null) || continue
        version=$("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || continue
        if [[ $version != 3.11 ]]; then
            found+="${found:+, }$name is $version"
        elif "$path" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$path"
            return 0
        else
            bare=${bare:-$path}
        fi
    done
    if [[ $bare ]]; then
        echo "$bare lacks the modules venv and ensurepip;" \
            "on Debian: apt-get install python3.11-venv" >&2
    else
        echo "gluon_tricks needs Python 3.11, which was not found (${found:-no Python at all});" \
            "on Debian 12: apt-get install python3.11 python3.11-venv;" \
            "elsewhere pyenv, conda or uv can install it" >&2
    fi
    return 2
}

# make_venv DIR LOCK...: makes DIR a virtual environment with the packages in those lock files of
# docker/ and the project, editable. Does nothing if an earlier run has done it.
make_venv() {
    local dir python
    dir=$(realpath -m -- "$1") || return
    ! is_installed "$dir" "${@:2}" || return 0
    python=$(find_python) || return
    _require_libraries "$python" || return
    locked "$dir" _install "$dir" "$python" "${@:2}"
}

# Checks for the system libraries that MXNet's wheel needs and a minimal system lacks.
_require_libraries() { # PYTHON
    local missing=()
    "$1" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || missing+=(libgomp1)
    "$1" -c 'import ctypes; ctypes.CDLL("libquadmath.so.0")' 2>/dev/null || missing+=(libquadmath0)
    require_packages "MXNet needs system libraries that are missing here" "${missing[@]}"
}

# require_packages WHY PACKAGE...: if any packages are given, says why and how to install them and
# returns 2; as root in CI, installs them.
require_packages() {
    (($# > 1)) || return 0
    if ((EUID == 0)) && [[ ${CI:-} == true ]] && command -v apt-get >/dev/null; then
        echo "installing ${*:2}"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq -y --no-install-recommends "${@:2}" >/dev/null
    else
        echo "$1; on Debian: apt-get install ${*:2}" >&2
        return 2
    fi
}

# locked DIR COMMAND...: runs the command while holding a lock on DIR.
locked() {
    mkdir -p -- "$1" || return
    (
        flock -n 9 || { echo "waiting for another run to finish $1" && flock 9; } || exit
        "${@:2}"
    ) 9<"$1"
}

pip_in() { # DIR ARGUMENTS...
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$1/bin/python" -m pip -q "${@:2}"
}

# install_project DIR: installs the project; a clone's environments share what is built in it.
install_project() {
    locked "$clone" pip_in "$1" install --no-deps --no-build-isolation -e "$clone"
}

# Prints the content of DIR/gluon_tricks.stamp for a finished install. DIR comes first: an
# environment that was moved or copied has scripts that point to the old path.
_stamp() ( # DIR LOCK...
    printf '%s\n' "$1" "$clone"
    LC_ALL=C # the order of the names
    cd -- "$clone" && sha256sum docker/requirements-build.txt "${@:2}" setup.py pyproject.toml \
        gluon_tricks/_native/*.{cpp,h}
)

is_installed() { # DIR LOCK...
    [[ -x $1/bin/python && $(cat -- "$1/gluon_tricks.stamp" 2>/dev/null) == "$(_stamp "$@")" ]]
}

_install() { # DIR PYTHON LOCK...
    local stamp=$1/gluon_tricks.stamp unfinished=$1/gluon_tricks.unfinished locks=("${@:3}")
    ! is_installed "$1" "${locks[@]}" || return 0 # installed by the run that held the lock
    _make_bare "$1" "$2" || return
    echo "installing the pinned CPU stack into $1 (about 1 minute)"
    # Both OpenCVs go: they own the same files, and an earlier install may have left either.
    if ! (cd -- "$clone" && rm -f -- "$stamp" \
        && pip_in "$1" -q uninstall -y opencv-python{,-headless} \
        && pip_in "$1" install --no-deps --require-hashes -r docker/requirements-build.txt \
            "${locks[@]/#/--requirement=}" && install_project "$1"); then
        echo "the install failed, see pip's message above; run this again to try once more" >&2
        return 1
    fi
    _stamp "$1" "${locks[@]}" >"$stamp" && rm -f -- "$unfinished"
}

# Leaves a working environment in _install's DIR, the existing one or a new one. Deletes only what
# these functions created; DIR may be any folder that the user named.
_make_bare() { # DIR PYTHON
    local made="" good='import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))'
    [[ ! -f $stamp ]] || IFS= read -r made <"$stamp" || true
    if [[ ! -e $unfinished && ${made:-$1} == "$1" ]] && "$1/bin/python" -c "$good" 2>/dev/null; then
        return 0
    elif [[ ! -e $unfinished && ! $made && $(ls -A -- "$1") ]]; then
        echo "$1 exists and is not a Python 3.11 environment; move it away" >&2
        return 2
    fi
    echo "creating a virtual environment in $1"
    touch -- "$unfinished" \
        && find "$1" -mindepth 1 -maxdepth 1 ! -name gluon_tricks.unfinished -exec rm -rf -- {} + \
        && "$2" -m venv "$1"
}
