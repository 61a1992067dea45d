"""CUDA's libraries from pip's wheels: loaded when MXNet is imported, and not before."""

import ast
import os
import subprocess
import sys

import fake_cuda
import pytest
from processes import ROOT

from gluon_tricks.machine import cuda

# Stands in for MXNet's CUDA build: like that, it finds libraries by name only.
MXNET = """
import ctypes
for soname in ("libcudart.so.11.0", "libcublas.so.11"):
    ctypes.CDLL(soname, ctypes.RTLD_LOCAL)
print("imported")
"""
LOADED = "print(sum('cudart' in line for line in open('/proc/self/maps')) > 0)"


@pytest.fixture
def site(tmp_path):
    """A folder of packages: an MXNet with CUDA, and two wheels."""
    site = tmp_path / "site"
    fake_cuda.package(site, "mxnet-cu112", "1.9.1")
    (site / "mxnet").mkdir()
    (site / "mxnet" / "__init__.py").write_text(MXNET)
    fake_cuda.library(site / "nvidia" / "cuda_runtime" / "lib", "libcudart.so.11.0", "int a;")
    cublas = site / "nvidia" / "cublas" / "lib"
    fake_cuda.library(cublas, "libcublasLt.so.11", "int b(void) { return 7; }")
    # It needs the other one without saying where that is: the order of loading decides.
    fake_cuda.library(cublas, "libcublas.so.11", "int b(void); int c(void) { return b(); }",
                      cublas / "libcublasLt.so.11")
    return site


def run(site, code, script=None, *arguments, library_path=None):
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    if library_path:
        environment["LD_LIBRARY_PATH"] = str(library_path)
    return subprocess.run(
        [sys.executable, *([script] if script else ["-c", code]), *arguments],
        capture_output=True, text=True, timeout=60,
        env={**environment, "PYTHONPATH": os.pathsep.join(map(str, [site, ROOT]))})


@pytest.mark.parametrize("code", [
    "import gluon_tricks, mxnet",
    "from gluon_tricks import cli\nimport importlib\nimportlib.import_module('mxnet')",
    # First MXNet without the package: it fails, and works once the package is there.
    "try:\n    import mxnet\nexcept OSError:\n    import gluon_tricks, mxnet",
])
def test_mxnet_finds_the_wheels_libraries(site, code):
    done = run(site, code + "\n" + LOADED)
    assert (done.stdout, done.stderr) == ("imported\nTrue\n", "")


def test_without_the_package_it_does_not(site):
    assert "libcudart.so.11.0: cannot open" in run(site, "import mxnet").stderr


def test_nothing_is_loaded_before(site):
    """Neither by the package itself nor by code that only looks for MXNet."""
    done = run(site, f"""
import gluon_tricks, importlib.util, inspect, sys
spec = importlib.util.find_spec("mxnet")
print(spec.origin, "ctypes" in spec.loader.get_source("mxnet"), "mxnet" in sys.modules)
{LOADED}""")
    assert done.stdout.splitlines() == [f"{site}/mxnet/__init__.py True False", "False"]


def test_the_cpu_build_loads_nothing(site):
    (site / "mxnet_cu112-1.9.1.dist-info" / "METADATA").unlink()
    (site / "mxnet_cu112-1.9.1.dist-info").rmdir()
    (site / "mxnet" / "__init__.py").write_text("")
    done = run(site, f"import gluon_tricks, mxnet\n{LOADED}\nprint(vars(mxnet.__loader__).keys())")
    assert done.stdout == "False\ndict_keys(['name', 'path'])\n"


def test_without_wheels_mxnet_takes_what_the_system_has(site):
    (site / "nvidia").rename(site / "other")
    (site / "mxnet" / "__init__.py").write_text("print('imported')")
    assert run(site, "import gluon_tricks, mxnet").stdout == "imported\n"


@pytest.mark.parametrize("break_it", ["unlink", "damage"])
@pytest.mark.parametrize(("folder", "soname"), [
    ("cuda_runtime", "libcudart.so.11.0"), ("cublas", "libcublas.so.11")])
def test_one_wheel_too_few_is_one_line(site, folder, soname, break_it):
    library = site / "nvidia" / folder / "lib" / soname
    if break_it == "unlink":
        library.unlink()
    else:
        library.write_text("no library")
    done = run(site, None, ROOT / "scripts" / "profile_model.py", "--model", "resnet18_v1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: MXNet's CUDA build needs CUDA's libraries, which were not found ({soname}: "
        "cannot open shared object file: No such file or directory): `pip install --no-deps "
        "--require-hashes -r docker/requirements-gpu.txt` installs them\n")


def test_cudnn_takes_no_part_of_another_version(site, tmp_path):
    for folder, answer in ((site / "nvidia" / "cudnn" / "lib", 896), (tmp_path / "system", 810)):
        fake_cuda.library(folder, "libcudnn_cnn_infer.so.8",
                          f"int version(void) {{ return {answer}; }}")
    code = ("import ctypes\nprint(ctypes.CDLL('libcudnn_cnn_infer.so.8').version())")
    for first, version in (("import gluon_tricks, mxnet\n", "imported\n896\n"), ("", "810\n")):
        assert run(site, first + code, library_path=tmp_path / "system").stdout == version


def test_their_symbols_are_there_for_all_that_is_loaded_later(site):
    done = run(site, "import gluon_tricks, mxnet, ctypes\nprint(ctypes.CDLL(None).c())")
    assert (done.stdout, done.stderr) == ("imported\n7\n", "")


def test_the_first_on_the_path_counts(site, tmp_path, monkeypatch):
    for folder, soname in (("cuda_runtime", "libcudart.so.11.0"), ("nvtx", "libnvToolsExt.so.1")):
        fake_cuda.library(tmp_path / "second" / "nvidia" / folder / "lib", soname)
    monkeypatch.setattr(sys, "path", [str(site), str(tmp_path / "second"), *sys.path])
    found = cuda.wheels()
    assert found["libcudart.so.11.0"].is_relative_to(site)
    assert found["libnvToolsExt.so.1"].is_relative_to(tmp_path / "second")
    assert list(found) == [soname for soname in cuda.LIBRARIES if soname in found]


def test_programs_without_this_package_find_them_by_the_library_path(site):
    done = run(site, None, ROOT / "scripts" / "doctor.py", "--library-path")
    wheels = [site / "nvidia" / folder / "lib" for folder in ("cuda_runtime", "cublas")]
    assert (done.returncode, done.stdout) == (0, ":".join(map(str, wheels)) + "\n")
    done = subprocess.run([sys.executable, "-c", "import mxnet"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(site),
                               "LD_LIBRARY_PATH": done.stdout.strip()})
    assert (done.stdout, done.stderr) == ("imported\n", "")


def test_no_driver_is_one_line(site):
    (site / "mxnet" / "__init__.py").write_text("import ctypes; ctypes.CDLL('libcuda.so.1')")
    done = run(site, "import ctypes; ctypes.CDLL('libcuda.so.1')")
    if done.returncode == 0:
        pytest.skip("there is a driver here")
    done = run(site, None, ROOT / "scripts" / "profile_model.py", "--model", "resnet18_v1")
    assert (done.returncode, done.stdout) == (1, "")
    line, = done.stderr.splitlines()
    assert "NVIDIA's driver, which was not found (libcuda.so.1: cannot open" in line
    assert "--gpus all" in line and "pip uninstall -y mxnet-cu112" in line


def test_each_library_has_a_wheel_in_the_install():
    tree = ast.parse((ROOT / "setup.py").read_text())
    extras, = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
               and node.targets[0].id == "EXTRAS")
    assert all("==" in requirement for requirement in extras["gpu"])
    assert ({requirement.partition("==")[0] for requirement in extras["gpu"]}
            == {"mxnet-cu112", *(wheel for wheel, _ in cuda.LIBRARIES.values())})
