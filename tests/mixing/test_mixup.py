"""Mixup against NumPy and GluonCV's script, and its draws against the distributions they name."""

import mxnet as mx
import numpy as np
import pytest
from scipy import stats

from gluon_tricks.augment.rng import batch_rng
from gluon_tricks.loss import smooth_labels
from gluon_tricks.mixing.mixup import draw_gluoncv_pairs, draw_pairs, mixup

LAM = [0.75, 0.0, 1.0, 0.123]
PARTNER = [2, 3, 1, 3]  # the last is its own


def mixed(values, lam, partner):
    """The definition, one sample at a time, in float64."""
    return np.stack([share * own + (1 - share) * values[other].astype(np.float64)
                     for own, share, other in zip(values.astype(np.float64), lam, partner,
                                                  strict=True)])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_pixel_and_every_target(dtype):
    rng = np.random.default_rng(0)
    images = rng.normal(0, 2, (4, 3, 5, 6)).astype(dtype)
    targets = rng.dirichlet(np.ones(7), 4).astype(np.float32)
    data = mx.nd.array(images, dtype=dtype)
    got, got_targets = mixup(data, mx.nd.array(targets), mx.nd.array(LAM),
                             mx.nd.array(PARTNER, dtype="int32"))
    assert (got.dtype, got_targets.dtype) == (np.dtype(dtype), np.float32)
    # FP16: lam, 1 - lam, two products and their sum are each rounded to 11 bits.
    bound = 2 * np.finfo(dtype).eps * np.abs(images).max()
    np.testing.assert_allclose(got.asnumpy(), mixed(images, LAM, PARTNER), rtol=0, atol=bound)
    np.testing.assert_allclose(got_targets.asnumpy(), mixed(targets, LAM, PARTNER), atol=2e-7)
    np.testing.assert_array_equal(data.asnumpy(), images)  # stays as it is
    np.testing.assert_array_equal(got.asnumpy()[1:3], images[[3, 2]])  # lam 0 and lam 1


@pytest.mark.parametrize(("images", "targets"), [
    (mx.nd.ones((4, 3, 2, 2), dtype="uint8"), mx.nd.ones((4, 5))),
    (mx.nd.ones((4, 3, 2, 2)), mx.nd.ones((4, 5), dtype="int32")),
    (mx.nd.ones((4, 3, 2, 2)), mx.nd.ones(4))], ids=["uint8 images", "int targets", "sparse"])
def test_what_cannot_be_mixed_is_refused(images, targets):
    with pytest.raises(ValueError, match="must be floats"):
        mixup(images, targets, mx.nd.array(LAM), mx.nd.array(PARTNER))


def gluoncv_mixup_transform(label, classes, lam, eta):
    """As in GluonCV's train_imagenet.py, for the label of one device."""
    on, off = 1 - eta + eta / classes, eta / classes
    first = label.one_hot(classes, on_value=on, off_value=off)
    second = label[::-1].one_hot(classes, on_value=on, off_value=off)
    return lam * first + (1 - lam) * second


@pytest.mark.parametrize("eta", [0.0, 0.1])
@pytest.mark.parametrize("size", [6, 7])
def test_gluoncvs_pairs_make_its_batches(eta, size):
    rng = np.random.default_rng(1)
    images = mx.nd.array(rng.normal(0, 1, (size, 3, 4, 4)))
    labels = mx.nd.array(rng.integers(0, 10, size), dtype="int32")
    pairs = draw_gluoncv_pairs(np.random.default_rng(2), size, 0.2)
    lam = float(pairs.lam[0])
    assert 0 < lam < 1 and (pairs.lam == pairs.lam[0]).all()
    got = mixup(images, smooth_labels(mx.nd, labels, 10, eta, uniform=True),
                mx.nd.array(pairs.lam), mx.nd.array(pairs.partner, dtype="int32"))
    want = (lam * images + (1 - lam) * images[::-1],
            gluoncv_mixup_transform(labels, 10, lam, eta))
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_are_drawn_from_beta(alpha):
    """The ends by count: rounded to float32, the highest are exactly 1."""
    beta, low, high = stats.beta(alpha, alpha), 1e-3, 1 - 1e-3
    each = draw_pairs(np.random.default_rng(3), 20_000, alpha).lam
    rng = np.random.default_rng(4)
    of_batches = [draw_gluoncv_pairs(rng, 2, alpha).lam[0] for _ in range(5000)]
    for lam in (each, of_batches):
        lam = np.asarray(lam, np.float64)
        assert lam.min() >= 0 and lam.max() <= 1
        for found, share in ((lam < low, beta.cdf(low)), (lam > high, beta.sf(high))):
            assert abs(found.mean() - share) < 5 * np.sqrt(share * (1 - share) / len(lam)) + 1e-12
        between = lam[(lam > low) & (lam < high)]
        assert stats.kstest(between, lambda x: (beta.cdf(x) - beta.cdf(low)) / (
            beta.cdf(high) - beta.cdf(low))).pvalue > 1e-3
        # Neighbors are independent.
        assert abs(np.corrcoef(lam[1:], lam[:-1])[0, 1]) < 4 / np.sqrt(len(lam))


def test_partners_are_a_permutation_of_equal_chances():
    rng, size, draws = np.random.default_rng(5), 6, 12_000
    partners = np.array([draw_pairs(rng, size, 0.2).partner for _ in range(draws)])
    np.testing.assert_array_equal(np.sort(partners, axis=1), [range(size)] * draws)
    counts = np.array([np.bincount(column, minlength=size) for column in partners.T])
    # Each of the 36 places has draws / 6 of them; 5 standard errors of a binomial.
    assert np.abs(counts - draws / 6).max() < 5 * np.sqrt(draws * 5 / 36)


def test_draws_depend_on_seed_epoch_and_step_alone():
    def pairs(draw, *where):
        lam, partner = draw(batch_rng(*where), 32, 0.2)
        assert (lam.dtype, partner.dtype) == (np.float32, np.int32)
        return *lam, *partner
    places = [(seed, epoch, step) for seed in (0, 1, 2**33) for epoch in (0, 1, 2)
              for step in (0, 1, 2)]
    for draw in (draw_pairs, draw_gluoncv_pairs):
        first = {place: pairs(draw, *place) for place in places}
        assert all(pairs(draw, *place) == first[place] for place in places[::-1])
        assert len(set(first.values())) == len(places)
