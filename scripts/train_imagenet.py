"""Train an image classifier; GluonCV's flags, the paper's defaults (arXiv 1812.01187).

    python scripts/train_imagenet.py --model resnet50_v1d --rec-train train.rec --rec-val val.rec
"""

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags
from gluon_tricks.classification.start import dispatch
from gluon_tricks.engine import command
from gluon_tricks.parallel.ranks import infer_device_count


def main() -> int | None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    command.add_flags(parser, Settings)
    flags = parser.parse_args()
    infer_device_count(flags)
    done = dispatch(flags, from_flags(flags))
    return done if isinstance(done, int) else None


if __name__ == "__main__":
    cli.run(main)
