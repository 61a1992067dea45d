"""Networks by name, and the errors for names and options that do not exist."""

import re

import mxnet as mx
import pytest
from gluoncv import model_zoo

from gluon_tricks.errors import InputError
from gluon_tricks.models.resnet import ResNet
from gluon_tricks.models.zoo import get_model, model_names, pretrained_file


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


def test_pruned_networks_parameters_are_in_the_file_that_gluoncv_takes(monkeypatch):
    asked = []

    def stored(name, **_):
        asked.append(name)
        raise FileNotFoundError("not downloaded here")

    monkeypatch.setattr(model_zoo.model_store, "get_model_file", stored)
    pruned = [name for name in model_names() if re.fullmatch(r"resnet\d+_v1[bd]_0\.\d\d", name)]
    for name in pruned:
        with pytest.raises(FileNotFoundError):
            model_zoo.get_model(name, pretrained=True)
        with pytest.raises(InputError, match="cannot be downloaded"):
            pretrained_file(name)
    assert len(pruned) == 7
    assert asked[::2] == asked[1::2]


def test_every_name_is_listed_once_and_sorted():
    names = model_names()
    assert names == sorted(set(names))
    assert {"resnet18_v1c", "resnet18_v1d", "resnet34_v1d"} < set(names)  # GluonCV lacks these
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


def blocks(name, **options):
    found = []
    get_model(name, classes=10, **options).apply(found.append)
    return found


def test_last_gamma_zeroes_mobilenetv3_s_blocks_with_a_shortcut_alone():
    """GluonCV's ignores the option. A block without a shortcut would output zeros."""
    ends = {block.use_short_cut_conv: set() for block in blocks("mobilenetv3_small")
            if hasattr(block, "use_short_cut_conv")}
    for block in blocks("mobilenetv3_small", last_gamma=True):
        if hasattr(block, "use_short_cut_conv"):
            ends[block.use_short_cut_conv].add(block.conv2.bn.gamma.init)
    assert ends == {True: {"zeros"}, False: {"ones"}}
    assert zero_gammas("mobilenetv3_small", last_gamma=True) == 6
    assert zero_gammas("mobilenetv3_small") == 0


@pytest.mark.parametrize(("name", "option"), [
    ("hrnet_w18_small_v1_c", "last_gamma"), ("darknet53", "last_gamma"),
    ("resnet50_v1d", "use_se"), ("vgg11", "use_se"), ("mobilenet0.25", "use_se"),
    ("resnet18_v1", "batch_norm"), ("shufflenet_v1", "batch_norm"), ("resnet50_v1s", "batch_norm"),
    ("vgg11", "use_gn"), ("squeezenet1.0", "use_gn"), ("mobilenetv3_small", "use_gn"),
    ("resnext50_32x4d", "use_sk"), ("resnest14", "use_sk"), ("resnet50_v1d", "use_avd"),
    ("mobilenet0.25", "use_avd"), ("resnest14", "dropblock_prob"),
    ("resnet50_v1e", "dropblock_prob")])
def test_gluoncv_s_flags_are_refused_where_they_would_do_nothing(name, option):
    flag = option.replace("_", "-")
    with pytest.raises(InputError, match=f"^model {name} has no option '{option}' \\(--{flag}\\)"):
        get_model(name, **{option: 0.1 if option == "dropblock_prob" else True})


def names_in(network):
    return {name.rpartition(".")[2] for name in network._collect_params_with_prefix()}


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet18_v1d", "resnet50_v1s", "resnext50_32x4d",
                                  "se_resnet18_v1", "resnest14", "mobilenet1.0"])
def test_group_norm_is_in_every_place_of_batch_norm(name):
    assert names_in(get_model(name)) >= {"running_mean"}
    network = get_model(name, classes=10, use_gn=True)
    assert output_shape(network, 64) == [(2, 10)]
    assert names_in(network) >= {"gamma"} and "running_mean" not in names_in(network)


def test_channels_that_have_no_groups_are_refused():
    with pytest.raises(InputError, match=r"16 channels cannot be divided into 32 groups.*--use-gn"):
        get_model("googlenet", use_gn=True)


def shapes(network):
    network.infer_shape(mx.nd.zeros((1, 3, 64, 64)))
    return {name: parameter.shape
            for name, parameter in network._collect_params_with_prefix().items()}


@pytest.mark.parametrize(("name", "options", "same_as"), [
    ("resnext50_32x4d", {"use_se": True}, "se_resnext50_32x4d"),  # GluonCV resets its flag
    ("se_resnext50_32x4d", {"use_se": True}, "se_resnext50_32x4d"),
    ("vgg11", {"batch_norm": True}, "vgg11_bn"), ("vgg11_bn", {"batch_norm": True}, "vgg11_bn"),
    ("resnest14", {"use_avd": True}, "resnest14")])  # which always has such pools
def test_an_option_makes_the_network_that_gluoncv_has_by_name(name, options, same_as):
    assert shapes(get_model(name, **options)) == shapes(model_zoo.get_model(same_as))


def test_dropout_is_that_of_wide_resnets_blocks():
    rates = {block.droprate for block in blocks("cifar_wideresnet16_10", dropout=0.3)
             if hasattr(block, "droprate")}
    assert rates == {0.3}
