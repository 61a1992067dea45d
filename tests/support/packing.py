"""What the tests of packing share."""

from pathlib import Path

from mxnet import recordio


def names(folder: Path) -> list[str]:
    """Of the files in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


def packed(prefix: Path) -> dict[int, tuple[float, bytes]]:
    """{key: (label, image)} of a packed set by MXNet's reader, in the .idx's order."""
    file = recordio.MXIndexedRecordIO(f"{prefix}.idx", f"{prefix}.rec", "r")
    found = {key: recordio.unpack(file.read_idx(key)) for key in file.keys}
    assert all(header.id == key for key, (header, _) in found.items())
    return {key: (header.label, data) for key, (header, data) in found.items()}
