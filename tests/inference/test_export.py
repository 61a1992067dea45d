"""What leaves the project gives Gluon's logits, or is not there."""

import hashlib
import json
import resource
import runpy
import sys
import warnings
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from exported import read, settle
from gluoncv import model_zoo
from mxnet.gluon import nn

from gluon_tricks import cli
from gluon_tricks.classification import weights
from gluon_tricks.errors import InputError, RunFault
from gluon_tricks.inference import export as exporting
from gluon_tricks.inference import onnx_file, trained
from gluon_tricks.inference.export import check, export

SCRIPT = Path(__file__).parents[2] / "scripts" / "export.py"
pytestmark = pytest.mark.usefixtures("onnx_packages")

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
PAIRS = [("onnx", False), ("onnx", True), ("symbol", False), ("symbol", True), ("params", False)]


@pytest.fixture(scope="module")
def pixels():
    """(10, 32, 32, 3) uint8 images, smooth as photographs are."""
    rng = np.random.default_rng(1)
    return np.stack([cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (32, 32),
                                interpolation=cv2.INTER_CUBIC) for _ in range(10)])


@pytest.fixture(scope="module")
def planes(pixels):
    """The same, normalized in float64 by the formula, as a network takes them."""
    return ((pixels - np.float64(MEAN)) / np.float64(STD)).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture(scope="module")
def gluoncv_network(planes):
    return settle(model_zoo.get_model("cifar_resnet20_v1", classes=10), planes)


@pytest.fixture(scope="module")
def run_folder(gluoncv_network, tmp_path_factory):
    """As a run leaves it."""
    folder = tmp_path_factory.mktemp("run")
    gluoncv_network.save_parameters(str(folder / "best.params"))
    (folder / "config.json").write_text(json.dumps({
        "model": "cifar_resnet20_v1", "crop": "pad", "input_size": 32, "rgb_mean": MEAN,
        "rgb_std": STD, "num_classes": 10}))
    (folder / "classes.json").write_text(json.dumps({"classes": list("abcdefghij")}))
    return folder


@pytest.fixture(scope="module")
def network(run_folder):
    return trained.load(run_folder, mx.cpu())


@pytest.mark.parametrize(("form", "embed"), PAIRS)
def test_what_is_exported_gives_gluoncvs_logits_at_any_batch_size(
        network, gluoncv_network, pixels, planes, tmp_path, form, embed):
    done = export(network, form, tmp_path / "out", embed=embed)
    assert done.images == 8 and sorted(done.files) == sorted(tmp_path.iterdir())
    run, want = read(form, tmp_path / "out"), gluoncv_network(mx.nd.array(planes)).asnumpy()
    assert np.ptp(want, axis=1).min() > 0.5, "logits that tell nothing"
    inputs = pixels if embed else planes
    for count in (1, 2, 7):
        np.testing.assert_allclose(run(inputs[:count]), want[:count], atol=1e-4)
    np.testing.assert_array_equal(run(inputs).argsort()[:, -5:], want.argsort()[:, -5:])


def test_nothing_warns_of_a_symbol_that_is_right(network, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        export(network, "symbol", tmp_path / "out")


@pytest.mark.parametrize(("embed", "shape", "kind"), [
    (False, ["batch", 3, 32, 32], 1), (True, ["batch", 32, 32, 3], 2)])  # FLOAT, UINT8
def test_the_form_of_an_onnx_file(network, tmp_path, embed, shape, kind):
    import onnx
    export(network, "onnx", tmp_path / "out", embed=embed)
    model = onnx.load(str(tmp_path / "out"))
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    (data,), (logits,) = model.graph.input, model.graph.output
    for value, dimensions, number in ((data, shape, kind), (logits, ["batch", 10], 1)):
        held = value.type.tensor_type
        assert [each.dim_param or each.dim_value for each in held.shape.dim] == dimensions
        assert held.elem_type == number
    assert (data.name, logits.name) == ("data", "logits")


class Odd(nn.HybridSequential):
    """What mx2onnx would get wrong, or does in ways of its own."""

    def hybrid_forward(self, F, x):
        x = F.clip(super().hybrid_forward(F, x), 0, 6)
        return F.flatten(F.mean(x, axis=(2, 3), keepdims=True))


def test_a_gamma_that_does_not_count_and_a_mean(tmp_path):
    net = Odd()
    net.add(nn.Conv2D(6, 3, in_channels=3), nn.BatchNorm(scale=False, in_channels=6),
            nn.AvgPool2D(3, 2, ceil_mode=True, count_include_pad=False), nn.Dropout(0.5))
    net.initialize(mx.init.Normal(0.5))
    next(parameter for name, parameter in net.collect_params().items()
         if name.endswith("gamma")).data()[:] = 5
    images = np.random.default_rng(0).normal(size=(2, 3, 12, 12)).astype(np.float32)
    arrays = {name: each.data().asnumpy() for name, each in net.collect_params().items()}
    onnx_file.write(tmp_path / "out", exporting.graph_of(net), arrays, (3, 12, 12), "float32")
    want = net(mx.nd.array(images)).asnumpy()
    assert want.std() > 0.1
    np.testing.assert_allclose(read("onnx", tmp_path / "out")(images), want, atol=1e-5)


# --- The check -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "embed"), PAIRS)
def test_weights_that_are_wrong_by_a_hundredth_are_not_exported(network, tmp_path, monkeypatch,
                                                                form, embed):
    right = exporting._WRITERS[form]

    def wrong(paths, loaded, block):
        bias = list(loaded.network.collect_params().values())[-1].data()
        bias[3] += 0.01
        run = right(paths, loaded, block)
        run(exporting._inputs(loaded, embed, np.zeros((1, 32, 32, 3)))[0][1])
        bias[3] -= 0.01
        return run

    monkeypatch.setitem(exporting._WRITERS, form, wrong)
    with pytest.raises(RunFault, match=r"different logits for random input: they differ by 0\.01.*"
                                       "nothing was written"):
        export(network, form, tmp_path / "out", embed=embed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "name"), [(1, "random input"), (3, "random input"),
                                             (5, "images")])
def test_random_input_alone_and_in_a_batch_counts_and_so_do_pictures(
        network, picture_folder, tmp_path, monkeypatch, count, name):
    def wrong(*arguments, right=exporting._WRITERS["params"]):
        run = right(*arguments)
        return lambda batch: run(batch) + (len(batch) == count)

    monkeypatch.setitem(exporting._WRITERS, "params", wrong)
    with pytest.raises(RunFault, match=f"different logits for {name}: they differ by 1,"):
        export(network, "params", tmp_path / "out",
               images=[picture_folder / "ant", picture_folder / "bee" / "0.jpg"])


LOGITS = np.array([[5, 4, 3, 2, 1, 0, -10]])


@pytest.mark.parametrize(("given", "reason"), [
    (LOGITS + 9e-4, None), (LOGITS + 1.1e-3, "logits"),
    (LOGITS * np.nan, "different logits"), (LOGITS[:, :6], "different logits")])
def test_the_tolerance_is_a_ten_thousandth_of_the_largest_logit(given, reason):
    arguments = lambda batch: given, lambda batch: LOGITS, [("noise", np.zeros(1))]
    if reason is None:
        assert check(*arguments) == pytest.approx(9e-4)
    else:
        with pytest.raises(RunFault, match=f"{reason} for noise"):
            check(*arguments)


def test_other_best_classes_within_the_tolerance_are_refused():
    close = np.array([[9.0001, 9, 8, 7, 6, 5]])
    with pytest.raises(RunFault, match="different top-5 classes for images"):
        check(lambda batch: close[:, [1, 0, 2, 3, 4, 5]], lambda batch: close,
              [("images", np.zeros(1))])


def test_a_network_that_diverged_is_refused():
    with pytest.raises(RunFault, match="own logits for noise are not finite"):
        check(lambda batch: LOGITS, lambda batch: LOGITS + np.inf, [("noise", np.zeros(1))])


def test_of_many_pictures_32_are_taken_from_all_over(tmp_path):
    for number in range(70):
        (tmp_path / f"{number:02}.JPEG").touch()
    (tmp_path / "notes.txt").touch()
    assert [path.stem for path in exporting._chosen([tmp_path])] == \
        [f"{number:02}" for number in range(0, 70, 3)]


# --- The JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize("embed", [False, True])
def test_the_json_beside_it(network, run_folder, tmp_path, embed):
    done = export(network, "onnx", tmp_path / "net.onnx", embed=embed)
    said = json.loads((tmp_path / "net.onnx.json").read_text())
    own = {"mean": [120, 110, 100], "std": [60, 50, 40]}
    assert said.pop("versions")["mxnet"] == "1.9.1"
    assert said.pop("check") == {"max_abs_difference": done.difference, "pictures": 8}
    assert said.pop("source")["parameters"] == str(run_folder / "best.params")
    assert said.pop("files") == {
        "net.onnx": hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()}
    assert said == {
        "model": "cifar_resnet20_v1", "format": "onnx", "classes": list("abcdefghij"),
        "input": {"name": "data", "dtype": "uint8", "shape": ["batch", 32, 32, 3],
                  "layout": "NHWC", "channels": "RGB"} if embed else
                 {"name": "data", "dtype": "float32", "shape": ["batch", 3, 32, 32],
                  "layout": "NCHW", "channels": "RGB"},
        "output": {"name": "logits", "shape": ["batch", 10], "meaning": "logits"},
        "preprocessing": {
            "resize_shorter_edge": None, "interpolation": "bilinear", "antialias": False,
            "crop": "center", "input_size": 32, "scale": 1,
            **({"mean": [0, 0, 0], "std": [1, 1, 1]} if embed else own),
            "formula": "(pixel * scale - mean) / std, with pixels from 0 to 255"},
        "embedded_preprocessing": own if embed else None}


def test_the_json_of_an_imagenet_network(tmp_path):
    get = trained.Trained(trained.Settings(model="resnet50_v1d"), None,
                          [str(number) for number in range(1000)], tmp_path / "a.params")
    get.path.touch()
    said = exporting.describe(get, "params", embed=False)
    assert said["classes"] is None  # unknown ones have no names
    assert {name: said["preprocessing"][name] for name in
            ("resize_shorter_edge", "input_size", "mean", "std")} == {
        "resize_shorter_edge": 256, "input_size": 224, "mean": [123.68, 116.779, 103.939],
        "std": [58.393, 57.12, 57.375]}


# --- What is refused -----------------------------------------------------------------------------


def refusals(folder, run):
    (folder / "other.json").write_text('{"model": "x"}')
    (folder / "empty").mkdir()
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return [
        (("params", folder / "a"), {"embed": True}, "--format params does not store"),
        (("onnx", folder / "no" / "a"), {}, "in an existing folder"),
        (("onnx", folder / "empty"), {}, "give a file's name"),
        (("onnx", Path(".")), {}, "give a file's name"),
        (("onnx", folder / "other"), {}, "other.json exists and is not an export's"),
        (("params", run / "best.params"), {}, "where the parameters come from"),
        (("params", folder / "a"), {"images": [folder / "empty"]}, "has no images"),
        (("params", folder / "a"), {"images": [folder / "cut.jpg"]}, "cut.jpg: .*drop it"),
        (("params", folder / "a"), {"images": [folder / "no.jpg"]}, "no.jpg.*drop it")]


@pytest.mark.parametrize("number", range(9))
def test_what_cannot_be_is_refused_and_leaves_nothing(network, run_folder, tmp_path, number):
    arguments, options, reason = refusals(tmp_path, run_folder)[number]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=reason):
        export(network, *arguments, **options)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "change", "reason"), [
    ("importlib.util.find_spec", lambda name: None, r"needs onnx: pip install .*-cpu\.txt"),
    ("metadata.version", lambda name: "1.18.0", "onnx 1.18.0 is too new for MXNet's exporter")])
def test_packages_that_will_not_do(network, tmp_path, monkeypatch, name, change, reason):
    monkeypatch.setattr(f"{onnx_file.__name__}.{name}", change)
    with pytest.raises(InputError, match=reason):
        export(network, "onnx", tmp_path / "out")


def test_an_operator_that_the_exporter_lacks(tmp_path):
    erf = mx.sym.erf(mx.sym.var("data"))
    with pytest.raises(InputError, match=r"cannot convert .*erf.*: use --format symbol"):
        onnx_file.write(tmp_path / "out", erf, {}, (4,), "float32")


@pytest.mark.parametrize("form", ["onnx", "symbol", "params"])
def test_a_disk_that_is_full_keeps_what_was_there(network, tmp_path, form):
    """A limit on a file's size stands in for it."""
    first = export(network, form, tmp_path / "out")
    kept = {path: path.read_bytes() for path in first.files}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError):
            export(network, form, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


# --- The command ---------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    """command(*arguments): exit code, and what it said, of scripts/export.py, in this process."""
    main = runpy.run_path(str(SCRIPT), run_name="export")["main"]

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        code, error = cli._ending(main)
        return code, error or capsys.readouterr().out
    return run


def test_a_run_a_file_and_what_is_missing(command, run_folder, picture_folder, tmp_path,
                                          monkeypatch):
    out = tmp_path / "out.onnx"
    code, said = command("--run", run_folder, "--format", "onnx", "--out", out,
                         "--pictures", picture_folder / "ant", picture_folder / "bee" / "0.jpg")
    assert code == 0 and said.startswith(f"{out}, {out}.json: cifar_resnet20_v1, 10 classes; ")
    assert said.endswith("random input and 5 images\n")
    code, said = command("--params", run_folder / "best.params", "--model", "cifar_resnet20_v1",
                         "--input-size", 24, "--rgb-mean", "1,2,3", "--format", "symbol", "--out",
                         tmp_path / "net")
    shown = json.loads((tmp_path / "net.json").read_text())["preprocessing"]
    assert (code, shown["input_size"], shown["mean"]) == (0, 24, [1, 2, 3])
    code, said = command("--format", "onnx", "--out", out)
    assert (code, said) == (2, "nothing to export: give --run, --params or --model")
    for flag, reason in (("--run", "not a folder"), ("--params", "missing")):  # the zoo has it
        code, said = command(flag, "resnet18_v1b", "--format", "params", "--out", out)
        assert (code, said.partition(":")[0]) == (2, f"{flag} resnet18_v1b is {reason}")
    monkeypatch.setattr(exporting, "TOLERANCE", 0)
    code, said = command("--run", run_folder, "--format", "onnx", "--out", tmp_path / "b")
    assert code == 1 and said.startswith("the exported network gives different logits")
    assert not (tmp_path / "b").exists()


def test_a_model_alone_is_the_zoos_even_beside_a_folder_of_that_name(
        command, run_folder, tmp_path, monkeypatch):
    model = "cifar_resnet20_v1"
    monkeypatch.chdir(tmp_path)
    Path(model).mkdir()
    monkeypatch.setattr(weights, "pretrained_file", lambda name, *_: {
        model: run_folder / "best.params"}[name])
    code, said = command("--model", model, "--format", "params", "--out", "net")
    assert (code, said.partition(":")[0]) == (0, "net, net.json")
    assert json.loads(Path("net.json").read_text())["classes"][0] == "airplane"
