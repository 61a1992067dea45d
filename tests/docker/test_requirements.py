"""docker/requirements-*.txt are what setup.py and pyproject.toml ask for, and all hashed."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
NAMES = ["cpu", "gpu", "horovod", "build", "test"]


def asked_for() -> dict[str, list[Requirement]]:
    """What setup.py requires ("") and its extras, read without running it."""
    found = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ("REQUIRED", "EXTRAS"):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return {name: [Requirement(line) for line in lines]
            for name, lines in {"": found["REQUIRED"], **found["EXTRAS"]}.items()}


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """A package's version and hashes."""
    lines = (DOCKER / f"requirements-{name}.txt").read_text().replace("\\\n", " ").splitlines()
    found = {}
    for line in lines:
        if not line.startswith("#"):
            package, version, rest = re.fullmatch(r"([a-z0-9-]+)==(\S+)(.*)", line).groups()
            found[package] = version, re.findall(r"--hash=sha256:([0-9a-f]{64})(?= |$)", rest)
            assert len(found[package][1]) == len(rest.split()), f"not only hashes: {line[:200]}"
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_package_has_hashes_and_no_index_is_named(name):
    text = (DOCKER / f"requirements-{name}.txt").read_text()
    assert "bash docker/lock.sh" in text.splitlines()[1]
    assert "://" not in text and "index" not in text
    packages = locked(name)
    assert packages and all(hashes for _, hashes in packages.values())


def check(packages: dict[str, tuple[str, list[str]]], *extras: str) -> None:
    """Fails unless the packages have what setup.py asks for, OpenCV without its windows."""
    setup = asked_for()
    wanted = [requirement for extra in ("", *extras) for requirement in setup[extra]]
    assert len(wanted) > 15
    for requirement in wanted:
        name = requirement.name.lower().replace("_", "-")
        if name == "opencv-python":
            name = "opencv-python-headless"  # which needs no libGL
        assert name in packages, f"{requirement} is missing: run `bash docker/lock.sh`"
        assert requirement.specifier.contains(packages[name][0]), \
            f"{requirement}, but {packages[name][0]} is locked: run `bash docker/lock.sh`"
    assert not {"opencv-python", "horovod"} & set(packages)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_an_image_has_what_setup_asks_for(device):
    check(locked(device), device, "tensorboard", "export")


def test_the_tests_have_what_setup_asks_for():
    cpu, added = locked("cpu"), locked("test")
    assert not set(cpu) & set(added)
    check(cpu | added, "cpu", "tensorboard", "export", "test")
    assert "cmake" in added  # Horovod's build runs it


def test_one_version_where_locks_are_installed_at_once():
    """scripts/_venv.sh hands pip several."""
    found = {}
    for name in ("build", "cpu", "test"):
        for package, locked_as in locked(name).items():
            assert found.setdefault(package, locked_as) == locked_as


def test_one_mxnet_an_image():
    assert {name for name in locked("cpu") if name.startswith(("mxnet", "nvidia"))} == {"mxnet"}
    assert {name for name in locked("gpu") if name.startswith("mxnet")} == {"mxnet-cu112"}


def test_the_images_differ_in_mxnet_and_cuda_alone():
    cpu, gpu = locked("cpu"), locked("gpu")
    assert {name for name in set(cpu) ^ set(gpu) if not name.startswith("nvidia-")} \
        == {"mxnet", "mxnet-cu112"}
    assert not [name for name in set(cpu) & set(gpu) if cpu[name] != gpu[name]]


def test_horovod_is_the_source_that_setup_pins():
    requirement, = asked_for()["horovod"]
    (name, (version, hashes)), = locked("horovod").items()
    assert (name, f"=={version}") == ("horovod", str(requirement.specifier))
    assert len(hashes) == 1  # PyPI has no wheel of it


def test_what_builds_is_what_pyproject_asks_for():
    packages = locked("build")
    with open(ROOT / "pyproject.toml", "rb") as file:
        wanted = tomllib.load(file)["build-system"]["requires"]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(packages[requirement.name][0])
