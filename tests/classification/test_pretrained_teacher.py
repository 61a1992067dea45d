"""A teacher by GluonCV's own download, from a server in this process."""

import functools
import hashlib
import http.server
import threading
import zipfile

import mxnet as mx
import numpy as np
import pytest
from gluoncv.model_zoo import get_model, model_store

from gluon_tricks.classification.network import build_teacher
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.errors import InputError


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The folder that GluonCV downloads from; what it keeps goes to tmp_path / "home"."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MXNET_GLUON_REPO", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("MXNET_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("NO_PROXY", "*")
        folder = tmp_path / "gluon" / "models"
        folder.mkdir(parents=True)
        yield folder
        server.shutdown()


def settings(teacher):
    return resolve(Settings(model="resnet18_v1", teacher=teacher, input_size=32), 64, 10)


def test_gluoncv_s_parameters_are_downloaded_and_taken(store, tmp_path, monkeypatch):
    wanted = get_model("cifar_resnet20_v1", classes=10)
    wanted.initialize(mx.init.Normal(0.1))
    wanted(mx.nd.ones((1, 3, 32, 32)))
    saved = tmp_path / "saved.params"
    wanted.save_parameters(str(saved))
    digest = hashlib.sha1(saved.read_bytes()).hexdigest()
    monkeypatch.setitem(model_store._model_sha1, "cifar_resnet20_v1", digest)
    name = f"cifar_resnet20_v1-{digest[:8]}"
    with zipfile.ZipFile(store / f"{name}.zip", "w") as archive:
        archive.write(saved, f"{name}.params")
    teacher = build_teacher(settings("cifar_resnet20_v1"), mx.cpu())
    assert (tmp_path / "home" / "models" / f"{name}.params").is_file()
    pictures = mx.nd.random.normal(shape=(2, 3, 32, 32))
    np.testing.assert_allclose(teacher(pictures).asnumpy(), wanted(pictures).asnumpy(), rtol=1e-4,
                               atol=1e-5)


@pytest.mark.parametrize(("teacher", "message"), [
    ("cifar_resnet20_v1", "of cifar_resnet20_v1 cannot be downloaded .*: give a .params file with "
     "--teacher-params"),
    ("resnet18_v1c", "no pretrained parameters of resnet18_v1c: give a .params file with "
     "--teacher-params")])
def test_what_cannot_be_had_is_said_in_one_line(store, teacher, message):
    with pytest.raises(InputError, match=message) as caught:
        build_teacher(settings(teacher), mx.cpu())
    assert "\n" not in str(caught.value)


def test_a_missing_network_is_said_plainly(tmp_path, monkeypatch):
    """Nothing listens on the first port."""
    monkeypatch.setenv("MXNET_GLUON_REPO", "http://127.0.0.1:1/")
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(InputError, match=r"downloaded \(no connection to 127\.0\.0\.1:1\): give"):
        build_teacher(settings("cifar_resnet20_v1"), mx.cpu())
