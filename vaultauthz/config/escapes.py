r"""Characters beyond the first 65,536 as JSON writes them: two escapes, ``\ud83d\ude00`` (RFC 8259, 7).

YAML has one escape for each (``\U0001F600``), and its C parser refuses halves.
"""

from __future__ import annotations

import re
from bisect import bisect
from typing import Final

# An escape begins with a backslash that is not itself escaped.
_PAIR: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_SHORTER: Final = len(r"\ud83d\ude00") - len(r"\U0001F600")


def is_half(text: str, at: int) -> bool:
    r"""Whether a parser that gave up at this place, behind a ``\u``, did so over half a character."""
    return _HALF.match(text, max(0, at - 2)) is not None


class Joined:
    r"""A text with each pair of escapes in YAML's form, and where these are in it."""

    def __init__(self, text: str) -> None:
        self._ends: list[int] = []
        self.text = _PAIR.sub(self._join, text)

    def _join(self, pair: re.Match[str]) -> str:
        before, high, low = pair.groups()
        whole = bytes.fromhex(high + low).decode("utf-16-be")
        self._ends.append(pair.end() - _SHORTER * (1 + len(self._ends)))
        return f"{before}\\U{ord(whole):08X}"

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._ends)

    def within(self, begin: int, end: int) -> bool:
        """Whether one of them is in this part of the text."""
        return bisect(self._ends, begin) < bisect(self._ends, end)


def whole(value: str) -> str | None:
    """``value`` with its surrogates put together; None where one has no other half."""
    if value.isascii():
        return value
    try:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        return None
