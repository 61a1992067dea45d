"""Evaluations of runs, files and the zoo's parameters: what they take from where."""

import json
import math
from itertools import product

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification import network as classifiers
from gluon_tricks.classification import weights
from gluon_tricks.classification.evaluate import correct
from gluon_tricks.classification.settings import Settings
from gluon_tricks.data.classes import write_classes
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference import trained
from gluon_tricks.inference.evaluations import Plan, evaluations
from gluon_tricks.models.zoo import get_model

COUNT, CLASSES = 11, 3


@pytest.fixture(scope="module")
def val(tmp_path_factory, noise_records):
    """The settings that name a set of 11 images of 50 x 40 with the labels 0 to 2 in turn."""
    prefix = tmp_path_factory.mktemp("set") / "val"
    noise_records(prefix, COUNT, (50, 40), CLASSES)
    return {"rec_val": f"{prefix}.rec", "num_data_workers": 1, "batch_size": 4,
            "data_backend": "opencv"}


@pytest.fixture
def saved(tmp_path, tiny):
    """saved(path, scale=1): the parameters of a tiny network, random."""
    def save(path, scale=1.0):
        net = classifiers.get_model("any", CLASSES)
        mx.random.seed(3)
        net.initialize(mx.init.Normal(scale))
        net(mx.nd.ones((1, 3, 32, 32)))
        path.parent.mkdir(parents=True, exist_ok=True)
        net.save_parameters(str(path))
        return path
    return save


OWN = {"model": "resnet18_v1", "num_classes": CLASSES, "input_size": 28, "crop_ratio": 0.75,
       "rgb_mean": [100.0, 110.0, 120.0], "rgb_std": [40.0, 50.0, 60.0], "crop": "resized"}


@pytest.fixture
def run(tmp_path, saved):
    """run(**changes): a run's folder whose settings are OWN and these."""
    def make(name="run", file="best.params", **changes):
        folder = tmp_path / name
        saved(folder / file)
        settings = {**OWN, "lr": 0.1, "derived": {}, **changes}
        (folder / "config.json").write_text(json.dumps(settings))
        return folder
    return make


def only(plan):
    result, = evaluations(plan)
    return result


def test_a_run_says_how_its_network_is_fed(val, run):
    """As a file of the same parameters with all that given by hand."""
    folder = run()
    mine = only(Plan(val, run=folder))
    by_hand = {**val, **OWN, "rgb_mean": tuple(OWN["rgb_mean"]), "rgb_std": tuple(OWN["rgb_std"])}
    theirs = only(Plan(by_hand, params=folder / "best.params"))
    assert (mine.scores, mine.calibration_error) == (theirs.scores, theirs.calibration_error)
    for name, value in OWN.items():
        used = getattr(mine.settings, name)
        assert (list(used) if isinstance(used, tuple) else used) == value


@pytest.mark.parametrize(("changes", "given"), [
    ({}, {"rgb_mean": (0.0, 0.0, 0.0)}), ({"rgb_std": [1.0, 1.0, 1.0]}, {}),
    ({"crop": "pad", "crop_ratio": 0.875}, {}), ({}, {"sizes": (24,)}), ({}, {"ratios": (1.0,)})],
    ids=str)
def test_each_of_them_matters_and_flags_outdo_it(val, run, changes, given):
    usual = only(Plan(val, run=run()))
    lists = {name: given[name] for name in given if name in ("sizes", "ratios")}
    settings = {name: given[name] for name in given if name not in lists}
    other = only(Plan({**val, **settings}, run=run("other", **changes), **lists))
    assert other.scores.loss != usual.scores.loss


def test_a_file_is_fed_as_the_run_beside_it_says(val, run):
    """Like predict and export; flags override it."""
    folder = run()
    got = only(Plan({**val, "crop_ratio": 0.875}, params=folder / "best.params"))
    assert (got.settings.crop_ratio, got.settings.rgb_mean, got.settings.input_size) == (
        0.875, (100.0, 110.0, 120.0), 28)
    assert only(Plan(val, params=folder / "best.params")).scores == only(Plan(val, run=folder)
                                                                         ).scores


def test_a_file_alone_is_fed_as_is_usual_for_its_network(val, saved, tmp_path):
    """CIFAR's see 32x32 pixels."""
    file = saved(tmp_path / "alone.params")
    got = only(Plan({**val, "model": "resnet18_v1"}, params=file, sizes=(32,)))
    default = Settings()
    assert (got.settings.crop_ratio, got.settings.rgb_mean, got.settings.crop) == (
        default.crop_ratio, default.rgb_mean, "resized")
    assert got.settings.num_classes == CLASSES


def test_a_checkpoint_is_evaluated_by_its_average(val, tmp_path, saved, run):
    """Its classes are the run's."""
    folder = tmp_path / "checkpoints" / "000007"
    saved(folder / "average.params")
    saved(folder / "model.params", scale=9.0)
    (folder / "state.json").write_text(json.dumps({"settings": OWN}))
    assert only(Plan(val, run=folder)).scores == only(Plan(val, run=run())).scores
    write_classes(tmp_path / "classes.json", ["ant", "bee", "cat"])
    assert only(Plan(val, run=folder)).names == ["ant", "bee", "cat"]


def test_without_either_the_zoo_s_parameters_are_taken(val, tmp_path, saved, monkeypatch,
                                                       noise_records):
    """Also if there is a folder with the network's name, and if the set has other names for
    the classes than GluonCV."""
    file = saved(tmp_path / "zoo.params")
    monkeypatch.setattr(weights, "pretrained_file",
                        lambda name, *_: {"resnet50_v1d": file}[name])
    (tmp_path / "resnet50_v1d").mkdir()
    monkeypatch.chdir(tmp_path)
    noise_records(tmp_path / "val", 2, (40, 40), 2)
    write_classes(tmp_path / "val.classes.json", ["n01440764", "n01443537", "n01484850"])
    got = only(Plan({**val, "model": "resnet50_v1d", "rec_val": str(tmp_path / "val.rec")},
                    sizes=(28,)))
    assert (got.settings.model, got.settings.num_classes) == ("resnet50_v1d", CLASSES)


def test_every_size_with_every_ratio_each_as_if_alone(val, run):
    folder = run()
    sizes, ratios = (28, 24), (0.75, 1.0)
    got = list(evaluations(Plan(val, run=folder, sizes=sizes, ratios=ratios)))
    assert [(result.settings.input_size, result.settings.crop_ratio) for result in got] == [
        (28, 0.75), (28, 1.0), (24, 0.75), (24, 1.0)]
    alone = [only(Plan(val, run=folder, sizes=(size,), ratios=(ratio,))).scores
             for size, ratio in product(sizes, ratios)]
    assert [result.scores for result in got] == alone and len(set(map(str, alone))) == 4


@pytest.mark.parametrize("crops", [1, 10])
def test_confusion_and_predictions_agree_with_the_scores(val, run, crops):
    got = only(Plan(val, run=run(), crops=crops, confusion=True, predictions=True))
    keys, labels, predicted, probabilities = map(list, zip(*got.predictions, strict=True))
    assert (keys, labels) == (list(range(COUNT)), [key % CLASSES for key in range(COUNT)])
    want = np.zeros((CLASSES, CLASSES), int)
    for label, said in zip(labels, predicted, strict=True):
        want[label, said] += 1
    assert (got.confusion == want).all()
    assert np.trace(want) == correct(got.scores, "top1") and got.scores.count == COUNT
    assert all(1 / CLASSES < each < 1 for each in probabilities)


def test_the_names_of_classes_are_the_runs_or_the_set_s_or_numbers(val, run, tmp_path,
                                                                   noise_records):
    assert only(Plan(val, run=run())).names == ["0", "1", "2"]
    named = run("named")
    write_classes(named / "classes.json", ["ant", "bee", "cat"])
    assert only(Plan(val, run=named)).names == ["ant", "bee", "cat"]
    noise_records(tmp_path / "val", 2, (40, 40), 2)
    write_classes(tmp_path / "val.classes.json", ["ant", "bee"])
    other = {**val, "rec_val": str(tmp_path / "val.rec")}
    assert only(Plan(other, run=run())).names == ["ant", "bee", "2"]
    with pytest.raises(InputError, match=r"label 2 is nothing, in training it is 'cat'"):
        only(Plan(other, run=named))


@pytest.mark.parametrize(("plan", "said"), [
    ({"sizes": (28, 0)}, "--input-size 0: must be at least 1"),
    ({"ratios": (0.5, 1.5)}, "--crop-ratio 1.5: must be above 0"),
    ({"crops": 10, "changes": {"crop": "pad", "crop_ratio": 0.875}}, "with --crop pad"),
    ({"ratios": (0.5,), "changes": {"crop": "pad", "crop_ratio": 0.875}}, "with --crop pad")],
    ids=str)
def test_what_cannot_work_is_refused_before_the_first_result(val, run, plan, said):
    folder = run(**plan.pop("changes", {}))
    with pytest.raises(InputError, match=said):
        next(evaluations(Plan(val, run=folder, **plan)))


def test_a_network_of_one_size_refuses_others_in_one_line(val, tmp_path):
    net = get_model("alexnet", classes=CLASSES)
    net.initialize()
    net(mx.nd.zeros((1, 3, 64, 64)))
    net.save_parameters(str(tmp_path / "net.params"))
    plan = {**val, "model": "alexnet"}
    assert only(Plan(plan, params=tmp_path / "net.params", sizes=(64,))).scores.count == COUNT
    for sizes in ((64, 128), (128,)):
        with pytest.raises(InputError, match=r"alexnet cannot classify images of 128x128 "
                                             r"\(--input-size\)") as caught:
            next(evaluations(Plan(plan, params=tmp_path / "net.params", sizes=sizes)))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"cannot classify images of 128x128"):
        trained.load(tmp_path / "net.params", mx.cpu(), model="alexnet", input_size=128)


def test_parameters_of_a_run_that_diverged_are_a_fault(val, saved, tmp_path):
    file = saved(tmp_path / "net.params")
    mx.nd.save(str(file), {name: array * math.nan for name, array in
                           mx.nd.load(str(file)).items()})
    with pytest.raises(RunFault, match=r"net\.params: the loss is nan"):
        only(Plan({**val, "model": "resnet18_v1"}, params=file, sizes=(28,), crops=10))


@pytest.mark.parametrize(("folders", "labels"), [
    (("n01443537", "n15075141"), {"n01443537": 1, "n15075141": 999}),  # goldfish, toilet tissue
    (("ant", "bee"), {"ant": 0, "bee": 1})], ids=str)
def test_a_folder_with_some_of_imagenets_classes_has_their_labels(tmp_path, jpeg, folders, labels):
    """By WNID, if the parameters do not say what their classes are called."""
    for number, name in enumerate(folders):
        (tmp_path / "val" / name).mkdir(parents=True)
        for picture in range(number + 1):
            (tmp_path / "val" / name / f"{picture}.jpg").write_bytes(
                jpeg(np.full((32, 32, 3), 50 * number, np.uint8)))
    net = get_model("cifar_resnet20_v1", classes=1000)
    net.initialize()
    net(mx.nd.zeros((1, 3, 32, 32)))
    net.save_parameters(str(tmp_path / "a.params"))
    result = only(Plan({"model": "cifar_resnet20_v1", "data_dir": str(tmp_path)},
                       params=tmp_path / "a.params", predictions=True))
    assert {key.partition("/")[0]: label for key, label, *_ in result.predictions} == labels
    assert result.scores.count == 3
