"""docker/Dockerfile names what is there, and fits what the requirements pin."""

import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
TEXT = re.sub(r"^ *#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.M)
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.M | re.S))
PARENTS = {child: parent
           for parent, child in re.findall(r"^FROM (\S+) AS (\S+)$", TEXT, re.M)}
SHELL = [DOCKER / name for name in ("check.sh", "entrypoint.sh", "lock.sh",
                                    "cuda-libraries.sh", "_images.sh")]


def line_of(stage: str) -> list[str]:
    """The stages that a stage builds on, itself first."""
    return [stage, *line_of(PARENTS[stage])] if stage in PARENTS else []


def test_both_stand_on_a_base_that_exists():
    outside = {parent for parent in PARENTS.values() if parent not in PARENTS}
    assert outside == {"debian:bookworm-slim"}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_no_compiler_and_no_root(target):
    text = "\n".join(STAGES[stage] for stage in reversed(line_of(target)))
    assert not re.search(r"\b(g\+\+|gcc|cmake|make|nvidia-cuda-toolkit|python3-dev)(?!\w)", text)
    assert re.findall(r"^USER (.*)$", text, re.M)[-1] == "1000:1000"


def test_the_toolkit_is_of_the_release_of_the_runtime():
    toolkit, = re.findall(r"nvidia-cuda-toolkit=(\d+\.\d+)\.\*", TEXT)
    runtime, = re.findall(r"^nvidia-cuda-runtime-cu11==(\d+\.\d+)\.",
                          (DOCKER / "requirements-gpu.txt").read_text(), re.M)
    assert toolkit == runtime


def test_every_apt_install_is_one_layer_without_lists():
    installs = [step for step in re.split(r"\n(?=[A-Z]+ )", TEXT) if "apt-get install" in step]
    assert len(installs) == 3
    for step in installs:
        assert "apt-get update" in step and "--no-install-recommends" in step
        assert "rm -rf /var/lib/apt/lists/*" in step


def test_pip_installs_only_what_is_hashed():
    installs = re.findall(r"pip (?:install|wheel) (.*?)(?=&&|\n[A-Z]|\Z)", TEXT, re.S)
    assert len(installs) == 6
    for arguments in installs:
        assert "--no-deps" in arguments
        assert "--require-hashes" in arguments or "--no-index" in arguments


def test_no_stub_of_the_driver_is_left_behind():
    for target in ("cpu", "gpu"):
        text = "\n".join(STAGES[stage] for stage in line_of(target))
        assert "libcuda1" not in text and "LD_LIBRARY_PATH" not in text


def context() -> tuple[list[str], list[str]]:
    """What Dockerfile.dockerignore includes, and what it excludes from that."""
    lines = [line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
             if line and not line.startswith("#")]
    assert lines[0] == "*"
    return ([line[1:] for line in lines[1:] if line.startswith("!")],
            [line for line in lines[1:] if not line.startswith("!")])


def test_all_that_is_copied_is_there_and_in_the_context():
    taken, left_out = context()
    copied = [source for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.M)
              for source in line.split()[:-1]]
    assert len(copied) > 8
    for source in copied:
        assert (ROOT / source).exists()
        assert any(source == name or source.startswith(f"{name}/") for name in taken)
        assert not any(fnmatch(source, pattern) for pattern in left_out)
    assert all((ROOT / name).exists() for name in taken)
    assert not [name for name in taken if name.startswith(".")]  # version control


def linter(name: str) -> str:
    """The path of a linter; skips without it, but in CI, where scripts/test.sh has installed it."""
    found = shutil.which(name)
    if not found:
        assert os.environ.get("CI") != "true", f"{name} is missing"
        pytest.skip(f"no {name} here")
    return found


def test_hadolint_has_nothing_to_say():
    done = subprocess.run([linter("hadolint"), DOCKER / "Dockerfile"], capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_has_nothing_to_say():
    done = subprocess.run([linter("shellcheck"), "-x", *SHELL, *(ROOT / "scripts").glob("*.sh")],
                          capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_bash_can_read_it(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["tpu"], ["--keep"], ["--fast", "cpu"]])
def test_check_refuses_what_it_does_not_know(arguments):
    done = subprocess.run(["bash", DOCKER / "check.sh", *arguments], capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout) == (2, "")
    line, = done.stderr.splitlines()
    assert "usage: bash docker/check.sh" in line
