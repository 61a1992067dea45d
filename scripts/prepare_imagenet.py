"""Pack ImageNet (ILSVRC2012) into OUT/train.rec and OUT/val.rec, verified. Rerun to resume.

    python scripts/prepare_imagenet.py DOWNLOADS OUT   ILSVRC2012_img_train.tar, _img_val.tar and
                                                       labels
    python scripts/prepare_imagenet.py FOLDER OUT      train/WNID/*.JPEG, and val/WNID/*.JPEG or
                                                       val/*.JPEG and labels

The tars are read as they are, nothing is unpacked. A label is a WNID's index among the sorted ones.
The labels of val images without class folders are those given by --val-labels, else the first of
these next to them:

    ILSVRC2012_devkit_t12.tar.gz, or its folder           the development kit
    val.txt                                               lines NAME WNID, or NAME LABEL (from 0)
    val.lst                                               lines KEY, LABEL, NAME between tabs
    imagenet_2012_validation_synset_labels.txt            a WNID per line, in the order of the names
    LOC_val_solution.csv                                  Kaggle's NAME,WNID BOX ...

Pickles (GluonCV's imagenet_val_maps.pklz) are not read.
"""

import argparse
import os
import shlex
import signal
import sys

from gluon_tricks import cli
from gluon_tricks.errors import InputError, RunFault, Stopped


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=cli.path, metavar="DOWNLOADS|FOLDER",
                        help="where the tars, or train/ and val/, are; tars take precedence")
    parser.add_argument("out", type=cli.path, metavar="OUT", help="folder to write to")
    parser.add_argument("--val-labels", type=cli.path, metavar="FILE", help="labels of the "
                        "validation images, in one of the forms above")
    parser.add_argument("--resize", type=int, help="resize the shorter edge to this length "
                        "(default: store the files as they are)")
    parser.add_argument("--quality", type=int, help="re-encode as JPEGs of this quality, 1 to 100 "
                        "(with --resize: 95)")
    parser.add_argument("--seekable", action="store_true", help="transcode JPEGs losslessly for "
                        "the native decoder, see im2rec.py")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffled order (default: 0)")
    parser.add_argument("--skip-damaged", action="store_true", help="skip, and list, files that "
                        "are not complete images (default: stop at the first)")
    parser.add_argument("--any-counts", action="store_true", help="accept counts other than "
                        "1281167 and 50000 images of 1000 classes")
    parser.add_argument("--no-verify", action="store_true", help="do not read and decode what was "
                        "packed")
    parser.add_argument("--workers", type=cli.positive, default=os.cpu_count(),
                        help="threads (default: one per core)")
    return parser


def check(flags: argparse.Namespace) -> None:
    """Raise InputError for values out of range."""
    if not (flags.resize is None or 1 <= flags.resize <= 65500):
        raise InputError(f"--resize {flags.resize}: must be from 1 to 65500 (JPEG's limit)")
    if not (flags.quality is None or 1 <= flags.quality <= 100):
        raise InputError(f"--quality {flags.quality}: must be from 1 to 100")
    if not 0 <= flags.seed < 2**64:
        raise InputError(f"--seed {flags.seed}: must be from 0 to 2^64 - 1")


def prepare(flags: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gluon_tricks.prepare import imagenet  # late: it imports OpenCV
    from gluon_tricks.prepare.pack import Encoding

    encoding = Encoding(pass_through=flags.resize is None and flags.quality is None,
                        resize=flags.resize, quality=flags.quality or 95, seekable=flags.seekable)
    options = imagenet.Options(flags.seed, flags.val_labels, flags.any_counts, flags.skip_damaged,
                               not flags.no_verify, flags.workers)

    def progress(results, total, what):
        return tqdm(results, what, total, disable=None)

    def say(line):
        print(line, flush=True)

    prepared = imagenet.prepare(flags.source, flags.out, encoding, options, progress, say)
    for done in prepared:
        for line in done.damaged:
            print(f"skipped: {line}", file=sys.stderr)
        print(f"{done.prefix}.rec: {done.images} images, {done.classes} classes, "
              + imagenet.size_text(done.bytes)
              + f", {done.other} not seekable, stored as they were" * bool(done.other)
              + f", {done.skipped} skipped" * bool(done.skipped)
              + (", not verified" if flags.no_verify else ", verified"))
    train, val = (shlex.quote(f"{done.prefix}.rec") for done in prepared)
    print("python scripts/train_imagenet.py --model resnet50_v1d --num-gpus 1 --batch-size 256 "
          f"-j 16 --rec-train {train} --rec-val {val}")


def main() -> None:
    flags = build_parser().parse_args()
    check(flags)
    again = f"resume with: python {shlex.join(sys.argv)}"
    try:
        prepare(flags)
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT, f"stopped by Ctrl-C; {again}") from None
    except cli.Terminated:
        raise Stopped(signal.SIGTERM, f"stopped by SIGTERM; {again}") from None
    except OSError as error:  # a full disk
        raise RunFault(f"{error}; fix that, and {again}") from error


if __name__ == "__main__":
    cli.run(main)
