"""--dtype bfloat16 in a process of its own, for it changes MXNet's operators."""

import json

import pytest

from gluon_tricks.machine.processor import has_bfloat16


@pytest.mark.slow
def test_bfloat16_trains_where_the_processor_has_it(script, tmp_path, noise_records):
    noise_records(tmp_path / "train", 24, (40, 50), 3)
    noise_records(tmp_path / "val", 6, (40, 50), 3)
    arguments = ("--model", "resnet18_v1", "--rec-train", tmp_path / "train.rec", "--rec-val",
                 tmp_path / "val.rec", "--input-size", 32, "--batch-size", 8, "--num-epochs", 2,
                 "--lr", 0.01, "--seed", 3, "--log-interval", 1)
    done = script("train_imagenet", *arguments, "--dtype", "bfloat16", "--save-dir", tmp_path / "b")
    if not has_bfloat16():
        assert done.returncode == 2
        assert "--dtype bfloat16 needs a CPU that computes in it" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    plain = script("train_imagenet", *arguments, "--save-dir", tmp_path / "a")
    assert plain.returncode == 0, plain.stderr
    first = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0])
             for name in ("a", "b")]
    # The same images and weights: bfloat16 has 8 bits, so the losses are near, but not the same.
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=0.02)
    assert first[0]["loss"] != first[1]["loss"]
