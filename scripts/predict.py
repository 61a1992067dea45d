"""Say what a trained network sees in pictures: the likeliest classes, with their probabilities.

    python scripts/predict.py --run runs/1 IMAGE...
    python scripts/predict.py --params FILE --model NAME [--classes FILE.json] IMAGE...
    python scripts/predict.py --model resnet50_v1d IMAGE...    GluonCV's parameters, downloaded

IMAGE is a file, a folder (all pictures in it), a quoted pattern ('photos/**/*.jpg'), or - for a
list of files or folders on stdin, one a line. Pictures are prepared as the run's validation does.
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

EXIT_CODES = """exit codes: 0 all pictures were read; 2 one or more could not be, which does not
stop the others, none was there, or a flag is wrong; 1 any other fault; 130 Ctrl-C; 143 SIGTERM"""


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, epilog=EXIT_CODES,
                        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, a pattern, -")
    network = parser.add_argument_group("network")
    network.add_argument("--run", type=cli.path, metavar="DIR", help="the folder of a run (its "
                         "best parameters, else its last), or of a checkpoint")
    network.add_argument("--params", type=cli.path, metavar="FILE", help="a .params file, ours or "
                         "GluonCV's")
    network.add_argument("--model", metavar="NAME", help="whose parameters they are, unless a "
                         "config.json beside them says so; alone: GluonCV's own are downloaded")
    network.add_argument("--classes", type=cli.path, metavar="JSON", help="names of the classes, "
                         "as im2rec.py writes them (default: the run's; ImageNet's with --model "
                         "alone; else numbers)")
    network.add_argument("--input-size", type=int, help="side of the pictures the network sees "
                         "(default: the run's, else the network's own)")
    network.add_argument("--crop-ratio", type=float, help="input size / resized shorter edge "
                         "(default: the run's, else 0.875)")
    work = parser.add_argument_group("work")
    work.add_argument("--top", type=cli.positive, default=5, metavar="N", help="classes named of "
                      "each picture (default: 5)")
    work.add_argument("--json", action="store_true", help="print a JSON object a line and picture: "
                      "path, and top (class, label and probability of each) or error")
    work.add_argument("--batch-size", type=cli.positive, default=32, help="pictures that the "
                      "network sees at once (default: 32)")
    work.add_argument("-j", "--num-data-workers", type=int, default=4, help="threads that decode; "
                      "0: one a core (default: 4)")
    work.add_argument("--num-gpus", type=int, choices=(0, 1), default=0, help="0: the CPU "
                      "(default)")
    return parser


def check(flags: argparse.Namespace) -> None:
    """Raise InputError for flags that do not go together."""
    if flags.run and (flags.params or flags.model):
        other = "--params" if flags.params else "--model"
        raise InputError(f"{other} has no meaning with --run, which says its own: leave one")
    if not (flags.run or flags.params or flags.model):
        raise InputError("which network? Give --run, --params with --model, or --model alone")
    if flags.run and not flags.run.is_dir():
        raise InputError(f"--run {flags.run} is no folder: give a run's, or a checkpoint's")
    if flags.params and not flags.params.is_file():
        raise InputError(f"--params {flags.params} is missing: give a .params file")


def say(prediction: "Prediction", trained: "Trained", as_json: bool) -> None:
    """Print one picture's outcome, at once."""
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
        print("\n".join([path, *(f"{guess.probability:9.2%}  {kind}{guess.label}"
                                 for guess in top)]), flush=True)


def main() -> int:
    flags = build_parser().parse_intermixed_args()
    check(flags)

    from gluon_tricks.data.backends import cores  # late: MXNet takes seconds to import
    from gluon_tricks.inference import predict

    given = {name: getattr(flags, name) for name in (
        "model", "input_size", "crop_ratio", "num_data_workers", "batch_size", "num_gpus")
        if getattr(flags, name) is not None}
    with contextlib.redirect_stdout(sys.stderr):  # where GluonCV says what it downloads
        network, device = predict.open_network(flags.run or flags.params, flags.classes,
                                               **given)
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be no text
    lines = sys.stdin.buffer if sys.stdin else ()
    seen = unread = 0
    with contextlib.closing(predict.predict(
            network, predict.find_pictures(flags.images, lines), device, top=flags.top,
            batch_size=flags.batch_size,
            workers=flags.num_data_workers or cores())) as predictions:
        for prediction in predictions:
            say(prediction, network, flags.json)
            seen += 1
            unread += prediction.error is not None
    if not seen:
        raise InputError("no picture was given: the list on stdin is empty")
    return 2 if unread else 0


if __name__ == "__main__":
    cli.run(main)
