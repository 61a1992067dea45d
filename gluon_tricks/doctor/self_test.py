"""The parts of a run, tried out: decode a picture, make an update, keep and read a checkpoint."""

import math
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from gluon_tricks.doctor.child import SECONDS, Answer, Child, temporary_folder
from gluon_tricks.doctor.finding import FAULT, OK, Finding
from gluon_tricks.doctor.probes import Report

if TYPE_CHECKING:
    import numpy as np

    from gluon_tricks.engine.run import Run
    from gluon_tricks.engine.saving import Saver

GROUP = "self-test"
LIMIT = 20  # seconds, once everything is loaded
STEPS = ("decode", "train step", "checkpoint")
# Mean differences, of 255. Decoders may differ by how they round and raise the resolution of
# colour; the picture itself by what JPEG takes from its grain.
APART, FROM_PICTURE = 1.0, 8.0

_QUICK = {"MXNET_CUDNN_AUTOTUNE_DEFAULT": "0"}  # does not try out which convolution is fastest


def findings(folder: Path, num_gpus: int) -> list[Finding]:
    """One for each step that came to an end, and the fault of the first that did not."""
    with temporary_folder(folder) as aside, Child(
            "self_test", "run", aside, num_gpus, environment=_QUICK) as child:
        return judge(child.answer(LIMIT))


def judge(answer: Answer) -> list[Finding]:
    found = [Finding(GROUP, OK, report["step"], report["value"])
             for report in answer.reports if "value" in report]
    if len(found) == len(STEPS):
        return found
    loaded = any("loaded" in report for report in answer.reports)
    name = STEPS[len(found)] if loaded else "loading"
    said = [report for report in answer.reports if "error" in report]
    value = said[0]["error"] if said else answer.ended or "ended before its end"
    if answer.ended and "too long" in answer.ended:
        value = f"took more than {LIMIT if loaded else SECONDS} seconds"
    remedy = (said[0]["remedy"] if said else "") or "mend what is a fault above; else run it " \
        "again, and report what this line says"
    return [*found, Finding(GROUP, FAULT, name, value, remedy)]


def skipped(why: str, level: str = OK) -> list[Finding]:
    return [Finding(GROUP, level, "all steps", f"not run: {why}",
                    "" if level == OK else "mend the faults above, and run doctor again")]


def run(report: Report, aside: str, num_gpus: int) -> None:
    """What the child does. Raises SelfTestError where something is not as it must be."""
    from gluon_tricks.classification.settings import Settings
    from gluon_tricks.classification.start import make_task
    from gluon_tricks.engine import benchmark

    report({"loaded": True})
    signal.alarm(LIMIT)
    tempfile.tempdir = aside  # where the run's folder will be, on the disk of runs
    report({"step": STEPS[0], "value": _decode(Path(aside, "pictures"))})
    settings = Settings(model="cifar_resnet20_v1", num_classes=10, input_size=32, batch_size=8,
                        crop="pad", optimizer="sgd", lr=0.01, mode="imperative",
                        num_gpus=min(num_gpus, 1))
    with ExitStack() as stack:
        made_up = benchmark.SyntheticRun(settings, make_task(), 1, stack)
        report({"step": STEPS[1], "value": _train(made_up.run, lambda: made_up.seconds(1))})
        report({"step": STEPS[2], "value": _checkpoint(made_up.saver, made_up.run)})


class SelfTestError(Exception):
    """Something was done, and came out wrong."""


def _decode(folder: Path) -> str:
    """A drawn picture as JPEG, by every decoder that is here, as validation reads it."""
    import cv2
    import mxnet as mx
    import numpy as np

    from gluon_tricks.data import native
    from gluon_tricks.data.folder import FolderSet
    from gluon_tricks.data.loader import RecordLoader
    from gluon_tricks.data.order import EvalOrder
    from gluon_tricks.data.transforms import EvalTransform
    from gluon_tricks.prepare import demo

    drawn = demo.draw_image(0, np.random.default_rng(0))
    (folder / "a").mkdir(parents=True)
    jpeg = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    (folder / "a" / "1.jpg").write_bytes(jpeg)
    transform = EvalTransform(size=64, resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)

    def read(backend: str) -> "np.ndarray":
        with RecordLoader(FolderSet(folder), transform, EvalOrder(1, 1), backend=backend,
                          workers=1) as loader:
            return next(iter(loader.epoch())).images[0].copy()

    decoded = {name: read(name) for name in ("opencv", "native")
               if name == "opencv" or native.why_not() is None}
    decoded["mxnet"] = np.moveaxis(transform.apply(mx.image.imdecode(jpeg).asnumpy()), -1, 0)
    return compare(np.moveaxis(transform.apply(drawn), -1, 0), decoded)


def compare(drawn: "np.ndarray", decoded: dict[str, "np.ndarray"]) -> str:
    """Half a sentence on how alike they are. Raises SelfTestError where they are not."""
    first, *others = decoded
    apart = {name: float(abs(decoded[name] - decoded[first]).mean()) for name in others}
    lost = {name: float(abs(picture - drawn).mean()) for name, picture in decoded.items()}
    for name in decoded:
        if not lost[name] < FROM_PICTURE:
            raise SelfTestError(f"{name} decodes another picture: it differs by {lost[name]:.2f} "
                                "of 255 from what was drawn")
    for name, difference in apart.items():
        if not difference < APART:
            raise SelfTestError(f"{name} and {first} decode differently, by {difference:.2f} of "
                                "255 in the mean")
    listed = "".join(f", {name} {difference:.3f}" for name, difference in apart.items())
    return (f"{first} within {lost[first]:.1f} of 255 of what was drawn; mean difference from "
            f"{first}{listed}")


def _train(run: "Run", train: Callable[[], object]) -> str:
    """One update, by the engine, on the device: its batch's loss before and after, the arrays."""
    import mxnet as mx

    from gluon_tricks.models.parameters import named_arrays

    inputs = run.task.inputs(run.task.example(), epoch=0, rank=0)

    def state() -> tuple[float, dict[str, "np.ndarray"]]:
        with mx.autograd.train_mode():  # by the batch's own statistics, as the update sees it
            loss = float(run.task.losses(run.network, inputs)[0].mean().asscalar())
        mx.nd.waitall()
        return loss, {name: array.asnumpy() for name, array in named_arrays(run.network).items()}

    before = state()
    train()
    return f"{judge_update(before, state())}, on {run.device}"


def judge_update(before: tuple[float, dict[str, "np.ndarray"]],
                 after: tuple[float, dict[str, "np.ndarray"]]) -> str:
    """Half a sentence on an update, of the loss and the arrays before and after it.

    Raises SelfTestError where the loss did not fall, an array stayed as it was or is not finite.
    """
    import numpy as np

    for loss, arrays in (before, after):
        wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if wrong or not math.isfinite(loss):
            raise SelfTestError(f"not finite: {wrong[0] if wrong else f'the loss, {loss}'}")
    same = [name for name, array in after[1].items() if np.array_equal(array, before[1][name])]
    if same:
        raise SelfTestError(f"an update changed nothing in {same[0]}")
    if not after[0] < before[0]:
        raise SelfTestError(f"an update did not lower its batch's loss: {before[0]:.4f}, then "
                            f"{after[0]:.4f}")
    return f"the loss of its batch fell from {before[0]:.4f} to {after[0]:.4f}"


def _checkpoint(saver: "Saver", run: "Run") -> str:
    """Save the run, and read what was saved back."""
    from gluon_tricks.models.parameters import named_arrays
    from gluon_tricks.runs import checkpoint

    saver.save()
    found, refused = checkpoint.newest(run.log.folder)
    if found is None:
        raise SelfTestError(refused[0] if refused else "nothing was saved")
    saved = {"model": named_arrays(run.network), "optimizer": run.updater.arrays()}
    for part, arrays in saved.items():
        read = found.arrays.get(part, {})
        if read.keys() != arrays.keys() or any(
                read[name].asnumpy().tobytes() != array.asnumpy().tobytes()
                for name, array in arrays.items()):
            raise SelfTestError(f"{found.path}: what was read back of {part} is not what was saved")
    count = sum(len(arrays) for arrays in saved.values())
    # The run's folder lies in the one that the parent made in the folder of runs.
    return f"{count} arrays came back to the bit, in {run.log.folder.parents[1]}"
