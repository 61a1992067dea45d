"""The parameters that a run starts from, where they are not drawn: --init-params and the like."""

from pathlib import Path

from mxnet.gluon.block import HybridBlock

from gluon_tricks.config import Settings
from gluon_tricks.engine import gluoncv_states, weights
from gluon_tricks.engine.parameters import (
    arrays_of,
    check_fit,
    classifier_names,
    read_parameters,
    set_arrays,
)
from gluon_tricks.engine.progress import Progress
from gluon_tricks.errors import InputError
from gluon_tricks.models.gluoncv_names import with_structural_names
from gluon_tricks.optim.update import Update
from gluon_tricks.presets import ZOO


def load_initial(network: HybridBlock, settings: Settings) -> list[str]:
    """Give an initialised network the parameters that the settings name; lines for the log.

    With --new-classifier the last layer keeps its own. Raises InputError where there are none, or
    they are of another network.
    """
    source = settings.init_params or settings.use_pretrained or settings.resume_params
    if source is None:
        return []
    found = weights.of_zoo(settings.model) if source == ZOO else weights.find(source)
    if found.model and found.model.lower() != settings.model.lower():
        raise InputError(f"{found.path} is of {found.model}, not of {settings.model}: give other "
                         "parameters, or the same --model")
    arrays = with_structural_names(network, read_parameters(found.path))
    kept = classifier_names(network) if settings.new_classifier else []
    arrays.update({name: own for name, own in arrays_of(network).items() if name in kept})
    check_fit(network, arrays, found.path, start=True)
    set_arrays(network, arrays)
    return [f"parameters from {found.path}" + (
        f", all but those of {kept[0].rpartition('.')[0]}" if kept else "")]


def go_on_with_gluoncv(network: HybridBlock, update: Update, settings: Settings) -> Progress:
    """Where a run goes on whose parameters are --resume-params; its optimiser is given what
    --resume-states holds. Raises InputError where that does not fit."""
    if settings.resume_states:
        gluoncv_states.load(Path(settings.resume_states).expanduser(), update, network,
                            settings.optimizer)
    return Progress(epoch=settings.resume_epoch, best_epoch=settings.resume_epoch - 1)
