"""Networks for use elsewhere: as ONNX, as MXNet's symbol, or as parameters for Gluon.

What was written is run and held against the Gluon network before it gets its name.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon.block import HybridBlock, SymbolBlock

from gluon_tricks import files
from gluon_tricks.augment.color import normalize
from gluon_tricks.augment.crop import resize_short_edge
from gluon_tricks.classification.loaders import eval_transform
from gluon_tricks.classification.network import build_network
from gluon_tricks.classification.settings import Settings
from gluon_tricks.data.decode import decode_whole
from gluon_tricks.data.folder import SUFFIXES
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference import onnx_file
from gluon_tricks.inference.trained import Trained
from gluon_tricks.models.parameters import load_parameters, named_arrays
from gluon_tricks.models.params_file import write_arrays
from gluon_tricks.models.pixels import FromPixels
from gluon_tricks.prepare.demo import CLASSES, draw_image
from gluon_tricks.runs.checkpoint import versions

TOLERANCE = 1e-4  # of the largest logit; FP32 itself takes 4e-5 in Inception-V3
PICTURES = 32  # of those that were given, at most
BATCH = 8

Run = Callable[[np.ndarray], np.ndarray]  # a batch of inputs to logits (batch, classes)


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its logits were from the Gluon network's."""

    files: tuple[Path, ...]  # the last one is the JSON
    difference: float  # the greatest, of all inputs
    pictures: int


def export(trained: Trained, form: str, out: Path, *, embed: bool = False,
           pictures: Sequence[Path] = ()) -> Exported:
    """Write a network as `form` (onnx, symbol or params) to `out`, and out.json beside it.

    A symbol is two files, out-symbol.json and out-0000.params. With `embed` the network takes
    uint8 pixels, (batch, size, size, 3) RGB. `pictures` are files and folders to check it with,
    besides random input; a few are drawn where there are none.

    Raises RunFault, and leaves no file, where what was written does not give the Gluon network's
    logits; InputError for a network that `form` cannot hold and for a place or a picture that will
    not do.
    """
    if form == "onnx":
        onnx_file.require()
    if embed and form == "params":
        raise InputError("--embed-preprocessing changes the network, which --format params does "
                         "not hold: take onnx or symbol")
    beside = out.parent / f"{out.name}.json"  # not with_name, which "." has none for
    names = [f"{out.name}-symbol.json", f"{out.name}-0000.params"] if form == "symbol" else \
        [out.name]
    _check_place(out, [out.parent / name for name in names], beside, trained.path)
    pixels = _pixels(trained.settings, pictures)
    network = FromPixels(trained.network, trained.settings.rgb_mean, trained.settings.rgb_std,
                         mx.cpu()) if embed else trained.network
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
        parts = [Path(aside, name) for name in names]
        run = _WRITERS[form](parts, trained, network)
        difference = check(run, _reference(trained, embed), _inputs(trained, embed, pixels))
        said = describe(trained, form, embed) | {
            "files": {part.name: files.sha256(part) for part in parts},
            "check": {"max_abs_difference": difference, "pictures": len(pixels)}}
        parts.append(Path(aside, beside.name))
        parts[-1].write_text(json.dumps(said, indent=1) + "\n")
        beside.unlink(missing_ok=True)  # it must not speak of files that are replaced
        for part in parts:
            os.replace(part, out.with_name(part.name))
    return Exported(tuple(out.with_name(part.name) for part in parts), difference, len(pixels))


def _check_place(out: Path, targets: list[Path], beside: Path, source: Path) -> None:
    """Raises InputError where files cannot lie there, or would lie on others than an export's."""
    if not out.name or not out.parent.is_dir() or any(path.is_dir() for path in [*targets, beside]):
        raise InputError(f"--out {out}: give a file's name in a folder that is there")
    if any(path.exists() and path.samefile(source) for path in targets):
        raise InputError(f"--out {out} is where the parameters come from: give another name")
    if beside.exists():
        try:
            ours = {"files", "check"} <= json.loads(beside.read_text()).keys()
        except (ValueError, AttributeError):
            ours = False
        if not ours:
            raise InputError(f"--out {out}: {beside} is there, and of no export: give another name")


# --- What is written -----------------------------------------------------------------------------
# Each takes the paths and the network, which takes pixels where preprocessing is embedded, and
# gives back what it wrote, read again and ready to run.


def graph_of(network: HybridBlock) -> mx.sym.Symbol:
    """The graph that the network predicts by."""
    with autograd.predict_mode():
        return network(mx.sym.var(onnx_file.INPUT))


def _write_onnx(paths: list[Path], trained: Trained, network: HybridBlock) -> Run:
    shape, dtype = input_form(trained, network is not trained.network)
    arrays = {name: parameter.data().asnumpy() for name, parameter in
              network.collect_params().items()}
    onnx_file.write(paths[0], graph_of(network), arrays, shape, dtype)
    return onnx_file.runner(paths[0])


def _write_symbol(paths: list[Path], trained: Trained, network: HybridBlock) -> Run:
    symbol, arrays = graph_of(network), network.collect_params()
    paths[0].write_text(symbol.tojson())
    write_arrays(paths[1], {
        f"{kind}:{name}": arrays[name].data() for kind, names in
        (("arg", symbol.list_arguments()), ("aux", symbol.list_auxiliary_states()))
        for name in names if name != onnx_file.INPUT})
    with warnings.catch_warnings():  # of the input's type, which each batch brings
        warnings.simplefilter("ignore", UserWarning)
        loaded = SymbolBlock.imports(str(paths[0]), [onnx_file.INPUT], str(paths[1]), ctx=mx.cpu())
    return _logits(loaded)


def _write_params(paths: list[Path], trained: Trained, network: HybridBlock) -> Run:
    write_arrays(paths[0], named_arrays(network))
    anew = build_network(trained.settings)
    load_parameters(anew, paths[0], mx.cpu())
    return _logits(anew)


_WRITERS = {"onnx": _write_onnx, "symbol": _write_symbol, "params": _write_params}
FORMATS = tuple(_WRITERS)


# --- How it is checked ---------------------------------------------------------------------------


def check(run: Run, reference: Run, inputs: Sequence[tuple[str, np.ndarray]]) -> float:
    """The greatest difference of logits over named batches of inputs.

    Raises RunFault where it is above TOLERANCE, where the five best classes are others or in
    another order, and where logits are not finite.
    """
    worst = 0.0
    for name, batch in inputs:
        want, got = reference(batch), run(batch)
        if not np.isfinite(want).all():
            raise RunFault(f"the network's own logits of {name} are not finite: these parameters "
                           "are of a run that diverged; nothing was written")
        difference = float(abs(got - want).max()) if got.shape == want.shape else np.inf
        limit = TOLERANCE * float(abs(want).max())
        if not difference <= limit:
            raise RunFault(f"what was exported gives other logits of {name}: they differ by "
                           f"{difference:.2g}, more than {limit:.2g}; nothing was written")
        if not np.array_equal(_top5(got), _top5(want)):
            raise RunFault(f"what was exported gives other top-5 classes of {name}; nothing was "
                           "written")
        worst = max(worst, difference)
    return worst


def _top5(logits: np.ndarray) -> np.ndarray:
    return np.argsort(-logits, axis=1, kind="stable")[:, :5]


def _logits(network: HybridBlock) -> Run:
    return lambda batch: network(mx.nd.array(batch, dtype=batch.dtype)).asnumpy()


def _reference(trained: Trained, embed: bool) -> Run:
    """The Gluon network; of pixels, with preprocessing in NumPy before it."""
    plain, mean, std = _logits(trained.network), trained.settings.rgb_mean, trained.settings.rgb_std
    return (lambda pixels: plain(_planes(normalize(pixels, mean, std)))) if embed else plain


def _planes(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) to (N, 3, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _inputs(trained: Trained, embed: bool, pixels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Random batches of one and of three, and the pictures."""
    shape, dtype = input_form(trained, embed)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, *shape)) if embed else rng.standard_normal((4, *shape))
    seen = np.rint(pixels) if embed else \
        _planes(normalize(pixels, trained.settings.rgb_mean, trained.settings.rgb_std))
    return [("random input", noise[:1].astype(dtype)), ("random input", noise[1:].astype(dtype)),
            *(("pictures", seen[at:at + BATCH].astype(dtype))
              for at in range(0, len(seen), BATCH))]


def _pixels(settings: Settings, paths: Sequence[Path]) -> np.ndarray:
    """Pictures resized and cropped as for validation, not normalised: (N, size, size, 3) float32.
    """
    transform = replace(eval_transform(settings), mean=(0.0,) * 3, std=(1.0,) * 3)
    if not paths:
        rng = np.random.default_rng(0)
        drawn = [draw_image(label, rng) for label in range(min(BATCH, len(CLASSES)))]
        return np.stack([transform.apply(resize_short_edge(picture, settings.input_size))
                         for picture in drawn])
    return np.stack([_cropped(path, transform) for path in _chosen(paths)])


def _chosen(paths: Sequence[Path]) -> list[Path]:
    """The pictures of files and folders, PICTURES at most, spread evenly."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) \
            if path.is_dir() else [path]
        if not inside:
            raise InputError(f"--pictures {path} holds no pictures ({', '.join(SUFFIXES)})")
        found += inside
    return found[::-(-len(found) // PICTURES)]


def _cropped(path: Path, transform: Any) -> np.ndarray:
    try:
        return transform.apply(decode_whole(path.read_bytes()))
    except (ValueError, FileNotFoundError) as error:
        raise InputError(f"--pictures: {path}: {error}; leave it out") from error


# --- What the JSON says --------------------------------------------------------------------------


def input_form(trained: Trained, embed: bool) -> tuple[tuple[int, ...], str]:
    """Shape of one input, and its type."""
    size = trained.settings.input_size
    return ((size, size, 3), "uint8") if embed else ((3, size, size), "float32")


def describe(trained: Trained, form: str, embed: bool) -> dict[str, Any]:
    """How pictures are made into inputs, what the logits stand for, and where all came from.

    mean and std are what is left to the caller: 0 and 1 where the graph has its own.
    """
    transform = eval_transform(trained.settings)
    own = {"mean": list(transform.mean), "std": list(transform.std)}
    nothing = {"mean": [0.0] * 3, "std": [1.0] * 3}
    shape, dtype = input_form(trained, embed)
    opset = {"onnx_opset": onnx_file.OPSET} if form == "onnx" else {}
    return {
        "model": trained.settings.model, "format": form,
        "input": {"name": onnx_file.INPUT, "dtype": dtype, "shape": ["batch", *shape],
                  "layout": "NHWC" if embed else "NCHW", "channels": "RGB"},
        "output": {"name": onnx_file.OUTPUT if form == "onnx" else None,
                   "shape": ["batch", len(trained.classes)], "meaning": "logits"},
        "preprocessing": {
            "resize_shorter_edge": transform.resize, "interpolation": "bilinear",
            "antialias": transform.antialias, "crop": "center", "input_size": transform.size,
            "scale": 1.0, **(nothing if embed else own),
            "formula": "(pixel * scale - mean) / std, with pixels from 0 to 255"},
        "embedded_preprocessing": own if embed else None,
        "classes": trained.classes if trained.has_names else None,
        "source": {"parameters": str(trained.path.resolve()), "sha256": files.sha256(trained.path)},
        "versions": versions() | opset}
