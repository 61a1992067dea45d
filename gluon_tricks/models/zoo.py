"""Networks by name: ours first, else GluonCV's zoo."""

import difflib
import inspect
import re
from pathlib import Path

from mxnet.gluon.block import HybridBlock

from gluon_tricks.errors import InputError
from gluon_tricks.models import resnet
from gluon_tricks.models.pooling import use_spatial_mean

# Data sets and tasks in GluonCV's names that are not image classification. Building some of these
# networks downloads weights.
_OTHER_TASK = re.compile(
    r"_(coco|voc|ade|citys|mhpv1|custom|int8|kinetics\d+|ucf101|hmdb51|sthsthv2|otb\d*|kitti\w*)(_|$)"
    r"|^(custom|center_net|siamrpn|monodepth\w*|hrnet|mobile_pose|simple_pose)_")

def model_names() -> list[str]:
    """Every name `get_model` takes, sorted."""
    from gluoncv.model_zoo import get_model_list  # late: importing gluoncv takes seconds

    return sorted({*resnet.NAMES, *get_model_list()})


def get_model(name: str, classes: int = 1000, **options) -> HybridBlock:
    """The network called `name` with `classes` outputs, not initialised.

    Raises InputError for an unknown name (with its near matches) and for an option that the
    network does not take: GluonCV's own networks would swallow some of those in silence.
    """
    name = name.lower()
    build = resnet.resnet if name in resnet.NAMES else _gluoncv_model
    try:
        return build(name, classes=classes, **options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        raise InputError(_no_option(name, unknown[1])) from error


def pretrained_file(name: str) -> Path:
    """GluonCV's parameters of the network called `name`, downloaded unless they are there.

    Raises InputError where there are none, or they cannot be had.
    """
    from gluoncv.model_zoo import model_store

    if name.lower() not in model_store.pretrained_model_list():
        raise InputError(f"GluonCV has no pretrained parameters of {name}: give --teacher-params")
    try:
        return Path(model_store.get_model_file(name.lower()))
    except Exception as error:  # requests' own, and what the file's lock raises
        raise InputError(f"the pretrained parameters of {name} cannot be downloaded "
                         f"({str(error).splitlines()[0][:200]}): give --teacher-params") from error


def _gluoncv_model(name: str, **options) -> HybridBlock:
    from gluoncv import model_zoo

    if name not in model_zoo.get_model_list():
        near = difflib.get_close_matches(name, model_names(), n=5)
        raise InputError(f"unknown model {name!r}: " + (
            f"did you mean {', '.join(near)}?" if near else
            f"take one of {', '.join(resnet.NAMES)}, or a name of GluonCV's model zoo"))
    if _OTHER_TASK.search(name):
        raise InputError(f"model {name} is no image classifier: GluonCV made it for another task")
    zero_gamma = options.get("last_gamma", False)
    if name.startswith(("resnext", "se_resnext")):  # GluonCV's has its two branches swapped
        options["last_gamma"] = not zero_gamma
    try:
        network = model_zoo.get_model(name, pretrained=False, **options)  # some have no default
    except (KeyError, AttributeError, ValueError) as error:
        raise InputError(f"GluonCV cannot build {name} as a classifier: {error!r}") from error
    for option in options:
        if option not in _accepted_options(type(network)):
            raise InputError(_no_option(name, option))
    if zero_gamma and not any(parameter.init == "zeros" for parameter in
                              network.collect_params(".*gamma").values()):
        raise InputError(_no_option(name, "last_gamma"))  # taken, and never used
    return use_spatial_mean(network)


def _no_option(name: str, option: str) -> str:
    return f"model {name} has no option {option!r} (--{option.replace('_', '-')}): leave it out"


def _accepted_options(network: type) -> set[str]:
    """The named parameters of a class's constructor and of those it inherits from."""
    return {name
            for base in network.__mro__ if "__init__" in vars(base)
            for name, parameter in inspect.signature(base.__init__).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD}
