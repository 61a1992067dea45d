"""What a folder, a file or a name refers to, and what is known about its network's input."""

from pathlib import Path

import pytest

from gluon_tricks.classification import weights
from gluon_tricks.errors import InputError
from gluon_tricks.inference import trained


def test_of_a_run_the_best_are_taken_and_of_a_checkpoint_the_average(tmp_path):
    names = ["best.params", "last.params", "average.params", "model.params"]
    for name in names:
        (tmp_path / name).touch()
    for name in names:
        assert weights.find(tmp_path).path == tmp_path / name
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"has no parameters \(best\.params, last\.params, "):
        weights.find(tmp_path)


def settings_of(model, said=None, **given):
    return trained._settings(weights.Weights(Path("a.params"), model, said or {}, None), given)


OF_A_RUN = {"num_classes": 7, "dropout": 0.3, "use_se": True, "batch_norm": True, "use_gn": True,
            "use_sk": True, "use_avd": True, "dropblock_prob": 0.2, "input_size": 96,
            "crop_ratio": 0.75, "rgb_mean": [1.0, 2.0, 3.0], "rgb_std": [4.0, 5.0, 6.0],
            "antialias": True}


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_run_says_what_its_network_is_and_sees(name):
    value = OF_A_RUN[name]
    got = getattr(settings_of("resnet50_v1b", {name: value, "lr": 0.7}), name)
    assert got == (tuple(value) if isinstance(value, list) else value)


def test_the_size_is_the_networks_usual_one():
    for model, size in (("inceptionv3", 299), ("xception", 299), ("InceptionV3", 299),
                        ("resnet50_v1d", 224), ("cifar_resnet20_v1", 32)):
        assert settings_of(model).input_size == size
        assert settings_of(model, input_size=64).input_size == 64
