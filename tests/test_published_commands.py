"""GluonCV's published training commands: accepted as they are, built, and some of them run."""

import math

import mxnet as mx
import numpy as np
import published_commands as published
import pytest
from command_line import parse
from gluoncv import model_zoo
from gluoncv.nn.dropblock import DropBlock
from mxnet import autograd

from gluon_tricks.classification.loaders import eval_loader
from gluon_tricks.classification.network import build_network, initialize
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve, resolve_without_data
from gluon_tricks.classification.start import train
from gluon_tricks.data.record import RecordSet
from gluon_tricks.errors import InputError
from gluon_tricks.models.graph import hybridize, is_random
from gluon_tricks.optim.schedule import lr_at


@pytest.mark.parametrize("name", published.IMAGENET)
def test_a_published_command_is_taken_and_its_network_built(name):
    """With every shape inferred, and one output in training as in prediction."""
    command = published.IMAGENET[name]
    settings = resolve_without_data(parse(command))
    assert f"--model {settings.model}" in command
    network = build_network(settings)
    assert (settings.num_classes, settings.num_training_samples) == (1000, 1_281_167)
    network.infer_shape(mx.nd.zeros((1, 3, settings.input_size, settings.input_size),
                                    dtype=settings.dtype))
    assert all(0 not in parameter.shape for parameter in network.collect_params().values())
    with autograd.train_mode():
        assert len(network(mx.sym.var("data"))) == 1
    zeros = any(parameter.init == "zeros" for parameter in
                network.collect_params(".*gamma").values())
    assert zeros == ("--last-gamma" in command)


@pytest.mark.parametrize(("name", "size"), [  # the other families, and those of train_horovod.py
    ("resnest14", 224), ("resnest269", 320), ("densenet121", 224), ("squeezenet1.1", 224),
    ("shufflenet_v1", 224), ("shufflenet_v2", 224), ("alexnet", 224), ("hrnet_w18_small_v1_c", 224),
    ("hrnet_w64_c", 224), ("dla34", 224), ("senet_154", 224), ("cifar_wideresnet16_10", 32),
    ("resnet18_v1b_0.89", 224)])
def test_other_families_are_built(name, size):
    build_network(resolve_without_data(Settings(model=name, input_size=size)))


@pytest.mark.parametrize(("name", "batch", "steps", "lrs"), [
    # Warm-up to 0.4 in 5 epochs of 1251 updates, then half a cosine over 115.
    ("resnet50_v1d", 1024, 1251, {
        0: 0.4 / 6255, 6254: 0.4, 6255: 0.4, 6255 + 143_865 // 3: 0.3,
        150_119: 0.2 * (1 - math.cos(math.pi / 143_865))}),
    # 0.98 an epoch, from the second on.
    ("mobilenetv2_1.0", 160, 8007, {
        0: 0.045, 8006: 0.045, 8007: 0.0441, 480 * 8007 - 1: 2.8216476e-06})])
def test_batch_and_learning_rate_are_those_of_the_command(name, batch, steps, lrs):
    settings = resolve_without_data(parse(published.IMAGENET[name]))
    assert (settings.global_batch, settings.steps_per_epoch) == (batch, steps)
    schedule = settings.schedule()
    assert {update: lr_at(update, **schedule) for update in lrs} == pytest.approx(lrs, rel=1e-6)
    with pytest.raises(ValueError, match="outside"):  # these are the runs' ends
        lr_at(max(lrs) + 1, **schedule)


def test_resnest_is_compiled_and_its_dropblock_knows_the_size_of_the_pictures():
    settings = resolve_without_data(parse("--model resnest26 --input-size 256"))
    network = build_network(settings)
    hybridize(network, settings.mode)
    assert network._active and is_random(network)
    blocks = []
    network.apply(blocks.append)
    assert {block.h for block in blocks if isinstance(block, DropBlock)} == {32, 16, 8}


def test_group_norm_is_built_in_the_types_of_fp16():
    """As BatchNorm: gamma and beta in FP32, the rest and the output in FP16."""
    settings = Settings(model="resnet50_v1b", use_gn=True, dtype="float16", num_gpus=1)
    graph = build_network(resolve_without_data(settings))(mx.sym.var("data"))
    types, outputs, _ = graph.infer_type(data=np.float16)
    assert outputs == [np.float16]
    assert all(found == (np.float32 if name.endswith(("gamma", "beta")) else np.float16)
               for name, found in zip(graph.list_arguments(), types, strict=True))


@pytest.mark.parametrize("model", ["resnet18_v2", "inceptionv3"])
def test_group_norm_is_refused_where_channels_have_no_groups(model):
    with pytest.raises(InputError, match=r"\(--use-gn\)"):
        build_network(resolve_without_data(Settings(model=model, use_gn=True, input_size=299)))


@pytest.fixture
def run(tmp_path, noise_records):
    """run(command, size): the result of a published command on four images of three classes, two
    a batch, on the CPU; and its settings. What depends on hardware and data is overridden."""
    def start(command, size, *more):
        for part, count in (("train", 4), ("val", 3)):
            noise_records(tmp_path / part, count, (size + 9, size + 9), 3)
        settings = parse(
            command, f"--num-gpus 0 --dtype float32 -j 2 --batch-size 2 --input-size {size}",
            f"--num-epochs 1 --warmup-epochs 0 --lr 0.001 --save-dir {tmp_path}/run",
            f"--rec-train {tmp_path}/train.rec --rec-train-idx {tmp_path}/train.idx",
            f"--rec-val {tmp_path}/val.rec --rec-val-idx {tmp_path}/val.idx", *more)
        return train(settings), resolve(settings, 4, 3)
    return start


@pytest.fixture
def teacher(tmp_path):
    """A file that GluonCV made: cifar_resnet20_v1 with three classes, as a teacher's flags."""
    network = model_zoo.get_model("cifar_resnet20_v1", classes=3)
    network.initialize(mx.init.Xavier())
    network(mx.nd.zeros((1, 3, 32, 32)))
    network.save_parameters(str(tmp_path / "teacher.params"))
    return f"--teacher cifar_resnet20_v1 --teacher-params {tmp_path}/teacher.params"


def loss_by_gluoncv(network, result, settings):
    """The mean cross-entropy of GluonCV's network, imperative, with the parameters of a run."""
    network.load_parameters(str(result.folder / "last.params"))
    losses = []
    with RecordSet(*settings.rec_paths("val")) as records, \
            eval_loader(settings, records) as loader:
        for batch in loader.epoch():
            logits = network(mx.nd.array(batch.images)).asnumpy().astype(np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            losses += list(-scores[np.arange(len(batch.labels)), batch.labels])
    assert len(losses) == 3
    return np.mean(losses)


@pytest.mark.parametrize(("name", "size", "more"), [
    ("resnet18_v1b", 32, ""), ("resnet50_v1d-mixup", 32, "--mode symbolic"),
    ("resnet50_v1b_gn", 32, ""), ("mobilenet0.25", 64, ""), ("mobilenetv3_small", 64, ""),
    pytest.param("inceptionv3-mixup", 299, "", marks=pytest.mark.slow)])
def test_a_published_command_trains_with_all_tricks(run, teacher, name, size, more):
    """Two updates; GluonCV's network then gives the run's validation loss."""
    result, settings = run(published.IMAGENET[name], size, "--mixup --label-smoothing", teacher,
                           more)
    log = (result.folder / settings.logging_file).read_text()
    assert ("the run is hybrid" in log) == (more != "") and "is imperative" not in log
    assert "updates 2" in " ".join(log.split())
    with_gn = "_gn" if settings.use_gn else ""
    theirs = model_zoo.get_model(settings.model + with_gn, classes=3)
    start = build_network(settings)
    initialize(start, settings, mx.cpu())
    assert loss_by_gluoncv(theirs, result, settings) == pytest.approx(result.last.loss, rel=1e-4)
    before, after = (network._collect_params_with_prefix() for network in (start, theirs))
    moved = [np.abs(before[key].data().asnumpy() - after[key].data().asnumpy()).max()
             for key in before if key.endswith("weight")]
    assert np.isfinite(moved).all() and np.mean(np.array(moved) > 0) > 0.9
