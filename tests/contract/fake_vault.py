"""A fake Vault that speaks the real protocol over a real socket, with setters instead of patches.

It knows AppRole, Kubernetes and token logins, KV version 1 and 2, one kind of dynamic
secret (``creds``), leases that end, and tokens that take their leases with them; its
texts are those that OpenBao 2.7 answered. What shall go wrong is told to ``fault``.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.contract.fake_state import Creds, DeniedError, RefusedError, State
from tests.contract.faults import Fault, Rule

DENIED_BY_POLICY = "1 error occurred:\n\t* permission denied\n\n"


def _as_it_is(heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply | None:
    return answer()


@dataclass(frozen=True)
class _Answer:
    """The parts of a success that differ; ``reply`` puts Vault's frame around them."""

    data: Mapping[str, Any] | None = None
    auth: Mapping[str, Any] | None = None
    lease: tuple[str, float, bool] = ("", 0, False)  # id, seconds, renewable


class FakeVault(State):
    """Start it as a context manager; ``address`` is what goes into ``vault.address``.

    ``heard`` is every request in order; ``most_at_once`` the most that were in work
    at the same time; ``overlaps`` the leases and paths with two calls at once.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, unix: Path | None = None) -> None:
        super().__init__()
        self._server = FakeServer(self._respond, tls=tls, unix=unix)
        self._rules: list[Rule] = []
        self._in_work: Counter[str] = Counter()
        self.heard: list[Heard] = []
        self.most_at_once = 0
        self.overlaps: set[str] = set()
        self.sealed = False

    # --- its life ---

    @property
    def address(self) -> str:
        """What goes into ``vault.address``."""
        return self._server.address

    @property
    def connections(self) -> int:
        """How many connections have been made since the start."""
        return self._server.connections

    def start(self) -> None:
        """Listen; the second time at the same address, with everything still known."""
        self._server.start()

    def stop(self) -> None:
        """Go away: connections break, new ones are refused. State is kept."""
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- what tests say and ask ---

    def fault(
        self,
        fault: Fault,
        path: str = "",
        *,
        method: str = "",
        every: int = 1,
        times: int | None = None,
    ) -> Rule:
        """From now on this goes wrong; the latest rule that takes a request wins."""
        rule = Rule(fault, path, method, every, times)
        with self.lock:
            self._rules.insert(0, rule)
        return rule

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        with self.lock:
            self._rules.clear()

    def calls(self, path: str = "", since: float = 0.0) -> list[Heard]:
        """The requests with ``path`` in their path, since a ``time.monotonic()``."""
        with self.lock:
            return [h for h in self.heard if path in h.path and h.at >= since]

    # --- answering ---

    def _respond(self, heard: Heard, wire: Wire) -> None:
        with self.lock:
            self.heard.append(heard)
            rule = next((rule for rule in self._rules if rule.takes(heard)), None)
        with self._counted(heard):
            fault = rule.fault if rule else _as_it_is
            reply = fault(heard, lambda: self._answer(heard), wire)
        if reply is not None:
            wire.send(b"".join(reply.encoded()))

    @contextlib.contextmanager
    def _counted(self, heard: Heard) -> Iterator[None]:
        with self.lock:
            self._in_work[heard.key] += 1
            self.most_at_once = max(self.most_at_once, self._in_work.total())
            if self._in_work[heard.key] > 1:
                self.overlaps.add(heard.key)
        try:
            yield
        finally:
            with self.lock:
                self._in_work[heard.key] -= 1

    def _answer(self, heard: Heard) -> Reply:
        with self.lock:
            if self.sealed:
                return Reply(503, {"errors": ["Vault is sealed"]})
            try:
                return self._framed(self._route(heard))
            except DeniedError as exc:
                text = "permission denied" if exc.dead else DENIED_BY_POLICY
                return Reply(403, {"errors": [text]})
            except RefusedError as exc:
                return Reply(exc.status, {"errors": list(exc.texts), **exc.more})

    def _framed(self, answer: _Answer | None) -> Reply:
        if answer is None:
            return Reply(204)
        lease_id, seconds, renewable = answer.lease
        frame = {
            "request_id": self.request_id(),
            "lease_id": lease_id,
            "renewable": renewable,
            "lease_duration": int(seconds),
            "data": answer.data,
            "wrap_info": None,
            "warnings": None,
            "auth": answer.auth,
        }
        return Reply(200, frame)

    def _route(self, heard: Heard) -> _Answer | None:
        path = heard.path
        for end, method in _LOGINS.items():
            if path.startswith("auth/") and path.endswith(end):
                return method(self, heard)
        token = self.token_of(heard.token)
        self.check_policy(path)
        for start, act in _PATHS.items():
            if path.startswith(start):
                return act(self, heard, token.accessor)
        return self._read(heard, token.accessor)

    def _login(self, heard: Heard) -> _Answer:
        return _Answer(auth=self.log_in(heard.path.split("/")[1], heard.body).as_auth())

    def _token_self(self, heard: Heard, accessor: str) -> _Answer | None:
        act = heard.path.rsplit("/", 1)[1]
        token = self.tokens[accessor]
        if act == "revoke-self":
            self.kill_token(accessor)
            return None
        if act == "renew-self":
            self.renew_token(token, heard.body.get("increment"))
            return _Answer(auth=token.as_auth())
        return _Answer(data=token.as_data())

    def _lease(self, heard: Heard, accessor: str) -> _Answer | None:
        lease_id = str(heard.body.get("lease_id"))
        if heard.path.endswith("/revoke"):
            self.kill_lease(lease_id)  # Vault answers 204 for a lease that is gone, too
            return None
        lease = self.renew_lease(lease_id, float(heard.body.get("increment") or 0))
        return _Answer(lease=(lease_id, lease.ends_at - time.monotonic() + 0.01, True))

    def _mount(self, heard: Heard, accessor: str) -> _Answer:
        path = heard.path.removeprefix("sys/internal/ui/mounts/")
        mount, version = self.mount_of(path)
        return _Answer(
            data={"path": f"{mount}/", "type": "kv", "options": {"version": str(version)}}
        )

    def _read(self, heard: Heard, accessor: str) -> _Answer:
        creds = self.creds.get(heard.path)
        if creds:
            return self._issued(heard.path, creds, accessor)
        mount, version = self.mount_of(heard.path)
        if version == 1:
            return _Answer(data=self.kv1(heard.path))
        return _Answer(data=self.kv2(mount, heard.path))

    def _issued(self, path: str, creds: Creds, accessor: str) -> _Answer:
        lease, fields = self.issue(path, creds, accessor)
        return _Answer(fields, lease=(lease.id, creds.ttl, creds.renewable))


_LOGINS: dict[str, Callable[[FakeVault, Heard], _Answer]] = {"/login": FakeVault._login}
_PATHS: dict[str, Callable[[FakeVault, Heard, str], _Answer | None]] = {
    "auth/token/": FakeVault._token_self,
    "sys/leases/": FakeVault._lease,
    "sys/internal/ui/mounts/": FakeVault._mount,
}
