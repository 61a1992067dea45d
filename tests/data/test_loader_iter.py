"""RecordLoader as an MXNet iterator: its protocol, its position, GluonCV's own loops."""

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

from gluon_tricks.data.loader import RecordLoader
from gluon_tricks.data.order import EvalOrder, TrainOrder
from gluon_tricks.data.record import RecordSet
from gluon_tricks.data.transforms import EvalTransform, TrainTransform
from gluon_tricks.errors import InputError

RECORDS = 26


@pytest.fixture
def make(mixed, backend):
    """make(order, transform, **options): a loader, closed after the test."""
    loaders = []

    def build(order=None, transform=None, **options):
        order = order or TrainOrder(RECORDS, 4, seed=5)
        loaders.append(RecordLoader(mixed, transform or TrainTransform(size=24), order,
                                    **{"seed": 11, "workers": 2, "backend": backend, **options}))
        return loaders[-1]
    yield build
    for loader in loaders:
        loader.close()


def bits(batches):
    """What must be the same in DataBatches or Batches."""
    return [(batch.index.tolist(), batch.label[0].asnumpy().tolist(),
             batch.data[0].asnumpy().tobytes()) if isinstance(batch, mx.io.DataBatch) else
            (batch.indices.tolist(), batch.labels.tolist(), batch.images.tobytes())
            for batch in batches]


@pytest.mark.parametrize(("options", "shape"), [
    ({}, (4, 3, 24, 24)), ({"layout": "NHWC", "dtype": "float16"}, (4, 24, 24, 3))])
def test_what_it_provides_is_what_comes(make, options, shape):
    loader = make(**options)
    data, = loader.provide_data
    label, = loader.provide_label
    assert isinstance(loader, mx.io.DataIter)
    assert (data.name, data.shape, label.name, label.shape) == ("data", shape, "softmax_label",
                                                                (4,))
    assert (np.dtype(data.dtype), data.layout) == (options.get("dtype", "float32"),
                                                   options.get("layout", "NCHW"))
    assert (loader.batch_size, np.dtype(label.dtype)) == (4, np.float32)
    for batch in loader:
        assert (batch.data[0].shape, batch.data[0].dtype) == (shape, np.dtype(data.dtype))
        assert (batch.label[0].shape, batch.label[0].dtype) == ((4,), np.float32)
        assert (len(batch.data), len(batch.label), batch.pad) == (1, 1, 0)
        assert batch.label[0].asnumpy().tolist() == [index % 5 for index in batch.index]


def test_a_pass_is_an_epoch_and_reset_goes_to_the_next(make):
    loader, other = make(), make()
    for number in range(3):
        assert bits(loader) == bits(other.epoch(number))
        for _ in range(3):
            with pytest.raises(StopIteration):
                loader.next()
            with pytest.raises(StopIteration):
                next(loader)
        loader.reset()


def test_reset_before_the_first_batch_changes_nothing(make):
    """GluonCV's scripts reset at the start of each epoch, including the first."""
    loader, other = make(), make()
    for number in range(3):
        loader.reset()
        loader.reset()
        assert bits(loader) == bits(other.epoch(number))


def test_reset_in_the_middle_goes_to_the_next_epoch(make):
    loader, other = make(), make()
    for used in range(1, 4):
        for _ in range(used):
            loader.next()
        loader.reset()
    assert bits(loader) == bits(other.epoch(3))


def test_any_position_can_be_set(make):
    loader, other = make(), make()
    for number in (4, 0):
        whole = bits(other.epoch(number))
        for step in range(7):
            loader.seek(number, step)
            assert bits(loader) == whole[step:]
            loader.reset()
            assert bits([loader.next()]) == bits(other.epoch(number + 1))[:1]


def test_seek_in_the_middle_of_a_pass_and_reset_after_it(make):
    loader, other = make(), make()
    loader.next()
    loader.seek(2, 3)
    loader.reset()  # nothing was taken: the position stays
    assert bits(loader) == bits(other.epoch(2))[3:]
    loader.seek(1)
    assert bits([loader.next()]) == bits(other.epoch(1))[:1]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_a_pass(make, world_size):
    ranks = [make(TrainOrder(RECORDS, 4, 5, rank, world_size)) for rank in range(world_size)]
    alone = make(TrainOrder(RECORDS, 4 * world_size, 5))
    for batch in alone:
        parts = [rank.next() for rank in ranks]
        joined = np.concatenate([part.data[0].asnumpy() for part in parts])
        assert joined.tobytes() == batch.data[0].asnumpy().tobytes()
        assert np.concatenate([part.index for part in parts]).tolist() == batch.index.tolist()


def test_the_first_record_s_damage_is_told_in_every_epoch(tmp_path, blobs, write_records, backend):
    pictures = [b"no picture", *(blobs(k) for k in range(8))]
    with RecordSet(write_records(tmp_path / "a", pictures)) as records, RecordLoader(
            records, EvalTransform(24, 28), EvalOrder(9, 4), backend=backend) as loader:
        for _ in range(3):
            loader.reset()
            with pytest.raises(InputError, match="key 100"):
                list(loader)


def test_an_array_holds_its_memory(make):
    """Device arrays of an epoch are read after all its batches were made."""
    loader = make(prefetch=1)
    kept = [(batch.data[0], batch.data[0].asnumpy().tobytes()) for batch in loader]
    loader.reset()
    for _ in loader:
        pass
    for array, found in kept:
        assert array.asnumpy().tobytes() == found


def test_work_that_is_under_way_reads_its_own_batch(make):
    """MXNet computes asynchronously: by then Python has dropped the batch."""
    loader, order = make(prefetch=1), TrainOrder(RECORDS, 4, seed=5)
    weight = mx.nd.random.normal(shape=(24 * 24 * 3, 2000))

    def heavy(array):
        product = mx.nd.dot(array.reshape((len(array), -1)), weight)
        return mx.nd.dot(product, weight, transpose_b=True).sum(axis=1)

    found = []
    for _ in range(3):
        for batch in loader:
            found.append(heavy(batch.data[0]))
            del batch
        loader.reset()
    other = make(order)
    wanted = [heavy(mx.nd.array(batch.images)).asnumpy()
              for number in range(3) for batch in other.epoch(number)]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine.asnumpy(), theirs)


def test_a_batch_may_be_written_to(make):
    """As in-place preprocessing does."""
    loader, other = make(), make()
    for number in range(2):
        for batch, want in zip(loader, other.epoch(number), strict=True):
            assert batch.data[0].asnumpy().tobytes() == want.images.tobytes()
            batch.data[0][:] = -1
        loader.reset()


class Reads(gluon.HybridBlock):
    """Outputs 1 if an image's mean is above 0, else 0."""

    def hybrid_forward(self, F, x):
        bright = x.mean(axis=(1, 2, 3)) > 0
        return F.stack(1 - bright, bright, axis=1)


@pytest.fixture
def val_set(tmp_path, jpeg, write_records):
    """103 gray images, and how many of them `Reads` gets right."""
    levels = np.random.default_rng(0).integers(60, 200, 103)
    pictures = [jpeg(np.full((30, 40, 3), level, np.uint8)) for level in levels]
    with RecordSet(write_records(tmp_path / "val", pictures)) as records:
        yield records, int(((levels > 128) == records.labels).sum())


@pytest.mark.parametrize("context", [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]], ids=len)
def test_gluoncv_s_validation_loop_counts_every_record_once(val_set, backend, context):
    """As `test` in GluonCV's train_imagenet.py. Several devices need batches they can split."""
    records, right = val_set
    order = EvalOrder(103, 16) if len(context) == 1 else EvalOrder(102, 34)
    transform = EvalTransform(24, 28, mean=(128.0,) * 3, std=(1.0,) * 3)
    network, accuracy = Reads(), mx.metric.Accuracy()
    network.hybridize(static_alloc=True, static_shape=True)
    with RecordLoader(records, transform, order, backend=backend) as val_data:
        for _ in range(3):
            val_data.reset()
            accuracy.reset()
            sizes = []
            for batch in val_data:
                data = gluon.utils.split_and_load(batch.data[0], ctx_list=context, batch_axis=0)
                label = gluon.utils.split_and_load(batch.label[0], ctx_list=context, batch_axis=0)
                outputs = [network(X.astype("float32", copy=False)) for X in data]
                accuracy.update(label, outputs)
                sizes.append(sum(map(len, label)))
                assert batch.pad == 0
            if len(context) == 1:
                assert sizes == [16] * 6 + [7]
                assert accuracy.num_inst == 103
                assert accuracy.sum_metric == right
            else:
                assert accuracy.num_inst == 102


def test_module_trains_on_it_and_scores_every_record(make):
    """Module is MXNet's older interface; it takes shapes from the iterator and its batches."""
    output = mx.sym.FullyConnected(mx.sym.Flatten(mx.sym.var("data")), num_hidden=5)
    module = mx.mod.Module(mx.sym.SoftmaxOutput(output, name="softmax"))
    module.fit(make(), num_epoch=2, optimizer_params={"learning_rate": 1e-4})
    accuracy = mx.metric.Accuracy()
    for _ in range(3):
        module.score(make(EvalOrder(RECORDS, 8), EvalTransform(24, 28)), accuracy)
        assert accuracy.num_inst == RECORDS


def test_a_position_that_is_none_is_refused(make):
    loader = make(TrainOrder(RECORDS, 4, seed=5))
    for epoch, step in ((-1, 0), (0, -1), (0, loader.order.steps + 1)):
        with pytest.raises(ValueError, match="an epoch has"):
            loader.seek(epoch, step)
