"""Stand-ins for NVIDIA's driver and for libraries of CUDA, compiled when a test needs them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DRIVER = """
#include <stddef.h>
#include <string.h>
static const struct { const char *name; int major, minor; size_t memory; } devices[] = {%s {0}};
int cuInit(unsigned flags) { return %d; }
int cuDriverGetVersion(int *version) { *version = %d; return 0; }
int cuGetErrorName(int code, const char **name) {
    *name = code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : 0;
    return code != 803;
}
int cuDeviceGetCount(int *count) { *count = sizeof devices / sizeof *devices - 1; return 0; }
int cuDeviceGet(int *device, int number) { *device = number + 70; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, devices[device - 70].name, size);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = devices[device - 70].memory;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute != 75 && attribute != 76) return 1;
    *value = attribute == 75 ? devices[device - 70].major : devices[device - 70].minor;
    return 0;
}
"""


def library(folder: Path, soname: str, code: str = "", *options: str) -> Path:
    """A shared library with this name, made from this C code."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        assert os.environ.get("CI") != "true", "a C compiler is missing"
        pytest.skip("needs a C compiler")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o",
                    folder / soname, "-x", "c", "-", "-x", "none", *map(str, options)],
                   input=code, text=True, check=True)
    return folder / soname


def driver(folder: Path, *devices: tuple[str, int, int], init: int = 0,
           version: int = 12020, soname: str = "libcuda.so.1") -> Path:
    """A libcuda that sees GPUs of (name, major, minor), of 16 GB; `init`: what cuInit says.

    A process that loads one by its path wants another `soname`: whoever looks for the driver
    after that would find it.
    """
    listed = "".join(f'{{"{name}", {major}, {minor}, 16000000000}}, '
                     for name, major, minor in devices)
    return library(folder, soname, DRIVER % (listed, init, version))


def package(folder: Path, name: str, version: str) -> None:
    """Metadata that makes a pip package look installed if `folder` is on the path."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
