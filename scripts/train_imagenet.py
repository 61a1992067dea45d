"""Train an image classifier on RecordIO; GluonCV's flags, the paper's defaults (arXiv 1812.01187).

    python scripts/train_imagenet.py --model resnet50_v1d --rec-train train.rec --rec-val val.rec
"""

from gluon_tricks import cli, config


def main() -> None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    config.add_flags(parser)
    parser.add_argument("--dry-run", action="store_true",
                        help="check all settings, build the network, print the settings as JSON; "
                        "reads no data and needs no device")
    flags = parser.parse_args()
    settings = config.from_flags(flags)
    if flags.dry_run:
        from gluon_tricks.engine import build  # late: MXNet takes seconds to import

        settings = settings.settled_without_data()
        build.network(settings)
        print(settings.to_json())
        return

    from gluon_tricks.engine.train import train

    result = train(settings)
    print(f"validation top-1 {result.last.top1:.2%}, top-5 {result.last.top5:.2%} "
          f"on {result.last.count} pictures; best top-1 {result.best.top1:.2%} "
          f"after epoch {result.best_epoch + 1}")
    print(f"run folder: {result.folder}")
    print(f"curves: {result.folder / 'curves.png'}")


if __name__ == "__main__":
    cli.run(main)
