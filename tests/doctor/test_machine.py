"""Findings on the machine, of systems that are made up."""

import os
import resource
from collections import namedtuple
from pathlib import Path

import pytest

from gluon_tricks.doctor import machine
from gluon_tricks.machine import processor

MIB, GIB = 2**20, 2**30


@pytest.fixture
def system(tmp_path):
    """system({path: text}): a folder that stands in for the root's."""
    def make(files):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path
    return make


@pytest.mark.parametrize(("files", "quota"), [
    ({"proc/self/cgroup": "0::/\n"}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    # The narrowest of all above it counts.
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
      "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n"}, 0.5),
    # A container of version 1 has the host's path and its own folder at the top.
    ({"proc/self/cgroup": "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n",
      "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
    ({"proc/self/cgroup": "4:cpu,cpuacct:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    ({}, None),
])
def test_cpu_quota(system, files, quota):
    assert machine.cpu_quota(system(files)) == quota


def test_a_quota_below_the_cores_is_a_warning(system, monkeypatch):
    root = system({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"})
    monkeypatch.setattr(processor, "physical_cores", lambda: 8)
    finding = machine.cores(root)
    assert finding.level == "warning" and "quota of 2.5" in finding.value
    assert "OMP_NUM_THREADS=2`" in finding.remedy
    monkeypatch.setattr(processor, "physical_cores", lambda: 2)
    assert machine.cores(root).level == "ok"


def meminfo(total, available):
    return f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB\n"


@pytest.mark.parametrize(("total", "available", "limit", "level"), [
    (8 * GIB, 6 * GIB, "max", "ok"), (8 * GIB, 900 * MIB, "max", "warning"),
    (8 * GIB, 6 * GIB, 2 * GIB, "ok"), (8 * GIB, 6 * GIB, 512 * MIB, "warning"),
    (8 * GIB, 6 * GIB, 2**63 - 4096, "ok")])
@pytest.mark.parametrize(("line", "file"), [
    ("0::/\n", "sys/fs/cgroup/memory.max"),
    ("9:memory:/docker/y\n", "sys/fs/cgroup/memory/memory.limit_in_bytes")])
def test_memory(system, total, available, limit, level, line, file):
    finding = machine.memory(system({"proc/meminfo": meminfo(total, available),
                                     "proc/self/cgroup": line, file: f"{limit}\n"}))
    assert finding.level == level
    assert finding.value.startswith("8.0 GiB, ")
    assert ("limit" in finding.value) == (limit in (2 * GIB, 512 * MIB))
    assert bool(finding.remedy) == (level == "warning")


@pytest.mark.parametrize(("free", "level"), [(64 * MIB, "warning"), (2 * GIB, "ok")])
def test_shared_memory(monkeypatch, free, level):
    """64 MiB is what Docker gives."""
    found = namedtuple("found", "f_blocks f_frsize f_bavail")(free // 4096, 4096, free // 4096)
    monkeypatch.setattr(os, "statvfs", lambda folder: found)
    finding = machine.shared_memory()
    assert finding.level == level
    assert ("--shm-size" in finding.remedy) == (level == "warning")
    assert finding.value.startswith("64 MiB" if free < GIB else "2.0 GiB")


def test_no_shared_memory(tmp_path):
    finding = machine.shared_memory(tmp_path / "none")
    assert (finding.level, "No such file" in finding.value) == ("warning", True)


def test_a_folder_that_can_be_written(tmp_path):
    """Its parent is checked if it does not exist yet; nothing is left behind."""
    for folder in (tmp_path, tmp_path / "not" / "yet"):
        levels = [(finding.name, finding.level) for finding in machine.disk(folder)]
        assert levels == [("run folder", "ok"), ("disk", "ok")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "below a file", "read-only"])
def test_a_folder_that_cannot_be_written(tmp_path, kind):
    file = tmp_path / "file"
    file.touch()
    folder = {"file": file, "below a file": file / "a" / "b", "read-only": Path("/proc/a")}[kind]
    finding, = machine.disk(folder)
    assert (finding.level, finding.name) == ("fault", "run folder")
    assert "cannot be written" in finding.value and "--save-dir" in finding.remedy


def test_little_disk(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(9 * GIB, 8.5 * GIB, GIB // 2))
    assert [finding.level for finding in machine.disk(tmp_path)] == ["ok", "warning"]


@pytest.mark.parametrize(("limits", "level", "remedy"), [
    ((1024, 4096), "ok", ""), ((resource.RLIM_INFINITY,) * 2, "ok", ""),
    ((256, 4096), "warning", "`ulimit -n 1024`"),
    ((256, 512), "warning", "`ulimit -n 512`; the hard limit is 512, which root can raise")])
def test_open_files(monkeypatch, limits, level, remedy):
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    finding = machine.open_files()
    assert (finding.level, finding.remedy) == (level, remedy)
