"""The loaders as the settings ask for them; damaged records looked for before a run."""

import dataclasses

import numpy as np
import pytest

from gluon_tricks.classification.loaders import damaged_records, eval_loader, loading, train_loader
from gluon_tricks.classification.rules import validate
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.data import backends, native
from gluon_tricks.data.image_record_iter import ImageRecordLoader
from gluon_tricks.data.loader import skipped_line
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.errors import InputError

COUNT = 12


def settings(**changes):
    values = {"model": "resnet18_v1", "batch_size": 4, "input_size": 32, "num_data_workers": 1}
    return resolve(validate(Settings(**{**values, **changes})), COUNT, 10)


@pytest.mark.parametrize(("wanted", "ranks", "threads"), [
    (60, 8, 8), (64, 8, 8), (16, 2, 8), (4, 8, 4), (6, 4, 4), (3, 2, 3), (1, 8, 1), (60, 1, 60)])
def test_a_machines_ranks_share_its_threads_but_take_four(monkeypatch, wanted, ranks, threads):
    monkeypatch.setenv("HOROVOD_LOCAL_SIZE", str(ranks))
    got = loading(settings(num_data_workers=wanted), training=True)["workers"]
    assert got == threads


@pytest.fixture
def pack(tmp_path, jpeg):
    """pack(damaged): a set of twelve pictures; `damaged` gives the bytes of some by their place."""
    def make(damaged=None, name="set"):
        rng = np.random.default_rng(0)
        with RecordWriter(tmp_path / name) as writer:
            for place in range(COUNT):
                picture = jpeg(rng.integers(0, 256, (60, 50, 3), np.uint8))
                cut = (damaged or {}).get(place, len(picture))
                writer.write(100 + place, place % 10, picture[:cut] if isinstance(cut, int)
                             else cut)
        return RecordSet(tmp_path / f"{name}.rec")
    return make


@pytest.fixture
def records(pack):
    with pack() as records:
        yield records


@pytest.fixture
def unbuilt(monkeypatch):
    """As where there was no compiler."""
    monkeypatch.setattr(native, "why_not", lambda: "it was not built: apt-get install g++")


@pytest.mark.parametrize("make", [train_loader, eval_loader])
@pytest.mark.parametrize("asked", ["auto", "native", "opencv"])
def test_the_backend_is_the_one_asked_for(records, native_core, make, asked):
    with make(settings(data_backend=asked), records) as loader:
        next(loader.epoch())
        assert loader.backend == {"auto": "native"}.get(asked, asked)


@pytest.mark.parametrize("make", [train_loader, eval_loader])
def test_where_native_was_not_built(records, unbuilt, make):
    with make(settings(), records) as loader:
        next(loader.epoch())
        assert (loader.backend, loader.backend_note) == (
            "opencv", "native: it was not built: apt-get install g++")
    with pytest.raises(InputError) as caught:
        make(settings(data_backend="native"), records)
    assert str(caught.value) == "--data-backend native: it was not built: apt-get install g++"
    for shortcut in ("train", "always"):
        with pytest.raises(InputError) as caught:
            make(settings(dct_shortcut=shortcut), records)
        assert f"--dct-shortcut {shortcut} " in str(caught.value)
        assert "apt-get install g++" in str(caught.value)
        assert "\n" not in str(caught.value)
    make(settings(dct_shortcut="never"), records).close()


@pytest.mark.parametrize(("changes", "train", "evaluation"), [
    ({}, True, False), ({"dct_shortcut": "train"}, True, False),
    ({"dct_shortcut": "always"}, True, True), ({"dct_shortcut": "never"}, False, False),
    ({"data_backend": "opencv"}, False, False)], ids=str)
def test_the_shortcut_reaches_the_decoder(records, native_core, monkeypatch, changes, train,
                                          evaluation):
    seen, job = [], backends.native_job
    monkeypatch.setattr(backends, "native_job", lambda *rest, dct_shortcut, **options: seen.append(
        dct_shortcut) or job(*rest, dct_shortcut=dct_shortcut, **options))
    for make in (train_loader, eval_loader):
        with make(settings(**changes), records) as loader:
            next(loader.epoch())
            loader.close()
    if changes.get("data_backend") == "opencv":
        assert seen == []
    else:
        assert seen == [train] * 3 + [evaluation] * 3  # three batches each, all prefetched


@pytest.mark.parametrize("make", [train_loader, eval_loader])
def test_the_rest_of_the_flags_reaches_the_loader(records, monkeypatch, make):
    monkeypatch.setattr("gluon_tricks.classification.loaders.cores", lambda: 3)
    with make(settings(num_data_workers=0, antialias=True, on_bad_record="skip"), records,
              [5]) as loader:
        assert loader._pool._max_workers == 3
        assert loader._transform.antialias
        assert loader._skip_damaged
        assert loader.skipped == {5}
        assert 5 not in [index for batch in loader.epoch() for index in batch.indices.tolist()]
    with make(settings(num_data_workers=2), records) as loader:
        assert loader._pool._max_workers == 2
        assert not loader._transform.antialias and not loader._skip_damaged
        assert next(loader.epoch()).images.dtype == np.float32
    with make(settings(dtype="float16", num_gpus=1), records) as loader:
        assert next(loader.epoch()).images.dtype == np.float16


def test_autoaugment_is_for_training_alone(records):
    chosen = settings(auto_augment="svhn")
    with train_loader(chosen, records) as training, \
            eval_loader(chosen, records) as validation:
        assert training._transform.auto_augment == "svhn" and training.backend == "opencv"
        assert "auto_augment" not in vars(validation._transform)
        assert np.isfinite(next(training.epoch()).images).all()


def test_mxnet_s_loaders_have_what_runs_ask_of_them(records):
    for make in (train_loader, eval_loader):
        with make(settings(data_backend="mxnet", num_data_workers=0), records) as loader:
            assert isinstance(loader, ImageRecordLoader)
            assert (loader.backend, loader.skipped, loader.records) == ("mxnet", set(), records)
            assert "random" in loader.backend_note and "\n" not in loader.backend_note
            assert skipped_line(loader) == ""
            assert sum(len(batch.labels) for batch in loader.epoch()) == COUNT


@pytest.mark.parametrize(("size", "ratio", "ours", "gluoncvs"), [
    (224, 0.875, 256, 256), (331, 0.875, 378, 379), (32, 0.9, 36, 36), (96, 0.92, 104, 105)])
def test_gluoncv_rounds_the_short_edge_up(records, size, ratio, ours, gluoncvs):
    """331 / 0.875 = 378.29, 32 / 0.9 = 35.56, 96 / 0.92 = 104.35."""
    changes = {"input_size": size, "crop_ratio": ratio}
    with eval_loader(settings(**changes), records) as loader:
        assert loader._transform.resize == ours
    with eval_loader(settings(data_backend="mxnet", **changes), records) as loader:
        assert loader._settings["resize"] == gluoncvs


DAMAGE = {4: b"no picture", 9: 700, 11: b""}


def test_damage_is_found_before_a_run(pack):
    with pack(DAMAGE) as records:
        assert damaged_records(settings(on_bad_record="skip"), records) == [4, 9, 11]
        with pytest.raises(InputError) as caught:
            damaged_records(settings(), records)
        message = str(caught.value)
        place = f"the record with key 104 at byte {records.offsets[4]}"
    assert message.startswith(f"{records.path}, {place}: ")
    assert "3 of 12 records" in message and "--on-bad-record skip" in message
    assert "\n" not in message


@pytest.mark.parametrize("action", ["fail", "skip"])
def test_a_whole_set_has_no_damage(records, action):
    assert damaged_records(settings(on_bad_record=action, num_data_workers=0), records) == []


def test_a_set_of_damaged_records_alone_is_refused(pack):
    with pack(dict.fromkeys(range(COUNT), b"no picture")) as records, \
            pytest.raises(InputError, match="all 12 records are damaged"):
        damaged_records(settings(on_bad_record="skip"), records)


def test_the_line_names_the_keys(pack):
    chosen = settings(on_bad_record="skip")
    with pack(DAMAGE) as records:
        found = damaged_records(chosen, records)
        with eval_loader(chosen, records, found) as loader:
            assert skipped_line(loader) == (
                f"{records.path}: 3 damaged records skipped, by key: "
                "104, 109, 111")
            loader.skipped = set(range(12)) - {0}
            assert skipped_line(loader).endswith(", 110, 111")
    with pack(name="whole") as records, eval_loader(chosen, records) as loader:
        assert skipped_line(loader) == ""


def test_a_long_line_is_cut(tmp_path, noise_records):
    noise_records(tmp_path / "many", 30, (8, 8), 2)
    chosen = dataclasses.replace(settings(), num_classes=2)
    with RecordSet(tmp_path / "many.rec") as records, \
            eval_loader(chosen, records, range(25)) as loader:
        line = skipped_line(loader)
    assert "25 damaged records" in line
    assert line.endswith("by key: " + ", ".join(map(str, range(20))) + ", ...")


def test_the_seed_reaches_the_pictures_and_their_order(records):
    def numbers(seed):
        with train_loader(settings(seed=seed), records) as loader:
            return {index: image.tobytes() for batch in loader.epoch()
                    for index, image in zip(batch.indices.tolist(), batch.images, strict=True)}

    mine, other = numbers(3), numbers(4)
    assert mine == numbers(3)
    assert list(mine) == list(numbers(3))
    assert list(mine) != list(other)
    assert all(mine[index] != other[index] for index in mine)


def test_the_flags_reach_image_record_iter(records):
    chosen = settings(data_backend="mxnet", seed=5, crop_area=(0.3, 0.6), color_jitter=0.2,
                      pca_noise=0.3, rgb_mean=(1.0, 2.0, 3.0), rgb_std=(4.0, 5.0, 6.0),
                      num_data_workers=3)
    pixels = {"mean_r": 1, "mean_g": 2, "mean_b": 3, "std_r": 4, "std_g": 5, "std_b": 6,
              "preprocess_threads": 3, "data_shape": (3, 32, 32), "batch_size": 4}
    with train_loader(chosen, records) as loader:
        assert loader._settings.items() >= {
            **pixels, "seed": 5, "min_random_area": 0.3, "max_random_area": 0.6,
            "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "pca_noise": 0.3}.items()
    with eval_loader(chosen, records) as loader:
        assert loader._settings.items() >= pixels.items()
