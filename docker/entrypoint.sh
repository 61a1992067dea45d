#!/usr/bin/env bash
# What an image runs: `train_imagenet --model ...` and every other script by its name, quickstart,
# sshd, or any program. In a container it is there as `gluon-tricks`, too, which starts a script
# from a shell or from horovodrun in the same way.
#
# Ends in exec, always, so that a signal reaches the command itself.
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
    printf '  %-30s%s\n' quickstart "Draw a demo data set, train on it and evaluate, in ./demo." \
        sshd "Let horovodrun in from other hosts, with the keys of /ssh; -p PORT." \
        "bash, python, horovodrun ..." "Any program of the image."
}

first_line() { # FILE: of a script's docstring
    sed -n '1s/^"""\(.*[^"]\)\("""\)\{0,1\}$/\1/p' "$1"
}

# A folder that Docker makes for -v belongs to root, and one of the host's to its user.
require_writable() { # FOLDER: it, or that in which it will be made
    local dir
    dir=$(realpath -m -- "$1")
    until [[ -e $dir ]]; do dir=$(dirname -- "$dir"); done
    [[ -d $dir && -w $dir ]] || fail "user $(id -u) cannot write to $dir: docker run with" \
        "--user \"\$(id -u):\$(id -g)\" if its folder on the host is yours, else chown that folder"
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

# An arbitrary --user has no name and no home, which programs ask for.
give_home() {
    if [[ ! -d ${HOME:-} || ! -w $HOME ]]; then
        HOME=${TMPDIR:-/tmp}/home-$(id -u)
        mkdir -p -- "$HOME" 2>/dev/null || fail "no folder for temporary files can be written:" \
            "docker run with --tmpfs /tmp"
        export HOME
    fi
    [[ ${USER:-} ]] || USER=$(id -un 2>/dev/null) || USER=$(id -u)
    export USER
}

# ssh takes only keys that belong to its user, and a mounted folder keeps the host's owner.
take_keys() {
    local keys=${SSH_KEYS:-/ssh}
    [[ -d $keys && ! -d $HOME/.ssh ]] || return 0
    id -un &>/dev/null || fail "ssh needs a user that the image knows, and $(id -u) is none:" \
        "docker run with --user root, or without --user"
    mkdir -m 700 -- "$HOME/.ssh"
    cp -- "$keys"/* "$HOME/.ssh/" 2>/dev/null \
        || fail "user $(id -u) finds no keys that it can read in $keys:" \
            "docker run with --user root"
    chmod 600 -- "$HOME"/.ssh/*
}

# As root or not; without root only its own user can log in. The host's key is made here, so that
# no two containers share one, and horovodrun does not ask for it.
serve_ssh() { # FLAGS of sshd
    local key=$HOME/.sshd/key
    [[ -d $HOME/.ssh ]] || fail "sshd needs the keys that may come in:" \
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
    -*) fail "$command is no command: the command comes before its flags (--help lists them)" ;;
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
