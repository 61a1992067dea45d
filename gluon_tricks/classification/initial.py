"""Loads the parameters a run starts from when they are not random: --init-params and the like."""

from collections.abc import Iterator
from pathlib import Path

from mxnet.gluon.block import HybridBlock

from gluon_tricks.classification import gluoncv_states, weights
from gluon_tricks.classification.settings import Settings
from gluon_tricks.config.fields import flag_name
from gluon_tricks.config.presets import ZOO
from gluon_tricks.data.classes import check_same_classes
from gluon_tricks.errors import InputError
from gluon_tricks.models.gluoncv_names import with_structural_names
from gluon_tricks.models.parameters import (
    check_fit,
    classifier_parameter_names,
    named_arrays,
    set_arrays,
)
from gluon_tricks.models.params_file import read_parameters
from gluon_tricks.optim.precision import all_finite
from gluon_tricks.optim.update import ParameterUpdater
from gluon_tricks.runs.progress import Progress


def load_initial(network: HybridBlock, settings: Settings, classes: list[str] | None) -> list[str]:
    """Load the parameters that the settings name into an initialized network.

    Returns lines for the log, with a warning if the parameters are for classes other than the
    training set's `classes`, or for inputs normalized differently. With --new-classifier the last
    layer keeps its initial values. Raises InputError if the parameters are missing, are not this
    network's, or are not all finite.
    """
    source = settings.init_params or settings.use_pretrained or settings.resume_params
    if source is None:
        return []
    found = weights.of_zoo(settings.model) if source == ZOO else weights.find(source)
    if found.model and found.model.lower() != settings.model.lower():
        raise InputError(f"{found.path} is of {found.model}, not of {settings.model}: give other "
                         "parameters, or the matching --model")
    arrays = with_structural_names(network, read_parameters(found.path))
    kept = classifier_parameter_names(network) if settings.new_classifier else []
    arrays.update({name: own for name, own in named_arrays(network).items() if name in kept})
    check_fit(network, arrays, found.path, start=True)
    if not all_finite(list(arrays.values())):
        raise InputError(f"{found.path} has values that are not finite, from a run that "
                         "diverged: give other parameters")
    set_arrays(network, arrays)
    # The zoo's names of classes differ from those of their folders.
    warnings = mismatches(found, settings, None if kept else classes, "use other parameters, or "
                          "--new-classifier") if Path(source).expanduser().exists() else []
    return [f"parameters from {found.path}" + (
        f", except those of {kept[0].rpartition('.')[0]}" if kept else ""),
        *(f"warning: {said}" for said in warnings)]


def mismatches(found: weights.Weights, settings: Settings, classes: list[str] | None,
               remedy: str) -> Iterator[str]:
    """How the run that made the parameters differs from this one, as far as the files next to them
    say: in the meaning of the labels, if `classes` are known, and in how images are normalized."""
    try:
        check_same_classes(found.path, found.classes, classes, remedy)
    except InputError as error:
        yield str(error)
    for name in ("rgb_mean", "rgb_std"):
        theirs = found.settings.get(name)
        if theirs is not None and tuple(theirs) != getattr(settings, name):
            yield (f"{found.path} was trained with {flag_name(name)} "
                   f"{','.join(map(str, theirs))}: give the same, or {remedy}")


def check_teacher(settings: Settings, classes: list[str] | None) -> None:
    """Raise InputError if the files next to the teacher's parameters say that its classes are not
    the training set's, or that its images were normalized differently."""
    source = settings.teacher_params or settings.teacher
    if source is None or not Path(source).expanduser().exists():
        return  # the zoo's, whose names of classes differ from those of their folders
    said = next(mismatches(weights.find(source), settings, classes, "use another teacher"), None)
    if said is not None:
        raise InputError(f"the teacher: {said}")


def resume_gluoncv_run(network: HybridBlock, updater: ParameterUpdater,
                       settings: Settings) -> Progress:
    """Where a run that starts from --resume-params resumes; loads --resume-states, if given, into
    its optimizer. Raises InputError if they do not fit."""
    if settings.resume_states:
        gluoncv_states.load(Path(settings.resume_states).expanduser(), updater, network,
                            settings.optimizer)
    return Progress(epoch=settings.resume_epoch, best_epoch=settings.resume_epoch - 1)
