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
SHELL = [block for block in BLOCKS if block.language == "bash"]


def test_there_is_something_to_test():
    assert {page.name for page in PAGES} >= {"README.md", "using.md", "coming-from.md",
                                             "contributing.md", "CHANGELOG.md"}
    assert len(SHELL) > 15 and len([block for block in SHELL if block.why_not is None]) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_is_fenced_and_says_its_language(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"(?<=\n\n)    \S.*", text), "an indented block: fence it"
    for block in blocks(page):
        assert block.language in {"bash", "python", "diff", "text", "yaml"}, block
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
    section = (ROOT / "README.md").read_text().partition("\n## Troubleshooting\n")[2]
    section = section.partition("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)


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


def test_the_example_of_a_trick_works(tmp_path):
    """The diffs of "Adding a trick", applied to a copy; its test and its flag run."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    for name in ("gluon_tricks", "tests", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name,
                        ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    diffs = [block.text for block in BLOCKS if block.language == "diff"]
    assert len(diffs) == 4
    for diff in diffs:
        done = subprocess.run(["git", "apply", "-C1", "-"], input=diff, text=True,
                              cwd=tmp_path, capture_output=True)
        assert done.returncode == 0, done.stderr

    def run(*arguments):
        code = ("import sys, runpy; sys.path.insert(0, '.'); sys.argv = sys.argv[1:]; "
                "runpy.run_path(sys.argv[0], run_name='__main__')")
        return subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path,
                              capture_output=True, text=True)
    test = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                           "tests/test_confidence_penalty.py"], cwd=tmp_path, capture_output=True,
                          text=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)})
    assert test.returncode == 0, test.stdout + test.stderr
    dry = run("scripts/train_imagenet.py", "--model", "resnet18_v1", "--confidence-penalty", "0.1",
              "--dry-run")
    assert '"confidence_penalty": 0.1' in dry.stdout, dry.stderr
    wrong = run("scripts/train_imagenet.py", "--model", "resnet18_v1", "--confidence-penalty",
                "-1", "--dry-run")
    assert wrong.returncode == 2 and "--confidence-penalty -1.0: must be" in wrong.stderr
