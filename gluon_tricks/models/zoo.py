"""Networks by name: ours first, else GluonCV's zoo."""

import contextlib
import difflib
import inspect
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mxnet.gluon import nn
from mxnet.gluon.block import Block, HybridBlock

from gluon_tricks.errors import InputError
from gluon_tricks.models import resnet
from gluon_tricks.models.group_norm import GroupNorm
from gluon_tricks.models.pooling import use_spatial_mean

# Data sets and tasks in GluonCV's names that are not image classification. Building some of these
# networks downloads weights.
_OTHER_TASK = re.compile(
    r"_(coco|voc|ade|citys|mhpv1|custom|int8|kinetics\d+|ucf101|hmdb51|sthsthv2|otb\d*|kitti\w*)(_|$)"
    r"|^(custom|center_net|siamrpn|monodepth\w*|mobile_pose|simple_pose)_|^hrnet_\w+_s$")
# Our options that have other names in GluonCV.
_GLUONCV_WORDS = {"use_gn": "norm_layer", "dropout": "drop_rate"}
# GluonCV's pruned networks, whose files are named after their speedup instead.
_FILES = {"resnet18_v1b_0.89": "resnet18_v1b_2.6x", "resnet50_v1d_0.86": "resnet50_v1d_1.8x",
          "resnet50_v1d_0.48": "resnet50_v1d_3.6x", "resnet50_v1d_0.37": "resnet50_v1d_5.9x",
          "resnet50_v1d_0.11": "resnet50_v1d_8.8x", "resnet101_v1d_0.76": "resnet101_v1d_1.9x",
          "resnet101_v1d_0.73": "resnet101_v1d_2.2x"}


def model_names() -> list[str]:
    """Every name `get_model` takes, sorted."""
    from gluoncv.model_zoo import get_model_list  # late: importing gluoncv takes seconds

    return sorted({*resnet.NAMES, *get_model_list()})


def get_model(name: str, classes: int = 1000, input_size: int = 224, **options) -> HybridBlock:
    """The network called `name` with `classes` outputs, not initialized.

    `options` are those of `Settings`: last_gamma, dropout, use_se, batch_norm, use_gn, use_sk,
    use_avd, dropblock_prob. input_size only affects DropBlock's probability.
    Raises InputError for an unknown name (with close matches) and for an option that the network
    does not take: GluonCV's own networks silently ignore some of those.
    """
    name = name.lower()
    try:
        if name in resnet.NAMES:
            return resnet.resnet(name, classes=classes, **options)
        return _gluoncv_model(name, classes, input_size, options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        raise InputError(_no_option(name, unknown[1])) from error


def pretrained_file(name: str, remedy: str = "give a .params file") -> Path:
    """GluonCV's pretrained parameters of the network called `name`, downloaded unless cached.

    Raises InputError, with the remedy, if there are none or the download fails.
    """
    from gluoncv.model_zoo import model_store

    if name.lower() not in model_store.pretrained_model_list():
        raise InputError(f"GluonCV has no pretrained parameters of {name}: {remedy}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # stdout is for results
            return Path(model_store.get_model_file(_FILES.get(name.lower(), name.lower())))
    except Exception as error:  # from requests, or from the file's lock
        raise InputError(f"the pretrained parameters of {name} cannot be downloaded "
                         f"({_why_not_downloaded(error)}): {remedy}") from error


def _why_not_downloaded(error: Exception) -> str:
    import requests  # late, like gluoncv, which downloads with it

    if isinstance(error, requests.ConnectionError) and error.request is not None:
        return f"no connection to {urlsplit(error.request.url).netloc}"
    return str(error).partition("\n")[0][:200]


def _gluoncv_model(name: str, classes: int, input_size: int,
                   options: dict[str, Any]) -> HybridBlock:
    from gluoncv import model_zoo

    from gluon_tricks.models.drop_block import use_drop_block  # late, it imports gluoncv

    if name not in model_zoo.get_model_list():
        near = difflib.get_close_matches(name, model_names(), n=5)
        raise InputError(f"unknown model {name!r}: " + (
            f"did you mean {', '.join(near)}?" if near else
            f"take one of {', '.join(resnet.NAMES)}, or a name of GluonCV's model zoo"))
    if _OTHER_TASK.search(name):
        raise InputError(f"model {name} is not an image classifier: GluonCV made it for another "
                         "task")
    words = {_GLUONCV_WORDS.get(option, option): value for option, value in options.items()}
    zero_gamma, probability = words.get("last_gamma", False), words.pop("dropblock_prob", None)
    name = _prepare(name, words, classes, input_size)
    network = _build(name, words)
    for word in words:
        if word not in _accepted_options(type(network)):
            raise InputError(_no_option(name, word))
    blocks: list[Block] = []
    network.apply(blocks.append)
    if zero_gamma and not _zero_gammas(blocks):  # accepted, but never used
        raise InputError(_no_option(name, "last_gamma"))
    if "norm_layer" in words and any(isinstance(block, nn.BatchNorm) for block in blocks):
        raise InputError(_no_option(name, "use_gn"))  # only partly used
    if not use_drop_block(network, probability) and probability is not None:
        raise InputError(_no_option(name, "dropblock_prob"))
    return use_spatial_mean(network)


def _prepare(name: str, words: dict[str, Any], classes: int, input_size: int) -> str:
    """Translate a network's options to GluonCV's, in place; returns the name to build it by."""
    words["num_classes" if name.startswith("hrnet") else "classes"] = classes
    if "norm_layer" in words:
        words["norm_layer"] = GroupNorm
    if name.startswith("resnest"):
        words["input_size"] = input_size
        words.pop("use_avd", None)  # all ResNeSts have it
    if name.startswith(("resnext", "se_resnext")):  # GluonCV swapped the two branches
        words["last_gamma"] = not words.get("last_gamma", False)
        if words.pop("use_se", False) and name.startswith("resnext"):
            name = f"se_{name}"  # GluonCV's resnext* resets the option
    return name


def _build(name: str, words: dict[str, Any]) -> HybridBlock:
    """GluonCV's network. Raises InputError if it cannot be built, TypeError for an option."""
    from gluoncv import model_zoo

    try:
        return model_zoo.get_model(name, pretrained=False, **words)  # some have no default
    except (KeyError, AttributeError, ValueError) as error:
        raise InputError(f"GluonCV cannot build {name} as a classifier: {error!r}" + (
            "; drop --use-gn" if "norm_layer" in words else "")) from error
    except Warning as error:  # DarkNet's constructor raises one for unknown options
        unknown = next(word for word in words if word != "norm_layer")
        raise InputError(_no_option(name, unknown)) from error


def _zero_gammas(blocks: list[Block]) -> bool:
    """Set MobileNetV3's zero gammas, since it ignores the option, and return whether any block's
    last normalization starts at 0. Its blocks without a shortcut would output only zeros."""
    from gluoncv.model_zoo.mobilenetv3 import _ResUnit

    for block in blocks:
        if isinstance(block, _ResUnit) and block.use_short_cut_conv:
            block.conv2.bn.gamma.init = "zeros"
    return any(getattr(getattr(block, "gamma", None), "init", None) == "zeros" for block in blocks)


def _no_option(name: str, word: str) -> str:
    option = {theirs: ours for ours, theirs in _GLUONCV_WORDS.items()}.get(word, word)
    return f"model {name} has no option {option!r} (--{option.replace('_', '-')}): drop it"


def _accepted_options(network: type) -> set[str]:
    """The named parameters of the constructors of a class and its base classes."""
    return {name
            for base in network.__mro__ if "__init__" in vars(base)
            for name, parameter in inspect.signature(base.__init__).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD}
