"""Finds trained parameters: in a .params file, a run's folder, or GluonCV's model zoo."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from gluon_tricks.data.classes import CIFAR10_CLASSES as CIFAR10
from gluon_tricks.data.classes import read_classes
from gluon_tricks.errors import InputError
from gluon_tricks.models.zoo import model_names, pretrained_file


class Weights(NamedTuple):
    """A file of parameters, and what is known about them."""

    path: Path
    model: str | None  # the network's name
    settings: dict[str, Any]  # of the run that made them; {} if unknown
    classes: list[str] | None  # their names


def find(source: str | Path, params_flag: str | None = None) -> Weights:
    """Find the parameters that `source` names: a .params file, the folder of a run or a checkpoint,
    or a network of GluonCV's zoo, whose parameters are downloaded unless they are cached.

    Reads the run's config.json and classes.json next to the file; for a checkpoint, its run's
    classes.json. Raises InputError if nothing has that name or it cannot be obtained; the message
    then suggests `params_flag`, if given, for naming a file.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return of_file(path)
    if str(source).lower() in model_names():
        return of_zoo(str(source), params_flag)
    raise InputError(f"{source} is not a .params file, a run's folder or a name in GluonCV's model "
                     "zoo")


def of_zoo(model: str, params_flag: str | None = None) -> Weights:
    """GluonCV's own parameters of a network, downloaded unless they are cached.

    Raises InputError if there are none or they cannot be obtained.
    """
    from gluoncv.data import ImageNet1kAttr  # late: importing gluoncv takes seconds

    by = f" with {params_flag}" if params_flag else ""
    found = pretrained_file(model, f"give a .params file{by}")
    classes = CIFAR10 if model.lower().startswith("cifar") else ImageNet1kAttr().classes
    return Weights(found, model.lower(), {}, classes)


def imagenet_wnids() -> list[str]:
    """The WordNet IDs of ImageNet's classes, by label."""
    from gluoncv.data import ImageNet1kAttr  # late: importing gluoncv takes seconds

    return list(ImageNet1kAttr().synset)


def _of_folder(folder: Path) -> Weights:
    """A run's best parameters, else its last; a checkpoint's averaged ones, else its own."""
    names = ("best.params", "last.params", "average.params", "model.params")
    for name in names:
        if (folder / name).is_file():
            return of_file(folder / name)
    raise InputError(f"{folder} has no parameters ({', '.join(names)}): give the folder of a run "
                     "or a checkpoint, or a .params file")


def of_file(path: Path) -> Weights:
    """The parameters of a file, described by the files next to it; does not check that it exists.
    """
    settings = _settings_of(path)
    names = path.with_name("classes.json")
    store = path.absolute().parent.parent
    if store.name == "checkpoints" and path.with_name("state.json").is_file():
        names = store.with_name("classes.json")  # a checkpoint's classes are its run's
    return Weights(path, settings.get("model"), settings,
                   read_classes(names) if names.is_file() else None)


def _settings_of(path: Path) -> dict[str, Any]:
    """The settings in the config.json, or a checkpoint's state.json, next to a parameter file."""
    for name in ("config.json", "state.json"):
        file = path.with_name(name)
        if file.is_file():
            try:
                read = json.loads(file.read_text())
                settings = read["settings"] if name == "state.json" else read
                if not isinstance(settings["model"], str):
                    raise TypeError
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{file} was not written by a run: {error!r}; move it away, or "
                                 "give another folder") from error
            return settings
    return {}
