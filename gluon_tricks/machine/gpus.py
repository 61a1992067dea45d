"""The GPUs that CUDA's driver sees, asked without MXNet, and which of them mxnet-cu112 can use.

mxnet-cu112 holds machine code for five architectures and none that a driver could compile for
others: on a newer GPU its first kernel ends in an error of CUDA's that names no reason. The driver
sees what CUDA_VISIBLE_DEVICES leaves, as MXNet does, and counts alike.
"""

import ctypes
from typing import NamedTuple

from gluon_tricks.errors import InputError

# (major, minor) of each architecture that mxnet-cu112 1.9.1 holds code for. Code runs on GPUs of
# the same major number and no lesser minor one: that of 8.6 on Ada's 8.9.
CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
OLDEST_CUDA = 11000  # that a driver must know for CUDA 11.8's libraries: 11.0, 450.80 and newer
# NVRTC 11.8, by which MXNet compiles operators that it fuses, writes PTX that older drivers refuse.
FUSION_CUDA = 11080  # 520.61 and newer
_NO_DEVICE = 100  # cuda.h: CUDA_ERROR_NO_DEVICE
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


class Gpu(NamedTuple):
    """One, as the driver describes it."""

    number: int
    name: str
    memory: int  # bytes
    architecture: tuple[int, int]  # compute capability, (9, 0) for sm_90

    def __str__(self) -> str:
        return f"GPU {self.number} ({self.name}, sm_{self.architecture[0]}{self.architecture[1]})"


class DriverError(Exception):
    """The driver is there and cannot work; the message is half a sentence."""


def load_driver() -> ctypes.CDLL | None:
    """libcuda, which comes with NVIDIA's driver; None where there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def visible(driver: ctypes.CDLL | None) -> list[Gpu]:
    """The GPUs that the driver sees. Raises DriverError where it cannot say."""
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
    """The newest CUDA that the driver knows, 11080 for 11.8. Raises DriverError."""
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
    """Why mxnet-cu112 cannot use a GPU, in half a sentence; None where it can."""
    major, minor = gpu.architecture
    if any(major == own and minor >= least for own, least in CODE):
        return None
    reach = "mxnet-cu112 has code for sm_50 to sm_89 alone, Maxwell to Ampere and Ada"
    if gpu.architecture < CODE[0]:
        return f"too old: {reach}"
    name = {9: "Hopper"}.get(major, "Blackwell or newer")
    return f"{name}, too new: {reach}, and none that a driver could compile for newer ones"


def check(wanted: int, here: int, driver: ctypes.CDLL | None) -> None:
    """Raise InputError where a driver is there, and the first `here` of its GPUs, of a run's
    `wanted`, cannot be used. That there are as many is for MXNet to say."""
    try:
        found = visible(driver)
        newest = cuda_version(driver) if found else OLDEST_CUDA
    except DriverError as error:
        raise InputError(f"--num-gpus {wanted}: NVIDIA's driver does not work here: {error}; see "
                         "whether nvidia-smi does, or take --num-gpus 0") from error
    if newest < OLDEST_CUDA:
        raise InputError(f"--num-gpus {wanted}: {too_old(newest)}, or take --num-gpus 0")
    for gpu in found[:here]:
        reason = why_not(gpu)
        if reason:
            raise InputError(f"--num-gpus {wanted}: {gpu} cannot be used: {reason}; take "
                             "--num-gpus 0, or choose other GPUs by CUDA_VISIBLE_DEVICES")


def too_old(newest: int) -> str:
    """What to say of a driver that knows no newer CUDA than `newest`."""
    return (f"NVIDIA's driver knows CUDA up to {newest // 1000}.{newest % 1000 // 10}, and CUDA 11 "
            "is needed: install driver 450.80.02 or newer")
