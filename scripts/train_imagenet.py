"""Train an image classifier on RecordIO; GluonCV's flags, the paper's defaults (arXiv 1812.01187).

    python scripts/train_imagenet.py --model resnet50_v1d --rec-train train.rec --rec-val val.rec
"""

from gluon_tricks import cli, config, launch, parallel


def main() -> int | None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    config.add_flags(parser)
    instead = parser.add_argument_group("in place of training").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true",
                         help="check all settings, build the network, print the settings as JSON; "
                         "reads no data and needs no device")
    instead.add_argument("--benchmark", type=cli.positive, nargs="?", const=50, metavar="UPDATES",
                         help="measure so many updates (50 where the flag stands alone) on "
                         "made-up data; reads no data, writes nothing")
    instead.add_argument("--test-io", type=cli.positive, nargs="?", const=100, metavar="BATCHES",
                         help="measure the input pipeline alone on so many batches (100) of the "
                         "training set")
    flags = parser.parse_args()
    parallel.place(flags)
    settings = config.from_flags(flags)
    if flags.dry_run:
        dry_run(settings)
    elif flags.test_io:
        from gluon_tricks.engine.benchmark import input_speed  # late: MXNet takes seconds

        speed, backend = input_speed(settings, flags.test_io)
        print(f"{speed:.0f} samples/s, made by {backend}")
    elif settings.world_size > 1 and not launch.launched():
        return parallel.start_ranks(settings.num_gpus, settings.num_cpu_ranks)
    elif flags.benchmark:
        benchmark(settings, flags.benchmark)
    else:
        run(settings)
    return None


def dry_run(settings: config.Settings) -> None:
    from gluon_tricks.engine import build

    settings = settings.settled_without_data()
    build.network(settings)
    if settings.teacher:
        build.teacher_network(settings)
    print(settings.to_json())


def benchmark(settings: config.Settings, updates: int) -> None:
    from gluon_tricks.engine.benchmark import training_speed

    speed = training_speed(settings, updates)
    if speed:
        print(f"{speed:.1f} samples/s, {settings.global_batch / speed * 1000:.0f} ms an update of "
              f"{settings.global_batch}, on made-up data")


def run(settings: config.Settings) -> None:
    from gluon_tricks.engine.train import train

    result = train(settings)
    if result is None:  # the first rank says it
        return
    print(f"validation top-1 {result.last.top1:.2%}, top-5 {result.last.top5:.2%} "
          f"on {result.last.count} pictures; best top-1 {result.best.top1:.2%} "
          f"after epoch {result.best_epoch + 1}")
    print(f"run folder: {result.folder}")
    print(f"curves: {result.folder / 'curves.png'}")


if __name__ == "__main__":
    cli.run(main)
