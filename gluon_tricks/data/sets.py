"""Opens the set of images a run reads: a folder, or RecordIO."""

from pathlib import Path

from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError

ImageSet = RecordSet | FolderSet


def open_set(rec: Path, idx: Path, folder: Path | None = None,
             classes: list[str] | None = None) -> ImageSet:
    """The images in `folder`, if it is a folder, else the records of `rec`.

    A folder's labels follow `classes`, the training set's, if given. Raises InputError if neither
    exists, and for what FolderSet and RecordSet refuse.
    """
    if folder is not None:
        if folder.is_dir():
            return FolderSet(folder, classes)
        if not rec.is_file():
            raise InputError(f"neither {folder}, with one folder per class, nor {rec} exists: give "
                             "their folder with --data-dir, or the .rec with its own flag")
    return RecordSet(rec, idx)
