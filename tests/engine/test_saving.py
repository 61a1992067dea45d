"""When a run saves, what it says if that fails, and how it ends then."""

import shlex
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.task import Classification
from gluon_tricks.engine import saving
from gluon_tricks.engine.saving import Saver, resume_command
from gluon_tricks.engine.tally import Tally
from gluon_tricks.errors import RunFault, Stopped
from gluon_tricks.parallel.ranks import Ranks
from gluon_tricks.runs import checkpoint
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.runlog import RunLog

NO_SPACE = OSError(28, "No space left on device")


@pytest.fixture
def run(tmp_path):
    """A run of one small layer, after update 6."""
    network = nn.Dense(2, in_units=3)
    network.initialize(mx.init.One())
    settings = resolve(Settings(model="resnet18_v1", batch_size=4, checkpoint_steps=5,
                        log_interval=4), 64, 3)
    task = Classification()
    task.settings = settings
    with RunLog(tmp_path, settings, task) as log:
        run = SimpleNamespace(
            settings=settings, network=network, updater=SimpleNamespace(arrays=dict), average=None,
            log=log, progress=Progress(epoch=2), stop=SimpleNamespace(signal=None),
            updates_done=7, lr=lambda update: update / 100, ranks=Ranks(), task=task,
            agree_statistics=lambda: None, checkpoint=None)
        run.saver = Saver(run)
        yield run


@pytest.fixture
def disk(monkeypatch):
    """While `full` is true, checkpoints and parameter files cannot be written."""
    state = SimpleNamespace(full=False)
    original = mx.nd.save

    def write(*arguments):
        if state.full:
            raise NO_SPACE
        original(*arguments)
    monkeypatch.setattr(mx.nd, "save", write)
    return state


def weights(path):
    return mx.nd.load(str(path))["weight"].asnumpy()


@pytest.mark.parametrize(("done", "due"), [(4, False), (5, True), (6, False), (10, True)])
def test_it_is_due_every_so_many_updates(run, done, due):
    run.updates_done = done
    assert run.saver.due() is due
    run.stop.signal = signal.SIGTERM
    assert run.saver.due()


def test_after_a_failure_it_is_due_at_each_line_of_the_log(run, disk, capfd):
    disk.full = True
    run.saver.save()
    run.saver.save()
    assert capfd.readouterr().err.count("checkpoints cannot be written (No space left") == 1
    assert run.saver.last is None
    due = []
    for run.updates_done in range(1, 11):
        due.append(run.saver.due())
    assert [number for number, is_due in enumerate(due, 1) if is_due] == [4, 5, 8, 10]
    disk.full = False
    run.saver.save()
    run.updates_done = 8
    assert not run.saver.due()
    found, refused = checkpoint.newest(run.log.folder)
    assert (found.path, refused) == (run.saver.last, [])
    assert Progress.from_json(found.state["progress"]) == run.progress
    assert found.state["logs"].keys() == {"log.jsonl", "train.log"}


def test_parameters_that_could_not_be_written_are_held_as_they_were(run, disk):
    best, last = run.log.folder / "best.params", run.log.folder / "last.params"
    run.saver.keep_parameters(best)
    disk.full = True
    run.network.weight.data()[:] = 2
    run.saver.keep_parameters(best)
    run.saver.keep_parameters(last)
    run.network.weight.data()[:] = 3
    run.saver.keep_parameters(last)
    run.network.weight.data()[:] = 4
    assert (weights(best) == 1).all() and not last.exists()
    disk.full = False
    run.saver.save()
    assert (weights(best) == 2).all() and (weights(last) == 3).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_when_it_is_saved(run, disk, monkeypatch, number):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    run.stop.signal = number
    with pytest.raises(Stopped) as stopped:
        run.saver.save()
    assert stopped.value.number is number
    for part in (number.name, "update 7", "epoch 3", "checkpoints/000001", "--resume auto"):
        assert part in str(stopped.value)
    disk.full = True
    with pytest.raises(RunFault, match=r"could not be saved; last checkpoint: .*000001"):
        run.saver.save()


def test_the_end_is_a_fault_where_something_is_in_memory_only(run, disk, monkeypatch):
    disk.full = True
    run.saver.keep_parameters(run.log.folder / "best.params")
    run.saver.save()
    with pytest.raises(RunFault, match=r"best\.params, its last checkpoint could not be written"):
        run.saver.end()
    disk.full = False
    run.saver.save()
    run.saver.end()
    assert (weights(run.log.folder / "best.params") == 1).all()

    def full(*_):
        raise NO_SPACE
    monkeypatch.setattr("os.pwrite", full)
    run.log.info("a line")
    with pytest.raises(RunFault, match="lines of its logs"):
        run.saver.end()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_never_saved(run, bad):
    run.saver.save()
    good = run.saver.last
    run.network.weight.data()[0, 0] = bad
    with pytest.raises(RunFault, match=f"parameter is not finite at update 6, lr 0.06: .*{good}"):
        run.saver.save()
    assert checkpoint.newest(run.log.folder)[0].path == good
    tally = Tally()
    for number, loss in ((3, 1.0), (4, bad), (5, bad)):
        tally.add(mx.nd.array([loss]), count=1, number=number)
    with pytest.raises(RunFault, match=r"the loss is (nan|inf) at update 4, lr 0\.04: "):
        run.saver.finite(tally)


@pytest.mark.parametrize("given", [
    [], ["--resume", "auto", "--save-dir", "old"], ["--resume=auto"], ["--save-dir=old", "--keep",
                                                                       "3"],
    ["--resume-params", "9.params", "--resume-states=9.states", "--resume-epoch", "10"]])
def test_how_to_go_on(monkeypatch, given):
    monkeypatch.setattr(sys, "argv", ["a b/train.py", "--model", "x", *given, "--ema"])
    words = shlex.split(resume_command(Path("runs/it's mine")))
    kept = ["--keep", "3"] if "--keep" in given else []
    assert words == [sys.executable, "a b/train.py", "--model", "x", *kept, "--ema", "--save-dir",
                     "runs/it's mine", "--resume", "auto"]


def test_the_versions_are_those_installed():
    assert saving.versions()["mxnet"] == mx.__version__
