"""PDK calls: both protocols say the same, and what comes back is the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.kong import protobuf_values
from tests.contract.kong.msgpack_values import MultiMap
from vaultauthz.kong import calls
from vaultauthz.kong.calls import Batch, PdkCall, TooLongError, frame
from vaultauthz.kong.connection import MESSAGE_LIMIT, Frames

# As Kong's Lua strings are here: text that may stand for any bytes.
TEXT = st.binary(max_size=40).map(calls.as_text)
NAMES = st.text("abcxyz-_", min_size=1, max_size=12)
DONE = st.one_of(
    st.builds(calls.set_headers, st.dictionaries(NAMES, TEXT).map(lambda d: d.items())),
    st.builds(calls.clear_header, NAMES),
    st.builds(calls.set_raw_query, TEXT),
    st.builds(calls.hide, TEXT),
    st.builds(calls.leave, st.integers(200, 599), TEXT, st.dictionaries(NAMES, TEXT)),
)
QUESTIONS = [one for one in vars(calls).values() if isinstance(one, PdkCall)]


def framed(call: PdkCall) -> tuple[str, bytes]:
    """The name and the argument in a call's two frames."""
    name, argument = Frames().feed(call.frames)
    assert name is not None
    assert argument is not None
    return name.decode(), argument


@given(DONE)
def test_both_protocols_say_the_same(call: PdkCall) -> None:
    """What Kong makes of the ProtoBuf:1 argument is the list of MsgPack:1."""
    name, argument = framed(call)
    assert name == call.name
    assert protobuf_values.decoded(name, argument) == list(call.args)


@pytest.mark.parametrize("call", QUESTIONS, ids=repr)
def test_questions_say_the_same(call: PdkCall) -> None:
    """As do those that are asked; Kong knows each of them."""
    name, argument = framed(call)
    assert protobuf_values.decoded(name, argument) == list(call.args)


HEADERS = {"host": "h", "x-odd": "\udcff", "x-two": ["1", "2"]}
GIVEN: list[tuple[PdkCall, Any, Any]] = [
    (calls.REQUEST_ID, "1", "1"),
    (calls.REQUEST_ID, None, ""),
    (calls.COOKIE, "a=\udcff", "a=\udcff"),
    (calls.CONSUMER, None, ""),
    (calls.CONSUMER, {"id": "7", "username": "shop", "custom_id": "9"}, "shop"),
    (calls.CONSUMER, {"id": "7", "custom_id": "shop"}, "7"),
    (calls.CREDENTIAL, None, False),
    (calls.CREDENTIAL, {"id": "7", "key": "k"}, True),
    (calls.SHARED_GROUPS, None, ()),
    (calls.SHARED_GROUPS, ["a", "b"], ("a", "b")),
    (calls.CTX_GROUPS, {"a": "b"}, ()),
    (calls.CTX_GROUPS, "staff", ()),
    (calls.BODY, "a\udcff", b"a\xff"),
    (calls.BODY, "", b""),
    (calls.HEADERS, HEADERS, (("host", "h"), ("x-odd", "\udcff"), ("x-two", "1"), ("x-two", "2"))),
    (calls.SERIALIZE, "{}", "{}"),
]


@pytest.mark.parametrize(("call", "value", "wanted"), GIVEN)
def test_what_comes_back(call: PdkCall, value: Any, wanted: Any) -> None:
    """The same by either protocol, whatever Kong gives."""
    assert call.result.read(protobuf_values.encoded(call.name, value)) == wanted
    assert call.result.take(MultiMap(value) if call is calls.HEADERS else value) == wanted


@pytest.mark.parametrize("call", QUESTIONS, ids=repr)
def test_what_is_too_long(call: PdkCall) -> None:
    """Is an error, apart from a body, which nobody has then, and from what is only there or not."""
    if call is calls.BODY:
        assert call.result.read(None) is None
    elif call is not calls.CREDENTIAL:
        with pytest.raises(TooLongError):
            call.result.read(None)


def test_nobody_sees_a_credential() -> None:
    """A call shows its name only."""
    call = calls.set_headers([("authorization", "Bearer s3cr3t")])
    assert "s3cr3t" not in repr(call)
    assert "s3cr3t" not in repr(Batch([call]))


MESSAGES = st.lists(st.binary(max_size=50), max_size=8)


@given(MESSAGES, st.data())
def test_frames_however_they_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    """The same messages, and nothing left over."""
    whole = b"".join(frame(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    frames, got = Frames(), []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        got += list(frames.feed(whole[begin:end]))
    assert got == messages
    assert not frames.torn


@given(st.integers(1, 1000), st.lists(st.integers(1, 200_000), max_size=6))
def test_a_message_that_is_too_long(more: int, cuts: list[int]) -> None:
    """Is told at once, passed over, and the next one is read."""
    length = MESSAGE_LIMIT + more
    whole = frame(b"a") + length.to_bytes(4, "little") + b"x" * length + frame(b"b")
    frames, got, at = Frames(), [], 0
    for size in [*cuts, len(whole)]:
        got += list(frames.feed(whole[at : at + size]))
        at += size
    got += list(frames.feed(whole[at:]))
    assert got == [b"a", None, b"b"]


@given(st.binary(max_size=200))
def test_any_bytes(noise: bytes) -> None:
    """Keep no more than what came."""
    frames = Frames()
    assert sum(len(one or b"") for one in frames.feed(noise)) <= len(noise)
