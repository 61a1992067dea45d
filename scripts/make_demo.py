"""Make the demo data set: small JPEG images of ten classes that differ in shape and texture.

    python scripts/make_demo.py demo/pictures
"""

from pathlib import Path

from gluon_tricks import cli


def main() -> None:
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other images")
    parser.add_argument("--train", type=int, default=2000, help="training images in total")
    parser.add_argument("--val", type=int, default=500, help="held-out images in total")
    flags = parser.parse_args()

    from gluon_tricks.prepare.demo import CLASSES, make_demo  # late: it imports OpenCV

    make_demo(flags.out, seed=flags.seed, train=flags.train, val=flags.val)
    print(f"{flags.out}: made {flags.train} training and {flags.val} held-out images"
          f" of {len(CLASSES)} classes")


if __name__ == "__main__":
    cli.run(main)
