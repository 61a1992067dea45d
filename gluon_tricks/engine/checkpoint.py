"""Parameter files: written whole or not at all, refused with a reason where they do not fit."""

import os
from pathlib import Path

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.errors import InputError


def save_parameters(network: HybridBlock, path: Path) -> None:
    """Write a .params file with structural names, aside first, then renamed.

    Raises OSError where it could not be written; a file that was there stays as it is.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        network.save_parameters(str(part))
        mx.nd.load(str(part))  # on a full disk MXNet cuts the file short and says nothing
        os.replace(part, path)
    except mx.MXNetError as error:
        raise OSError(f"could not write {path}: {str(error).splitlines()[-1]}") from error
    finally:
        part.unlink(missing_ok=True)


def read_parameters(path: Path) -> dict[str, mx.nd.NDArray]:
    """The arrays of a .params file by structural name. Raises InputError where it is none."""
    if not path.is_file():
        raise InputError(f"{path} is missing: give a .params file")
    try:
        arrays = mx.nd.load(str(path))
    except (mx.MXNetError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no whole .params file: save or copy it again") from error
    if not isinstance(arrays, dict) or not arrays:
        raise InputError(f"{path} holds no named parameters: save it with Gluon's save_parameters")
    return arrays


def classes_of(network: HybridBlock, arrays: dict[str, mx.nd.NDArray]) -> int | None:
    """How many classes the parameters are for: the size of the classifier's last array."""
    last = list(network._collect_params_with_prefix())[-1]
    return arrays[last].shape[0] if last in arrays else None


def load_parameters(network: HybridBlock, path: Path, device: mx.Context) -> None:
    """Raises InputError, naming the first parameters that do not fit."""
    arrays = read_parameters(path)
    own = network._collect_params_with_prefix()
    missing, extra = sorted(own.keys() - arrays.keys()), sorted(arrays.keys() - own.keys())
    if missing or extra:
        raise InputError(f"{path} is of another network: "
                         f"lacks {', '.join(missing[:3]) or 'nothing'}, "
                         f"has {', '.join(extra[:3]) or 'nothing'} besides; check --model")
    for name, parameter in own.items():
        if any(want not in (0, -1, have)
               for want, have in zip(parameter.shape, arrays[name].shape, strict=False)) \
                or len(parameter.shape) != len(arrays[name].shape):
            raise InputError(f"{path}: {name} has shape {arrays[name].shape}, the network's is "
                             f"{parameter.shape}; check --model and --num-classes")
    network.load_parameters(str(path), ctx=device, cast_dtype=True)
