"""What happens to gradients before an update: L1 and clipping by norm."""

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.optim.norm import square_sum
from gluon_tricks.optim.regularize import add_l1, clip_norm


def gradients(dtypes, size, count=130):
    rng = np.random.default_rng(0)
    shapes = [(4, 3, 3, 3), (7,), (5, 6), (1,)]
    return [mx.nd.array(size * rng.standard_normal(shapes[i % 4]), dtype=dtypes[i % len(dtypes)])
            for i in range(count)]


def values(arrays):
    return [array.asnumpy().astype(np.float64) for array in arrays]


def norm(arrays):
    return np.sqrt(sum((array**2).sum() for array in arrays))


@pytest.mark.parametrize("rescale", [1.0, 1 / 4096])
@pytest.mark.parametrize(("dtypes", "rtol"), [
    (("float32",), 2e-6), (("float16",), 5e-4), (("float16", "float32", "float32"), 5e-4)])
def test_a_norm_above_the_limit(dtypes, rtol, rescale):
    arrays = gradients(dtypes, 300)  # their squares overflow FP16
    before = values(arrays)
    limit = rescale * norm(before) / 7
    clip_norm(arrays, limit, rescale)
    for array, old, dtype in zip(arrays, before, dtypes * 130, strict=False):
        assert array.dtype == np.dtype(dtype)
        np.testing.assert_allclose(array.asnumpy(), old / 7, rtol=2e-6 if dtype == "float32"
                                   else rtol, atol=0 if dtype == "float32" else 1e-7)
    assert rescale * norm(values(arrays)) == pytest.approx(limit, rel=1e-4)


def test_a_factor_below_what_fp16_holds_well():
    """The factor 2^-20 would have four bits in FP16; the product 1.5 has all."""
    array = mx.nd.array([49152.0, 0.0], dtype="float16")  # 1.5 * 2^15
    other = mx.nd.array([0.0, 1.2345 * 2**20])
    factor = 1.2345e-3 / 3
    limit = factor * np.hypot(49152.0, 1.2345 * 2**20)
    clip_norm([array, other], limit)
    assert array.asnumpy()[0] == np.float16(49152 * factor)
    assert other.asnumpy()[1] == pytest.approx(1.2345 * 2**20 * factor, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9999])
def test_a_norm_below_the_limit_leaves_the_bits_alone(share):
    arrays = gradients(("float16", "float32"), 300 if share else 0)
    before = [array.asnumpy().tobytes() for array in arrays]
    limit = norm(values(arrays)) / 64 / share if share else 1.0
    clip_norm(arrays, limit, rescale=1 / 64)
    assert [array.asnumpy().tobytes() for array in arrays] == before


@pytest.mark.parametrize(("dtype", "value", "rtol"), [
    ("float16", 1000.0, 1e-6), ("float16", 1e-5, 1e-6), ("float32", 1e-3, 2e-3),
    ("float32", 1e-15, 2e-3)])
def test_the_sum_of_millions_of_squares(dtype, value, rtol):
    """FP16's squares overflow or vanish; FP32 squares added one by one lose 3%."""
    array = mx.nd.full((3000, 1000) if dtype == "float32" else (50, 20), value, dtype=dtype)
    want = array.size * float(array[0, 0].asscalar()) ** 2
    total = square_sum(array)
    assert (total.shape, total.dtype) == ((1,), np.float32)
    assert total.asscalar() == pytest.approx(want, rel=rtol)


@pytest.mark.parametrize("strength", [0.0, 0.25, 3.0])
def test_l1_on_weights_alone(parameters, strength):
    made = parameters("float16")
    rng = np.random.default_rng(1)
    want = {}
    for name, parameter in made.items():
        weight = rng.choice([-0.5, 0.0, 2.0], parameter.shape)
        gradient = rng.integers(-8, 9, parameter.shape) / 4
        parameter.set_data(mx.nd.array(weight, dtype=parameter.dtype))
        parameter.grad()[:] = gradient
        want[name] = gradient + strength * np.sign(weight) * name.endswith("weight")
    add_l1(made.values(), strength)
    for name, parameter in made.items():
        assert parameter.grad().dtype == np.dtype(parameter.dtype)
        np.testing.assert_array_equal(parameter.grad().asnumpy(), want[name], err_msg=name)
