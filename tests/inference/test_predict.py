"""Predictions, against GluonCV's networks on pictures that were prepared by hand."""

import hashlib
import itertools
import json
import math

import cv2
import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model, model_store

from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference.predict import Picture, find_pictures, open_network, predict

CLASSES = 7
RESIZED = {"model": "resnet18_v1b", "num_classes": CLASSES, "input_size": 64, "crop_ratio": 0.8,
           "rgb_mean": [110.0, 120.0, 130.0], "rgb_std": [50.0, 60.0, 70.0], "lr": 0.4}
PADDED = {**RESIZED, "crop": "pad", "crop_ratio": 0.875, "input_size": 40}


def save(network, path):
    """Random parameters, large enough that pictures differ in their likeliest class."""
    mx.random.seed(0)
    network.initialize(mx.init.Xavier(magnitude=6))
    network(mx.nd.ones((1, 3, 64, 64)))
    network.save_parameters(str(path))
    return network


@pytest.fixture(scope="module")
def gluoncv_network(tmp_path_factory):
    """GluonCV's network, and the file of its parameters."""
    path = tmp_path_factory.mktemp("parameters") / "best.params"
    return save(get_model("resnet18_v1b", classes=CLASSES), path), path


@pytest.fixture
def run(tmp_path, gluoncv_network):
    """run(settings, classes): the folder of a run."""
    def make(settings=RESIZED, classes=None):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "best.params").symlink_to(gluoncv_network[1])
        (folder / "config.json").write_text(json.dumps(settings))
        if classes:
            (folder / "classes.json").write_text(json.dumps({"classes": classes}))
        return folder
    return make


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths: six pictures of various sizes and formats, and what is none between and around them.
    """
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, height, width in (("a.jpg", 70, 90), ("c.png", 130, 60), ("e.jpg", 64, 64),
                                ("f.bmp", 81, 80), ("h.jpg", 40, 200), ("k.webp", 300, 310)):
        small = rng.integers(0, 256, (5, 6, 3), np.uint8)
        assert cv2.imwrite(str(folder / name), cv2.resize(small, (width, height)))
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:-30])
    (folder / "d.png").write_bytes(b"")
    (folder / "g.jpg").write_text("no picture")
    (folder / "i.jpg").mkdir()
    with open(folder / "l.jpg", "wb") as film:
        film.truncate(2**30 + 1)  # takes no room on the disk
    return [str(folder / name) for name in (
        "a.jpg", "b.jpg", "c.png", "d.png", "e.jpg", "f.bmp", "g.jpg", "h.jpg", "i.jpg", "j.jpg",
        "k.webp", "l.jpg")]


FAULTS = {"b.jpg": "truncated", "d.png": "0 bytes", "g.jpg": "10 bytes are not an image",
          "i.jpg": "no regular file", "j.jpg": "No such file",
          "l.jpg": "1073741825 bytes are more"}


def by_hand(path, settings):
    """(1, 3, size, size): the shorter edge resized, the middle cut out, normalised."""
    image = cv2.imread(path).astype(np.float32)[..., ::-1]
    size, (height, width) = settings["input_size"], image.shape[:2]
    if settings.get("crop") != "pad":
        short = size / settings["crop_ratio"]
        scale = short / min(height, width)
        image = cv2.resize(image, (round(width * scale), round(height * scale)))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    image = image[top:top + size, left:left + size]
    image = (image - np.array(settings["rgb_mean"])) / np.array(settings["rgb_std"])
    return mx.nd.array(image.transpose(2, 0, 1)[None])


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def predicted(folder, paths, **options):
    trained, device = open_network(folder, None, num_gpus=0)
    return list(predict(trained, map(Picture, paths), device, **options))


@pytest.mark.parametrize("settings", [RESIZED, PADDED], ids=["resized", "padded"])
def test_top_5_and_probabilities_are_gluoncvs_by_hand_in_any_batch(
        run, pictures, gluoncv_network, settings):
    folder = run(settings)
    results = {batch: predicted(folder, pictures, batch_size=batch, workers=2)
               for batch in (1, 2, 5, 32)}
    likeliest = set()
    for at, path in enumerate(pictures):
        name = path.rpartition("/")[2]
        found = [result[at] for result in results.values()]
        assert [prediction.path for prediction in found] == [path] * 4
        if name in FAULTS:
            assert all(FAULTS[name] in prediction.error and not prediction.top
                       for prediction in found)
            continue
        want = softmax(gluoncv_network[0](by_hand(path, settings)).asnumpy()[0])
        best = np.argsort(-want)[:5]
        likeliest.add(best[0])
        for prediction in found:
            assert prediction.error is None
            assert [guess.number for guess in prediction.top] == best.tolist()
            assert [guess.label for guess in prediction.top] == [str(number) for number in best]
            np.testing.assert_allclose([guess.probability for guess in prediction.top], want[best],
                                       atol=1e-5)
    assert all(len(result) == len(pictures) for result in results.values())
    assert len(likeliest) > 1  # else a mix-up would not show


def test_all_classes_are_named_where_there_are_fewer(run, pictures):
    prediction, = predicted(run(), pictures[:1], top=10)
    assert sorted(guess.number for guess in prediction.top) == list(range(CLASSES))
    assert math.fsum(guess.probability for guess in prediction.top) == pytest.approx(1, abs=1e-6)


def test_a_long_list_is_answered_as_it_is_read(run, pictures):
    read = itertools.count()
    lines = (pictures[next(read) % 2 * 2].encode() + b"\n" for _ in range(200))
    trained, device = open_network(run(), None, num_gpus=0)
    predictions = predict(trained, find_pictures(["-"], lines), device, batch_size=3, workers=1)
    first = list(itertools.islice(predictions, 3))
    assert [prediction.path for prediction in first] == [pictures[0], pictures[2], pictures[0]]
    assert first[0].top == first[2].top != first[1].top
    assert next(read) <= 3 + 5  # the batch, four ahead, one at hand
    predictions.close()


def test_outputs_that_are_not_finite_are_a_fault(run, pictures):
    trained, device = open_network(run(), None, num_gpus=0)
    bias = list(trained.network.collect_params().values())[-1]
    bias.set_data(mx.nd.array([0, 0, math.nan, 0, 0, 0, 0]))
    with pytest.raises(RunFault, match=r"best\.params: the network's outputs are not finite"):
        list(predict(trained, [Picture(pictures[0])], device))


def labels(folder, names=None):
    return open_network(folder, names, num_gpus=0)[0].classes


def test_names_are_the_runs_or_those_given(run, tmp_path):
    folder, other, few = run(classes=list("ABCDEFG")), tmp_path / "other", tmp_path / "few"
    other.write_text(json.dumps({"classes": list("tuvwxyz")}))
    few.write_text(json.dumps({"classes": ["t", "u"]}))
    assert labels(folder) == list("ABCDEFG")
    assert labels(folder, other) == list("tuvwxyz")
    with pytest.raises(InputError, match=r"few names 2 classes, .*best\.params is for 7: give"):
        labels(folder, few)


def test_a_zoo_name_has_imagenets_classes_even_beside_a_folder_of_that_name(
        tmp_path, monkeypatch, pictures):
    name = "mobilenet0.25"
    saved, models = tmp_path / "saved.params", tmp_path / "home" / "models"
    network = save(get_model(name), saved)
    network.output.weight.data()[207] = 9  # of golden retriever; features are 0 or more
    network.save_parameters(str(saved))
    digest = hashlib.sha1(saved.read_bytes()).hexdigest()
    models.mkdir(parents=True)
    saved.rename(models / f"{name}-{digest[:8]}.params")
    monkeypatch.setitem(model_store._model_sha1, name, digest)
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "home"))
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    trained, device = open_network(None, None, num_gpus=0, model=name, input_size=64)
    prediction, = predict(trained, [Picture(pictures[0])], device, top=1)
    assert (len(trained.classes), trained.settings.input_size) == (1000, 64)
    assert [guess[:2] for guess in prediction.top] == [(207, "golden retriever")]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files by name alone: what is in them does not matter to who lists them."""
    for name in ("p/b.JPG", "p/a/z.png", "p/a.jpeg", "p/c/d/e.webp", "p/notes.txt", "p/c/f.bmp",
                 "q/[1].jpg", "q/1.jpg", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "p" / "c" / "loop").symlink_to(tmp_path / "p")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


FOLDER = ["p/a/z.png", "p/a.jpeg", "p/b.JPG", "p/c/d/e.webp", "p/c/f.bmp"]


@pytest.mark.parametrize(("names", "lines", "want"), [
    (["p"], [], FOLDER), (["q/1.jpg", "p/", "no.jpg"], [], ["q/1.jpg", *FOLDER, "no.jpg"]),
    (["p/*"], [], ["p/a.jpeg", "p/b.JPG", "p/notes.txt"]),
    (["q/[1].jpg", "q/[1]*"], [], ["q/[1].jpg", "q/1.jpg"]),
    (["q/1.jpg", "-", "q/1.jpg"], [b"p\n", b"\n", b"q/*\n", b" \xff.jpg\r\n", b"last"],
     ["q/1.jpg", *FOLDER, "q/*", " \udcff.jpg", "last", "q/1.jpg"])],
    ids=["folder", "three", "pattern", "literal name", "list"])
def test_files_folders_patterns_and_lists_name_pictures(tree, names, lines, want):
    assert [(path.replace("//", "/"), fault) for path, fault in find_pictures(names, lines)] == [
        (path, "") for path in want]


def test_what_names_no_picture_comes_with_the_reason(tree, tmp_path):
    assert list(find_pictures(["empty", "x*.jpg", "~/q/2*"])) == [
        Picture("empty", "no picture is in it (.jpg, .jpeg, .png, .bmp, .webp)"),
        Picture("x*.jpg", "no file matches it"),
        Picture(f"{tmp_path}/q/2*", "no file matches it")]
    assert list(find_pictures(["-"], [b"\n"])) == []
