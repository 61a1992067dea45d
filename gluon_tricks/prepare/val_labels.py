"""Reads the classes of ImageNet's validation images, which come without labels, from one of:

- the development kit, ILSVRC2012_devkit_t12.tar.gz or its folder: one number per line, in the order
  of the image names, in data/ILSVRC2012_validation_ground_truth.txt, and the meaning of the numbers
  in data/meta.mat
- a text file with one line per image: `NAME WNID`, `NAME LABEL` (the WNID's index among the sorted
  ones, from 0), only `WNID`, in the order of the image names, a .lst's `KEY LABEL NAME`, or
  Kaggle's `NAME,WNID BOX ...` below its header
"""

import io
import re
import tarfile
import zlib
from pathlib import Path, PurePath
from typing import NamedTuple

from gluon_tricks.data.folder import SUFFIXES
from gluon_tricks.errors import InputError

KIT = "ILSVRC2012_devkit_t12"
TEXTS = ("val.txt", "val.lst", "imagenet_2012_validation_synset_labels.txt",
         "LOC_val_solution.csv")
_TRUTH, _META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"
_TITLE = "ImageId,PredictionString"


class Kit(NamedTuple):
    """The content of the development kit."""

    wnids: list[str]  # of the validation images, in the order of their names
    train_counts: dict[str, int]  # training images of each class


def find_labels(source: Path) -> Path:
    """The file or folder of labels in `source`. Raises InputError if there is none."""
    names = (f"{KIT}.tar.gz", KIT, *TEXTS)
    for name in names:
        if (source / name).exists():
            return source / name
    raise InputError(f"{source} has no labels of the validation images ({', '.join(names)}): "
                     "put one there, or give it with --val-labels")


def is_kit(path: Path) -> bool:
    return path.is_dir() or path.name.endswith((".tar.gz", ".tgz"))


def read_kit(path: Path) -> Kit:
    """Read the development kit. Raises InputError if it is not one, or is damaged."""
    from scipy.io import loadmat  # late: it is slow to import and rarely needed

    truth, meta = _kit_files(path)
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnid_of = {int(number): str(wnid) for number, wnid in
                   zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
        images = {str(wnid): int(count) for wnid, count, children in
                    zip(synsets["WNID"], synsets["num_train_images"], synsets["num_children"],
                        strict=True) if not children}  # inner nodes of WordNet have children
    except Exception as error:  # SciPy's reader may raise anything, even UnboundLocalError
        raise InputError(f"{path}: its {_META} is damaged ({_first_line(error)}): download it "
                         "again") from error
    try:
        wnids = [wnid_of[int(line)] for line in truth.split()]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: its {_TRUTH} has {error}, which is not a class number in "
                         f"{_META}: download it again") from error
    return Kit(wnids, images)


def _kit_files(path: Path) -> tuple[bytes, bytes]:
    """The content of the validation ground truth and of meta.mat."""
    try:
        if path.is_dir():
            return (path / _TRUTH).read_bytes(), (path / _META).read_bytes()
        with tarfile.open(path) as tar:
            found = {}
            for member in tar:
                for name in (_TRUTH, _META):
                    if member.isreg() and f"/{member.name}".endswith(f"/{name}"):
                        found[name] = tar.extractfile(member).read()
            return found[_TRUTH], found[_META]
    except (KeyError, FileNotFoundError) as error:
        raise InputError(f"{path} is not {KIT}: it must contain {_TRUTH} and {_META}") from error
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{path} is not {KIT}.tar.gz, or is damaged ({_first_line(error)}): "
                         "download it again") from error


def _first_line(error: Exception) -> str:
    """The first line of an error: tarfile adds one for each format that did not fit."""
    return f"{error}".partition("\n")[0].rstrip(":") or type(error).__name__


def read_text(path: Path, names: list[str], classes: list[str]) -> list[int]:
    """The label of each of `names`, which are sorted, from a text file.

    Names are compared without folder and extension. Raises InputError for a malformed line, an
    unknown class, and if lines and images do not match.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()  # Excel writes a BOM
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} is missing: give the validation images' labels") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: give the development kit, or a file of lines NAME "
                         "WNID") from error
    first = lines[:1] == [_TITLE]
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    rows = []
    for number, line in enumerate(lines[first:], 1 + first):
        try:
            name, word = _row(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}, has {line[:80]!r}") from None
        if word.isdecimal() and int(word) < len(classes):
            label = int(word)
        elif word in label_of:
            label = label_of[word]
        else:
            raise InputError(f"{path}, line {number}: {word} is not a class of the training set")
        rows.append((name, label))
    check_length(path, len(rows), len(names))
    if all(name is None for name, _ in rows):
        return [label for _, label in rows]
    by_name = dict(rows)
    seen = {}
    for name in names:
        stem = _stem(name)
        if stem not in by_name:
            raise InputError(f"{path} has no line for {stem}: give the labels of these images")
        if stem in seen:
            raise InputError(f"{seen[stem]} and {name} are the same name to {path}, which may omit "
                             "extensions: rename one")
        seen[stem] = name
    return [by_name[_stem(name)] for name in names]


def check_length(path: Path, lines: int, images: int) -> None:
    if lines != images:
        raise InputError(f"{path} has {lines} labels for {images} validation images: give the "
                         "labels of these images")


def _stem(name: str) -> str:
    """An image's name without folder and extension; other dots in the name stay."""
    path = PurePath(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _row(line: str) -> tuple[str | None, str]:
    """An image's name, without folder and extension, and its class. Raises ValueError."""
    fields = line.split("\t")
    if len(fields) == 3:  # a .lst
        label = float(fields[1])
        name, word = fields[2], str(int(label)) if label >= 0 and label % 1 == 0 else fields[1]
    else:
        fields = re.split(r"[\s,]+", line.strip())
        if len(fields) == 1 and not fields[0].isdecimal() and fields[0]:
            return None, fields[0]
        if len(fields) != 2 and "," not in line:
            raise ValueError("needs NAME WNID, NAME LABEL, WNID, or KEY, LABEL, NAME separated by "
                             "tabs (bare numbers mean nothing without the development kit)")
        name, word = fields[:2]
    return _stem(name), word
