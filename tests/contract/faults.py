"""What can go wrong between us and Vault, as values that are given to ``FakeVault.fault``."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.contract.fake_http import Heard, Reply, Wire
from tests.patience import PATIENCE

# Gets the request, the answer that would go out, and the wire; returns the answer that
# goes out, or None when it has dealt with the wire itself.
Fault = Callable[[Heard, Callable[[], Reply], Wire], Reply | None]


@dataclass
class Rule:
    """A fault for the requests whose path has ``path`` in it; ``every`` n-th, ``times`` at most."""

    fault: Fault
    path: str = ""
    method: str = ""
    every: int = 1
    times: int | None = None
    _count: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def takes(self, heard: Heard) -> bool:
        """Whether this request is hit. Called under the fake's lock."""
        if self.path not in heard.path or self.method not in ("", heard.method):
            return False
        if self.times == 0 or next(self._count) % self.every:
            return False
        if self.times is not None:
            self.times -= 1
        return True


def latency(seconds: float) -> Fault:
    """The answer is right and late; Vault has done the work by then."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        reply = answer()
        wire.closing.wait(seconds)
        return reply

    return fault


def held(go: threading.Event) -> Fault:
    """The answer is right and goes out when ``go`` is set; Vault has done the work by then."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        reply = answer()
        while not (go.wait(0.02) or wire.closing.is_set()):
            pass
        return reply

    return fault


def hang() -> Fault:
    """No answer at all, until the server stops."""
    return latency(3600)


def status(
    code: int, *texts: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Fault:
    """Another answer instead: Vault's JSON with these errors, or ``body`` as it is."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        content = {"errors": list(texts)} if body is None else body
        return Reply(code, content, headers or {})

    return fault


def mangled(change: Callable[[dict[str, Any]], Any]) -> Fault:
    """The right answer's JSON after ``change``: wrong types, missing fields, any status."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        reply = answer()
        content = dict(reply.body) if isinstance(reply.body, Mapping) else {}
        return Reply(reply.status, change(content))

    return fault


def reset(*, after_work: bool = False) -> Fault:
    """The connection is reset instead of an answer; ``after_work``: Vault did it all the same."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        if after_work:
            answer()
        wire.reset()
        return None

    return fault


def cut(share: float = 0.5, *, honest: bool = False) -> Fault:
    """The body ends early; ``honest``: with a Content-Length that fits what was sent."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        reply = answer()
        head, body = reply.encoded()
        part = body[: int(len(body) * share)]
        if honest:
            return Reply(reply.status, part)
        wire.send(head + part)
        wire.end()
        return None

    return fault


def drip(pause: float, *, head: bool = False) -> Fault:
    """One byte of the body, or of the head too, every ``pause`` seconds."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        first, rest = answer().encoded()
        if head:
            first, rest = b"", first + rest
        wire.send(first)
        for byte in rest:
            if wire.closing.wait(pause):
                break
            wire.send(bytes([byte]))
        wire.end()
        return None

    return fault


def stall() -> Fault:
    """Head and half the body, then silence."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        head, body = answer().encoded()
        wire.send(head + body[: len(body) // 2])
        wire.closing.wait(3600)
        wire.end()
        return None

    return fault


def huge(size: int = 3 << 20) -> Fault:
    """A body that goes on for ``size`` bytes."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        return Reply(200, b'{"data": {"x": "' + b"x" * size + b'"}}')

    return fault


def redirect(location: str) -> Fault:
    """What a standby answers: 307 to another host."""
    return status(307, headers={"Location": location})


def garbage(data: bytes = b"\x00\xff not HTTP \r\n\r\n") -> Fault:
    """Bytes that are no HTTP."""

    def fault(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
        wire.send(data)
        wire.end()
        return None

    return fault


def wait_until(what: Callable[[], bool], timeout: float = PATIENCE) -> bool:
    """Ask every 5 ms; True as soon as ``what`` holds, False after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
