#!/usr/bin/env bash
# The images' entrypoint: runs `train_imagenet --model ...` and every other script by its name,
# quickstart, sshd, or any program. In a container it is also available as `gluon-tricks`, to start
# a script from a shell or horovodrun in the same way.
#
# Always ends in exec, so that a signal reaches the command itself.
set -euo pipefail

home=$(dirname -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")")
scripts=$home/scripts

fail() {
    echo "error: $*" >&2
    exit 2
}

list_commands() {
    local file name
    echo "usage: COMMAND [FLAGS...]; COMMAND --help lists a script's flags"
    for file in "$scripts"/*.py "$scripts"/benchmarks/*.py; do
        name=${file#"$scripts/"}
        [[ ${name##*/} == _* ]] || printf '  %-30s%s\n' "${name%.py}" "$(first_line "$file")"
    done
    printf '  %-30s%s\n' quickstart "Generate demo data, train on it and evaluate, in ./demo." \
        sshd "Accept horovodrun from other hosts, with the keys in /ssh; -p PORT." \
        "bash, python, horovodrun ..." "Any program in the image."
}

first_line() { # FILE: of a script's docstring
    sed -n '1s/^"""\(.*[^"]\)\("""\)\{0,1\}$/\1/p' "$1"
}

# A folder that Docker creates for -v belongs to root, and one of the host's to its user.
require_writable() { # FOLDER: checks it, or the existing folder in which it will be created
    local dir
    dir=$(realpath -m -- "$1")
    until [[ -e $dir ]]; do dir=$(dirname -- "$dir"); done
    [[ -d $dir && -w $dir ]] || fail "user $(id -u) cannot write to $dir: docker run with" \
        "--user \"\$(id -u):\$(id -g)\" if its folder on the host is yours; else chown that folder"
}

require_run_folder() { # FLAGS of a script that trains
    local folder=. previous="" flag
    for flag; do
        case $previous in --save-dir) folder=$flag ;; esac
        case $flag in
            -h | --help | --dry-run | --benchmark* | --test-io*) return 0 ;; # writes nothing
            --save-dir=*) folder=${flag#*=} ;;
        esac
        previous=$flag
    done
    require_writable "$folder"
}

# An arbitrary --user has no name and no home, which programs need.
give_home() {
    if [[ ! -d ${HOME:-} || ! -w $HOME ]]; then
        HOME=${TMPDIR:-/tmp}/home-$(id -u)
        mkdir -p -- "$HOME" 2>/dev/null || fail "no folder for temporary files is writable:" \
            "docker run with --tmpfs /tmp"
        export HOME
    fi
    [[ ${USER:-} ]] || USER=$(id -un 2>/dev/null) || USER=$(id -u)
    export USER
}

# ssh accepts only keys that belong to its user, and a mounted folder keeps the host's owner.
take_keys() {
    local keys=${SSH_KEYS:-/ssh}
    [[ -d $keys && ! -d $HOME/.ssh ]] || return 0
    id -un &>/dev/null || fail "ssh needs a user that the image knows, and $(id -u) is not one:" \
        "docker run with --user root, or without --user"
    mkdir -m 700 -- "$HOME/.ssh"
    cp -- "$keys"/* "$HOME/.ssh/" 2>/dev/null \
        || fail "user $(id -u) cannot read any keys in $keys:" \
            "docker run with --user root"
    chmod 600 -- "$HOME"/.ssh/*
}

# Works with or without root; without it only its own user can log in. The host's key is generated
# here, so that no two containers share one; horovodrun does not ask about it.
serve_ssh() { # FLAGS of sshd
    local key=$HOME/.sshd/key
    [[ -d $HOME/.ssh ]] || fail "sshd needs the keys that may log in:" \
        "docker run with -v ~/.ssh:/ssh:ro"
    [[ -d $HOME/.sshd ]] || mkdir -m 700 -- "$HOME/.sshd"
    [[ -f $key ]] || ssh-keygen -q -t ed25519 -N '' -f "$key"
    ((EUID)) || mkdir -p /run/sshd
    exec /usr/sbin/sshd -D -e -f /dev/null -o "HostKey=$key" -o PidFile=none -o UsePAM=no \
        -o PasswordAuthentication=no -o "SetEnv=PATH=$PATH" "$@"
}

command=${1:-}
shift || true
give_home
case $command in
    "" | -h | --help)
        list_commands
        exit 0
        ;;
    -*) fail "$command is not a command: the command comes before its flags (--help lists them)" ;;
    quickstart)
        [[ " $* " == *" --dir "* || " $* " == *" --help "* ]] || require_writable .
        exec bash "$scripts/quickstart.sh" --dir "$PWD/demo" "$@"
        ;;
    sshd)
        take_keys
        serve_ssh "$@"
        ;;
    horovodrun) take_keys ;;
esac

name=${command%.py}
if [[ $name =~ ^(benchmarks/)?[a-z][a-z0-9_]*$ && -f $scripts/$name.py ]]; then
    [[ $name != train_* ]] || require_run_folder "$@"
    exec python "$scripts/$name.py" "$@"
fi
type -P -- "$command" >/dev/null || fail "there is no command $command (--help lists them)"
exec "$command" "$@"
