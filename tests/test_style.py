"""What every file of the project keeps."""

import ast
import graphlib
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("gluon_tricks", "scripts") for path in
               (ROOT / folder).rglob("*.py"))


def test_ruff_has_nothing_to_say():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", str(ROOT)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Which room may import which (docs/design.md); errors and files always, and a room its own.
ALLOWED = {
    "errors": set(), "files": set(), "augment": set(), "mixing": set(), "loss": set(),
    "optim": set(), "config": set(), "machine": set(),
    "models": {"loss", "optim"},
    "data": {"augment", "machine", "_native"},
    "parallel": {"machine"},
    "runs": {"config", "parallel", "models", "optim"},
    "cli": {"machine", "parallel"},
    "engine": {"runs", "parallel", "models", "config", "machine", "optim", "cli"},
    "prepare": {"data", "augment", "machine"},
    "classification": {"engine", "runs", "cli", "parallel", "data", "models", "config", "machine",
                       "augment", "mixing", "loss", "optim"},
}
ALLOWED["transfer"] = ALLOWED["classification"] | {"classification"}  # for --backbone-params alone
ALLOWED["inference"] = ALLOWED["transfer"] | {"transfer", "prepare"}
ALLOWED["experiments"] = ALLOWED["inference"] | {"inference"}
ALLOWED["doctor"] = ALLOWED["experiments"] | {"experiments"}
PACKAGE = [path for path in FILES if path.is_relative_to(ROOT / "gluon_tricks")]


def imports(path: Path) -> set[Path]:
    """The files of the package that one imports, anywhere in it, for type checkers too."""
    def file_of(module: str) -> Path | None:
        place = ROOT.joinpath(*module.split("."))
        return next((file for file in (place.with_suffix(".py"), place / "__init__.py")
                     if file in PACKAGE), None)

    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gluon_tricks"):
            for name in node.names:
                found.add(file_of(f"{node.module}.{name.name}") or file_of(node.module))
        elif isinstance(node, ast.Import):
            found |= {file_of(name.name) for name in node.names
                      if name.name.startswith("gluon_tricks")}
    return found - {None, path}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "gluon_tricks").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.name != "__init__.py"],
                         ids=lambda path: str(path.relative_to(ROOT / "gluon_tricks")))
def test_imports_point_one_way(path):
    own = room_of(path)
    rooms = {room_of(file) for file in imports(path)} - {"__init__", "errors", "files", own}
    assert rooms <= ALLOWED[own], rooms - ALLOWED[own]


def test_no_file_imports_itself_by_way_of_others():
    graph = {path: imports(path) for path in PACKAGE}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_no_file_is_over_400_lines():
    long = {path.name: lines for room in ("gluon_tricks", "scripts", "tests")
            for path in (ROOT / room).rglob("*.*") if path.suffix in (".py", ".cpp", ".h")
            and (lines := len(path.read_text().splitlines())) > 400}
    assert not long


def test_the_engine_knows_no_images_and_no_classes():
    """Not in names, words or messages; Python's own `class` is none of these."""
    word = re.compile(r"(?<![a-z])(image|picture|label|top[-_]?[15]|logit|zoo|mixup|teacher|"
                      r"class|classes)s?(?![a-z])|gluon_tricks\.(loss|mixing|data)", re.IGNORECASE)
    for path in (ROOT / "gluon_tricks" / "engine").glob("*.py"):
        with open(path, "rb") as file:
            found = [token for token in tokenize.tokenize(file.readline)
                     if token.string != "class" and word.search(token.string)]
        assert not found, path


def test_one_file_alone_imports_the_native_decoder():
    """The rest must work if it was not built."""
    naming = [path for path in FILES if re.search(
        r"gluon_tricks(\._native| import _native)", path.read_text())]
    assert naming == [ROOT / "gluon_tricks" / "data" / "native.py"]
