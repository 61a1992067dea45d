"""Parameter files: complete or not at all, and refused in one line if they do not fit."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from gluoncv import model_zoo
from mxnet.gluon import nn

import gluon_tricks
from gluon_tricks.errors import InputError
from gluon_tricks.models.parameters import count_classes, load_parameters, named_arrays, set_arrays
from gluon_tricks.models.params_file import check_layout, read_parameters, save_arrays
from gluon_tricks.models.zoo import get_model

ROOT = Path(gluon_tricks.__file__).parent.parent


def small(outputs=3, hidden=5, initialize=True):
    net = nn.HybridSequential()
    net.add(nn.Dense(hidden, in_units=4), nn.BatchNorm(in_channels=hidden),
            nn.Dense(outputs, in_units=hidden))
    if initialize:
        net.initialize(mx.init.Normal(1))
    return net


def save(net, path):
    save_arrays(path, named_arrays(net))


def arrays(net):
    return {name: parameter.data().asnumpy()
            for name, parameter in net._collect_params_with_prefix().items()}


def assert_same(got, want):
    got, want = arrays(got), arrays(want)
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], name)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.params"


def refusal(path, net=None):
    with pytest.raises(InputError) as caught:
        load_parameters(net or small(), path, mx.cpu())
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_there_and_back(file):
    net = small()
    save(net, file)
    again = small(initialize=False)
    load_parameters(again, file, mx.cpu())
    assert_same(again, net)
    assert [path.name for path in file.parent.iterdir()] == ["net.params"]


def test_saving_replaces_an_older_file(file):
    save(small(), file)
    net = small()
    save(net, file)
    again = small()
    load_parameters(again, file, mx.cpu())
    assert_same(again, net)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_where_the_renaming_fails_the_old_file_stays_and_nothing_else(file, monkeypatch, error):
    save(small(), file)
    before = file.read_bytes()

    def fail(*_):
        raise error
    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(type(error)):
        save(small(), file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["net.params"]


@pytest.mark.parametrize(("error", "seen"), [
    (mx.MXNetError("Check failed: fwrite\nStack trace"), OSError),
    (OSError(5, "Input/output error"), OSError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_where_the_writing_fails_the_old_file_stays_and_nothing_else(file, monkeypatch, error,
                                                                     seen):
    save(small(), file)
    before = file.read_bytes()
    net = small()

    def half(path, *_):
        Path(path).write_bytes(before[:50])
        raise error
    monkeypatch.setattr(mx.nd, "save", half)
    with pytest.raises(seen) as caught:
        save(net, file)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["net.params"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import mxnet as mx
from mxnet.gluon import nn
from gluon_tricks.models.parameters import named_arrays
from gluon_tricks.models.params_file import save_arrays
file = Path(sys.argv[1])
net = nn.Dense(40, in_units=30)
net.initialize()
save_arrays(file, named_arrays(net))
before = file.read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
for short_of in 1, 100, 4000:
    limit = len(before) - short_of
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save_arrays(file, named_arrays(net))
        end = "saved"
    except OSError:
        end = "refused"
    names = [path.name for path in file.parent.iterdir()]
    print(end, "whole" if file.read_bytes() == before else "damaged", *names)
"""


def test_a_full_disk_leaves_the_old_file(file):
    """The system may refuse the last bytes only when the file is closed."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(file)], capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, timeout=120)
    assert done.stdout.splitlines() == ["refused whole net.params"] * 3, done.stderr


def test_a_missing_file_and_a_folder(file):
    assert "missing" in refusal(file)
    refusal(file.parent)


@pytest.mark.parametrize("content", [
    b"", b"hello\n" * 50, b"\0" * 500, b"\xff\xd8\xff\xe0" * 100,
    bytes(range(256)) * 4], ids=["empty", "text", "zeros", "jpeg", "bytes"])
def test_garbage(file, content):
    file.write_bytes(content)
    refusal(file)


def test_every_truncation(file):
    save(small(), file)
    whole = file.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        file.write_bytes(whole[:length])
        assert "not a complete .params file" in refusal(file)


def little(*numbers):
    """Pairs of struct's letter and a number, little-endian."""
    return b"".join(struct.pack(f"<{letter}", number) for letter, number in numbers)


AGES = {"today's": [("I", 0xF993FAC9), ("i", 0), ("i", 2), ("q", 1), ("q", 3)],
        "of 0.12": [("I", 0xF993FAC8), ("i", 2), ("q", 1), ("q", 3)],
        "before 0.12": [("I", 2), ("I", 1), ("I", 3)]}


@pytest.mark.parametrize("age", AGES)
def test_files_of_every_age_are_read(file, age):
    """Written from MXNet's source, ndarray.cc; GluonCV's oldest parameters have the last one."""
    head = little(("Q", 0x112), ("Q", 0), ("Q", 1), *AGES[age], ("i", 1), ("i", 0), ("i", 0))
    numbers = np.array([1.5, -2, 3], "<f4").tobytes()
    file.write_bytes(head + numbers + little(("Q", 1), ("Q", 1)) + b"a")
    np.testing.assert_array_equal(read_parameters(file)["a"].asnumpy(), [[1.5, -2, 3]])
    for length in range(len(file.read_bytes())):
        with pytest.raises(ValueError):
            cut = file.with_name("cut")
            cut.write_bytes(file.read_bytes()[:length])
            check_layout(cut)


@pytest.mark.parametrize(("at", "form", "number"), [
    (16, "Q", 2**40), (16, "Q", 0), (24, "I", 0x7FFFFFFF), (28, "i", 1), (32, "i", -1),
    (32, "i", 2**30), (36, "q", 2**60), (36, "q", -1), (36, "q", 2**62), (52, "i", 77),
    (-9, "Q", 2**62), (-17, "Q", 5)])
def test_sizes_that_do_not_add_up_are_refused_before_memory_is_taken_for_them(file, at, form,
                                                                              number):
    """MXNet takes terabytes for some of these, or the process crashes."""
    mx.nd.save(str(file), {"a": mx.nd.ones((3,))})
    data = bytearray(file.read_bytes())
    at %= len(data)
    data[at:at + struct.calcsize(form)] = struct.pack(f"<{form}", number)
    file.write_bytes(data)
    assert "not a complete .params file" in refusal(file)


def test_random_damage_is_read_or_refused(file):
    rng = np.random.default_rng(0)
    save(small(), file)
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    refused = 0
    for _ in range(500):
        data = whole.copy()
        data[rng.integers(0, len(data), 3)] = rng.choice([0, 1, 127, 255], 3)
        file.write_bytes(data.tobytes())
        try:
            read_parameters(file)
        except InputError:
            refused += 1
    assert 50 < refused < 450


def test_set_arrays_casts_and_copies(file):
    net, other = small(), small()
    half = {name: array.astype("float16") for name, array in named_arrays(other).items()}
    set_arrays(net, half)
    for name, array in arrays(net).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays(other)[name].astype("float16"))
    for own in named_arrays(net).values():
        own[:] = 0
    np.testing.assert_array_equal(half["2.weight"].asnumpy(),
                                  arrays(other)["2.weight"].astype("float16"))


def test_a_list_of_arrays_has_no_names(file):
    mx.nd.save(str(file), [mx.nd.ones(3)])
    assert "no named parameters" in refusal(file)


def test_another_network(file):
    save(get_model_ready("resnet18_v1b"), file)
    message = refusal(file, get_model("resnet18_v1d", classes=4))
    assert "conv1.0.weight" in message and "conv1.weight" in message and "--model" in message


def get_model_ready(name, **options):
    net = get_model(name, classes=4, **options)
    net.initialize()
    return net


@pytest.mark.parametrize("change", [{"outputs": 4}, {"hidden": 6}])
def test_another_shape_is_named(file, change):
    save(small(), file)
    message = refusal(file, small(**change))
    name, had = ("2.weight", "(3, 5)") if "outputs" in change else ("0.weight", "(5, 4)")
    assert name in message and had in message and "--num-classes" in message


def test_a_refused_file_leaves_the_network_as_it_was(file):
    net = small(outputs=4)
    before = {name: array.copy() for name, array in arrays(net).items()}
    save(small(), file)
    refusal(file, net)
    for name, array in arrays(net).items():
        np.testing.assert_array_equal(array, before[name])


def test_fp16_parameters_load_into_an_fp32_network(file):
    half = small()
    half.cast("float16")
    save(half, file)
    net = small()
    load_parameters(net, file, mx.cpu())
    for name, array in arrays(net).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays(half)[name].astype(np.float32))
    net(mx.nd.ones((1, 4))).wait_to_read()


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet50_v1d"])
def test_a_file_of_gluoncv_loads(file, name):
    theirs = model_zoo.get_model(name, classes=4)
    theirs.initialize()
    images = mx.nd.random.normal(shape=(1, 3, 32, 32))
    want = theirs(images).asnumpy()
    theirs.save_parameters(str(file))
    ours = get_model(name, classes=4)
    load_parameters(ours, file, mx.cpu())
    np.testing.assert_allclose(ours(images).asnumpy(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet1.0", "cifar_resnet20_v1"])
def test_a_network_of_gluoncv_whose_shapes_are_still_open_loads(file, name):
    net = get_model_ready(name)
    images = mx.nd.random.normal(shape=(1, 3, 32, 32))
    want = net(images).asnumpy()
    save(net, file)
    again = get_model(name, classes=4)
    load_parameters(again, file, mx.cpu())
    np.testing.assert_array_equal(again(images).asnumpy(), want)


@pytest.mark.parametrize("name", ["resnet18_v1", "resnet18_v1d", "mobilenet1.0",
                                  "cifar_resnet20_v1", "squeezenet1.0", "densenet121"])
def test_a_file_tells_its_classes(file, name):
    net = get_model(name, classes=17)
    net.infer_shape(mx.nd.zeros((1, 3, 224, 224)))
    stored = {key: mx.nd.zeros(parameter.shape)
              for key, parameter in net._collect_params_with_prefix().items()}
    mx.nd.save(str(file), stored)
    assert count_classes(get_model(name, classes=4), read_parameters(file)) == 17


def test_a_file_of_another_network_tells_no_classes(file):
    save(small(), file)
    assert count_classes(get_model("resnet18_v1d"), read_parameters(file)) is None
