"""The loss scale as a state machine, and what counts as overflow."""

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.optim.precision import LossScale, all_finite


def test_it_starts_at_two_to_the_sixteen():
    assert LossScale() == (65536.0, 0, 0)


@pytest.mark.parametrize(("before", "overflow", "after"), [
    ((1024.0, 0, 0), False, (1024.0, 1, 0)),
    ((1024.0, 1, 5), False, (1024.0, 2, 5)),
    ((1024.0, 2, 5), False, (2048.0, 0, 5)),  # the third clean one: twice as large, counting from 0
    ((1024.0, 2, 5), True, (512.0, 0, 6)),
    ((2.0, 0, 0), True, (1.0, 0, 1)),
    ((1.0, 1, 7), True, (1.0, 0, 8)),  # not below 1
    ((1.5, 0, 0), True, (1.0, 0, 1)),
    ((2.0**23, 2, 0), False, (2.0**24, 0, 0)),
    ((2.0**24, 2, 0), False, (2.0**24, 0, 0))])  # not above 2^24
def test_one_update(before, overflow, after):
    assert LossScale(*before).after(overflow, grow_after=3) == after


def test_a_story():
    """o an overflow, . a clean update; grows after 3 clean ones in a row."""
    scale, scales = LossScale(8.0), []
    for event in "..o...o.......":
        scale = scale.after(event == "o", grow_after=3)
        scales.append(scale.scale)
    assert scales == [8, 8, 4, 4, 4, 8, 4, 4, 4, 8, 8, 8, 16, 16]
    assert scale == (16.0, 1, 2)


def test_it_grows_after_two_thousand_clean_updates_unless_told():
    scale = LossScale()
    for _ in range(1999):
        scale = scale.after(False)
    assert scale == (65536.0, 1999, 0)
    assert scale.after(False) == (131072.0, 0, 0)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtypes", [("float32",), ("float16",), ("float16", "float32"),
                                    ("float32", "float16")])
def test_one_bad_number_among_many_arrays(dtypes, bad):
    count = 405  # more than two kernels take, of one type
    arrays = [mx.nd.full((2, 3), 60000.0, dtype=dtypes[i % len(dtypes)]) for i in range(count)]
    assert all_finite(arrays) is True
    for place in (0, 1, 199, 200, 399, 400, 403, 404):
        arrays[place][1, 2] = bad
        assert all_finite(arrays) is False, place
        arrays[place][1, 2] = 1.0
    assert all_finite(arrays) is True


def test_the_greatest_numbers_are_finite_and_no_array_is():
    assert all_finite([mx.nd.full((3,), 65504, dtype="float16"), mx.nd.full((3,), 3.4e38),
                       mx.nd.full((3,), -3.4e38)])
    assert all_finite([])
