"""What the self-test reports as a fault; tests/end_to_end/test_doctor.py runs all of it."""

import numpy as np
import pytest

from gluon_tricks.doctor.child import Answer
from gluon_tricks.doctor.self_test import SelfTestError, compare, judge, judge_update

DRAWN = np.random.default_rng(0).uniform(40, 200, (3, 8, 8)).astype(np.float32)


def test_decoders_that_agree():
    said = compare(DRAWN, {"opencv": DRAWN + 2, "native": DRAWN + 1.5})
    assert said == ("opencv within 2.0 of 255 of what was drawn; mean difference from opencv, "
                    "native 0.500")


@pytest.mark.parametrize(("decoded", "error"), [
    ({"opencv": DRAWN, "native": DRAWN + 1.1}, "native and opencv decode differently, by 1.10"),
    ({"opencv": DRAWN, "native": DRAWN * np.nan}, "native decodes a different image"),
    ({"opencv": DRAWN[::-1], "native": DRAWN[::-1]}, "opencv decodes a different image"),
    ({"opencv": DRAWN * 0}, "opencv decodes a different image")])
def test_decoders_that_do_not(decoded, error):
    with pytest.raises(SelfTestError, match=error):
        compare(DRAWN, decoded)


ONE = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
TWO = {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}


def test_an_update():
    assert judge_update((2.5, ONE), (1.25, TWO)) == ("the loss of its batch fell from 2.5000 to "
                                                     "1.2500")


@pytest.mark.parametrize(("before", "after", "error"), [
    ((2.5, ONE), (2.5, TWO), "did not lower its batch's loss: 2.5000, then 2.5000"),
    ((2.5, ONE), (1.0, {**TWO, "b": ONE["b"]}), "changed nothing in b"),
    ((2.5, ONE), (1.0, {**TWO, "a": TWO["a"] * np.inf}), "not finite: a"),
    ((2.5, ONE), (float("nan"), TWO), "not finite: the loss, nan"),
    ((float("inf"), ONE), (1.0, TWO), "not finite: the loss, inf")])
def test_an_update_that_is_none(before, after, error):
    with pytest.raises(SelfTestError, match=error):
        judge_update(before, after)


LOADED = {"loaded": True}
DECODED = {"step": "decode", "value": "alike"}
TRAINED = {"step": "train step", "value": "fell"}
SAVED = {"step": "checkpoint", "value": "came back"}


@pytest.mark.parametrize(("answer", "levels", "value"), [
    (Answer([LOADED, DECODED, TRAINED, SAVED], None),
     {"decode": "ok", "train step": "ok", "checkpoint": "ok"}, "came back"),
    (Answer([LOADED, DECODED], "crashed (SIGSEGV)"), {"decode": "ok", "train step": "fault"},
     "crashed (SIGSEGV)"),
    (Answer([LOADED], "took too long and was ended"), {"decode": "fault"},
     "took more than 20 seconds"),
    (Answer([], "took too long and was ended"), {"loading": "fault"},
     "took more than 60 seconds"),
    (Answer([LOADED, DECODED, TRAINED, {"error": "OSError: full", "remedy": ""}], None),
     {"decode": "ok", "train step": "ok", "checkpoint": "fault"}, "OSError: full"),
    (Answer([{"error": "a", "remedy": "b"}], None), {"loading": "fault"}, "a")])
def test_the_step_that_did_not_end_well_is_the_fault(answer, levels, value):
    found = judge(answer)
    assert {finding.name: finding.level for finding in found} == levels
    assert found[-1].value == value
    assert bool(found[-1].remedy) == (found[-1].level == "fault")
