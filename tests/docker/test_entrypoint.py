"""docker/entrypoint.sh finds every command by its name, and ends in it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(str(path.relative_to(ROOT / "scripts").with_suffix(""))
                 for path in (ROOT / "scripts").rglob("[!_]*.py"))


@pytest.fixture
def tmp_path():
    """Other users may look into this one; pytest closes its own whenever it starts."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder).resolve()


@pytest.fixture
def image(tmp_path):
    """A tree as the image has it, with a python and a bash that only say what they were given."""
    home = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", home / "scripts",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (home / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "entrypoint.sh", home / "docker")
    (tmp_path / "bin").mkdir()
    for name in ("python", "horovodrun"):
        program(tmp_path / "bin" / name, f'printf "%s\\n" {name} "$@"; exit 7')
    for folder in ("runs", "home", "tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    return home


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def start(image, tmp_path):
    """start(arguments..., user=None, HOME=...): the finished entrypoint, in the folder of runs;
    `user`, a uid to run it as, takes root."""
    def run(*arguments, user=None, **variables):
        environment = {
            "PATH": f"{tmp_path / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(tmp_path / "home"), "SSH_KEYS": str(tmp_path / "ssh"),
            "TMPDIR": str(tmp_path / "tmp"), **variables}
        who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        return subprocess.run([str(image / "docker" / "entrypoint.sh"), *map(str, arguments)],
                              capture_output=True, text=True, timeout=60,
                              cwd=tmp_path / "runs", env=environment, **who)
    return run


def refusal(done):
    """The one line of a refusal."""
    assert (done.returncode, done.stdout) == (2, "")
    line, = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("suffix", ["", ".py"])
def test_each_script_by_its_name(image, start, name, suffix):
    done = start(name + suffix, "--save-dir", "a b", "--model=x")
    assert done.stdout.splitlines() == [
        "python", str(image / "scripts" / f"{name}.py"), "--save-dir", "a b", "--model=x"]
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_list_names_every_script(start, arguments):
    done = start(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    listed = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert set(SCRIPTS) | {"quickstart", "sshd"} <= set(listed)
    assert all(len(listed[name]) > 3 for name in SCRIPTS)  # what it does
    assert not [name for name in listed if "_venv" in name or "_dali" in name]


def test_programs(start):
    assert start("horovodrun", "-np", 2).stdout.splitlines() == ["horovodrun", "-np", "2"]
    assert start("python", "-c", "a b").stdout.splitlines() == ["python", "-c", "a b"]
    assert start("bash", "-c", "echo $0 $1; exit 5", "x", "y").stdout == "x y\n"


@pytest.mark.parametrize("command", [
    "trian_imagenet", "_venv", "_venv.sh", "benchmarks/_dali", "benchmarks", "../setup", "type",
    "scripts/evaluate", "benchmarks/../evaluate", "quickstart.sh", "-c",
])
def test_an_unknown_command_is_one_line(start, command):
    assert command in refusal(start(command, "--model", "x"))


def test_a_link_to_it_starts_the_same(image, start, tmp_path):
    (tmp_path / "bin" / "gluon-tricks").symlink_to(image / "docker" / "entrypoint.sh")
    done = start("gluon-tricks", "evaluate", "--run", "1")
    assert done.stdout.splitlines()[1:] == [
        str(image / "scripts" / "evaluate.py"), "--run", "1"]


def test_quickstart_works_in_the_folder_of_runs(image, start, tmp_path):
    program(image / "scripts" / "quickstart.sh", 'printf "%s\\n" "$@"')
    done = start("quickstart", "--epochs", "2")
    assert done.stdout.splitlines() == ["--dir", str(tmp_path / "runs" / "demo"), "--epochs", "2"]


def test_a_signal_reaches_the_command_itself(image, tmp_path):
    program(tmp_path / "bin" / "python", f"echo $$ >{tmp_path}/pid; exec sleep 60")
    running = subprocess.Popen(
        [image / "docker" / "entrypoint.sh", "train_imagenet"], cwd=tmp_path / "runs",
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path / "home")})
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert int((tmp_path / "pid").read_text()) == running.pid  # it has become the command
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == -signal.SIGTERM
    finally:
        running.kill()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")


@as_root
@pytest.mark.parametrize("arguments", [
    ["train_imagenet", "--model", "x"], ["train_cifar10", "--save-dir", "a/b"],
    ["train_horovod", "--save-dir=."], ["quickstart"],
])
def test_a_folder_without_write_access(start, tmp_path, arguments):
    line = refusal(start(*arguments, user=4321))
    assert f"user 4321 cannot write to {tmp_path / 'runs'}" in line and "--user" in line


@as_root
@pytest.mark.parametrize("flags", [["--dry-run"], ["--help"], ["--benchmark", "3"],
                                   ["--test-io=2"], ["--save-dir", "{mine}/new"],
                                   ["--save-dir={mine}"]])
def test_what_writes_elsewhere_or_nothing_needs_none(start, tmp_path, flags):
    mine = tmp_path / "mine"
    mine.mkdir()
    os.chown(mine, 4321, 4321)
    done = start("train_imagenet", *(flag.format(mine=mine) for flag in flags), user=4321)
    assert (done.returncode, done.stderr) == (7, "")


@as_root
def test_a_user_without_name_and_home_gets_both(start, tmp_path):
    done = start("bash", "-c", 'touch "$HOME/a" && echo "$HOME $USER"', user=4321, HOME="/")
    assert (done.stdout, done.stderr) == (f"{tmp_path}/tmp/home-4321 4321\n", "")


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "ssh"
    folder.mkdir()
    (folder / "id_ed25519").write_text("key")
    (folder / "id_ed25519").chmod(0o644)
    return folder


@pytest.mark.usefixtures("keys")
def test_keys_become_the_users_own(start, tmp_path):
    assert start("horovodrun").returncode == 7
    copied = tmp_path / "home" / ".ssh" / "id_ed25519"
    assert copied.read_text() == "key"
    assert (copied.stat().st_mode & 0o777, copied.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert copied.stat().st_uid == os.geteuid()
    assert start("horovodrun").returncode == 7  # again, in the same home


@pytest.mark.usefixtures("keys")
def test_keys_are_for_those_who_need_them(start, tmp_path):
    assert start("evaluate").returncode == 7
    assert not (tmp_path / "home" / ".ssh").exists()


@as_root
def test_keys_that_cannot_be_used_are_one_line(start, keys, tmp_path):
    assert "4321 is not one" in refusal(start("horovodrun", user=4321, HOME="/"))
    keys.chmod(0o700)
    (tmp_path / "home").chmod(0o777)
    # User 1 has a name.
    assert "cannot read any keys" in refusal(start("horovodrun", user=1))


def test_sshd_wants_keys(start):
    assert "-v ~/.ssh:/ssh" in refusal(start("sshd", "-p", "12345"))
