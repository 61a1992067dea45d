"""Numbers that the paper reports (arXiv 1812.01187v2): targets, not results of ours.

Accuracies are top-1 and top-5 in percent on ImageNet's validation set.
"""

from typing import NamedTuple


class Accuracy(NamedTuple):
    top1: float
    top5: float


# Table 3, "efficient": batch 1024, FP16, 8 V100; minutes per epoch of ResNet-50.
MINUTES_AN_EPOCH = 4.4

# Table 5: millions of parameters, 10^9 multiply-adds ("FLOPs"), accuracy, by ResNet-50's tweak.
TABLE_5 = {
    "": (25, 3.8, Accuracy(76.21, 92.97)),
    "b": (25, 4.1, Accuracy(76.66, 93.28)),
    "c": (25, 4.3, Accuracy(76.87, 93.48)),
    "d": (25, 4.3, Accuracy(77.16, 93.52)),
}

# Table 6, ResNet-50-D: each row adds to the one above, except that mixup is also without
# distillation.
TABLE_6 = {
    "efficient": Accuracy(77.16, 93.52),
    "+ cosine decay": Accuracy(77.91, 93.81),
    "+ label smoothing": Accuracy(78.31, 94.09),
    "+ distillation, no mixup": Accuracy(78.67, 94.36),
    "+ mixup, no distillation": Accuracy(79.15, 94.58),
    "+ distillation and mixup": Accuracy(79.29, 94.63),
}

EPOCHS, EPOCHS_WITH_MIXUP = 120, 200  # sections 2 and 5.4
