"""Each optimizer through ParameterUpdater, against its paper's formula in float64."""

import math
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.engine.optimizer import create_optimizer
from gluon_tricks.optim.regularize import clip_norm
from gluon_tricks.optim.update import ParameterUpdater

NAMES = ("nag", "sgd", "adam", "adabound", "amsbound", "lars")
WD, BASE_LR = 0.01, 0.05
UPDATES = 50


def optimizer(name, dtype, **changes):
    settings = Settings(model="resnet18_v1", optimizer=name, lr=BASE_LR, wd=WD)
    return create_optimizer(replace(resolve(settings, 64, 10), dtype=dtype, **changes))


def lr_of(update):
    """Rises, falls in steps, and is 0 once."""
    return [BASE_LR * (update + 1) / 5, BASE_LR, 0.2 * BASE_LR, 0.0][
        0 if update < 5 else 3 if update == 30 else 1 if update < 25 else 2]


# One update of weight w by gradient g, number t from 1, and state s, in float64.

def nag(w, g, s, lr, wd, t):
    b = s.get("b", 0.0)
    d = g + wd * w
    new = w + 0.9 * (0.9 * b - lr * d) - lr * d
    s["b"] = 0.9 * b - lr * (g + wd * new)  # MXNet's kernel reads the weight that it wrote
    return new


def sgd(w, g, s, lr, wd, t):
    s["b"] = 0.9 * s.get("b", 0.0) - lr * (g + wd * w)
    return w + s["b"]


def adam(w, g, s, lr, wd, t):
    d = g + wd * w
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * d
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * d**2
    # arXiv 1412.6980, the end of section 2: epsilon is added before the correction of v.
    return w - lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * s["m"] / (np.sqrt(s["v"]) + 1e-8)


def adabound(w, g, s, lr, wd, t, ams=False):
    d = g + wd * w
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * d
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * d**2
    s["most"] = np.maximum(s.get("most", 0.0), s["v"]) if ams else s["v"]
    step = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) / (np.sqrt(s["most"]) + 1e-8)
    final = 0.1 * lr / BASE_LR
    low, high = final * (1 - 1 / (0.001 * t + 1)), final * (1 + 1 / (0.001 * t))
    return w - np.clip(step, low, high) * s["m"]


def amsbound(w, g, s, lr, wd, t):
    return adabound(w, g, s, lr, wd, t, ams=True)


def lars(w, g, s, lr, wd, t):
    trust = 0.001 * np.linalg.norm(w) / (np.linalg.norm(g) + wd * np.linalg.norm(w))
    s["v"] = 0.9 * s.get("v", 0.0) + (trust if w.ndim > 1 else 1.0) * (g + wd * w)
    return w - lr * s["v"]


RULES = {rule.__name__: rule for rule in (nag, sgd, adam, adabound, amsbound, lars)}


def masters(made, update):
    """The FP32 weights by name; for FP16 ones, the optimizer's master copies."""
    arrays, found = update.arrays(), {}
    for name, parameter in made.items():
        number = 1 if isinstance(update._optimizer, mx.optimizer.SGD | mx.optimizer.NAG) else 0
        found[name] = parameter.data() if parameter.dtype == "float32" else \
            arrays[f"{name}:{number}"]
        assert found[name].dtype == np.float32
    return found


def set_gradients(made, update, rescale):
    """Gradients of size 1 once rescaled, which changes from update to update; in float64."""
    rng = np.random.default_rng([1, update])
    size = (0.1, 1.0, 3.0)[update % 3] / rescale
    given = {key: (size * rng.standard_normal(parameter.shape)).astype(parameter.dtype)
             for key, parameter in made.items()}
    for key, parameter in made.items():
        parameter.grad()[:] = given[key]
    return {key: gradient.astype(np.float64) * rescale for key, gradient in given.items()}


def norm_of(gradients):
    return math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))


def rescale_of(update):
    """For 32 samples, or 20 in a shorter update, with a loss scale that halves once."""
    return 1 / ((20 if update == 7 else 32) * (64 if update < 20 else 32))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_fifty_updates_are_the_papers(parameters, name, dtype):
    made = parameters(dtype)
    assert len(made) == 65
    update = ParameterUpdater(made, optimizer(name, dtype))
    limit = 0.6 * math.sqrt(sum(weight.size for weight in update.weights))
    clipped = 0
    want = {key: parameter.data().asnumpy().astype(np.float64) for key, parameter in made.items()}
    states = {key: {} for key in made}
    for number in range(UPDATES):
        rescale = rescale_of(number)
        gradients = set_gradients(made, number, rescale)
        if number % 4 == 1:
            clip_norm(update.gradients, limit, rescale)
        if number % 4 == 1 and norm_of(gradients) > limit:
            clipped += 1
            # Read back, since FP16 rounds the product; clip_norm has tests of its own.
            gradients = {key: parameter.grad().asnumpy().astype(np.float64) * rescale
                         for key, parameter in made.items()}
            assert norm_of(gradients) == pytest.approx(limit, rel=1e-4)
        update.apply(number, lr_of(number), rescale)
        for key in made:
            decay = WD if key.endswith("weight") else 0.0
            want[key] = RULES[name](want[key], gradients[key], states[key], lr_of(number), decay,
                                    number + 1)
    assert 3 < clipped < 12  # of 13
    for key, master in masters(made, update).items():
        np.testing.assert_allclose(master.asnumpy(), want[key], rtol=0, atol=1e-5, err_msg=key)
        np.testing.assert_array_equal(made[key].data().asnumpy(),
                                      master.asnumpy().astype(made[key].dtype))


@pytest.mark.parametrize("name", NAMES)
def test_updates_that_fp16_would_round_to_zero_add_up(parameters, name):
    """Steps of up to 1e-4 down from 1, where FP16 has steps of 5e-4."""
    def run(multi_precision):
        made = {key: parameter for key, parameter in parameters("float16", copies=1).items()
                if parameter.dtype == "float16"}
        tiny = optimizer(name, "float16", lr=1e-5, wd=0.0, **{
            "lars": {"lars_eta": 1.0}, "adabound": {"final_lr": 1e-5},
            "amsbound": {"final_lr": 1e-5}}.get(name, {}))
        tiny.multi_precision = multi_precision
        for parameter in made.values():
            parameter.set_data(mx.nd.ones(parameter.shape))
        update = ParameterUpdater(made, tiny)
        for number in range(UPDATES):
            for parameter in made.values():
                parameter.grad()[:] = 1.0
            update.apply(number, 1e-5, 1.0)
        return made, update

    alone, _ = run(False)
    assert all((parameter.data() == 1).asnumpy().all() for parameter in alone.values())
    with_masters, update = run(True)
    want, state = np.ones((5, 7)), {}
    for number in range(UPDATES):
        if name in ("adabound", "amsbound"):  # a constant gradient of 1: m / sqrt(v) is 1
            want = want - 1e-5 * np.ones((5, 7))
        elif name == "lars":  # |w| / |g| of equal numbers is w
            state["v"] = 0.9 * state.get("v", 0.0) + want
            want = want - 1e-5 * state["v"]
        else:
            want = RULES[name](want, np.ones((5, 7)), state, 1e-5, 0.0, number + 1)
    masters32 = masters(with_masters, update)
    np.testing.assert_allclose(masters32["0.fc.weight"].asnumpy(), want, rtol=0, atol=3e-6)
    for key, parameter in with_masters.items():
        assert (parameter.data() < 1).asnumpy().all(), key
        np.testing.assert_array_equal(parameter.data().asnumpy(),
                                      masters32[key].asnumpy().astype(np.float16))


def test_nag_by_hand():
    """w 1, b 0, g 2, lr 1/2, wd 1/4, momentum 0.9: d = 2.25, w = 1 - 1.9 * 1.125 = -1.1375,
    b = -(2 + -1.1375 / 4) / 2 = -0.8578125. Then at lr 0: w = w + 0.81 b, b = 0.9 b."""
    parameter = mx.gluon.Parameter("weight", shape=(1,))
    parameter.initialize(mx.init.One())
    update = ParameterUpdater({"weight": parameter}, optimizer("nag", "float32", wd=0.25))
    parameter.grad()[:] = 2
    update.apply(0, 0.5, 1.0)
    assert parameter.data().asscalar() == pytest.approx(-1.1375, rel=1e-6)
    assert update.arrays()["weight:0"].asscalar() == pytest.approx(-0.8578125, rel=1e-6)
    update.apply(1, 0.0, 1.0)
    assert parameter.data().asscalar() == pytest.approx(-1.1375 - 0.81 * 0.8578125, rel=1e-6)
    assert update.arrays()["weight:0"].asscalar() == pytest.approx(-0.9 * 0.8578125, rel=1e-6)
