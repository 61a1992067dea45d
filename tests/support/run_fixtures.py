"""Runs of a few updates on a network so small that they take almost no time."""

import importlib.util
import json
import os

import mxnet as mx
import pytest
from mxnet.gluon import nn

from gluon_tricks import errors
from gluon_tricks.classification.settings import Settings


@pytest.fixture
def tiny(monkeypatch):
    """Every model name gives a network of 2 layers without BatchNorm."""
    def network(name, classes, **_):
        net = nn.HybridSequential()
        net.add(nn.Conv2D(4, 5, strides=4, in_channels=3, activation="tanh"),
                nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(classes, in_units=4))
        return net

    monkeypatch.setattr("gluon_tricks.classification.network.get_model", network)


@pytest.fixture
def settings(tmp_path, noise_records):
    """settings(**changes): a run of two epochs of five updates on 21 images of 3 classes."""
    noise_records(tmp_path / "train", 21, (40, 50), 3)
    noise_records(tmp_path / "val", 7, (40, 50), 3)

    def make(**changes) -> Settings:
        values = {"model": "cifar_resnet20_v1", "rec_train": str(tmp_path / "train.rec"),
                  "rec_val": str(tmp_path / "val.rec"), "input_size": 32, "batch_size": 4,
                  "num_epochs": 2, "lr": 0.01, "log_interval": 2, "num_data_workers": 2,
                  "lr_mode": "cosine", "warmup_epochs": 1, "save_dir": str(tmp_path / "run")}
        return Settings(**{**values, **changes})
    return make


@pytest.fixture(scope="session")
def lines():
    """lines(folder, kind): those of log.jsonl."""
    def read(folder, kind):
        every = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [line for line in every if line["kind"] == kind]
    return read


@pytest.fixture(scope="session")
def arrays():
    """arrays(path): the NumPy arrays of a .params file by name."""
    def read(path):
        return {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}
    return read


@pytest.fixture(scope="session")
def onnx_packages():
    """Skips without onnx and onnxruntime, except in CI, which must have them."""
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            assert os.environ.get("CI") != "true", f"{name} is missing"
            pytest.skip(f"needs {errors.install_packages()}")
