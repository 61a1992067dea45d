"""Parameters of many shapes that several tests update."""

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import Parameter


@pytest.fixture
def parameters():
    """parameters(dtype, copies=13): five per copy, with values near 1, in [0.5, 1.5).

    Weights are of `dtype`, BatchNorm's gamma and beta FP32, as in a cast network; all but
    the weights have no weight decay.
    """
    def make(dtype="float32", copies=13):
        rng = np.random.default_rng(0)
        made = {}
        for copy in range(copies):
            for name, shape, kind in ((f"{copy}.conv.weight", (4, 3, 3, 3), dtype),
                                      (f"{copy}.bn.gamma", (4,), "float32"),
                                      (f"{copy}.bn.beta", (4,), "float32"),
                                      (f"{copy}.fc.weight", (5, 7), dtype),
                                      (f"{copy}.fc.bias", (5,), dtype)):
                decay = 1.0 if name.endswith("weight") else 0.0
                parameter = Parameter(name, shape=shape, dtype=kind, wd_mult=decay)
                parameter.initialize()
                parameter.set_data(mx.nd.array(rng.uniform(0.5, 1.5, shape), dtype=kind))
                made[name] = parameter
        return made
    return make
