"""GroupNorm against its definition in float64, and against GluonCV's imperative one."""

import json

import gluoncv
import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn

from gluon_tricks.models.group_norm import GroupNorm
from gluon_tricks.models.resnet import resnet


def by_definition(x, gamma, beta, groups, epsilon):
    """arXiv 1803.08494, equations 1, 2, 6 and 7, one sample and group at a time."""
    y = np.empty(x.shape, np.float64)
    size = x.shape[1] // groups
    for sample in range(len(x)):
        for first in range(0, x.shape[1], size):
            group = x[sample, first:first + size].astype(np.float64)
            y[sample, first:first + size] = (group - group.mean()) / np.sqrt(group.var() + epsilon)
    return y * gamma[:, None, None] + beta[:, None, None]


def ready(block, channels=64):
    rng = np.random.default_rng(1)
    if block.gamma.shape == (0,):
        block.infer_shape(mx.nd.zeros((1, channels, 3, 3)))
    block.initialize()
    for parameter in (block.gamma, block.beta):
        parameter.set_data(mx.nd.array(rng.normal(1, 2, channels)))
    return block


def pictures(channels=64):
    return mx.nd.array(np.random.default_rng(2).normal(3, 2, (3, channels, 5, 7)))


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize(("options", "groups", "epsilon"), [
    ({}, 32, 1e-5), ({"in_channels": 64}, 32, 1e-5), ({"groups": 4, "epsilon": 0.5}, 4, 0.5)])
def test_each_group_of_a_sample_is_normalized_alone(options, groups, epsilon, hybrid):
    block, x = ready(GroupNorm(**options)), pictures()
    if hybrid:
        block.hybridize(static_alloc=True, static_shape=True)
    want = by_definition(x.asnumpy(), block.gamma.data().asnumpy(), block.beta.data().asnumpy(),
                         groups, epsilon)
    for _ in range(2):  # compiled at the first call
        np.testing.assert_allclose(block(x).asnumpy(), want, rtol=1e-5, atol=1e-5)


def passes(block, x):
    x.attach_grad()
    with autograd.record():
        y = block(x)
    y.backward(mx.nd.array(np.random.default_rng(3).normal(0, 1, y.shape)))
    return [array.asnumpy() for array in (y, x.grad, block.gamma.grad(), block.beta.grad())]


def test_output_and_gradients_are_those_of_gluoncv_s():
    ours, theirs = ready(GroupNorm()), ready(gluoncv.nn.GroupNorm(in_channels=64))
    ours.hybridize()
    for got, want in zip(passes(ours, pictures()), passes(theirs, pictures()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_file_of_gluoncv_s_resnet_loads_and_gives_its_outputs(tmp_path):
    theirs = gluoncv.model_zoo.get_model("resnet50_v1b_gn", classes=7)
    theirs.initialize(mx.init.Xavier())
    x = mx.nd.random.normal(shape=(2, 3, 32, 32))
    for parameter in theirs.collect_params(".*(gamma|beta)").values():
        parameter.initialize(mx.init.Normal(1), force_reinit=True)
    want = theirs(x).asnumpy()
    theirs.save_parameters(str(tmp_path / "theirs.params"))
    ours = resnet("resnet50_v1b_gn", classes=7)
    ours.load_parameters(str(tmp_path / "theirs.params"))
    ours.hybridize()
    np.testing.assert_allclose(ours(x).asnumpy(), want, rtol=1e-4, atol=1e-4 * abs(want).max())
    asked = resnet("resnet50_v1b", classes=7, use_gn=True)._collect_params_with_prefix()
    assert asked.keys() == ours._collect_params_with_prefix().keys()


def test_fp16_is_normalized_in_fp32():
    block = nn.HybridSequential()
    block.add(GroupNorm())
    block.cast("float16")
    graph = block(mx.sym.var("data"))
    (data, *parameters), outputs, _ = graph.infer_type(data=np.float16)
    assert (data, outputs) == (np.float16, [np.float16])
    assert parameters == [np.float32] * 2
    means = [node["name"] for node in json.loads(graph.tojson())["nodes"] if node["op"] == "mean"]
    inner = graph.get_internals()
    assert means and all(inner[f"{name}_output"].infer_type(data=np.float16)[1] == [np.float32]
                         for name in means)
    block.cast("float32")
    assert block(mx.sym.var("data")).infer_type(data=np.float32)[1] == [np.float32]


def test_what_is_neither_scaled_nor_shifted_has_nothing_to_train():
    block = GroupNorm(in_channels=64, scale=False, center=False)
    block.initialize()
    assert {parameter.grad_req for parameter in block.collect_params().values()} == {"null"}
    want = by_definition(pictures().asnumpy(), np.ones(64), np.zeros(64), 32, 1e-5)
    np.testing.assert_allclose(block(pictures()).asnumpy(), want, rtol=1e-5, atol=1e-5)


def test_channels_that_do_not_fall_into_groups_are_refused():
    with pytest.raises(ValueError, match="48 channels cannot be divided into 32 groups"):
        GroupNorm(in_channels=48)
    with pytest.raises(mx.MXNetError):  # 16 of 32x32 values would, sliced through the channels
        GroupNorm()(mx.sym.var("data")).infer_shape(data=(2, 16, 32, 32))
