"""Lists the GPUs that CUDA's driver sees, without MXNet, and which of them mxnet-cu112 can use.

mxnet-cu112 holds machine code for five architectures and no PTX that a driver could compile for
others: on a newer GPU its first kernel ends in a CUDA error that gives no reason. The driver honors
CUDA_VISIBLE_DEVICES and numbers GPUs like MXNet.
"""

import ctypes
from typing import NamedTuple

from gluon_tricks.errors import InputError

# (major, minor) of each architecture that mxnet-cu112 1.9.1 holds code for. Code runs on GPUs of
# the same major number and the same or a greater minor one: that for 8.6 on Ada's 8.9.
CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
OLDEST_CUDA = 11000  # that a driver must support for CUDA 11.8's libraries: 11.0, 450.80 or newer
# NVRTC 11.8, with which MXNet compiles fused operators, writes PTX that older drivers refuse.
FUSION_CUDA = 11080  # 520.61 and newer
_NO_DEVICE = 100  # cuda.h: CUDA_ERROR_NO_DEVICE
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


class Gpu(NamedTuple):
    """A GPU, as the driver describes it."""

    number: int
    name: str
    memory: int  # bytes
    architecture: tuple[int, int]  # compute capability, (9, 0) for sm_90

    def __str__(self) -> str:
        return f"GPU {self.number} ({self.name}, sm_{self.architecture[0]}{self.architecture[1]})"


class DriverError(Exception):
    """The driver is installed but does not work; the message is part of a sentence."""


def load_driver() -> ctypes.CDLL | None:
    """libcuda, which comes with NVIDIA's driver; None if there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def visible(driver: ctypes.CDLL | None) -> list[Gpu]:
    """The GPUs that the driver sees. Raises DriverError if it cannot tell."""
    if driver is None:
        return []
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        return []
    _check(driver, "cuInit", code)
    count = ctypes.c_int()
    _check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    return [_describe(driver, number) for number in range(count.value)]


def cuda_version(driver: ctypes.CDLL) -> int:
    """The newest CUDA that the driver supports, 11080 for 11.8. Raises DriverError."""
    version = ctypes.c_int()
    _check(driver, "cuDriverGetVersion", driver.cuDriverGetVersion(ctypes.byref(version)))
    return version.value


def _describe(driver: ctypes.CDLL, number: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), number))
    _check(driver, "cuDeviceGetName", driver.cuDeviceGetName(name, len(name), device))
    _check(driver, "cuDeviceTotalMem", driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _check(driver, "cuDeviceGetAttribute",
               driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device))
        capability.append(value.value)
    return Gpu(number, name.value.decode(errors="replace"), memory.value, tuple(capability))


def _check(driver: ctypes.CDLL, call: str, code: int) -> None:
    if code == 0:
        return
    name = ctypes.c_char_p()
    driver.cuGetErrorName(code, ctypes.byref(name))  # leaves NULL for a code that it does not know
    raise DriverError(f"{call} says {(name.value or b'error').decode(errors='replace')} ({code})")


def why_not(gpu: Gpu) -> str | None:
    """Why mxnet-cu112 cannot use a GPU, as part of a sentence; None if it can."""
    major, minor = gpu.architecture
    if any(major == own and minor >= least for own, least in CODE):
        return None
    reach = "mxnet-cu112 has code only for sm_50 to sm_89, Maxwell to Ampere and Ada"
    if gpu.architecture < CODE[0]:
        return f"too old: {reach}"
    name = {9: "Hopper"}.get(major, "Blackwell or newer")
    return f"{name}, too new: {reach}, and none that a driver could compile for newer ones"


def check(wanted: int, here: int, driver: ctypes.CDLL | None) -> None:
    """Raise InputError if there is a driver but one of its first `here` GPUs cannot be used; a run
    on `wanted` GPUs needs those. Whether there are that many is MXNet's to check."""
    try:
        found = visible(driver)
        newest = cuda_version(driver) if found else OLDEST_CUDA
    except DriverError as error:
        raise InputError(f"--num-gpus {wanted}: NVIDIA's driver does not work here: {error}; check "
                         "if nvidia-smi works, or use --num-gpus 0") from error
    if newest < OLDEST_CUDA:
        raise InputError(f"--num-gpus {wanted}: {too_old(newest)}, or use --num-gpus 0")
    for gpu in found[:here]:
        reason = why_not(gpu)
        if reason:
            raise InputError(f"--num-gpus {wanted}: {gpu} cannot be used: {reason}; use "
                             "--num-gpus 0, or choose other GPUs with CUDA_VISIBLE_DEVICES")


def too_old(newest: int) -> str:
    """What to say about a driver that supports no CUDA newer than `newest`."""
    return (f"NVIDIA's driver supports CUDA up to {newest // 1000}.{newest % 1000 // 10}, but CUDA "
            "11 is needed: install driver 450.80.02 or newer")
