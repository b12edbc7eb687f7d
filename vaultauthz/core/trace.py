"""Where an error of ours happened, in words that hold no value."""

from __future__ import annotations

import traceback


def where(exc: BaseException) -> str:
    """The error's type and the lines it came through, for a log.

    Not its text, which may quote the value it choked on, nor those of its causes.
    """
    lines = "".join(traceback.format_tb(exc.__traceback__))
    return f"{type(exc).__name__}\nTraceback (most recent call last):\n{lines}"
