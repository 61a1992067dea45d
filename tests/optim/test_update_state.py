"""The optimizer's state: what a checkpoint holds of it, and the update's number."""

from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import Parameter

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.engine.optimizer import create_optimizer
from gluon_tricks.optim.update import ParameterUpdater

NAMES = ("nag", "sgd", "adam", "adabound", "amsbound", "lars")


def new_update(made, name, dtype="float32", **changes):
    settings = resolve(Settings(model="resnet18_v1", optimizer=name, lr=0.05, wd=0.01), 64, 10)
    return ParameterUpdater(made, create_optimizer(replace(settings, dtype=dtype, **changes)))


def step(made, update, numbers):
    for number in numbers:
        rng = np.random.default_rng(number)
        for parameter in made.values():
            parameter.grad()[:] = rng.normal(0, 1, parameter.shape)
        update.apply(number, 0.05 / (number + 1), 0.5)


def bits(made, update):
    arrays = {**{key: parameter.data() for key, parameter in made.items()}, **update.arrays()}
    return {key: (array.dtype, array.asnumpy().tobytes()) for key, array in arrays.items()}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_two_parts_is_a_run_in_one(parameters, tmp_path, name, dtype):
    whole = parameters(dtype, copies=2)
    all_at_once = new_update(whole, name, dtype)
    step(whole, all_at_once, range(6))

    first = parameters(dtype, copies=2)
    before = new_update(first, name, dtype)
    step(first, before, range(3))
    file = str(tmp_path / "state")
    mx.nd.save(file, before.arrays())
    second = parameters(dtype, copies=2)
    after = new_update(second, name, dtype)  # its FP32 weights are the initial ones
    for key, parameter in second.items():
        parameter.set_data(first[key].data())
    after.load(mx.nd.load(file))
    assert bits(second, after) == bits(first, before)
    step(second, after, range(3, 6))
    assert bits(second, after) == bits(whole, all_at_once)


@pytest.mark.parametrize(("name", "dtype", "arrays"), [
    ("nag", "float32", ["b:0", "w:0"]), ("nag", "float16", ["b:0", "w:0", "w:1"]),
    ("sgd", "float16", ["b:0", "w:0", "w:1"]), ("adam", "float32", ["b:0", "b:1", "w:0", "w:1"]),
    ("amsbound", "float16", ["b:0", "b:1", "b:2", "w:0", "w:1", "w:2", "w:3"])])
def test_the_names_of_the_arrays(name, dtype, arrays):
    made = {"w": Parameter("w", shape=(3, 2), dtype=dtype), "b": Parameter("b", shape=(3,)),
            "mean": Parameter("mean", shape=(3,), grad_req="null")}
    for parameter in made.values():
        parameter.initialize()
    update = new_update(made, name, dtype)
    assert sorted(update.arrays()) == arrays
    assert update.parameters == [made["w"], made["b"]]  # without a gradient it is not trained


def one(value=1.0):
    parameter = Parameter("weight", shape=(1,))
    parameter.initialize(mx.init.Constant(value))
    return {"w": parameter}


@pytest.mark.parametrize("name", ["nag", "sgd"])
def test_without_momentum_there_is_no_state_and_both_are_plain(name):
    made = one()
    update = new_update(made, name, momentum=0.0, wd=0.0)
    made["w"].grad()[:] = 3
    update.apply(0, 0.5, 0.5)
    assert update.arrays() == {}
    assert made["w"].data().asscalar() == 1 - 0.5 * 0.5 * 3


def test_a_skipped_number_counts_in_adams_correction():
    """Updates 0, 1 and 3 with g = 1, 2, 3; the third is Adam's t = 4.

    m = 0.1, 0.29, 0.561; v = 0.001, 0.004999, 0.013994001; lr 0.1:
    t = 1: 0.1; t = 2: 0.1 * 0.29 / 0.19 / sqrt(0.004999 / 0.001999);
    t = 4: 0.1 * 0.561 / 0.3439 / sqrt(0.013994001 / 0.003994003999). As t = 3 it would be 0.0958.
    """
    made = one()
    update = new_update(made, "adam", wd=0.0)
    seen = [1.0]
    for number, gradient in ((0, 1), (1, 2), (3, 3)):
        made["w"].grad()[:] = gradient
        update.apply(number, 0.1, 1.0)
        seen.append(made["w"].data().asscalar())
    np.testing.assert_allclose(-np.diff(seen), [0.1, 0.0965196, 0.0871488], rtol=3e-5)


def test_a_state_that_does_not_fit_is_refused_by_name(parameters):
    made = parameters(copies=1)
    update = new_update(made, "adam")
    good = {key: mx.nd.random.normal(shape=array.shape) for key, array in update.arrays().items()}
    wrong = {
        "0.bn.beta:1": {key: array for key, array in good.items() if key != "0.bn.beta:1"},
        "0.fc.weight:2": {**good, "0.fc.weight:2": mx.nd.ones((5, 7))},
        "0.fc.bias:0": {**good, "0.fc.bias:0": mx.nd.ones((6,))},
        "0.bn.gamma:1": {**good, "0.bn.gamma:1": mx.nd.ones((4,), dtype="float64")}}
    for name, arrays in wrong.items():
        with pytest.raises(ValueError, match=name):
            update.load(arrays)
    update.load(good)
    for key, array in update.arrays().items():
        assert array.asnumpy().tobytes() == good[key].asnumpy().tobytes()
        good[key][:] = 0
        assert (array != 0).asnumpy().any()  # a copy
