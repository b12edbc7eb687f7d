"""gRPC by pygrpc-native: HTTP/2 in Rust, outside the GIL; plaintext only.

Its event interface is used, not its ``server()``. Everything runs on one thread, because no
answer blocks: there is no hand-over from thread to thread to pay for (measured in
benchmarks/check_server.py), the length of a batch says how many calls wait, and any
thread may respond to a call later, which is how checks that must wait will fit in. Its
interface is stable within 0.x (tests/test_api.py there pins it).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from vaultauthz.envoy.rpc import (
    BACKLOG,
    INTERNAL,
    KEEPALIVE_TIME_MS,
    KEEPALIVE_TIMEOUT_MS,
    MESSAGE_LIMIT,
    RESOURCE_EXHAUSTED,
    STREAMS,
    Method,
    RpcError,
)

# How long the loop sleeps before it looks whether it should end.
_WAIT_MS: Final = 100
# close() drops answers that are not on the wire yet, and nothing tells when they are:
# 50 answers took less than 5 ms.
_FLUSH: Final = 0.1  # seconds

log = logging.getLogger(__name__)


class NativeTransport:
    """Serves ``methods`` (by path) on ``target``: ``unix:/path`` or ``host:port``."""

    def __init__(self, target: str, methods: Mapping[str, Method], backlog: int = BACKLOG) -> None:
        self._target = target
        self._paths = tuple(methods)
        self._methods = tuple(methods.values())
        self._backlog = backlog
        self._stopping = False
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
            keepalive_time_ms=KEEPALIVE_TIME_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
            max_concurrent_streams=STREAMS,
        )
        self._front.start()
        self._thread.start()

    def stop(self, grace: float) -> None:
        """See ``rpc.Transport``."""
        if self._front is None:
            return
        self._stopping = True
        self._thread.join(grace)
        time.sleep(min(_FLUSH, grace))
        self._front.close()

    def _run(self) -> None:
        while not self._stopping:
            self._serve(_WAIT_MS)
        self._serve(0)  # what had arrived before the end was called

    def _serve(self, wait_ms: int) -> None:
        # Twice the backlog: a call past the first half is one too many, and the limit
        # of one read keeps the list small.
        events = self._bound.recv_batch(2 * self._backlog, wait_ms)
        calls = [event[1:4] for event in events or () if event[0] == EVENT_CALL]
        # The refused first: their answer is quick, and they should not wait for the others.
        for call_id, method, data in calls[self._backlog :]:
            self._answer(call_id, self._methods[method].refuse, data)
        for call_id, method, data in calls[: self._backlog]:
            self._answer(call_id, self._methods[method].answer, data)

    def _answer(self, call_id: int, answer: Callable[[bytes], bytes], data: bytes | None) -> None:
        front = self._bound
        if data is None or len(data) > MESSAGE_LIMIT:
            front.fail(call_id, RESOURCE_EXHAUSTED, "the message is too large")
            return
        try:
            front.respond(call_id, answer(data))
        except RpcError as exc:
            front.fail(call_id, exc.code, exc.message)
        except Exception as exc:  # noqa: BLE001 - one call must not end the thread of all
            log.error("a call failed with %s", type(exc).__name__)  # noqa: TRY400 - its text may quote a value
            front.fail(call_id, INTERNAL, "internal")
