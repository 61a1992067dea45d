"""Which parameters are regularised."""

from mxnet.gluon import ParameterDict


def no_bias_decay(parameters: ParameterDict) -> list[str]:
    """Weight decay on weights of convolutions and dense layers only (arXiv 1812.01187, 3.1).

    Sets the decay of every other parameter (biases, BatchNorm's gamma and beta) to 0 and returns
    their names.
    """
    spared = [name for name in parameters if not name.endswith("weight")]
    for name in spared:
        parameters[name].wd_mult = 0.0
    return spared
