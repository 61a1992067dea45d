"""GluonCV's .states files, written by gluon.Trainer itself; and pickles that would do harm."""

import collections
import os
import pickle
import subprocess

import gluoncv_networks
import mxnet as mx
import numpy as np
import pytest
from gluoncv.utils import LRScheduler, LRSequential
from mxnet import autograd, gluon
from mxnet.gluon import nn

from gluon_tricks.classification import gluoncv_states, network
from gluon_tricks.classification.initial import load_initial, resume_gluoncv_run
from gluon_tricks.classification.network import build_network, initialize
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.start import train
from gluon_tricks.engine.optimizer import create_updater
from gluon_tricks.errors import InputError
from gluon_tricks.models import resnet, zoo
from gluon_tricks.optim.update import ParameterUpdater

BATCH, LR = 8, 0.02


def batches(start, stop):
    for number in range(start, stop):
        rng = np.random.default_rng(number)
        yield (mx.nd.array(rng.normal(0, 1, (BATCH, 3, 64, 64))),
               mx.nd.array(rng.integers(0, 5, BATCH)))


def passes(net, start, stop):
    """Gradients of each batch, summed over its samples."""
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for images, labels in batches(start, stop):
        with autograd.record():
            losses = loss(net(images), labels)
        losses.backward()
        yield


def schedule():
    """What GluonCV's script hands to its Trainer."""
    return LRSequential([LRScheduler("linear", base_lr=LR, target_lr=LR, nepochs=1,
                                     iters_per_epoch=2),
                         LRScheduler("constant", base_lr=LR, nepochs=9, iters_per_epoch=9)])


@pytest.mark.parametrize(("name", "optimizer", "whole"), [
    ("resnet18_v1b", "nag", True), ("cifar_resnet20_v1", "nag", False),
    ("cifar_resnet20_v1", "sgd", True)])
def test_three_more_updates_are_those_of_gluoncv(name, optimizer, whole, tmp_path, monkeypatch):
    """With its pooling and no compiled graph: other roundings flip a ReLU now and then."""
    monkeypatch.setattr(resnet, "SpatialMean", nn.GlobalAvgPool2D)
    monkeypatch.setattr(zoo, "use_spatial_mean", lambda network: network)
    theirs = gluoncv_networks.build(name, classes=5)
    mx.random.seed(1)
    theirs.initialize(mx.init.Xavier())
    options = {"learning_rate": LR, "wd": 1e-3, "momentum": 0.9}
    trainer = gluon.Trainer(theirs.collect_params(), optimizer, {
        **options, **({"lr_scheduler": schedule()} if whole else {})})
    for _ in passes(theirs, 0, 3):
        trainer.step(BATCH)
    params, states = tmp_path / "imagenet-9.params", tmp_path / "imagenet-9.states"
    theirs.save_parameters(str(params))
    if whole:  # with the optimizer and its schedule
        trainer.save_states(str(states))
    else:
        states.write_bytes(trainer._updaters[0].get_states(dump_optimizer=False))
    settings = resolve(Settings(model=name, resume_params=str(params), resume_states=str(states),
                        resume_epoch=10, optimizer=optimizer, lr=LR, wd=1e-3,
                        input_size=64, mode="imperative"), 64, 5)
    ours = build_network(settings)
    initialize(ours, settings, mx.cpu())
    load_initial(ours, settings, None)
    update = create_updater(ours, settings)
    progress = resume_gluoncv_run(ours, update, settings)
    assert (progress.epoch, progress.step, progress.best) == (10, 0, None)
    for number, _ in enumerate(passes(ours, 3, 6)):
        update.apply(number, LR, 1 / BATCH)
    before = {key: value.asnumpy() for key, value in mx.nd.load(str(params)).items()}
    for _ in passes(theirs, 3, 6):
        trainer.step(BATCH)
    for key, parameter in theirs._collect_params_with_prefix().items():
        want = parameter.data().asnumpy()
        assert not np.array_equal(want, before[key]), key
        np.testing.assert_allclose(ours._collect_params_with_prefix()[key].data().asnumpy(), want,
                                   rtol=1e-6, atol=1e-6, err_msg=key)


def layers(dtype):
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(*(nn.Dense(4 + number, in_units=3) for number in range(12)))  # dense10 < dense2
    net.initialize(mx.init.Normal(1))
    net.cast(dtype)
    return net


def half_states(net, path):
    """Two updates of FP16 weights with FP32 copies; momentum and the copies, by name."""
    trainer = gluon.Trainer(net.collect_params(), "nag", {
        "learning_rate": 0.1, "momentum": 0.9, "multi_precision": True})
    for number in range(2):
        with autograd.record():
            losses = [(parameter.data() * (number + 1.5 + parameter.shape[0])).sum()
                      for parameter in net.collect_params().values()]
        autograd.backward(losses)
        trainer.step(7)
    trainer.save_states(str(path))
    states = trainer._updaters[0].states
    return {name: [array.asnumpy() for array in states[trainer._param2idx[parameter.name]]]
            for name, parameter in net._collect_params_with_prefix().items()}


def ours(net, multi_precision):
    return ParameterUpdater(net._collect_params_with_prefix(), mx.optimizer.create(
        "nag", momentum=0.9, multi_precision=multi_precision))


def test_states_of_fp16_go_on_in_fp16_and_in_fp32(tmp_path):
    path = tmp_path / "half.states"
    want = half_states(layers("float16"), path)
    half, single = layers("float16"), layers("float32")
    update = ours(half, True)
    gluoncv_states.load(path, update, half, "nag")
    found = update.arrays()
    assert len(found) == 2 * len(want) == 48
    for name, pair in want.items():
        for number in range(2):
            assert found[f"{name}:{number}"].dtype == np.float32
            np.testing.assert_array_equal(found[f"{name}:{number}"].asnumpy(), pair[number])
    update = ours(single, False)
    gluoncv_states.load(path, update, single, "nag")
    for name, (momentum, weight) in want.items():
        np.testing.assert_array_equal(update.arrays()[f"{name}:0"].asnumpy(), momentum)
        np.testing.assert_array_equal(
            single._collect_params_with_prefix()[name].data().asnumpy(), weight)
        assert not np.array_equal(weight, weight.astype(np.float16))


def test_states_of_fp32_go_on_in_fp16(tmp_path):
    single, half = layers("float32"), layers("float16")
    trainer = gluon.Trainer(single.collect_params(), "nag", {"momentum": 0.9})
    with autograd.record():
        losses = [(parameter.data() * 2).sum() for parameter in single.collect_params().values()]
    autograd.backward(losses)
    trainer.step(1)
    trainer.save_states(str(tmp_path / "single.states"))
    update = ours(half, True)
    gluoncv_states.load(tmp_path / "single.states", update, half, "nag")
    for name, parameter in half._collect_params_with_prefix().items():
        momentum, weight = (update.arrays()[f"{name}:{number}"].asnumpy() for number in range(2))
        np.testing.assert_allclose(momentum, -0.02, rtol=1e-6)  # - lr g, of lr 0.01 and g 2
        np.testing.assert_array_equal(weight, parameter.data().asnumpy())


class Harm:
    """Unpickles to a call."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def pickled(content, protocol=None):
    return pickle.dumps(content, protocol)


HARM = {
    "os.system": lambda mark: pickled(Harm(os.system, f"touch {mark}")),
    "in a state": lambda mark: pickled({0: Harm(os.system, f"touch {mark}")}),
    "beside states": lambda mark: pickled(({}, Harm(subprocess.call, ["touch", mark]))),
    "eval": lambda mark: pickled(Harm(eval, f"open({mark!r}, 'w')")),
    "protocol 0": lambda mark: f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode(),
    "by another package": lambda mark: f"cnumpy.testing\nrunstring\n(S'open({mark!r}, \"w\")'\n"
                                       "(dtR.".encode(),
    "mxnet's own os": lambda mark: f"cmxnet.base\nos.system\n(S'touch {mark}'\ntR.".encode(),
    "inherited": lambda mark: f"ccollections\n_sys.modules\n(S'{mark}'\ntR.".encode(),
}


def refusal(path):
    with pytest.raises(InputError) as caught:
        gluoncv_states.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", HARM)
def test_what_would_run_something_is_refused_and_not_run(tmp_path, kind):
    mark, path = tmp_path / "mark", tmp_path / "evil.states"
    path.write_bytes(HARM[kind](str(mark)))
    assert "nothing in it was run" in refusal(path)
    assert not mark.exists()


def test_no_memory_is_taken_for_bytes_that_are_not_there(tmp_path):
    (tmp_path / "a.states").write_bytes(pickled({0: Harm(bytearray, 2**30)}))
    assert "a bytes-like object is required" in refusal(tmp_path / "a.states")


@pytest.mark.parametrize("content", [
    b"", b"hello", pickled(3), pickled([1]), pickled({"a": None}), pickled({0: 3}),
    pickled(({0: None}, {}, 1)), pickled({0: collections.OrderedDict()})], ids=str)
def test_what_trainer_never_writes_is_refused(tmp_path, content):
    (tmp_path / "a.states").write_bytes(content)
    refusal(tmp_path / "a.states")


def test_damage_is_refused(tmp_path):
    path = tmp_path / "a.states"
    path.write_bytes(pickled({0: mx.nd.ones((3, 2)), 1: None}))
    states, optimizer = gluoncv_states.read(path)
    assert (states[0][0].tolist(), states[1], optimizer) == ([[1, 1]] * 3, [], None)
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        refusal(path)
    at = whole.index(b"\xc9\xfa\x93\xf9")
    for place, value in ((at, 0), (at + 4, 1), (at + 8, 3), (at + 12, 4), (at + 36, 9)):
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1:])
        refusal(path)
    assert "missing" in refusal(tmp_path / "none.states")


def test_states_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "half.states"
    half_states(layers("float16"), path)
    other = nn.Dense(3, in_units=2)
    other.initialize()
    for net, optimizer, said in ((other, "nag", "has a different shape: give the file that was"),
                                 (layers("float16"), "sgd", "of the optimizer nag: give --opt")):
        with pytest.raises(InputError, match=said):
            gluoncv_states.load(path, ours(net, True), net, optimizer)
    wrong = layers("float32")
    path.write_bytes(pickled({number: mx.nd.ones((1, 2)) for number in range(24)}))
    with pytest.raises(InputError, match="has another shape or type"):
        gluoncv_states.load(path, ours(wrong, False), wrong, "nag")


def test_a_run_goes_on_at_its_epoch(settings, tiny, lines, arrays, tmp_path):
    whole = train(settings(num_epochs=3, log_interval=1, save_dir=str(tmp_path / "whole"))).folder
    net = network.get_model("", 3)
    net.initialize()
    net.save_parameters(str(tmp_path / "9.params"))
    chosen = settings(num_epochs=3, log_interval=1, resume_epoch=2, ema=0.9,
                      resume_params=str(tmp_path / "9.params"))
    result = train(chosen)
    for kind in ("step", "epoch"):
        got, want = lines(result.folder, kind), lines(whole, kind)
        keys = ("epoch", "update", "lr", *(["step"] if kind == "step" else []))
        assert [[line[key] for key in keys] for line in got] == [
            [line[key] for key in keys] for line in want if line["epoch"] == 2]
    assert result.best_epoch == 2
    assert f"parameters from {tmp_path / '9.params'}" in (result.folder / "train.log").read_text()


def test_one_command_begins_and_goes_on(settings, tiny, lines, tmp_path):
    """--resume auto with --resume-params: the second call resumes from the checkpoint."""
    net = network.get_model("", 3)
    net.initialize()
    net.save_parameters(str(tmp_path / "9.params"))
    given = {"resume": "auto", "resume_params": str(tmp_path / "9.params"), "resume_epoch": 1,
             "save_dir": str(tmp_path / "run")}
    first = train(settings(num_epochs=2, **given))
    (tmp_path / "9.params").unlink()
    second = train(settings(num_epochs=3, **given))
    assert second.folder == first.folder
    assert [line["epoch"] for line in lines(second.folder, "epoch")] == [1, 2]
