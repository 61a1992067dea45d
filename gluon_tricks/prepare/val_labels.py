"""The classes of ImageNet's validation pictures, which come without: from one of these.

- the development kit, ILSVRC2012_devkit_t12.tar.gz or its folder: a number a line, in the order of
  the pictures' names, in data/ILSVRC2012_validation_ground_truth.txt, and what the numbers mean in
  data/meta.mat
- a text file with a line a picture: `NAME WNID`, `NAME LABEL` (the WNID's place among the sorted
  ones, from 0), `WNID` alone, in the order of the pictures' names, a .lst's `KEY LABEL NAME`, or
  Kaggle's `NAME,WNID BOX ...` below its title
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
    """What the development kit says."""

    wnids: list[str]  # of the validation pictures, in the order of their names
    train_counts: dict[str, int]  # pictures of each class


def find_labels(source: Path) -> Path:
    """The file or folder of labels in `source`; raises InputError where there is none."""
    names = (f"{KIT}.tar.gz", KIT, *TEXTS)
    for name in names:
        if (source / name).exists():
            return source / name
    raise InputError(f"{source} holds no labels of the validation pictures ({', '.join(names)}): "
                     "put one there, or name it with --val-labels")


def is_kit(path: Path) -> bool:
    return path.is_dir() or path.name.endswith((".tar.gz", ".tgz"))


def read_kit(path: Path) -> Kit:
    """Raises InputError where the development kit is none, or is damaged."""
    from scipy.io import loadmat  # late: it takes a while, and most runs need none

    truth, meta = _kit_files(path)
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        wnid_of = {int(number): str(wnid) for number, wnid in
                   zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
        pictures = {str(wnid): int(count) for wnid, count, children in
                    zip(synsets["WNID"], synsets["num_train_images"], synsets["num_children"],
                        strict=True) if not children}  # others are classes of classes
    except Exception as error:  # SciPy's reader raises anything, an UnboundLocalError say
        raise InputError(f"{path}: its {_META} is damaged ({_first_line(error)}): download it "
                         "again") from error
    try:
        wnids = [wnid_of[int(line)] for line in truth.split()]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: its {_TRUTH} holds {error}, which is no class's number in "
                         f"{_META}: download it again") from error
    return Kit(wnids, pictures)


def _kit_files(path: Path) -> tuple[bytes, bytes]:
    """The validation's numbers and meta.mat."""
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
        raise InputError(f"{path} is no {KIT}: {_TRUTH} and {_META} must be in it") from error
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{path} is no {KIT}.tar.gz, or is damaged ({_first_line(error)}): "
                         "download it again") from error


def _first_line(error: Exception) -> str:
    """tarfile says in lines of their own why it is none of the formats that it knows."""
    return f"{error}".partition("\n")[0].rstrip(":") or type(error).__name__


def read_text(path: Path, names: list[str], classes: list[str]) -> list[int]:
    """The label of each of `names`, which are sorted, from a file of lines.

    Names are compared without folder and ending. Raises InputError for a line that is not so, an
    unknown class, and where the lines and the pictures are not the same.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()  # Excel writes such a mark first
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} is missing: give the validation pictures' labels") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: give the development kit, or a file of lines NAME "
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
            raise InputError(f"{path}, line {number}: {word} is no class of the training set")
        rows.append((name, label))
    check_length(path, len(rows), len(names))
    if all(name is None for name, _ in rows):
        return [label for _, label in rows]
    by_name = dict(rows)
    seen = {}
    for name in names:
        stem = _stem(name)
        if stem not in by_name:
            raise InputError(f"{path} has no line for {stem}: give the labels of these pictures")
        if stem in seen:
            raise InputError(f"{seen[stem]} and {name} are one name to {path}, which may leave "
                             "endings out: rename one")
        seen[stem] = name
    return [by_name[_stem(name)] for name in names]


def check_length(path: Path, lines: int, pictures: int) -> None:
    if lines != pictures:
        raise InputError(f"{path} has {lines} labels for {pictures} validation pictures: give the "
                         "labels of these pictures")


def _stem(name: str) -> str:
    """A picture's name without folder and ending; a dot within it begins no ending."""
    path = PurePath(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _row(line: str) -> tuple[str | None, str]:
    """A picture's name, without folder and ending, and its class. Raises ValueError."""
    fields = line.split("\t")
    if len(fields) == 3:  # a .lst
        label = float(fields[1])
        name, word = fields[2], str(int(label)) if label >= 0 and label % 1 == 0 else fields[1]
    else:
        fields = re.split(r"[\s,]+", line.strip())
        if len(fields) == 1 and not fields[0].isdecimal() and fields[0]:
            return None, fields[0]
        if len(fields) != 2 and "," not in line:
            raise ValueError("needs NAME WNID, NAME LABEL, WNID, or KEY, LABEL, NAME between tabs "
                             "(bare numbers mean nothing without the development kit)")
        name, word = fields[:2]
    return _stem(name), word
