"""Commands and flags mean what they meant at version 0.1.0, as tests/recorded/ has it.

A flag or setting that is added on purpose is added to the record, too, by
`python tests/support/recording.py`; what else that changes there is a regression.
"""

import json

import pytest
from recording import COMMANDS, NAMES, differences, dry_run, flags, recorded


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_what_it_did(name):
    found = differences(recorded("commands")[name], dry_run(COMMANDS[name]))
    assert not found, f"{COMMANDS[name]}\n" + "\n".join(found)


@pytest.mark.parametrize("script", NAMES)
def test_a_script_has_the_flags_that_it_had(script):
    found = differences(recorded("flags")[script], flags(script))
    assert not found, "\n".join(found)


def test_nothing_recorded_is_gone():
    assert list(recorded("flags")) == NAMES and list(recorded("commands")) == list(COMMANDS)
    assert sum(name.startswith("published") for name in COMMANDS) == 75


@pytest.mark.parametrize("name", ["published: resnet50_v1d-mixup", "train_imagenet: teacher",
                                  "train_cifar10: preset", "train_horovod: CPUs"])
def test_the_scripts_themselves_print_what_is_recorded(script, name):
    command = COMMANDS[name]
    done = script(command.script, "--dry-run", *command.words.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == recorded("commands")[name]
