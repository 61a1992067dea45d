"""Which checkpoint a run resumes from, in which folder, and which settings may change."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import mxnet as mx
import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.start import train
from gluon_tricks.errors import InputError
from gluon_tricks.runs import checkpoint, resume
from gluon_tricks.runs.checkpoint import Checkpoint
from gluon_tricks.runs.progress import Progress

SOMEWHERE = Path("run/checkpoints/000007")
TASK = "classification", ("top1",), "top1"


def settings(**changes):
    values = {"model": "resnet18_v1", "batch_size": 4, "accumulate": 3, "lr": 0.1,
              "num_epochs": 10, "mixup": True}
    return resolve(Settings(**{**values, **changes}), 100, 10)


def content(chosen=None, epoch=0, step=0):
    chosen = chosen or settings()
    arrays = {"model": {"a": mx.nd.ones((2,))}}
    if chosen.ema is not None:
        arrays["average"] = {"a": mx.nd.ones((2,))}
    return Checkpoint(arrays, {"progress": Progress(epoch=epoch, step=step).to_json(),
                               "settings": dataclasses.asdict(chosen), "logs": {}})


@pytest.fixture
def run(tmp_path):
    """A run's folder with three checkpoints, of epochs 1 to 3."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for epoch in (1, 2, 3):
        checkpoint.save(folder, content(epoch=epoch), keep=3)
    return folder


def find(resume_from, save_dir=None):
    return resume.find(settings(resume=str(resume_from), save_dir=save_dir and str(save_dir)))


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        find(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def damage(folder, *numbers):
    for number in numbers:
        (folder / "checkpoints" / f"{number:06d}" / "state.json").write_text("{}")


def epoch_of(start):
    return start.checkpoint.state["progress"]["epoch"]


@pytest.mark.parametrize("left", [None, (), (".lock",), (".lock", "config.json"),
                                  (".lock", "config.json", "log.jsonl", "train.log")])
def test_auto_begins_where_there_is_no_checkpoint(tmp_path, left):
    """In a new folder, an empty one, and one left by a run that was killed at its start."""
    folder = tmp_path / "a" / "b"
    if left is not None:
        folder.mkdir(parents=True)
        for name in left:
            (folder / name).touch()
    start = find("auto", folder)
    assert (start.folder, start.checkpoint, start.notes) == (folder, None, [])
    assert folder.is_dir()


def test_auto_leaves_foreign_files_alone(tmp_path):
    (tmp_path / "log.jsonl").write_text("precious")
    assert "holds files, but no run" in refusal("auto", tmp_path)
    assert "a folder above it, is a file" in refusal("auto", tmp_path / "log.jsonl")


def test_auto_takes_the_newest_whole_one(run):
    assert epoch_of(find("auto", run)) == 3
    damage(run, 3)
    start = find("auto", run)
    assert (start.folder, epoch_of(start)) == (run, 2)
    note, = start.notes
    assert "000003/state.json is not what was saved" in note


def test_auto_does_not_begin_anew_over_a_run_whose_checkpoints_are_damaged(run):
    damage(run, 1, 2, 3)
    message = refusal("auto", run)
    assert "no complete checkpoint" in message and all(f"00000{n}" in message for n in (1, 2, 3))


@pytest.mark.parametrize("save_dir", [False, True])
def test_a_run_s_folder(run, save_dir):
    start = find(run, run if save_dir else None)
    assert (start.folder, epoch_of(start)) == (run, 3)
    damage(run, 3)
    start = find(run)
    assert (start.folder, epoch_of(start), len(start.notes)) == (run, 2, 1)
    damage(run, 1, 2)
    assert "no complete checkpoint" in refusal(run)


def test_the_newest_checkpoint_s_folder_goes_on_in_its_run(run, monkeypatch):
    monkeypatch.chdir(run / "checkpoints")
    for path in (run / "checkpoints" / "000003", "000003", "../checkpoints/000003"):
        start = find(path)
        assert (start.folder, epoch_of(start)) == (run, 3)
        assert start.checkpoint.path.parent.parent == start.folder
    damage(run, 3)
    assert epoch_of(find("000002")) == 2


def test_an_older_checkpoint_goes_on_in_another_folder_only(run, tmp_path):
    """The run's log would be cut back, and later checkpoints would be mistaken for newer ones."""
    older = run / "checkpoints" / "000002"
    assert "continued to" in refusal(older) and "--save-dir" in refusal(older, run)
    start = find(older, tmp_path / "other")
    assert (start.folder, epoch_of(start)) == (tmp_path / "other", 2)
    (tmp_path / "other" / "file").touch()
    assert "not empty" in refusal(older, tmp_path / "other")


def test_a_copied_checkpoint_does_not_take_its_surroundings_for_a_run(run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "home" / "copies" / "000003"
    shutil.copytree(run / "checkpoints" / "000003", elsewhere)
    shutil.copytree(elsewhere, run / "checkpoints" / "good one")
    monkeypatch.chdir(tmp_path)
    assert str(find(elsewhere).folder) == "runs/resnet18_v1-1"
    (tmp_path / "runs" / "resnet18_v1-1" / "file").touch()
    assert str(find(run / "checkpoints" / "good one").folder) == "runs/resnet18_v1-2"


def test_paths_that_are_none(run, tmp_path):
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    assert "is not a folder" in refusal(run / "config.json")
    (tmp_path / "empty").mkdir()
    assert "SHA256SUMS is missing" in refusal(tmp_path / "empty")
    damage(run, 3)
    assert "000003/state.json is not what was saved" in refusal(run / "checkpoints" / "000003")


def restored(before, now, change=lambda state: None, **position):
    """After the checkpoint's round trip through JSON."""
    made = content(before, **position)
    state = json.loads(json.dumps(made.state))
    change(state)
    return resume.restored(made._replace(state=state, path=SOMEWHERE), now, *TASK)


@pytest.mark.parametrize(("change", "flag"), [
    ({"model": "resnet34_v1"}, "--model"), ({"optimizer": "sgd"}, "--optimizer"),
    ({"seed": 1}, "--seed")])
def test_what_must_stay(change, flag):
    with pytest.raises(InputError, match=f"give the same {flag}"):
        restored(settings(), settings(**change))


@pytest.mark.parametrize("said", [None, "classification", "detection"])
def test_a_run_of_another_task_is_refused(said):
    """Version 0.1.0 knew one task, and did not say which."""
    def name_task(state):
        if said:
            state["task"] = said
    if said == "detection":
        with pytest.raises(InputError, match="a run of detection, not of classification"):
            restored(settings(), settings(), name_task)
    else:
        assert restored(settings(), settings(), name_task)[1] == []


def test_another_set_or_number_of_classes_is_refused():
    other = Settings(model="resnet18_v1", batch_size=4, accumulate=3)
    with pytest.raises(InputError, match="num_training_samples 100, not 99"):
        restored(settings(), resolve(other, 99, 10))
    with pytest.raises(InputError, match="num_classes 10, not 11"):
        restored(settings(), resolve(other, 100, 11))


@pytest.mark.parametrize(("before", "now"), [(0.9, 0.0), (0.0, 0.9)])
def test_a_momentum_must_be_there_or_not(before, now):
    """Without it the optimizer has no arrays."""
    with pytest.raises(InputError, match=f"momentum {before}, not {now}"):
        restored(settings(momentum=before), settings(momentum=now))
    assert restored(settings(momentum=0.9), settings(momentum=0.8))[1] == [
        "--momentum 0.9 -> 0.8"]


def test_an_average_must_be_there_or_not():
    assert restored(settings(ema=0.9), settings(ema=0.99))[1] == ["--ema 0.9 -> 0.99"]
    with pytest.raises(InputError, match="saved with --ema"):
        restored(settings(ema=0.9), settings())
    with pytest.raises(InputError, match="saved without --ema"):
        restored(settings(), settings(ema=0.9))


@pytest.mark.parametrize(("batch", "accumulate", "step"), [(12, 1, 2), (2, 6, 12), (6, 2, 4)])
def test_accumulation_may_be_traded_for_a_larger_batch(batch, accumulate, step):
    """Two updates were done, of 12 samples each, in 6 batches. Logged, since mixup's partners and
    BatchNorm's statistics depend on the batch."""
    progress, changed = restored(settings(), settings(batch_size=batch, accumulate=accumulate),
                                 epoch=1, step=6)
    assert (progress.epoch, progress.step) == (1, step)
    assert changed == [f"--batch-size 4 -> {batch}", f"--accumulate 3 -> {accumulate}"]


@pytest.mark.parametrize(("before", "now", "batch"), [
    ({}, {}, 4), ({}, {"batch_size": 5}, 5),  # same number of ranks: as the flags say
    ({}, {"num_cpu_ranks": 2}, 2), ({}, {"num_gpus": 4}, 1), ({}, {"num_gpus": 2}, 2),
    ({"num_cpu_ranks": 2}, {}, 8), ({"num_gpus": 6}, {"num_cpu_ranks": 3, "accumulate": 4}, 6),
    ({"num_gpus": 2}, {"num_cpu_ranks": 2}, 4)], ids=str)
@pytest.mark.parametrize("place", ["auto", "run", "checkpoint"])
def test_another_number_of_ranks_keeps_the_global_batch(tmp_path, before, now, batch, place):
    """A global batch is 4 samples, 3 times, on each rank; the arrays are not read."""
    saved = checkpoint.save(tmp_path, content(settings(**before)), keep=1)
    (saved / "model.params").unlink()
    chosen = {"auto": "auto", "run": str(tmp_path), "checkpoint": str(saved)}[place]
    assert resume.batch_size(settings(**now, resume=chosen, save_dir=str(tmp_path))) == batch


def test_the_newest_checkpoint_that_can_be_read_says_the_global_batch(tmp_path):
    checkpoint.save(tmp_path, content(settings(batch_size=6)), keep=2)
    newest = checkpoint.save(tmp_path, content(settings(batch_size=8)), keep=2)
    chosen = settings(num_cpu_ranks=2, resume="auto", save_dir=str(tmp_path))
    assert resume.batch_size(chosen) == 4
    (newest / "state.json").write_text("{")
    assert resume.batch_size(chosen) == 3


def test_a_checkpoint_of_before_there_were_ranks_on_the_cpu(tmp_path):
    old = content()
    del old.state["settings"]["num_cpu_ranks"]
    checkpoint.save(tmp_path, old, keep=1)
    chosen = settings(num_cpu_ranks=2, resume="auto", save_dir=str(tmp_path))
    assert resume.batch_size(chosen) == 2


@pytest.mark.parametrize("now", [{"num_cpu_ranks": 3}, {"num_gpus": 16}])
def test_ranks_that_cannot_share_the_batch_are_refused(tmp_path, now):
    saved = checkpoint.save(tmp_path, content(), keep=1)
    with pytest.raises(InputError, match=f"{saved} .* global batch of 12, which "
                       f"{max(now.values())} ranks with --accumulate 3 cannot share equally"):
        resume.batch_size(settings(**now, batch_size=1, mixup=False, resume="auto",
                                   save_dir=str(tmp_path)))


@pytest.mark.parametrize("there", [False, True])
def test_where_no_checkpoint_is_the_flags_say_the_batch(tmp_path, there):
    if there:
        (tmp_path / "run" / "checkpoints" / "000001").mkdir(parents=True)
    for chosen in ("auto", str(tmp_path / "run")):
        assert resume.batch_size(settings(num_cpu_ranks=2, resume=chosen,
                                          save_dir=str(tmp_path / "run"))) == 4


@pytest.mark.parametrize("change", [{"batch_size": 5}, {"accumulate": 2}, {"num_gpus": 2},
                                    {"batch_size": 2, "accumulate": 7}])
def test_another_global_batch_is_refused(change):
    with pytest.raises(InputError, match="a global batch of 12, not"):
        restored(settings(), settings(**change))


@pytest.mark.parametrize(("change", "said"), [
    ({"num_epochs": 12}, ["--num-epochs 10 -> 12"]), ({"lr": 0.2}, ["--lr 0.1 -> 0.2"]),
    ({"mixup": False}, ["--mixup True -> False", "--mixup-alpha 0.2 -> None"]),
    ({"lr_decay_epoch": (5, 6)}, ["--lr-decay-epoch [30, 60, 90] -> [5, 6]"]),
    ({"num_data_workers": 9, "rec_train": "x.rec", "keep": 5, "checkpoint_steps": 3,
      "log_interval": 7, "save_dir": "y", "resume": "auto", "logging_file": "z",
      "tensorboard": True}, []), ({}, [])])
def test_what_has_changed_is_said(change, said):
    assert sorted(restored(settings(), settings(**change))[1]) == said


def test_settings_of_older_and_newer_versions():
    """Settings that were added, and settings that were removed."""
    def other_version(state):
        state["settings"]["long_gone"] = 3
        for name in ("nan", "l1", "lr", "seed", "ema", "num_gpus"):
            del state["settings"][name]
    progress, changed = restored(settings(), settings(lr=0.5, l1=0.1), other_version, epoch=4)
    assert (progress.epoch, changed) == (4, [])


@pytest.mark.parametrize("change", [
    lambda state: state["progress"].pop("epoch"),
    lambda state: state["progress"].update(step="7"),
    lambda state: state["progress"].update(more=1)])
def test_a_progress_that_is_none_is_refused_with_its_file(change):
    with pytest.raises(InputError, match=r"000007/state\.json: '(epoch|step|more)'"):
        restored(settings(), settings(), change)


@pytest.mark.parametrize(("wrong", "step"), [("4", 6), (None, 6), (1.5, 6), (0, None), (-1, 6)])
def test_an_accumulation_that_is_none(wrong, step):
    """The current one is used, unless the global batch shows that it was another."""
    def change(state):
        state["settings"]["accumulate"] = wrong
    if step is None:
        with pytest.raises(InputError, match="global batch of 0"):
            restored(settings(), settings(), change, step=6)
    else:
        assert restored(settings(), settings(), change, step=6)[0].step == step


def rate(update, epochs, mode):
    """Section 3.1's warm-up over the first of `epochs` epochs of 4 updates, then 5.1's decays."""
    if update < 4:
        return 0.1 * (update + 1) / 4
    if mode == "cosine":
        return 0.05 * (1 + math.cos(math.pi * (update - 4) / (4 * epochs - 4)))
    return 0.1 * 0.5 ** ((update >= 8) + (update >= 12))


@pytest.mark.parametrize("mode", ["cosine", "step"])
def test_the_learning_rate_of_every_update_across_a_longer_resume(tmp_path, noise_records, mode):
    for name in ("train", "val"):
        noise_records(tmp_path / name, 34, (20, 24), 3)
    first = Settings(
        model="cifar_resnet20_v1", rec_train=str(tmp_path / "train.rec"),
        rec_val=str(tmp_path / "val.rec"), input_size=16, batch_size=8, num_epochs=2, lr=0.1,
        lr_mode=mode, warmup_epochs=1, log_interval=1,
        num_data_workers=1, resume="auto", save_dir=str(tmp_path / "run"),
        **({"lr_decay": 0.5, "lr_decay_epoch": (2, 3)} if mode == "step" else {}))
    train(first)
    train(dataclasses.replace(first, num_epochs=4))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    logged = [(line["update"], line["lr"]) for line in lines if line["kind"] == "step"]
    assert [update for update, _ in logged] == list(range(16))
    for update, lr in logged:
        assert lr == pytest.approx(rate(update, 2 if update < 8 else 4, mode), rel=1e-13)
    assert [line["update"] for line in lines if line["kind"] == "end"] == [15]
    assert ("warning: changed since then: --num-epochs 2 -> 4;"
            in (tmp_path / "run" / "train.log").read_text())
