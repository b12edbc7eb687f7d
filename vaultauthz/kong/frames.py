"""Bytes → the frames of ProtoBuf:1: a length as four bytes, little-endian, and a message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vaultauthz.kong.calls import LENGTH

# Bytes of one message. Kong's own have some kilobytes, apart from the body of a request, which
# is asked for only to be signed.
MESSAGE_LIMIT: Final = 1 << 20


class Frames:
    """Keeps at most one message that is not whole yet."""

    __slots__ = ("_passing", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._passing = 0  # bytes of a message too long that are still to come

    @property
    def torn(self) -> bool:
        """Whether the rest of a frame is still to come."""
        return bool(self._rest) or self._passing > 0

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The messages that are whole now; None for one that is too long, at its beginning.

        What comes of that one is passed over, if one goes on after it.
        """
        data = self._rest + data if self._rest else data
        at = 0
        while True:
            passed = min(self._passing, len(data) - at)
            self._passing -= passed
            at += passed
            if len(data) - at < LENGTH.size:
                break
            (length,) = LENGTH.unpack_from(data, at)
            begin = at + LENGTH.size
            if length > MESSAGE_LIMIT:
                self._passing, at = length, begin
                yield None
            elif begin + length > len(data):
                break
            else:
                at = begin + length
                yield data[begin:at]
        self._rest = data[at:] if at else data
