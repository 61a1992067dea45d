"""What commands and scripts' flags mean, recorded so that unwanted changes show.

    python tests/support/recording.py

rewrites tests/recorded/ and names what differs. No test does that: whoever adds a flag or a
setting runs it, and the commit shows what else has changed with it.

commands.json has for each of COMMANDS the JSON that --dry-run prints, as its differences from the
first one's. flags.json has for each script its flags, without their texts: what means no value
(dest from the name, no choices, a default that is not among the parsed flags) is omitted.
"""

import argparse
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import published_commands as published
from script_modules import SCRIPTS, load_script

from gluon_tricks.classification.settle import resolve_without_data

RECORDED = Path(__file__).parents[1] / "recorded"
CORES = 1729  # of the machine on which the scripts are asked for their flags
PROBES = ("2", "0", "0.5", "1,2", "a", "")  # what a flag's type is asked to parse


class Command(NamedTuple):
    """A command of a training script."""

    script: str
    words: str
    ranks: int | None = None  # how many horovodrun has started


_V1D, _RECORDS = "--model resnet50_v1d ", "--rec-train R/train.rec --rec-val R/val.rec "
_OTHERS = {
    "train_imagenet": {
        "paper's baseline": "",
        "every trick": "--num-gpus 8 --dtype float16 --batch-size 128 --num-epochs 200 --lr-mode "
                       "cosine --linear-scaling --warmup-epochs 5 --label-smoothing --mixup "
                       "--mixup-off-epoch 10 --last-gamma --no-wd --teacher resnet152_v1d",
        "mixup": "--mixup --mixup-alpha 0.4",
        "teacher": "--teacher resnet152_v1d --temperature 10 --hard-weight 0.3",
        "teacher's file": "--teacher resnet101_v1 --teacher-params T/best.params",
        "gluoncv-compat": "--gluoncv-compat",
        "gluoncv-compat, records": _RECORDS + "--gluoncv-compat --mixup --label-smoothing",
        "gluoncv-compat, teacher": "--gluoncv-compat --teacher resnet152_v1d --lr-mode cosine",
        "lars": "--optimizer lars --lars-eta 0.002 --num-gpus 64 --batch-size 128",
        "lars by default": "--optimizer lars",
        "adam": "--optimizer adam", "sgd": "--optimizer sgd --momentum 0",
        "adabound": "--optimizer adabound --final-lr 0.05 --wd 0.0005",
        "amsbound": "--optimizer amsbound",
        "ema": "--ema", "ema 0.99": "--ema 0.99 --keep 3",
        "cosine": "--lr-mode cosine --warmup-updates 300 --warmup-lr 0.01",
        "poly": "--lr-mode poly --warmup-epochs 3 --warmup-mode constant --warmup-lr 0.01",
        "constant": "--lr-mode constant --lr 0.02",
        "period": "--lr-decay-period 20 --lr-decay 0.3 --num-epochs 90",
        "accumulate": "--accumulate 4 --clip-grad-norm 5 --l1 0.00001",
        "augmentation": "--auto-augment imagenet --crop-area 0.2,0.9 --color-jitter 0.1 "
                        "--pca-noise 0 --antialias --crop-ratio 0.9 --dct-shortcut never",
        "pad": "--crop pad --input-size 32 --rgb-mean 1,2,3 --rgb-std 4,5,6 --shuffle-labels",
        "dynamic loss scale": "--dtype float16 --num-gpus 1",
        "loss scale": "--dtype float16 --num-gpus 1 --loss-scale 128 --nan skip",
        "bfloat16": "--dtype bfloat16 --num-cpu-ranks 2 --grad-compression fp16",
        "ranks": "--num-gpus 16 --num-groups 3 --grad-predivide 4 --seed 7",
        "network": "--dropout 0.2 --mode imperative --num-classes 10 --num-training-samples 5000",
        "networks' options": "--use-se --batch-norm --use-sk --use-avd --dropblock-prob 0.1",
        "fine-tuning": "--init-params resnet50_v1d --new-classifier --freeze-until layer3 "
                       "--lr-mult-head 10 --num-classes 37",
        "pretrained": "--use-pretrained --num-epochs 5",
        "files": _RECORDS + "--rec-train-idx a.idx --rec-val-idx b.idx --use-rec --data-dir D "
                 "--save-dir S --logging-file l.log --tensorboard -j 0 --data-backend opencv "
                 "--on-bad-record skip",
        "resume": "--resume auto --save-dir S --checkpoint-steps 100 --log-interval 10 "
                  "--save-frequency 5 --eval-frequency 2 --early-stop-patience 9",
        "of gluoncv's": "--resume-params a.params --resume-states a.states --resume-epoch 3"},
    "train_cifar10": {
        "preset": "", "mixup": "--mixup", "short mixup": "--mixup --num-epochs 10",
        "gluoncv-compat": "--gluoncv-compat", "gluoncv-compat, mixup": "--gluoncv-compat --mixup",
        "cosine": "--lr-mode cosine --auto-augment cifar10 --label-smoothing 0.2 --ema",
        "GluonCV's names": "--model cifar_wideresnet16_10 --drop-rate 0.3 --save-period 5 "
                           "--resume-from a.params"},
    "train_horovod": {
        "preset": "", "CPUs": "--no-cuda", "CPU ranks": "--num-cpu-ranks 2 --dtype bfloat16",
        "four GPUs": "--num-gpus 4 --auto_aug --data-nthreads 3 --lr 0.1",
        "teacher": "--no-cuda --teacher resnet50_v1d", "gluoncv-compat": "--gluoncv-compat",
        "mixup": "--mixup --label-smoothing --dtype float16 --last-gamma --no-wd"}}

COMMANDS = {
    **{f"train_imagenet: {name}": Command("train_imagenet", _V1D + words)
       for name, words in _OTHERS["train_imagenet"].items()},
    **{f"{script}: {name}": Command(script, words)
       for script in ("train_cifar10", "train_horovod")
       for name, words in _OTHERS[script].items()},
    **{f"published: {name}": Command("train_imagenet", words)
       for name, words in published.IMAGENET.items()},
    **{f"published horovod: {name}": Command("train_horovod", words, ranks)
       for name, (ranks, words) in published.HOROVOD.items()},
    **{f"published cifar10: {name}": Command("train_cifar10", words)
       for name, words in published.CIFAR10.items()},
    **{f"published mixup_cifar10: {name}": Command("train_cifar10", f"{words} --mixup")
       for name, words in published.MIXUP_CIFAR10.items()}}

NAMES = sorted(str(path.relative_to(SCRIPTS).with_suffix("")) for path in
               (*SCRIPTS.glob("[!_]*.py"), *SCRIPTS.glob("benchmarks/[!_]*.py")))


def dry_run(command: Command) -> dict[str, Any]:
    """What the script's --dry-run prints, without building the network."""
    environment = {} if command.ranks is None else {
        f"HOROVOD_{name}": str(value) for name, value in (
            ("SIZE", command.ranks), ("RANK", 0), ("LOCAL_RANK", 0),
            ("LOCAL_SIZE", min(command.ranks, 8)))}
    words = [command.script, "--dry-run", *shlex.split(command.words)]
    module = load_script(command.script)
    with mock.patch.object(module, "dispatch", return_value=None) as dispatched, \
            mock.patch.dict(os.environ, environment), mock.patch.object(sys, "argv", words):
        module.main()
    _, settings = dispatched.call_args.args
    return json.loads(resolve_without_data(settings).to_json())


class _Caught(Exception):
    """Carries a script's parser out of its main function."""


def _catch(parser: argparse.ArgumentParser, *_) -> None:
    raise _Caught(parser)


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser with which a script reads its flags, on a machine of CORES cores."""
    folder = str((SCRIPTS / script).parent)
    with mock.patch.object(sys, "path", [folder, *sys.path]), \
            mock.patch.object(os, "cpu_count", return_value=CORES), \
            mock.patch.multiple(argparse.ArgumentParser, parse_args=_catch,
                                parse_intermixed_args=_catch):
        module = load_script(script)
        try:
            module.main(*[None] * module.main.__code__.co_argcount)
        except _Caught as caught:
            return caught.args[0]
    raise AssertionError(f"{script} has read no flags")


def flags(script: str) -> dict[str, Any]:
    """A script's flags by their names; its flags that exclude each other."""
    parser = parser_of(script)
    found = {" ".join(action.option_strings) or action.dest: _flag(action)
             for action in parser._actions if action.dest != "help"}
    exclusive = [[action.option_strings[0] for action in group._group_actions] +
                 ["required"] * group.required for group in parser._mutually_exclusive_groups]
    return {**found, **({"one of": exclusive} if exclusive else {})}


def _flag(action: argparse.Action) -> dict[str, Any]:
    kind = type(action).__name__.strip("_").removesuffix("Action")
    shown = re.search(r"\(default: (\S+)\)", action.help or "")  # a value, in place of words
    usual = {action.dest.replace("_", "-"), action.dest}
    named = [name.lstrip("-") for name in action.option_strings if name.startswith("--")]
    said = {"dest": action.dest if named and named[0] not in usual else None,
            "kind": kind if kind != "Store" else None, "type": _type(action.type),
            "nargs": action.nargs if kind == "Store" else None,
            "const": action.const if kind == "Store" else None,
            "choices": action.choices, "required": action.required or None,
            "shown": shown and shown[1]}
    said = {name: value for name, value in said.items() if value is not None}
    if action.default is not argparse.SUPPRESS and kind != "StoreTrue":
        said["default"] = "a core each" if action.default == CORES else action.default
    elif action.default is True:
        raise AssertionError(f"{action.dest} is on by default")
    return json.loads(json.dumps(said, default=str))


def _type(kind: Any) -> Any:
    """A plain type's name; for another, what it makes of those PROBES that it accepts."""
    if kind in (None, int, float, str):
        return kind and kind.__name__
    taken: dict[str, Any] = {}
    for text in PROBES:
        try:
            taken[text] = kind(text)
        except (ValueError, argparse.ArgumentTypeError):
            continue
    return "path" if isinstance(taken.get("a"), Path) else taken


def recorded(name: str) -> dict[str, Any]:
    """commands.json with the differences filled in, or flags.json."""
    found = json.loads((RECORDED / f"{name}.json").read_text())
    if name != "commands":
        return found
    base = next(iter(found.values()))
    return {command: {**base, **changes} for command, changes in found.items()}


def differences(want: dict[str, Any], got: dict[str, Any], where: str = "") -> list[str]:
    """Lines that say how two of these differ."""
    lines = []
    for name in dict.fromkeys((*want, *got)):
        old, new = (each.get(name, "nothing") for each in (want, got))
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{where}{name}, ")
        elif old != new:
            lines.append(f"{where}{name}: recorded {old!r}, now {new!r}")
    return lines


def record() -> None:
    """Write both files."""
    every = {name: dry_run(command) for name, command in COMMANDS.items()}
    base = next(iter(every.values()))
    changes = {name: {key: value for key, value in values.items() if base[key] != value}
               for name, values in every.items()}
    rows = [f" {json.dumps(name)}: {json.dumps(changes[name] if number else base)}"
            for number, name in enumerate(every)]
    _write("commands", "{\n" + ",\n".join(rows) + "\n}\n")
    scripts = []
    for script in NAMES:
        rows = [f"  {json.dumps(name)}: {json.dumps(value)}"
                for name, value in flags(script).items()]
        scripts.append(f" {json.dumps(script)}: {{\n" + ",\n".join(rows) + "\n }")
    _write("flags", "{\n" + ",\n".join(scripts) + "\n}\n")


def _write(name: str, text: str) -> None:
    path = RECORDED / f"{name}.json"
    before = recorded(name) if path.exists() else {}
    path.write_text(text)
    for key, value in recorded(name).items():
        for line in differences(before[key], value) if key in before else ["new"]:
            print(f"{path.name}, {key}: {line}")


if __name__ == "__main__":
    record()
