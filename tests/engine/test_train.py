"""A whole run of a few updates, in this process."""

import json
import re

import cv2
import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.rules import validate
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.start import train
from gluon_tricks.data import native
from gluon_tricks.data.record import RecordWriter
from gluon_tricks.engine.step import step_seed
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.models.graph import hybridize
from gluon_tricks.optim.schedule import lr_at


def test_a_run_leaves_its_folder_complete(settings, lines):
    result = train(settings())
    folder = result.folder
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_classes"], config["num_training_samples"]) == (3, 21)
    assert (config["color_jitter"], config["pca_noise"], config["crop_area"]) == (0.4, 0.1,
                                                                                  [0.08, 1])
    assert config["derived"] == {"global_batch": 4, "lr": 0.01, "steps_per_epoch": 5,
                                 "updates": 10, "warmup_updates": 5, "warmup_mode": "linear",
                                 "warmup_lr": 0.0, "decay": "cosine"}
    assert cv2.imread(str(folder / "curves.png")).shape == (700, 1000, 3)
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "log.jsonl", "train.log", "curves.png", "best.params", "last.params",
        "checkpoints", ".lock"}
    epochs = lines(folder, "epoch")
    assert [line["val_count"] for line in epochs] == [7, 7]
    assert result.last.figures["top1"] == epochs[1]["val_top1"]
    assert result.best.figures["top1"] == max(line["val_top1"] for line in epochs)
    assert lines(folder, "end")[0]["top1"] == result.last.figures["top1"]


def test_the_logged_learning_rate_is_the_schedule_s(settings, lines):
    folder = train(settings(log_interval=1)).folder
    logged = [(line["update"], line["lr"]) for line in lines(folder, "step")]
    assert logged == [(update, lr_at(update, base_lr=0.01, updates=10, warmup_updates=5,
                                     decay="cosine")) for update in range(10)]
    assert logged[0][1] == pytest.approx(0.002)
    assert logged[5][1] == pytest.approx(0.01)


def test_train_log_keeps_gluoncv_s_line_format(settings):
    text = (train(settings()).folder / "train.log").read_text()
    number = r"[\d.]+"
    assert len(re.findall(rf"^Epoch\[\d\] Batch \[\d\]\tSpeed: {number} samples/sec\t"
                          rf"accuracy={number}\tlr={number}$", text, re.M)) == 4
    for line in (rf"\[Epoch 1\] training: accuracy={number}",
                 rf"\[Epoch 1\] speed: \d+ samples/sec\ttime cost: {number}",
                 rf"\[Epoch 1\] validation: err-top1={number} err-top5={number}"):
        assert re.search(f"^{line}$", text, re.M), line


def test_the_same_seed_gives_the_same_bits_on_any_number_of_workers(settings, tmp_path, arrays):
    first = train(settings(dropout=0.5, save_dir=str(tmp_path / "a"), num_data_workers=1))
    again = train(settings(dropout=0.5, save_dir=str(tmp_path / "b"), num_data_workers=3))
    other = train(settings(dropout=0.5, save_dir=str(tmp_path / "c"), seed=1))
    a, b, c = (arrays(run.folder / "last.params") for run in (first, again, other))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["output.weight"], c["output.weight"])


def test_best_parameters_are_those_of_the_best_epoch(settings, monkeypatch, arrays):
    from gluon_tricks.engine import start
    from gluon_tricks.engine import train as module
    from gluon_tricks.runs.scores import Scores

    tops = iter((0.1, 0.7, 0.7, 0.3))
    kept = {}

    def scored(network, *_, **__):
        top1 = next(tops)
        kept[len(kept)] = network.output_bias()
        return Scores(7, 1.0, top1, 1.0, 0, 7)

    def build_network(settings):
        network = original(settings)
        network.output_bias = lambda: network.fc.bias.data().asnumpy()
        return network

    original = start.build_network
    monkeypatch.setattr(start, "build_network", build_network)
    monkeypatch.setattr(module, "evaluate", scored)
    result = train(settings(num_epochs=4))
    assert (result.best_epoch, result.best.figures["top1"], result.last.figures["top1"]) == (1, 0.7, 0.3)
    assert np.array_equal(arrays(result.folder / "best.params")["output.bias"], kept[1])
    assert np.array_equal(arrays(result.folder / "last.params")["output.bias"], kept[3])


def test_a_loss_that_is_not_finite_stops_the_run(settings):
    with pytest.raises(RunFault, match=r"update \d, lr .*lower --lr.*there is no checkpoint yet"):
        train(settings(lr=1e30, warmup_epochs=0, lr_mode="constant"))


def test_parameters_that_are_not_finite_are_not_kept(settings, tmp_path):
    """One update an epoch: the loss of the training is still finite, what it leaves is not."""
    with pytest.raises(RunFault, match="there is no checkpoint yet"):
        train(settings(lr=1e20, warmup_epochs=0, lr_mode="constant", batch_size=21, num_epochs=1))
    assert not list((tmp_path / "run").glob("*.params"))


def test_the_graph_of_a_network_that_asks_for_the_mode_is_not_kept(settings):
    class AsksForTheMode(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return x * 0 if mx.autograd.is_training() else F.identity(x)

    network, plain = AsksForTheMode(), mx.gluon.nn.Activation("relu")
    for net in (network, plain):
        hybridize(net)
    x = mx.nd.ones((1, 2))
    with mx.autograd.record():
        assert network(x).asnumpy().tolist() == [[0, 0]]
    assert network(x).asnumpy().tolist() == [[1, 1]]
    assert plain._active
    assert not network._active


def test_a_folder_with_files_is_not_written_over(settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        train(settings())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_run_folders_are_numbered_where_none_is_named(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "resnet18_v1-7").mkdir(parents=True)
    (tmp_path / "runs" / "resnet18_v1-x").mkdir()
    assert str(train(settings(save_dir=None, num_epochs=1)).folder) == "runs/resnet18_v1-8"


def test_shuffled_labels_train_on_other_labels(settings, tmp_path, lines):
    plain = train(settings(save_dir=str(tmp_path / "a"), num_epochs=1))
    shuffled = train(settings(save_dir=str(tmp_path / "b"), num_epochs=1, shuffle_labels=True))
    a, b = (lines(run.folder, "epoch")[0]["train_loss"] for run in (plain, shuffled))
    assert a != b


def test_seeds_of_steps_do_not_repeat_for_neighbouring_seeds():
    seeds = [step_seed(seed, update) for seed in range(8) for update in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def with_damage(folder, jpeg, **places):
    """train.rec and val.rec anew; the records with the keys `places` are cut short."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 21), ("val", 7)):
        for ending in ("rec", "idx"):
            (folder / f"{name}.{ending}").unlink()
        with RecordWriter(folder / name) as writer:
            for key in range(count):
                picture = jpeg(rng.integers(0, 256, (40, 50, 3), np.uint8))
                writer.write(key, key % 3, picture[:200] if key in places[name] else picture)


@pytest.mark.parametrize("backend", ["auto", "opencv"])
@pytest.mark.parametrize("noticed", ["before", "amid"])
def test_damaged_records_are_left_out_and_named(settings, tmp_path, jpeg, monkeypatch, backend,
                                                noticed, lines):
    """Before the run; or, as damage of some kinds, first when they are decoded."""
    chosen = settings(on_bad_record="skip", data_backend=backend)
    with_damage(tmp_path, jpeg, train=(4, 17), val=(6,))
    if noticed == "amid":
        monkeypatch.setattr("gluon_tricks.classification.loaders.quick_check",
                            lambda records, workers: [])
    result = train(chosen)
    log = (result.folder / "train.log").read_text()
    assert (f"{tmp_path / 'train.rec'}: 2 damaged records skipped, by key: 4, 17"
            in log)
    assert f"{tmp_path / 'val.rec'}: 1 damaged record skipped, by key: 6" in log
    assert [line["val_count"] for line in lines(result.folder, "epoch")] == [6, 6]
    assert result.last.count == 6


@pytest.mark.parametrize(("train_places", "val_places", "named"), [
    ((4, 17), (), "train.rec, the record with key 4 "), ((4,), (6,), "val.rec, the record with "),
    ((), (6,), "val.rec, the record with key 6 ")])
def test_damaged_records_stop_a_run_before_it_starts(settings, tmp_path, jpeg, train_places,
                                                     val_places, named):
    chosen = settings()
    with_damage(tmp_path, jpeg, train=train_places, val=val_places)
    with pytest.raises(InputError, match="--on-bad-record skip") as caught:
        train(chosen)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_without_damage_says_nothing_of_it(settings):
    log = (train(settings(on_bad_record="skip")).folder / "train.log").read_text()
    assert "damaged" not in log


def test_the_backend_is_logged_and_stored(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "why_not", lambda: "it was not built: mend it")
    with pytest.raises(InputError) as caught:
        train(settings(data_backend="native"))
    assert str(caught.value) == "--data-backend native: it was not built: mend it"
    assert not (tmp_path / "run").exists()
    folder = train(settings(num_epochs=1)).folder
    assert re.search(r"^data backend +opencv \(native: it was not built: mend it\)$",
                     (folder / "train.log").read_text(), re.M)
    assert json.loads((folder / "config.json").read_text())["data_backend"] == "opencv"


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_set_of_which_nothing_can_be_decoded_is_refused_in_one_line(
        settings, tmp_path, jpeg, monkeypatch, part):
    chosen = settings(on_bad_record="skip")
    with_damage(tmp_path, jpeg, **{"train": (), "val": (), part: range(21)})
    monkeypatch.setattr("gluon_tricks.classification.loaders.quick_check",
                            lambda records, workers: [])
    with pytest.raises(InputError, match=f"{part}.rec: no record can be decoded"):
        train(chosen)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("crop", ["resized", "pad"])
def test_the_saved_settings_keep_the_rules(settings, crop):
    result = train(settings(crop=crop, num_epochs=1))
    saved = json.loads((result.folder / "config.json").read_text())
    saved.pop("derived")
    again = Settings(**{name: tuple(value) if isinstance(value, list) else value
                        for name, value in saved.items()})
    validate(again)
    assert again.data_backend in ("native", "opencv")
    assert again.dct_shortcut == (
        "train" if again.data_backend == "native" and crop == "resized" else "never")
