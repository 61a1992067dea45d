"""Jobs of several ranks that are ended and resumed: nothing is lost, nothing done twice.

All make updates of 12 samples, four an epoch, each of two batches a rank: 52 records, 4 dropped.
"""

import re
import shutil
from collections import Counter

import jobs
import numpy as np
import pytest

from gluon_tricks.runs import checkpoint

RECORDS, SAMPLES, UPDATES, EPOCHS = 52, 12, 4, 3
# Of the batches that rank 1 takes; it comes to the second of update 8 after a save at update 6.
AMID_UPDATE_8 = "take 16"

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, noise_records, horovod):
    folder = tmp_path_factory.mktemp("ranks")
    noise_records(folder / "train", RECORDS, (40, 50), 3)
    noise_records(folder / "val", 25, (40, 50), 3)
    return folder


@pytest.fixture(scope="module")
def train(folder):
    """train(ranks, name, flags..., strike=...): a run in the folder `name`, new or resumed."""
    flags = ["--model", "cifar_resnet20_v1", "--rec-train", folder / "train.rec", "--rec-val",
             folder / "val.rec", "--input-size", 32, "--batch-size", 3, "--accumulate", 2,
             "--num-epochs", EPOCHS, "--lr", 0.05, "--lr-mode", "cosine", "--mixup", "--ema", 0.9,
             "--log-interval", 1, "-j", 2, "--keep", 99]

    def run(ranks, name, *more, **options):
        return jobs.train(ranks, folder / name, *flags, *more, **options)
    return run


@pytest.fixture(scope="module")
def whole(train, folder):
    """A run of two ranks that nothing ends; it saves after updates 3, 6, 9, 12, too."""
    job = train(2, "whole", "--checkpoint-steps", 3)
    assert job.code == 0, job.said
    assert jobs.numbers(folder / "whole") == [1, 2, 3, 4, 5, 6, 7]
    return job


@pytest.fixture(scope="module")
def killed(train, folder):
    """The job whose rank 1 is killed, and a copy of its folder as that left it."""
    job = train(2, "killed", "--checkpoint-steps", 3, strike=f"1 {AMID_UPDATE_8} SIGKILL")
    shutil.copytree(folder / "killed", folder / "copy")
    return job


def by_update(batches, accumulate=2) -> dict:
    """{(epoch, update): the records of it, sorted}, whichever rank took them."""
    taken = {}
    for _, epoch, batch, records in batches:
        taken.setdefault((epoch, batch // accumulate), []).extend(records)
    return {update: sorted(records) for update, records in taken.items()}


def check_each_once(batches) -> None:
    """Each record of an epoch was used once, except those that fill no update."""
    seen = Counter((epoch, record) for _, epoch, _, records in batches for record in records)
    assert max(seen.values()) == 1
    assert Counter(epoch for epoch, _ in seen) == dict.fromkeys(range(EPOCHS), UPDATES * SAMPLES)
    assert {record for _, record in seen} <= set(range(RECORDS))


def same_bits(one, other) -> None:
    """Two checkpoints have the same arrays."""
    one, other = jobs.arrays(one), jobs.arrays(other)
    assert one.keys() == other.keys()
    assert {name.partition(":")[0] for name in one} == {"model", "optimizer", "average"}
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], name)


def last_words(saved) -> str:
    """A pattern of what rank 0 says if another rank exited; Gloo may have said more."""
    return ("error: another rank exited; this one cannot continue( \\(.*\\))?; the last good "
            f"checkpoint is {re.escape(str(saved))}")


def test_the_ranks_share_each_update(whole):
    check_each_once(whole.taken)
    per_rank = [[(epoch, batch) for rank, epoch, batch, _ in whole.taken if rank == number]
                for number in range(2)]
    assert per_rank[0] == per_rank[1]
    assert all(len(records) == 3 for *_, records in whole.taken)


def test_a_killed_rank_ends_the_job_with_its_name(killed, folder):
    assert killed.code == 1
    assert killed.seconds < 15
    *before, own, last = killed.said.splitlines()
    assert last == "error: rank 1 of 2 was killed by SIGKILL"
    assert re.fullmatch(last_words(folder / "killed" / "checkpoints" / "000003"), own), own
    assert "Traceback" not in killed.said and killed.out == ""
    assert not [line for line in before if line.startswith("error")]
    found, refused = checkpoint.newest(folder / "copy")
    assert (found.path.name, refused) == ("000003", [])
    assert (found.state["progress"]["epoch"], found.state["progress"]["step"]) == (1, 4)


def test_as_many_ranks_go_on_to_the_same_bits(killed, whole, train, folder):
    job = train(2, "killed", "--checkpoint-steps", 3, "--resume", "auto")
    assert job.code == 0, job.said
    for number in range(4, 8):
        same_bits(*(folder / name / "checkpoints" / f"{number:06d}"
                    for name in ("killed", "whole")))
    for name in ("best", "last"):
        assert (folder / "killed" / f"{name}.params").read_bytes() == \
            (folder / "whole" / f"{name}.params").read_bytes()
    assert by_update(job.taken) == rest(whole)
    assert log_lines(folder / "killed") == log_lines(folder / "whole")


def rest(whole) -> dict:
    """Of a complete run `by_update`, what comes after update 6, the second of the second epoch."""
    return {update: records for update, records in by_update(whole.taken).items()
            if update >= (1, 2)}


def log_lines(folder) -> list[dict]:
    """Of log.jsonl, without what depends on the time."""
    return [{name: value for name, value in line.items()
             if name not in ("samples_per_second", "seconds", "data_wait")}
            for line in jobs.lines_of(folder / "log.jsonl")]


def test_one_rank_goes_on_with_the_rest_of_the_epoch(killed, whole, train, folder):
    """In batches of its own size: four times those of a rank before, since it adds up none."""
    shutil.copytree(folder / "copy", folder / "alone")
    job = train(0, "alone", "--accumulate", 1, "--resume", "auto")
    assert job.code == 0, job.said
    assert by_update(job.taken, accumulate=1) == rest(whole)
    assert all(len(records) == SAMPLES for *_, records in job.taken)


def test_ranks_that_cannot_share_the_batch_are_refused_once(killed, train, folder):
    before = sorted((folder / "copy").rglob("*"))
    job = train(4, "copy", "--resume", "auto")
    assert (job.code, job.out, job.taken) == (2, "", [])
    assert job.said.count("\n") == 1
    assert "a global batch of 12, which 4 ranks with --accumulate 2 cannot share" in job.said
    assert {path.name for path in {*(folder / "copy").rglob("*")} - {*before}} <= {".lock"}
    assert checkpoint.newest(folder / "copy")[0].path.name == "000003"


def test_the_first_rank_is_killed(train, folder):
    """In the middle of the first validation."""
    job = train(2, "first", strike="0 check 2 SIGKILL")
    assert (job.code, job.out) == (1, "")
    assert job.seconds < 15
    assert job.said.splitlines()[-1] == "error: rank 0 of 2 was killed by SIGKILL"
    assert "Traceback" not in job.said
    assert checkpoint.newest(folder / "first") == (None, [])


def test_stops_and_other_numbers_of_ranks_lose_no_sample(train, whole, folder):
    """Two ranks, two, one, two, three; each life but the last is ended by a signal."""
    store = folder / "many" / "checkpoints"
    lives = [train(2, "many", strike="1 take 1 SIGTERM")]  # agreed on two updates later
    check_stopped(lives[-1], store, 1, "update 3, epoch 1")
    same_bits(store / "000001", folder / "whole" / "checkpoints" / "000001")

    command = [jobs.STRUCK if word.endswith("/train_imagenet.py") else word
               for word in lives[-1].command]
    lives.append(jobs.run(command, folder / "many.taken", strike="0 check 1 SIGTERM"))
    check_stopped(lives[-1], store, 2, "update 4, epoch 1")
    progress = checkpoint.read(store / "000002").state["progress"]
    assert (progress["epoch"], progress["step"], progress["best"]) == (0, 8, None)

    lives.append(train(0, "many", "--resume", "auto", strike="0 take 3 SIGTERM"))
    # One more after the validation.
    check_stopped(lives[-1], store, 4, "update 6, epoch 2")
    lives.append(train(2, "many", "--resume", "auto", strike="1 take 1 launcher:SIGINT"))
    assert lives[-1].code == 130
    assert "error: stopped by SIGINT" in lives[-1].said.splitlines()[-1]
    lives.append(train(3, "many", "--resume", "auto"))
    assert lives[-1].code == 0, lives[-1].said
    assert "12 (2 x 3 devices x 2 batches)" in lives[-1].said

    batches = [batch for life in lives for batch in life.taken]
    check_each_once(batches)
    assert by_update(batches) == by_update(whole.taken)
    assert all(life.taken for life in lives)
    assert {rank for rank, *_ in lives[-1].taken} == {0, 1, 2}


def check_stopped(job, store, saved, at) -> None:
    assert (job.code, job.out) == (143, "")
    assert "Traceback" not in job.said
    assert job.said.count("error: ") == job.said.count("resume with: ") == 1
    assert job.said.splitlines()[-1].startswith(
        f"error: stopped by SIGTERM at {at}, saved as {store / f'{saved:06d}'}; resume with: ")
    assert jobs.numbers(store.parent) == list(range(1, saved + 1))


def test_where_the_save_fails_all_leave_with_1(train, folder):
    (folder / "full").mkdir()
    (folder / "full" / "config.json").write_text("{}")
    (folder / "full" / "checkpoints").write_text("in the way")
    job = train(2, "full", "--resume", "auto", strike="1 take 1 SIGTERM")
    assert (job.code, job.out) == (1, "")
    assert job.said.splitlines()[-1] == (
        "error: stopped by SIGTERM at update 3, epoch 1, and the run could not be saved; last "
        "checkpoint: none")


@pytest.mark.parametrize("whom", ["", "launcher:"])
def test_sigterm_before_the_first_update(train, folder, whom):
    name = f"early {whom}"
    job = train(2, name, strike=f"1 start 1 {whom}SIGTERM")
    assert (job.code, job.out, job.taken) == (143, "", [])
    assert "Traceback" not in job.said
    assert ("error: stopped by SIGTERM" if whom else
            "[rank 1] error: stopped by SIGTERM") in job.said.splitlines()
    assert not (folder / name).exists()


def test_a_rank_alone_cannot_read_its_data(train, whole, folder):
    """Its copy of the set is damaged where nothing checks before training."""
    record = next(records[0] for rank, epoch, batch, records in whole.taken
                  if (rank, epoch, batch) == (1, 1, 3))
    for ending in ("rec", "idx"):
        shutil.copy(folder / f"train.{ending}", folder / f"damaged.{ending}")
    offsets = dict(map(str.split, (folder / "damaged.idx").read_text().splitlines()))
    content = bytearray((folder / "damaged.rec").read_bytes())
    table = content.index(b"\xff\xdb", int(offsets[str(record)]))  # JPEG's quantisation table
    content[table + 1] = 0xFE  # becomes a comment
    (folder / "damaged.rec").write_bytes(content)
    job = train(2, "fault", rank_flags={"1": ["--rec-train", str(folder / "damaged.rec")]})
    assert (job.code, job.out) == (2, "")
    assert job.seconds < 15
    own, said, last = job.said.splitlines()[-3:]
    assert last == "error: rank 1 of 2 ended with exit code 2"
    assert said.startswith(f"[rank 1] error: {folder / 'damaged.rec'}, the record with key {record}"
                           " ")
    assert re.fullmatch(last_words(folder / "fault" / "checkpoints" / "000001"), own), own
    assert "Traceback" not in job.said
