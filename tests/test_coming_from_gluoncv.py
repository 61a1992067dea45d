"""What docs/coming-from.md says about GluonCV and MXNet, shown on them and compared with ours.

Run one by its name: python -m pytest tests/test_coming_from_gluoncv.py -k wraps
"""

import pickle
from pathlib import Path

import gluoncv
import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model
from gluoncv.utils import LRScheduler, LRSequential
from mxnet.gluon import Trainer

from gluon_tricks.augment.color import gluoncv_jitter
from gluon_tricks.classification import gluoncv_states
from gluon_tricks.data.order import EvalOrder
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError
from gluon_tricks.models import zoo
from gluon_tricks.optim.schedule import lr_at


def test_validation_wraps_and_then_skips(noise_records, tmp_path):
    """Five records in batches of two: each pass of GluonCV's scores the wrapped one twice, and the
    second pass begins where that one ended. The decoding threads decide whether a reset before
    anything was read counts as a pass."""
    noise_records(tmp_path / "val", 5, (8, 8), 5)
    theirs = mx.io.ImageRecordIter(
        path_imgrec=str(tmp_path / "val.rec"), path_imgidx=str(tmp_path / "val.idx"),
        data_shape=(3, 8, 8), batch_size=2, shuffle=False, preprocess_threads=1)
    passes = []
    for _ in range(2):
        passes.append([int(label) for batch in theirs for label in batch.label[0].asnumpy()])
        theirs.reset()
    assert passes == [[0, 1, 2, 3, 4, 0], [1, 2, 3, 4]]  # the second one without 0
    with RecordSet(tmp_path / "val.rec") as records:
        for _ in range(2):
            assert np.concatenate(list(EvalOrder(len(records), 2).batches())).tolist() == [
                0, 1, 2, 3, 4]


def gluoncv_schedule(mode: str, updates: int, warmup: int = 0, **more) -> list[float]:
    """The rate of each update, as its train_imagenet.py builds the schedule."""
    schedule = LRSequential([
        LRScheduler("linear", base_lr=0, target_lr=1, nepochs=1, iters_per_epoch=warmup),
        LRScheduler(mode, base_lr=1, target_lr=0, nepochs=1, iters_per_epoch=updates - warmup,
                    **more)])
    return [schedule(number) for number in range(1, updates + 1)]  # Trainer counts from 1


def test_cosine_ends_two_updates_early():
    theirs = gluoncv_schedule("cosine", 100)
    assert theirs[-2:] == [0, 0] and theirs[-3] > 0
    assert lr_at(99, base_lr=1, updates=100) > 0


def test_warm_up_is_one_update_short():
    theirs = gluoncv_schedule("cosine", 100, warmup=10)
    assert theirs[:9] == pytest.approx([i / 9 for i in range(1, 10)])  # at the full rate already
    ours = [lr_at(i, base_lr=1, updates=100, warmup_updates=10) for i in range(10)]
    assert ours == pytest.approx([i / 10 for i in range(1, 11)])  # the paper's i * eta / m


def test_a_phase_of_one_update_divides_by_zero():
    with pytest.raises(ZeroDivisionError):
        gluoncv_schedule("cosine", 2, warmup=1)
    assert lr_at(1, base_lr=1, updates=2, warmup_updates=1) == 1


def zero_gammas(network) -> int:
    return sum(parameter.init == "zeros" or "Zero" in type(parameter.init).__name__
               for parameter in network.collect_params(".*gamma").values())


def test_last_gamma_does_nothing_on_18_layers():
    assert zero_gammas(get_model("resnet18_v1b", last_gamma=True)) == 0
    assert zero_gammas(zoo.get_model("resnet18_v1b", last_gamma=True)) == 8  # a block each


def test_last_gamma_is_the_wrong_way_round_in_resnext():
    given, left_out = (zero_gammas(get_model("resnext50_32x4d", last_gamma=value))
                       for value in (True, False))
    assert given == 0 and left_out > 0
    assert zero_gammas(zoo.get_model("resnext50_32x4d", last_gamma=True)) == 16


def test_a_misspelt_option_is_swallowed():
    get_model("resnet50_v1b", last_gama=True)
    with pytest.raises(InputError, match="no option 'last_gama'"):
        zoo.get_model("resnet50_v1b", last_gama=True)


def test_group_norm_crashes_when_hybrid():
    layer = gluoncv.nn.GroupNorm(ngroups=2, in_channels=4)
    layer.initialize()
    layer(mx.nd.ones((1, 4, 2, 2)))
    layer.hybridize()
    with pytest.raises(Exception, match="shape"):
        layer(mx.nd.ones((1, 4, 2, 2))).wait_to_read()


class Payload:
    """Creates a file when it is unpickled: it could do anything else."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_loading_trainer_states_runs_code(tmp_path):
    network = mx.gluon.nn.Dense(1, in_units=1)
    network.initialize()
    trainer = Trainer(network.collect_params(), "sgd", {"momentum": 0.9})
    states, trace = tmp_path / "a.states", tmp_path / "was run"
    states.write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(Exception):  # noqa: B017, after the code has run
        trainer.load_states(str(states))
    assert trace.exists()
    trace.unlink()
    with pytest.raises(InputError):
        gluoncv_states.read(states)
    assert not trace.exists()


def test_workers_draw_the_same_random_numbers(run_python):
    """NumPy's generator, which mixup and Gluon's augmenters use, is copied to each worker.

    In a process of its own, which exits at once: a worker that is forked next to the threads of
    other tests may hang, and the loader waits for it forever.
    """
    done = run_python("""
        import os, time
        import numpy as np
        from mxnet.gluon.data import DataLoader, SimpleDataset

        def draw(_):
            time.sleep(0.2)  # or one worker may take all four before the other is there
            return np.random.random()

        dataset = SimpleDataset(list(range(4))).transform(draw)
        drawn = [float(batch.asnumpy()[0]) for batch in DataLoader(dataset, 1, num_workers=2)]
        print(len(drawn), len(set(drawn)), flush=True)
        os._exit(0)
        """, timeout=120)
    assert done.returncode == 0, done.stderr
    count, different = map(int, done.stdout.split())
    assert count == 4 and different < count


def test_half_precision_parameters_do_not_load(tmp_path):
    half, single = (get_model("cifar_resnet20_v1") for _ in range(2))
    half.initialize()
    half(mx.nd.zeros((1, 3, 32, 32)))
    half.cast("float16")
    half.save_parameters(str(tmp_path / "half.params"))
    with pytest.raises(AssertionError, match="dtype"):
        single.load_parameters(str(tmp_path / "half.params"))


def test_saturation_takes_blue_for_grey():
    """Gluon's RandomSaturation at 0: all pixels should become their gray value."""
    image = np.array([[[200, 100, 50]]], np.float32)
    theirs = mx.nd.image.random_saturation(mx.nd.array(image), min_factor=0, max_factor=0)
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(theirs.asnumpy().ravel(), 0.114 * 50, rtol=1e-5)
    np.testing.assert_allclose(gluoncv_jitter(image, np.array([1, 1, 0]), np.arange(3)).ravel(),
                               grey, rtol=1e-5)
