"""Batches are the same whoever makes them, whenever and in whatever type and layout."""

import cv2
import numpy as np
import pytest

from gluon_tricks.data import backends
from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.record import MAGIC, RecordSet
from gluon_tricks.data.transforms import EvalTransform, TenCropTransform, TrainTransform
from gluon_tricks.errors import InputError

RECORDS = 26


def picture(key, height=None, width=None):
    rng = np.random.default_rng(key)
    shape = height or int(rng.integers(40, 70)), width or int(rng.integers(40, 70)), 3
    return rng.integers(0, 256, shape, np.uint8)


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.fixture
def epoch(backend):
    """epoch(records, order, number, start_step): its batches, by each backend."""
    def make(records, order, number=0, start_step=0, transform=None, **options):
        options = {"seed": 11, "workers": 2, "backend": backend, **options}
        with RecordLoader(records, transform or TrainTransform(size=24), order,
                          **options) as loader:
            assert loader.backend == options["backend"]
            return list(loader.epoch(number, start_step))
    return make


def same(mine, theirs):
    """Bit for bit the same batches."""
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.indices.tolist() == b.indices.tolist()
        assert a.labels.tolist() == b.labels.tolist()
        assert a.images.tobytes() == b.images.tobytes()


def test_batches_have_the_images_of_their_indices(tmp_path, epoch, write_records):
    transform = EvalTransform(size=32, resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pictures = [png(picture(k)) for k in range(RECORDS)]
    with RecordSet(write_records(tmp_path / "a", pictures)) as records:
        batches = epoch(records, TrainOrder(RECORDS, 6, seed=1), transform=transform)
    assert len(batches) == 4
    for batch in batches:
        assert batch.images.shape == (6, 3, 32, 32)
        assert (batch.images.dtype, batch.labels.dtype) == (np.float32, np.int32)
        assert batch.labels.tolist() == [index % 5 for index in batch.indices]
        for pixels, index in zip(batch.images, batch.indices, strict=True):
            image = picture(index)
            top, left = (image.shape[0] - 32) // 2, (image.shape[1] - 32) // 2
            expected = image[top:top + 32, left:left + 32].transpose(2, 0, 1)
            assert (pixels == expected).all()


@pytest.mark.parametrize("options", [
    {"workers": 1}, {"workers": 2}, {"workers": 4}, {"workers": 13}, {"workers": 0},
    {"prefetch": 0}, {"prefetch": 1}, {"prefetch": 100},
])
def test_workers_and_prefetch_change_nothing(mixed, epoch, options):
    order = TrainOrder(RECORDS, 4, seed=5)
    same(epoch(mixed, order, 3, workers=1), epoch(mixed, order, 3, **options))


def test_resuming_at_any_step_gives_the_rest(mixed, epoch):
    order = TrainOrder(RECORDS, 5, seed=5)
    whole = epoch(mixed, order, 2)
    assert len(whole) == 5
    for start in range(6):
        same(epoch(mixed, order, 2, start, workers=1 + start % 3), whole[start:])


@pytest.mark.parametrize(("world_size", "accumulate", "steps"), [
    (2, 1, 6), (3, 1, 4), (4, 1, 3), (2, 3, 6), (3, 3, 3), (4, 3, 3)])
def test_ranks_see_the_pixels_a_single_process_sees(mixed, epoch, world_size, accumulate, steps):
    alone = epoch(mixed, TrainOrder(RECORDS, 2 * world_size, seed=5, accumulate=accumulate), 1)
    ranks = [epoch(mixed, TrainOrder(RECORDS, 2, 5, rank, world_size, accumulate), 1)
             for rank in range(world_size)]
    assert [len(each) for each in (alone, *ranks)] == [steps] * (1 + world_size)
    for step, batch in enumerate(alone):
        for field in ("images", "labels", "indices"):
            joined = np.concatenate([getattr(rank[step], field) for rank in ranks])
            assert joined.tobytes() == getattr(batch, field).tobytes()


def test_a_sample_depends_on_seed_epoch_and_record_alone(mixed, epoch):
    def by_index(batches):
        return {index: pixels.tobytes() for batch in batches
                for index, pixels in zip(batch.indices.tolist(), batch.images, strict=True)}

    shuffled = by_index(epoch(mixed, TrainOrder(RECORDS, 1, seed=5), 1))
    in_order = by_index(epoch(mixed, EvalOrder(RECORDS, 7), 1))
    assert shuffled == in_order
    for other in (by_index(epoch(mixed, EvalOrder(RECORDS, 7), 2)),
                  by_index(epoch(mixed, EvalOrder(RECORDS, 7), 1, seed=12))):
        assert all(other[index] != in_order[index] for index in range(RECORDS))


def test_two_epochs_at_once_do_not_disturb_each_other(mixed, epoch, backend):
    order = TrainOrder(RECORDS, 4, seed=5)
    with RecordLoader(mixed, TrainTransform(size=24), order, seed=11, workers=2,
                      backend=backend) as loader:
        pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    same([a for a, _ in pairs], epoch(mixed, order, 0))
    same([b for _, b in pairs], epoch(mixed, order, 1))


def test_training_has_each_record_at_most_once_and_another_order_each_epoch(mixed, epoch):
    orders = []
    for number in range(3):
        batches = epoch(mixed, TrainOrder(RECORDS, 5, seed=5), number)
        orders.append([index for batch in batches for index in batch.indices.tolist()])
        assert [len(batch.images) for batch in batches] == [5] * 5
        assert len(set(orders[-1])) == 25
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_evaluation_has_each_record_once(mixed, epoch):
    batches = epoch(mixed, EvalOrder(RECORDS, 8), transform=EvalTransform(32, 36))
    assert [len(batch.images) for batch in batches] == [8, 8, 8, 2]
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(RECORDS))


def test_given_labels_stand_in_for_those_of_the_records(mixed, epoch):
    batches = epoch(mixed, TrainOrder(RECORDS, 4, 5), labels=np.arange(RECORDS) * 3)
    for batch in batches:
        assert batch.labels.dtype == np.int32
        assert batch.labels.tolist() == (batch.indices * 3).tolist()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_of_an_evaluation_have_each_record_once(mixed, epoch, world_size):
    """With the same pixels as in a single process."""
    ranks = [epoch(mixed, EvalOrder(RECORDS, 4, rank, world_size), transform=EvalTransform(32, 36))
             for rank in range(world_size)]
    alone = epoch(mixed, EvalOrder(RECORDS, RECORDS), transform=EvalTransform(32, 36))[0]
    found = {index: pixels.tobytes() for batches in ranks for batch in batches
             for index, pixels in zip(batch.indices.tolist(), batch.images, strict=True)}
    assert sum(len(batch.indices) for batches in ranks for batch in batches) == RECORDS
    assert found == {index: pixels.tobytes() for index, pixels in enumerate(alone.images)}


@pytest.mark.parametrize("transform", [
    TrainTransform(size=24), TrainTransform(size=24, padding=4), EvalTransform(24, 28),
    EvalTransform(24, None), TrainTransform(size=24, antialias=True),
    TrainTransform(size=24, color_jitter=0, pca_noise=0)], ids=repr)
def test_other_types_and_layouts_are_casts_and_transposes(mixed, epoch, transform):
    order = TrainOrder(RECORDS, 13, seed=5)
    plain = epoch(mixed, order, transform=transform)
    for dtype in ("float32", "float16"):
        for layout in ("NCHW", "NHWC"):
            batches = epoch(mixed, order, transform=transform, dtype=dtype, layout=layout)
            for batch, want in zip(batches, plain, strict=True):
                images = want.images if layout == "NCHW" else want.images.transpose(0, 2, 3, 1)
                assert batch.images.shape == images.shape
                assert batch.images.dtype == dtype
                assert batch.images.tobytes() == images.astype(dtype).tobytes()
                assert batch.images.flags.c_contiguous


def test_several_crops_of_an_image_are_of_one_decoding(mixed, monkeypatch):
    decoded = []
    monkeypatch.setattr(backends, "decode", lambda data, decode=backends.decode:
                        decoded.append(data) or decode(data))
    transform = TenCropTransform(24, 28)
    made = {}
    for layout in ("NCHW", "NHWC"):
        with RecordLoader(mixed, transform, EvalOrder(RECORDS, 4), layout=layout) as loader:
            assert loader.backend == "opencv" and "TenCropTransform" in loader.backend_note
            made[layout] = list(loader.epoch())
    assert len(decoded) == 2 * RECORDS
    assert [len(batch.images) for batch in made["NCHW"]] == [4, 4, 4, 4, 4, 4, 2]
    for batch, other in zip(made["NCHW"], made["NHWC"], strict=True):
        assert (batch.images.transpose(0, 1, 3, 4, 2) == other.images).all()
        for crops, index in zip(other.images, batch.indices, strict=True):
            data = np.frombuffer(mixed.read(index), np.uint8)
            image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            assert crops.tobytes() == transform.apply(image).tobytes()


def test_the_backends_make_the_same_images_up_to_resampling(mixed, native_core):
    """Blobs 24 pixels high and wide: decoders differ by a gray level or two, filters less."""
    for transform in (TrainTransform(size=24), EvalTransform(24, 28),
                      TrainTransform(size=24, padding=4)):
        made = {}
        for backend in ("native", "opencv"):
            with RecordLoader(mixed, transform, TrainOrder(RECORDS, 13, 5), seed=3,
                              backend=backend) as loader:
                made[backend] = np.concatenate([batch.images for batch in loader.epoch()])
        difference = 57 * np.abs(made["native"] - made["opencv"]).mean(axis=(1, 2, 3))
        assert np.median(difference) < 2.5
        other = 57 * np.abs(made["native"] - made["opencv"][::-1]).mean(axis=(1, 2, 3))
        assert np.median(other) > 20  # from another image


def test_auto_takes_what_is_there_and_says_why(mixed, native_core, monkeypatch):
    class Own(EvalTransform):
        """Something the native decoder cannot know."""

    def chosen(transform, name="auto"):
        with RecordLoader(mixed, transform, EvalOrder(RECORDS, 4), backend=name) as loader:
            next(loader.epoch())
            return loader.backend, loader.backend_note

    assert chosen(EvalTransform(24, 28)) == ("native", "")
    assert chosen(EvalTransform(24, 28), "opencv") == ("opencv", "")
    assert chosen(Own(24, 28)) == ("opencv", "native: it does not support Own")
    with pytest.raises(InputError, match="--data-backend native: it does not support Own"):
        chosen(Own(24, 28), "native")
    monkeypatch.setattr("gluon_tricks.data.native.why_not", lambda: "it was not built: fix it")
    assert chosen(EvalTransform(24, 28)) == ("opencv", "native: it was not built: fix it")
    with pytest.raises(InputError) as caught:
        chosen(EvalTransform(24, 28), "native")
    assert str(caught.value) == "--data-backend native: it was not built: fix it"


@pytest.mark.parametrize("wrong", [{"dtype": "float64"}, {"layout": "CHWN"}, {"backend": "mxnet"}])
def test_what_no_loader_knows_is_refused(mixed, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        RecordLoader(mixed, TrainTransform(size=24), TrainOrder(RECORDS, 2, 0), **wrong)


def test_a_record_in_several_parts_has_the_image_of_a_whole_one(tmp_path, blobs, write_records,
                                                                 backend):
    """A comment that contains RecordIO's magic number at a multiple of four."""
    plain = blobs(1)
    comment = b"\xff\xfe\x00\x10\0\0" + MAGIC.to_bytes(4, "little") * 3
    with RecordSet(write_records(tmp_path / "a", [plain, plain[:2] + comment + plain[2:]])) as both:
        assert (both.lengths < 0).tolist() == [False, True]
        with RecordLoader(both, EvalTransform(24, 28), EvalOrder(2, 2), backend=backend) as loader:
            a, b = next(loader.epoch()).images
    assert np.abs(a - b).max() < 0.2  # the second is OpenCV's either way
