"""What signals want of a server: heard whenever they come, once, and never in the way."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from vaultauthz.watching import Signals

NUMBERS = (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def signals(tmp_path: Path) -> Iterator[Signals]:
    """Of a server whose file is there; the signals are the tests' own afterwards."""
    path = tmp_path / "c.yaml"
    path.write_text("old")
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield Signals(path)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_reload_once(signals: Signals) -> None:
    """However often it was asked for since the last look."""
    assert not signals.reload(0.0)
    for _ in range(1000):
        signal.raise_signal(signal.SIGHUP)
    assert signals.reload(0.0)
    assert not signals.reload(0.0)


def test_another_process(signals: Signals) -> None:
    """SIGUSR2 wants nothing read again, and is remembered until somebody has seen to it."""
    signal.raise_signal(signal.SIGUSR2)
    assert not signals.reload(0.0)
    assert signals.next
    signal.raise_signal(signal.SIGHUP)
    assert signals.reload(0.0)
    assert signals.next


def test_a_change(signals: Signals) -> None:
    """Of the file, since the very start."""
    signals.path.write_text("something new")
    assert [signals.reload(0.0) for _ in range(3)] == [False, True, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop(signals: Signals, number: signal.Signals) -> None:
    """It ends the wait; the next one ends the process, and afterwards it is as it was."""
    before = signal.getsignal(number)
    with signals.stoppable():
        signal.raise_signal(number)
        assert signals.stop
        assert not signals.reload(3600.0)
        assert signal.getsignal(number) is signal.SIG_DFL
    assert signal.getsignal(number) is before


def test_a_signal_at_any_line(signals: Signals) -> None:
    """Whatever line of ours or of the standard library it interrupts, all goes on."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if event == "line" and frame.f_code.co_name != "_hear":
            lines += 1
            signal.raise_signal(signal.SIGHUP)
        return trace

    signal.raise_signal(signal.SIGHUP)
    sys.settrace(trace)
    try:
        assert signals.reload(0.0)
    finally:
        sys.settrace(None)
    assert lines
    signals.reload(0.0)
    assert not signals.reload(0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pause(signals: Signals, number: signal.Signals) -> None:
    """The signal that asked to stop does not end it, nor does SIGHUP; one more does, and the next all."""

    def again() -> None:
        signal.raise_signal(signal.SIGHUP)
        threading.Timer(0.0, elsewhere).start()

    def elsewhere() -> None:
        signal.pthread_kill(threading.get_ident(), number)

    with signals.stoppable():
        signal.raise_signal(number)
        signals.pause(3600.0, again)
        assert signal.getsignal(number) is signal.SIG_DFL
        signals.pause(0.0, lambda: signal.raise_signal(signal.SIGHUP))
