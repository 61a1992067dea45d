"""Networks to export, and how other programs load what was exported."""

from collections.abc import Callable
from pathlib import Path

import mxnet as mx
import numpy as np
from gluoncv import model_zoo
from mxnet.gluon import nn
from mxnet.gluon.block import HybridBlock


def settle(network: HybridBlock, images: np.ndarray) -> HybridBlock:
    """Random parameters, and the running statistics of these images: logits of normal size."""
    def follow(block):
        if isinstance(block, nn.BatchNorm):
            block._kwargs["momentum"] = 0.0
    mx.random.seed(0)
    network.initialize(mx.init.Xavier())
    network.apply(follow)
    with mx.autograd.record():
        network(mx.nd.array(images)).backward()  # on a CPU the statistics are written here
    mx.nd.waitall()
    rng = np.random.default_rng(0)
    for name, parameter in network.collect_params().items():
        if name.endswith(("gamma", "beta")):
            parameter.data()[:] += mx.nd.array(rng.normal(0, 0.1, parameter.shape))
    return network


def read(form: str, out: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function of one batch, by the loader that another program would use."""
    if form == "onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
        return lambda batch: session.run(["logits"], {"data": batch})[0]
    if form == "symbol":
        loaded = mx.gluon.SymbolBlock.imports(f"{out}-symbol.json", ["data"], f"{out}-0000.params")
    else:
        loaded = model_zoo.get_model("cifar_resnet20_v1", classes=10)
        loaded.load_parameters(str(out))
    return lambda batch: loaded(mx.nd.array(batch, dtype=batch.dtype)).asnumpy()
