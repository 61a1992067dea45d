"""Reads the .states files of GluonCV's scripts: gluon.Trainer's optimizer state, a pickle.

Loading a pickle can run arbitrary code. This reader runs none: it turns NDArrays into NumPy arrays,
built here from their bytes; replaces other classes of MXNet and its companions by stubs that do
nothing; and refuses a file that names anything else.

The pickle is {index: state} or ({index: state}, optimizer). A state is an array, None, or a tuple
of these; FP16 weights have (momentum, FP32 weights). The indices are Trainer's: all parameters,
statistics included, sorted by their old names.
"""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon.block import HybridBlock

from gluon_tricks.errors import InputError
from gluon_tricks.models.gluoncv_names import old_names
from gluon_tricks.models.params_file import read_array
from gluon_tricks.optim.update import ParameterUpdater

_INERT = ("mxnet", "gluoncv", "numpy", "collections", "horovod")  # packages


class _Stub:
    """Stands in for an object that is not needed: accepts whatever a pickle gives, does nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _Array(_Stub):
    """Stands in for an NDArray; `value` is the NumPy array."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        data = state["handle"]
        if data is not None:
            with io.BytesIO(data) as file:
                self.value = read_array(file)


def _bytes(data: bytes | str = b"", encoding: str = "latin-1") -> bytes:
    """Stands in for bytearray, which would also accept a number of bytes to allocate."""
    return data.encode("latin-1") if isinstance(data, str) else bytes(memoryview(data))


class _Reader(pickle.Unpickler):
    """An unpickler that builds arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("builtins", "bytearray"), ("__builtin__", "bytearray")):
            return _bytes
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return _bytes
        if module.split(".")[0] not in _INERT:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        if module.startswith("mxnet.") and name == "NDArray":
            return _Array
        return type(name, (_Stub,), {})


def read(path: Path) -> tuple[dict[int, list[np.ndarray]], str | None]:
    """The arrays of each index, and the optimizer's name if the file has it.

    Raises InputError for a file that gluon.Trainer would not write.
    """
    if not path.is_file():
        raise InputError(f"--resume-states {path} is missing: give GluonCV's .states file")
    try:
        with open(path, "rb") as file:
            content = _Reader(file).load()
        pair = isinstance(content, tuple) and len(content) == 2
        states, optimizer = content if pair else (content, None)
        if not isinstance(states, dict) or not all(type(index) is int for index in states):
            raise pickle.UnpicklingError("it has no states keyed by number")
        arrays = {index: list(_flat(state)) for index, state in states.items()}
    except Exception as error:  # a pickle can fail in any way
        reason = (str(error) or repr(error)).splitlines()[0][:200]
        raise InputError(f"--resume-states {path} was not written by gluon.Trainer's save_states "
                         f"({reason}); nothing in it was run: drop the flag, and momentum starts "
                         "from zero") from error
    return arrays, type(optimizer).__name__.lower() if isinstance(optimizer, _Stub) else None


def _flat(state: Any) -> Iterator[np.ndarray]:
    if isinstance(state, _Array) and state.value is not None:
        yield state.value
    elif isinstance(state, tuple | list):
        for part in state:
            yield from _flat(part)
    elif state is not None:
        raise pickle.UnpicklingError(f"a state is {type(state).__name__}")


def load(path: Path, update: ParameterUpdater, network: HybridBlock, optimizer: str) -> None:
    """Load a file's arrays into a run's optimizer, whose name is `optimizer`.

    A file with FP16 weights fits an FP32 run, which then takes the FP32 copies that the file keeps;
    the reverse works too. Raises InputError if the file does not fit.
    """
    states, theirs = read(path)
    if theirs not in (None, optimizer):
        raise InputError(f"--resume-states {path} is of the optimizer {theirs}: give --optimizer "
                         f"{theirs}, or drop the file")
    names, own, given = old_names(network), update.arrays(), {}
    order = [names[name] for name in sorted(names)]
    try:
        for index, arrays in states.items():
            name = order[index] if 0 <= index < len(order) else f"number {index}"
            wanted = sum(f"{name}:{number}" in own for number in range(2))
            if optimizer in ("nag", "sgd") and (len(arrays), wanted) == (2, 1):
                _set(network, name, arrays.pop())
            given.update({f"{name}:{number}": mx.nd.array(array, dtype=array.dtype)
                          for number, array in enumerate(arrays)})
            if optimizer in ("nag", "sgd") and (len(arrays), wanted) == (1, 2):
                given[f"{name}:1"] = own[f"{name}:1"]
        update.load(given)
    except ValueError as error:
        raise InputError(f"--resume-states {path}: {error}: give the file that was saved with "
                         "--resume-params, or drop it") from error


def _set(network: HybridBlock, name: str, weight: np.ndarray) -> None:
    """Set a weight. Raises ValueError if its shape differs."""
    parameter = network._collect_params_with_prefix()[name]
    if parameter.shape != weight.shape:
        raise ValueError(f"the weight {name!r} has a different shape")
    parameter.set_data(mx.nd.array(weight, dtype=parameter.dtype))
