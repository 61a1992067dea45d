"""ImageNet as it is downloaded, but with three classes: tars in a tar, and the development kit."""

import gzip
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.io import savemat

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KIT = "ILSVRC2012_devkit_t12"
WNIDS = ["n00000030", "n00000007", "n00000100"]  # ILSVRC's numbers 1, 2, 3
LABELS = {"n00000007": 0, "n00000030": 1, "n00000100": 2}  # their places when sorted
TRAIN_COUNTS = {"n00000030": 5, "n00000007": 4, "n00000100": 6}
VAL_NUMBERS = [3, 1, 1, 2, 3, 2]
VAL = {f"ILSVRC2012_val_{number:08d}.JPEG": WNIDS[label - 1]
       for number, label in enumerate(VAL_NUMBERS, 1)}


def picture(seed: int) -> bytes:
    """A noise JPEG; sometimes, as in the real set, a PNG or one in CMYK."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24 + seed % 9, 31, 3), np.uint8)
    if seed % 7 == 3:
        return cv2.imencode(".png", pixels)[1].tobytes()
    file = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK" if seed % 7 == 5 else "RGB").save(file, "JPEG")
    return file.getvalue()


def train_pictures() -> dict[str, bytes]:
    """By WNID/NAME."""
    names = [f"{wnid}/{wnid}_{number}.JPEG" for wnid, count in TRAIN_COUNTS.items()
             for number in range(9, 9 + count)]  # so that 10 sorts before 9
    return {name: picture(seed) for seed, name in enumerate(names)}


def val_pictures() -> dict[str, bytes]:
    return {name: picture(100 + seed) for seed, name in enumerate(VAL)}


def tar_bytes(files: dict[str, bytes]) -> bytes:
    """In the order of `files`, which is not sorted."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_tars(folder: Path) -> None:
    """The two sets as downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = {f"{wnid}.tar": tar_bytes({
        name.partition("/")[2]: data for name, data in train_pictures().items()
        if name.startswith(wnid)}) for wnid in WNIDS}
    (folder / TRAIN_TAR).write_bytes(tar_bytes(classes))
    (folder / VAL_TAR).write_bytes(tar_bytes(dict(reversed(val_pictures().items()))))


def write_kit(folder: Path, numbers: list[int] = VAL_NUMBERS, packed: bool = True) -> None:
    """The development kit, with superclasses after ILSVRC's own classes; packed or as a folder."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"),
            ("num_train_images", "O")]
    rows = [(number, wnid, "a thing", 0, TRAIN_COUNTS[wnid])
            for number, wnid in enumerate(WNIDS, 1)]
    synsets = np.array([*rows, (4, "n00000001", "things", 3, 15)], kind)[:, None]
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    files = {f"{KIT}/data/ILSVRC2012_validation_ground_truth.txt":
             "".join(f"{number}\n" for number in numbers).encode(),
             f"{KIT}/data/meta.mat": meta.getvalue(), f"{KIT}/readme.txt": b"A kit.\n"}
    if packed:
        (folder / f"{KIT}.tar.gz").write_bytes(gzip.compress(tar_bytes(files)))
    else:
        write_files(folder, files)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_folders(folder: Path) -> None:
    """The two sets with one folder per class."""
    write_files(folder / "train", train_pictures())
    write_files(folder / "val", {f"{VAL[name]}/{name}": data
                                 for name, data in val_pictures().items()})
