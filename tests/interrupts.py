"""Ctrl-C for programs that a test starts, wherever the tests themselves were started."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell has what it starts with ``&`` ignore SIGINT, and our children would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
