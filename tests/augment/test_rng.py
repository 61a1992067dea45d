"""The generator against Random123's published vectors, and its streams against each other."""

import numpy as np
import pytest
from scipy import stats

from gluon_tricks.augment.rng import SampleRng, batch_rng, philox4x32

WORD = 0xFFFFFFFF


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


# kat_vectors of Random123 1.14: counter, key, result of philox4x32 with 10 rounds.
@pytest.mark.parametrize(("counter", "key", "result"), [
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
])
def test_philox_gives_the_published_vectors(counter, key, result):
    got = philox4x32(np.array(words(counter), np.uint64), tuple(words(key)))
    assert got.tolist() == words(result)


def test_philox_treats_each_counter_of_an_array_by_itself():
    counters = np.random.default_rng(0).integers(0, 2**32, (3, 5, 4), np.uint64)
    together = philox4x32(counters, (1, 2))
    assert together.shape == (3, 5, 4)
    for i in range(3):
        for j in range(5):
            assert (together[i, j] == philox4x32(counters[i, j], (1, 2))).all()


def test_philox_leaves_its_counters_alone():
    counters = np.arange(8, dtype=np.uint64).reshape(2, 4)
    philox4x32(counters, (5, 6))
    assert counters.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def draws(rng: SampleRng) -> np.ndarray:
    """Draws of several kinds and lengths, side by side."""
    return np.concatenate([rng.uniform(3), rng.normal(5), rng.uniform(10, -2, 7), rng.normal(1)],
                          axis=1)


def test_a_sample_does_not_depend_on_its_neighbours():
    indices = [5, 0, 1_281_166, 2**32 - 1, 17]
    together = draws(SampleRng(7, 3, indices))
    for row, index in enumerate(indices):
        assert (draws(SampleRng(7, 3, [index]))[0] == together[row]).all()
    assert (draws(SampleRng(7, 3, indices[::-1])) == together[::-1]).all()


def test_the_same_seed_epoch_and_index_give_the_same_draws():
    assert (draws(SampleRng(2**40 + 1, 119, [3, 4])) ==
            draws(SampleRng(2**40 + 1, 119, np.array([3, 4])))).all()


@pytest.mark.parametrize("other", [
    (1, 0, 0), (2**32, 0, 0), (2**63, 0, 0), (2**32 + 1, 0, 0),  # seeds
    (0, 1, 0), (0, 2**32 - 1, 0), (0, 0, 1), (0, 0, 2**32 - 1),  # epochs, indices
])
def test_another_seed_epoch_or_index_changes_every_draw(other):
    seed, epoch, index = other
    mine, theirs = draws(SampleRng(0, 0, [0])), draws(SampleRng(seed, epoch, [index]))
    assert (mine != theirs).all()


def test_seed_epoch_and_index_are_not_interchangeable():
    """A sum or XOR of the three would pass the tests above."""
    streams = {tuple(SampleRng(seed, epoch, [index]).uniform(4)[0])
               for seed in range(4) for epoch in range(4) for index in range(4)}
    assert len(streams) == 64


def test_no_random_word_is_used_twice():
    """Over 2 seeds, 3 epochs, 200 samples and 4 draws each: pairs of words never repeat."""
    pairs = []
    for seed in (0, 1):
        for epoch in (0, 1, 2):
            rng = SampleRng(seed, epoch, np.arange(200))
            for _ in range(4):
                pairs.append(rng.uniform(4).reshape(-1, 2))
    pairs = np.concatenate(pairs)
    assert len(np.unique(pairs, axis=0)) == len(pairs) == 2 * 3 * 200 * 4 * 2


def test_shapes():
    rng = SampleRng(0, 0, range(6))
    assert len(rng) == 6
    for count in range(1, 10):
        assert rng.uniform(count).shape == rng.normal(count).shape == (6, count)


def test_uniform_lies_in_its_half_open_interval():
    values = SampleRng(1, 0, np.arange(5000)).uniform(20)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.dtype == np.float64
    values = SampleRng(1, 0, np.arange(5000)).uniform(20, 0.6, 1.4)
    assert values.min() >= 0.6
    assert values.max() < 1.4


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_uniform_over_samples_and_over_draws(seed):
    over_samples = SampleRng(seed, 0, np.arange(20_000)).uniform(1)[:, 0]
    over_draws = SampleRng(seed, 0, [0]).uniform(20_000)[0]
    over_epochs = [SampleRng(seed, epoch, [0]).uniform(1)[0, 0] for epoch in range(2000)]
    for values in (over_samples, over_draws, over_epochs):
        assert stats.kstest(values, "uniform").pvalue > 1e-4


def test_uniform_scales_to_low_and_high():
    values = SampleRng(3, 0, np.arange(20_000)).uniform(1, -3, 5)[:, 0]
    assert stats.kstest(values, stats.uniform(-3, 8).cdf).pvalue > 1e-4


@pytest.mark.parametrize("sigma", [1.0, 0.1])
def test_normal_over_samples_and_over_draws(sigma):
    columns = SampleRng(5, 0, np.arange(20_000)).normal(3, sigma)
    row = SampleRng(5, 0, [0]).normal(40_001, sigma)[0]
    for values in (*columns.T, row):
        assert stats.kstest(values, stats.norm(0, sigma).cdf).pvalue > 1e-4
    assert abs(np.concatenate([columns.ravel(), row]).std() / sigma - 1) < 0.009  # 4 errors


def test_draws_are_uncorrelated():
    """Box-Muller's pairs, neighboring samples and neighboring draws; 5 standard errors."""
    n = 20_000
    rng = SampleRng(9, 2, np.arange(n))
    columns = np.concatenate([rng.uniform(5), rng.normal(5), rng.normal(5)**2], axis=1)
    columns = np.concatenate([columns[1:], columns[:-1]], axis=1)
    correlation = np.corrcoef(columns, rowvar=False)
    # The last five are squares of other draws than the five before them.
    assert np.abs(correlation - np.eye(30)).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("extreme", [0, WORD])
def test_normal_is_finite_at_the_extreme_words(extreme, monkeypatch):
    monkeypatch.setattr("gluon_tricks.augment.rng.philox4x32",
                        lambda counter, key: np.full(counter.shape, extreme, np.uint64))
    values = SampleRng(0, 0, [0]).normal(6)
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 7  # sqrt(2 * 32 * log 2) = 6.66 at most


def test_many_small_draws_are_one_large_one():
    """More of them than are made in advance."""
    rng = SampleRng(3, 1, [7, 9])
    few = np.concatenate([rng.uniform(4) for _ in range(40)], axis=1)
    assert (few == SampleRng(3, 1, [7, 9]).uniform(160)).all()


def test_the_numbers_of_a_batch_are_its_own():
    """No two of (seed, epoch, step, rank) share theirs, large seeds and orders included."""
    values = (0, 1, 2, 2**32, 2**32 + 1)
    places = [(seed, epoch, step, rank) for seed in (*values, 2**64 - 1) for epoch in (0, 1, 119)
              for step in (0, 1, 119) for rank in (0, 1, 7)]
    drawn = {place: tuple(batch_rng(*place).random(2)) for place in places}
    assert len(set(drawn.values())) == len(places) == 162
    assert all(tuple(batch_rng(*place).random(2)) == drawn[place] for place in places[::-1])


def test_the_numbers_of_batches_are_uniform_and_independent():
    """Over neighboring steps, epochs, seeds and ranks."""
    for axis in range(4):
        places = np.zeros((2000, 4), int)
        places[:, axis] = np.arange(2000)
        values = np.array([batch_rng(*place).random(2) for place in places.tolist()])
        assert stats.kstest(values[:, 0], "uniform").pvalue > 1e-4
        near = np.corrcoef(np.concatenate([values[1:], values[:-1]], axis=1), rowvar=False)
        assert np.abs(near - np.eye(4)).max() < 5 / np.sqrt(2000)
