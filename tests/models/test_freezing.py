"""--freeze-until and --lr-mult-head: what must stay bit-identical, and what moves how far."""

import contextlib

import mxnet as mx
import networks
import numpy as np
import pytest
from mxnet import autograd
from mxnet.gluon import nn

from gluon_tricks.classification.network import build_network, initialize
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.start import train
from gluon_tricks.engine import train as engine
from gluon_tricks.engine.optimizer import create_updater
from gluon_tricks.errors import InputError
from gluon_tricks.models.freezing import freeze, frozen_names
from gluon_tricks.models.zoo import get_model
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs import runlog


@pytest.fixture(autouse=True)
def not_drawn(monkeypatch):
    """Plotting takes longer than everything else in these runs."""
    monkeypatch.setattr(runlog, "draw_curves", lambda *_: None)


def until(part):
    return Settings(model="x", init_params="a.params", freeze_until=part)


@pytest.mark.parametrize(("name", "part", "frozen", "trained"), [
    ("resnet18_v1d", "layer3", ("conv1.", "bn1.", "layer1.", "layer2."),
     ("layer3.", "layer4.", "fc.")),
    ("resnet18_v1d", "layer3.1.bn2", ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.0.",
                                      "layer3.1.conv1", "layer3.1.bn1", "layer3.1.conv2"),
     ("layer3.1.bn2", "layer4.", "fc.")),
    ("resnet18_v1", "features.6", tuple(f"features.{n}." for n in range(6)),
     ("features.6.", "features.7.", "output.")),
    ("cifar_resnet20_v1", "output", ("features.",), ("output.",)),
    # features.1 is not a prefix of features.10.
    ("mobilenet1.0", "features.10", tuple(f"features.{n}." for n in range(10)),
     (*(f"features.{n}." for n in range(10, 90)), "output."))])
def test_what_stands_before_the_part_has_no_gradient(name, part, frozen, trained):
    net = get_model(name, classes=4)
    plain = {key: parameter.grad_req
             for key, parameter in net._collect_params_with_prefix().items()}
    freeze(net, until(part))
    for key, parameter in net._collect_params_with_prefix().items():
        assert key.startswith(frozen) != key.startswith(trained), key
        assert parameter.grad_req == ("null" if key.startswith(frozen) else plain[key]), key
    assert all(key.startswith(frozen) for key in frozen_names(net, part))


@pytest.mark.parametrize(("name", "part", "said"), [
    ("resnet18_v1d", "layer5", "--freeze-until layer5: the network has no such part; its parts are "
     "conv1, bn1, layer1, layer2, layer3, layer4, fc"),
    ("resnet18_v1d", "layer", "has no such part"), ("resnet18_v1d", "layer3.", "has no such part"),
    ("resnet18_v1d", "conv1", "--freeze-until conv1: nothing comes before it; its parts are"),
    ("cifar_resnet20_v1", "layer3", "has no such part; its parts are features.0, features.1, "
     "features.2, features.3, features.4, output")])
def test_parts_that_are_none_are_refused_in_one_line(name, part, said):
    with pytest.raises(InputError) as caught:
        freeze(get_model(name, classes=4), until(part))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_frozen_batch_norms_give_in_training_what_they_give_in_prediction():
    chosen = resolve(Settings(model="cifar_resnet20_v1", input_size=32, init_params="a",
                      freeze_until="features.4"), 64, 4)
    net = build_network(chosen)
    initialize(net, chosen, mx.cpu())
    for name, parameter in net._collect_params_with_prefix().items():
        if name.endswith("running_var"):
            parameter.set_data(mx.nd.full(parameter.shape, 1.7))
    pictures = mx.nd.random.normal(shape=(4, 3, 32, 32))
    first, rest = net.features[:4], net.features[4:]
    want = first(pictures).asnumpy()
    with autograd.record():
        seen = first(pictures)
        trained = rest(seen).asnumpy()
    np.testing.assert_allclose(seen.asnumpy(), want, rtol=1e-5, atol=1e-6)
    assert np.abs(trained - rest(seen).asnumpy()).max() > 0.1  # these take the batch's statistics


class Perturbing(Ranks):
    """Averages as several ranks do, which loses the last bits."""

    def average(self, arrays):
        for array in arrays.values():
            array[:] = array / 3 * 3.0001


CASES = {
    "nag, weight decay": {"wd": 0.1},
    "lars, ema, checkpoints": {"optimizer": "lars", "lars_eta": 0.1, "ema": 0.5,
                               "checkpoint_steps": 2},
    "accumulation, clipping, L1": {"batch_size": 2, "accumulate": 2, "clip_grad_norm": 0.1,
                                   "l1": 0.01},
    "adabound, left out updates, no bias decay, head": {"optimizer": "adabound", "nan": "skip",
                                                        "no_wd": True, "lr_mult_head": 10},
}


@pytest.mark.parametrize("case", CASES)
def test_no_bit_of_the_frozen_part_changes(settings, arrays, tmp_path, monkeypatch, case):
    monkeypatch.setattr("gluon_tricks.classification.network.get_model", networks.normalised)
    monkeypatch.setattr(engine, "join", lambda size: contextlib.nullcontext(Perturbing()))
    net = networks.normalised("", 3)
    net.initialize(mx.init.Normal(0.3))
    net[1].running_mean.set_data(mx.nd.array([0.1, 0.2, 0.3, -1 / 3]))
    net.save_parameters(str(tmp_path / "init.params"))
    start = arrays(tmp_path / "init.params")
    folder = train(settings(init_params=str(tmp_path / "init.params"), freeze_until="4",
                            keep=100, warmup_epochs=0, **CASES[case])).folder
    files = [*folder.glob("*.params"), *folder.glob("checkpoints/*/model.params"),
             *folder.glob("checkpoints/*/average.params")]
    assert len(files) > (8 if "ema" in case else 3)
    for path in files:
        found = arrays(path)
        for name, array in start.items():
            same = np.array_equal(found[name].view(np.uint8), array.view(np.uint8))
            assert same == (not name.startswith("4.")), f"{path.name}: {name}"


def test_without_freezing_all_of_it_changes(settings, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr("gluon_tricks.classification.network.get_model", networks.normalised)
    net = networks.normalised("", 3)
    net.initialize(mx.init.Normal(0.3))
    net.save_parameters(str(tmp_path / "init.params"))
    folder = train(settings(init_params=str(tmp_path / "init.params"), warmup_epochs=0)).folder
    for name, array in arrays(folder / "last.params").items():
        assert not np.array_equal(array, arrays(tmp_path / "init.params")[name]), name


def test_the_frozen_part_is_among_what_a_checkpoint_is_made_for(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("gluon_tricks.classification.network.get_model", networks.normalised)
    net = networks.normalised("", 3)
    net.initialize()
    net.save_parameters(str(tmp_path / "init.params"))
    given = {"init_params": str(tmp_path / "init.params"), "freeze_until": "4"}
    train(settings(**given, num_epochs=1))
    with pytest.raises(InputError, match=r"with freeze_until 4, not 1: give the same --freeze-un"):
        train(settings(**{**given, "freeze_until": "1"}, resume="auto"))
    train(settings(**given, resume="auto"))  # with the optimizer's arrays of the rest


# Two updates of weights of 1 by gradients of 1, lr 0.01, without weight decay. With r the rate:
# nag: b = -r, w = 1 - 1.9 r; then w - 0.81 r - 1.9 r.       sgd: 1 - r - 1.9 r.   adam: r each.
# lars, eta 1: trust |w| / |g|, so v = 1, then 0.9 + (1 - r); w = 1 - r - r (1.9 - r).
# adabound, final_lr 1e-5: steps bounded by 1e-5 (1 + 1 / (0.001 t)), t = 1, 2, times m = 0.1, 0.19.
TWICE = {"nag": (1 - 4.61 * 0.01, 1 - 4.61 * 0.1), "sgd": (1 - 2.9 * 0.01, 1 - 2.9 * 0.1),
         "adam": (0.98, 0.8), "lars": (0.9711, 0.72),
         "adabound": (1 - 1.001e-3 - 9.519e-4, 1 - 1.001e-2 - 9.519e-3)}


@pytest.mark.parametrize("name", TWICE)
def test_the_classifier_s_rate_is_so_many_times_the_others(name, monkeypatch):
    options = {"lars": {"lars_eta": 1.0}, "adabound": {"final_lr": 1e-5}}.get(name, {})
    chosen = resolve(Settings(model="x", optimizer=name, lr=0.01, wd=0.0, lr_mult_head=10.0,
                      **options), 64, 3)
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=4), nn.Dense(3, in_units=4))
    net.initialize()
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.ones(parameter.shape))
    update = create_updater(net, chosen)
    for number in range(2):
        for gradient in update.gradients:
            gradient[:] = 1
        update.apply(number, 0.01, 1.0)
    for layer, want in zip(net, TWICE[name], strict=True):
        np.testing.assert_allclose(layer.weight.data().asnumpy(), want, rtol=0, atol=2e-6)
        others = TWICE["sgd"] if name == "lars" else TWICE[name]  # biases have no trust ratio
        np.testing.assert_allclose(layer.bias.data().asnumpy(), others[layer is net[1]], rtol=0,
                                   atol=2e-6)
