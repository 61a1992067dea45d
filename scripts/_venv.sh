# shellcheck shell=bash
# Finds Python 3.11 and makes virtual environments; sourced by quickstart.sh and test.sh.
#
# Each step that may fail ends in `|| return`: bash ignores `set -e` inside a function whose
# result its caller tests.

clone=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)

# find_python: prints the path of a Python 3.11 that can make virtual environments.
find_python() {
    local name version path found="" bare=""
    for name in python3.11 python3 python; do
        # Run, not only looked up: a version manager's shim can be there and lead nowhere.
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
            || continue
        if [[ $version != 3.11 ]]; then
            found+="${found:+, }$name is $version"
            continue
        fi
        path=$("$name" -c 'import sys; print(sys.executable)') || continue
        if "$path" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$path"
            return 0
        fi
        bare=${bare:-$path}
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

# make_venv DIR EXTRAS: DIR becomes a virtual environment with the project, editable, and its
# EXTRAS ("cpu" or "cpu,test"). Does nothing where an earlier run has done it.
make_venv() {
    local dir python
    dir=$(realpath -m -- "$1") || return
    is_installed "$dir" "$2" && return 0
    python=$(find_python) || return
    _require_libraries "$python" || return
    locked "$dir" _install "$dir" "$2" "$python"
}

# mend_opencv DIR: where cv2 cannot load, as on a machine without libGL, puts the headless build,
# which draws no windows and needs no such library, in its place. pip brings opencv-python back
# with each install, gluoncv asks for it by name: call this after every make_venv.
mend_opencv() {
    _why_no_cv2 "$1" >/dev/null || locked "$1" _replace_opencv "$1"
}

# require_ready DIR: makes sure that an environment which somebody else made has this project, from
# this folder. Nothing is installed into it.
require_ready() {
    local found
    if [[ ! -x $1/bin/python ]]; then
        echo "GLUON_TRICKS_VENV=$1 is no environment: it has no bin/python" >&2
        return 2
    fi
    # From the root: the folder that python is started in is no part of the environment.
    found=$(cd / && "$1/bin/python" 2>/dev/null \
        -c 'import gluon_tricks; print(gluon_tricks.__path__[0])') || found=none
    if [[ $found != "$clone/gluon_tricks" ]]; then
        echo "GLUON_TRICKS_VENV=$1 has not this project (found: $found); activate it and run" \
            "pip install -e '${clone}[cpu]'" >&2
        return 2
    fi
}

# The libraries that MXNet's wheel takes from the system and a small system lacks.
_require_libraries() { # PYTHON
    local missing=()
    "$1" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || missing+=(libgomp1)
    "$1" -c 'import ctypes; ctypes.CDLL("libquadmath.so.0")' 2>/dev/null || missing+=(libquadmath0)
    require_packages "MXNet needs system libraries that are missing here" "${missing[@]}"
}

# require_packages WHY PACKAGE...: with packages to install, says why and how and returns 2; as root
# in CI, installs them.
require_packages() {
    local why=$1
    shift
    (($#)) || return 0
    if ((EUID == 0)) && [[ ${CI:-} == true ]] && command -v apt-get >/dev/null; then
        echo "installing $*"
        apt-get update -qq \
            && DEBIAN_FRONTEND=noninteractive \
                apt-get install -qq -y --no-install-recommends "$@" >/dev/null
    else
        echo "$why; on Debian: apt-get install $*" >&2
        return 2
    fi
}

# locked DIR COMMAND...: runs the command while no other run works on DIR.
locked() {
    local dir=$1
    shift
    mkdir -p -- "$dir" || return
    (
        flock -n 9 || { echo "waiting for another run to finish $dir" && flock 9; } || exit
        "$@"
    ) 9<"$dir"
}

pip_in() { # DIR ARGUMENTS...
    local dir=$1
    shift
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$dir/bin/python" -m pip -q "$@"
}

# has_native DIR: whether the C++ decoder is there, built from the sources that are there.
has_native() {
    "$1/bin/python" -I 2>/dev/null - <<'END'
import sys

from gluon_tricks.data.native import why_not

sys.exit(why_not() is not None)
END
}

# require_native PYTHON: makes sure of what the C++ decoder's build needs, as require_packages does.
require_native() {
    local include missing=()
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_paths()["include"])') || return
    command -v g++ >/dev/null || missing+=(g++)
    [[ -f $include/Python.h ]] || missing+=(python3.11-dev)
    g++ -E -x c++ - <<<$'#include <cstdio>\n#include <jpeglib.h>' &>/dev/null \
        || missing+=(libjpeg62-turbo-dev)
    require_packages "the tests of the native decoder will skip" "${missing[@]}"
}

# build_native DIR: builds the C++ decoder, which make_venv goes without where its build fails; here
# the compiler's words are shown and the status is not 0.
build_native() {
    ! has_native "$1" || return 0
    echo "building the native decoder"
    GLUON_TRICKS_NATIVE=required _install_editable "$1" . --no-deps
}

# All environments of a clone share what is built in its folder.
_install_editable() { # DIR TARGET PIP-ARGUMENTS...
    (cd -- "$clone" && locked "$clone" pip_in "$1" install -e "${@:2}")
}

# What DIR/gluon_tricks.stamp says of a finished install. DIR comes first: an environment that was
# moved or copied has scripts that point to the old place.
_stamp() ( # DIR EXTRAS
    printf '%s\n' "$1" "$clone" "$2"
    LC_ALL=C # the order of the names
    cd -- "$clone" && sha256sum setup.py pyproject.toml gluon_tricks/_native/*.{cpp,h}
)

is_installed() { # DIR EXTRAS
    [[ -x $1/bin/python && -f $1/gluon_tricks.stamp ]] \
        && [[ $(<"$1/gluon_tricks.stamp") == "$(_stamp "$1" "$2")" ]]
}

_install() { # DIR EXTRAS PYTHON
    is_installed "$1" "$2" && return 0 # by the run that held the lock
    _make_bare "$1" "$3" || return
    echo "installing the pinned CPU stack into $1 (about 1 minute)"
    rm -f -- "$1/gluon_tricks.stamp" || return
    if ! _install_editable "$1" ".[$2]"; then
        echo "the install failed, see pip's message above; run this again to try once more" >&2
        return 1
    fi
    _stamp "$1" "$2" >"$1/gluon_tricks.stamp" && rm -f -- "$1/gluon_tricks.unfinished"
}

# Leaves a working environment in DIR: the one that is there, or a new one. Deletes only what
# these functions made themselves; DIR may be any folder that the user named.
_make_bare() { # DIR PYTHON
    local unfinished=$1/gluon_tricks.unfinished made_at=""
    if [[ -f $1/gluon_tricks.stamp ]]; then
        IFS= read -r made_at <"$1/gluon_tricks.stamp" || true
    fi
    if [[ ! -e $unfinished && ${made_at:-$1} == "$1" ]] && _is_sound "$1"; then
        return 0
    fi
    if [[ ! -e $unfinished && ! $made_at && $(ls -A -- "$1") ]]; then
        echo "$1 holds something else than a Python 3.11 environment; move it away" >&2
        return 2
    fi
    echo "making a virtual environment in $1"
    touch -- "$unfinished" || return
    find "$1" -mindepth 1 -maxdepth 1 ! -name "${unfinished##*/}" -exec rm -rf -- {} + || return
    "$2" -m venv "$1" || return 1
}

_is_sound() { # DIR
    "$1/bin/python" -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

# Fails and prints the reason where cv2 does not load. The reason's name says whose fault it is:
# "cv2" where its own library or one that it needs cannot be loaded, or where it is not there (an
# interrupted replacement); anything else, such as NumPy's fault, ends in status 1, not 3.
_why_no_cv2() { # DIR
    "$1/bin/python" - <<'END'
import sys

try:
    from cv2 import imdecode
except ImportError as error:
    print(str(error).strip())
    sys.exit(3 if error.name == "cv2" else 1)
END
}

_replace_opencv() { # DIR
    local reason status=0 headless
    reason=$(_why_no_cv2 "$1") || status=$?
    if ((status == 3)); then
        headless=$(_headless_pin "$1") || return 1
        # Both go first: they own the same files, and pip skips a package that it finds listed.
        pip_in "$1" -q uninstall -y opencv-python opencv-python-headless || return 1
        pip_in "$1" install --no-deps "$headless" || return 1
        echo "opencv-python cannot load here ($reason): replaced by $headless"
        status=0
        reason=$(_why_no_cv2 "$1") || status=$?
    fi
    if ((status)); then
        echo "OpenCV does not load: $reason" >&2
        return 1
    fi
}

_headless_pin() { # DIR
    "$1/bin/python" - <<'END'
from importlib.metadata import requires

pin = next(line for line in requires("gluon_tricks") if line.startswith("opencv-python=="))
print(pin.replace("opencv-python", "opencv-python-headless"))
END
}
