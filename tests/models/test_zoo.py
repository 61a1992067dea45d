"""Networks by name, and what is said of names and options that do not exist."""

import mxnet as mx
import pytest
from gluoncv import model_zoo

from gluon_tricks.errors import InputError
from gluon_tricks.models.resnet import ResNet
from gluon_tricks.models.zoo import get_model, model_names


def output_shape(net, size, batch=2):
    return net(mx.sym.var("data")).infer_shape(data=(batch, 3, size, size))[1]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("version", ["v1", "v1b", "v1c", "v1d"])
def test_resnets_are_ours(depth, version):
    assert isinstance(get_model(f"resnet{depth}_{version}"), ResNet)


@pytest.mark.parametrize(("name", "size"), [
    ("cifar_resnet20_v1", 32), ("mobilenet1.0", 64), ("inceptionv3", 299), ("resnet50_v2", 64),
    ("resnet50_v1s", 64), ("resnet18_v1d", 64)])
def test_networks_give_as_many_logits_as_classes(name, size):
    assert output_shape(get_model(name, classes=11), size) == [(2, 11)]


def test_a_thousand_classes_unless_told():
    assert output_shape(get_model("resnet18_v1d"), 32) == [(2, 1000)]


def test_upper_case_is_taken_too():
    assert isinstance(get_model("ResNet50_v1d"), ResNet)


def test_every_name_is_listed_once_and_sorted():
    names = model_names()
    assert names == sorted(set(names))
    assert {"resnet18_v1c", "resnet18_v1d", "resnet34_v1d"} < set(names)  # GluonCV has not these
    assert set(model_zoo.get_model_list()) < set(names)


@pytest.mark.parametrize(("name", "near"), [
    ("resnet50_v1x", "resnet50_v1d"), ("resnet50v1d", "resnet50_v1d"),
    ("mobilenet", "mobilenet1.0"), ("inception_v3", "inceptionv3"),
    ("cifar_resnet20", "cifar_resnet20_v1")])
def test_an_unknown_name_lists_near_ones(name, near):
    with pytest.raises(InputError) as caught:
        get_model(name)
    assert f"unknown model {name!r}" in str(caught.value)
    assert near in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "qqqqqqqq", "resnet1001_v1", "resnet50_v1d\n"])
def test_a_name_near_to_nothing_is_refused_as_well(name):
    with pytest.raises(InputError, match="unknown model"):
        get_model(name)


@pytest.mark.parametrize("name", [
    "resnet50_v1d", "resnet50_v1", "resnet50_v1s", "resnet50_v1e", "resnet50_v2", "mobilenet1.0",
    "cifar_resnet20_v1", "inceptionv3", "se_resnet18_v1", "vgg11"])
def test_an_unknown_option_is_refused(name):
    with pytest.raises(InputError) as caught:
        get_model(name, classes=10, foo=1)
    assert name in str(caught.value) and "'foo'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "option"), [
    ("mobilenet1.0", "last_gamma"), ("inceptionv3", "last_gamma"), ("vgg11", "last_gamma"),
    ("mobilenet1.0", "dropout"), ("resnet50_v1s", "dropout"), ("resnet50_v2", "dropout")])
def test_an_option_the_network_lacks_is_refused_by_its_flag(name, option):
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')}"):
        get_model(name, **{option: 0.5 if option == "dropout" else True})


@pytest.mark.parametrize(("name", "last"), [("resnet50_v1s", "bn3"), ("se_resnet18_v1", "body.4")])
def test_options_reach_gluoncv_networks(name, last):
    net = get_model(name, classes=10, last_gamma=True)
    zero = [key for key, parameter in net._collect_params_with_prefix().items()
            if key.endswith(f"{last}.gamma") and parameter.init == "zeros"]
    assert len(zero) == (16 if "50" in name else 8)


def zero_gammas(name, **options):
    network = get_model(name, classes=10, **options)
    return sum(parameter.init == "zeros" for parameter in
               network.collect_params(".*gamma").values())


@pytest.mark.parametrize("name", ["resnext50_32x4d", "se_resnext50_32x4d", "resnet50_v2"])
def test_last_gamma_zeroes_gammas_in_gluoncv_s_networks_and_its_absence_none(name):
    """GluonCV's ResNeXt does the reverse."""
    assert zero_gammas(name) == 0
    assert zero_gammas(name, last_gamma=True) == 16


def test_last_gamma_is_refused_where_gluoncv_takes_it_and_does_nothing():
    with pytest.raises(InputError, match="--last-gamma"):
        get_model("mobilenetv3_small", last_gamma=True)
