"""What several ranks cannot start with is said once, in one line; and starts by horovodrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jobs
import numpy as np
import pytest

from gluon_tricks.data.record import RecordWriter
from gluon_tricks.engine.start import lock

TRAIN = jobs.ROOT / "scripts" / "train_imagenet.py"
WITHOUT_HOROVOD = """
import runpy, sys
sys.modules["horovod"] = None
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print([name for name in sys.modules if name.partition(".")[0] == "horovod"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, jpeg):
    """train.rec and val.rec; other.rec has train.rec's images with other labels."""
    folder = tmp_path_factory.mktemp("start")
    rng = np.random.default_rng(0)
    pictures = [jpeg(rng.integers(0, 256, (40, 50, 3), np.uint8)) for _ in range(17)]
    for name, shift in (("train", 0), ("val", 0), ("other", 1)):
        with RecordWriter(folder / name) as writer:
            for key, picture in enumerate(pictures):
                writer.write(key, (key + shift) % 3, picture)
    return folder


@pytest.fixture
def flags(folder):
    """Of a run of one epoch."""
    return ["--model", "cifar_resnet20_v1", "--rec-train", folder / "train.rec", "--rec-val",
            folder / "val.rec", "--input-size", 32, "--batch-size", 4, "--num-epochs", 1, "--lr",
            0.01, "-j", 1]


# Flags of all ranks, flags of rank 1 alone, and what is said.
REFUSED = {
    "no set": (["--rec-train", "none.rec"], [], ["error: ", "none.rec is missing"]),
    "no set for one": ([], ["--rec-val", "none.rec"], ["error: rank 1: ", "none.rec is missing"]),
    "a great batch": (["--batch-size", "9"], [], ["has 17 records", "global batch of 18"]),
    "another flag": ([], ["--lr", "0.1"], ["error: rank 1 has --lr 0.1, rank 0 has 0.01"]),
    # Which the first rank's would replace.
    "another batch": ([], ["--batch-size", "5"], ["error: rank 1 has --batch-size 5, rank 0 has"]),
    "other labels": ([], ["--rec-train", "other.rec"], ["error: rank 1 has training set "])}


@pytest.mark.slow
@pytest.mark.parametrize(("all_flags", "own", "said"), REFUSED.values(), ids=REFUSED)
def test_what_ranks_find_out_is_said_once(folder, flags, tmp_path, horovod, all_flags, own, said):
    def placed(words):
        return [str(folder / word) if word.endswith(".rec") else word for word in words]
    job = jobs.train(2, tmp_path / "run", *flags, *placed(all_flags),
                     rank_flags={"1": placed(own)})
    assert (job.code, job.out, job.said.count("\n")) == (2, "", 1), job.said
    assert all(words in job.said for words in said), job.said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_that_another_run_writes_to(folder, flags, tmp_path, horovod):
    (tmp_path / "run").mkdir()
    guard = lock(tmp_path / "run")
    job = jobs.train(2, tmp_path / "run", *flags)
    guard.release()
    assert (job.code, job.out, job.said.count("\n")) == (2, "", 1), job.said
    assert f"{tmp_path / 'run'}: another run is writing to it" in job.said


@pytest.mark.parametrize(("wrong", "said"), [
    (["--num-cpu-ranks", 2, "--epochs", 3], "unrecognized arguments: --epochs 3"),
    (["--num-cpu-ranks", 2, "--num-gpus", 2], "--num-cpu-ranks cannot be combined with --num-gpus"),
    (["--num-cpu-ranks", -1], "--num-cpu-ranks -1: must be at least 0"),
    (["--num-gpus", 99], "--num-gpus 99: MXNet sees ")])
def test_what_the_launcher_finds_out(refused, flags, wrong, said):
    assert said in refused("train_imagenet", *flags, *wrong)


def test_another_number_than_horovodrun_has_started(refused_alone, flags, monkeypatch):
    monkeypatch.setenv("HOROVOD_RANK", "1")
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    assert "--num-cpu-ranks 3, but 2 ranks were started" in refused_alone(
        "train_imagenet", *flags, "--num-cpu-ranks", 3)


def without_horovod(*words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", WITHOUT_HOROVOD,
                           *map(str, words)], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["train_imagenet", "evaluate"])
def test_several_ranks_need_horovod(folder, name):
    more = ["--params", "none.params"] if name == "evaluate" else []
    done = without_horovod(TRAIN.with_name(f"{name}.py"), "--model", "resnet18_v1", "--rec-val",
                           folder / "val.rec", "--num-cpu-ranks", 2, *more)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stdout == "['horovod']\n"
    assert done.stderr.startswith("error: several ranks need Horovod")
    assert "pip install --no-build-isolation horovod==" in done.stderr


@pytest.mark.slow
def test_one_process_does_without_horovod(flags, tmp_path):
    done = without_horovod(TRAIN, *flags, "--save-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['horovod']"
    assert (tmp_path / "run" / "best.params").is_file()


@pytest.mark.slow
def test_horovodrun_starts_the_ranks(flags, tmp_path, horovod):
    """It tells their number, and they make one run folder."""
    bin_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["horovodrun", "-np", "2", sys.executable, str(TRAIN), *map(str, flags), "--save-dir",
         str(tmp_path / "run")], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}",
             "PYTHONPATH": str(jobs.ROOT)})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["num_gpus"] + settings["num_cpu_ranks"] == 2
    kinds = [line["kind"] for line in jobs.lines_of(tmp_path / "run" / "log.jsonl")]
    assert kinds == ["epoch", "end"]
    assert done.stdout.count("validation: top-1") == 1
