"""Export a network as ONNX, MXNet's symbol or Gluon's parameters, and check what was written.

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
                        "best parameters, else its last) or a checkpoint")
    source.add_argument("--params", type=cli.path, metavar="FILE", help="a .params file, ours or "
                        "GluonCV's")
    parser.add_argument("--model", default=argparse.SUPPRESS, help="the network that the "
                        "parameters are for; alone: GluonCV's pretrained one")
    parser.add_argument("--format", required=True, choices=("onnx", "symbol", "params"),
                        help="onnx; symbol: MXNet's graph, OUT-symbol.json and OUT-0000.params; "
                        "params: a file for Gluon's load_parameters")
    parser.add_argument("--out", required=True, type=cli.path, metavar="PATH", help="the file to "
                        "write or overwrite; OUT.json says how to prepare its input")
    parser.add_argument("--embed-preprocessing", action="store_true", help="the network takes "
                        "uint8 pixels, (batch, size, size, 3) RGB, and normalizes them itself")
    parser.add_argument("--pictures", nargs="+", type=cli.path, default=(), metavar="PATH",
                        help="images and folders of images to check with, of which 32 are used; "
                        "default: a few are generated")
    add_flags(parser, Settings, only=for_script(Settings, "export"))
    flags = parser.parse_args()
    given = explicit(Settings, flags)
    if not (flags.run or flags.params or given.get("model")):
        raise InputError("nothing to export: give --run, --params or --model")
    if flags.run and not flags.run.is_dir():
        raise InputError(f"--run {flags.run} is not a folder: give a run's or a checkpoint's")
    if flags.params and not flags.params.is_file():
        raise InputError(f"--params {flags.params} is missing: give a .params file")

    import mxnet as mx  # late: it takes seconds to import

    from gluon_tricks.classification import weights
    from gluon_tricks.inference.export import export
    from gluon_tricks.inference.trained import load

    source = flags.run or flags.params or weights.of_zoo(given["model"])
    trained = load(source, mx.cpu(), **given)
    done = export(trained, flags.format, flags.out, embed=flags.embed_preprocessing,
                  images=flags.pictures)
    print(f"{', '.join(map(str, done.files))}: {trained.settings.model}, {len(trained.classes)} "
          f"classes; logits within {done.difference:.1e} of Gluon's on random input and "
          f"{done.images} images")


if __name__ == "__main__":
    cli.run(main)
