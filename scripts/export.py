"""Write a network as ONNX, as MXNet's symbol or as Gluon's parameters, checked before it is there.

    python scripts/export.py --run runs/resnet50_v1d --format onnx --out resnet50_v1d.onnx
"""

import argparse

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.config.fields import for_script
from gluon_tricks.config.flags import add_flags, explicit
from gluon_tricks.errors import InputError


def main() -> None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=cli.path, metavar="DIR", help="the folder of a run (its "
                        "best parameters, else its last), or of a checkpoint")
    source.add_argument("--params", type=cli.path, metavar="FILE", help="a .params file, ours or "
                        "GluonCV's")
    parser.add_argument("--model", default=argparse.SUPPRESS, help="network that the parameters "
                        "are of; alone: GluonCV's pretrained one")
    parser.add_argument("--format", required=True, choices=("onnx", "symbol", "params"),
                        help="onnx; symbol: MXNet's graph, OUT-symbol.json and OUT-0000.params; "
                        "params: a file for Gluon's load_parameters")
    parser.add_argument("--out", required=True, type=cli.path, metavar="PATH", help="the file to "
                        "write, one that is there is written over; OUT.json says how to feed it")
    parser.add_argument("--embed-preprocessing", action="store_true", help="the network takes "
                        "uint8 pixels, (batch, size, size, 3) RGB, and normalises them itself")
    parser.add_argument("--pictures", nargs="+", type=cli.path, default=(), metavar="PATH",
                        help="pictures and folders of such, of which 32 are taken, to check with; "
                        "default: a few are drawn")
    add_flags(parser, Settings, only=for_script(Settings, "export"))
    flags = parser.parse_args()
    given = explicit(Settings, flags)
    if not (flags.run or flags.params or given.get("model")):
        raise InputError("nothing to export: give --run, --params or --model")
    if flags.run and not flags.run.is_dir():
        raise InputError(f"--run {flags.run} is no folder: give a run's, or a checkpoint's")
    if flags.params and not flags.params.is_file():
        raise InputError(f"--params {flags.params} is missing: give a .params file")

    import mxnet as mx  # late: it takes seconds to import

    from gluon_tricks.classification import weights
    from gluon_tricks.inference.export import export
    from gluon_tricks.inference.trained import load

    source = flags.run or flags.params or weights.of_zoo(given["model"])
    trained = load(source, mx.cpu(), **given)
    done = export(trained, flags.format, flags.out, embed=flags.embed_preprocessing,
                  pictures=flags.pictures)
    print(f"{', '.join(map(str, done.files))}: {trained.settings.model}, {len(trained.classes)} "
          f"classes; logits within {done.difference:.1e} of Gluon's on random input and "
          f"{done.pictures} pictures")


if __name__ == "__main__":
    cli.run(main)
