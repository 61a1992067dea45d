"""ImageRecordIter made exact: each record once per pass, GluonCV's settings, no crash, no leak."""

import io
import os
import threading

import cv2
import mxnet as mx
import numpy as np
import pytest
from PIL import Image

from gluon_tricks.data.image_record_iter import ImageRecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.errors import InputError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # pixels stay as they are
NO_COLOR = {"color_jitter": 0.0, "pca_noise": 0.0}


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def grey(number, height=12, width=10):
    """An image that identifies itself: all its pixels are 6 * number + 2."""
    return png(np.full((height, width, 3), 6 * number + 2, np.uint8))


def noise(height=60, width=70):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def write(prefix, pictures):
    """Keys from 100 up, labels 0 to 6 in turn."""
    with RecordWriter(prefix) as writer:
        for number, data in enumerate(pictures):
            writer.write(100 + number, number % 7, data)
    return prefix.with_suffix(".rec")


def greys(prefix, count):
    return RecordSet(write(prefix, [grey(number) for number in range(count)]))


def evaluation(records, batch_size, **options):
    options = {"size": 8, "resize": None, "workers": 2, **PLAIN, **options}
    return ImageRecordLoader.evaluation(records, EvalOrder(len(records), batch_size), **options)


def training(records, batch_size, **options):
    options = {"size": 8, "workers": 2, **PLAIN, **NO_COLOR, **options}
    return ImageRecordLoader.train(records, TrainOrder(len(records), batch_size, seed=1), **options)


def numbers(batches):
    """Which gray images these are, checked pixel by pixel and against their labels."""
    found = []
    for batch in batches:
        values = batch.images[:, 0, 0, 0]
        assert (batch.images == values[:, None, None, None]).all()
        own = (values - 2) / 6
        assert batch.labels.tolist() == (own % 7).tolist()
        found += own.tolist()
    return found


def finishes(function):
    """Whether a call returns; if not, the test fails rather than hangs."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(120)
    return not thread.is_alive()


@pytest.mark.parametrize("count", range(1, 41))
def test_each_pass_has_each_record_exactly_once(tmp_path, count):
    with greys(tmp_path / "a", count) as records:
        for batch_size in (1, 3, 4, 7, 16, 40):
            with evaluation(records, batch_size) as loader:
                for number in range(3):
                    batches = list(loader.epoch(number))
                    assert numbers(batches) == list(range(count))
                    expected = list(EvalOrder(count, batch_size).batches())
                    assert [batch.indices.tolist() for batch in batches] == \
                        [indices.tolist() for indices in expected]
                    for batch, indices in zip(batches, expected, strict=True):
                        assert batch.images.shape == (len(indices), 3, 8, 8)
                        assert batch.labels.shape == (len(indices),)


def test_types_are_those_of_record_loader(tmp_path):
    with greys(tmp_path / "a", 5) as records:
        for loader in (evaluation(records, 2), training(records, 2)):
            batch = next(loader.epoch())
            assert isinstance(batch.images, np.ndarray)
            assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == \
                (np.float32, np.int32, np.int64)
            loader.close()


def test_a_pass_given_up_does_not_disturb_the_next(tmp_path):
    with greys(tmp_path / "a", 23) as records, evaluation(records, 5) as loader:
        for used in range(6):
            for _ in zip(range(used), loader.epoch(), strict=False):
                pass
            assert numbers(loader.epoch()) == list(range(23))


def test_starting_at_any_step_gives_the_rest(tmp_path):
    with greys(tmp_path / "a", 17) as records, evaluation(records, 5) as loader:
        for start in range(5):
            batches = list(loader.epoch(0, start))
            assert numbers(batches) == list(range(17))[5 * start:]
            assert [i for batch in batches for i in batch.indices] == list(range(17))[5 * start:]


def test_indices_hold_where_the_idx_is_not_in_the_order_of_the_rec(tmp_path):
    greys(tmp_path / "a", 19).close()
    lines = (tmp_path / "a.idx").read_text().splitlines()
    order = np.random.default_rng(0).permutation(19)
    elsewhere = tmp_path / "elsewhere.idx"
    elsewhere.write_text("".join(f"{lines[i]}\n" for i in order))
    (tmp_path / "a.idx").unlink()
    with RecordSet(tmp_path / "a.rec", elsewhere) as records, evaluation(records, 4) as loader:
        batches = list(loader.epoch())
        indices = np.concatenate([batch.indices for batch in batches])
        assert sorted(indices) == list(range(19))
        assert order[indices].tolist() == numbers(batches)
        assert records.labels[indices].tolist() == [i for b in batches for i in b.labels]


def test_evaluation_is_resize_center_crop_and_normalization(tmp_path, bilinear):
    """Shorter edge 60 to 40: 70 becomes 46.67, which ImageRecordIter cuts to 46."""
    image, mean, std = noise(60, 70), (10.0, 20.0, 30.0), (2.0, 3.0, 5.0)
    with RecordSet(write(tmp_path / "a", [png(image)])) as records, evaluation(
            records, 4, size=32, resize=40, mean=mean, std=std) as loader:
        batch, = loader.epoch()
    expected = (bilinear(image, 40, 46)[4:36, 7:39] - mean) / std
    assert abs(batch.images[0].transpose(1, 2, 0) - expected).max() < 1.01 / 2  # rounds to integers


def test_twenty_passes_use_one_iterator_and_no_more_memory(tmp_path, monkeypatch):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    made = []
    real = mx.io.ImageRecordIter
    monkeypatch.setattr(mx.io, "ImageRecordIter", lambda **o: made.append(o) or real(**o))
    with greys(tmp_path / "a", 30) as records, \
            evaluation(records, 7, size=224, resize=256) as loader:
        for number in range(24):
            assert sum(len(batch.labels) for batch in loader.epoch(number)) == 30
            if number == 3:
                before = resident()
    assert len(made) == 1
    assert resident() - before < 20


def test_training_has_each_record_at_most_once_and_drops_the_tail(tmp_path):
    with greys(tmp_path / "a", 38) as records, training(records, 5) as loader:
        epochs = []
        for number in range(4):
            batches = list(loader.epoch(number))
            assert [batch.images.shape for batch in batches] == [(5, 3, 8, 8)] * 7
            assert all((batch.indices == -1).all() for batch in batches)
            found = numbers(batches)
            assert len(set(found)) == 35
            assert set(found) <= set(range(38))
            epochs.append(found)
    assert all(found != sorted(found) for found in epochs)
    assert len({tuple(found) for found in epochs}) == 4


def test_training_after_start_step_has_the_remaining_steps(tmp_path):
    with greys(tmp_path / "a", 38) as records, training(records, 5) as loader:
        whole = numbers(loader.epoch())
    with greys(tmp_path / "b", 38) as records, training(records, 5) as loader:
        assert numbers(loader.epoch(0, 3)) == whole[15:]  # the same seed, the same order
        assert len(list(loader.epoch(1, 6))) == 1
        assert list(loader.epoch(2, 7)) == []


def test_no_whole_batch_means_no_batch(tmp_path):
    with greys(tmp_path / "a", 3) as records, training(records, 5) as loader:
        assert list(loader.epoch()) == []


def test_the_seed_fixes_the_order_of_the_records(tmp_path):
    with greys(tmp_path / "a", 40) as records:
        def order(seed):
            with training(records, 10, seed=seed) as loader:
                return [numbers(loader.epoch(number)) for number in range(3)]

        assert order(3) == order(3)
        assert order(3) != order(4)
        assert order((1 << 40) + 3) == order(3)  # MXNet accepts 31 bits


def test_training_passes_gluoncvs_settings(tmp_path, monkeypatch):
    """The values of GluonCV's train_imagenet.py at its defaults."""
    given = {}
    monkeypatch.setattr(mx.io, "ImageRecordIter", lambda **o: given.update(o))
    with greys(tmp_path / "a", 10) as records:
        loader = ImageRecordLoader.train(
            records, TrainOrder(10, 2, 0), mean=(123.68, 116.779, 103.939),
            std=(58.393, 57.12, 57.375))
        with pytest.raises(AttributeError):  # there is no iterator
            next(loader.epoch())
    assert given == {
        "path_imgrec": str(tmp_path / "a.rec"), "path_imgidx": str(tmp_path / "a.idx"),
        "preprocess_threads": 4, "shuffle": True, "batch_size": 2, "data_shape": (3, 224, 224),
        "mean_r": 123.68, "mean_g": 116.779, "mean_b": 103.939,
        "std_r": 58.393, "std_g": 57.12, "std_b": 57.375,
        "rand_mirror": True, "random_resized_crop": True,
        "max_aspect_ratio": 4 / 3, "min_aspect_ratio": 3 / 4,
        "max_random_area": 1.0, "min_random_area": 0.08,
        "brightness": 0.4, "saturation": 0.4, "contrast": 0.4, "pca_noise": 0.1,
        "seed": 0, "round_batch": False, "verbose": False}


def test_training_crops_flips_and_colors(tmp_path):
    """Images that rise from left to right, from 0 to 252, red only."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0] = np.arange(64) * 4
    with RecordSet(write(tmp_path / "a", [png(ramp)] * 64)) as records:
        def epoch(**options):
            with training(records, 64, size=16, **options) as loader:
                batch, = loader.epoch()
            return batch.images

        still = epoch(area=(0.08, 0.2))
        assert not still[:, 1:].any()
        rises = still[:, 0, :, -1].mean(1) - still[:, 0, :, 0].mean(1)
        assert 16 < (rises < 0).sum() < 48  # flipped, 4 standard deviations around half
        assert abs(rises).max() < 252 * (0.2 * 4 / 3) ** 0.5  # the widest crop of that area
        assert epoch(area=(0.08, 0.2), color_jitter=0.4)[:, 0].std() != still[:, 0].std()
        assert epoch(area=(0.08, 0.2), pca_noise=0.1)[:, 1:].any()


def test_nothing_is_printed(tmp_path, capfd):
    with greys(tmp_path / "a", 10) as records:
        for loader in (evaluation(records, 3, resize=10), training(records, 3)):
            list(loader.epoch())
            loader.close()
    assert capfd.readouterr() == ("", "")


def test_a_new_pass_or_closing_ends_the_one_under_way(tmp_path):
    with greys(tmp_path / "a", 10) as records, evaluation(records, 3) as loader:
        old = loader.epoch()
        next(old)
        new = loader.epoch()
        assert next(new).indices.tolist() == [0, 1, 2]
        with pytest.raises(RuntimeError, match="this pass has ended"):
            next(old)
        assert next(new).indices.tolist() == [3, 4, 5]
        loader.close()
        with pytest.raises(RuntimeError, match="this pass has ended"):
            next(new)
        loader.close()


def test_giving_up_in_the_middle_does_not_hang(tmp_path):
    done = []

    def give_up():
        with greys(tmp_path / "a", 40) as records:
            for make in (training, evaluation):
                with make(records, 2) as loader:
                    next(loader.epoch())
                make(records, 2).close()
        done.append(True)

    assert finishes(give_up)
    assert done


def webp():
    data = io.BytesIO()
    Image.fromarray(noise()).save(data, "webp")
    return data.getvalue()


BAD = {"empty": b"", "text": b"no picture", "start of a JPEG": b"\xff\xd8\xff\xe0",
       "cut PNG": png(noise())[:900], "WebP": webp()}


def failing(prefix, data, place=7):
    """A set of twelve whose record `place`, with the key 100 + place, is `data`."""
    return RecordSet(write(prefix, [data if number == place else grey(number)
                                    for number in range(12)]))


@pytest.mark.parametrize("name", BAD)
def test_evaluation_names_the_record_that_mxnet_cannot_decode(tmp_path, name):
    """Without the check, the process would die of a division by zero."""
    with failing(tmp_path / "a", BAD[name]) as records:
        with pytest.raises(InputError) as raised:
            evaluation(records, 5, resize=10)
        message, offset = str(raised.value), records.offsets[7]
    assert message.startswith(f"{tmp_path / 'a.rec'}, the record with key 107 at byte {offset}: ")
    assert "im2rec.py --verify" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("make", [training, evaluation])
def test_a_bad_record_during_a_pass_names_the_rec_and_nothing_hangs(tmp_path, make, name):
    messages = []

    def run():
        with failing(tmp_path / "a", BAD[name]) as records, make(records, 3) as loader:
            for number in range(3):
                try:
                    list(loader.epoch(number))
                except InputError as error:
                    messages.append(str(error))

    assert finishes(run)
    assert len(messages) == 3
    for message in messages:
        assert message.startswith(f"{tmp_path / 'a.rec'}: ImageRecordIter fails on a record (")
        assert "im2rec.py --verify" in message
        assert "\n" not in message


def test_a_jpeg_that_is_cut_short_goes_unnoticed(tmp_path, jpeg):
    whole = jpeg(cv2.resize(noise(6, 7), (70, 60)), 90)
    pictures = [whole, whole[:len(whole) * 3 // 4]]
    with RecordSet(write(tmp_path / "a", pictures)) as records, \
            evaluation(records, 2, size=60) as loader:
        batch, = loader.epoch()
    assert (batch.images[0, :, :16] == batch.images[1, :, :16]).all()
    assert (batch.images[0, :, 40:] != batch.images[1, :, 40:]).any()


def test_a_set_changed_while_in_use_is_said_to_be(tmp_path):
    greys(tmp_path / "b", 5).close()
    with greys(tmp_path / "a", 10) as records, evaluation(records, 3) as loader:
        for suffix in ("rec", "idx"):
            (tmp_path / f"b.{suffix}").rename(tmp_path / f"a.{suffix}")
        with pytest.raises(InputError, match=r"a\.rec or its \.idx was changed"):
            list(loader.epoch())


def test_several_ranks_are_refused(tmp_path):
    with greys(tmp_path / "a", 10) as records:
        for make, order in ((ImageRecordLoader.train, TrainOrder(10, 2, 0, 1, 2)),
                            (ImageRecordLoader.evaluation, EvalOrder(10, 2, 0, 3))):
            with pytest.raises(InputError, match="--data-backend mxnet cannot share") as raised:
                make(records, order, **PLAIN)
            assert str(tmp_path / "a.rec") in str(raised.value)
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a#b", "a;b", "a?b"])
def test_a_path_that_mxnet_misreads_is_refused(tmp_path, name):
    with greys(tmp_path / name, 10) as records:
        for make in (training, evaluation):
            with pytest.raises(InputError, match="# ; or \\?"):
                make(records, 2)


@pytest.mark.parametrize("name", ["a b", "ü", "a*b", "a:b", "a%20b", "a[1]", "a,b"])
def test_other_unusual_paths_work(tmp_path, name):
    with greys(tmp_path / name, 10) as records, evaluation(records, 4) as loader:
        assert numbers(loader.epoch()) == list(range(10))


def test_an_idx_that_mxnet_misreads_is_refused(tmp_path):
    greys(tmp_path / "a", 3).close()
    (tmp_path / "a.idx").rename(tmp_path / "a#b.idx")
    with RecordSet(tmp_path / "a.rec", tmp_path / "a#b.idx") as records, \
            pytest.raises(InputError, match=r"a#b\.idx: MXNet cannot open"):
        ImageRecordLoader.evaluation(records, EvalOrder(3, 2), **PLAIN)
