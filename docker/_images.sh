# shellcheck shell=bash disable=SC2154
# Builds and runs images with buildah; sourced by check.sh, which says more and sets $clone.

base_image=docker.io/library/debian:bookworm-slim

require_tools() {
    local missing=() name
    if ((EUID)); then
        echo "needs root, for buildah's chroot and debootstrap: sudo bash docker/check.sh" >&2
        exit 2
    fi
    for name in buildah debootstrap; do
        type -P "$name" >/dev/null || missing+=("$name")
    done
    type -P ssh-keygen >/dev/null || missing+=(openssh-client)
    ((${#missing[@]})) || return 0
    if ! type -P apt-get >/dev/null; then
        echo "needs ${missing[*]}, and there is no apt-get to install them" >&2
        exit 2
    fi
    echo "installing ${missing[*]}"
    apt-get update -qq \
        && DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# open_storage DIR: keeps images in DIR, or in a folder that is deleted at the end, as is $work, the
# folder for everything else.
open_storage() {
    export BUILDAH_ISOLATION=chroot
    work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" gluon-tricks-check.XXXXXX)
    storage=${1:-$work}
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 -- "$work" # the containers' users look into it
    mkdir -p -- "$storage"
}

buildah() { command buildah --root "$storage/storage" --runroot "$storage/run" "$@"; }

clean_up() {
    local job
    for job in $(jobs -p); do kill -- "$job" 2>/dev/null || true; done
    wait
    if [[ $storage == "$work" ]]; then
        buildah rm --all >/dev/null || true
        buildah rmi --all --force >/dev/null || true
        # The storage mounts itself; deleting must not go through a mount.
        umount -- "$storage/storage/overlay" 2>/dev/null || true
    elif [[ ${container:-} ]]; then
        close_image || true
    fi
    rm -rf --one-file-system -- "$work"
}

# Makes a stand-in for debian:bookworm-slim, with what this machine needs to reach its registries.
make_base() {
    local root=$work/base container
    if buildah images -q "$base_image" &>/dev/null; then return; fi
    echo "making the base by debootstrap"
    debootstrap --variant=minbase bookworm "$root" >"$work/debootstrap" \
        || { tail -n 20 "$work/debootstrap" && exit 1; }
    _configure_base "$root"
    container=$(buildah from scratch)
    buildah copy -q "$container" "$root" / >/dev/null
    buildah config --cmd bash "$container"
    buildah commit -q "$container" "$base_image" >/dev/null
    buildah rm "$container" >/dev/null
    rm -rf --one-file-system -- "$root"
}

_configure_base() { # ROOT
    local sources=$1/etc/apt/sources.list.d/debian.sources mirror key
    mirror=$(awk '$1 == "deb" { print $2; exit }' "$1/etc/apt/sources.list")
    rm -- "$1/etc/apt/sources.list"
    if [[ -f /etc/apt/sources.list.d/debian.sources ]]; then
        cp -- /etc/apt/sources.list.d/debian.sources "$sources"
    else
        printf '%s\n' "Types: deb" "URIs: $mirror" "Suites: bookworm bookworm-updates" \
            "Components: main" "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" \
            >"$sources"
    fi
    apt-config dump | grep -E '^Acquire::(https?|Check-|Retries)' \
        >"$1/etc/apt/apt.conf.d/99-host" || true
    # Not at the path where installing ca-certificates would put its own.
    cp -L -- /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/host.pem"
    printf '%s\n' "[global]" "cert = /etc/ssl/host.pem" >"$1/etc/pip.conf"
    for key in index-url proxy trusted-host timeout; do
        # The environment's settings take precedence, as in pip.
        python3 -m pip config list | sed -nE "s/^(:env:|global)\.$key='(.*)'\$/$key = \2/p" \
            | head -n 1 >>"$1/etc/pip.conf"
    done
    rm -rf -- "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*
}

build() { # TARGET: of the Dockerfile of $clone
    local log=$work/build-$1 start=$SECONDS
    echo "building $1"
    # The Dockerfile's SHELL exists only in Docker's format, not in OCI's.
    if ! buildah bud --format docker --layers --pull-never --target "$1" \
        --tag "gluon-tricks:$1" --ignorefile "$clone/docker/Dockerfile.dockerignore" \
        -f "$clone/docker/Dockerfile" "$clone" &>"$log"; then
        tail -n 60 -- "$log"
        echo "FAILED: building $1" >&2
        exit 1
    fi
    printf 'built %s in %d minutes: %s\n' "$1" $(((SECONDS - start + 59) / 60)) \
        "$(buildah images --noheading --format '{{.Size}}' "gluon-tricks:$1")"
}

# open_image TARGET: sets $container, which all checks of the image share, and $entrypoint.
open_image() {
    # Gloo resolves the host's name.
    container=$(buildah from --add-host container:127.0.0.1 --pull-never \
        "localhost/gluon-tricks:$1")
    buildah config --hostname container "$container" 2>/dev/null
    mapfile -t entrypoint < <(buildah inspect --format \
        '{{range .Docker.Config.Entrypoint}}{{println .}}{{end}}' "$container" | sed '/^$/d')
}

close_image() {
    buildah rm "$container" >/dev/null
    container=""
}

# within OPTIONS... -- COMMAND...: runs a command without the entrypoint.
within() {
    local options=()
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    buildah run "${options[@]}" "$container" "$@"
}

# image OPTIONS... COMMAND...: runs a command through the entrypoint, like `docker run OPTIONS...
# IMAGE COMMAND...`; buildah's own `run` skips it. An option's value must be a separate word.
image() {
    local options=()
    while [[ ${1-} == -* ]]; do
        options+=("$1" "$2")
        shift 2
    done
    within "${options[@]}" -- "${entrypoint[@]}" "$@"
}
