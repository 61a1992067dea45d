"""What every file of the project keeps."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("gluon_tricks", "scripts") for path in
               (ROOT / folder).rglob("*.py"))


def test_ruff_has_nothing_to_say():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", str(ROOT)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# config, models, ... may import what stands behind them: data flows one way, see the README.
ALLOWED = {
    "errors": set(), "processor": set(), "launch": {"errors", "processor"},
    "cuda": set(), "gpus": {"errors"},
    "cli": {"errors", "processor", "launch", "cuda"}, "rules": set(), "presets": set(),
    "config": {"errors", "rules", "presets"}, "parallel": {"errors", "launch", "gpus"},
    "training": {"cli", "config", "launch", "parallel", "presets", "engine"},
    "loss": set(), "mixing": set(), "experiments": set(),
    "models": {"errors", "models"}, "augment": {"augment"},
    "data": {"errors", "data", "augment", "cli", "_native"}, "optim": {"optim"},
    "engine": {"errors", "config", "models", "augment", "data", "mixing", "loss", "optim",
               "engine", "processor", "parallel", "presets"},
    "doctor": {"errors", "cuda", "gpus", "cli", "processor", "launch", "parallel", "config", "data",
               "engine", "doctor"},
}


def when_run(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in it but what type checkers alone see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from when_run(child)


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(
    ROOT / "gluon_tricks") and path.name != "__init__.py"], ids=lambda path: path.stem)
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT / "gluon_tricks").parts[0].removesuffix(".py")
    imported = set()
    for node in when_run(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gluon_tricks"):
            parts = node.module.split(".")
            imported |= ({parts[1]} if len(parts) > 1 else
                         {name.name for name in node.names} - {"__version__"})
    assert imported <= ALLOWED[room], imported - ALLOWED[room]


def test_one_file_alone_imports_the_native_decoder():
    """The rest must work where it was not built."""
    naming = [path for path in FILES if re.search(
        r"gluon_tricks(\._native| import _native)", path.read_text())]
    assert naming == [ROOT / "gluon_tricks" / "data" / "native.py"]
