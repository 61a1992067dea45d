"""Parameter files written by GluonCV's networks, in each of the possible ways."""

import gluoncv_networks
import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.errors import InputError
from gluon_tricks.models.parameters import count_classes, load_parameters
from gluon_tricks.models.params_file import read_parameters
from gluon_tricks.models.zoo import get_model

CLASSES = 6


@pytest.fixture(scope="module", params=["resnet18_v1", "resnet18_v1d", "mobilenetv2_0.25",
                                        "cifar_resnet20_v1"])
def theirs(request):
    """(name, GluonCV's network, images, its outputs)."""
    mx.random.seed(0)
    net = gluoncv_networks.build(request.param, classes=CLASSES)
    net.initialize()
    pictures = mx.nd.random.normal(shape=(2, 3, 32, 32))
    net(pictures)
    gluoncv_networks.randomize(net, seed=3)
    net.hybridize()
    return request.param, net, pictures, net(pictures).asnumpy()


def export(net, path):
    net.export(str(path))
    path.with_name(f"{path.name}-0000.params").rename(path)


WAYS = {"structural": lambda net, path: net.save_parameters(str(path)),
        "prefixed": lambda net, path: net.collect_params().save(str(path)),
        "stripped": lambda net, path: net.collect_params().save(str(path), net.prefix),
        "exported": export}


@pytest.mark.parametrize("way", WAYS)
def test_each_loads_with_the_same_outputs(theirs, way, tmp_path):
    name, net, pictures, want = theirs
    path = tmp_path / "theirs.params"
    WAYS[way](net, path)
    assert count_classes(get_model(name, classes=3), read_parameters(path)) == CLASSES
    ours = get_model(name, classes=CLASSES)
    load_parameters(ours, path, mx.cpu())
    got = ours(pictures).asnumpy()
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_half_precision_there_and_single_here_and_the_reverse(tmp_path):
    half, single = (gluoncv_networks.build("resnet18_v1b", classes=CLASSES) for _ in range(2))
    half.cast("float16")
    for net in (half, single):
        net.infer_shape(mx.nd.zeros((1, 3, 32, 32), dtype=net.fc.weight.dtype))
        net.initialize()
        gluoncv_networks.randomize(net, seed=4)
    for net, way in ((half, "prefixed"), (half, "structural"), (single, "exported")):
        if way == "exported":
            net.hybridize()
            net(mx.nd.zeros((1, 3, 32, 32)))
        WAYS[way](net, tmp_path / way)
    want = {name: parameter.data().asnumpy()
            for name, parameter in half._collect_params_with_prefix().items()}
    assert want["fc.weight"].dtype == np.float16 and want["bn1.gamma"].dtype == np.float32
    for way, dtype in (("prefixed", "float32"), ("structural", "float32"), ("exported", "float16")):
        ours = get_model("resnet18_v1b", classes=CLASSES)
        ours.cast(dtype)
        load_parameters(ours, tmp_path / way, mx.cpu())
        for name, parameter in ours._collect_params_with_prefix().items():
            own = parameter.data().asnumpy()
            assert own.dtype == (dtype if want[name].dtype == np.float16 else np.float32)
            np.testing.assert_array_equal(own, want[name], name)


def test_old_names_of_another_network_are_refused_by_name(tmp_path):
    net = gluoncv_networks.build("resnet34_v1b", classes=CLASSES)
    net.infer_shape(mx.nd.zeros((1, 3, 32, 32)))
    net.initialize()
    WAYS["prefixed"](net, tmp_path / "other.params")
    with pytest.raises(InputError, match=r"missing conv1\.weight, .* resnetv1b_conv0_weight"):
        load_parameters(get_model("resnet18_v1b", classes=CLASSES), tmp_path / "other.params",
                        mx.cpu())
