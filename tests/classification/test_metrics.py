"""Top-1 and top-5 against NumPy's argsort; ties, and logits that are not finite."""

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.metrics import Hits, MeanOverCrops, TopClass


def hits_of(*batches):
    """batches: (logits, labels). The sums of top-1 and of top-5 hits."""
    block, found = Hits(five=True), np.zeros(2)
    block.hybridize()
    for logits, labels in batches:
        logits = np.asarray(logits)
        dtype = "float16" if logits.dtype == np.float16 else "float32"
        found += block(mx.nd.array(logits, dtype=dtype),
                       mx.nd.array(labels, dtype="int32")).asnumpy()
    return tuple(found)


def hits(logits, labels, k):
    first = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :k]
    return (first == np.asarray(labels)[:, None]).any(axis=1)


def by_argsort(logits, labels, k):
    return int(hits(logits, labels, k).sum())


@pytest.mark.parametrize("classes", [2, 4, 5, 6, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_equals_argsort_over_batches_of_different_size(classes, dtype):
    rng = np.random.default_rng(classes)
    batches = []
    for size in (16, 16, 1, 7, 40):
        labels = rng.integers(0, classes, size)
        logits = rng.normal(0, 1, (size, classes)).astype(dtype)
        logits[np.arange(size), labels] += 1.5  # so that some hit
        batches.append((logits, labels))
    logits, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    one, five = hits_of(*batches)
    assert (one, five) == (by_argsort(logits, labels, 1), by_argsort(logits, labels, 5))
    assert 0 < one <= five <= 80
    alone = Hits()(mx.nd.array(logits, dtype="float32"), mx.nd.array(labels, dtype="int32"))
    assert (alone.shape, alone.dtype, alone.asscalar()) == ((1,), np.float64, one)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("hybrid", [False, True])
def test_the_mean_over_crops_is_that_of_probabilities(hybrid):
    logits = np.random.default_rng(0).normal(0, 3, (4 * 10, 7))
    average = MeanOverCrops(10)
    average.hybridize(hybrid)
    got = average(mx.nd.array(logits)).asnumpy()
    np.testing.assert_allclose(np.exp(got), softmax(logits.reshape(4, 10, 7)).mean(axis=1),
                               rtol=1e-5)


def test_the_mean_over_crops_is_finite_where_probabilities_vanish():
    """exp(-300) underflows float32; log((exp(-300) + exp(-400)) / 2) is -300 - log 2."""
    got = MeanOverCrops(2)(mx.nd.array([[0, -300], [0, -400]])).asnumpy()
    np.testing.assert_allclose(got, [[0, -300 - np.log(2)]], atol=1e-4)


def test_the_top_class_and_its_probability():
    logits = np.random.default_rng(1).normal(0, 3, (9, 1000)).astype(np.float32)
    logits[3, 5:8] = 50  # alike
    got = TopClass()(mx.nd.array(logits)).asnumpy()
    assert got[:, 0].tolist() == logits.argmax(axis=1).tolist() and got[3, 0] == 5
    np.testing.assert_allclose(got[:, 1], softmax(logits.astype(np.float64)).max(axis=1),
                               rtol=1e-5)


def test_top5_by_hand():
    logits = [[9, 8, 7, 6, 5, 4, 3]] * 7
    got = hits_of((logits, [0, 1, 2, 3, 4, 5, 6]))
    assert got == (1, 5)


def test_a_network_that_says_the_same_of_every_class_scores_one_class_share():
    got = hits_of((np.zeros((10, 10)), range(10)))
    assert got == (1, 5)


def test_a_tie_goes_to_the_lower_class():
    logits = [[1, 3, 3, 0, 0, 0]] * 3
    assert hits_of((logits, [1, 2, 0]))[0] == 1
    half = [[1, 1, 1, 1, 2, 1, 1]] * 7  # places: 4, 0, 1, 2, 3 | 5, 6
    assert hits_of((half, range(7)))[1] == 5


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_logits_that_are_not_finite_are_never_a_hit(odd, where):
    logits = np.array([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    logits[0, where] = odd
    got = hits_of((logits, [0, 0]))
    assert got == (1, 1)


def test_all_logits_not_a_number():
    got = hits_of((np.full((4, 10), np.nan), [0, 1, 2, 3]))
    assert got == (0, 0)


def test_fewer_than_five_classes_are_all_among_the_first_five():
    got = hits_of(([[3, 2, 1], [3, 2, 1], [3, 2, 1]], [0, 1, 2]))
    assert got == (1, 3)


def test_hits_are_counted_beyond_what_float16_holds():
    logits = np.tile(np.array([1, 0], np.float16), (5001, 1))
    assert hits_of((logits, np.zeros(5001)))[0] == 5001


@pytest.mark.parametrize("mixed", [False, True])
def test_counting_does_not_wait(monkeypatch, mixed):
    def wait(*_):
        pytest.fail("it waits for the device")
    labels = mx.nd.zeros(3, dtype="int32")
    batch = mx.nd.ones((3, 6)), labels, *((labels, mx.nd.ones(3)) if mixed else ())
    block = Hits(five=True)
    block.hybridize()
    with monkeypatch.context() as patch:
        for name in ("asnumpy", "wait_to_read", "asscalar", "item", "__bool__"):
            patch.setattr(mx.nd.NDArray, name, wait, raising=False)
        patch.setattr(mx.nd, "waitall", wait)
        found = block(*batch), block(*batch)
    assert [sums.asnumpy().tolist() for sums in found] == [[3, 3], [3, 3]]


def mixed_hits(logits, labels, partner_labels, lam, five=True):
    block = Hits(five)
    block.hybridize()
    return block(mx.nd.array(logits),
                 *(mx.nd.array(each, dtype="int32") for each in (labels, partner_labels)),
                 mx.nd.array(lam)).asnumpy()


@pytest.mark.parametrize("classes", [3, 20])
def test_hits_of_mixed_samples_are_weighted(classes):
    rng = np.random.default_rng(classes)
    got, want = np.zeros(2), np.zeros(2)
    for size in (16, 16, 5):
        logits = rng.integers(0, 6, (size, classes)).astype(np.float32)  # so that many tie
        labels, partners = rng.integers(0, classes, (2, size))
        lam = rng.beta(0.5, 0.5, size).astype(np.float32)
        got += mixed_hits(logits, labels, partners, lam)
        assert mixed_hits(logits, labels, partners, lam, five=False) == pytest.approx(
            mixed_hits(logits, labels, partners, lam)[:1])
        want += [(lam * hits(logits, labels, k) + (1.0 - lam) * hits(logits, partners, k)).sum(
            dtype=np.float64) for k in (1, 5)]
    assert 0 < want[0] <= want[1]
    assert got == pytest.approx(want, rel=1e-6)


def test_weighted_hits_by_hand():
    """The first label hits, the second, both, none; then logits that are not finite."""
    logits = [[9, 8, 7, 6, 5, 4, 3]] * 4 + [[np.nan] * 7, [9, np.inf, 0, 0, 0, 0, 0]]
    got = mixed_hits(np.array(logits), [0, 3, 0, 6, 0, 1], [6, 0, 0, 5, 0, 1], [0.75] * 6)
    assert tuple(got) == (0.75 + 0.25 + 1.0, 0.75 + 1.0 + 1.0)
