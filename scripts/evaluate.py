"""Compute top-1, top-5, loss and calibration error of trained parameters on a validation set.

    python scripts/evaluate.py --run runs/a --rec-val val.rec
    python scripts/evaluate.py --model resnet50_v1d --params best.params --rec-val val.rec
    python scripts/evaluate.py --model resnet50_v1d --rec-val val.rec

The last downloads GluonCV's parameters.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags
from gluon_tricks.config.fields import for_script, numbers
from gluon_tricks.config.flags import add_flags, explicit
from gluon_tricks.errors import InputError
from gluon_tricks.parallel import launch
from gluon_tricks.parallel.ranks import infer_device_count, start_ranks

if TYPE_CHECKING:
    from gluon_tricks.inference.evaluations import Plan, Result

ROW = "{:>10}{:>12}{:>7}{:>9}{:>9}{:>9}{:>9}{:>10}"  # of the table of several evaluations
HEADER = ("input size", "crop ratio", "crops", "top-1", "top-5", "loss", "ECE", "images")


def main() -> int | None:
    flags = _parser().parse_args()
    infer_device_count(flags)
    settings = from_flags(flags)
    _check(flags, settings)
    if settings.world_size > 1 and not launch.launched():
        return start_ranks(settings.num_gpus, settings.num_cpu_ranks)

    from gluon_tricks.inference.evaluations import (
        evaluations,  # late: MXNet takes seconds to import
    )

    several = max(len(flags.sizes), len(flags.ratios)) > 1
    for number, result in enumerate(evaluations(_plan(flags))):  # only the first rank gets any
        if several and not flags.json and number == 0:
            print(ROW.format(*HEADER))
        _show(result, flags, several)
    return None


def _parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=cli.path, metavar="DIR", help="the folder of a run or a "
                        "checkpoint; flags override its settings")
    parser.add_argument("--model", default=argparse.SUPPRESS, help="the network, as in training; "
                        "without --params, with GluonCV's parameters")
    parser.add_argument("--params", type=cli.path, help="a .params file, ours or GluonCV's")
    parser.add_argument("--input-size", dest="sizes", default=(), type=numbers(int, distinct=True),
                        metavar="N[,N...]", help="side of the network's input images in pixels "
                        "(default: the run's, else the network's own)")
    parser.add_argument("--crop-ratio", dest="ratios", default=(), metavar="R[,R...]",
                        type=numbers(float, distinct=True), help="input size / resized shorter "
                        "edge; each ratio is used with each size (default: the run's, 0.875)")
    parser.add_argument("--crops", type=int, choices=(1, 10), default=1, help="per image: the "
                        "center, or the corners and the center with their mirror images, each of "
                        "which counts toward --batch-size; probabilities are averaged")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--confusion", type=cli.output(".png"), metavar="FILE.png",
                        help="draw the confusion matrix")
    parser.add_argument("--per-class", type=cli.output(".csv"), nargs="?", const=True,
                        metavar="FILE.csv", help="write accuracy by class, the worst first; print "
                        "it if no file is given")
    parser.add_argument("--predictions", type=cli.output(".csv"), metavar="FILE.csv",
                        help="write each image's key, label, predicted class and its probability")
    add_flags(parser, Settings, only=for_script(Settings, "evaluate"))
    return parser


def _check(flags: argparse.Namespace, settings: Settings) -> None:
    """Raise InputError for flags that cannot be combined."""
    if flags.run and flags.params:
        raise InputError("--params cannot be combined with --run, which has its own: drop one of "
                         "them")
    if flags.run and not flags.run.is_dir():
        raise InputError(f"--run {flags.run} is not a folder: give a run's or a checkpoint's, or "
                         "--model and --params")
    if not flags.run and not settings.model:
        raise InputError("give --run DIR, --model and --params FILE, or --model alone, which "
                         "downloads GluonCV's parameters")
    if settings.dct_shortcut == "train":
        raise InputError("--dct-shortcut train does nothing in evaluation: use always or never")
    if flags.crops > 1:
        for given, flag in (
                (settings.data_backend in ("native", "mxnet"),
                 f"--data-backend {settings.data_backend}"),
                (settings.dct_shortcut == "always", "--dct-shortcut always")):
            if given:
                raise InputError(f"{flag} does not support --crops {flags.crops}: drop it to use "
                                 "OpenCV")
    files = [file for file in (flags.confusion, flags.per_class, flags.predictions) if file]
    if files and max(len(flags.sizes), len(flags.ratios)) > 1:
        raise InputError("--confusion, --per-class and --predictions need a single --input-size "
                         "and a single --crop-ratio: give one of each")
    if len(set(files)) < len(files):
        raise InputError("--per-class and --predictions name the same file: give two")


def _plan(flags: argparse.Namespace) -> "Plan":
    from gluon_tricks.inference.evaluations import Plan

    return Plan(explicit(Settings, flags), flags.run, flags.params, flags.sizes, flags.ratios,
                flags.crops, confusion=bool(flags.confusion or flags.per_class),
                predictions=bool(flags.predictions))


def _show(result: "Result", flags: argparse.Namespace, several: bool) -> None:
    """Print a result and write the files that were asked for."""
    from gluon_tricks.classification.evaluate import flat
    from gluon_tricks.inference import reports

    scores, settings = result.scores, result.settings
    top1, top5 = (scores.figures[name] for name in ("top1", "top5"))
    ratio = None if settings.crop == "pad" else settings.crop_ratio
    found: dict[str, Any] = {
        "input_size": settings.input_size, "crop_ratio": ratio, "crops": result.crops,
        **flat(scores), "ece": result.calibration_error}
    rows = reports.by_class(result.confusion, result.names) if flags.per_class else []
    if flags.json:
        if flags.per_class is True:
            found["per_class"] = [dict(zip(reports.CLASS_COLUMNS, row, strict=True))
                                  for row in rows]
        print(json.dumps(found, allow_nan=False))
    elif several:
        print(ROW.format(settings.input_size, ratio or "-", result.crops, f"{top1:.2%}",
                         f"{top5:.2%}", f"{scores.loss:.4f}",
                         f"{result.calibration_error:.2%}", scores.count))
    else:
        print(f"top-1 {top1:.2%} ({found['correct1']}), top-5 {top5:.2%} "
              f"({found['correct5']}), loss {scores.loss:.4f}, calibration error "
              f"{result.calibration_error:.2%}, {scores.count} images")
        if flags.per_class is True:
            print(reports.class_table(rows))
    if sys.stdout:  # None if a parent closed it
        sys.stdout.flush()  # the next result may take hours
    if flags.per_class not in (None, True):
        reports.write_csv(flags.per_class, reports.CLASS_COLUMNS, rows)
    if flags.confusion:
        reports.draw_confusion(result.confusion, result.names, flags.confusion)
    if flags.predictions:
        reports.write_csv(flags.predictions, ("key", "label", "predicted", "probability"),
                          ((*row, f"{probability:.7g}") for *row, probability in
                           result.predictions))


if __name__ == "__main__":
    cli.run(main)
