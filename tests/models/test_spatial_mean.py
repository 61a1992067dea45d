"""SpatialMean against closed forms, and in networks against GluonCV's own with GlobalAvgPool2D."""

import json
import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from gluoncv import model_zoo
from mxnet import autograd
from mxnet.gluon import nn

from gluon_tricks.errors import InputError
from gluon_tricks.models import zoo
from gluon_tricks.models.pooling import SpatialMean, use_spatial_mean
from gluon_tricks.models.zoo import get_model


def nodes(net):
    return json.loads(net(mx.sym.var("data")).tojson())["nodes"]


def global_pools(net):
    return sum(node["op"] == "Pooling" and node["attrs"].get("global_pool") == "True"
               for node in nodes(net))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mean_and_gradient_are_those_of_float64(dtype):
    rng = np.random.default_rng(1)
    data = rng.normal(3, 1, (2, 5, 7, 9)).astype(dtype)
    out_grad = rng.normal(0, 1, (2, 5, 1, 1)).astype(dtype)
    x = mx.nd.array(data, dtype=dtype)
    x.attach_grad()
    net = SpatialMean()
    net.cast(dtype)
    with autograd.record():
        out = net(x)
    out.backward(mx.nd.array(out_grad, dtype=dtype))
    exact = np.finfo(dtype).eps
    assert out.dtype == x.grad.dtype == np.dtype(dtype)
    np.testing.assert_allclose(out.asnumpy(), data.astype(np.float64).mean((2, 3), keepdims=True),
                               rtol=2 * exact)
    want = np.broadcast_to(out_grad.astype(np.float64) / 63, data.shape)
    np.testing.assert_allclose(x.grad.asnumpy(), want, rtol=2 * exact)


def test_the_mean_in_fp16_is_finite_where_the_sum_is_not():
    net = SpatialMean()
    net.cast("float16")
    images = mx.nd.full((1, 3, 56, 56), 100, dtype="float16")
    assert (net(images).asnumpy() == 100).all()
    assert np.isinf(mx.nd.mean(images, axis=(2, 3)).asnumpy()).all()  # which is why it pools
    net.cast("float32")
    assert global_pools(net) == 0


@pytest.mark.parametrize(("name", "means"), [("resnet18_v1d", 1), ("cifar_resnet20_v1", 1),
                                             ("mobilenetv3_small", 10)])
def test_fp16_networks_pool_and_are_fp16_throughout(name, means):
    assert global_pools(get_model(name, classes=10)) == 0
    net = get_model(name, classes=10)
    net.cast("float16")
    assert global_pools(net) == means
    internals = net(mx.sym.var("data")).get_internals()
    _, types, _ = internals.infer_type(data="float16")
    kept = ("data", "_weight", "_bias", "_fwd_output", "_output")
    found = {kind for name, kind in zip(internals.list_outputs(), types, strict=True)
             if name.endswith(kept)}
    assert found == {np.float16}


def same_pair(name):
    """The network of our zoo and GluonCV's, with the same parameters; none is zero."""
    pair = get_model(name, classes=10), model_zoo.get_model(name, classes=10)
    for net in pair:
        rng = np.random.default_rng(2)
        net.infer_shape(mx.nd.zeros((1, 3, 64, 64)))
        net.initialize(mx.init.Zero(), force_reinit=True)
        for key, parameter in net._collect_params_with_prefix().items():
            if key.endswith("weight"):
                values = rng.normal(0, np.sqrt(2 / np.prod(parameter.shape[1:])), parameter.shape)
            else:
                values = rng.uniform(0.4, 1.2, parameter.shape)
            parameter.set_data(mx.nd.array(values))
    return pair


def train_pass(net):
    """Output and gradients, by structural name, of a pass in train mode."""
    rng = np.random.default_rng(3)
    data = mx.nd.array(rng.normal(0, 1, (2, 3, 64, 64)))
    data.attach_grad()
    mx.random.seed(4)  # MobileNetV3 has dropout
    with autograd.record():
        out = net(data)
    out.backward(mx.nd.array(rng.normal(0, 1, out.shape)))
    return {"output": out.asnumpy(), "data": data.grad.asnumpy()} | {
        key: parameter.grad().asnumpy()
        for key, parameter in net._collect_params_with_prefix().items()
        if parameter.grad_req != "null"}


NETWORKS = ["cifar_resnet20_v1", "cifar_resnet20_v2", "resnet18_v2", "se_resnet18_v1",
            "mobilenet0.25", "mobilenetv3_small", "dla34"]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_gluoncv_s_network(name):
    ours, theirs = same_pair(name)
    assert global_pools(theirs) > global_pools(ours) == 0
    got, want = train_pass(ours), train_pass(theirs)
    assert got.keys() == want.keys()
    typical = np.median([np.abs(value).max() for value in want.values()])
    assert typical > 1e-3
    for key, value in want.items():
        # what is 0 up to rounding (a bias before a BatchNorm) shows nothing
        largest = max(np.abs(value).max(), 0.1 * typical)
        assert np.abs(got[key] - value).max() <= 3e-5 * largest, key


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_differs_in_the_pools_alone(name):
    def graph(build):
        with mx.name.NameManager():  # which counts from 0
            return [(node["name"], node["op"], node["inputs"])
                    for node in nodes(build(name, classes=10))]
    ours, theirs = graph(get_model), graph(model_zoo.get_model)
    changed = {(old[1], new[1]) for new, old in zip(ours, theirs, strict=True) if new != old}
    assert changed == {("Pooling", "mean")}
    assert [(name, inputs) for name, _, inputs in ours] == [
        (name, inputs) for name, _, inputs in theirs]


def parameter_names(name, monkeypatch):
    """A network's parameter and child names before and after, as `get_model` builds it.

    None for a name that is refused.
    """
    seen = []

    def names(net):
        tree = []
        net.apply(lambda block: tree.append(list(block._children)))
        return tree, list(net._collect_params_with_prefix()), list(net.collect_params())

    def watched(net):
        seen.append(names(net))
        net = use_spatial_mean(net)
        seen.append(names(net))
        return net
    monkeypatch.setattr(zoo, "use_spatial_mean", watched)
    try:
        get_model(name)
    except InputError:
        return None
    return seen


@pytest.mark.slow
def test_names_stay_in_every_network_of_the_zoo(monkeypatch):
    checked = 0
    for name in zoo.model_names():
        seen = parameter_names(name, monkeypatch)
        if seen:  # ours need no replacing, see test_resnet.py for their names
            before, after = seen
            assert before == after, name
            checked += 1
    assert checked > 100


class Holder(nn.HybridBlock):
    """A block with a pool as an attribute before a layer, and the same pool in a container."""

    def __init__(self, **pool):
        super().__init__()
        with self.name_scope():
            self.pool = nn.GlobalAvgPool2D(**pool)
            self.conv = nn.Conv2D(4, 1, in_channels=4)
            self.rest = nn.HybridSequential()
            self.rest.add(nn.Activation("relu"), self.pool, nn.Dense(2, in_units=4))

    def hybrid_forward(self, F, x):
        return self.rest(F.broadcast_add(self.conv(x), self.pool(x)))


def test_attributes_containers_and_shared_pools_are_replaced_in_place():
    net = Holder()
    net.initialize()
    images = mx.nd.array(np.random.default_rng(4).normal(0, 1, (2, 4, 5, 6)))
    net.hybridize()
    want = net(images).asnumpy()
    assert use_spatial_mean(net) is net
    assert type(net.pool) is SpatialMean
    assert net.pool is net.rest[1] is net._children["pool"]
    assert list(net._children) == ["pool", "conv", "rest"]
    assert list(net.rest._children) == ["0", "1", "2"]
    np.testing.assert_allclose(net(images).asnumpy(), want, rtol=1e-5)
    assert global_pools(net) == 0  # and it is the new graph that ran


def test_other_pools_stay():
    net = Holder(layout="NHWC")
    net.rest.add(nn.GlobalMaxPool2D(), nn.AvgPool2D(7))
    kinds = [type(block) for block in net.rest]
    use_spatial_mean(net)
    assert [type(block) for block in net.rest] == kinds
    assert type(net.pool) is nn.GlobalAvgPool2D


STEPS = """
import mxnet as mx
from gluoncv import model_zoo
from mxnet import autograd
from gluon_tricks.models.zoo import get_model
for build in (model_zoo.get_model, get_model):
    print("network", flush=True)
    net = build("cifar_resnet20_v1", classes=10)
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    for _ in range(2):
        with autograd.record():
            out = net(mx.nd.ones((2, 3, 32, 32)))
        out.backward()
        mx.nd.waitall()
"""


def test_no_batch_norm_falls_back_to_onednn_s_reference_code():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True,
                          env=os.environ | {"DNNL_VERBOSE": "1"})
    _, theirs, ours = done.stdout.split("network\n")
    assert ours.count("batch_normalization") == theirs.count("batch_normalization") == 2 * 2 * 21
    if "bnorm_ref" not in theirs:
        pytest.skip("on this CPU GluonCV's network does not fall back either")
    assert "bnorm_ref" not in ours
