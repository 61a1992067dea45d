#!/usr/bin/env bash
# From a fresh clone to a trained network: bash scripts/quickstart.sh [--shuffle-labels] [--epochs N] [--dir DIR]
#
# Creates .venv (or uses the environment that GLUON_TRICKS_VENV names, as the Docker images do),
# generates a demo data set, packs it, trains ResNet-18-D on it with the paper's tricks and
# evaluates it, all in DIR (default: demo in the clone). Re-running skips finished steps.
# --shuffle-labels shuffles the training labels: accuracy on the held-out images must then be no
# better than chance.
set -euo pipefail

# shellcheck source=scripts/_venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/_venv.sh"

usage="usage: bash scripts/quickstart.sh [--shuffle-labels] [--epochs N] [--dir DIR]"
dir=$clone/demo
shuffle=()
epochs=10
name=resnet18_v1d
while (($#)); do
    case $1 in
        --shuffle-labels)
            shuffle=(--shuffle-labels)
            name=resnet18_v1d-shuffled-labels
            ;;
        --epochs)
            [[ ${2-} =~ ^[1-9][0-9]*$ ]] || { echo "--epochs needs a number; $usage" >&2 && exit 2; }
            epochs=$2
            shift
            ;;
        --dir)
            (($# > 1)) || { echo "--dir needs a folder; $usage" >&2 && exit 2; }
            dir=$(realpath -m -- "$2")
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
((epochs == 10)) || name+=-$epochs-epochs
pictures=$dir/pictures
run=$dir/runs/$name

# require_ready DIR: checks that an environment made elsewhere has this project, from this folder.
# Installs nothing into it.
require_ready() {
    local found
    if [[ ! -x $1/bin/python ]]; then
        echo "GLUON_TRICKS_VENV=$1 is not a virtual environment: it has no bin/python" >&2
        return 2
    fi
    # From the root: the folder that python is started in is not part of the environment.
    found=$(cd / && "$1/bin/python" 2>/dev/null \
        -c 'import gluon_tricks; print(gluon_tricks.__path__[0])') || found=none
    if [[ $found != "$clone/gluon_tricks" ]]; then
        echo "GLUON_TRICKS_VENV=$1 lacks this project (found: $found); activate it and run," \
            "in $clone, pip install --no-deps --require-hashes -r docker/requirements-cpu.txt &&" \
            "pip install --no-deps -e ." >&2
        return 2
    fi
}

if [[ ${GLUON_TRICKS_VENV:-} ]]; then
    venv=$GLUON_TRICKS_VENV
    require_ready "$venv"
else
    venv=$clone/.venv
    make_venv "$venv" docker/requirements-cpu.txt
fi
python=$venv/bin/python
mkdir -p "$dir"

step() { # MESSAGE: announces a step, in bold on a terminal
    if [[ -t 1 ]]; then printf '\n\033[1m%s\033[0m\n' "$1"; else printf '\n%s\n' "$1"; fi
}

step "1. Images: $pictures"
[[ -d $pictures ]] || "$python" "$clone/scripts/make_demo.py" "$pictures"

step "2. RecordIO: $dir/train.rec, $dir/val.rec"
for part in train val; do
    classes=()
    [[ $part == train ]] || classes=(--classes "$dir/train.classes.json")
    # The .idx appears last.
    if [[ ! -f $dir/$part.idx ]]; then
        rm -f "$dir/$part".{rec,lst,classes.json}{,.part} "$dir/$part.idx.part"
        "$python" "$clone/scripts/im2rec.py" "$pictures/$part" "$dir/$part" "${classes[@]}"
    fi
done

step "3. Training: $run"
if ! grep -qs '"kind": "end"' "$run/log.jsonl"; then
    # Keeps what an interrupted training left, under another name.
    [[ ! -e $run ]] || mv "$run" "$run-unfinished-$(date +%Y%m%d-%H%M%S)"
    "$python" "$clone/scripts/train_imagenet.py" --model resnet18_v1d --input-size 64 \
        --rec-train "$dir/train.rec" --rec-val "$dir/val.rec" --save-dir "$run" \
        --num-epochs "$epochs" --lr 0.02 --lr-mode cosine --warmup-epochs 1 \
        --label-smoothing --last-gamma --no-wd --log-interval 20 "${shuffle[@]}"
fi

step "4. Evaluation: $run/last.params"
if [[ ! -s $run/evaluation.txt ]]; then
    "$python" "$clone/scripts/evaluate.py" --model resnet18_v1d --input-size 64 \
        --params "$run/last.params" --rec-val "$dir/val.rec" >"$run/evaluation.txt.part"
    mv "$run/evaluation.txt.part" "$run/evaluation.txt"
fi

step "$(<"$run/evaluation.txt")"
echo "run folder: $run"
echo "curves:     $run/curves.png"
