"""Builds a run's optimizer, and the updater that applies it to the parameters."""

import mxnet as mx
from mxnet.gluon.block import HybridBlock

from gluon_tricks.config.settings import RunSettings
from gluon_tricks.optim import adabound, lars  # noqa: F401, importing registers them
from gluon_tricks.optim.regularize import no_bias_decay
from gluon_tricks.optim.update import ParameterUpdater


def create_optimizer(settings: RunSettings) -> mx.optimizer.Optimizer:
    """The optimizer of resolved settings, with FP32 master weights if the weights are FP16."""
    name = {"lars": "layerwiselars"}.get(settings.optimizer, settings.optimizer)
    options = {"momentum": settings.momentum, "eta": settings.lars_eta,
               "final_lr": settings.final_lr}
    return mx.optimizer.create(
        name, learning_rate=settings.effective_lr, wd=settings.wd,
        multi_precision=settings.dtype == "float16",
        **{option: value for option, value in options.items() if value is not None})


def create_updater(net: HybridBlock, settings: RunSettings) -> ParameterUpdater:
    """What updates the network's parameters except frozen ones; with --no-wd, weight decay is on
    weights only. With --accumulate, makes the gradients add up."""
    parameters = net.collect_params()
    if settings.no_wd:
        no_bias_decay(parameters)
    if settings.accumulate > 1:
        for parameter in parameters.values():
            if parameter.grad_req != "null":
                parameter.grad_req = "add"
        parameters.zero_grad()
    return ParameterUpdater(net._collect_params_with_prefix(), create_optimizer(settings))
