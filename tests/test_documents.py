"""README and docs/: what they claim of commands, files, messages and measurements holds."""

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import cv2
import documents
import numpy as np
import pytest
from documents import PAGES, ROOT, blocks, script_calls

import gluon_tricks

BLOCKS = [block for page in PAGES for block in blocks(page)]
ELSEWHERE = {"scripts/datasets/imagenet.py"}  # files of GluonCV's that the documents name
SHELL = [block for block in BLOCKS if block.language == "bash"]


def test_there_is_something_to_test():
    assert {page.name for page in PAGES} >= {"README.md", "using.md", "coming-from.md", "design.md",
                                             "troubleshooting.md", "contributing.md",
                                             "CHANGELOG.md"}
    assert len(SHELL) > 15 and len([block for block in SHELL if block.why_not is None]) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_is_fenced_and_says_its_language(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"(?<=\n\n)    \S.*", text), "an indented block: fence it"
    for block in blocks(page):
        assert block.language in {"bash", "python", "diff", "text", "yaml", "mermaid"}, block
        assert block.why_not is None or len(block.why_not) > 5, f"{block}: why is it not run?"


@cache
def help_of(script: str) -> str:
    program = [sys.executable] if script.endswith(".py") else ["bash"]
    done = subprocess.run([*program, str(ROOT / script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, script
    return done.stdout


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_flags_of_commands_are_there(block):
    for script, arguments in script_calls(block.text):
        assert (ROOT / script).is_file(), script
        if script == "scripts/test.sh":  # its --help is pytest's
            continue
        for flag in (word.partition("=")[0] for word in arguments if word.startswith("--")):
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", help_of(script)), f"{script} {flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(page):
    for link in documents.links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in documents.anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page):
    for path in documents.paths(page) - ELSEWHERE:
        assert any((folder / path).is_file() for folder in (ROOT, ROOT / "gluon_tricks")), path


def test_the_design_names_every_room_and_its_files():
    """A row of its table: rooms, what is in them, what they may import."""
    package = ROOT / "gluon_tricks"
    text = (ROOT / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| (`.+?) \| (.+) \|.*\|$", text.partition("\n## How")[0], re.MULTILINE)
    named = {room: content for rooms, content in rows for room in re.findall(r"`(.+?)`", rooms)}
    rooms = {f"{path.name}/" if path.is_dir() else path.name for path in package.iterdir()
             if (path / "__init__.py").is_file() or (path.suffix == ".py" and path.stem[0] != "_")}
    assert rooms <= named.keys(), rooms - named.keys()
    for room in rooms:
        for file in re.findall(r"`(\w+\.py)`", named[room]):
            assert any((package / other / file).is_file() for other in rooms
                       if named.get(other) == named[room]), f"{room}{file}"
    for room in ("classification/", "config/", "doctor/", "engine/", "inference/", "parallel/",
                 "prepare/", "runs/"):
        missing = {path.name for path in (package / room).glob("*.py")} - {"__init__.py"} - set(
            re.findall(r"\w+\.py", named[room]))
        assert not missing, missing


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet",
                           "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(tmp_path)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "several-devices" / "index.html").is_file()


def test_the_changelog_has_this_version():
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert newest == gluon_tricks.__version__


def test_the_version_stands_in_one_place():
    pattern = re.compile(rf"(?<![\d.]){re.escape(gluon_tricks.__version__)}(?![\d.])")
    files = [path for folder in ("gluon_tricks", "scripts", "docker") for path in
             (ROOT / folder).rglob("*") if path.suffix in {".py", ".sh", ""} and path.is_file()]
    found = [path for path in [*files, ROOT / "setup.py"]
             if pattern.search(path.read_text(errors="ignore"))]
    assert found == [ROOT / "gluon_tricks" / "__init__.py"]


def said(path: Path) -> list[str]:
    """The strings of a file of Python, with a line break in place of what changes."""
    def words(node: ast.AST) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(words(part) for part in node.values)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        return "\n"
    return [words(node) for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.JoinedStr | ast.Constant)]


@cache
def all_said() -> str:
    texts = [text for folder in ("gluon_tricks", "scripts") for path in
             (ROOT / folder).rglob("*.py") for text in said(path)]
    return "\0".join([*texts, *(path.read_text() for path in (ROOT / "scripts").glob("*.sh"))])


def troubles() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)


def test_there_are_troubles():
    assert len(troubles()) > 20 and len(set(troubles())) == len(troubles())


@pytest.mark.parametrize("message", troubles())
def test_a_message_of_the_troubleshooting_table_is_said_by_the_code(message):
    parts = [re.escape(part.strip()) for part in message.split("…")]
    assert max(map(len, parts)) > 10, "too little to search for"
    pattern = r"[^\0]{0,200}?".join(parts)
    assert re.search(pattern, all_said()), message


def test_no_install_brings_opencv_python_over_the_headless_one():
    """gluoncv asks for it by name: the lock's packages and this one are installed without."""
    for text in [all_said(), *(page.read_text() for page in PAGES)]:
        assert not re.findall(r"\.\[(?:cpu|gpu|export|tensorboard|test)|(?<!deps )-e \.", text)
        for lock in re.findall(r"docker/requirements-\w+\.txt", text):
            assert (ROOT / lock).is_file(), lock
    assert "pip install --no-deps -e ." in (ROOT / "README.md").read_text()


def test_a_message_that_nobody_says_would_be_found_out():
    assert not re.search(r"MXNet\ sees\ no\ GPU\ there", all_said())
    assert re.search(r"MXNet\ sees\ no\ GPU\ here", all_said())


def measured(*arguments):
    return subprocess.run([sys.executable, str(ROOT / "scripts" / "benchmarks" / "measured.py"),
                           *map(str, arguments)], capture_output=True, text=True)


def test_tables_are_what_was_measured():
    done = measured("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_picture_is_what_was_measured(tmp_path):
    done = measured("--picture", tmp_path / "again.png")
    assert done.returncode == 0, done.stderr
    kept, again = (cv2.imread(str(path)).astype(int) for path in
                   (ROOT / "docs" / "pictures" / "measured.png", tmp_path / "again.png"))
    assert kept.shape == again.shape and kept.std() > 10
    assert np.abs(kept - again).mean() < 1  # of 255; fonts may be drawn a little otherwise


@pytest.fixture
def example(tmp_path):
    """example(heading, count): the diffs under a heading, applied to a copy of the project, where
    what is given back runs Python, in a process that must end with a code."""
    def apply(heading: str, count: int):
        if shutil.which("git") is None:
            pytest.skip("needs git")
        for name in ("gluon_tricks", "tests", "scripts"):
            shutil.copytree(ROOT / name, tmp_path / name,
                            ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        diffs = [block.text for block in BLOCKS if block.language == "diff"
                 and documents.section(block) == heading]
        assert len(diffs) == count
        for diff in diffs:
            done = subprocess.run(["git", "apply", "-C1", "-"], input=diff, text=True,
                                  cwd=tmp_path, capture_output=True)
            assert done.returncode == 0, done.stderr
        return run

    def run(*arguments, code: int = 0) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path),
                                   "HOME": str(tmp_path)})
        assert done.returncode == code, done.stdout
        return done.stdout
    return apply


def test_the_example_of_a_trick_works(example):
    run = example("Adding a trick", 4)
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_confidence_penalty.py")
    training = ("scripts/train_imagenet.py", "--model", "resnet18_v1", "--dry-run")
    assert '"confidence_penalty": 0.1' in run(*training, "--confidence-penalty", "0.1")
    assert "--confidence-penalty -1.0: must be at least 0" in run(
        *training, "--confidence-penalty", "-1", code=2)


OPTION_IN_USE = """
from dataclasses import replace
from pathlib import Path

import mxnet as mx

from gluon_tricks.classification.network import build_network, initialize
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve_without_data
from gluon_tricks.errors import InputError
from gluon_tricks.inference.trained import load
from gluon_tricks.models.parameters import named_arrays
from gluon_tricks.models.params_file import save_arrays

run = Path("run")
run.mkdir()
for model in ("resnet18_v1", "resnet18_v1d"):
    settings = resolve_without_data(Settings(model=model, num_classes=4, head_norm=True,
                                             input_size=32, save_dir=str(run)))
    network = build_network(settings)
    initialize(network, settings, mx.cpu())
    save_arrays(run / "best.params", named_arrays(network))
    (run / "config.json").write_text(settings.to_json(task="classification"))
    trained = load(run, mx.cpu())
    assert trained.settings.head_norm
    assert any("head_norm" in name for name in named_arrays(trained.network))
    images = mx.nd.random.normal(shape=(2, 3, 32, 32))
    assert (trained.network(images) == network(images)).asnumpy().all()
for refused in (lambda: load(run, mx.cpu(), head_norm=False),
                lambda: build_network(replace(settings, model="mobilenet1.0"))):
    try:
        refused()
    except InputError as error:
        print(error)
"""


def test_the_example_of_a_networks_option_works(example):
    """It is built through the flags, kept by a run's folder, and in the flags of other scripts."""
    run = example("Adding an option of a network", 2)
    assert '"head_norm": true' in run("scripts/train_imagenet.py", "--head-norm", "--dry-run",
                                      "--model", "resnet50_v1d")
    without, in_another = run("-c", OPTION_IN_USE).splitlines()
    assert "best.params" in without and "head_norm" in without
    assert "has no option 'head_norm' (--head-norm)" in in_another
    for script in ("evaluate", "export"):
        assert "--head-norm" in run(f"scripts/{script}.py", "--help")
    run("-c", "from pathlib import Path; Path('run/config.json').unlink()")  # says the structure
    run("scripts/export.py", "--params", "run/best.params", "--model", "resnet18_v1d",
        "--num-classes", "4", "--input-size", "32", "--head-norm", "--format", "symbol",
        "--out", "exported")
