"""Finds the device that a rank trains on."""

import mxnet as mx

from gluon_tricks.errors import InputError
from gluon_tricks.machine.processor import has_bfloat16
from gluon_tricks.parallel.ranks import check_gpus


def find_device(num_gpus: int, dtype: str, local_rank: int = 0) -> mx.Context:
    """The device that a rank trains on. Raises InputError if there is none, or if it cannot compute
    in that dtype."""
    if num_gpus == 0:
        if dtype == "bfloat16":
            _use_bfloat16()
        return mx.cpu()
    check_gpus(num_gpus, local_rank + 1)
    return mx.gpu(local_rank)


def _use_bfloat16() -> None:
    """Make convolutions and dense layers of all networks built from now on compute in bfloat16."""
    if not has_bfloat16():
        raise InputError("--dtype bfloat16 needs a CPU that computes in it (avx512_bf16 in "
                         "/proc/cpuinfo), which this one does not: use float32")
    from mxnet.contrib import amp  # only here: importing it changes mx.nd and mx.sym

    amp.init("bfloat16")
