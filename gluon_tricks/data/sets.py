"""Which set of pictures a run reads: a folder's, or RecordIO's."""

from pathlib import Path

from gluon_tricks.data.folder import FolderSet
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError

ImageSet = RecordSet | FolderSet


def open_set(rec: Path, idx: Path, folder: Path | None = None,
             classes: list[str] | None = None) -> ImageSet:
    """The pictures in `folder`, where it is one, else the records of `rec`.

    A folder's labels follow `classes`, the training set's, where they are given. Raises InputError
    where neither is there, and for what FolderSet and RecordSet refuse.
    """
    if folder is not None:
        if folder.is_dir():
            return FolderSet(folder, classes)
        if not rec.is_file():
            raise InputError(f"neither {folder}, with one folder a class, nor {rec} is there: name "
                             "their place by --data-dir, or the .rec by its own flag")
    return RecordSet(rec, idx)
