"""The engine trains what is no classifier: a dense task, whose targets are masks, and a ragged one,
whose images differ in size and have any number of boxes."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from matplotlib.figure import Figure
from toy_tasks import TASKS, TRAIN, VAL

from gluon_tricks import cli
from gluon_tricks.config import presets
from gluon_tricks.config.flags import chosen
from gluon_tricks.engine import command
from gluon_tricks.engine.train import train
from gluon_tricks.errors import InputError
from gluon_tricks.parallel.ranks import Ranks

PROGRAM = Path(__file__).parents[1] / "support" / "toy_run.py"
CLOCK = {"samples_per_second", "seconds", "data_wait", "waited"}  # what depends on the time
TITLE = {"dense": "mean IoU, %", "ragged": "hits, %"}
OWN = {"dense": "width", "ragged": "hidden"}


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


@pytest.fixture
def values(tmp_path):
    """values(**changes): settings of three epochs of ten updates, as JSON has them."""
    def make(**changes):
        return {"batch_size": 4, "num_epochs": 3, "lr": 0.05, "lr_mode": "cosine",
                "log_interval": 2, "num_data_workers": 2, "save_dir": str(tmp_path / "run"),
                **changes}
    return make


def run(name, values, task=None):
    kind, settings = TASKS[name]
    return train(settings(**values), task or kind())


def checkpoint(folder, arrays):
    """The newest checkpoint: its arrays, and its progress but for the time."""
    place = max((folder / "checkpoints").glob("[0-9]*"))
    progress = json.loads((place / "state.json").read_text())["progress"]
    return ({(file, key): array for file in ("model", "optimizer")
             for key, array in arrays(place / f"{file}.params").items()},
            {key: value for key, value in progress.items() if key not in CLOCK})


def timeless(folder):
    """log.jsonl's lines but for the time."""
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCK}
            for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_trains_logs_and_draws(name, values, lines, monkeypatch):
    titles, savefig = [], Figure.savefig

    def note(figure, *arguments, **options):
        titles.append([axes.get_title() for axes in figure.axes])
        return savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", note)
    result = run(name, values())
    folder, kind = result.folder, TASKS[name][0]
    steps, epochs = lines(folder, "step"), lines(folder, "epoch")
    losses = [line["train_loss"] for line in epochs]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    assert epochs[-1]["val_loss"] < 0.8 * epochs[0]["val_loss"]
    for line in epochs:
        assert {f"train_{part}" for part in kind.parts} <= line.keys()
        assert 0 <= line[f"val_{kind.figure}"] <= 1
        assert line["val_count"] == VAL
    assert len(steps) == 15
    assert all(set(kind.parts) <= line.keys() for line in steps)
    figures = [line[f"val_{kind.figure}"] for line in epochs]
    assert max(figures) > figures[0]
    assert (result.best_epoch, result.best.figures) == (int(np.argmax(figures)),
                                                        {kind.figure: max(figures)})
    [end] = lines(folder, "end")
    assert (end[f"best_{kind.figure}"], end[kind.figure]) == (max(figures), figures[-1])
    log = (folder / "train.log").read_text()
    assert f"{name} begins" in log
    assert f"training set        generated/train: {TRAIN} samples" in log
    for epoch, line in enumerate(epochs):
        words = " ".join(f"{part}={line[f'train_{part}']:f}" for part in kind.parts)
        assert f"[Epoch {epoch}] training: {words}\n" in log
        assert f"[Epoch {epoch}] validation: {kind.figure}={figures[epoch]:f}\n" in log
    assert re.search(rf"Epoch\[0\] Batch \[1\]\tSpeed: \S+ samples/sec\t{kind.parts[0]}=", log)
    assert titles == [["loss", TITLE[name], "learning rate", "training samples/s", ""]] * 3
    assert cv2.imread(str(folder / "curves.png")).shape == (700, 1000, 3)
    assert json.loads((folder / "config.json").read_text())["task"] == name


def test_the_log_has_the_means_of_training_and_the_figure(name, values, lines):
    """By hand, at a learning rate of 0 and without dropout, whatever the size of a batch."""
    kind, settings = TASKS[name]
    changes = {"lr": 0, "plain": True, "num_epochs": 1}
    task = kind()
    train_set, val_set = (task.open(settings(), part) for part in ("train", "val"))
    task.resolve(settings(**values(**changes, batch_size=1)), train_set, val_set)
    network = task.network(mx.cpu())
    sums = []
    with task.loader(train_set, Ranks(), training=True) as loader:
        for batch in loader.epoch():
            loss, parts = task.losses(network, task.inputs(batch, epoch=0, rank=0))
            sums.append([loss.asscalar(), *parts.asnumpy()])
    means = dict(zip(("loss", *kind.parts), np.mean(sums, axis=0), strict=True))
    evaluator = task.evaluator(network)
    with task.loader(val_set, Ranks(), training=False) as loader:
        for batch in loader.epoch():
            evaluator.take(batch)
    scores = evaluator.scores(Ranks())
    for batch_size in (2, 8):
        folder = run(name, values(**changes, batch_size=batch_size,
                                  save_dir=f"{values()['save_dir']}{batch_size}")).folder
        [line] = lines(folder, "epoch")
        assert {key: line[f"train_{key}"] for key in means} == pytest.approx(means, rel=1e-5)
        assert line["val_loss"] == pytest.approx(scores.loss, rel=1e-5)
        assert line[f"val_{kind.figure}"] == pytest.approx(scores.figures[kind.figure])


class Scored:
    """Validation's scores are as given, epoch by epoch."""

    def __init__(self, kind, figures, losses):
        given = iter(zip(figures, losses, strict=True))

        class Task(kind):
            def evaluator(self, network):
                found = super().evaluator(network)
                scores = found.scores

                def as_given(ranks):
                    figure, loss = next(given)
                    return scores(ranks)._replace(loss=loss, figures={self.figure: figure})
                found.scores = as_given
                return found
        self.task = Task()


def test_the_best_is_so_by_the_figure(name, values, arrays):
    task = Scored(TASKS[name][0], [0.5, 0.75, 0.75, 0.625], [4.0, 3.0, 2.0, 1.0]).task
    result = run(name, values(num_epochs=4, save_frequency=1), task)
    assert (result.best_epoch, result.best.loss) == (1, 3.0)  # of equal ones the first
    best, second = (arrays(result.folder / file) for file in ("best.params", "run-1.params"))
    for key, array in best.items():
        np.testing.assert_array_equal(array, second[key], key)


def test_it_stops_early_by_the_figure(name, values, lines):
    task = Scored(TASKS[name][0], [0.5, 0.75, 0.625, 0.7], [4.0, 3.0, 2.0, 1.0]).task
    result = run(name, values(num_epochs=9, early_stop_patience=2), task)
    assert len(lines(result.folder, "epoch")) == 4
    assert result.best_epoch == 1
    assert "4 of 9, stopped early" in (result.folder / "train.log").read_text()


@pytest.mark.parametrize("at", [13, pytest.param(0, marks=pytest.mark.slow),
                                pytest.param(29, marks=pytest.mark.slow)])
def test_killed_it_resumes_to_the_same_bits(name, values, arrays, tmp_path, at):
    """Amid an epoch; before the first update; before the last one."""
    changes = {"checkpoint_steps": 1, "log_interval": 1}
    whole = run(name, values(save_dir=str(tmp_path / "whole"), **changes)).folder
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), name, json.dumps(values(**changes)),
         str(at)], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "run"
    assert len([line for line in timeless(folder) if line["kind"] == "step"]) == at
    run(name, values(resume="auto", **changes))
    (one, progress), (other, resumed) = (checkpoint(path, arrays) for path in (whole, folder))
    assert progress == resumed
    assert one.keys() == other.keys()
    assert {file for file, _ in one} == {"model", "optimizer"}
    for key, array in one.items():
        np.testing.assert_array_equal(array, other[key], str(key))
    assert timeless(folder) == timeless(whole)


def test_a_run_of_the_other_task_is_refused(name, values):
    other = next(key for key in TASKS if key != name)
    folder = run(other, values(num_epochs=1)).folder
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    with pytest.raises(InputError) as refused:
        run(name, values(resume="auto"))
    assert re.fullmatch(rf".*/000001 is from a run of {other}, not of {name}: give one of the same "
                        "task", str(refused.value))
    assert before == {path.name: path.read_bytes() for path in folder.glob("*.*")}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {}, {"accumulate": 2}, {"on_bad_record": "skip", "damaged": (0, 1, 2, 7, 8, 30)}], ids=str)
def test_two_ranks_are_as_one_with_twice_the_batch(name, values, arrays, lines, in_ranks, tmp_path,
                                                   changes):
    same = values(plain=True, **changes)
    done = in_ranks(2, "toy_run.py", name, json.dumps(
        {**same, "save_dir": str(tmp_path / "two"), "num_cpu_ranks": 2}))
    assert done.returncode == 0, done.stderr
    one, two = run(name, {**same, "batch_size": 8}).folder, tmp_path / "two"
    own, want = (arrays(folder / "last.params") for folder in (two, one))
    assert own.keys() == want.keys()
    for key, array in want.items():
        np.testing.assert_allclose(own[key], array, rtol=1e-5, atol=1e-6, err_msg=key)
    left = VAL - len([index for index in changes.get("damaged", ()) if index < VAL])
    for line, wanted in zip(lines(two, "epoch"), lines(one, "epoch"), strict=True):
        assert line["val_count"] == left
        for key in wanted.keys() - CLOCK - {"kind"}:
            assert line[key] == pytest.approx(wanted[key], rel=1e-5), key


def test_damaged_samples_are_left_out_and_named(name, values, lines):
    folder = run(name, values(on_bad_record="skip", damaged=(5, 30), num_epochs=2)).folder
    assert [line["val_count"] for line in lines(folder, "epoch")] == [VAL - 1] * 2
    log = (folder / "train.log").read_text()
    assert "generated/train: 2 damaged records skipped, by key: 5, 30\n" in log
    assert "generated/val: 1 damaged record skipped, by key: 5\n" in log


def test_an_update_whose_samples_are_all_damaged_is_none(name, values, lines):
    damaged = tuple(range(0, TRAIN, 2))
    folder = run(name, values(on_bad_record="skip", damaged=damaged, batch_size=1,
                              num_epochs=1)).folder
    [line] = lines(folder, "epoch")
    assert line["update"] == TRAIN - 1
    assert line["val_count"] == VAL // 2


@pytest.mark.parametrize("damaged", ["first", "last"])
def test_a_damaged_sample_ends_the_run_in_one_line(name, values, damaged):
    """Of the validation set, before it begins; of the training set alone, amid it."""
    index = 0 if damaged == "first" else TRAIN - 1
    with pytest.raises(InputError) as ended:
        run(name, values(damaged=(index,)))
    assert str(ended.value) == f"generated/{'val' if index == 0 else 'train'}: sample {index} is " \
                               "damaged"


def test_nothing_can_be_trained_on_damaged_samples_alone(name, values):
    with pytest.raises(InputError, match="generated/val: no record can be decoded"):
        run(name, values(on_bad_record="skip", damaged=tuple(range(TRAIN))))


@pytest.fixture
def dispatch(name, capsys):
    """dispatch(flags...): what a script of the task's would print."""
    def call(*given):
        kind, settings = TASKS[name]
        parser = cli.Parser()
        command.add_flags(parser, settings, preset=presets.Preset())
        flags = parser.parse_args(list(map(str, given)))
        assert isinstance(flags, argparse.Namespace)
        command.dispatch(flags, settings(**chosen(settings, flags, presets.Preset())), kind)
        return capsys.readouterr().out
    return call


def test_its_settings_are_flags(name, capsys):
    parser = cli.Parser()
    command.add_flags(parser, TASKS[name][1], preset=presets.Preset())
    text = parser.format_help()
    other = next(own for own in OWN.values() if own != OWN[name])
    assert f"--{OWN[name]} " in text
    assert "--batch-size" in text
    assert f"--{other} " not in text


def test_a_dry_run_prints_the_settings(name, dispatch):
    found = json.loads(dispatch("--dry-run", f"--{OWN[name]}", 5, "--batch-size", 8))
    assert (found[OWN[name]], found["derived"]["steps_per_epoch"]) == (5, TRAIN // 8)


def test_its_parts_are_measured(name, dispatch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(r"[\d.]+ samples/s, \d+ ms an update of 4, on made-up data\n",
                        dispatch("--benchmark", 3, "--batch-size", 4))
    assert re.fullmatch(r"\d+ samples/s, made by threads\n",
                        dispatch("--test-io", 30, "--batch-size", 4))
    assert not os.listdir(tmp_path)


def test_a_command_trains(name, dispatch, tmp_path):
    said = dispatch("--num-epochs", 1, "--batch-size", 8, "--save-dir", tmp_path / "run")
    figure = TASKS[name][0].figure
    assert re.match(rf"validation: {figure} [\d.]+%; best: {figure} [\d.]+%, epoch 1\n", said)
