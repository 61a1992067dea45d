"""PREFIX.classes.json: the names of a set's classes, in label order."""

import json
from pathlib import Path

from gluon_tricks import files
from gluon_tricks.errors import InputError


def classes_text(classes: list[str]) -> str:
    """The content of the file."""
    return json.dumps({"classes": classes}, indent=1) + "\n"


def write_classes(path: str | Path, classes: list[str]) -> None:
    files.write_text(Path(path), classes_text(classes))


def read_classes(path: str | Path) -> list[str]:
    """Read the class names. Raises InputError if the file is missing or not as `classes_text`
    writes it."""
    try:
        classes = json.loads(Path(path).read_text())["classes"]
        if not isinstance(classes, list):
            raise TypeError
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} is missing: scripts/im2rec.py writes it next to the .rec "
                         "of the training set") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a list of classes: pack the training set "
                         "again") from error
    return [str(name) for name in classes]


def check_same_classes(path: str | Path, names: list[str] | None, train_names: list[str] | None,
                       remedy: str = "pack the set with the training set's --classes") -> None:
    """Raise InputError if two sets use a label for different classes; None: names unknown."""
    if names is None or train_names is None or names == train_names:
        return
    label = next((label for label, pair in enumerate(zip(names, train_names, strict=False))
                  if pair[0] != pair[1]), min(len(names), len(train_names)))
    here, there = (f"{listed[label]!r}" if label < len(listed) else "nothing"
                   for listed in (names, train_names))
    raise InputError(f"{path}: label {label} is {here}, in training it is {there}; {remedy}")

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                   "truck"]
