"""Networks of a real size, as onnxruntime runs them."""

import json
import zipfile
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from exported import read, settle
from gluoncv import model_zoo

from gluon_tricks.inference import trained
from gluon_tricks.inference.export import export
from gluon_tricks.models.zoo import get_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("onnx_packages")]


@pytest.mark.parametrize(("name", "size", "options"), [
    ("mobilenetv3_small", 64, {}), ("inceptionv3", 299, {}),
    ("resnet18_v1b", 64, {"use_gn": True, "dropout": 0.5})])
def test_families_of_networks_export(tmp_path, name, size, options):
    images = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    net = settle(get_model(name, classes=12, **options), images)
    net.save_parameters(str(tmp_path / "a.params"))
    loaded = trained.load(tmp_path / "a.params", mx.cpu(), model=name, input_size=size,
                          **options)
    export(loaded, "onnx", tmp_path / "out")
    want = loaded.network(mx.nd.array(images)).asnumpy()
    assert np.ptp(want, axis=1).min() > 0.1
    np.testing.assert_allclose(read("onnx", tmp_path / "out")(images), want,
                               atol=1e-4 * abs(want).max())


@pytest.fixture(scope="module")
def photographs(real_data, tmp_path_factory):
    """The 300 images, as files."""
    folder = tmp_path_factory.mktemp("photographs")
    with zipfile.ZipFile(real_data / "imagenet-samples-300.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".JPEG"))
        return [Path(archive.extract(name, folder)) for name in names]


def served(path, said):
    """An image as a server prepares it that knows only the JSON: (size, size, 3) float32."""
    told = said["preprocessing"]
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.float32)
    scale = told["resize_shorter_edge"] / min(image.shape[:2])
    height, width = (round(side * scale) for side in image.shape[:2])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    size = told["input_size"]
    top, left = (height - size) // 2, (width - size) // 2
    return (image[top:top + size, left:left + size] * told["scale"] - told["mean"]) / told["std"]


def test_onnxruntime_and_gluon_agree_on_photographs(photographs, tmp_path):
    reference = model_zoo.get_model("resnet50_v1d", classes=1000)
    said = {"preprocessing": {"resize_shorter_edge": 256, "input_size": 224, "scale": 1,
                              "mean": (123.68, 116.779, 103.939), "std": (58.393, 57.12, 57.375)}}
    plain = np.stack([served(path, said) for path in photographs]).transpose(0, 3, 1, 2)
    plain = plain.astype(np.float32)
    settle(reference, plain[::75]).save_parameters(str(tmp_path / "a.params"))
    loaded = trained.load(tmp_path / "a.params", mx.cpu(), model="resnet50_v1d")
    runs = {}
    for name, embed in (("plain", False), ("pixels", True)):
        done = export(loaded, "onnx", tmp_path / name, embed=embed, images=photographs[:4])
        assert done.images == 4
        runs[name] = read("onnx", tmp_path / name)
    told = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in runs}
    fed = np.stack([served(path, told["plain"]) for path in photographs]).transpose(0, 3, 1, 2)
    reference.hybridize()
    want = np.concatenate([reference(mx.nd.array(part)).asnumpy()
                           for part in np.split(plain, 10)])
    got = np.concatenate([runs["plain"](part.astype(np.float32)) for part in np.split(fed, 10)])
    np.testing.assert_allclose(got, want, atol=1e-4 * abs(want).max())
    np.testing.assert_array_equal((-got).argsort()[:, :5], (-want).argsort()[:, :5])
    assert len({tuple(row) for row in (-want).argsort()[:, :5].tolist()}) > 250, "all alike"

    rounded = np.stack([served(path, told["pixels"]) for path in photographs[:6]]).round()
    mean, std = np.float64(told["plain"]["preprocessing"]["mean"]), \
        np.float64(told["plain"]["preprocessing"]["std"])
    np.testing.assert_allclose(
        runs["pixels"](rounded.astype(np.uint8)),
        runs["plain"](((rounded - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)),
        atol=1e-4 * abs(want).max())
