"""Findings on Python and its packages."""

import os
import re
import sys
from importlib import metadata

from gluon_tricks import cli
from gluon_tricks.doctor.child import Answer
from gluon_tricks.doctor.finding import FAULT, OK, WARNING, Finding
from gluon_tricks.errors import INSTALL_PROJECT, install_packages
from gluon_tricks.machine import cuda

GROUP = "packages"
BUILDS = ("mxnet", cuda.BUILD)
_FEATURES = {"CUDA": "CUDA", "CUDNN": "cuDNN", "NCCL": "NCCL", "MKLDNN": "oneDNN",
             "ONEDNN": "oneDNN", "OPENMP": "OpenMP", "BLAS_OPEN": "OpenBLAS", "LAPACK": "LAPACK",
             "OPENCV": "OpenCV"}
_SLOW = {"oneDNN": "convolutions on the CPU are many times slower",
         "OpenMP": "it computes on one core"}
_REINSTALL = "pip install --force-reinstall --no-deps"
_OPTIONAL = {"tensorboardX": "--tensorboard", "onnx": "export.py --format onnx",
             "onnxruntime": "export.py --format onnx"}
_TOLD = {"numpy", "gluoncv", "opencv-python"}  # have findings of their own


def installed() -> dict[str, str]:
    """The version of each package installed by pip, by its name in lower case, with dashes."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-deleted one has none
            found.setdefault(_plain(name), distribution.version)  # the first on the path counts
    return found


def pinned() -> dict[str, str]:
    """The versions that this project pins, by package; empty if it is not installed."""
    try:
        wanted = metadata.requires("gluon_tricks") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w.-]+)==([\w.]+)", line) for line in wanted)
    return {_plain(match[1]): match[2] for match in found if match}


def required() -> set[str]:
    """The packages that this project always needs, except MXNet."""
    try:
        wanted = metadata.requires("gluon_tricks") or []
    except metadata.PackageNotFoundError:
        return set()
    return {_plain(re.match(r"[\w.-]+", line)[0]) for line in wanted if "extra ==" not in line}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def failure(name: str, answer: Answer, package: str) -> Finding | None:
    """The fault of a package that did not load; None if it did."""
    said = next((report for report in answer.reports if "error" in report), None)
    if said is None and answer.ended is None:
        return None
    value, remedy = (said["error"], said["remedy"]) if said else (answer.ended, "")
    pin = pinned().get(package)
    again = f"`{_REINSTALL} {package}{f'=={pin}' if pin else ''}`"
    return Finding(GROUP, FAULT, name, f"does not load: {value}", remedy or again)


def python(problem: str | None) -> list[Finding]:
    """Python's finding; `problem` is the message with which gluon_tricks refused to be imported."""
    version = sys.version.split()[0]
    if problem and sys.version_info[:2] != (3, 11):
        return [Finding(GROUP, FAULT, "Python", version, problem)]
    return [Finding(GROUP, OK, "Python", f"{version}, {sys.executable}")]


def numpy(problem: str | None, answer: Answer) -> list[Finding]:
    version = installed().get("numpy")
    if problem and sys.version_info[:2] == (3, 11):
        return [Finding(GROUP, FAULT, "numpy", version or "not installed", problem)]
    if version is None:
        return [Finding(GROUP, FAULT, "numpy", "not installed", "`pip install numpy==1.23.5`")]
    fault = failure("numpy", answer, "numpy")
    if fault:
        return [fault]
    loaded = answer.reports[0]
    if loaded["version"] != version:
        return [Finding(GROUP, FAULT, "numpy", f"pip says {version}, but Python loads "
                        f"{loaded['version']} ({loaded['file']})",
                        "remove the other one, or `unset PYTHONPATH`")]
    return [Finding(GROUP, OK, "numpy", version)]


def mxnet(answer: Answer, num_gpus: int) -> list[Finding]:
    """Which MXNet packages are installed, whether MXNet loads, and how it was built."""
    here = {name: version for name, version in installed().items()
            if name in BUILDS or name.startswith("mxnet-")}
    listed = ", ".join(f"{name} {version}" for name, version in here.items())
    found = []
    if len(here) > 1:
        found.append(Finding(
            GROUP, WARNING, "MXNet's packages", f"{listed}: they overwrite each other's files",
            f"`pip uninstall -y {' '.join(here)} && {install_packages()}` (or -gpu.txt)"))
    fault = failure("MXNet", answer, next(iter(here), "mxnet"))
    if fault and not (answer.reports and "version" in answer.reports[0]):
        return [*found, fault]
    report = answer.reports[0]
    found.append(Finding(GROUP, OK, "MXNet", f"{report['version']} ({listed or 'not from pip'}), "
                         f"{os.path.dirname(report['file'])}"))
    return [*found, _features(report["features"], num_gpus)]


def _features(features: dict[str, bool], num_gpus: int) -> Finding:
    has = dict.fromkeys(_FEATURES.values(), False)
    for feature, name in _FEATURES.items():
        has[name] |= features.get(feature, False)
    value = "with " + ", ".join(name for name, there in has.items() if there)
    lacking = [name for name, there in has.items() if not there]
    value += f"; without {', '.join(lacking)}" if lacking else ""

    def other(device: str) -> str:
        return f"`pip uninstall -y {' '.join(BUILDS)} && {install_packages(device)}`"
    if num_gpus and not has["CUDA"]:
        return Finding(GROUP, FAULT, "MXNet's build", f"{value}; --num-gpus {num_gpus} needs CUDA",
                       other("gpu"))
    slow = [reason for name, reason in _SLOW.items() if name in lacking]
    if slow:
        return Finding(GROUP, WARNING, "MXNet's build", f"{value}: {'; '.join(slow)}",
                       other("cpu"))
    return Finding(GROUP, OK, "MXNet's build", value)


def opencv(answer: Answer) -> list[Finding]:
    """Which OpenCV package is installed, whether it loads, and the command that repairs it."""
    here = {name: version for name, version in installed().items() if name.startswith("opencv-")}
    listed = ", ".join(f"{name} {version}" for name, version in here.items()) or "not from pip"
    if len(here) > 1:
        listed += ": they overwrite each other's files"
    fault = failure("OpenCV", answer, "opencv-python")
    if fault:
        return [fault._replace(value=f"{fault.value} ({listed})", remedy=cli.opencv_remedy(here))]
    report = answer.reports[0]
    kind = "headless" if report["gui"] == "NONE" else f"with windows ({report['gui']})"
    value = f"{report['version']}, {kind} ({listed})"
    pin = pinned().get("opencv-python")
    if pin and set(here.values()) - {pin}:
        value += f"; {pin} works with the rest"
    elif len(here) < 2:
        return [Finding(GROUP, OK, "OpenCV", value)]
    return [Finding(GROUP, WARNING, "OpenCV", value, cli.opencv_remedy(here))]


def native(answer: Answer) -> list[Finding]:
    name = "native decoder"
    if answer.ended:
        return [Finding(GROUP, FAULT, name, answer.ended, "use --data-backend opencv, and rebuild "
                        f"it: `{INSTALL_PROJECT}`")]
    report = answer.reports[0]
    reason = report.get("error") or report["why_not"]
    if reason:
        return [Finding(GROUP, WARNING, name, "OpenCV decodes instead, several times slower",
                        reason)]
    return [Finding(GROUP, OK, name, "built from the current sources")]


def gluoncv(answer: Answer | None) -> list[Finding]:
    """Finding on GluonCV; `answer` is None if MXNet, which it imports, does not load."""
    if answer is None:
        return [Finding(GROUP, WARNING, "GluonCV", "not tried: it needs MXNet", "fix that first")]
    fault = failure("GluonCV", answer, "gluoncv")
    # 0.10.5.post0 calls itself 0.11.0: pip's version counts.
    return [fault or Finding(GROUP, OK, "GluonCV", installed().get("gluoncv", "not from pip"))]


def others() -> list[Finding]:
    """Findings on optional packages, missing ones, and versions other than those tested."""
    here, pins = installed(), pinned()
    found = []
    for name, use in _OPTIONAL.items():
        version = here.get(_plain(name))
        found.append(Finding(GROUP, OK, name, version or f"not installed; only {use} needs it"))
    if not pins:
        return [*found, Finding(GROUP, WARNING, "gluon_tricks", "not installed, run from its "
                                "folder", f"`{INSTALL_PROJECT}`")]
    missing = sorted(required() - here.keys() - _TOLD)
    if missing:
        found.append(Finding(GROUP, FAULT, "missing packages", ", ".join(missing),
                             f"`{install_packages()}` (or -gpu.txt)"))
    wrong = {name: pin for name, pin in pins.items() if here.get(name, pin) != pin}
    for name, pin in wrong.items():
        if name not in ("numpy", "opencv-python"):
            found.append(Finding(GROUP, WARNING, name, f"{here[name]}; {pin} works with the rest",
                                 f"`pip install --no-deps {name}=={pin}`"))
    if not wrong:
        found.append(Finding(GROUP, OK, "versions", "all as this project pins them"))
    return found
