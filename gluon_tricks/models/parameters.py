"""A network's parameters by structural name: listed, checked against a file's, and loaded."""

import ctypes
from collections.abc import Mapping
from pathlib import Path

import mxnet as mx
from mxnet.base import _LIB, check_call
from mxnet.gluon.block import HybridBlock

from gluon_tricks.errors import InputError
from gluon_tricks.models.gluoncv_names import with_structural_names
from gluon_tricks.models.params_file import read_parameters


def named_arrays(network: HybridBlock) -> dict[str, mx.nd.NDArray]:
    """The network's own arrays by structural name, statistics included."""
    return {name: parameter.data()
            for name, parameter in network._collect_params_with_prefix().items()}


def is_statistic(name: str) -> bool:
    """Whether a structural name is that of a BatchNorm running statistic."""
    return name.endswith(("running_mean", "running_var"))


def classifier_parameter_names(network: HybridBlock) -> list[str]:
    """The structural names of the last layer's parameters, including other names that share them.
    """
    own = network._collect_params_with_prefix()
    layer = next(reversed(own)).rpartition(".")[0]
    last = {id(parameter) for name, parameter in own.items() if name.rpartition(".")[0] == layer}
    return [name for name, parameter in own.items() if id(parameter) in last]


def count_classes(network: HybridBlock, arrays: Mapping[str, mx.nd.NDArray]) -> int | None:
    """How many classes the parameters are for: the length of the classifier's last array. None if
    they belong to another network."""
    last = classifier_parameter_names(network)[-1]
    arrays = with_structural_names(network, arrays)
    return arrays[last].shape[0] if last in arrays else None


def check_fit(network: HybridBlock, arrays: Mapping[str, mx.nd.NDArray], path: Path, *,
              start: bool = False, flag: str = "--model") -> None:
    """Raise InputError, naming the first parameters that do not fit. With `start` (a run starts
    from them), also say what to do if only the classifier's do not. `flag` selects the network."""
    own = network._collect_params_with_prefix()
    missing = [name for name in own if name not in arrays]
    extra = [name for name in arrays if name not in own]
    if missing or extra:
        raise InputError(f"{path} belongs to another network: "
                         f"missing {', '.join(missing[:3]) or 'nothing'}, "
                         f"unexpected {', '.join(extra[:3]) or 'nothing'}; check {flag}")
    wrong = [name for name, parameter in own.items()
             if not _fits(parameter.shape, arrays[name].shape)]
    if not wrong:
        return
    shown = "; ".join(f"{name} has shape {arrays[name].shape}, the network's is {own[name].shape}"
                      for name in wrong[:2])
    more = f"; {len(wrong) - 2} more differ" if len(wrong) > 2 else ""
    of_classes = set(wrong) <= set(classifier_parameter_names(network))
    remedy = "give --new-classifier to load all but these" if start and of_classes else \
        f"check {flag} and --num-classes"
    raise InputError(f"{path}: {shown}{more}; {remedy}")


def _fits(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether an array has a parameter's shape, in which 0 and -1 match any size."""
    return len(shape) == len(other) and all(
        want in (0, -1, have) for want, have in zip(shape, other, strict=True))


def load_parameters(network: HybridBlock, path: Path, device: mx.Context,
                    flag: str = "--model") -> None:
    """Load a file's parameters into a network, by structural names or GluonCV's old ones; types are
    cast. Raises InputError, naming the first parameters that do not fit, and `flag`."""
    arrays = with_structural_names(network, read_parameters(path))
    check_fit(network, arrays, path, flag=flag)
    for name, parameter in network._collect_params_with_prefix().items():
        parameter._load_init(arrays[name], device, cast_dtype=True)


def set_arrays(network: HybridBlock, arrays: Mapping[str, mx.nd.NDArray]) -> None:
    """Copy arrays, by structural name, into an initialized network's own; types are cast."""
    for name, own in named_arrays(network).items():
        own[:] = arrays[name].astype(own.dtype, copy=False)


def restore_layout(network: HybridBlock) -> None:
    """Restore the plain weight layout after a forward pass in predict mode.

    On the CPU such a pass leaves the weights in oneDNN's own layout. MXNet would restore them
    during the next training steps, whose last bits depend on when. Asking for an array's address
    does it now.
    """
    address = ctypes.c_void_p()
    for parameter in network.collect_params().values():
        for array in parameter.list_data():
            check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
