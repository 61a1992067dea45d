"""Check what is installed here and whether it will work; each finding comes with its remedy.

    python scripts/doctor.py
    python scripts/doctor.py --num-gpus 4 --save-dir /data/runs
    python scripts/doctor.py --json

The last line is the verdict: usable on the CPU, usable on N GPUs, or not usable, and why.
"""

from __future__ import annotations  # lets an older Python get as far as being reported

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gluon_tricks import cli

EXIT_CODES = "exit codes: 0 usable, 1 not, 2 a flag is wrong, 130 Ctrl-C, 143 SIGTERM"


def find_package() -> str | None:
    """Import gluon_tricks; returns its message if it refuses Python's or NumPy's version.

    If it is not installed, it is imported from this script's clone. If it refuses, its modules can
    still be imported, so that doctor can report this along with the rest.
    """
    if importlib.util.find_spec("gluon_tricks") is None:
        sys.path.append(str(Path(__file__).resolve().parent.parent))
    try:
        import gluon_tricks  # noqa: F401
    except ImportError as error:
        if sys.version_info < (3, 11):  # noqa: UP036, this is the check for it
            raise  # as one line: such a Python cannot parse the rest
        sys.modules["gluon_tricks"] = importlib.util.module_from_spec(
            importlib.util.find_spec("gluon_tricks"))
        return str(error)
    return None


def build_parser() -> cli.Parser:
    from gluon_tricks import cli

    parser = cli.Parser(description=__doc__, epilog=EXIT_CODES,
                        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save-dir", "--dir", type=cli.path, default=Path(), metavar="DIR",
                        help="where runs will go (default: the current folder); the self-test "
                        "writes there and leaves nothing behind")
    parser.add_argument("--num-gpus", type=int, default=0, metavar="N", help="how many a run will "
                        "use: whatever prevents that is a fault; the self-test runs on the first "
                        "one (default: 0)")
    parser.add_argument("--no-self-test", action="store_true", help="skip the self-test, which "
                        "takes up to 20 seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object: verdict, "
                        "usable, gpus (how many a run can use), findings (group, level, name, "
                        "value, remedy)")
    parser.add_argument("--library-path", action="store_true", help="only print the folders of "
                        "pip's CUDA libraries: LD_LIBRARY_PATH for programs that import MXNet "
                        "without this package, such as horovodrun and Horovod's build")
    return parser


def main(problem: str | None) -> int:
    """Run doctor; `problem` is the message with which gluon_tricks refused to be imported."""
    from gluon_tricks.errors import InputError

    flags = build_parser().parse_args()
    if flags.num_gpus < 0:
        raise InputError(f"--num-gpus {flags.num_gpus}: give 0 or more")
    if flags.library_path:
        from gluon_tricks.machine import cuda

        print(cuda.library_path())
        return 0
    from gluon_tricks.doctor import report
    from gluon_tricks.doctor.examine import examine

    findings, gpus = examine(flags.save_dir, flags.num_gpus, problem=problem,
                             try_it=not flags.no_self_test)
    if flags.json:
        print(report.as_json(findings, gpus))
    else:
        report.write(findings, gpus, sys.stdout)
    return 0 if report.usable(findings) else 1


if __name__ == "__main__":
    refused = find_package()
    from gluon_tricks import cli

    cli.run(lambda: main(refused))
