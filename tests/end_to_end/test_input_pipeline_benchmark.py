"""The input pipeline's benchmark: what it counts and says, not how fast anything is."""

import json

import pytest


@pytest.fixture
def rec(tmp_path, noise_records):
    noise_records(tmp_path / "a", 100, (40, 40), 10)
    return tmp_path / "a.rec"


@pytest.mark.slow
def test_every_engine_has_a_row(script, rec, native_core):
    done = script("benchmarks/input_pipeline", "--rec", rec, "--rounds", 1, "--json", "--engines",
                  "native,native-antialias,opencv,mxnet,mxnet-openmp")
    assert done.returncode == 0, done.stderr
    rows = {row["engine"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows) == ["native", "native-antialias", "opencv", "mxnet", "mxnet-openmp",
                          "decoded", "resampled", "interpreter"]
    for row in rows.values():
        assert row["cores"] == 1 and row["images_per_second"] > 0
        assert row["images_per_core_second"] > 0
    assert rows["mxnet"]["ratio"] == pytest.approx(1)
    native = rows["native"]
    assert sum(native["shares"].values()) == pytest.approx(1)
    assert native["ratio"] == pytest.approx(
        native["images_per_second"] / rows["mxnet"]["images_per_second"])  # of one round
    assert native["interpreter_microseconds"] < 1e6 / native["images_per_core_second"]


@pytest.mark.parametrize(("arguments", "said"), [
    (("--engines", "native,fast"), "--engines"), (("--engines", ""), "--engines"),
    (("--cores", "x"), "--cores"), (("--cores", "0"), "--cores"),
    (("--cores", "100000"), "--cores"), (("--rounds", "0"), "--rounds"),
])
def test_wrong_flags_are_one_line(refused, rec, arguments, said):
    assert said in refused("benchmarks/input_pipeline", "--rec", rec, *arguments)


def test_a_missing_file_and_a_missing_engine_are_one_line(refused, rec, tmp_path):
    assert "nothing.rec" in refused("benchmarks/input_pipeline", "--rec", tmp_path / "nothing.rec")
    try:
        import nvidia.dali  # noqa: F401
    except ImportError:
        assert "pip install nvidia-dali" in refused("benchmarks/input_pipeline", "--rec", rec,
                                                    "--engines", "dali")
