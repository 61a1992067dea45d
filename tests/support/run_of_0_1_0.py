"""Runs that version 0.1.0 (62d09f1) left unfinished, and what it made of them: how they were made.

In a checkout of 62d09f1, into which this file was copied:

    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/support/run_of_0_1_0.py run_of_0_1_0.zip

The zip is never remade: it defines what later versions must do with a run of 0.1.0, which is
tried in a folder with the unpacked zip, by

    OMP_NUM_THREADS=1 python tests/support/run_of_0_1_0.py NAME

since another number of threads changes the last bits. The zip holds

    data/           train.rec and val.rec, small noisy images; teacher.params
    NAME/           the folder of each of RUNS, killed in its third epoch of three; no curves.png
    NAME-done/      how 0.1.0 finished it: log.jsonl, last.params, the last checkpoint's arrays
    used.json       what evaluate.py said of NAME before and after, and the logits of what export.py
                    wrote
    processor.json  the processor that computed these bits

All paths in it are relative to its folder. Only scripts are called, since modules move.
"""

import contextlib
import io
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from script_modules import load_script

COMMON = ("--model cifar_resnet20_v1 --rec-train data/train.rec --rec-val data/val.rec "
          "--input-size 32 --batch-size 4 --num-epochs 3 --lr 0.05 --wd 0.01 --log-interval 1 -j 2 "
          "--seed 3 ")
RUNS = {  # backend, and further flags
    "opencv": ("opencv", "--lr-mode cosine --warmup-epochs 1 --mixup --label-smoothing --no-wd "
                         "--ema 0.9 --crop-ratio 0.8"),
    "native": ("native", "--optimizer lars --lars-eta 0.02 --lr 2 --accumulate 2 --l1 0.001 "
                         "--clip-grad-norm 0.5 --lr-decay-epoch 2 --rgb-mean 120,110,100"),
    "compat": ("opencv", "--gluoncv-compat --mode hybrid --mixup --label-smoothing --optimizer "
                         "sgd --lr-mode poly --warmup-epochs 1 --auto-augment cifar10 "
                         "--teacher cifar_resnet20_v1 --teacher-params data/teacher.params")}


class Small(nn.HybridSequential):
    """Replaces the model of the runs in GluonCV's zoo."""

    def __init__(self, classes):
        super().__init__()
        self.add(nn.Conv2D(8, 5, strides=4, in_channels=3, use_bias=False),
                 nn.BatchNorm(in_channels=8), nn.Activation("relu"), nn.Dropout(0.3),
                 nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(classes, in_units=8))


def call(script: str, words: str) -> str:
    """What scripts/SCRIPT.py prints, called in this process, with Small for GluonCV's networks."""
    printed = io.StringIO()
    with mock.patch("gluoncv.model_zoo.get_model",
                    lambda name, pretrained=False, **options: Small(**options)), \
            mock.patch.object(sys, "argv", [script, *words.split()]), \
            contextlib.redirect_stdout(printed):
        load_script(script).main()
    return printed.getvalue()


def flags(name: str) -> str:
    """The flags of a run."""
    backend, more = RUNS[name]
    return f"{COMMON} --data-backend {backend} --save-dir {name} {more}"


def scores(name: str, folder: str) -> dict[str, Any]:
    """What evaluate.py prints for the parameters in a run's folder, or a checkpoint's."""
    return json.loads(call("evaluate", f"--run {folder} --rec-val data/val.rec --data-backend "
                                       f"{RUNS[name][0]} --batch-size 3 --json"))


def logits(name: str) -> list[list[float]]:
    """What the symbol that export.py writes for a run computes for a fixed batch."""
    call("export", f"--run {name} --format symbol --out exported")
    network = nn.SymbolBlock.imports("exported-symbol.json", ["data"], "exported-0000.params")
    return network(mx.nd.array(images())).asnumpy().tolist()


def used(name: str) -> dict[str, Any]:
    """The contents of a run's folder as it is."""
    newest = max(Path(name, "checkpoints").iterdir())
    return {"scores": scores(name, name), "scores of the checkpoint": scores(name, str(newest)),
            "logits": logits(name)}


def images() -> np.ndarray:
    """A batch for the exported network."""
    return np.random.default_rng(5).normal(size=(3, 3, 32, 32)).astype(np.float32)


def instruction_sets() -> list[str]:
    """The processor's flags that affect arithmetic."""
    info = Path("/proc/cpuinfo")
    words = info.read_text().split() if info.is_file() else []
    return sorted({word for word in words
                   if word.startswith(("sse", "ssse", "avx", "fma", "f16c", "amx"))})


def write_records(path: Path, count: int) -> None:
    """Images of three classes, by color and by noise."""
    rng = np.random.default_rng(count)
    records = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")
    for key in range(count):
        image = rng.integers(0, 160, (12, 10, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        image[..., key % 3] += 20
        header = mx.recordio.IRHeader(0, key % 3, key, 0)
        records.write_idx(key, mx.recordio.pack_img(header, image, quality=90))
    records.close()


@contextlib.contextmanager
def killed_in_the_third_epoch(name: str) -> Iterator[None]:
    """When it is about to write its parameters, before its checkpoint."""
    replace, seen = shutil.os.replace, []

    def kill(source, target):
        seen.append(target) if Path(target) == Path(name, "last.params") else None
        if len(seen) == 3:
            raise KeyboardInterrupt
        replace(source, target)

    with contextlib.suppress(KeyboardInterrupt), mock.patch("os.replace", kill):
        yield
        raise AssertionError("it has come to its end")


def go_on(name: str) -> dict[str, Any]:
    """The results of a run's folder as it is, and after resuming to the end; the same run
    from its start is in NAME-again."""
    before = used(name)
    call("train_imagenet", f"{flags(name)} --resume auto")
    call("train_imagenet", f"{flags(name)} --save-dir {name}-again")
    return {"before": before, "after": used(name)}


def make(name: str) -> dict[str, Any]:
    """A run's two folders; what `go_on` says about the first one."""
    with killed_in_the_third_epoch(name):
        call("train_imagenet", flags(name))
    Path(name, ".lock").unlink()
    Path(name, "curves.png").unlink()
    killed, done = Path(f"{name}-killed"), Path(f"{name}-done")
    shutil.copytree(name, killed)
    found = go_on(name)
    done.mkdir()
    for path in (Path(name, "log.jsonl"), Path(name, "last.params"),
                 *Path(name, "checkpoints", "000003").glob("*.params")):
        shutil.copy(path, done)
    shutil.rmtree(name)
    shutil.rmtree(f"{name}-again")
    killed.rename(name)
    return found


def make_all(out: Path) -> None:
    """Write the zip."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("data").mkdir()
        for part, count in (("train", 21), ("val", 7)):
            write_records(Path("data", f"{part}.rec"), count)
        mx.random.seed(1)
        teacher = Small(3)
        teacher.initialize(mx.init.Normal(0.3))
        teacher.save_parameters("data/teacher.params")
        found = {name: make(name) for name in RUNS}
        Path("used.json").write_text(json.dumps(found, indent=1))
        Path("processor.json").write_text(json.dumps({"instruction sets": instruction_sets()}))
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(Path().rglob("*")):
                if path.is_file() and not path.name.startswith("exported"):
                    file.write(path)


if __name__ == "__main__":
    if sys.argv[1] in RUNS:
        print(json.dumps(go_on(sys.argv[1])))
    else:
        make_all(Path(sys.argv[1]).absolute())
