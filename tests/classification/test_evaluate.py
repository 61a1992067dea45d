"""Every record counted once and scored the same at any batch size."""

import dataclasses
from types import SimpleNamespace

import cv2
import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_tricks.classification.evaluate import correct, evaluate, evaluate_each
from gluon_tricks.classification.settings import Settings
from gluon_tricks.data.loader import Batch, RecordLoader, SkippedReport
from gluon_tricks.data.order import EvalOrder
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.data.transforms import EvalTransform, TenCropTransform
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference.evaluations import Plan, evaluations
from gluon_tricks.models.zoo import get_model

COUNT, CLASSES = 103, 7
TRANSFORM = EvalTransform(size=24, resize=28)


@pytest.fixture(scope="module")
def pictures(jpeg):
    """(JPEG bytes, labels) of 103 noise images of various sizes."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(COUNT):
        height, width = rng.integers(30, 50, 2)
        small = rng.integers(0, 256, (6, 6, 3), np.uint8)
        made.append(jpeg(cv2.resize(small, (int(width), int(height)))))
    return made, rng.integers(0, CLASSES, COUNT)


@pytest.fixture(scope="module")
def records(pictures, tmp_path_factory):
    prefix = tmp_path_factory.mktemp("val") / "val"
    with RecordWriter(prefix) as writer:
        for key, (picture, label) in enumerate(zip(*pictures, strict=True)):
            writer.write(key, label, picture)
    with RecordSet(f"{prefix}.rec") as opened:
        yield opened


@pytest.fixture
def net():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 5, strides=2, in_channels=3), nn.BatchNorm(in_channels=8),
            nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dropout(0.5),
            nn.Dense(CLASSES, in_units=8))
    net.initialize()
    rng = np.random.default_rng(1)
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(rng.uniform(0.2, 1, parameter.shape)
                                       if "running_var" in parameter.name
                                       else rng.normal(0, 1, parameter.shape)))
    return net


@pytest.fixture
def expected(pictures, net):
    """(loss, top-1 hits, top-5 hits) in NumPy, from the logits of one image at a time."""
    losses, hits1, hits5 = [], 0, 0
    for picture, label in zip(*pictures, strict=True):
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        image = TRANSFORM.apply(np.ascontiguousarray(image)).transpose(2, 0, 1)
        logits = net(mx.nd.array(image[None])).asnumpy()[0].astype(np.float64)
        shifted = logits - logits.max()
        losses.append(np.log(np.exp(shifted).sum()) - shifted[label])
        order = np.argsort(-logits)
        hits1 += order[0] == label
        hits5 += label in order[:5]
    return np.mean(losses), hits1, hits5


def hits(scores):
    return correct(scores, "top1"), correct(scores, "top5")


@pytest.mark.parametrize("batch_size", [1, 7, 16, 103, 200])
def test_four_passes_count_every_record_and_agree_with_numpy(records, net, expected, batch_size):
    net.hybridize(static_alloc=True, static_shape=True)
    loss, hits1, hits5 = expected
    assert 0 < hits1 < hits5 < COUNT
    with RecordLoader(records, TRANSFORM, EvalOrder(COUNT, batch_size), workers=2,
                      backend="opencv") as loader:
        for _ in range(4):
            got = evaluate(net, loader, classes=CLASSES, device=mx.cpu())
            assert (got.count, *hits(got)) == (COUNT, hits1, hits5)
            assert got.loss == pytest.approx(loss, rel=1e-5)
            assert got.figures == {"top1": hits1 / COUNT, "top5": hits5 / COUNT}


@pytest.mark.parametrize("batch_size", [16, 103])
def test_the_native_decoder_counts_the_same(records, net, expected, batch_size, native_core):
    """Its pixels differ by rounding: an image on the border of two classes may change sides."""
    loss, hits1, hits5 = expected
    with RecordLoader(records, TRANSFORM, EvalOrder(COUNT, batch_size), workers=2,
                      backend="native") as loader:
        got = [evaluate(net, loader, classes=CLASSES, device=mx.cpu()) for _ in range(3)]
    assert got[0] == got[1] == got[2]
    assert got[0].count == COUNT
    assert all(abs(a - b) <= 2 for a, b in zip(hits(got[0]), (hits1, hits5), strict=True))
    assert got[0].loss == pytest.approx(loss, rel=0.02)


def test_evaluation_leaves_the_network_as_it_was(records, net):
    before = {name: parameter.data().asnumpy().tobytes()
              for name, parameter in net.collect_params().items()}
    with RecordLoader(records, TRANSFORM, EvalOrder(COUNT, 50), workers=1) as loader:
        evaluate(net, loader, classes=CLASSES, device=mx.cpu())
    assert before == {name: parameter.data().asnumpy().tobytes()
                      for name, parameter in net.collect_params().items()}


@pytest.mark.parametrize("batch_size", [1, 16])
def test_ten_crops_are_scored_by_the_mean_of_their_probabilities(records, pictures, net,
                                                                 batch_size):
    """In float64, from the logits of one crop at a time, each cut by hand."""
    means = []
    for picture in pictures[0]:
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        scale = 28 / min(image.shape[:2])
        image = cv2.resize(image.astype(np.float32),
                           tuple(round(side * scale) for side in image.shape[1::-1]))
        image = (image - TRANSFORM.mean) / TRANSFORM.std
        down, right = image.shape[0] - 24, image.shape[1] - 24
        crops = [image[top:top + 24, left:left + 24] for top, left in (
            (0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2))]
        logits = [net(mx.nd.array(crop.transpose(2, 0, 1)[None])).asnumpy()[0].astype(np.float64)
                  for crop in (*crops, *(crop[:, ::-1] for crop in crops))]
        means.append(np.mean([np.exp(z) / np.exp(z).sum() for z in logits], axis=0))
    means, labels = np.array(means), pictures[1]
    with RecordLoader(records, TenCropTransform(size=24, resize=28), EvalOrder(COUNT, batch_size),
                      workers=2) as loader:
        scores, answers = evaluate_each(net, loader, classes=CLASSES, device=mx.cpu(), crops=10)
    first = np.argsort(-means, axis=1)[:, :5]
    assert (scores.count, *hits(scores)) == (
        COUNT, (first[:, 0] == labels).sum(), (first == labels[:, None]).any(axis=1).sum())
    assert scores.loss == pytest.approx(-np.log(means[range(COUNT), labels]).mean(), rel=1e-5)
    assert answers.indices.tolist() == list(range(COUNT))
    assert answers.labels.tolist() == labels.tolist()
    assert answers.predicted.tolist() == first[:, 0].tolist()
    np.testing.assert_allclose(answers.probabilities, means.max(axis=1), rtol=1e-4)


def test_answers_come_with_the_scores_of_plain_evaluation(records, net, expected):
    with RecordLoader(records, TRANSFORM, EvalOrder(COUNT, 16), workers=2,
                      backend="opencv") as loader:
        scores, answers = evaluate_each(net, loader, classes=CLASSES, device=mx.cpu())
        assert scores == evaluate(net, loader, classes=CLASSES, device=mx.cpu())
    assert (answers.predicted == answers.labels).sum() == expected[1]


def test_a_rank_without_records_has_no_answers(net):
    loader = FixedLoader(0, [batch_of(0)])
    loader.order.records = 1  # another rank's
    ranks = SimpleNamespace(allreduce=lambda sums: [1, 0.5, 1, 1], union=set)
    scores, answers = evaluate_each(net, loader, classes=CLASSES, device=mx.cpu(), ranks=ranks)
    assert scores.count == 1
    assert [(len(part), part.dtype) for part in answers] == [(0, np.int64)] * 3 + [(0, np.float64)]


def batch_of(count):
    return Batch(np.zeros((count, 3, 24, 24), np.float32), np.zeros(count, np.int32),
                 np.arange(count), 0)


class FixedLoader(SkippedReport):
    """These batches, said to be of so many records."""

    records = SimpleNamespace(path="a.rec")

    def __init__(self, records, batches, skipped=()):
        self.order = SimpleNamespace(records=records, steps_of_longest_rank=len(batches))
        self.skipped, self._batches = set(skipped), batches

    def epoch(self):
        yield from self._batches


@pytest.mark.parametrize("batches", [[4, 4], [4, 4, 2], [10, 1]])
def test_a_wrong_count_is_a_fault(net, batches):
    loader = FixedLoader(9, [batch_of(count) for count in batches])
    with pytest.raises(RunFault, match=f"{sum(batches)} samples of 9 records"):
        evaluate(net, loader, classes=CLASSES, device=mx.cpu())


@pytest.mark.parametrize("skipped", [{3}, {1, 2}])
def test_damaged_records_are_not_expected(net, skipped):
    loader = FixedLoader(9, [batch_of(4), batch_of(0), batch_of(5 - len(skipped))], skipped)
    assert evaluate(net, loader, classes=CLASSES, device=mx.cpu()).count == 9 - len(skipped)


@pytest.fixture
def settings(records):
    return Settings(model="resnet18_v1", rec_val=str(records.path), input_size=32, batch_size=50,
                    num_data_workers=1)


@pytest.fixture
def saved(tmp_path):
    """saved(classes): the file of a ResNet-18 that ranks 0 first for all images, then 1, 2 ...."""
    def save(classes, dtype="float32"):
        net = get_model("resnet18_v1", classes=classes)
        net.cast(dtype)
        net.initialize()
        parameters = net._collect_params_with_prefix()
        parameters["output.weight"].set_data(mx.nd.zeros((classes, 512)))
        parameters["output.bias"].set_data(mx.nd.arange(classes, 0, -1))
        net.save_parameters(str(tmp_path / "net.params"))
        return tmp_path / "net.params"
    return save


def evaluate_file(settings, params):
    result, = evaluations(Plan(dataclasses.asdict(settings), params=params))
    return result.scores


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_file_is_scored_with_the_classes_it_has(settings, saved, pictures, dtype):
    """More than the set's: a validation set may lack the last ones."""
    got = evaluate_file(settings, saved(CLASSES + 3, dtype))
    labels = pictures[1]
    assert (got.count, *hits(got)) == (COUNT, (labels == 0).sum(), (labels < 5).sum())
    logits = np.arange(CLASSES + 3, 0, -1)
    assert got.loss == pytest.approx(np.log(np.exp(logits).sum()) - logits[labels].mean(),
                                     rel=1e-5)


@pytest.mark.parametrize(("changes", "classes", "said"), [
    ({"rec_val": "/nowhere/val.rec"}, 7, ["/nowhere/val.rec is missing"]),
    ({"num_classes": 9}, 7, ["net.params", "(7,", "(9,", "--num-classes"]),
    ({"num_classes": 7}, 9, ["net.params", "(9,", "(7,"]),
    ({"model": "resnet18_v1d"}, 7, ["net.params", "another network", "--model"]),
    ({"model": "resnet50_v1"}, 7, ["net.params", "another network"]),
    ({"model": "resnet18_v1x"}, 7, ["resnet18_v1x", "resnet18_v1d"]),
    ({"input_size": 224, "crop": "pad"}, 7, ["val.rec", "key 0"]),
    ({"num_gpus": 1}, 7, ["--num-gpus 1"]),
    ({}, 4, ["val.rec", "the network's 4 classes"])], ids=str)
def test_what_does_not_fit_is_refused(settings, saved, changes, classes, said):
    with pytest.raises(InputError) as caught:
        evaluate_file(dataclasses.replace(settings, **changes), saved(classes))
    message = str(caught.value)
    assert all(words in message for words in said), message
    assert "\n" not in message


def test_a_network_of_one_output_is_refused_on_a_set_of_one_class(saved, settings, jpeg, tmp_path):
    with RecordWriter(tmp_path / "one") as writer:
        writer.write(0, 0, jpeg(np.zeros((40, 40, 3), np.uint8)))
    with pytest.raises(InputError):
        evaluate_file(dataclasses.replace(settings, rec_val=str(tmp_path / "one.rec")), saved(1))


def test_evaluation_does_not_run_ahead_of_the_device(records, net, monkeypatch):
    added = []
    monkeypatch.setattr("gluon_tricks.engine.inflight.InFlight.add",
                        lambda self, result: added.append(result.shape))
    with RecordLoader(records, TRANSFORM, EvalOrder(COUNT, 50), workers=1) as loader:
        evaluate(net, loader, classes=CLASSES, device=mx.cpu())
    assert added == [(50, CLASSES), (50, CLASSES), (3, CLASSES)]


def test_where_every_record_turns_out_damaged_it_says_so():
    loader = FixedLoader(2, [batch_of(0)], {0, 1})
    with pytest.raises(InputError, match=r"a\.rec: no record can be decoded"):
        evaluate(nn.Dense(3), loader, classes=3, device=mx.cpu())
