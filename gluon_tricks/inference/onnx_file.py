"""Writes a network's graph as an ONNX file, with MXNet's own converter, mx2onnx."""

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

from gluon_tricks.errors import InputError, install_packages

if TYPE_CHECKING:
    from onnx import GraphProto

INPUT, OUTPUT = "data", "logits"
OPSET = 13  # mx2onnx writes operators in this version's form, whichever onnx it finds
_TOO_NEW = 1, 18  # the onnx that removed what mx2onnx calls


def require() -> None:
    """Raise InputError if onnx or onnxruntime is missing, or onnx is too new for MXNet."""
    remedy = f"{install_packages()} (or -gpu.txt)"
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--format onnx needs {name}: {remedy}")
    version = metadata.version("onnx")
    if tuple(map(int, version.split(".")[:2])) >= _TOO_NEW:
        raise InputError(f"onnx {version} is too new for MXNet's exporter: {remedy}")


def write(path: Path, symbol: mx.sym.Symbol, arrays: Mapping[str, np.ndarray],
          shape: tuple[int, ...], dtype: str) -> None:
    """Write the graph, with one input, INPUT, (batch, *shape), and one output, OUTPUT.

    `arrays` are the symbol's parameters by name. mx2onnx converts weights to Python numbers one by
    one, which takes most of a minute for a ResNet-50. So they pass through it as inputs, of which
    it needs only the shape, and are added to the file afterwards.

    Raises InputError if mx2onnx cannot convert the graph.
    """
    import onnx
    from onnx import helper, numpy_helper

    symbol = _with_pools(symbol)
    names = symbol.list_inputs()
    shapes = [arrays[name].shape if name != INPUT else (1, *shape) for name in names]
    free = [arrays[name].shape if name != INPUT else ("batch", *shape) for name in names]
    types = [np.dtype(arrays[name].dtype if name != INPUT else dtype) for name in names]
    with _refusing(), contextlib.redirect_stdout(io.StringIO()):  # it prints names of nodes
        mx.onnx.export_model(symbol, {}, shapes, types, str(path), dynamic=True,
                             dynamic_input_shapes=free)
    model = onnx.load(str(path))
    model.opset_import[0].version = OPSET
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    _name_ends(model.graph, symbol.infer_shape(**{INPUT: (1, *shape)})[1][0][1:])
    values = {**arrays, **{name: np.ones_like(arrays[name]) for name in _fixed_gammas(symbol)}}
    model.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(values[name]), name)
                                   for name in names if name != INPUT)
    _drop_unused(model.graph)
    with _refusing():
        onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Raise InputError for what mx2onnx, onnx or onnxruntime cannot do; they raise anything."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"MXNet's ONNX exporter cannot convert this network ({reason}): use "
                         "--format symbol") from error


def _with_pools(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The same graph, with pooling instead of means over height and width.

    mx2onnx writes ReduceMean in a form that the opset it declares does not have.
    """
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        attributes = node.get("attrs", {})
        if node["op"] == "mean" and (attributes.get("axis"), attributes.get("keepdims")) == (
                "(2, 3)", "True"):
            node["op"] = "Pooling"
            node["attrs"] = {"global_pool": "True", "kernel": "(1, 1)", "pool_type": "avg"}
    return mx.sym.load_json(json.dumps(graph))


def _fixed_gammas(symbol: mx.sym.Symbol) -> list[str]:
    """Names of the gammas that BatchNorm treats as 1, whatever their values."""
    nodes = json.loads(symbol.tojson())["nodes"]
    return [nodes[node["inputs"][1][0]]["name"] for node in nodes if node["op"] == "BatchNorm"
            and node.get("attrs", {}).get("fix_gamma", "True") in ("True", "1")]


def _name_ends(graph: "GraphProto", shape: tuple[int, ...]) -> None:
    """Make INPUT the only input, and name the output OUTPUT, (batch, *shape)."""
    from onnx import TensorProto, helper

    given, = [value for value in graph.input if value.name == INPUT]
    del graph.input[:]
    graph.input.append(given)
    last, = (value.name for value in graph.output)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == last else name for name in names]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", *shape]))


def _drop_unused(graph: "GraphProto") -> None:
    """Drop constants that no node uses; onnxruntime warns about each."""
    used = {name for node in graph.node for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def runner(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a batch of inputs to logits, run by onnxruntime on OMP_NUM_THREADS threads.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    with _refusing():
        session = onnxruntime.InferenceSession(str(path), options,
                                               providers=["CPUExecutionProvider"])
    return lambda batch: session.run([OUTPUT], {INPUT: batch})[0]
