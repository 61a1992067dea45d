"""What a classifier's run logs about its data and network, and how its curves are drawn."""

import numpy as np
from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification.network import build_network
from gluon_tricks.classification.settings import Settings
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.models.profile import profile
from gluon_tricks.runs.curves import Panel


def rows(settings: Settings, train: ImageSet, val: ImageSet) -> dict[str, str]:
    """Rows of the table that the log starts with: the data sets and the network's size."""
    found = profile(build_network(settings), (3, settings.input_size, settings.input_size))
    return {"training set": f"{train.path}: {len(train)} records, {settings.num_classes} classes",
            "validation set": f"{val.path}: {len(val)} records",
            "network": f"{settings.model}, {found.parameters:,} parameters, "
                       f"{found.multiply_adds / 1e9:.3f} G multiply-adds"}


def notes(settings: Settings, network: HybridBlock, train: ImageSet) -> list[str]:
    """Lines for the log after the table: classes without images, and a network that cannot run as
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
        said.append(f"{settings.model} has a different graph in training than in prediction: the "
                    "run is imperative")
    return said


def panel(settings: Settings) -> Panel:
    """The curves' panel of accuracies, in percent. Its label names the tricks that make the
    training loss differ from validation's plain cross-entropy."""
    tricks = {"smoothed": settings.label_smoothing > 0, "mixed": settings.mixup,
              "distilled": settings.teacher is not None}
    return Panel("accuracy, %", {"training top-1": "train_top1", "validation top-1": "val_top1",
                                 "validation top-5": "val_top5"}, 100,
                 ", ".join(["training", *(name for name, used in tricks.items() if used)]))
