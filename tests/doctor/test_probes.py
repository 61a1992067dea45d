"""What is asked of packages in a child; tests/end_to_end/test_doctor.py runs them all."""

import ctypes

import fake_cuda
import pytest

from gluon_tricks.doctor import probes
from gluon_tricks.errors import InputError
from gluon_tricks.parallel import launch


def test_horovod_is_asked_what_the_launcher_asks(monkeypatch):
    def refuse():
        raise InputError("this Horovod was built without Gloo: build it again")

    monkeypatch.setattr(launch, "require_horovod", refuse)
    with pytest.raises(InputError, match="without Gloo"):
        probes.horovod(lambda report: None)


def test_the_file_of_a_library(tmp_path):
    file = fake_cuda.library(tmp_path, "libthing.so.1.2")
    (tmp_path / "libthing.so.1").symlink_to(file.name)
    assert probes._file_of(ctypes.CDLL(str(tmp_path / "libthing.so.1"))) == str(file)
