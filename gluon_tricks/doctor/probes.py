"""Probes that run in child processes: each function loads one package and reports what it is."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from typing import Any

Report = Callable[[dict[str, Any]], None]


def numpy(report: Report) -> None:
    import numpy as np

    report({"version": np.__version__, "file": np.__file__})


def mxnet(report: Report, num_gpus: int) -> None:
    """Its build, the GPUs it sees, and if those are too few, the message a run would give."""
    import mxnet as mx

    from gluon_tricks.errors import InputError
    from gluon_tricks.parallel.ranks import check_gpus

    features = {feature.name: bool(feature.enabled)
                for feature in mx.runtime.Features().values()}
    report({"version": mx.__version__, "file": mx.__file__, "features": features})
    refusal = None
    if num_gpus:
        try:
            check_gpus(num_gpus, num_gpus)
        except InputError as error:
            refusal = str(error)
    report({"gpus": mx.context.num_gpus(), "refusal": refusal})


def opencv(report: Report) -> None:
    import cv2

    lines = [line.partition(":") for line in cv2.getBuildInformation().splitlines()]
    built = {name.strip(): value.strip() for name, _, value in lines}
    report({"version": cv2.__version__, "file": cv2.__file__, "gui": built.get("GUI", "NONE"),
            "jpeg": built.get("JPEG", "none")})


def native(report: Report) -> None:
    """The C++ decoder."""
    from gluon_tricks.data import native as decoder

    report({"why_not": decoder.why_not()})


def gluoncv(report: Report) -> None:
    import gluoncv.model_zoo

    report({"file": gluoncv.__file__})


def horovod(report: Report) -> None:
    """Check what launching needs; report how it was built, and whether this host's name resolves,
    as Gloo needs."""
    import socket

    from gluon_tricks.parallel.launch import require_horovod

    require_horovod()
    import horovod.mxnet as hvd

    report({"gloo": bool(hvd.gloo_built()), "nccl": int(hvd.nccl_built()),
            "mpi": bool(hvd.mpi_built())})
    try:
        socket.getaddrinfo(socket.gethostname(), None)
    except OSError as error:
        report({"host": f"{socket.gethostname()}: {error.strerror}"})


def cuda(report: Report) -> None:
    """The file that each library comes from, after loading those of pip's wheels."""
    from gluon_tricks.machine import cuda as libraries

    wheels = libraries.wheels()
    libraries.preload()
    for soname in libraries.LIBRARIES:
        try:
            file = _file_of(ctypes.CDLL(soname))
        except OSError as error:
            report({"soname": soname, "error": str(error)})
        else:
            report({"soname": soname, "file": file, "wheel": soname in wheels
                    and os.path.samefile(file, wheels[soname])})


class _LinkMap(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))  # link.h


def _file_of(library: ctypes.CDLL) -> str:
    """The file that the system's loader found."""
    found = ctypes.POINTER(_LinkMap)()
    # 2: RTLD_DI_LINKMAP
    if ctypes.CDLL(None).dlinfo(ctypes.c_void_p(library._handle), 2, ctypes.byref(found)):
        return library._name
    return os.path.realpath(os.fsdecode(found.contents.name))


def driver(report: Report) -> None:
    """NVIDIA's driver, and the GPUs that it sees."""
    from gluon_tricks.machine import gpus

    library = gpus.load_driver()
    version = None
    with contextlib.suppress(OSError), open("/proc/driver/nvidia/version") as file:
        version = file.readline().strip()
    report({"driver": library is not None, "kernel": version,
            "file": _file_of(library) if library else None})
    if library is None:
        return
    try:
        found = gpus.visible(library)
        report({"cuda": gpus.cuda_version(library)})
    except gpus.DriverError as error:
        report({"fault": str(error)})
        return
    for gpu in found:
        report({"gpu": gpu, "why_not": gpus.why_not(gpu)})
