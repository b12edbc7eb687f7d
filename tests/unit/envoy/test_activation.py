"""Frames are cut where they end, however they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.envoy.activation import FrameCutter

FRAME = st.binary(max_size=300).map(lambda body: len(body).to_bytes(3) + bytes(6) + body)


@given(st.lists(FRAME, max_size=8), st.data())
def test_whole_frames(frames: list[bytes], data: st.DataObject) -> None:
    """What was let through at any time is a number of whole frames, and at the end all of them."""
    stream, cut, out = b"".join(frames), FrameCutter(), b""
    ends = {sum(map(len, frames[:count])) for count in range(len(frames) + 1)}
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        out += cut.whole(stream[:size])
        stream = stream[size:]
        assert len(out) in ends
    assert out == b"".join(frames)
    assert cut.count == len(frames)
