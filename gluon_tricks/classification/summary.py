"""What a classifier's run says of its data and its network, and how its curves are drawn."""

import numpy as np
from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification.network import build_network
from gluon_tricks.classification.settings import Settings
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.models.profile import profile
from gluon_tricks.runs.curves import Panel


def rows(settings: Settings, train: ImageSet, val: ImageSet) -> dict[str, str]:
    """Of the table that the log starts with: the sets, the network's size."""
    found = profile(build_network(settings), (3, settings.input_size, settings.input_size))
    return {"training set": f"{train.path}: {len(train)} records, {settings.num_classes} classes",
            "validation set": f"{val.path}: {len(val)} records",
            "network": f"{settings.model}, {found.parameters:,} parameters, "
                       f"{found.multiply_adds / 1e9:.3f} G multiply-adds"}


def notes(settings: Settings, network: HybridBlock, train: ImageSet) -> list[str]:
    """What to say after the table: of classes without images, and of a network that is not run as
    --mode asks."""
    said = []
    counts = np.bincount(train.labels, minlength=settings.num_classes)
    names = train.class_names() or []
    empty = [names[label] if label < len(names) else str(label)
             for label in np.flatnonzero(counts == 0)]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        said.append(f"warning: the training set has no image of {', '.join(empty[:5])}{more}")
    if settings.mode == "symbolic":
        said.append("--mode symbolic: Gluon has no such mode, the run is hybrid")
    if settings.mode != "imperative" and not network._active:
        said.append(f"{settings.model} has another graph in training than in prediction: the run "
                    "is imperative")
    return said


def panel(settings: Settings) -> Panel:
    """Accuracies in percent; training's loss may not be validation's plain cross-entropy."""
    tricks = {"smoothed": settings.label_smoothing > 0, "mixed": settings.mixup,
              "distilled": settings.teacher is not None}
    return Panel("accuracy, %", {"training top-1": "train_top1", "validation top-1": "val_top1",
                                 "validation top-5": "val_top5"}, 100,
                 ", ".join(["training", *(name for name, used in tricks.items() if used)]))
