"""DropBlock (arXiv 1810.12890) that works in compiled networks: it drops only in training."""

from gluoncv.nn import dropblock
from mxnet.gluon.block import HybridBlock


class DropBlock(dropblock.DropBlock):
    """Drop squares of a feature map in training, (N, C, H, W) to the same shape.

    A position is the center of a square of block_size b with probability

        gamma = drop_prob / b^2 * (h w) / ((h - b + 1) (w - b + 1))

    for the expected height h and width w; the rest is divided by the share that is kept. All
    samples of a batch lose the same squares. It is a drop-in replacement for GluonCV's block, which
    asks Python whether it is training, so that a graph compiled in training drops in prediction
    too. Here the Dropout operator draws the centers, and only in training.
    """

    def hybrid_forward(self, F, x):
        if self.drop_prob <= 0:
            return x
        b = self.block_size
        places = max(self.h - b + 1, 1) * max(self.w - b + 1, 1)
        gamma = min(self.drop_prob / b**2 * self.h * self.w / places, 0.99)
        ones = F.ones_like(F.slice_axis(x, axis=0, begin=0, end=1))
        centers = F.Dropout(ones, p=gamma) == 0
        dropped = F.Pooling(centers, pool_type="max", kernel=(b, b), pad=(b // 2, b // 2))
        kept = 1 - dropped
        share = F.mean(F.mean(kept, axis=(2, 3)))  # in two steps: FP16 overflows beyond 65504
        return F.broadcast_mul(x, F.broadcast_div(kept, F.maximum(share, 1e-3)))


def use_drop_block(network: HybridBlock, probability: float | None = None) -> bool:
    """Replace GluonCV's blocks by ours, in place; `probability` None keeps theirs. Returns whether
    there were any."""
    found = []

    def replace_children(parent: HybridBlock) -> None:
        for name, child in list(parent._children.items()):
            if type(child) is dropblock.DropBlock:
                found.append(DropBlock(
                    child.drop_prob if probability is None else probability, child.block_size,
                    child.c, child.h, child.w))
                setattr(parent, name, found[-1])
    network.apply(replace_children)
    return bool(found)
