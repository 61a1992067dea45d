"""Show what a network will see: a grid of samples, augmented as in training.

    python scripts/preview_augment.py --rec-train train.rec --out grid.png
"""

from gluon_tricks import cli
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import from_flags
from gluon_tricks.config.fields import for_script
from gluon_tricks.config.flags import add_flags
from gluon_tricks.errors import InputError


def main() -> None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=cli.path, metavar="PNG",
                        help="the image to write; an existing one is overwritten")
    parser.add_argument("--samples", type=int, default=8, help="records, one per row (default: 8)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs to show of each (default: "
                        "6), after its validation sample")
    add_flags(parser, Settings, only=for_script(Settings, "preview"))
    parser.add_argument("--rec", dest="rec_train", help="the same as --rec-train")
    flags = parser.parse_args()
    if flags.samples < 1 or flags.epochs < 1:
        raise InputError("--samples and --epochs must be at least 1")
    settings = from_flags(flags)
    if settings.data_backend == "mxnet":
        raise InputError("--data-backend mxnet makes different samples each time: use another")

    from gluon_tricks.classification.preview import (
        write_preview,  # late: MXNet takes seconds to import
    )

    backend = write_preview(flags.out, settings, samples=flags.samples, epochs=flags.epochs)
    print(f"{flags.out}: {flags.samples} records by rows; validation, then {flags.epochs} epochs, "
          f"by columns; data backend: {backend}")


if __name__ == "__main__":
    cli.run(main)
