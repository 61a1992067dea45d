"""What a run, and its teacher, take their parameters from."""

import contextlib
import json
import shutil

import gluoncv_networks
import mxnet as mx
import networks
import numpy as np
import pytest
from mxnet.gluon import nn

from gluon_tricks.classification import weights
from gluon_tricks.classification.initial import check_teacher, load_initial
from gluon_tricks.classification.network import (
    build_network,
    build_teacher,
    build_teacher_network,
    get_model,
    initialize,
)
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.classification.start import train
from gluon_tricks.errors import InputError
from gluon_tricks.models.parameters import classifier_parameter_names

NAME = "cifar_resnet20_v1"


def made(name=NAME, classes=4, seed=1):
    """A network with random values."""
    net = gluoncv_networks.build(name, classes=classes)
    net.initialize()
    net(mx.nd.zeros((1, 3, 32, 32)))
    gluoncv_networks.randomize(net, seed=seed)
    return net


def values(net):
    return {name: parameter.data().asnumpy()
            for name, parameter in net._collect_params_with_prefix().items()}


@pytest.fixture
def folder(tmp_path):
    """A run's folder: a network of 4 classes."""
    run = tmp_path / "run of 4"
    run.mkdir()
    made().save_parameters(str(run / "best.params"))
    (run / "config.json").write_text(json.dumps({"model": NAME}))
    return run


def begun(classes, names=None, **changes):
    """A network as it begins, and as it would begin without any parameters given."""
    nets = []
    for given in ({}, changes):
        chosen = resolve(Settings(model=NAME, input_size=32, seed=3, **given), 64, classes)
        nets.append(build_network(chosen))
        initialize(nets[-1], chosen, mx.cpu())
    return nets[1], nets[0], load_initial(nets[1], chosen, names)


@pytest.mark.parametrize("source", ["folder", "file", "zoo", "another's name"])
def test_sources(folder, source, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "pretrained_file",
                        lambda name: asked.append(name) or folder / "best.params")
    given = {"folder": {"init_params": str(folder)},
             "file": {"use_pretrained": str(folder / "best.params")},
             "zoo": {"use_pretrained": "zoo"}, "another's name": {"init_params": NAME}}[source]
    net, scratch, notes = begun(4, **given)
    want, unlike = values(made()), values(scratch)
    for name, got in values(net).items():
        np.testing.assert_array_equal(got, want[name], name)
        assert not np.array_equal(got, unlike[name]), name
    assert notes == [f"parameters from {folder / 'best.params'}"]
    assert asked == ([] if source in ("folder", "file") else [NAME])


def test_the_zoo_s_parameters_are_no_folder_s_that_has_their_name(folder, monkeypatch):
    run = folder.rename(folder.parent / NAME)
    made(seed=2).save_parameters(str(folder.parent / "zoo.params"))
    monkeypatch.setattr(weights, "pretrained_file", lambda name: folder.parent / "zoo.params")
    monkeypatch.chdir(run.parent)
    net, _, notes = begun(4, use_pretrained="zoo")
    assert notes == [f"parameters from {folder.parent / 'zoo.params'}"]
    np.testing.assert_array_equal(values(net)["output.bias"], values(made(seed=2))["output.bias"])


@pytest.mark.parametrize("classes", [7, 4])
def test_a_new_classifier_starts_as_the_seed_says(folder, classes):
    net, scratch, notes = begun(classes, init_params=str(folder), new_classifier=True)
    want, own = values(made()), values(scratch)
    for name, got in values(net).items():
        np.testing.assert_array_equal(got, (own if name.startswith("output") else want)[name])
    assert notes[0].endswith("best.params, all but those of output")


@pytest.mark.parametrize(("change", "said"), [
    (lambda run: {}, r"output\.weight has shape \(4, 64\), the network's is \(7, 64\); output\."
                     r"bias has .*; give --new-classifier to load all but these$"),
    (lambda run: (run / "config.json").write_text('{"model": "resnet18_v1"}'),
     "is of resnet18_v1, not of cifar_resnet20_v1: give other parameters, or the same --model"),
    (lambda run: made("cifar_resnet56_v1").save_parameters(str(run / "best.params")),
     "another network: missing nothing, unexpected features.2.3.body.0.weight"),
    (lambda run: made("cifar_wideresnet16_10").save_parameters(str(run / "best.params")),
     "another network: missing features.0.weight, .* unexpected features.0.gamma"),
    (lambda run: (run / "best.params").unlink(), "holds no parameters"),
    (lambda run: shutil.rmtree(run), "is no .params file, no run's folder and no name of")])
def test_wrong_parameters_are_refused_in_one_line(folder, change, said):
    change(folder)
    with pytest.raises(InputError, match=said) as caught:
        begun(7, init_params=str(folder))
    assert "\n" not in str(caught.value)


def test_other_shapes_than_the_classifier_s_are_no_matter_of_a_new_one(tmp_path):
    path = tmp_path / "wide.params"
    arrays = {name: mx.nd.array(array) for name, array in values(made()).items()}
    arrays["features.0.weight"] = mx.nd.zeros((17, 3, 3, 3))
    mx.nd.save(str(path), arrays)
    for new in (False, True):
        with pytest.raises(InputError, match=r"features\.0\.weight has shape \(17, 3, 3, 3\), the "
                           r"network's is \(16, 3, 3, 3\).*; check --model"):
            begun(7, init_params=str(path), new_classifier=new)


@pytest.mark.parametrize(("name", "want"), [
    ("resnet18_v1d", ["fc.weight", "fc.bias"]), ("resnet50_v1", ["output.weight", "output.bias"]),
    ("squeezenet1.0", ["output.0.weight", "output.0.bias"]), ("mobilenetv2_1.0",
                                                              ["output.0.weight"]),
    ("googlenet", ["head.2.weight", "head.2.bias", "output.weight", "output.bias"])])
def test_the_classifier_is_what_the_number_of_classes_changes(name, want):
    few, many = (get_model(name, classes=classes)._collect_params_with_prefix()
                 for classes in (7, 11))
    assert [key for key in few if few[key].shape != many[key].shape] == want
    assert classifier_parameter_names(get_model(name)) == want


def test_a_run_starts_from_them_and_does_not_look_at_them_again(settings, tiny, arrays, tmp_path):
    net = get_model("", 3)
    net.initialize(mx.init.Normal(0.3))
    net.save_parameters(str(tmp_path / "init.params"))
    common = {"init_params": str(tmp_path / "init.params"), "num_epochs": 2}
    still = train(settings(**common, lr=0.0, save_dir=str(tmp_path / "still"))).folder
    for name, array in arrays(still / "last.params").items():
        np.testing.assert_array_equal(array, values(net)[name])
    whole = train(settings(**common, save_dir=str(tmp_path / "whole"), keep=9)).folder
    shutil.copytree(whole, tmp_path / "cut")
    for part in ("2", "3"):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"00000{part}", ignore_errors=True)
    (tmp_path / "init.params").unlink()
    train(settings(**common, save_dir=str(tmp_path / "cut"), resume="auto"))
    want = arrays(whole / "last.params")
    for name, array in arrays(tmp_path / "cut" / "last.params").items():
        np.testing.assert_array_equal(array, want[name])
    with pytest.raises(InputError, match=r"init\.params is no \.params file"):
        train(settings(**common, save_dir=str(tmp_path / "new"), resume="auto"))
    assert not (tmp_path / "new").exists()


def taught(**changes):
    return resolve(Settings(model="resnet18_v1", input_size=32, **changes), 64, 4)


@pytest.mark.parametrize("given", ["folder", "file", "name and file"])
def test_teachers(folder, given):
    file = folder / "best.params"
    changes = {"folder": {"teacher": str(folder)}, "file": {"teacher": str(file)},
               "name and file": {"teacher": NAME, "teacher_params": str(file)}}[given]
    pictures = mx.nd.random.normal(shape=(2, 3, 32, 32))
    teacher = build_teacher(taught(**changes), mx.cpu())
    want = made()(pictures).asnumpy()
    np.testing.assert_allclose(teacher(pictures).asnumpy(), want, rtol=1e-4,
                               atol=1e-5 * np.abs(want).max())


def test_teachers_that_cannot_teach(folder):
    with pytest.raises(InputError, match=r"the teacher: .*\(4, 64\), the network's is \(5, 64\)"):
        build_teacher(resolve(Settings(model="resnet18_v1", input_size=32, teacher=str(folder)
                               ), 64, 5), mx.cpu())
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="does not say which network it is of: give its name by "
                       "--teacher, and the file by --teacher-params"):
        build_teacher_network(taught(teacher=str(folder)))
    with pytest.raises(InputError, match=r"the teacher: runs/gone is no \.params file, no run"):
        build_teacher_network(taught(teacher="runs/gone"))


@pytest.mark.slow
def test_the_first_rank_alone_needs_the_file(settings, in_ranks, arrays, tmp_path):
    """The second one is told of a file that is not there."""
    net = networks.normalised("", 3)
    net.initialize(mx.init.Normal(0.3))
    assert isinstance(net[1], nn.BatchNorm)
    net.save_parameters(str(tmp_path / "init.params"))
    chosen = settings(init_params=str(tmp_path / "init.params"), freeze_until="4", lr=0.0,
                      num_epochs=1, num_cpu_ranks=2, warmup_epochs=0)
    given = {name: value for name, value in vars(chosen).items()
             if value != getattr(Settings, name)}
    (tmp_path / "jobs.json").write_text(json.dumps([["normalised", None, given]]))
    done = in_ranks(2, "runs_in_ranks.py", tmp_path / "jobs.json")
    assert done.returncode == 0, done.stderr
    for name, array in arrays(tmp_path / "run" / "last.params").items():
        np.testing.assert_array_equal(array, values(net)[name])


@pytest.mark.parametrize(("beside", "said"), [
    ({"classes.json": {"classes": ["a", "b", "c", "d"]}}, None),
    ({"classes.json": {"classes": ["b", "a", "c", "d"]}},
     r"the teacher: .*best\.params: label 0 is 'b', in training it is 'a'; take another teacher"),
    ({"config.json": {"model": NAME, "rgb_mean": [1, 2, 3]}},
     "the teacher: .*was trained with --rgb-mean 1,2,3: give the same, or take another")])
def test_a_teacher_of_other_labels_or_pictures_is_refused(folder, beside, said):
    for name, content in beside.items():
        (folder / name).write_text(json.dumps(content))
    for given in ({"teacher": str(folder)},
                  {"teacher": NAME, "teacher_params": str(folder / "best.params")}):
        with pytest.raises(InputError, match=said) if said else contextlib.nullcontext():
            check_teacher(taught(**given), ["a", "b", "c", "d"])


def test_a_file_of_a_teacher_that_is_not_there_is_no_name():
    with pytest.raises(InputError, match=r"the teacher: nope\.params is no \.params file"):
        build_teacher_network(taught(teacher="nope.params"))


def test_a_teacher_s_folder_says_which_network_it_is(folder):
    with pytest.raises(InputError, match="is no network's name, which --teacher-params needs"):
        build_teacher_network(taught(teacher=str(folder), teacher_params="a.params"))


@pytest.mark.parametrize(("names", "more", "said"), [
    (["a", "b", "c", "d"], {}, []), (None, {}, []),
    (["b", "a", "c", "d"], {}, ["label 0 is 'a', in training it is 'b'; take other parameters, or "
                                "--new-classifier"]),
    (["b", "a", "c", "d"], {"new_classifier": True}, []),
    (None, {"rgb_mean": (1.0, 2.0, 3.0)}, ["was trained with --rgb-mean 7.0,8.0,9.0: give the"])])
def test_parameters_of_other_labels_or_pictures_are_warned_of(folder, names, more, said):
    (folder / "classes.json").write_text(json.dumps({"classes": ["a", "b", "c", "d"]}))
    mean = (7.0, 8.0, 9.0)
    (folder / "config.json").write_text(json.dumps({"model": NAME, "rgb_mean": mean}))
    _, _, notes = begun(4, names, init_params=str(folder), **{"rgb_mean": mean, **more})
    assert len(notes) == 1 + len(said)
    for note, words in zip(notes[1:], said, strict=True):
        assert note.startswith(f"warning: {folder / 'best.params'}") and words in note


def test_parameters_that_are_not_finite_are_refused(folder):
    net = made()
    net.output.bias.set_data(mx.nd.array([0, np.inf, 0, 0]))
    net.save_parameters(str(folder / "best.params"))
    with pytest.raises(InputError, match=r"best\.params holds numbers that are not finite"):
        begun(4, init_params=str(folder))
