"""Pack images into RecordIO (PREFIX.rec, .idx, .lst, .classes.json), or check packed ones.

    python scripts/im2rec.py FOLDER PREFIX            a folder with one folder per class
    python scripts/im2rec.py IMAGES.lst PREFIX        lines of key, tab, label, tab, path
    python scripts/im2rec.py SOURCE.rec PREFIX --seekable   a packed set, transcoded
    python scripts/im2rec.py --verify PREFIX          read and decode every record
    python scripts/im2rec.py --reindex PREFIX         rebuild PREFIX.idx from PREFIX.rec
"""

import argparse
import os
import sys
from pathlib import Path

from gluon_tricks import cli
from gluon_tricks.errors import InputError


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=cli.path, metavar="FOLDER",
                        help="images: a folder, a .lst, or, with --seekable, a .rec")
    parser.add_argument("prefix", type=cli.path, metavar="PREFIX", help="path without extension")
    parser.add_argument("--verify", action="store_true", help="report damaged records by key and "
                        "byte offset; exit code 2 if there are any")
    parser.add_argument("--reindex", action="store_true", help="rebuild PREFIX.idx")
    pack = parser.add_argument_group("packing")
    pack.add_argument("--root", type=cli.path, help="the folder a .lst's paths are relative to "
                      "(default: its own)")
    pack.add_argument("--classes", type=cli.path, metavar="FILE", help="TRAIN.classes.json, so "
                      "that a validation set gets the training set's labels")
    pack.add_argument("--resize", type=int, help="resize the shorter edge to this length")
    pack.add_argument("--quality", type=int, help="JPEG quality, 1 to 100 (default: 95)")
    pack.add_argument("--pass-through", action="store_true", help="store the files as they are")
    pack.add_argument("--seekable", action="store_true", help="transcode JPEGs losslessly to "
                      "restart intervals, so that the native decoder reads only what a crop needs: "
                      "same pixels, EXIF and ICC kept, progressive becomes sequential; other "
                      "formats and faulty JPEGs are stored as they are. The records of a .rec keep "
                      "their order, keys and labels")
    pack.add_argument("--skip-damaged", action="store_true", help="skip, and list, files that are "
                      "not complete images (default: stop at the first)")
    pack.add_argument("--seed", type=int, help="of the shuffled order (default: 0)")
    pack.add_argument("--no-shuffle", action="store_true", help="keep the sorted order")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads (default: one "
                        "per core)")
    return parser


def check(flags: argparse.Namespace) -> None:
    """Raise InputError for flags that cannot be combined."""
    packing = {"--root": flags.root, "--classes": flags.classes, "--resize": flags.resize,
               "--quality": flags.quality, "--pass-through": flags.pass_through,
               "--seekable": flags.seekable, "--skip-damaged": flags.skip_damaged,
               "--no-shuffle": flags.no_shuffle, "--seed": flags.seed}
    given = [flag for flag, value in packing.items() if value is not None and value is not False]
    mode = "--verify" if flags.verify else "--reindex"
    if flags.verify and flags.reindex:
        raise InputError("--verify cannot be combined with --reindex: drop one of them")
    if (flags.verify or flags.reindex) and (flags.source or given):
        raise InputError(f"{mode} takes only PREFIX: drop {flags.source or given[0]}")
    if not (flags.verify or flags.reindex) and flags.source is None:
        raise InputError("give both FOLDER and PREFIX (or --verify PREFIX)")
    if flags.source and flags.source.suffix == ".rec":
        check_transcode(flags.source, flags.seekable, given)
    if flags.pass_through and (flags.resize or flags.quality):
        raise InputError("--pass-through stores files as they are: drop --resize and --quality")
    if flags.no_shuffle and flags.seed is not None:
        raise InputError("--seed cannot be combined with --no-shuffle: drop one of them")
    if flags.workers < 1 or not (flags.resize is None or 1 <= flags.resize <= 65500):
        raise InputError("--workers must be at least 1, --resize from 1 to 65500 (JPEG's limit)")
    if not 0 <= (flags.seed or 0) < 2**64:
        raise InputError(f"--seed {flags.seed}: must be from 0 to 2^64 - 1")
    if flags.quality is not None and not 1 <= flags.quality <= 100:
        raise InputError(f"--quality {flags.quality}: must be from 1 to 100")


def check_transcode(source: Path, seekable: bool, given: list[str]) -> None:
    """Raise InputError for flags that cannot be combined with a packed source."""
    if not seekable:
        raise InputError(f"{source} is already packed: give --seekable to transcode its JPEGs, or "
                         "a folder or .lst to pack")
    senseless = [flag for flag in given
                 if flag not in ("--pass-through", "--seekable", "--skip-damaged")]
    if senseless:
        raise InputError(f"{senseless[0]} cannot be combined with {source}, whose records are only "
                         "made seekable: drop it")


def say(prefix: Path, images: int, classes: int, other: int, damaged: list[str]) -> None:
    """Report what was packed."""
    for line in damaged:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{prefix}.rec: {images} images, {classes} classes"
          + f", {other} not seekable, stored as they were" * bool(other)
          + f", {len(damaged)} skipped" * bool(damaged))


def transcode(flags: argparse.Namespace, progress) -> None:
    from gluon_tricks.prepare.seekable import transcode_records  # late: it imports OpenCV

    done = transcode_records(flags.source, flags.prefix, workers=flags.workers,
                             skip_damaged=flags.skip_damaged, progress=progress)
    say(flags.prefix, done.records, done.classes, done.other, done.damaged)


def pack(flags: argparse.Namespace, progress) -> None:
    from gluon_tricks.data.classes import read_classes
    from gluon_tricks.prepare import pack  # late: it imports OpenCV

    classes = read_classes(flags.classes) if flags.classes else None
    seed = None if flags.no_shuffle else flags.seed or 0
    if flags.source.suffix == ".lst":
        listing = pack.list_lst(flags.source, flags.root, classes, seed)
    elif flags.root:
        raise InputError("--root does nothing without a .lst: drop it")
    else:
        listing = pack.list_folder(flags.source, classes, seed)
    encoding = pack.Encoding(flags.pass_through, flags.resize, flags.quality or 95, flags.seekable)
    done = pack.pack(listing, flags.prefix, encoding, workers=flags.workers,
                     skip_damaged=flags.skip_damaged,
                     progress=lambda results: progress(results, len(listing.images)))
    say(flags.prefix, len(listing.images) - len(done.damaged), len(listing.classes), done.other,
        done.damaged)


def verify(prefix: Path, workers: int, progress) -> int:
    from gluon_tricks.prepare.verify import verify

    report = verify(prefix, workers=workers, progress=progress)
    labels = "none" if report.labels is None else "{} to {}".format(*report.labels)
    print(f"{prefix}.rec: {report.records} records, {report.classes} classes, labels {labels}, "
          f"{len(report.damaged)} damaged")
    for key, offset, reason in report.damaged:
        print(f"damaged: key {key} at byte {offset}: {reason}")
    if report.unlisted:
        print(f"{report.unlisted} bytes of the .rec belong to no record of the .idx; move the .idx "
              f"away and run --reindex {prefix}")
    return 0 if report.intact else 2


def main() -> int | None:
    flags = build_parser().parse_intermixed_args()
    check(flags)
    from tqdm import tqdm

    def progress(results, total=None):
        return tqdm(results, total=total, unit="image", disable=None)

    if flags.verify:
        return verify(flags.prefix, flags.workers, progress)
    if flags.reindex:
        from gluon_tricks.prepare.verify import reindex

        print(f"{flags.prefix}.idx: {reindex(flags.prefix)} records")
        return None
    if flags.source.suffix == ".rec":
        return transcode(flags, progress)
    return pack(flags, progress)


if __name__ == "__main__":
    cli.run(main)
