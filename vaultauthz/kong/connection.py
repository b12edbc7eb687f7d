"""One of Kong's connections: its bytes in, our bytes out. ProtoBuf:1 without a socket.

How the messages follow each other is told in proto/vaultauthz/kong.proto and in
tests/contract/kong. Kong reads a frame when it comes to it. So what does not hang on an
answer goes out together: all questions at once, and at the end the calls, the event's end and
its RpcReturn; Kong's results for those calls arrive before its next call and are passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from vaultauthz._pb.kong_pb2 import CmdHandleEvent, CmdStartInstance, RpcCall, RpcReturn
from vaultauthz.core.decision import Decision, Reason
from vaultauthz.core.redaction import where
from vaultauthz.kong import registration
from vaultauthz.kong.calls import LENGTH, Batch, PdkCall, frame
from vaultauthz.kong.enforcement import NOTHING, denial
from vaultauthz.kong.gate import End, Gate, Instance, Instances, PluginConfigError, Steps
from vaultauthz.kong.questions import Results
from vaultauthz.leases.later import Later

log = logging.getLogger(__name__)

# Bytes of one message. Kong's own have some kilobytes, apart from the body of a request, which
# is asked for only to be signed.
MESSAGE_LIMIT: Final = 1 << 20
_EMPTY: Final = frame(b"")
_NOTHING: Final = End(NOTHING)


class HangUp(Exception):  # noqa: N818 - what is to be done
    """Close the connection without a word."""


class Connection:
    """``take`` what Kong sends; what is to be sent goes through ``send``.

    ``later`` is handed each promise of a decision; when it is there, ``decided`` has to be
    called in the thread that calls ``take``.
    """

    def __init__(
        self,
        gate: Gate,
        instances: Instances,
        send: Callable[[bytes], None],
        later: Callable[[Later[Decision]], None],
    ) -> None:
        self._gate = gate
        self._instances = instances
        self._send = send
        self._later = later
        self._frames = Frames()
        self._sequence = 0
        self._phase = ""
        self._instance: Instance  # of the event under way
        self._steps: Steps | None = None  # of the event under way
        self._due: tuple[PdkCall, ...] = ()  # whose results Kong owes us
        self._results: list[bytes | None] = []
        self._then: Callable[[Results], None] | None = None
        self._promised = False
        self._answered = False  # the client has its answer, and Kong says no more here

    @property
    def busy(self) -> bool:
        """Whether a request waits for us."""
        return self._steps is not None

    @property
    def quiet(self) -> bool:
        """Whether no call is under way, nor the beginning of one, and another may come."""
        return self._steps is None and not self.owed

    @property
    def owed(self) -> bool:
        """Whether Kong owes us something: the rest of a frame, a result, its hanging up."""
        waits = self._steps is not None and not self._promised
        return waits or bool(self._due) or self._answered or self._frames.torn

    def take(self, data: bytes) -> None:
        """Take what has arrived.

        Raises:
            HangUp: it is nothing that Kong sends, or names an instance that there is not.
        """
        for message in self._frames.feed(data):
            self._take_frame(message)

    def decided(self, decision: Decision) -> None:
        """What was promised is there."""
        self._promised = False
        self._go_on(decision)

    def not_decided(self) -> None:
        """What was promised will not come."""
        self._promised = False
        self._fail()

    def give_up(self) -> None:
        """Answer the client that we are about to end, where a request waits for Vault."""
        if self._promised:
            self._promised = False
            self._deny(Reason.OVERLOADED, retry_after=1)

    def _take_frame(self, message: bytes | None) -> None:
        if self._due:
            self._results.append(message)
            if len(self._results) == len(self._due):
                self._take_results()
        elif message is None or self._steps is not None or self._answered:
            raise HangUp  # too long for a call, or not Kong's turn
        else:
            self._take_call(message)

    def _take_results(self) -> None:
        due, results = self._due, self._results
        self._due, self._results = (), []
        if self._then is None and self._steps is None:
            return
        try:
            known = {c: c.result.read(data) for c, data in zip(due, results, strict=True)}
        except Exception as exc:  # noqa: BLE001 - hanging up would make Kong ask again for ever
            log.error("Kong's answer cannot be read: %s", where(exc))  # noqa: TRY400
            self._fail()
            return
        if self._then is not None:
            then, self._then = self._then, None
            then(known)
        else:
            self._go_on(known)

    def _take_call(self, message: bytes) -> None:
        try:
            call = RpcCall.FromString(message)
        except DecodeError:
            raise HangUp from None
        self._sequence = call.sequence
        kind = call.WhichOneof("call")
        if kind == "cmd_handle_event":
            self._begin(call.cmd_handle_event)
        elif kind == "cmd_start_instance":
            self._start(call.cmd_start_instance)
        elif kind == "cmd_close_instance":
            self._instances.drop(call.cmd_close_instance.instance_id)
            self._send(frame(self._return().SerializeToString()))
        else:
            raise HangUp

    def _start(self, command: CmdStartInstance) -> None:
        if command.name != registration.NAME:
            raise HangUp
        try:
            instance = self._gate.begin(command.config)
        except PluginConfigError as exc:
            log.error("an instance was not started: %s", exc)  # noqa: TRY400
            raise HangUp from None
        answer = self._return()
        answer.instance_status.name = registration.NAME
        answer.instance_status.instance_id = self._instances.add(instance)
        self._send(frame(answer.SerializeToString()))

    def _return(self) -> RpcReturn:
        return RpcReturn(sequence=self._sequence)

    # --- an event ---

    def _begin(self, event: CmdHandleEvent) -> None:
        instance = self._instances.get(event.instance_id)
        if instance is None:
            raise HangUp  # Kong starts it anew
        self._phase, self._instance = event.event_name, instance
        if event.event_name == "access":
            self._steps = self._gate.access(instance)
            self._go_on(None)
        elif event.event_name == "log":
            self._end(self._gate.log())
        else:  # Kong asks for no phase that `registration` does not name
            self._end(_NOTHING)

    def _go_on(self, results: Any) -> None:
        """Run the plugin up to its next question, its end, or an error, which is a denial."""
        steps = self._steps
        if steps is None:
            return
        try:
            wanted = steps.send(results)
        except StopIteration as stop:
            self._end(stop.value)
        except Exception as exc:  # noqa: BLE001 - the client is answered whatever it is
            log.error("a request in Kong was denied as internal: %s", where(exc))  # noqa: TRY400
            self._fail()
        else:
            self._ask(wanted)

    def _ask(self, wanted: Batch | Later[Decision]) -> None:
        if isinstance(wanted, Later):
            self._promised = True
            self._later(wanted)
            return
        self._due = wanted.calls
        self._send(wanted.frames)

    def _fail(self) -> None:
        # In the log phase nobody can be answered any more.
        if self._phase == "access":
            self._deny(Reason.INTERNAL)
        else:
            self._end(_NOTHING)

    def _deny(self, reason: Reason, retry_after: int = 0) -> None:
        denied = self._gate.deny(self._instance, reason, retry_after)
        self._end(End(denial(denied, ""), answers=True))

    def _end(self, end: End) -> None:
        self._steps = None
        if end.answers:
            self._answered = True
            self._send(end.batch.frames)
            return
        self._due, self._then = end.batch.calls, end.take
        returned = frame(self._return().SerializeToString())
        self._send(end.batch.frames + _EMPTY + returned)


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
