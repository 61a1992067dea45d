"""Where parameters come from: a .params file, a run's folder, or GluonCV's model zoo."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from gluon_tricks.data.classes import CIFAR10_CLASSES as CIFAR10
from gluon_tricks.data.classes import read_classes
from gluon_tricks.errors import InputError
from gluon_tricks.models.zoo import model_names, pretrained_file


class Weights(NamedTuple):
    """A file of parameters, and what is known of them."""

    path: Path
    model: str | None  # the network's name
    settings: dict[str, Any]  # of the run that made them; {} where unknown
    classes: list[str] | None  # their names


def find(source: str | Path, params_flag: str | None = None) -> Weights:
    """The parameters that `source` names: a .params file, the folder of a run or of a checkpoint,
    or a network of GluonCV's zoo, whose parameters are downloaded unless they are there.

    What lies beside a file, a run's config.json and classes.json, is read; of a checkpoint its
    run's classes.json. Raises InputError if there is nothing of that name, or it cannot be had;
    then `params_flag`, if it is given, is what to give a file by.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return of_file(path)
    if str(source).lower() in model_names():
        return of_zoo(str(source), params_flag)
    raise InputError(f"{source} is no .params file, no run's folder and no name of GluonCV's model "
                     "zoo")


def of_zoo(model: str, params_flag: str | None = None) -> Weights:
    """GluonCV's own parameters of a network, downloaded unless they are there.

    Raises InputError where there are none, or they cannot be had.
    """
    from gluoncv.data import ImageNet1kAttr  # late: importing gluoncv takes seconds

    by = f" by {params_flag}" if params_flag else ""
    found = pretrained_file(model, f"give a .params file{by}")
    classes = CIFAR10 if model.lower().startswith("cifar") else ImageNet1kAttr().classes
    return Weights(found, model.lower(), {}, classes)


def imagenet_wnids() -> list[str]:
    """WordNet's numbers of ImageNet's classes, by label."""
    from gluoncv.data import ImageNet1kAttr  # late: importing gluoncv takes seconds

    return list(ImageNet1kAttr().synset)


def _of_folder(folder: Path) -> Weights:
    """The best parameters of a run, else its last ones; a checkpoint's, averaged where it has such.
    """
    names = ("best.params", "last.params", "average.params", "model.params")
    for name in names:
        if (folder / name).is_file():
            return of_file(folder / name)
    raise InputError(f"{folder} holds no parameters ({', '.join(names)}): give a run's folder, a "
                     "checkpoint's, or a .params file")


def of_file(path: Path) -> Weights:
    """The parameters of a file, with what lies beside it; that the file is there is not looked at.
    """
    settings = _settings_beside(path)
    names = path.with_name("classes.json")
    store = path.absolute().parent.parent
    if store.name == "checkpoints" and path.with_name("state.json").is_file():
        names = store.with_name("classes.json")  # a checkpoint's are its run's
    return Weights(path, settings.get("model"), settings,
                   read_classes(names) if names.is_file() else None)


def _settings_beside(path: Path) -> dict[str, Any]:
    """What config.json, or a checkpoint's state.json, says beside a file of parameters."""
    for name in ("config.json", "state.json"):
        beside = path.with_name(name)
        if beside.is_file():
            try:
                read = json.loads(beside.read_text())
                settings = read["settings"] if name == "state.json" else read
                if not isinstance(settings["model"], str):
                    raise TypeError
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{beside} is no run's: {error!r}; move it away, or give another "
                                 "folder") from error
            return settings
    return {}
