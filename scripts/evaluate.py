"""Exact top-1, top-5 and loss of a network's parameters on a validation .rec.

    python scripts/evaluate.py --model resnet50_v1d --params best.params --rec-val val.rec
"""

import json

from gluon_tricks import cli, config, launch, parallel
from gluon_tricks.errors import InputError

FLAGS = ("model", "num_classes", "data_dir", "rec_val", "rec_val_idx", "num_data_workers",
         "data_backend", "antialias", "dct_shortcut", "on_bad_record", "input_size", "crop",
         "crop_ratio", "rgb_mean", "rgb_std", "batch_size", "num_gpus", "num_cpu_ranks")


def main() -> int | None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", required=True, type=cli.path, help="a .params file, ours or "
                        "GluonCV's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    config.add_flags(parser, only=FLAGS)
    flags = parser.parse_args()
    parallel.place(flags)
    settings = config.from_flags(flags)
    if settings.dct_shortcut == "train":
        raise InputError("--dct-shortcut train has no meaning in evaluation: take always or never")
    if settings.world_size > 1 and not launch.launched():
        return parallel.start_ranks(settings.num_gpus, settings.num_cpu_ranks)

    from gluon_tricks.engine.evaluate import evaluate_file  # late: MXNet takes seconds to import

    scores = evaluate_file(settings, flags.params)
    if scores is None:  # the first rank says them
        return None
    if flags.json:
        print(json.dumps(scores._asdict(), allow_nan=False))
    else:
        print(f"top-1 {scores.top1:.2%} ({scores.correct1}), top-5 {scores.top5:.2%} "
              f"({scores.correct5}), loss {scores.loss:.4f}, {scores.count} pictures")
    return None


if __name__ == "__main__":
    cli.run(main)
