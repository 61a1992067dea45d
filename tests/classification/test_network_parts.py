"""The loss, the optimizer and the teacher that settings ask for."""

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.network import build_loss, build_network, build_teacher_network
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.engine.optimizer import create_optimizer
from gluon_tricks.models.graph import hybridize, is_random

LOGITS, TAUGHT = np.array([[2.0, 0.0, -1.0]]), np.array([[1.0, 1.5, 0.0]])


def settled(**flags):
    return resolve(Settings(**{"model": "resnet18_v1", **flags}), 64, 3)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("flags", "target", "hard", "soft", "t"), [
    ({}, (1, 0, 0), 1, 0, 1),
    ({"label_smoothing": 0.3}, (0.7, 0.15, 0.15), 1, 0, 1),
    ({"label_smoothing": 0.3, "gluoncv_compat": True}, (0.8, 0.1, 0.1), 1, 0, 1),
    ({"teacher": "x"}, (1, 0, 0), 1, 1, 20),
    ({"teacher": "x", "temperature": 3.0, "label_smoothing": 0.3}, (0.7, 0.15, 0.15), 1, 1, 3),
    ({"teacher": "x", "hard_weight": 0.25}, (1, 0, 0), 0.25, 0.75, 20),
    ({"teacher": "x", "gluoncv_compat": True}, (1, 0, 0), 0.5, 0.5, 20)], ids=str)
@pytest.mark.parametrize("mixup", [False, True])
def test_the_loss_is_what_the_flags_say(flags, target, hard, soft, t, mixup):
    wanted = np.exp(log_softmax(TAUGHT / t))
    want = -hard * np.sum(target * log_softmax(LOGITS)) - \
        soft * t**2 * np.sum(wanted * log_softmax(LOGITS / t))
    given = mx.nd.array([target]) if mixup else mx.nd.array([0], dtype="int32")
    arrays = [mx.nd.array(LOGITS), given] + [mx.nd.array(TAUGHT)] * ("teacher" in flags)
    found = build_loss(settled(**flags, mixup=mixup))(*arrays)
    assert found.asnumpy() == pytest.approx([want], rel=1e-5)


@pytest.mark.parametrize(("flags", "kind", "values"), [
    ({}, "nag", {"momentum": 0.9, "wd": 1e-4, "multi_precision": False}),
    ({"momentum": 0.0, "wd": 0.5, "optimizer": "sgd"}, "sgd", {"momentum": 0.0, "wd": 0.5}),
    ({"dtype": "float16", "num_gpus": 1}, "nag", {"multi_precision": True}),
    ({"optimizer": "lars", "lars_eta": 0.02}, "layerwiselars", {"_eta": 0.02, "_momentum": 0.9}),
    ({"optimizer": "adabound", "final_lr": 0.3}, "adabound", {"_final_lr": 0.3, "_base_lr": 1e-3}),
    ({"optimizer": "adam", "lr": 0.2}, "adam", {"lr": 0.2})], ids=str)
def test_the_optimiser_is_what_the_flags_say(flags, kind, values):
    optimizer = create_optimizer(settled(**flags))
    assert type(optimizer).__name__.lower() == kind
    assert {name: getattr(optimizer, name) for name in values} == values


def test_the_teacher_has_none_of_the_network_s_options():
    """cifar_resnet20_v1 knows no dropout."""
    net = build_teacher_network(settled(model="resnet18_v1d", dropout=0.5, last_gamma=True,
                                        teacher="cifar_resnet20_v1", input_size=32))
    assert net.collect_params(".*output.*weight")


@pytest.mark.parametrize(("model", "changes", "random"), [
    ("resnet18_v1", {}, False), ("resnet18_v1", {"dropout": 0.1}, True), ("alexnet", {}, True)])
def test_networks_that_draw_random_numbers_are_known(model, changes, random):
    chosen = resolve(Settings(model=model, batch_size=4, **changes), 64, 10)
    assert is_random(build_network(chosen)) is random


@pytest.mark.parametrize(("mode", "compiled"), [("hybrid", True), ("symbolic", True),
                                                ("imperative", False)])
def test_the_mode_says_whether_the_network_is_compiled(mode, compiled):
    chosen = settled(mode=mode)
    net = build_network(chosen)
    hybridize(net, chosen.mode)
    assert net._active is compiled
