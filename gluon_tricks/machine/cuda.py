"""Loads CUDA 11's libraries from pip's wheels before MXNet, wherever that is imported.

They are in site-packages/nvidia/*/lib, where the system's loader does not look. It does not look
for libraries that are loaded already, though: so they are loaded by path as soon as `import mxnet`
begins, and not before, since they are 3 GB. If mxnet-cu112 or the wheels are missing, nothing is
done, and MXNet finds what the system has, or reports what is missing.
"""

import contextlib
import os
import sys
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

BUILD = "mxnet-cu112"
# What its libmxnet.so needs of CUDA: by soname, the wheel and its folder, dependencies first. The
# parts of cuBLAS and cuDNN are listed, too: otherwise another version's could be found under
# LD_LIBRARY_PATH.
LIBRARIES = {
    "libcudart.so.11.0": ("nvidia-cuda-runtime-cu11", "cuda_runtime"),
    "libnvToolsExt.so.1": ("nvidia-nvtx-cu11", "nvtx"),
    "libnvrtc.so.11.2": ("nvidia-cuda-nvrtc-cu11", "cuda_nvrtc"),
    "libcublasLt.so.11": ("nvidia-cublas-cu11", "cublas"),
    "libcublas.so.11": ("nvidia-cublas-cu11", "cublas"),
    "libcufft.so.10": ("nvidia-cufft-cu11", "cufft"),
    "libcurand.so.10": ("nvidia-curand-cu11", "curand"),
    "libcusolver.so.11": ("nvidia-cusolver-cu11", "cusolver"),
    "libcudnn.so.8": ("nvidia-cudnn-cu11", "cudnn"),
    **{f"libcudnn_{part}.so.8": ("nvidia-cudnn-cu11", "cudnn") for part in (
        "ops_infer", "ops_train", "cnn_infer", "cnn_train", "adv_infer", "adv_train")},
    "libnccl.so.2": ("nvidia-nccl-cu11", "nccl"),
}


def wheels() -> dict[str, Path]:
    """The libraries from pip's wheels, by soname, in the order to load them."""
    package = PathFinder.find_spec("nvidia")  # a namespace package that all wheels share: several
    places = package.submodule_search_locations if package else None  # folders on the path
    return {soname: file for soname, (_, folder) in LIBRARIES.items()
            for file in [Path(place, folder, "lib", soname) for place in places or ()][::-1]
            if file.is_file()}  # reversed, so that the first on the path wins


def library_path() -> str:
    """Their folders in the form of LD_LIBRARY_PATH, for programs that import MXNet without this
    package, such as horovodrun."""
    return os.pathsep.join(dict.fromkeys(str(file.parent) for file in wheels().values()))


def has_build() -> bool:
    """Whether mxnet-cu112 is installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(BUILD))
    return False


def preload() -> None:
    """Load the wheels' libraries, for whatever is loaded later. If one cannot be loaded, MXNet
    reports it."""
    import ctypes  # late: `import gluon_tricks` does not need it

    for file in wheels().values():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)


class _Finder:
    """Finds MXNet through the other finders, and makes its import preload first."""

    def find_spec(self, name: str, path: object = None, target: object = None
                  ) -> ModuleSpec | None:
        if name != "mxnet" or not has_build():
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        run = getattr(spec.loader, "exec_module", None)
        if run is None:  # a folder without a package
            return spec

        def exec_module(module: object) -> None:
            preload()
            run(module)
        # The loader itself stays, for those who ask it for sources and resources.
        spec.loader.exec_module = exec_module
        return spec


_FINDER = _Finder()


def install() -> None:
    """Make `import mxnet` preload the libraries, wherever it happens."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
