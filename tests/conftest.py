"""What several tests share."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before MXNet is loaded, and for all processes

import cv2
import numpy as np
import pytest
from script_modules import run_script

from gluon_tricks.data import native
from gluon_tricks.data.record import RecordWriter

pytest_plugins = ["run_fixtures", "loader_fixtures"]  # of tests/support

ROOT = Path(__file__).parent.parent
SUPPORT = ROOT / "tests" / "support"
CLONED = "test_documents_run.py", "test_quickstart.py"  # which use the fixture `clone`
# Warnings that Python shows no user.
UNHEARD = DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A worker gets whole files, and those of CLONED together: what they share is made once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "clone" if Path(file).name in CLONED else file

    return Scheduling(config, log)


@pytest.fixture
def script():
    """Run `scripts/NAME.py ARGUMENTS...` as a user would; returns the finished process."""
    def run(name: str, *arguments, timeout: float = 600) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    return run


@pytest.fixture(scope="session")
def run_python():
    """run_python(code): the finished process of a Python of its own."""
    def run(code: str, timeout: float = 300) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
                              capture_output=True, text=True, timeout=timeout)
    return run


@pytest.fixture(scope="session")
def in_ranks():
    """in_ranks(size, program, arguments...): a file of tests/support, run as so many ranks by the
    launcher; the finished process. Skips without Horovod, but in CI, where it must be there."""
    if importlib.util.find_spec("horovod") is None:
        assert os.environ.get("CI") != "true", "Horovod is missing"
        pytest.skip("needs Horovod, which scripts/test.sh installs")

    def run(size: int, program: str, *arguments, timeout: float = 300):
        command = [sys.executable, "-W", "ignore", str(SUPPORT / program), *map(str, arguments)]
        code = ("import json, sys; from gluon_tricks.parallel.launch import launch; "
                "sys.exit(launch(int(sys.argv[1]), pin=True, command=json.loads(sys.argv[2])))")
        return subprocess.run([sys.executable, "-c", code, str(size), json.dumps(command)],
                              capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; skips where GLUON_TRICKS_TEST_DATA is unset."""
    folder = os.environ.get("GLUON_TRICKS_TEST_DATA")
    if not folder:
        pytest.skip("needs the real data that GLUON_TRICKS_TEST_DATA points to")
    assert Path(folder).is_dir(), f"GLUON_TRICKS_TEST_DATA={folder} is no folder"
    return Path(folder)


@pytest.fixture(scope="session")
def native_core():
    """The C++ extension; skips where it cannot be used, but in CI, where it must be there."""
    reason = native.why_not()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the native decoder is missing: {reason}")
        pytest.skip(f"needs the native decoder, but {reason}")
    return native.core()


def _refusal(done: subprocess.CompletedProcess) -> str:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr}"
    assert len(lines) == 1, f"not one line: {done.stderr}"
    assert done.stdout == ""
    return lines[0]


@pytest.fixture
def inside(capfd):
    """As `script`, in this process, which has loaded MXNet already; warnings end up on stderr."""
    def run(name: str, *arguments) -> subprocess.CompletedProcess:
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("default")
            for category in UNHEARD:
                warnings.simplefilter("ignore", category)
            code = run_script(name, *arguments)
        out, err = capfd.readouterr()
        err += "".join(f"{warning.category.__name__}: {warning.message}\n" for warning in warned)
        return subprocess.CompletedProcess((name, *arguments), code, out, err)
    return run


@pytest.fixture
def refused(inside):
    """Run a script that must refuse its input: exit code 2, one line on stderr; returns it."""
    def run(name: str, *arguments) -> str:
        return _refusal(inside(name, *arguments))
    return run


@pytest.fixture
def refused_alone(script):
    """As `refused`, in a process of its own."""
    def run(name: str, *arguments) -> str:
        return _refusal(script(name, *arguments))
    return run


def _jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@pytest.fixture(scope="session")
def jpeg():
    """jpeg(image, quality=95): an RGB picture as JPEG bytes."""
    return _jpeg


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    """A folder of three classes with 4, 5 and 6 noise pictures of various sizes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for label, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for number in range(4 + label):
            height, width = rng.integers(40, 90, 2)
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            (folder / name / f"{number}.jpg").write_bytes(_jpeg(image))
    return folder


def _bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    def weights(old, new):
        matrix = np.zeros((new, old))
        for i in range(new):
            x = (i + 0.5) * old / new - 0.5
            low = math.floor(x)
            matrix[i, min(max(low, 0), old - 1)] += 1 - (x - low)
            matrix[i, min(max(low + 1, 0), old - 1)] += x - low
        return matrix
    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("yi,xj,ijc->yxc", rows, columns, image.astype(np.float64), optimize=True)


@pytest.fixture(scope="session")
def bilinear():
    """bilinear(image, height, width): the definition, float64; pixel centres at half-integers."""
    return _bilinear


@pytest.fixture(scope="session")
def noise_records(jpeg):
    """noise_records(prefix, count, size, classes): a .rec of noise pictures."""
    def write(prefix: Path, count: int, size: tuple[int, int], classes: int) -> None:
        rng = np.random.default_rng(0)
        with RecordWriter(prefix) as writer:
            for key in range(count):
                writer.write(key, key % classes, jpeg(rng.integers(0, 256, (*size, 3), np.uint8)))
    return write
