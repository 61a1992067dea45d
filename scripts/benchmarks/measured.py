"""The measured tables and the picture of the documents: made of docs/measured/*.json, never typed.

    python scripts/benchmarks/measured.py                        # write tables and picture again
    python scripts/benchmarks/measured.py --check                # say what is out of date
    python scripts/benchmarks/measured.py --measure quickstart   # measure here, then write

A table stands between `<!-- table: NAME -->` and `<!-- end -->` in README.md or docs/. Measure
on a machine that does nothing else; `--measure all` takes about an hour on two cores.
"""

import argparse
import re
from pathlib import Path

import _measurements

from gluon_tricks import cli
from gluon_tricks.errors import InputError, RunFault

PICTURE = _measurements.ROOT / "docs" / "pictures" / "measured.png"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", metavar="NAME[,NAME]", help="measure these first: "
                        f"{', '.join(_measurements.MEASUREMENTS)}, or all")
    parser.add_argument("--picture", type=cli.output(".png"), metavar="FILE.png", help="draw the "
                        "picture there, and write nothing else")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a "
                        "document is not what its JSON says")
    return parser


def documents() -> list[Path]:
    return [_measurements.ROOT / "README.md", *sorted((_measurements.ROOT / "docs").glob("*.md"))]


def rendered(text: str) -> str:
    """A document with its tables written anew. Raises InputError for a table of unknown name."""
    import _tables

    found = _measurements.results()

    def table(match: re.Match) -> str:
        name = match[2]
        if name not in _tables.TABLES:
            raise InputError(f"<!-- table: {name} -->: there is no such table; there are "
                             f"{', '.join(_tables.TABLES)}")
        return f"{match[1]}\n{_tables.TABLES[name](found)}\n\n{match[3]}"

    return BLOCK.sub(table, text)


def draw(picture: Path) -> None:
    import _tables

    _tables.draw(_measurements.results(), picture)


def main() -> None:
    flags = build_parser().parse_args()
    if bool(flags.check) + bool(flags.picture) + bool(flags.measure) > 1:
        raise InputError("--measure, --check and --picture are three different things: give one")
    if flags.picture:
        draw(flags.picture)
        return
    if flags.measure:
        names = _measurements.MEASUREMENTS if flags.measure == "all" else flags.measure.split(",")
        for name in names:
            _measurements.measure(name)
    texts = {path: path.read_text() for path in documents()}
    stale = {path: new for path, old in texts.items() if (new := rendered(old)) != old}
    if flags.check:
        if stale:
            names = ", ".join(str(path.relative_to(_measurements.ROOT)) for path in stale)
            raise RunFault(f"{names}: not what docs/measured says; run "
                           "python scripts/benchmarks/measured.py")
        return
    for path, text in stale.items():
        path.write_text(text)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    draw(PICTURE)
    for path in [*stale, PICTURE]:
        print(path)


if __name__ == "__main__":
    cli.run(main)
