"""A run's folder: its lines survive a full disk and a kill, and GluonCV's scrapers read them."""

import json
import os
import re

import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.task import Classification
from gluon_tricks.errors import InputError
from gluon_tricks.optim.precision import LossScale
from gluon_tricks.runs import runlog
from gluon_tricks.runs.progress import Progress
from gluon_tricks.runs.runlog import RunLog, check_tensorboard
from gluon_tricks.runs.scores import Scores, Sums

# GluonCV 0.10's train_imagenet.py writes these.
STEP = "Epoch[%d] Batch [%d]\tSpeed: %f samples/sec\t%s=%f\tlr=%f"
EPOCH = ["[Epoch %d] training: %s=%f", "[Epoch %d] speed: %d samples/sec\ttime cost: %f",
         "[Epoch %d] validation: err-top1=%f err-top5=%f"]
ONE = Sums(1, 0.0, {"top1": 0.0})
VALIDATED = Scores(7, 1.25, {"top1": 3 / 7, "top5": 6 / 7})


def as_regexp(form):
    """A pattern that matches what printf makes of `form`."""
    for directive, pattern in (("%d", r"(\d+)"), ("%f", r"(\d+\.\d{6})"), ("%s", r"(\w+)")):
        form = form.replace(directive, "\0" + pattern + "\1")
    parts = re.split("\0(.*?)\1", form)
    return "".join(part if number % 2 else re.escape(part) for number, part in enumerate(parts))


@pytest.fixture
def make(tmp_path):
    """make(lengths, **settings): a log in tmp_path."""
    def log(lengths=None, update=0, **changes) -> RunLog:
        settings = Settings(model="resnet18_v1", batch_size=4, accumulate=2, **changes)
        task = Classification()
        task.settings = resolve(settings, 16, 3)
        return RunLog(tmp_path, task.settings, task, lengths, update)
    return log


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes half a second."""
    monkeypatch.setattr(runlog, "draw_curves", lambda *_, **__: None)


def write_epoch(log, epoch, steps=(1, 3)):
    """The lines of an epoch of two updates."""
    progress = Progress(epoch=epoch)
    log.start_epoch(progress)
    for step in steps:
        progress.step = step + 1
        log.step(progress, update=2 * epoch + step // 2, lr=0.0125,
                 scores=Scores(4, 1.5, {"top1": 0.25}))
    progress.trained, progress.seconds, progress.waited = Sums(16, 24.0, {"top1": 4.0}), 2.0, 0.5
    log.epoch(progress, update=2 * epoch + 1, lr=0.0125, validated=VALIDATED)


def json_lines(folder):
    def refuse(word):
        raise ValueError(f"{word} is no JSON")
    return [json.loads(line, parse_constant=refuse)
            for line in (folder / "log.jsonl").read_text().splitlines()]


def test_train_log_has_gluoncv_s_lines(make, tmp_path, undrawn):
    with make() as log:
        write_epoch(log, 0)
        write_epoch(log, 12)
    lines = (tmp_path / "train.log").read_text().splitlines()
    steps = [found.groups() for line in lines if (found := re.fullmatch(as_regexp(STEP), line))]
    assert [(epoch, batch, name, value, lr) for epoch, batch, _, name, value, lr in steps] == [
        (epoch, batch, "accuracy", "0.250000", "0.012500")
        for epoch in ("0", "12") for batch in ("1", "3")]
    for form, values in zip(EPOCH, [("accuracy", "0.250000"), ("8", "2.000000"),
                                    ("0.571429", "0.142857")], strict=True):
        found = [match.groups() for line in lines if (match := re.fullmatch(as_regexp(form), line))]
        assert found == [("0", *values), ("12", *values)]


def test_log_jsonl_has_every_number(make, tmp_path, undrawn):
    with make() as log:
        write_epoch(log, 0)
        log.end(update=1, best_epoch=0, best=VALIDATED, last=VALIDATED)
    step, _, epoch, end = json_lines(tmp_path)
    assert {name: step[name] for name in ("kind", "epoch", "step", "update", "lr", "loss", "top1")
            } == {"kind": "step", "epoch": 0, "step": 1, "update": 0, "lr": 0.0125, "loss": 1.5,
                  "top1": 0.25}
    assert step["samples_per_second"] > 0 and step["data_wait"] == 0
    assert epoch == {
        "kind": "epoch", "epoch": 0, "update": 1, "lr": 0.0125, "train_loss": 1.5,
        "train_top1": 0.25, "val_loss": 1.25, "val_top1": 3 / 7, "val_top5": 6 / 7, "val_count": 7,
        "samples_per_second": 8.0, "seconds": 2.0, "data_wait": 0.25}
    assert end == {"kind": "end", "update": 1, "best_epoch": 0, "best_top1": 3 / 7,
                   "best_top5": 6 / 7, "top1": 3 / 7, "top5": 6 / 7}


def test_speed_counts_the_samples_since_the_last_line(make, tmp_path, monkeypatch):
    clock = iter((100.0, 102.0, 106.0))
    monkeypatch.setattr(runlog.time, "monotonic", lambda: next(clock))
    with make() as log:
        progress = Progress(step=4, waited=1.0)  # resumed within an epoch
        log.start_epoch(progress)
        for step, waited in ((10, 1.5), (16, 4.5)):
            progress.step, progress.waited = step, waited
            log.step(progress, update=0, lr=0.1, scores=VALIDATED)
    lines = json_lines(tmp_path)
    assert [line["samples_per_second"] for line in lines] == [6 * 4 / 2, 6 * 4 / 4]
    assert [line["data_wait"] for line in lines] == [0.25, 0.75]


def test_overflows_and_bad_updates_are_logged_where_they_can_be(make, tmp_path, undrawn):
    with make(nan="skip") as log:
        log.epoch(Progress(trained=ONE, seconds=1.0, bad_updates=3), update=1, lr=0.1,
                  validated=VALIDATED)
        assert json_lines(tmp_path)[0]["bad_updates"] == 3
    with make(dtype="float16", num_gpus=1) as log:
        log.epoch(Progress(trained=ONE, seconds=1.0, loss_scale=LossScale(8.0, 1, 5)),
                  update=1, lr=0.1, validated=VALIDATED)
    line, = json_lines(tmp_path)
    assert (line["loss_scale"], line["overflows"]) == (8.0, 5)


def test_going_on_cuts_back_to_the_checkpoint(make, tmp_path, undrawn):
    with make() as log:
        write_epoch(log, 0)
        lengths = log.lengths()
        kept = json_lines(tmp_path), (tmp_path / "train.log").read_text()
        write_epoch(log, 1)
    with make(lengths) as log:
        assert (json_lines(tmp_path), (tmp_path / "train.log").read_text()) == kept
        write_epoch(log, 1)
    assert [(line["kind"], line["update"]) for line in json_lines(tmp_path)] == [
        ("step", 0), ("step", 1), ("epoch", 1), ("step", 2), ("step", 3), ("epoch", 3)]
    make().__exit__(None, None, None)
    assert json_lines(tmp_path) == []


@pytest.mark.parametrize("room", [10, 300])
def test_a_full_disk_costs_no_line_and_one_warning(make, tmp_path, monkeypatch, capfd, room):
    """curves.png is drawn from a file whose last line may be incomplete."""
    original, left = os.pwrite, [room]

    def full(descriptor, data, offset):
        size = min(left[0], len(data))
        if not size:
            raise OSError(28, "No space left on device")
        left[0] -= size
        return original(descriptor, data[:size], offset)
    with make() as log:
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            write_epoch(log, 0)
            write_epoch(log, 1)
            with pytest.raises(OSError, match="No space"):
                log.lengths()
        warnings = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
        assert len(warnings) == 2
        for name in ("log.jsonl", "train.log"):
            assert sum(f"{tmp_path / name} cannot be written (No space left on device)" in line
                       for line in warnings) == 1
        write_epoch(log, 2)
        assert log.lengths() == {name: (tmp_path / name).stat().st_size
                                 for name in ("log.jsonl", "train.log")}
    assert [line["update"] for line in json_lines(tmp_path)] == [0, 1, 1, 2, 3, 3, 4, 5, 5]
    batches = re.findall(r"^Epoch\[(\d)\] Batch", (tmp_path / "train.log").read_text(), re.M)
    assert batches == list("001122")


def test_curves_that_cannot_be_written_stop_nothing(make, tmp_path, capfd):
    (tmp_path / "curves.png").mkdir()
    with make() as log:
        write_epoch(log, 0)
        write_epoch(log, 1)
        assert capfd.readouterr().err.count("curves.png cannot be written (Is a directory)") == 1
        (tmp_path / "curves.png").rmdir()
        write_epoch(log, 2)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_config_json_is_tried_again(make, tmp_path, undrawn, capfd):
    (tmp_path / "config.json").mkdir()
    with make() as log:
        (tmp_path / "config.json").rmdir()
        write_epoch(log, 0)
    assert "config.json cannot be written" in capfd.readouterr().err
    assert json.loads((tmp_path / "config.json").read_text())["model"] == "resnet18_v1"


def test_config_json_is_there_before_any_log(make, tmp_path, monkeypatch):
    """It identifies a run's folder: a kill at the start must not leave logs without it."""
    seen = []

    def file(path, keep):
        seen.append((tmp_path / "config.json").is_file())
        raise KeyboardInterrupt
    monkeypatch.setattr(runlog, "LineFile", file)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert seen == [True]


def test_a_disk_that_is_full_at_the_start_leaves_the_mark_of_a_run(make, tmp_path, monkeypatch,
                                                                   capfd):
    """--resume auto takes the folder for a run's by config.json, were it empty."""
    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(runlog.files, "write_text", full)
    with make():
        assert (tmp_path / "config.json").read_text() == ""
    assert "config.json cannot be written (No space left on device)" in capfd.readouterr().err


def test_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(runlog.new_run_folder(None, "a_v1")) == "runs/a_v1-1"
    for name in ("a_v1-9", "a_v1-10", "a_v1-x", "a_v1-11.old", "a_v12-40"):
        (tmp_path / "runs" / name).mkdir()
    assert str(runlog.new_run_folder(None, "a_v1")) == "runs/a_v1-11"
    assert runlog.new_run_folder("b/c", "a_v1").is_dir()
    (tmp_path / "b" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        runlog.new_run_folder("b", "a_v1")
    with pytest.raises(InputError, match="or a folder above it, is a file"):
        runlog.new_run_folder("b/file/c", "a_v1")


def test_after_a_resume_tensorboard_forgets_what_came_behind_the_checkpoint(make, tmp_path,
                                                                           undrawn):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for update in (0, 1):
        with make(tensorboard=True, update=update) as log:
            write_epoch(log, 0)
    events = []
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # a record: its length in 8 bytes, a checksum in 4, the event, another in 4
            length = int.from_bytes(data[:8], "little")
            events.append(event_pb2.Event.FromString(data[12:12 + length]))
            data = data[16 + length:]
    values = {value.tag: value.simple_value for event in events for value in event.summary.value}
    assert values["epoch/val_top1"] == pytest.approx(3 / 7)
    assert values["step/lr"] == pytest.approx(0.0125)
    assert [event.step for event in events if event.HasField("session_log")][-1] == 1


def test_tensorboard_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_tensorboard(Settings(model="resnet18_v1"))
    with pytest.raises(InputError, match="--tensorboard needs tensorboardX: pip install"):
        check_tensorboard(Settings(model="resnet18_v1", tensorboard=True))


@pytest.mark.parametrize(("changes", "name"), [
    ({}, "training"), ({"label_smoothing": 0.1, "mixup": True}, "training, smoothed, mixed"),
    ({"teacher": "resnet18_v1"}, "training, distilled")])
def test_the_curves_say_what_training_s_loss_is(make, monkeypatch, changes, name):
    names = []
    monkeypatch.setattr(runlog, "draw_curves",
                        lambda *arguments: names.append(arguments[-1].training))
    with make(**changes) as log:
        write_epoch(log, 0)
    assert names == [name]
