"""`profile_model.py` as a user runs it."""

import json


def test_table_and_total(script):
    done = script("profile_model", "--model", "resnet50_v1d")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "resnet50_v1d at 224x224: 25,576,264 parameters, 4.329 G multiply-adds"
    assert lines[1].split() == ["conv1.0", "Convolution", "32x112x112", "864", "10,838,016"]
    assert lines[-2].split() == ["fc", "FullyConnected", "1000", "2,049,000", "2,048,000"]
    assert len(lines) == 1 + 111 + 1  # 55 convolutions, their BatchNorms, the dense layer


def test_json(inside):
    done = inside("profile_model", "--model", "cifar_resnet20_v1", "--input-size", "32",
                  "--num-classes", "10", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    got = json.loads(done.stdout)
    assert (got["model"], got["input_size"]) == ("cifar_resnet20_v1", 32)
    layers = got["layers"]
    assert got["parameters"] == sum(layer["parameters"] for layer in layers) == 272_474
    assert got["multiply_adds"] == sum(layer["multiply_adds"] for layer in layers)
    assert round(got["multiply_adds"] / 1e6, 1) == 40.8  # as published counts have it: 41 M
    assert layers[-1] == {"name": "output", "kind": "FullyConnected", "output": [10],
                          "parameters": 650, "multiply_adds": 640}
