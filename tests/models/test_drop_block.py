"""DropBlock: what it drops and how often, and that a compiled graph drops only in training."""

import mxnet as mx
import numpy as np
import pytest
from gluoncv.nn import dropblock
from mxnet import autograd

from gluon_tricks.models.drop_block import DropBlock
from gluon_tricks.models.zoo import get_model


def dropped(block, x):
    """Where training sets a feature to 0, (C, H, W); and the output."""
    with autograd.record():
        y = block(x)
    y = y.asnumpy()
    return y[0] == 0, y


def block_of(probability, **sizes):
    block = DropBlock(probability, **{"block_size": 3, "c": 4000, "h": 12, "w": 10, **sizes})
    block.hybridize(static_alloc=True, static_shape=True)
    return block


def test_squares_are_dropped_and_the_rest_makes_up_for_them():
    mx.random.seed(1)
    x = mx.nd.array(np.random.default_rng(0).uniform(1, 2, (2, 4000, 12, 10)))
    gone, y = dropped(block_of(0.1), x)
    # This share of the inner positions have a square's center among the nine around them.
    gamma = 0.1 / 9 * (12 * 10) / (10 * 8)
    assert gone[:, 1:-1, 1:-1].mean() == pytest.approx(1 - (1 - gamma) ** 9, rel=0.05)
    assert 0.01 < gone[:, 0, 0].mean() < 1 - (1 - gamma) ** 9  # four positions around a corner
    for channel in gone:  # each dropped feature is in a dropped square, cut off at the edge
        padded = np.pad(channel, 2, constant_values=True)
        squares = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).all(axis=(2, 3))
        covered = np.lib.stride_tricks.sliding_window_view(squares, (3, 3)).any(axis=(2, 3))
        assert (covered[channel]).all()
    np.testing.assert_array_equal(y[0] == 0, y[1] == 0)
    np.testing.assert_allclose(y, x.asnumpy() * ~gone / (1 - gone.mean()), rtol=1e-5)


def test_it_drops_as_much_as_gluoncv_s():
    mx.random.seed(2)
    x = mx.nd.ones((1, 2000, 7, 7))
    sizes = {"c": 2000, "h": 7, "w": 7}
    (ours, _), (theirs, _) = (dropped(kind(0.2, block_size=3, **sizes), x)
                              for kind in (DropBlock, dropblock.DropBlock))
    np.testing.assert_allclose(ours.mean(axis=0)[1:-1, 1:-1], theirs.mean(axis=0)[1:-1, 1:-1],
                               atol=0.05)
    assert ours.mean() == pytest.approx(theirs.mean(), rel=0.05)


def test_a_graph_compiled_in_training_drops_nothing_in_prediction_and_the_reverse():
    x = mx.nd.ones((1, 4000, 12, 10))
    first, second = block_of(0.3), block_of(0.3)
    assert dropped(first, x)[0].any()
    np.testing.assert_array_equal(first(x).asnumpy(), 1)
    np.testing.assert_array_equal(second(x).asnumpy(), 1)
    assert dropped(second, x)[0].any()


def blocks_of(network):
    found = []
    network.apply(found.append)
    return [block for block in found if isinstance(block, dropblock.DropBlock)]


def test_resnest_s_blocks_are_replaced_with_their_places():
    """For 256x256, stage 3 makes 16x16 from 32x32, and stage 4 makes 8x8."""
    blocks = blocks_of(get_model("resnest26", classes=7, input_size=256, dropblock_prob=0.25))
    assert len(blocks) == 12 and {type(block) for block in blocks} == {DropBlock}
    assert {block.drop_prob for block in blocks} == {0.25}
    assert sorted({(block.h, block.w) for block in blocks}) == [(8, 8), (16, 16), (32, 32)]
    assert {block.drop_prob for block in blocks_of(get_model("resnest26"))} == {0.1}  # GluonCV's
