"""Packs ImageNet (ILSVRC2012), as downloaded or in folders, into OUT/train.rec and OUT/val.rec."""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

import cv2
import numpy as np

from gluon_tricks.data.folder import SUFFIXES
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError
from gluon_tricks.prepare import tars, val_labels
from gluon_tricks.prepare.pack import Encoding, Listing, in_order, list_folder, pack
from gluon_tricks.prepare.resumable import check_same, fingerprint, read_state, write_state
from gluon_tricks.prepare.verify import verify

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
CLASSES = 1000
Progress = Callable[[Iterable, int, str], Iterable]  # a bar over (items, total, title)


class Known(NamedTuple):
    """The size of a set of ILSVRC2012."""

    images: int
    least: int  # of one class
    most: int


KNOWN = {"train": Known(1_281_167, 732, 1300), "val": Known(50_000, 50, 50)}


@dataclass(frozen=True)
class Options:
    """Options of `prepare`."""

    seed: int = 0  # of the order
    labels: Path | None = None  # of the validation images; None: found in the source
    any_counts: bool = False
    skip_damaged: bool = False
    verify: bool = True
    workers: int = 1


class Prepared(NamedTuple):
    """A packed set."""

    prefix: Path
    images: int
    classes: int
    bytes: int
    other: int  # with Encoding.seekable: stored by this call although not seekable
    damaged: list[str]  # skipped by this call
    skipped: int  # skipped by all calls


class _Plan(NamedTuple):
    """A set to pack."""

    name: str
    prefix: Path
    listing: Listing
    settings: dict
    done: bool  # by an earlier call


def prepare(source: Path, out: Path, encoding: Encoding, options: Options, progress: Progress,
            say: Callable[[str], None]) -> list[Prepared]:
    """Write and verify OUT/train and OUT/val (.rec, .idx, .lst, .classes.json).

    The work of earlier calls with the same arguments is kept. `say` takes lines of progress for the
    user. Raises InputError for whatever is wrong with `source` and `out`, before packing where
    possible, and for damaged images, see `pack`.
    """
    sets = read_source(source, out, options, progress)
    plans = []
    for name, listing in sets.items():
        prefix, settings = out / name, _settings(listing, encoding, options.seed)
        plans.append(_Plan(name, prefix, listing, settings, _is_done(prefix, settings)))
    check_space([plan for plan in plans if not plan.done], out, encoding, say)
    prepared = [_prepare(plan, encoding, options, progress, say) for plan in plans]
    for name in sets:
        _cache(out, name).unlink(missing_ok=True)
    return prepared


def read_source(source: Path, out: Path, options: Options, progress: Progress
                ) -> dict[str, Listing]:
    """List the training and validation images in `source`, with consistent labels.

    A label is a class's index among the sorted names of the training classes. Raises InputError
    for what is missing, damaged or unknown, and for counts other than ImageNet's.
    """
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: give the one that contains {TRAIN_TAR} and "
                         f"{VAL_TAR}, or train/ and val/")
    if not _nearest_existing(out).is_dir():
        raise InputError(f"{_nearest_existing(out)} is a file: give a folder to write to")
    train = _read_train(source, out, options.seed, progress)
    val, kit = _read_val(source, out, options, train.classes)
    for name, listing in (("train", train), ("val", val)):
        if not options.any_counts:
            held = Counter(listing.classes[image.label] for image in listing.images)
            check_counts(name, listing.root, {wnid: held[wnid] for wnid in listing.classes},
                         kit.train_counts if kit and name == "train" else {})
    return {"train": train, "val": val}


def _nearest_existing(out: Path) -> Path:
    """`out`, or the nearest of its parents that exists."""
    return next(path for path in (out, *out.absolute().parents) if path.exists())


def _cache(out: Path, name: str) -> Path:
    return out / f"{name}.members.tsv"


def _read_train(source: Path, out: Path, seed: int, progress: Progress) -> Listing:
    tar = source / TRAIN_TAR
    if not tar.is_file():
        if (source / "train").is_dir():
            return list_folder(source / "train", seed=seed)
        raise InputError(f"{source} has neither {TRAIN_TAR} nor train/: put one of them there")
    members = tars.listed(tar, _cache(out, "train"), lambda path: tars.nested(
        path, lambda inner: progress(inner, len(inner), "train: finding images")))
    _check_images(members)
    classes = sorted({name.partition("/")[0] for name in members.names})
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    # By class, then by name, as in list_folder: among the names, "a-b/" sorts before "a/".
    files = sorted((label_of[name.partition("/")[0]], name) for name in members.names)
    return Listing(tar, in_order(files, seed), classes, members)


def _check_images(members: tars.Members) -> None:
    for name in members.names:
        if PurePath(name).suffix.lower() not in SUFFIXES:
            raise InputError(f"{members.tar} contains {name}, which is not an image "
                             f"({', '.join(SUFFIXES)}): it is not the set as downloaded")


def _read_val(source: Path, out: Path, options: Options, classes: list[str]
              ) -> tuple[Listing, val_labels.Kit | None]:
    tar, folder = source / VAL_TAR, source / "val"
    if tar.is_file():
        members = tars.listed(tar, _cache(out, "val"), tars.flat)
        _check_images(members)
        root, names = tar, members.names
    elif folder.is_dir():
        root, names, members = folder, _flat_names(folder), None
        if not names:
            return _read_val_folders(folder, options, classes), None
    else:
        raise InputError(f"{source} has neither {VAL_TAR} nor val/: put one of them there")
    path = options.labels or val_labels.find_labels(source)
    kit = val_labels.read_kit(path) if val_labels.is_kit(path) else None
    if kit:
        val_labels.check_length(path, len(kit.wnids), len(names))
        label_of = {wnid: label for label, wnid in enumerate(classes)}
        for wnid in kit.wnids:
            if wnid not in label_of:
                raise InputError(f"{path}: {wnid} is not a class of the training set")
        labels = [label_of[wnid] for wnid in kit.wnids]
    else:
        labels = val_labels.read_text(path, names, classes)
    # By class, then by name: the same order, and so the same .rec, as from class folders.
    files = sorted(zip(labels, names, strict=True))
    return Listing(root, in_order(files, options.seed), classes, members), kit


def _flat_names(folder: Path) -> list[str]:
    """The sorted names of a folder's images; empty if it has class folders."""
    with os.scandir(folder) as entries:
        entries = list(entries)
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in entries):
        return []
    names = sorted(entry.name for entry in entries
                   if PurePath(entry.name).suffix.lower() in SUFFIXES)
    if not names:
        raise InputError(f"{folder} has neither images nor class folders: unpack {VAL_TAR} "
                         "there")
    for name in names:
        if not name.isprintable():
            raise InputError(f"{folder}: the name {name!r} cannot be printed, or written to a "
                             ".lst: rename it")
    return names


def _read_val_folders(folder: Path, options: Options, classes: list[str]) -> Listing:
    if options.labels:
        raise InputError(f"--val-labels cannot be combined with {folder}, whose folders name the "
                         "classes: drop it")
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in classes:
            raise InputError(f"{entry} is not a class of the training set: remove it, or add its "
                             "training images")
    return list_folder(folder, classes, options.seed)


def check_counts(name: str, where: Path, counts: dict[str, int], known: dict[str, int]) -> None:
    """Raise InputError if a set, "train" or "val", does not have ImageNet's counts.

    counts: images per class. The message names the first class that is surely wrong: by `known`,
    the true counts, else by the fewest and the most images that a class of ImageNet has.
    """
    expected, total = KNOWN[name], sum(counts.values())
    if total == expected.images and len(counts) == CLASSES:
        return
    first = ""
    for wnid in sorted(counts.keys() | known.keys()):
        count, least = counts.get(wnid, 0), known.get(wnid, expected.least)
        if not least <= count <= known.get(wnid, expected.most):
            right = least if least == known.get(wnid, expected.most) else \
                f"{expected.least} to {expected.most}"
            first = f"; {wnid} has {count}, not {right}"
            break
    raise InputError(f"{where} has {total} images in {len(counts)} classes, ILSVRC2012's {name} "
                     f"set {expected.images} in {CLASSES}{first}: download it again, or prepare "
                     "it as it is with --any-counts")


def _settings(listing: Listing, encoding: Encoding, seed: int) -> dict:
    """What a .rec depends on; flags come first, since a difference in them says more."""
    encodes = not encoding.pass_through
    return {"--resize": encoding.resize, "--quality": encoding.quality if encodes else None,
            "--seekable": encoding.seekable, "--seed": seed,
            "OpenCV": cv2.__version__ if encodes else None,
            "pictures": fingerprint(itertools.chain(listing.classes, (
                f"{key}\t{label}\t{path}" for key, label, path in listing.images)))}


def _is_done(prefix: Path, settings: dict) -> bool:
    """Whether a set is packed. Raises InputError if the existing files belong to other settings."""
    state = read_state(prefix)
    if state is not None:
        check_same(prefix, state, settings)
        return Path(f"{prefix}.idx").exists()
    for end in ("rec", "idx", "lst", "classes.json"):
        if Path(f"{prefix}.{end}").exists():
            raise InputError(f"{prefix}.{end} already exists, and was not started by this script: "
                             "remove it or choose another folder")
    return False


def check_space(plans: list[_Plan], out: Path, encoding: Encoding,
                say: Callable[[str], None]) -> None:
    """Raise InputError if the disk is too full. The size of re-encoded images is not known."""
    free, needed = shutil.disk_usage(_nearest_existing(out)).free, 0
    if not plans:
        return
    if not encoding.pass_through:
        say(f"{out}: {size_text(free)} free; how much re-encoded images need is not known yet")
        return
    for plan in plans:
        for _, _, path in plan.listing.images:
            size = plan.listing.size(path)
            needed += 32 + size + -size % 4  # a RecordIO frame with a header
            needed += 60 + len(path)  # its lines in .idx and .lst
        part = Path(f"{plan.prefix}.rec.part")
        if read_state(plan.prefix) is not None and part.exists():
            needed -= part.stat().st_size
    if encoding.seekable:
        needed = round(needed * 1.05)  # optimized Huffman tables no longer are
    if needed > free:
        raise InputError(f"{out}: {size_text(needed)} needed, {size_text(free)} free: make room, "
                         "or choose another folder")
    say(f"{out}: {size_text(needed)} needed, {size_text(free)} free")


def size_text(count: int) -> str:
    """A number of bytes, for people to read."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _prepare(plan: _Plan, encoding: Encoding, options: Options, progress: Progress,
             say: Callable[[str], None]) -> Prepared:
    rec, count, damaged, other = Path(f"{plan.prefix}.rec"), len(plan.listing.images), [], 0
    if plan.done:
        say(f"{rec} is already packed")
    else:
        if Path(f"{rec}.part").exists() and read_state(plan.prefix) is not None:
            say(f"{rec}: resuming from what an earlier call packed")
        damaged, other = pack(
            plan.listing, plan.prefix, encoding, workers=options.workers,
            skip_damaged=options.skip_damaged, resumable=plan.settings,
            progress=lambda results: progress(results, count, f"{plan.name}: packing"))
    size = rec.stat().st_size if rec.exists() else None
    if options.verify and (read_state(plan.prefix) or {}).get("verified") != size:
        check_packed(plan.prefix, plan.listing, options.workers, progress)
        write_state(plan.prefix, {"settings": plan.settings, "verified": size})
    with RecordSet(rec) as records:
        return Prepared(plan.prefix, len(records), len(plan.listing.classes), size, other, damaged,
                        count - len(records))


def check_packed(prefix: Path, listing: Listing, workers: int, progress: Progress) -> None:
    """Read a set back. Raises InputError if it is incomplete or differs from the listing."""
    again = f"remove {prefix}.* and start again"
    with RecordSet(f"{prefix}.rec") as records:
        labels = np.full(len(listing.images), -1)
        labels[[image.key for image in listing.images]] = \
            [image.label for image in listing.images]
        known = (records.keys >= 0) & (records.keys < len(labels))
        if not known.all() or (labels[records.keys] != records.labels).any():
            raise InputError(f"{prefix}.rec has labels that do not match its images: {again}")
        count = len(records)
    report = verify(prefix, workers=workers, progress=lambda results: progress(
        results, count, f"{prefix.name}: verifying"))
    if report.damaged:
        key, offset, reason = report.damaged[0]
        raise InputError(f"{prefix}.rec has {len(report.damaged)} damaged records, the first with "
                         f"key {key} at byte {offset}: {reason}; {again}")
    if report.unlisted:
        raise InputError(f"{prefix}.rec has {report.unlisted} bytes that belong to no record: "
                         f"{again}")
