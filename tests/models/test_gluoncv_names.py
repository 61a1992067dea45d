"""Old parameter names: those of GluonCV's own networks."""

import gluoncv_networks
import pytest
from gluoncv import model_zoo

from gluon_tricks.models.gluoncv_names import with_structural_names
from gluon_tricks.models.resnet import NAMES
from gluon_tricks.models.zoo import get_model


def pairs(network):
    """(name after the prefix, structural name) of each parameter."""
    structural = {parameter: name
                  for name, parameter in network._collect_params_with_prefix().items()}
    return [(name[len(network.prefix):], structural[parameter])
            for name, parameter in network.collect_params().items()]


@pytest.mark.parametrize("name", [*NAMES, "resnet50_v2", "resnext50_32x4d", "vgg11_bn",
                                  "mobilenetv2_0.25", "inceptionv3",
                                  "cifar_wideresnet16_10", "resnest14"])
def test_gluoncv_s_names_behind_any_prefix_are_paired_with_structural_ones(name):
    theirs, ours = pairs(gluoncv_networks.build(name, classes=7)), get_model(name, classes=5)
    want = {structural: structural for structural in ours._collect_params_with_prefix()}
    for prefix in ("", "resnetv1d0_", "resnetv1d23_", "conv0_"):
        saved = {prefix + old: structural for old, structural in theirs}
        assert with_structural_names(ours, saved) == want


def test_names_with_counters_of_the_whole_process_are_paired_in_their_order():
    """For parts without their network's prefix."""
    first, second = (gluoncv_networks.build("mobilenetv3_small", classes=7) for _ in range(2))
    names = [dict(pairs(network)) for network in (first, second)]
    assert names[0].keys() != names[1].keys()
    assert with_structural_names(get_model("mobilenetv3_small", classes=5), names[0]) == {
        structural: structural for structural in names[0].values()}


def test_names_of_an_exported_network_of_ours():
    ours = get_model("resnet18_v1d", classes=5)
    assert with_structural_names(ours, {"resnet18_v1d_" + own: name for own, name in pairs(ours)}
                                 )["layer2.0.downsample.1.weight"] == "layer2.0.downsample.1.weight"


def test_what_is_another_network_s_stays_as_it_is():
    ours = get_model("resnet18_v1d")
    other = dict.fromkeys(model_zoo.resnet34_v1b().collect_params(), 1)
    one_less = dict(list({f"resnetv1b_{old}": 1 for old, _ in pairs(
        gluoncv_networks.build("resnet18_v1d"))}.items())[:-1])
    for names in (other, one_less, {"a": 1}, {"conv1.0.weight": 1, "b": 2}):
        assert with_structural_names(ours, names) == names
