"""The arithmetic of scripts/benchmarks/_plan.py and what scaling.py --plan makes of it."""

import importlib.util
import json
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Layer = namedtuple("Layer", "parameters multiply_adds")


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("_plan", ROOT / "scripts/benchmarks/_plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("gradient", "ranks", "expected"), [
    (51_152_528, 1, 0), (51_152_528, 2, 51_152_528), (51_152_528, 8, 89_516_924),
    (102_305_056, 512, 204_210_482.875)])
def test_bytes_each_way(plan, gradient, ranks, expected):
    assert plan.ring_bytes(gradient, ranks) == expected


def test_hops_inside_a_host_and_between(plan):
    slow = plan.Link("slow", 1.0, 10.0, True)
    assert plan.hop_seconds(8, 1, slow) == pytest.approx(140e-6)
    # 30 hops: 2 between the two hosts, 28 over NVLink at 3.4 us.
    assert plan.hop_seconds(16, 2, slow) == pytest.approx(20e-6 + 95.2e-6)


def test_bandwidth_that_hides_the_ring(plan):
    # 89,516,924 bytes in the 0.1 s that a step of 0.15 s goes backward.
    assert plan.needed_gigabytes(51_152_528, 8, 0.15) == pytest.approx(0.89516924)


def test_groups_of_gradients_come_from_the_last_layer(plan):
    layers = [Layer(1, 10), Layer(2, 0), Layer(4, 30), Layer(8, 40), Layer(16, 20)]
    assert plan.gradient_buffers(layers, 2, 4) == [(4 * 24, 0.6), (4 * 7, 1.0)]
    assert plan.gradient_buffers(layers, 5, 1) == [(16, 0.2), (8, 0.6), (4, 0.9), (2, 0.9),
                                                   (1, 1.0)]
    assert plan.half_ready(layers) == 0.2  # 16 of 31
    assert plan.half_ready(layers[:4]) == pytest.approx(40 / 80)  # 8 of 15
    assert plan.half_ready([Layer(9, 1), Layer(1, 3)]) == 1.0


def test_a_schedule_by_hand(plan):
    link = plan.Link("1 GB/s, no latency", 1.0, 0.0, False)
    buffers = [plan.Buffer(60_000_000, 0.5), plan.Buffer(40_000_000, 1.0)]
    # Two ranks carry a buffer's bytes once: 0.06 s from 0.1 s on, then 0.04 s from 0.2 s on.
    assert plan.reduced_at(buffers, 0.2, 2, 1, link) == pytest.approx(0.24)
    assert plan.efficiency(0.3, buffers, 2, 1, link) == pytest.approx(0.3 / 0.34)
    # A backward pass of 0.08 s: 0.04 to 0.10 s, and the second buffer waits for the first.
    assert plan.reduced_at(buffers, 0.08, 2, 1, link) == pytest.approx(0.14)
    assert plan.efficiency(0.12, buffers, 2, 1, link) == pytest.approx(0.12 / 0.18)


@pytest.mark.parametrize("gigabytes", [0.5, 1.0, 1.2, 3.0, 100.0])
def test_equal_buffers_follow_the_closed_form(plan, gigabytes):
    """n buffers of cost c: the last is done at max(b + c, b / n + n c)."""
    count, backward, ranks = 10, 0.05, 16
    link = plan.Link("any", gigabytes, 5.0, False)
    buffers = [plan.Buffer(6_000_000, (number + 1) / count) for number in range(count)]
    cost = 30 * 5e-6 + 30 / 16 * 6e6 / (gigabytes * 1e9)
    assert plan.reduced_at(buffers, backward, ranks, 1, link) == pytest.approx(
        max(backward + cost, backward / count + count * cost))


def test_what_nvidia_published(plan):
    first, second = plan.PUBLISHED["float16"]
    assert 8 * first.efficiency(8) == pytest.approx(7.79, abs=0.01)
    assert 16 * second.efficiency(16) == pytest.approx(14.39, abs=0.01)
    assert [round(16 * one.efficiency(16), 1) for one in plan.PUBLISHED["float32"][1:]] == [15.2]
    # A step of 192 a GPU takes 139.53 ms on one, 143.24 ms on eight.
    assert first.added(8) == pytest.approx(3.71e-3, abs=1e-5)


def test_horovods_fusion(plan):
    # ResNet-50-D in FP16: less than 128 MiB, and a backward pass of 114.4 ms.
    assert plan.fused_buffers(51_152_528, 167, 0.1716) == (1, 114)
    assert plan.fused_buffers(51_152_528, 100, 0.1716) == (1, 100)
    assert plan.fused_buffers(553_430_000, 38, 0.003) == (5, 5)  # VGG-16 in FP32, 2 ms


@pytest.mark.parametrize(("batch", "lr", "name"), [
    (256, 0.1, "the paper"), (1024, 0.4, "the paper"), (1025, 0.400390625, "1706.02677"),
    (8192, 3.2, "1706.02677"), (16384, 6.4, "LARS"), (32768, 12.8, "LARS"), (65536, 25.6, "none")])
def test_learning_rate_and_where_recipes_end(plan, batch, lr, name):
    assert plan.linear_lr(batch) == pytest.approx(lr)
    assert plan.recipe(batch) == name


def test_the_plan_of_resnet50_v1d(script, tmp_path):
    done = script("benchmarks/scaling", "--plan", "--json", tmp_path / "plan.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    for said in ("25,576,264 parameters", "51,152,528 bytes", "1492", "171.6 ms", "114.4 ms",
                 "7.79x on 8", "14.40x on 16", "1 to 114 reductions of the 167 gradients"):
        assert said in " ".join(done.stdout.split()), said
    rows = [json.loads(line) for line in (tmp_path / "plan.json").read_text().splitlines()]
    assert [row["gpus"] for row in rows] == [8, 16, 32, 64, 128, 256, 512]
    assert [row["hosts"] for row in rows] == [1, 2, 4, 8, 16, 32, 64]
    assert [row["batch"] for row in rows] == [256 * row["gpus"] for row in rows]
    eight, sixteen = rows[:2]
    assert eight["link_bytes"] == 89_516_924
    assert eight["needed_gigabytes"] == pytest.approx(89_516_924 / (256 / 1492 * 2 / 3) / 1e9)
    assert (eight["nvidia"], sixteen["nvidia"]) == pytest.approx((0.974, 0.9), abs=1e-3)
    assert eight["efficiency"]["10 Gbit"] is None and rows[2]["efficiency"]["NVLink"] is None
    assert all(row["efficiency"]["10 Gbit"] < row["efficiency"]["100 Gbit"] for row in rows[1:])


def test_one_reduction_hides_nothing(script):
    """Closed form: the step plus the full ring at the link's speed, and its hops."""
    done = script("benchmarks/scaling", "--plan", "--num-groups", 1, "--dtype", "float32",
                  "--batch-size", 64, "--gpu-speed", 400, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["gpus"]: row["efficiency"] for row in map(json.loads, done.stdout.splitlines())}
    eight = 0.16 + 179_033_848 / 12e9 + 14 * 5.7e-6
    assert rows[8]["PCIe 3"] == pytest.approx(0.16 / eight)
    sixteen = 0.16 + 102_305_056 * 2 * 15 / 16 / 12e9 + 30 * 5.7e-6  # in one host
    assert rows[16]["PCIe 3"] == pytest.approx(0.16 / sixteen)
    many = 0.16 + 102_305_056 * 2 * 63 / 64 / 1.2e9 + (14 * 9.6 + 112 * 3.4) * 1e-6
    assert rows[64]["10 Gbit"] == pytest.approx(0.16 / many)


@pytest.mark.parametrize(("arguments", "said"), [
    (("--plan", "--rounds", 3), "--rounds"), (("--plan", "--ranks", "1,2"), "--ranks"),
    (("--dtype", "float16"), "--plan"), (("--gpu-speed", 0), "--gpu-speed"),
    (("--plan", "--model", "resnet101_v1d"), "--gpu-speed"),
    (("--plan", "--input-size", 192), "--gpu-speed"), (("--plan", "--num-groups", 112), "111")])
def test_wrong_flags_of_the_plan_are_one_line(refused, arguments, said):
    assert said in refused("benchmarks/scaling", *arguments)
