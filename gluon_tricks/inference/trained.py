"""Loads a trained network with all that predict, evaluate and export need to use it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification import weights
from gluon_tricks.classification.network import build_network, check_size
from gluon_tricks.classification.rules import validate
from gluon_tricks.classification.settings import Settings
from gluon_tricks.config import presets
from gluon_tricks.config.fields import named
from gluon_tricks.errors import InputError
from gluon_tricks.models.graph import hybridize
from gluon_tricks.models.parameters import count_classes, load_parameters
from gluon_tricks.models.params_file import read_parameters

_OWN_SIZE = {"inceptionv3": 299, "xception": 299, "xception71": 299}  # if GluonCV's is not 224


@dataclass(frozen=True)
class Trained:
    """A network with its parameters, FP32, ready to predict."""

    settings: Settings  # whose dtype is float32
    network: HybridBlock
    classes: list[str]  # their names; numbers if those are unknown
    path: Path  # of the parameters

    @property
    def has_names(self) -> bool:
        """Whether the classes have names, not only numbers."""
        return self.classes != [str(number) for number in range(len(self.classes))]


def load(source: str | Path | weights.Weights, device: mx.Context, **given: Any) -> Trained:
    """Load the network of `source`, which weights.find takes or returned. `given` are settings that
    override the run's: model, num_classes, input_size, crop_ratio and the like.

    Raises InputError if the source does not say which network it is and no model is given, if the
    parameters do not fit, or if the network cannot take images of that size.
    """
    found = source if isinstance(source, weights.Weights) else weights.find(source)
    settings = _settings(found, given)
    arrays = read_parameters(found.path)
    classes = settings.num_classes or (found.classes and len(found.classes)) or 1000
    network = build_network(dataclasses.replace(settings, num_classes=classes))
    in_file = count_classes(network, arrays)
    if settings.num_classes is None and in_file not in (None, classes):
        classes = in_file
        if classes < 2:
            raise InputError(f"{found.path} is of a network with one output, not a classifier: "
                             "give the parameters of one with two classes or more")
        network = build_network(dataclasses.replace(settings, num_classes=classes))
    load_parameters(network, found.path, device)
    settings = dataclasses.replace(settings, num_classes=classes)
    check_size(network, settings)
    names = found.classes if found.classes and len(found.classes) == classes else None
    hybridize(network, settings.mode)
    return Trained(settings, network, names or [str(number) for number in range(classes)],
                   found.path)


def _settings(found: weights.Weights, given: dict[str, Any]) -> Settings:
    of_it = set(named(Settings, of_network=("name", "structure", "layer", "input")))
    kept = {name: tuple(value) if isinstance(value, list) else value
            for name, value in found.settings.items() if name in of_it}
    kept.update(given)
    model = kept.setdefault("model", found.model)
    if not model:
        raise InputError(f"{found.path} does not say which network it is of: give --model, or a "
                         "run's folder")
    own = {"input_size": _OWN_SIZE.get(model.lower(), 224)}
    if model.lower().startswith("cifar"):  # as GluonCV's are trained: 32 x 32, nothing resized
        own = {name: presets.CIFAR10.usual[name] for name in ("input_size", "crop", "rgb_mean",
                                                              "rgb_std")}
    if found.settings:
        own = {"input_size": own["input_size"]}
    return validate(Settings(**{**own, **kept}))
