"""gRPC by pygrpc-native: HTTP/2 in Rust, outside the GIL; plaintext only.

Its event interface is used, not its ``server()``. Everything runs on one thread, because no
answer blocks: there is no hand-over from thread to thread to pay for (measured in
benchmarks/check_server.py), the length of a batch says how many calls wait, and any
thread may respond to a call later, which is how checks that must wait fit in. Its
interface is stable within 0.x (tests/test_api.py there pins it).

Streams it hands on, as bytes, to a grpcio server behind it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pygrpc_native import EVENT_CALL, EVENT_CANCEL, NativeGrpcFront

from vaultauthz.envoy.refused_calls import Unread
from vaultauthz.envoy.rpc import (
    BACKLOG,
    INTERNAL,
    KEEPALIVE_TIME_MS,
    KEEPALIVE_TIMEOUT_MS,
    STREAMS,
    RpcError,
    UnaryMethod,
)
from vaultauthz.leases.later import Later

if TYPE_CHECKING:
    from vaultauthz.envoy.private_streams import Fallback
    from vaultauthz.envoy.streams import Streams

# How long the loop sleeps before it looks whether it should end.
_WAIT_MS: Final = 100
# close() drops answers that are not on the wire yet, and nothing tells when they are:
# 50 answers took less than 5 ms.
_FLUSH: Final = 0.1  # seconds
_TOGETHER: Final = 16  # answers that are handed over together: the first of them waits for the rest

_UNIX: Final = "unix:"

log = logging.getLogger(__name__)


class NativeTransport:
    """Serves ``methods`` (by path) on ``target``: ``unix:/path`` or ``host:port``."""

    def __init__(
        self,
        target: str,
        methods: Mapping[str, UnaryMethod],
        backlog: int = BACKLOG,
        *,
        deadlines: bool = False,
        streams: Streams | None = None,
        unread: Unread | None = None,
    ) -> None:
        self._target = target
        self._unread = unread or Unread()
        self._streams = streams
        self._fallback: Fallback | None = None
        self._paths = tuple(methods)
        self._methods = tuple(methods.values())
        self._backlog = backlog
        self._deadlines = deadlines
        self._stopping = False
        self._until = 0.0  # when stopping: how long promised answers are waited for
        self._promised: dict[int, Callable[[], bytes]] = {}  # call → what to say without one
        self._ready: list[tuple[int, bytes]] = []  # answers of this batch, not handed over yet
        self._thread = threading.Thread(target=self._run, name="grpc-native", daemon=True)
        self._front: NativeGrpcFront | None = None

    @property
    def port(self) -> int:
        """See ``rpc.Transport``."""
        return self._bound.bound_port

    @property
    def _bound(self) -> NativeGrpcFront:
        if self._front is None:
            raise RuntimeError("the transport is not started")
        return self._front

    def start(self) -> None:
        """See ``rpc.Transport``."""
        self._front = NativeGrpcFront(
            self._target,
            [(path, False) for path in self._paths],
            call_details=self._deadlines,
            keepalive_time_ms=KEEPALIVE_TIME_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
            max_concurrent_streams=STREAMS,
            # One does more than Python can answer, and two wake each other for each call:
            # a third of what a check costs here.
            io_threads=1,
            reuse_port=True,  # so that the next server can take over; see grpcio's
        )
        if self._streams:
            try:
                self._fallback = _fallback(self._streams, self._target)
            except BaseException:
                self._front.close()  # which removes the socket's file
                raise
            self._front.set_fallback(self._fallback.path)
        self._front.start()
        self._thread.start()

    def stop(self, grace: float) -> None:
        """See ``rpc.Transport``."""
        if self._front is None:
            return
        self._until = time.monotonic() + grace
        self._stopping = True
        if self._fallback:
            self._fallback.stop(grace)
        self._thread.join(grace + 2 * _WAIT_MS / 1000)
        time.sleep(min(_FLUSH, grace))
        self._front.close()

    def _run(self) -> None:
        while not self._stopping or (self._promised and time.monotonic() < self._until):
            self._serve(_WAIT_MS)
        self._serve(0)  # what had arrived before the end was called
        for call_id, refuse in tuple(self._promised.items()):
            self._respond(call_id, refuse())  # a denial; Envoy applies its failure mode to none

    def _serve(self, wait_ms: int) -> None:
        # Twice the backlog: a call past the first half is one too many, and the limit
        # of one read keeps the list small.
        calls = self._calls(2 * self._backlog, wait_ms)
        # The refused first: their answer is quick, and they should not wait for the others.
        for call_id, method, data, _ in calls[self._backlog :]:
            self._answer(call_id, data, self._methods[method], None, refused=True)
        self._flush()
        for call_id, method, data, left in calls[: self._backlog]:
            self._answer(call_id, data, self._methods[method], left)
            if len(self._ready) >= _TOGETHER:
                self._flush()
        self._flush()

    def _flush(self) -> None:
        """Hand the answers over that are ready, one behind the other.

        Each hand-over wakes the thread that writes, unless it is awake already.
        """
        respond = self._bound.respond
        for call_id, response in self._ready:
            try:
                respond(call_id, response)
            except Exception as exc:  # noqa: BLE001 - one call must not end the thread of all
                self._fail(call_id, exc)
        self._ready.clear()

    def _calls(self, most: int, wait_ms: int) -> list[tuple[int, int, bytes | None, float | None]]:
        """What has arrived: id, method, message and the seconds that the client waits."""
        front = self._bound
        if not self._deadlines:
            events = front.recv_batch(most, wait_ms) or ()
            return [(*event[1:4], None) for event in events if event[0] == EVENT_CALL]
        calls = []
        for event in front.recv_batch_details(most, wait_ms) or ():
            kind, call_id, method, data, _, details = event
            if kind == EVENT_CALL:
                calls.append((call_id, method, data, details[2] if details else None))
            elif kind == EVENT_CANCEL:
                self._promised.pop(call_id, None)  # nobody waits for it any more
        return calls

    def _respond(self, call_id: int, response: bytes) -> None:
        self._promised.pop(call_id, None)
        self._bound.respond(call_id, response)

    def _fail(self, call_id: int, exc: Exception) -> None:
        self._promised.pop(call_id, None)
        if isinstance(exc, RpcError):
            self._bound.fail(call_id, exc.code, exc.message)
            return
        log.error("a call failed with %s", type(exc).__name__)  # its text may quote a value
        self._bound.fail(call_id, INTERNAL, "internal")

    def _answer(
        self,
        call_id: int,
        data: bytes | None,
        method: UnaryMethod,
        left: float | None,
        *,
        refused: bool = False,
    ) -> None:
        try:
            data = self._unread.checked(data)
            response = (method.refuse if refused else method.answer)(data, left)
            if isinstance(response, Later):
                self._promised[call_id] = partial(method.refuse, data, None)
                response.then(partial(self._respond, call_id), partial(self._fail, call_id))
            else:
                self._ready.append((call_id, response))
        except Exception as exc:  # noqa: BLE001 - one call must not end the thread of all
            self._fail(call_id, exc)


def _fallback(streams: Streams, target: str) -> Fallback:
    from vaultauthz.envoy.private_streams import Fallback  # noqa: PLC0415 - loads grpcio

    beside = Path(target.removeprefix(_UNIX)).parent if target.startswith(_UNIX) else None
    fallback = Fallback(streams, beside)
    fallback.start()
    return fallback
