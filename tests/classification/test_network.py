"""The parts of a run, made from its settings: device, network, Xavier, optimizer, loaders."""

import socket

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd

from gluon_tricks.classification.loaders import eval_loader, train_loader
from gluon_tricks.classification.network import build_loss, build_network, initialize
from gluon_tricks.classification.settings import Settings
from gluon_tricks.classification.settle import resolve
from gluon_tricks.data.record import RecordSet, RecordWriter
from gluon_tricks.data.transforms import EvalTransform, TrainTransform
from gluon_tricks.engine.optimizer import create_optimizer, create_updater
from gluon_tricks.errors import InputError
from gluon_tricks.models.zoo import model_names
from gluon_tricks.parallel.device import find_device


def settings(model="resnet18_v1d", **changes):
    """Settled settings of something small."""
    changes = {"batch_size": 4, "input_size": 32, "num_data_workers": 1, **changes}
    return resolve(Settings(model=model, **changes), 64, 10)


def ready(**changes):
    chosen = settings(**changes)
    net = build_network(chosen)
    initialize(net, chosen, mx.cpu())
    return net, chosen


def values(net):
    mx.nd.waitall()
    return {name: parameter.data().asnumpy()
            for name, parameter in net._collect_params_with_prefix().items()}


def test_device():
    assert find_device(0, "float32") == mx.cpu()
    with pytest.raises(InputError, match="--num-gpus 2"):
        find_device(2, "float32")


def test_a_gpu_that_is_not_there_is_refused():
    if mx.context.num_gpus():
        pytest.skip("there is one here")
    with pytest.raises(InputError, match="--num-gpus 1: MXNet sees no GPU"):
        find_device(1, "float32")


def test_each_rank_has_the_gpu_of_its_number_on_its_machine(monkeypatch):
    """Of 16, eight a machine."""
    monkeypatch.setattr("mxnet.context.num_gpus", lambda: 8)
    assert [find_device(16, "float32", each) for each in (0, 7)] == [mx.gpu(0), mx.gpu(7)]
    monkeypatch.setattr("mxnet.context.num_gpus", lambda: 4)
    assert find_device(16, "float32", 3) == mx.gpu(3)
    with pytest.raises(InputError, match="--num-gpus 16: MXNet sees 4 here"):
        find_device(16, "float32", 4)


def test_fp16_is_cast_but_for_batch_norm():
    net = build_network(settings(dtype="float16", num_gpus=1))
    dtypes = {name.rpartition(".")[2]: np.dtype(parameter.dtype).name
              for name, parameter in net._collect_params_with_prefix().items()}
    assert dtypes == {"weight": "float16", "bias": "float16", "gamma": "float32",
                      "beta": "float32", "running_mean": "float32", "running_var": "float32"}


def test_tricks_reach_the_network():
    net = build_network(settings(last_gamma=True, dropout=0.3))
    assert net.layer1[0].bn2.gamma.init == "zeros"
    drop, = (block for block in net._children.values() if type(block).__name__ == "Dropout")
    assert drop._rate == 0.3


@pytest.mark.parametrize(("model", "size"), [("inceptionv3", 32), ("inceptionv3", 74),
                                             ("squeezenet1.0", 64), ("alexnet", 32)])
def test_pictures_too_small_for_the_network_are_refused(model, size):
    with pytest.raises(InputError) as caught:
        build_network(settings(model=model, input_size=size))
    assert model in str(caught.value) and "--input-size" in str(caught.value)
    assert f"{size}x{size}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No connection opens and nothing is stored; gives the list of attempts."""
    attempts = []

    def refuse(*arguments, **_):
        attempts.append(arguments)
        raise ConnectionError("no network in this test")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    return attempts


@pytest.mark.parametrize("model", [
    "ssd_300_resnet34_v1b_voc", "fcn_resnet50_voc", "faster_rcnn_resnet50_v1b_voc",
    "yolo3_darknet53_voc", "center_net_resnet18_v1b_voc", "simple_pose_resnet18_v1b",
    "nasnet_4_1056", "hrnet_w48_s"])
def test_what_is_no_classifier_is_refused_without_a_download(model, offline, tmp_path):
    with pytest.raises(InputError) as caught:
        build_network(settings(model=model, input_size=224))
    assert model in str(caught.value) and "\n" not in str(caught.value)
    assert offline == []
    assert not list(tmp_path.iterdir())


def wrong_types(net, chosen):
    """What is of another type than FP16's recipe says, by what MXNet infers over the whole graph
    and by what the parameters will be."""
    graph = net(mx.sym.var("data"))
    types, _, statistics = graph.infer_type(data=np.float16)
    found = dict(zip(graph.list_arguments(), types, strict=True))
    want = {name: np.float32 if name.endswith(("gamma", "beta")) else np.float16 for name in found}
    loss = build_loss(chosen)(graph, mx.sym.var("label"))
    _, (of_loss,), _ = loss.infer_type(data=np.float16, label=np.int32)
    made = {name: np.dtype(parameter.dtype) for name, parameter in net.collect_params().items()}
    return ([name for name in found if found[name] != want[name]
             or made.get(name, want[name]) != want[name]]
            + ["statistics" for found in statistics if found != np.float32]
            + ["loss"] * (of_loss != np.float32))


@pytest.mark.slow
def test_every_name_of_the_zoo_is_built_in_fp16_or_refused_in_one_line(offline):
    """No CPU runs FP16, but types are inferred without running anything."""
    crashed, right = {}, 0
    for name in model_names():
        chosen = settings(model=name, input_size=32 if "cifar" in name else 299, dtype="float16",
                          num_gpus=1, label_smoothing=0.1)
        try:
            wrong = wrong_types(build_network(chosen), chosen)
            right += not wrong
            if wrong:
                crashed[name] = wrong
        except InputError as error:
            if "\n" in str(error):
                crashed[name] = error
        except Exception as error:  # collected, so that one does not hide the others
            crashed[name] = error
    assert crashed == {}
    assert right > 90
    assert offline == []


def test_a_type_that_is_not_of_the_recipe_is_found():
    chosen = settings(dtype="float16", num_gpus=1)
    net = build_network(chosen)
    assert wrong_types(net, chosen) == []
    net.layer1[0].conv1.weight.cast("float32")
    net.layer1[0].bn1.gamma.cast("float16")
    assert wrong_types(net, chosen) == [net.layer1[0].conv1.weight.name,
                                        net.layer1[0].bn1.gamma.name]


@pytest.fixture(scope="module")
def resnet50():
    return values(ready(model="resnet50_v1d")[0])


def test_xavier_is_uniform_within_its_bound_layer_by_layer(resnet50):
    """[-a, a], a = sqrt(6 / (d_in + d_out)); the fans count the kernel's area."""
    checked = 0
    for name, value in resnet50.items():
        if not name.endswith("weight"):
            continue
        area = value[0, 0].size if value.ndim == 4 else 1
        a = np.sqrt(6 / ((value.shape[0] + value.shape[1]) * area))
        scaled = value.astype(np.float64).ravel() / a
        count = scaled.size
        assert 0.98 < np.abs(scaled).max() <= 1 + 1e-6, name
        # five standard errors of a uniform distribution's mean, variance and middle half
        assert abs(scaled.mean()) < 5 / np.sqrt(3 * count), name
        assert abs(3 * np.mean(scaled**2) - 1) < 5 * np.sqrt(0.8 / count), name
        assert abs(np.mean(np.abs(scaled) < 0.5) - 0.5) < 2.5 / np.sqrt(count), name
        checked += 1
    assert checked == 56  # 55 convolutions and the dense layer


def test_the_rest_starts_at_zero_and_one(resnet50):
    start = {"bias": 0, "gamma": 1, "beta": 0, "running_mean": 0, "running_var": 1}
    for name, value in resnet50.items():
        kind = name.rpartition(".")[2]
        assert kind == "weight" or (value == start[kind]).all(), name


def test_biases_of_v1s_convolutions_start_at_zero():
    biases = {name: value for name, value in values(ready(model="resnet50_v1")[0]).items()
              if name.endswith("bias")}
    assert len(biases) == 33
    assert all((value == 0).all() for value in biases.values())


@pytest.mark.parametrize("model", ["resnet18_v1d", "cifar_resnet20_v1"])
def test_the_seed_alone_decides_the_start(model):
    first = values(ready(model=model, seed=3)[0])
    mx.nd.random.normal(shape=(7,))  # the generator is elsewhere now
    again = values(ready(model=model, seed=3, mode="imperative")[0])
    other = values(ready(model=model, seed=4)[0])
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        if name.endswith("weight"):
            assert (value != other[name]).mean() > 0.99, name


def test_layers_of_one_shape_start_differently(resnet50):
    assert (resnet50["layer1.1.conv2.weight"] != resnet50["layer1.2.conv2.weight"]).all()


def test_the_largest_seed_is_taken():
    ready(seed=2**64 - 1)


def test_gluoncvs_networks_are_initialised_by_xavier_too():
    """Their shapes are unknown until the image size is."""
    for name, value in values(ready(model="mobilenet1.0")[0]).items():
        if name.endswith("weight"):
            fans = (value.shape[0] + value.shape[1]) * (value[0, 0].size if value.ndim == 4 else 1)
            assert np.abs(value).max() == pytest.approx(np.sqrt(6 / fans), rel=0.05), name


def zero_gradient_update(**changes):
    """What moved (structural names) in one update of the run under a zero gradient."""
    net, chosen = ready(model="cifar_resnet20_v1", wd=0.1, **changes)
    for name, parameter in net._collect_params_with_prefix().items():
        if not name.endswith(("weight", "running_var", "running_mean")):
            parameter.set_data(mx.nd.full(parameter.shape, 0.5))
    before = values(net)
    update = create_updater(net, chosen)
    with autograd.record():
        out = net(mx.nd.ones((2, 3, 32, 32))) * 0
    out.backward()
    update.apply(0, chosen.lr, 1 / 2)
    return {name for name, value in values(net).items()
            if (value != before[name]).any() and "running" not in name}, net


def test_the_update_spares_biases_and_batch_norm_only_where_asked():
    moved, net = zero_gradient_update(no_wd=True)
    names = {name for name in net._collect_params_with_prefix() if "running" not in name}
    assert moved == {name for name in names if name.endswith("weight")}
    moved, _ = zero_gradient_update(no_wd=False)
    assert moved == names


def test_the_optimiser_is_nag_with_the_settings_values():
    optimizer = create_optimizer(settings(lr=0.3, momentum=0.7, wd=0.1))
    assert type(optimizer) is mx.optimizer.NAG
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.wd) == (0.3, 0.7, 0.1)
    assert not optimizer.multi_precision
    assert create_optimizer(settings(dtype="float16", num_gpus=1)).multi_precision


def test_bfloat16_is_refused_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr("gluon_tricks.parallel.device.has_bfloat16", lambda: False)
    with pytest.raises(InputError, match="--dtype bfloat16 needs a CPU that computes in it"):
        find_device(0, "bfloat16")


def test_gluoncv_compat_initialises_as_gluoncv_s_script():
    """MSRAPrelu: normal, variance 2 / ((1 + 0.25^2) (fans' mean))."""
    net, _ = ready(model="resnet50_v1d", gluoncv_compat=True)
    for name, value in values(net).items():
        if name.endswith("weight") and value.size > 10_000:
            area = value[0, 0].size if value.ndim == 4 else 1
            fan = (value.shape[0] + value.shape[1]) * area / 2
            assert value.var() == pytest.approx(2 / 1.0625 / fan, rel=0.1), name
            assert np.abs(value).max() > 3 * value.std(), name  # no uniform distribution


def pack(folder, jpeg, labels):
    """A set of gray images, 40 wide and 60 high, with a gray value of 10 times their number."""
    with RecordWriter(folder / "set") as writer:
        for key, label in enumerate(labels):
            writer.write(key, label, jpeg(np.full((60, 40, 3), 10 * key, np.uint8)))
    return RecordSet(folder / "set.rec")


def test_the_evaluation_loader_reads_each_record_once_and_normalises(tmp_path, jpeg):
    chosen = settings(rgb_mean=(1.0, 2.0, 3.0), rgb_std=(2.0, 4.0, 5.0))
    with pack(tmp_path, jpeg, [1, 0, 9, 3, 3]) as records, \
            eval_loader(chosen, records) as loader:
        batches = list(loader.epoch())
    assert [batch.images.shape for batch in batches] == [(4, 3, 32, 32), (1, 3, 32, 32)]
    assert np.concatenate([batch.labels for batch in batches]).tolist() == [1, 0, 9, 3, 3]
    for batch in batches:
        for image, number in zip(batch.images, batch.indices, strict=True):
            want = (10 * number - np.array([1, 2, 3])) / [2, 4, 5]
            np.testing.assert_allclose(image.mean(axis=(1, 2)), want, atol=0.3)


@pytest.mark.parametrize(("changes", "resize"), [
    ({"input_size": 224}, 256), ({"input_size": 299}, 342), ({"crop_ratio": 1.0}, 32),
    ({"crop": "pad"}, None)])
def test_the_evaluation_loader_resizes_by_the_crop_ratio(tmp_path, jpeg, changes, resize):
    with pack(tmp_path, jpeg, [0]) as records, \
            eval_loader(settings(**changes), records) as loader:
        assert loader._transform.resize == resize


def test_a_label_beyond_the_classes_is_named(tmp_path, jpeg):
    with pack(tmp_path, jpeg, [0, 1, 10, 12]) as records, pytest.raises(InputError) as caught:
        eval_loader(settings(), records)
    assert "set.rec" in str(caught.value) and "key 2" in str(caught.value)
    assert "label 10" in str(caught.value) and "10 classes" in str(caught.value)


def test_the_training_loader_shuffles_augments_and_drops_the_tail(tmp_path, jpeg):
    labels = [0, 1, 2, 3, 4, 5, 6, 7, 8]
    with pack(tmp_path, jpeg, labels) as records, \
            train_loader(settings(seed=1), records) as loader:
        first, second = (list(loader.epoch(epoch)) for epoch in (0, 1))
    for batches in (first, second):
        assert [batch.images.shape for batch in batches] == [(4, 3, 32, 32)] * 2
        for batch in batches:
            assert batch.labels.tolist() == batch.indices.tolist()
    assert not np.array_equal(first[0].indices, second[0].indices)


def test_the_training_loader_without_augmentation_normalises(tmp_path, jpeg):
    chosen = settings(color_jitter=0.0, pca_noise=0.0)
    with pack(tmp_path, jpeg, [0] * 8) as records, train_loader(chosen, records) as loader:
        for batch in loader.epoch():
            for image, number in zip(batch.images, batch.indices, strict=True):
                want = (10 * number - np.array([123.68, 116.779, 103.939])) / [58.393, 57.12,
                                                                               57.375]
                np.testing.assert_allclose(image.mean(axis=(1, 2)), want, atol=0.03)


def test_shuffled_labels_go_to_other_pictures_of_the_training_set_alone(tmp_path, jpeg):
    labels = list(range(9))
    chosen = settings(shuffle_labels=True)
    with pack(tmp_path, jpeg, labels) as records:
        with train_loader(chosen, records) as loader:
            seen = {int(index): int(label) for epoch in range(4) for batch in loader.epoch(epoch)
                    for index, label in zip(batch.indices, batch.labels, strict=True)}
        with eval_loader(chosen, records) as loader:
            for batch in loader.epoch():
                assert batch.labels.tolist() == batch.indices.tolist()
    assert sorted(seen) == sorted(seen.values()) == labels
    assert sum(index != label for index, label in seen.items()) >= 5


def test_xavier_also_where_the_network_brings_its_own():
    settings = resolve(Settings(model="vgg11_bn", input_size=32, batch_size=1), 10, 10)
    network = build_network(settings)
    initialize(network, settings, mx.cpu())
    weight = network.collect_params()[f"{network.prefix}conv1_weight"].data().asnumpy()
    bound = np.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * 9))
    assert 0.99 * bound < np.abs(weight).max() <= bound


def test_seeds_of_more_than_31_bits_initialise_otherwise_than_what_is_left_of_them():
    def weight(seed):
        settings = Settings(model="resnet18_v1", seed=seed, input_size=32, batch_size=1)
        settings = resolve(settings, 10, 10)
        network = build_network(settings)
        initialize(network, settings, mx.cpu())
        return network.fc.weight.data().asnumpy()
    assert not np.array_equal(weight(1), weight(1 + 2**31))
    assert not np.array_equal(weight(1), weight(1 + 2**63))
    assert np.array_equal(weight(2**63), weight(2**63))


def test_the_settings_defaults_are_the_transforms_own(tmp_path, noise_records):
    noise_records(tmp_path / "a", 32, (8, 8), 2)
    settings = resolve(Settings(model="resnet18_v1"), 32, 2)
    with (RecordSet(tmp_path / "a.rec") as records,
          train_loader(settings, records) as train,
          eval_loader(settings, records) as validation):
        assert train._transform == TrainTransform()
        assert validation._transform == EvalTransform()
