"""scripts/prepare_imagenet.py as a user runs it."""

import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import imagenet_files as files
import pytest
from packing import names
from processes import ROOT, python, wait_for
from script_modules import load_script

from gluon_tricks import cli
from gluon_tricks.errors import RunFault, Stopped
from gluon_tricks.prepare import imagenet
from gluon_tricks.prepare.pack import Encoding

SCRIPT = ROOT / "scripts" / "prepare_imagenet.py"
NEXT = ("python scripts/train_imagenet.py --model resnet50_v1d --num-gpus 1 --batch-size 256 -j 16 "
        "--rec-train {0}/train.rec --rec-val {0}/val.rec")


@pytest.fixture
def downloads(tmp_path):
    files.write_tars(tmp_path / "downloads")
    files.write_kit(tmp_path / "downloads")
    return tmp_path / "downloads"


def test_one_command_from_tars_gives_what_im2rec_makes_of_folders(
        downloads, tmp_path, out, script, im2rec):
    done = script("prepare_imagenet", downloads, out, "--any-counts", "--seed", 5)
    assert (done.returncode, done.stderr) == (0, "")
    free, train, val, command = done.stdout.splitlines()
    assert free.startswith(f"{out}: ")
    assert train.startswith(f"{out}/train.rec: 15 images, 3 classes, ")
    assert val.startswith(f"{out}/val.rec: 6 images, 3 classes, ")
    assert train.endswith(" kB, verified")
    assert command == NEXT.format(out)

    files.write_folders(tmp_path)
    im2rec(tmp_path / "train", tmp_path / "a", "--pass-through", "--seed", 5)
    im2rec(tmp_path / "val", tmp_path / "b", "--pass-through", "--seed", 5, "--classes",
           tmp_path / "a.classes.json")
    for end in ("rec", "idx", "lst", "classes.json"):
        assert (out / f"train.{end}").read_bytes() == (tmp_path / f"a.{end}").read_bytes()
    for end in ("rec", "idx", "classes.json"):
        assert (out / f"val.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()


def test_damaged_pictures_are_listed(downloads, out, script):
    (downloads / files.VAL_TAR).write_bytes(files.tar_bytes(
        files.val_pictures() | {"ILSVRC2012_val_00000002.JPEG": b"none"}))
    done = script("prepare_imagenet", downloads, out, "--any-counts", "--resize", 16,
                  "--skip-damaged", "--no-verify")
    assert done.returncode == 0
    line, = done.stderr.splitlines()
    assert line.startswith(f"skipped: {downloads / files.VAL_TAR}/ILSVRC2012_val_00000002.JPEG: ")
    assert "val.rec: 5 images, 3 classes" in done.stdout
    assert done.stdout.count(", not verified") == 2
    assert ", 1 skipped" in done.stdout


def test_help_is_quick_and_loads_neither_mxnet_nor_opencv():
    done = subprocess.run([sys.executable, "-X", "importtime", SCRIPT, "--help"],
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    for form in ("ILSVRC2012_devkit_t12.tar.gz", "NAME WNID", "NAME LABEL", "--val-labels"):
        assert form in done.stdout
    loaded = {line.split("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in loaded
    assert not loaded & {"mxnet", "cv2", "gluoncv", "numpy", "scipy"}


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "1281167"), (("--quality", 101), "--quality 101"),
    (("--any-counts", "--val-labels", "missing.txt"), "missing.txt"),
], ids=str)
def test_wrong_input_is_one_line(downloads, out, refused, arguments, said):
    assert said in refused("prepare_imagenet", downloads, out, *arguments)
    assert not [name for name in names(out) if name.endswith((".rec", ".part"))]


def test_a_full_disk_says_the_command_that_goes_on(downloads, out, monkeypatch):
    arguments = ["prepare_imagenet.py", str(downloads), str(out), "--any-counts"]
    monkeypatch.setattr(sys, "argv", arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RunFault, match=r"File too large; fix that, and resume with: python "
                           + re.escape(shlex.join(arguments)) + "$"):
            load_script("prepare_imagenet").main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (out / "train.rec.part").stat().st_size == 10_000


def default_signals():
    """A test run in the background would pass its ignored Ctrl-C on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_says_the_command_that_goes_on(downloads, tmp_path, out):
    arguments = [str(word) for word in (SCRIPT, downloads, out, "--any-counts", "--workers", "1")]
    process = python(f"""
        import runpy, sys, time
        from gluon_tricks.prepare import pack
        def slowly(data, encoding, encode=pack.encode):
            time.sleep(0.1)
            return encode(data, encoding)
        pack.encode, sys.argv = slowly, {arguments}
        runpy.run_path(sys.argv[0], run_name="__main__")
    """, preexec_fn=default_signals)
    wait_for(out / "train.rec.part")  # some of its 15 pictures
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, stderr
    line, = stderr.splitlines()
    before, command = line.split("; resume with: ")
    assert before == "error: stopped by Ctrl-C"
    assert shlex.split(command) == ["python", *arguments]
    assert not list(out.glob("train.rec"))
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{out}/train.rec: resuming from what an earlier call packed" in done.stdout
    imagenet.prepare(downloads, tmp_path / "whole", Encoding(pass_through=True),
                     imagenet.Options(any_counts=True), lambda results, *_: results, print)
    assert names(out) == names(tmp_path / "whole")
    for name in names(out):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_flags_reach_what_prepares_and_sigterm_says_how_to_go_on(downloads, out, monkeypatch):
    arguments = ["prepare_imagenet.py", str(downloads), str(out), "--resize", "256", "--seekable",
                 "--workers", "3", "--skip-damaged", "--val-labels", "labels"]
    given = []

    def prepare(source, target, *settings):
        given.extend((source, target, *settings[:2]))
        raise cli.Terminated

    monkeypatch.setattr(imagenet, "prepare", prepare)
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(Stopped, match=r"^stopped by SIGTERM; resume with: python "
                       + re.escape(shlex.join(arguments)) + "$") as raised:
        load_script("prepare_imagenet").main()
    assert raised.value.number == signal.SIGTERM
    assert given == [downloads, out, Encoding(resize=256, quality=95, seekable=True),
                     imagenet.Options(labels=Path("labels"), skip_damaged=True, workers=3)]
