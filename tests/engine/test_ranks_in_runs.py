"""What ranks must share in a run, and what each has of its own; by two real ones."""

import json

import cv2
import mxnet as mx
import networks
import numpy as np
import pytest

from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import train
from gluon_tricks.data.order import epoch_permutation
from gluon_tricks.data.record import RecordWriter

pytestmark = pytest.mark.slow

RECORDS = 45  # which leaves a batch over, with accumulation
BATCH = 4  # of a rank: five updates an epoch
# Of the first epoch the whole third batch of rank 1, and one record of its fourth; with two batches
# of two an update, the second update's batches of rank 1. One record of rank 0's last batch.
ORDER = epoch_permutation(RECORDS, 0, 0).tolist()
DAMAGED = {*ORDER[20:24], ORDER[29], *ORDER[10:12], *ORDER[14:16], ORDER[33]}
JOBS = {
    "whole": ("plain", {"ema": 0.5, "num_epochs": 2, "checkpoint_steps": 2, "keep": 9}, {}),
    "another seed": ("plain", {"ema": 0.5, "num_epochs": 2}, {"another_seed": [[1]]}),
    "resumed": ("plain", {"ema": 0.5, "num_epochs": 2, "resume": "whole/checkpoints/000001"},
                {"no_checkpoint": [[1]]}),
    "statistics": ("normalised", {"ema": 0.5}, {}),
    "skipping": ("normalised", {"ema": 0.5, "nan": "skip"}, {"poisoned": [[1], 2]}),
    "left out": ("normalised", {"ema": 0.5, "nan": "skip"}, {"left_out": [[0, 1], 2]}),
    "stopping": ("plain", {"log_interval": 50}, {"poisoned": [[1], 3]}),  # rank 0 sees it at 4
    "overflow": ("plain", {}, {"dynamic": [[0, 1]], "overflow": [[1], 2]}),
    "no overflow": ("plain", {}, {"dynamic": [[0, 1]], "left_out": [[0, 1], 2]}),
    "damaged": ("plain", {"rec_train": "damaged.rec", "rec_val": "damaged_val.rec",
                          "on_bad_record": "skip", "num_epochs": 2}, {}),
    "damaged, accumulated": ("plain", {
        "rec_train": "damaged.rec", "rec_val": "damaged_val.rec", "on_bad_record": "skip",
        "num_epochs": 2, "batch_size": BATCH // 2, "accumulate": 2}, {}),
    "mixing": ("plain", {"mixup": True}, {}),
    "dropping": ("dropping", {}, {}),
    "taught": ("plain", {"teacher": "resnet18_v1", "teacher_params": "teacher.params"}, {}),
    "taught otherwise": ("plain", {"teacher": "resnet18_v1", "teacher_params": "teacher.params"},
                         {"another_teacher": [[1], "other.params"]}),
    "ending early": ("plain", {"lr": 0.0, "num_epochs": 5, "early_stop_patience": 1}, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, noise_records, jpeg):
    """The sets: damaged ones have PNGs that only decoding finds out about."""
    folder = tmp_path_factory.mktemp("ranks")
    noise_records(folder / "train", RECORDS, (40, 50), 3)
    noise_records(folder / "val", 9, (40, 50), 3)
    for name, count, damaged in (("damaged", RECORDS, DAMAGED), ("damaged_val", 9, {1, 5})):
        rng = np.random.default_rng(5)
        with RecordWriter(folder / name) as writer:
            for key in range(count):
                whole = jpeg(rng.integers(0, 256, (40, 50, 3), np.uint8))
                writer.write(100 + key, key % 3, _broken_png() if key in damaged else whole)
    for name, value in (("teacher", 0.3), ("other", 1.0)):
        net = networks.plain("", 3)
        net.initialize(mx.init.Uniform(value))
        net.save_parameters(str(folder / f"{name}.params"))
    return folder


def _broken_png():
    """Of 40x50 pixels, whole at both ends."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    start = data.index(b"IDAT") + 4
    return data[:start] + bytes(100) + data[start + 100:]


def settings_of(name, folder):
    _, changes, _ = JOBS[name]
    settings = {"model": "resnet18_v1", "rec_train": "train.rec", "rec_val": "val.rec",
                "input_size": 32, "batch_size": BATCH, "num_epochs": 1, "lr": 0.1,
                "lr_mode": "constant", "num_data_workers": 1, "num_cpu_ranks": 2,
                "save_dir": name, "log_interval": 2, **changes}
    return {key: str(folder / value) if key in (
        "rec_train", "rec_val", "save_dir", "teacher_params", "resume") else value
        for key, value in settings.items()}


class Made:
    """What two ranks have made of a job."""

    def __init__(self, folder, name):
        self.folder = folder / name
        self.saw = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]
        self.held = [dict(np.load(folder / f"{name}.{rank}.npz")) for rank in (0, 1)]

    def at_the_end(self):
        """By rank: parameters, optimiser's state, average."""
        return [{name: array for name, array in held.items() if not name.startswith("first own")}
                for held in self.held]


@pytest.fixture(scope="module")
def made(folder, in_ranks):
    """made(name): what the ranks made of that job."""
    jobs = {name: (network, settings_of(name, folder), {
        fault: [befallen, *(str(folder / a) if isinstance(a, str) else a for a in arguments)]
        for fault, (befallen, *arguments) in faults.items()})
        for name, (network, _, faults) in JOBS.items()}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = in_ranks(2, "watched_in_ranks.py", folder / "jobs.json", folder)
    assert done.returncode == 0, done.stderr
    return lambda name: Made(folder, name)


def same(a, b):
    """Bit for bit, and not nothing."""
    assert a.keys() == b.keys() and a
    for name in a:
        assert np.array_equal(a[name], b[name]), name


@pytest.mark.parametrize("name", [name for name in JOBS if name != "stopping"])
def test_both_ranks_end_with_the_same(made, name):
    job = made(name)
    first, other = job.at_the_end()
    same(first, other)
    assert any(key.startswith("optimizer:") for key in first)
    assert ("ema" in JOBS[name][1]) == any(key.startswith("average:") for key in first)
    assert all(np.isfinite(array).all() for array in first.values())
    assert [saw["raised"] for saw in job.saw] == [None, None]
    assert [saw["result"] for saw in job.saw] == [True, False]  # the first speaks of it
    assert job.saw[0]["progress"] == job.saw[1]["progress"]


@pytest.mark.parametrize(("name", "reference"), [("another seed", "whole"), ("resumed", "whole"),
                                                 ("taught otherwise", "taught")])
def test_all_begin_as_the_first(made, name, reference, lines):
    mine, want = made(name), made(reference)
    for rank in (0, 1):
        same(mine.at_the_end()[rank], want.at_the_end()[rank])
    assert [[line[key] for key in ("epoch", "train_loss", "train_top1", "val_loss", "val_count")]
            for line in lines(mine.folder, "epoch")] == [
        [line[key] for key in ("epoch", "train_loss", "train_top1", "val_loss", "val_count")]
        for line in lines(want.folder, "epoch")]


def test_a_teacher_teaches(made):
    """Else another one could change nothing."""
    plain, taught = made("no overflow").at_the_end()[0], made("taught").at_the_end()[0]
    assert not np.allclose(plain["model:0.weight"], taught["model:0.weight"], atol=1e-4)


def test_saved_statistics_are_the_mean_of_the_ranks_own(made, arrays):
    job = made("statistics")
    store = job.folder / "checkpoints/000001"
    for file, part in ((job.folder / "best.params", "average"), (store / "model.params", "model"),
                       (job.folder / "last.params", "average"), (store / "average.params",
                                                                 "average")):
        found = arrays(file)
        for name in ("1.running_mean", "1.running_var"):
            own = [held[f"first own {part}:{name}"].astype(float) for held in job.held]
            np.testing.assert_allclose(found[name], (own[0] + own[1]) / 2, rtol=1e-6)
            assert not np.allclose(own[0], own[1], rtol=1e-4)
    for held in job.held:
        same({name: held[f"model:{name}"] for name in arrays(store / "model.params")},
             arrays(store / "model.params"))


def test_an_update_that_is_bad_on_one_rank_is_skipped_by_both(made, lines):
    skipped, without = made("skipping"), made("left out")
    for rank in (0, 1):
        same(skipped.held[rank], without.held[rank])
    (a,), (b,) = (lines(job.folder, "epoch") for job in (skipped, without))
    assert [a[key] for key in ("train_loss", "train_top1", "val_loss")] == [
        b[key] for key in ("train_loss", "train_top1", "val_loss")]
    assert (a["bad_updates"], b["bad_updates"]) == (1, 0)


def test_a_loss_that_is_lost_on_one_rank_ends_both_and_is_said_once(made):
    first, other = (saw["raised"] for saw in made("stopping").saw)
    assert first[0] == "RunFault"
    assert first[1].startswith("the loss is nan at update 3, lr 0.1: ")
    assert other == ["ReportedByAnotherRank", "1"]


def test_an_overflow_on_one_rank_halves_the_scale_of_both(made):
    job, without = made("overflow"), made("no overflow")
    assert [saw["progress"]["loss_scale"] for saw in job.saw] == [[2.0**15, 2, 1]] * 2
    for rank in (0, 1):
        for name, array in without.at_the_end()[rank].items():
            np.testing.assert_allclose(job.at_the_end()[rank][name], array, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["damaged", "damaged, accumulated"])
def test_damaged_records_leave_the_mean_over_what_is_left(made, name, folder, arrays, lines,
                                                          monkeypatch, tmp_path):
    """As one process makes it, with the batch of both."""
    job = made(name)
    monkeypatch.setattr("gluon_tricks.classification.network.get_model", networks.plain)
    settings = settings_of(name, folder)
    alone = train(Settings(**{**settings, "num_cpu_ranks": 0, "save_dir": str(tmp_path / "a"),
                              "batch_size": 2 * settings["batch_size"]})).folder
    ours, want = arrays(job.folder / "last.params"), arrays(alone / "last.params")
    for key in want:
        np.testing.assert_allclose(ours[key], want[key], rtol=1e-5, atol=1e-6)
    for a, b in zip(lines(job.folder, "epoch"), lines(alone, "epoch"), strict=True):
        assert [a[key] for key in ("update", "train_top1", "val_top1", "val_count")] == [
            b[key] for key in ("update", "train_top1", "val_top1", "val_count")]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-6)
        assert a["val_count"] == 7
    log = (job.folder / "train.log").read_text()
    keys = ", ".join(str(100 + key) for key in sorted(DAMAGED))
    assert f"damaged.rec: {len(DAMAGED)} damaged records skipped, by key: {keys}\n" in log
    assert "damaged_val.rec: 2 damaged records skipped, by key: 101, 105\n" in log


def test_each_rank_mixes_its_own_samples_by_draws_of_its_own(made):
    job = made("mixing")
    for rank, saw in enumerate(job.saw):
        assert len(saw["mixed"]) == len(saw["partners"]) == 5
        for number, ((_, labels, others, indices), partner) in enumerate(zip(
                saw["mixed"], saw["partners"], strict=True)):
            start = (2 * number + rank) * BATCH
            assert indices == ORDER[start:start + BATCH]
            assert labels == [index % 3 for index in indices]
            assert sorted(partner) == list(range(BATCH))
            assert others == [labels[i] for i in partner]
    shares = [share for saw in job.saw for lam, *_ in saw["mixed"] for share in lam]
    assert len(set(shares)) == 2 * 5 * BATCH
    assert job.saw[0]["partners"] != job.saw[1]["partners"]


def test_each_rank_s_dropout_has_a_seed_of_its_own(made):
    seeds = [saw["seeds"] for saw in made("dropping").saw]
    assert [len(each) for each in seeds] == [5, 5]
    assert len({*seeds[0], *seeds[1]}) == 10


def test_all_end_early_after_the_same_epoch(made, lines):
    job = made("ending early")
    assert [line["epoch"] for line in lines(job.folder, "epoch")] == [0, 1]
    (end,) = lines(job.folder, "end")
    assert (end["best_epoch"], end["update"]) == (0, 9)
    assert [saw["progress"]["epoch"] for saw in job.saw] == [2, 2]


@pytest.mark.parametrize("name", ["whole", "damaged", "mixing", "ending early"])
def test_the_first_rank_alone_writes_and_each_line_once(made, name, lines):
    job = made(name)
    assert job.saw[1]["written"] == []
    assert str(job.folder / "log.jsonl") in job.saw[0]["written"]
    assert (job.folder / "best.params").is_file()
    epochs = job.saw[0]["progress"]["epoch"]
    assert [line["update"] for line in lines(job.folder, "epoch")] == [
        5 * epoch + 4 for epoch in range(epochs)]
    assert [line["update"] for line in lines(job.folder, "step")] == [
        5 * epoch + update for epoch in range(epochs) for update in (1, 3)]
    assert len(lines(job.folder, "end")) == 1
