"""Real images from file to trained network."""

import json
import re
import zipfile

import mxnet as mx
import numpy as np
import pytest

from gluon_tricks.classification.loaders import train_loader
from gluon_tricks.classification.network import build_network, initialize
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.data.record import RecordSet
from gluon_tricks.engine.optimizer import create_updater


@pytest.fixture(scope="module")
def unpack(real_data, tmp_path_factory):
    def run(name):
        archive = real_data / name
        assert archive.is_file(), f"{archive} is missing"
        folder = tmp_path_factory.mktemp(archive.stem)
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        return folder
    return run


def test_imagenet_pictures_pack_verify_and_train_a_step(unpack, script):
    folder = unpack("imagenet-samples-300.zip")
    packed = script("im2rec", folder / "imagenet-samples", folder / "samples", "--pass-through")
    assert packed.returncode == 0, packed.stderr
    verified = script("im2rec", "--verify", folder / "samples")
    assert verified.stdout == (f"{folder}/samples.rec: 300 records, 300 classes, labels 0 to 299, "
                               "0 damaged\n"), verified.stdout
    assert verified.returncode == 0

    settings = resolve(Settings(model="resnet50_v1d", batch_size=8, lr=0.01), 300, 300)
    network = build_network(settings)
    initialize(network, settings, mx.cpu())
    update = create_updater(network, settings)
    before = network.fc.weight.data().asnumpy()
    with RecordSet(folder / "samples.rec") as records, \
            train_loader(settings, records) as loader:
        batches = loader.epoch(0)
        batch = next(batches)
        batches.close()
    assert batch.images.shape == (8, 3, 224, 224)
    with mx.autograd.record():
        logits = network(mx.nd.array(batch.images))
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(logits, mx.nd.array(batch.labels))
    loss.backward()
    update.apply(0, settings.lr, 1 / 8)
    assert np.isfinite(loss.asnumpy()).all()
    after = network.fc.weight.data().asnumpy()
    assert np.isfinite(after).all()
    assert not np.array_equal(before, after)


@pytest.mark.slow
def test_an_epoch_of_cifar10_reaches_forty_percent(unpack, script):
    folder = unpack("cifar10-jpeg.zip")
    for part, more in (("train", ()), ("val", ("--classes", folder / "train.classes.json"))):
        packed = script("im2rec", folder / "cifar10" / part, folder / part, "--pass-through", *more)
        assert packed.returncode == 0, packed.stderr
    trained = script(
        "train_imagenet", "--model", "cifar_resnet20_v1", "--input-size", 32, "--crop", "pad",
        "--rec-train", folder / "train.rec", "--rec-val", folder / "val.rec", "--batch-size", 128,
        "--num-epochs", 1, "--lr", 0.1, "--lr-mode", "cosine", "--save-dir", folder / "run",
        timeout=2400)
    assert trained.returncode == 0, trained.stderr
    assert re.search(r"top-5 [\d.]+%, loss [\d.]+, 5000 images;", trained.stdout)
    last = json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "end"
    assert last["top1"] > 0.40
