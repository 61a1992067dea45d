"""Our ResNets against GluonCV's with the same parameters, and against the paper's figure 2."""

import json

import mxnet as mx
import numpy as np
import pytest
from gluoncv_networks import build, randomize
from mxnet import autograd
from mxnet.gluon import nn

from gluon_tricks.models.resnet import resnet


def parameters(net):
    return net._collect_params_with_prefix()


def pictures(size=(64, 64), batch=2, channels=3):
    rng = np.random.default_rng(5)
    return mx.nd.array(rng.normal(0, 1, (batch, channels, *size)))


def gluoncv_network(name, **options):
    net = build(name, **options)
    net.infer_shape(mx.nd.zeros((1, 3, 64, 64)))  # GluonCV leaves shapes open
    net.initialize(mx.init.Zero())
    return net


def same_pair(name, folder, *, classes=20, **options):
    """Ours and GluonCV's, GluonCV's parameters saved to a file and loaded into ours."""
    theirs = gluoncv_network(name, classes=classes, **options)
    randomize(theirs, seed=1)
    ours = resnet(name, classes=classes, **options)
    theirs.save_parameters(str(folder / "theirs.params"))
    ours.load_parameters(str(folder / "theirs.params"))
    return ours, theirs


def train_pass(net, images):
    """Output and every gradient by structural name, the input's as "data"; train mode."""
    data = images.copy()
    data.attach_grad()
    with autograd.record(train_mode=True):
        out = net(data)
    rng = np.random.default_rng(9)
    out.backward(mx.nd.array(rng.normal(0, 1, out.shape)))
    found = {name: parameter.grad().asnumpy() for name, parameter in parameters(net).items()
             if parameter.grad_req != "null"}
    return out.asnumpy(), found | {"data": data.grad.asnumpy()}


def assert_close(got, want, what="", floor=0.0):
    """To 1e-5 of the largest magnitude, or of `floor` if that is greater."""
    assert got.shape == want.shape, what
    assert np.isfinite(want).all(), what
    largest = max(np.abs(want).max(), floor)
    assert largest > 0, f"{what} is all zeros: nothing was compared"
    assert np.abs(got - want).max() <= 1e-5 * largest, what


def check_against_gluoncv(name, folder, images, **options):
    ours, theirs = same_pair(name, folder, **options)
    assert set(parameters(ours)) == set(parameters(theirs))
    assert_close(ours(images).asnumpy(), theirs(images).asnumpy(), "predict mode")

    got, got_grads = train_pass(ours, images)
    want, want_grads = train_pass(theirs, images)
    assert_close(got, want, "train mode")
    assert got_grads.keys() == want_grads.keys()
    typical = np.median([np.abs(grad).max() for grad in want_grads.values()])
    for parameter, grad in want_grads.items():
        # a bias before a BatchNorm has the gradient 0 and shows only rounding
        assert_close(got_grads[parameter], grad, f"gradient of {parameter}", floor=1e-2 * typical)
    for parameter in parameters(theirs):
        if "running" in parameter:
            assert_close(parameters(ours)[parameter].data().asnumpy(),
                         parameters(theirs)[parameter].data().asnumpy(), parameter)

    randomize(ours, seed=2)
    ours.save_parameters(str(folder / "ours.params"))
    theirs.load_parameters(str(folder / "ours.params"))
    assert_close(theirs(images).asnumpy(), ours(images).asnumpy(), "and back")


@pytest.mark.parametrize("name", [
    "resnet18_v1", "resnet18_v1b", "resnet18_v1c", "resnet18_v1d",
    "resnet50_v1", "resnet50_v1b", "resnet50_v1c", "resnet50_v1d"])
def test_equals_gluoncv_with_gradients(name, tmp_path):
    check_against_gluoncv(name, tmp_path, pictures())


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"resnet{depth}_{version}" for depth in (34, 101, 152)
                                  for version in ("v1", "v1b", "v1c", "v1d")])
def test_equals_gluoncv_with_gradients_at_other_depths(name, tmp_path):
    check_against_gluoncv(name, tmp_path, pictures())


@pytest.mark.parametrize("name", ["resnet18_v1d", "resnet50_v1d"])
def test_equals_gluoncv_at_odd_sizes(name, tmp_path):
    check_against_gluoncv(name, tmp_path, pictures(size=(65, 71)))


@pytest.mark.parametrize("name", [
    "resnet18_v1b", "resnet50_v1d", pytest.param("resnet50_v1b", marks=pytest.mark.slow)])
def test_dilated_equals_gluoncv(name, tmp_path):
    check_against_gluoncv(name, tmp_path, pictures(size=(61, 64)), dilated=True)


@pytest.mark.parametrize("name", ["resnet18_v1b", "resnet50_v1d"])
def test_dilated_keeps_an_eighth_of_the_size_from_stage_2_on(name):
    net = resnet(name, dilated=True)
    for stage, side in (("layer1", 16), ("layer2", 8), ("layer3", 8), ("layer4", 8)):
        x = mx.sym.var("data")
        for part in ("conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            x = getattr(net, part)(x)
            if part == stage:
                break
        assert x.infer_shape(data=(1, 3, 64, 64))[1][0][2:] == (side, side)


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet18_v1d"])
def test_hybridized_equals_imperative(name):
    net = resnet(name, classes=7)
    net.initialize()
    randomize(net, seed=4)
    images = pictures(size=(33, 47))
    want, want_grads = train_pass(net, images)
    randomize(net, seed=4)  # the running statistics as they were
    net.hybridize(static_alloc=True, static_shape=True)
    got, got_grads = train_pass(net, images)
    assert_close(got, want)
    for parameter, grad in want_grads.items():
        assert_close(got_grads[parameter], grad, parameter, floor=1.0)


def test_parameter_names_of_v1d():
    names = list(parameters(resnet("resnet50_v1d")))
    assert names[:14] == [
        "conv1.0.weight", "conv1.1.gamma", "conv1.1.beta", "conv1.1.running_mean",
        "conv1.1.running_var", "conv1.3.weight", "conv1.4.gamma", "conv1.4.beta",
        "conv1.4.running_mean", "conv1.4.running_var", "conv1.6.weight", "bn1.gamma", "bn1.beta",
        "bn1.running_mean"]
    assert {"layer1.0.downsample.1.weight", "layer1.0.downsample.2.gamma",
            "layer2.0.downsample.1.weight", "layer2.0.downsample.2.running_var",
            "layer3.5.bn2.beta", "layer4.2.conv3.weight", "fc.weight"} < set(names)
    assert names[-1] == "fc.bias"
    assert not [name for name in names if "downsample.0" in name]
    assert [name for name in names if name.endswith("bias")] == ["fc.bias"]
    assert len(names) == 55 + 55 * 4 + 2  # convolutions, their BatchNorms, the dense layer


def test_parameter_names_of_v1_and_v1b():
    v1 = set(parameters(resnet("resnet50_v1")))
    assert {"features.0.weight", "features.1.gamma", "features.4.0.body.0.weight",
            "features.4.0.body.0.bias", "features.4.0.body.3.weight", "features.4.0.body.6.bias",
            "features.4.0.body.7.running_mean", "features.4.0.downsample.0.weight",
            "features.5.0.downsample.1.beta", "features.7.2.body.6.weight", "output.weight",
            "output.bias"} < v1
    assert not {"features.0.bias", "features.4.0.body.3.bias"} & v1
    v1b = set(parameters(resnet("resnet50_v1b")))
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.gamma",
            "layer4.2.bn3.running_var", "fc.bias"} < v1b


def test_v1_inside_another_block_keeps_its_names_under_a_prefix(tmp_path):
    outer = nn.HybridSequential()
    outer.add(resnet("resnet18_v1", classes=4), nn.Dense(2, in_units=4))
    assert {"0.features.4.0.body.0.weight", "0.output.bias", "1.weight"} < set(parameters(outer))
    outer.initialize()
    outer.save_parameters(str(tmp_path / "outer.params"))
    again = nn.HybridSequential()
    again.add(resnet("resnet18_v1", classes=4), nn.Dense(2, in_units=4))
    again.load_parameters(str(tmp_path / "outer.params"))
    images = pictures(size=(32, 32))
    np.testing.assert_array_equal(again(images).asnumpy(), outer(images).asnumpy())


def convolutions(net):
    """(kernel, stride) of every convolution by its structural name, from the symbol graph."""
    structural = {parameter.name: name for name, parameter in parameters(net).items()}
    nodes = json.loads(net(mx.sym.var("data")).tojson())["nodes"]
    found = {}
    for node in nodes:
        if node["op"] == "Convolution":
            weight = structural[nodes[node["inputs"][1][0]]["name"]]
            kernel, stride = (json.loads(node["attrs"][key].replace("(", "[").replace(")", "]"))
                              for key in ("kernel", "stride"))
            assert kernel[0] == kernel[1] and stride[0] == stride[1]
            found[weight.removesuffix(".weight")] = kernel[0], stride[0]
    return found


# Figure 2: (kernel, stride) along path A, then along path B, of a block that halves the size.
FIGURE_2 = {
    "v1": ([(1, 2), (3, 1), (1, 1)], [(1, 2)]),
    "v1b": ([(1, 1), (3, 2), (1, 1)], [(1, 2)]),
    "v1c": ([(1, 1), (3, 2), (1, 1)], [(1, 2)]),
    "v1d": ([(1, 1), (3, 2), (1, 1)], [(1, 1)]),
}


@pytest.mark.parametrize("version", FIGURE_2)
def test_downsampling_blocks_are_those_of_figure_2(version):
    found = convolutions(resnet(f"resnet50_{version}"))
    path_a, path_b = FIGURE_2[version]
    for stage in (2, 3, 4):
        if version == "v1":
            block = f"features.{stage + 3}.0"
            names = [f"{block}.body.{i}" for i in (0, 3, 6)], [f"{block}.downsample.0"]
        else:
            block = f"layer{stage}.0"
            child = 1 if version == "v1d" else 0
            names = ([f"{block}.conv{i}" for i in (1, 2, 3)], [f"{block}.downsample.{child}"])
        assert [found[name] for name in names[0]] == path_a
        assert [found[name] for name in names[1]] == path_b
    strided = [name for name, (_, stride) in found.items() if stride != 1]
    assert len(strided) == 1 + 3 * (1 + (path_b == [(1, 2)]))  # the stem's, and nowhere else


def test_stems_of_figure_2():
    for version in ("v1b", "v1"):
        first = next(iter(convolutions(resnet(f"resnet50_{version}")).values()))
        assert first == (7, 2)
    for version in ("v1c", "v1d"):
        net = resnet(f"resnet50_{version}")
        found = convolutions(net)
        assert [found[f"conv1.{i}"] for i in (0, 3, 6)] == [(3, 2), (3, 1), (3, 1)]
        shapes = [parameters(net)[f"conv1.{i}.weight"].shape for i in (0, 3, 6)]
        assert shapes == [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]


def test_only_d_pools_its_shortcuts_over_2x2_with_stride_2():
    def average_pools(name):
        nodes = json.loads(resnet(name)(mx.sym.var("data")).tojson())["nodes"]
        return [node["attrs"] for node in nodes if node["op"] == "Pooling"
                and node["attrs"]["pool_type"] == "avg" and
                node["attrs"].get("global_pool") != "True"]
    assert average_pools("resnet50_v1c") == average_pools("resnet50_v1") == []
    pools = average_pools("resnet50_v1d")
    assert [(pool["kernel"], pool["stride"]) for pool in pools] == [("(2, 2)", "(2, 2)")] * 3
    assert {(pool["pooling_convention"], pool["count_include_pad"]) for pool in pools} == {
        ("full", "False")}


@pytest.mark.parametrize(("depth", "blocks", "trainable"), [  # torchvision's documented counts
    (18, [2, 2, 2, 2], 11_689_512), (34, [3, 4, 6, 3], 21_797_672),
    (50, [3, 4, 6, 3], 25_557_032), (101, [3, 4, 23, 3], 44_549_160),
    (152, [3, 8, 36, 3], 60_192_808)])
def test_depths(depth, blocks, trainable):
    net = resnet(f"resnet{depth}_v1b")
    assert [len(getattr(net, f"layer{stage}")) for stage in (1, 2, 3, 4)] == blocks
    assert sum(int(np.prod(parameter.shape)) for parameter in parameters(net).values()
               if parameter.grad_req != "null") == trainable
    convs_and_dense = [name for name in convolutions(net) if "downsample" not in name]
    assert len(convs_and_dense) + 1 == depth


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet50_v1d"])
def test_other_classes_and_input_channels(name):
    net = resnet(name, classes=10, in_channels=1)
    net.initialize()
    assert net(pictures(size=(40, 32), batch=3, channels=1)).shape == (3, 10)
    first = next(iter(parameters(net).values()))
    assert first.shape[1] == 1


def test_dropout_acts_before_the_classifier_and_in_training_only():
    plain, dropping = resnet("resnet18_v1d", classes=512), resnet("resnet18_v1d", classes=512,
                                                                   dropout=0.25)
    assert list(parameters(plain)) == list(parameters(dropping))
    for net in (plain, dropping):
        net.initialize()
        randomize(net, seed=3)
        parameters(net)["fc.weight"].set_data(mx.nd.eye(512))
        parameters(net)["fc.bias"].set_data(mx.nd.zeros(512))
    images = pictures(batch=4)
    np.testing.assert_array_equal(dropping(images).asnumpy(), plain(images).asnumpy())
    with autograd.train_mode():
        features, dropped = plain(images).asnumpy(), dropping(images).asnumpy()
        again = dropping(images).asnumpy()
    alive = features > 0
    assert alive.mean() > 0.9
    assert 0.2 < (dropped[alive] == 0).mean() < 0.3
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], features[kept] / 0.75, rtol=1e-5)
    assert ((dropped == 0) != (again == 0)).any()


def blocks(net):
    for stage in (1, 2, 3, 4):
        for number, block in enumerate(getattr(net, f"layer{stage}")):
            yield f"layer{stage}.{number}", block


def channels_in(block):
    return block.conv1.weight.shape[1]


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet18_v1b", "resnet18_v1d", "resnet50_v1",
                                  "resnet50_v1d"])
def test_with_zero_gamma_each_block_is_its_shortcut(name):
    net = resnet(name, classes=2, last_gamma=True)
    net.initialize(mx.init.Xavier())
    projecting = []
    for number, (block_name, block) in enumerate(blocks(net)):
        rng = np.random.default_rng(number)
        x = mx.nd.array(np.maximum(rng.normal(0, 1, (2, channels_in(block), 6, 7)), 0))
        for training in (False, True):
            with autograd.record(train_mode=training):
                want = x if block.downsample is None else mx.nd.relu(block.downsample(x))
                got = block(x)
            np.testing.assert_array_equal(got.asnumpy(), want.asnumpy(), block_name)
        if block.downsample is not None:
            projecting.append(block_name)
    basic = name.startswith("resnet18")  # whose first stage has no shape to change
    assert projecting == [f"layer{stage}.0" for stage in ((2, 3, 4) if basic else (1, 2, 3, 4))]


@pytest.mark.parametrize(("name", "last", "count"), [
    ("resnet18_v1", ".body.4.gamma", 8), ("resnet18_v1d", ".bn2.gamma", 8),
    ("resnet50_v1", ".body.7.gamma", 16), ("resnet50_v1d", ".bn3.gamma", 16)])
def test_zero_gamma_is_that_of_the_last_batch_norm_of_each_block(name, last, count):
    for last_gamma in (True, False):
        net = resnet(name, last_gamma=last_gamma)
        net.initialize(mx.init.Xavier())
        gammas = {key: parameter.data().asnumpy() for key, parameter in parameters(net).items()
                  if key.endswith("gamma")}
        zero = {key for key, gamma in gammas.items() if (gamma == 0).all()}
        assert all((gammas[key] == 1).all() for key in gammas.keys() - zero)
        assert zero == {key for key in gammas if last_gamma and key.endswith(last)}
        assert len(zero) == count * last_gamma


def test_zero_gamma_learns_to_leave_zero():
    net = resnet("resnet18_v1d", classes=3, last_gamma=True)
    net.initialize(mx.init.Xavier())
    _, grads = train_pass(net, pictures(size=(32, 32)))
    for block_name, _ in blocks(net):
        assert np.abs(grads[f"{block_name}.bn2.gamma"]).max() > 0
