"""Classify images with a trained network: print the most likely classes with probabilities.

    python scripts/predict.py --run runs/1 IMAGE...
    python scripts/predict.py --params FILE --model NAME [--classes FILE.json] IMAGE...
    python scripts/predict.py --model resnet50_v1d IMAGE...    GluonCV's parameters, downloaded

IMAGE is a file, a folder (all images in it), a quoted pattern ('photos/**/*.jpg'), or - for a list
of files or folders on stdin, one per line. Images are prepared as in the run's validation.
"""

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING

from gluon_tricks import cli
from gluon_tricks.errors import InputError

if TYPE_CHECKING:
    from gluon_tricks.inference.predict import Prediction
    from gluon_tricks.inference.trained import Trained

EXIT_CODES = """exit codes: 0 all images were read; 2 some could not be read (the rest are still
classified), no image was given, or a flag is wrong; 1 any other error; 130 Ctrl-C; 143 SIGTERM"""


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, epilog=EXIT_CODES,
                        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, a pattern, -")
    network = parser.add_argument_group("network")
    network.add_argument("--run", type=cli.path, metavar="DIR", help="the folder of a run (its "
                         "best parameters, else its last) or a checkpoint")
    network.add_argument("--params", type=cli.path, metavar="FILE", help="a .params file, ours or "
                         "GluonCV's")
    network.add_argument("--model", metavar="NAME", help="the network that --params is for, unless "
                         "a config.json next to it says so; alone: GluonCV's own are downloaded")
    network.add_argument("--classes", type=cli.path, metavar="JSON", help="names of the classes, "
                         "as im2rec.py writes them (default: the run's; ImageNet's with --model "
                         "alone; else numbers)")
    network.add_argument("--input-size", type=int, help="side of the network's input images in "
                         "pixels (default: the run's, else the network's own)")
    network.add_argument("--crop-ratio", type=float, help="input size / resized shorter edge "
                         "(default: the run's, else 0.875)")
    work = parser.add_argument_group("work")
    work.add_argument("--top", type=cli.positive, default=5, metavar="N", help="classes to print "
                      "for each image (default: 5)")
    work.add_argument("--json", action="store_true", help="print one JSON object per image and "
                      "line: path, and top (class, label and probability of each) or error")
    work.add_argument("--batch-size", type=cli.positive, default=32, help="images per batch "
                      "(default: 32)")
    work.add_argument("-j", "--num-data-workers", type=int, default=4, help="decoding threads; "
                      "0: one per core (default: 4)")
    work.add_argument("--num-gpus", type=int, choices=(0, 1), default=0, help="0: the CPU "
                      "(default)")
    return parser


def check(flags: argparse.Namespace) -> None:
    """Raise InputError for flags that cannot be combined."""
    if flags.run and (flags.params or flags.model):
        other = "--params" if flags.params else "--model"
        raise InputError(f"{other} cannot be combined with --run, which has its own: drop one of "
                         "them")
    if not (flags.run or flags.params or flags.model):
        raise InputError("which network? Give --run, --params with --model, or --model alone")
    if flags.run and not flags.run.is_dir():
        raise InputError(f"--run {flags.run} is not a folder: give a run's or a checkpoint's")
    if flags.params and not flags.params.is_file():
        raise InputError(f"--params {flags.params} is missing: give a .params file")


def say(prediction: "Prediction", trained: "Trained", as_json: bool) -> None:
    """Print one image's result immediately."""
    path, top, error = prediction
    if as_json:
        outcome = {"error": error} if error else {"top": [
            {"class": number, "label": label, "probability": probability}
            for number, label, probability in top]}
        print(json.dumps({"path": path, **outcome}, allow_nan=False), flush=True)
    elif error:
        print(f"{path}: cannot be read: {error}", file=sys.stderr, flush=True)
    else:
        kind = "" if trained.has_names else "class "
        print("\n".join([path, *(f"{candidate.probability:9.2%}  {kind}{candidate.label}"
                                 for candidate in top)]), flush=True)


def main() -> int:
    flags = build_parser().parse_intermixed_args()
    check(flags)

    from gluon_tricks.data.backends import cores  # late: MXNet takes seconds to import
    from gluon_tricks.inference import predict

    given = {name: getattr(flags, name) for name in (
        "model", "input_size", "crop_ratio", "num_data_workers", "batch_size", "num_gpus")
        if getattr(flags, name) is not None}
    with contextlib.redirect_stdout(sys.stderr):  # GluonCV prints what it downloads
        network, device = predict.open_network(flags.run or flags.params, flags.classes,
                                               **given)
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may not be valid text
    lines = sys.stdin.buffer if sys.stdin else ()
    seen = unread = 0
    with contextlib.closing(predict.predict(
            network, predict.find_images(flags.images, lines), device, top=flags.top,
            batch_size=flags.batch_size,
            workers=flags.num_data_workers or cores())) as predictions:
        for prediction in predictions:
            say(prediction, network, flags.json)
            seen += 1
            unread += prediction.error is not None
    if not seen:
        raise InputError("no image was given: the list on stdin is empty")
    return 2 if unread else 0


if __name__ == "__main__":
    cli.run(main)
