"""The command: examine, judge, show."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TextIO

from vaultauthz.config.values import Config
from vaultauthz.doctor.evidence import Evidence
from vaultauthz.doctor.examine import DoctorOptions, examine
from vaultauthz.doctor.rules import judge
from vaultauthz.doctor.show import as_json, as_text
from vaultauthz.terminal import Output

_INTERRUPTED: Final = 130  # as a shell has it for SIGINT
_CLEAR: Final = "\r\x1b[K"


def run(config: Config, options: DoctorOptions, out: Output, err: TextIO) -> int:
    """Say what is wrong; status 0 without a finding, 1 with one, 2 for an unknown stage."""
    if options.stage is not None and options.stage not in config.stages:
        stages = ", ".join(config.stages)
        err.write(f"vaultauthz: there is no stage {options.stage!r}; stages: {stages}\n")
        return 2
    with _terminated_like_interrupted(), Progress(err) as progress:
        facts = examine(config, options, progress.say)
    if facts.interrupted:
        _tell_interrupted(facts, err)
        return _INTERRUPTED
    findings = judge(facts)
    if out.as_json:
        out.json(as_json(facts, findings))
    else:
        as_text(facts, findings, out)
    return 1 if findings else 0


def _tell_interrupted(facts: Evidence, err: TextIO) -> None:
    left = [f"{name}: it takes too long" for name in facts.unfinished]
    left += [f"{s.name}: {s.left}" for s in facts.stages if s.left]
    left += [f"lease {f.lease_id}: {f.left}" for s in facts.stages for f in s.leases if f.left]
    held = f"not revoked: {'; '.join(left)}" if left else "what it had taken is given back"
    err.write(f"vaultauthz doctor: interrupted; {held}\n")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the examination as Ctrl-C does: tokens and leases are given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Progress:
    """One line that says what is being done, and is gone in the end. Safe for threads.

    Where ``out`` is no terminal it says nothing.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._live = out.isatty()

    def say(self, what: str) -> None:
        """Show this in place of what was shown."""
        with self._lock:
            if self._live:
                width = shutil.get_terminal_size().columns - 1
                self._out.write(f"{_CLEAR}{what}…"[: width + len(_CLEAR)])
                self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._live:
                self._live = False
                self._out.write(_CLEAR)
                self._out.flush()
