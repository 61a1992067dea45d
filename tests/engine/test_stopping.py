"""Signals during a run."""

import os
import signal

import pytest

from gluon_tricks.engine.stopping import StopRequest, StopWanted


@pytest.fixture(autouse=True)
def handlers():
    """Own handlers, which must be restored; pytest's are put back after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own = {number: lambda *_: pytest.fail("the signal went past") for number in before}
    for number, handler in own.items():
        signal.signal(number, handler)
    yield own
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted(number, capfd):
    with StopRequest() as stop:
        assert stop.signal is None
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.signal is number
        with pytest.raises(StopWanted):
            stop.check()
    said = capfd.readouterr().err
    assert number.name in said and "Ctrl-C exits at once" in said


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_sigterm_after_another_changes_nothing(first):
    with StopRequest() as stop:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is first


def test_handlers_are_given_back_after_an_error_too(handlers):
    with pytest.raises(StopWanted), StopRequest():
        raise StopWanted
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_a_second_ctrl_c_exits_at_once(run_python, first):
    """Without cleaning up, which may be what hangs."""
    done = run_python(f"""
        import atexit, os, signal
        from gluon_tricks.engine.stopping import StopRequest
        atexit.register(print, "cleaned up")
        with StopRequest():
            os.kill(os.getpid(), signal.{first})
            print("goes on", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            print("goes on after the second")
        """)
    assert (done.returncode, done.stdout) == (130, "goes on\n")
    assert first in done.stderr and "Traceback" not in done.stderr


def test_a_signal_amid_a_write_to_stderr_breaks_nothing(run_python):
    """Python's streams are not reentrant: a handler must not print."""
    done = run_python("""
        import signal, sys
        from gluon_tricks.engine.stopping import StopRequest
        with StopRequest() as stop:
            signal.signal(signal.SIGALRM, lambda *_: stop._note(signal.SIGTERM, None))
            signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
            for _ in range(100_000):
                sys.stderr.buffer.write(b".")
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(stop.signal.name)
        """)
    assert (done.returncode, done.stdout) == (0, "SIGTERM\n"), done.stderr[-500:]


def test_a_closed_stderr_breaks_nothing(run_python):
    done = run_python("""
        import os, signal
        from gluon_tricks.engine.stopping import StopRequest
        os.close(2)
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        print(stop.signal.name)
        """)
    assert (done.returncode, done.stdout) == (0, "SIGTERM\n")
