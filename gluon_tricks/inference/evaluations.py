"""Evaluates trained parameters on a validation set, at one or several input sizes and crop ratios.

This is what scripts/evaluate.py runs.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gluon_tricks.classification import weights
from gluon_tricks.classification.evaluate import Predictions, evaluate_each
from gluon_tricks.classification.loaders import Loader, damaged_records, eval_loader, open_records
from gluon_tricks.classification.network import check_size
from gluon_tricks.classification.rules import validate
from gluon_tricks.classification.settings import Settings
from gluon_tricks.data.check import fingerprint
from gluon_tricks.data.classes import check_same_classes
from gluon_tricks.data.folder import class_folders
from gluon_tricks.data.sets import ImageSet
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference import reports, trained
from gluon_tricks.inference.trained import Trained
from gluon_tricks.models.parameters import named_arrays
from gluon_tricks.parallel.device import find_device
from gluon_tricks.parallel.ranks import Ranks, join
from gluon_tricks.runs.agreement import agreed
from gluon_tricks.runs.scores import Scores


@dataclass(frozen=True)
class Plan:
    """What to evaluate, and how. Without `run` and `params`, GluonCV's parameters of the model."""

    given: dict[str, Any]  # explicit settings, which override the run's
    run: Path | None = None  # the folder of a run or a checkpoint
    params: Path | None = None  # a file; uses a run's settings if they are next to it
    sizes: tuple[int, ...] = ()  # input sizes; if empty, the settings' own
    ratios: tuple[float, ...] = ()  # crop ratios; if empty, the settings' own
    crops: int = 1  # of each image, 1 or 10
    confusion: bool = False  # whether to return the confusion matrix
    predictions: bool = False  # whether to return the prediction for each record


class Result(NamedTuple):
    """The evaluation at one input size and crop ratio."""

    settings: Settings
    crops: int
    scores: Scores
    calibration_error: float
    names: list[str]  # of the classes
    confusion: np.ndarray | None  # (classes, classes) int64: rows are labels, columns predictions
    predictions: list[tuple] | None  # (key, label, predicted class, its probability) of each record


def evaluations(plan: Plan) -> Iterator[Result]:
    """Yield a result for each size and ratio, on the first rank only.

    Reports the data backend and the skipped records on stderr. Raises InputError if the parameters,
    the network, the data set and the settings do not fit together, checking all sizes and ratios
    before the first result, and RunFault if the loss is not finite.
    """
    with ExitStack() as stack:
        flags = Settings(**plan.given)
        ranks = stack.enter_context(join(flags.world_size))
        ranks.check_same(agreed(flags, crops=plan.crops, input_sizes=plan.sizes,
                                crop_ratios=plan.ratios,
                                reports=(plan.confusion, plan.predictions)))
        with ranks.all_or_none():
            device = find_device(flags.num_gpus, flags.dtype, ranks.local_rank)
            found = _find(plan)
            names = _names(plan, found, flags)
            records = stack.enter_context(open_records(flags, "val", names))
            check_same_classes(records.path, records.class_names(), names)
            model = trained.load(found, device, **_given(plan))
            cases = _cases(plan, model)
            damaged = damaged_records(model.settings, records)
        ranks.check_same(agreed(model.settings, validation_set=fingerprint(records)))
        ranks.broadcast(named_arrays(model.network))
        said: list[str] = []
        for case in cases:
            with ranks.all_or_none():
                loader = eval_loader(case, records, damaged, ranks, plan.crops)
            with loader:  # one at a time: each holds the memory of several batches
                ranks.check_same({"the data backend": loader.backend})
                scores, predictions = evaluate_each(
                    model.network, loader, device=device, ranks=ranks, classes=case.num_classes,
                    crops=plan.crops)
            if ranks.first:
                _report(loader, said)
            if not math.isfinite(scores.loss):
                raise ranks.agreed_error(RunFault(f"{model.path}: the loss is {scores.loss}, these "
                                          "parameters are from a run that diverged"))
            result = _result(plan, case, model, records, scores, predictions, ranks)
            if ranks.first:
                yield result


def _names(plan: Plan, found: weights.Weights, flags: Settings) -> list[str] | None:
    """The names that a data set uses for the parameters' classes, None if unknown.

    They keep a folder with only some of the classes from being labeled by those alone. ImageNet's
    folders are named by WNID, while the zoo's names are for people.
    """
    if plan.run is not None or (plan.params is not None and found.classes):
        return found.classes
    folder = flags.image_folder("val")
    if folder is None or not folder.is_dir():
        return None
    there = set(class_folders(folder))
    return next((names for names in (found.classes or [], weights.imagenet_wnids())
                 if there <= set(names)), None)


def _find(plan: Plan) -> weights.Weights:
    """The parameters to evaluate. Raises InputError if they cannot be obtained."""
    if plan.run is not None:
        return weights.find(plan.run)
    if plan.params is None:
        return weights.of_zoo(plan.given["model"])
    return weights.of_file(plan.params)


def _given(plan: Plan) -> dict[str, Any]:
    """The settings that override the parameters' own, with the first size and ratio."""
    first = {name: values[0] for name, values in (("input_size", plan.sizes),
                                                  ("crop_ratio", plan.ratios)) if values}
    return {**plan.given, **first}


def _cases(plan: Plan, model: Trained) -> list[Settings]:
    """The settings of each evaluation. Raises InputError for the first that cannot work."""
    own = model.settings
    if plan.crops > 1 and own.crop == "pad":
        raise InputError(f"--crops {plan.crops} cannot be combined with --crop pad, which does not "
                         "resize and so leaves nothing to crop: use --crop resized")
    cases = [validate(dataclasses.replace(own, input_size=size, crop_ratio=ratio))
             for size, ratio in itertools.product(plan.sizes or (own.input_size,),
                                                  plan.ratios or (own.crop_ratio,))]
    for case in {case.input_size: case for case in cases}.values():
        check_size(model.network, case)
    return cases


def _report(loader: Loader, said: list[str]) -> None:
    """Print the data backend and the skipped records to stderr, unless that was printed before."""
    note = f" ({loader.backend_note})" if loader.backend_note else ""
    for line in (f"data backend: {loader.backend}{note}", loader.skipped_line()):
        if line and line not in said:
            print(line, file=sys.stderr)
            said.append(line)


def _result(plan: Plan, case: Settings, model: Trained, records: ImageSet, scores: Scores,
            found: Predictions, ranks: Ranks) -> Result:
    """The result over all ranks, from this rank's predictions."""
    bins = reports.calibration_sums(found.labels, found.predicted, found.probabilities)
    error = reports.calibration_error(np.reshape(ranks.allreduce(bins.ravel()), bins.shape))
    names = model.classes if model.has_names else records.class_names() or []
    names = [*names, *map(str, range(len(names), case.num_classes))][:case.num_classes]
    matrix = predictions = None
    if plan.confusion:
        own = reports.confusion_matrix(found.labels, found.predicted, case.num_classes)
        matrix = np.array(ranks.allreduce(own.ravel()), np.int64).reshape(own.shape)
    if plan.predictions:
        rows = [*zip(*(part.tolist() for part in found), strict=True)]
        predictions = [(records.keys[index], *rest)
                       for index, *rest in sorted(itertools.chain(*ranks.allgather_object(rows)))]
    return Result(case, plan.crops, scores, error, names, matrix, predictions)
