"""What the fake Vault knows: its roles, tokens, leases and secrets, and how each ends."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any


class DeniedError(Exception):
    """403. ``dead``: the token does not exist; else the policy says no."""

    def __init__(self, *, dead: bool) -> None:
        super().__init__()
        self.dead = dead


class RefusedError(Exception):
    """Any other refusal: a status, Vault's texts, and what else the body has."""

    def __init__(self, status: int, *texts: str, more: Mapping[str, Any] | None = None) -> None:
        super().__init__(status, *texts)
        self.status = status
        self.texts = texts
        self.more = more or {}


@dataclass
class Role:
    """What a login is let in by, and the life of the token it gets (0: without an end)."""

    role: str
    secret: str
    token_ttl: float = 3600.0
    token_max_ttl: float = 86400.0
    renewable: bool = True


@dataclass
class Token:
    """A login token; ``ends_at`` is ``time.monotonic()``."""

    id: str
    accessor: str
    ttl: float
    ends_at: float
    last_at: float
    renewable: bool = True

    def as_auth(self) -> dict[str, Any]:
        """The ``auth`` of a login or a renewal."""
        left = 0 if self.ends_at == inf else self.ends_at - time.monotonic() + 0.01
        return {
            "client_token": self.id,
            "accessor": self.accessor,
            "lease_duration": int(left),
            "renewable": self.renewable,
            "token_type": "service" if self.accessor else "batch",
            "policies": ["gateway"],
        }

    def as_data(self) -> dict[str, Any]:
        """The ``data`` of lookup-self."""
        endless = self.ends_at == inf
        ttl = 0 if endless else int(self.ends_at - time.monotonic())
        when = None if endless else "2030-01-01T00:00:00Z"
        return {"id": self.id, "accessor": self.accessor, "ttl": ttl, "expire_time": when}


@dataclass
class Creds:
    """A path that issues logins; a TTL below a second is answered as 0, as Vault would."""

    ttl: float
    max_ttl: float = 86400.0
    renewable: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)  # besides username and password


@dataclass
class Lease:
    """A lease and the login it is for."""

    id: str
    username: str
    accessor: str
    ends_at: float
    last_at: float


@dataclass(frozen=True)
class Edition:
    """A version of a KV v2 secret; ``fields`` is None when it was deleted."""

    fields: Mapping[str, Any] | None
    created: str
    destroyed: bool = False
    deletion_time: str = ""


class State:
    """Setters and getters are safe for threads; all times are ``time.monotonic()``."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.roles: dict[tuple[str, str], Role] = {}  # by mount and role
        self.tokens: dict[str, Token] = {}  # by accessor
        self.leases: dict[str, Lease] = {}
        self.creds: dict[str, Creds] = {}
        self.issued: list[str] = []  # every username ever
        self._mounts = {"secret": 2, "kv1": 1}
        self._kv: dict[str, list[Edition]] = {}
        self._stale: dict[str, int] = {}  # KV path → the version that a standby answers
        self._denied: set[str] = set()
        self._numbers = itertools.count(1)

    # --- setters ---

    def set_approle(
        self,
        role_id: str = "gateway",
        secret_id: str = "s3cr3t-id",
        *,
        token_ttl: float = 3600.0,
        token_max_ttl: float = 86400.0,
        renewable: bool = True,
        mount: str = "approle",
    ) -> None:
        """Let this AppRole in. Other logins of the mount answer 400."""
        with self.lock:
            role = Role(role_id, secret_id, token_ttl, token_max_ttl, renewable)
            self.roles[mount, role_id] = role

    def add_token(self, token: str, *, ttl: float = 3600.0, accessor: str | None = None) -> str:
        """A token that another program got; ``ttl`` 0: without an end. Its accessor."""
        with self.lock:
            name = self._next("accessor") if accessor is None else accessor
            ends_at = time.monotonic() + ttl if ttl else inf
            self.tokens[name] = Token(token, name, ttl, ends_at, inf)
            return name

    def set_creds(
        self,
        path: str,
        *,
        ttl: float = 3600.0,
        max_ttl: float = 86400.0,
        renewable: bool = True,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """``path`` issues logins with these leases."""
        with self.lock:
            self.creds[path] = Creds(ttl, max_ttl, renewable, fields or {})

    def remove_creds(self, path: str) -> None:
        """The role is deleted: issuing is refused, its leases stay."""
        with self.lock:
            del self.creds[path]

    def set_mount(self, mount: str, version: int) -> None:
        """A KV engine at this mount."""
        with self.lock:
            self._mounts[mount] = version

    def put_kv(self, path: str, fields: Mapping[str, Any] | None, **more: Any) -> int:
        """A new version of a secret (``secret/name``, ``kv1/name``); None: deleted."""
        with self.lock:
            editions = self._kv.setdefault(path, [])
            created = f"2026-01-01T00:00:{len(editions):02d}.123456789Z"
            editions.append(Edition(fields, created, **more))
            return len(editions)

    def delete_kv(self, path: str) -> None:
        """The newest version is deleted (soft), as ``vault kv delete`` does."""
        with self.lock:
            last = self._kv[path][-1]
            self._kv[path][-1] = Edition(None, last.created, deletion_time="2026-01-02T00:00:00.1Z")

    def serve_stale(self, path: str, version: int | None) -> None:
        """Answer this version, as a standby that lags; None: the newest again."""
        with self.lock:
            if version is None:
                self._stale.pop(path, None)
            else:
                self._stale[path] = version

    def deny(self, start: str) -> None:
        """No policy allows the paths that start so."""
        with self.lock:
            self._denied.add(start)

    def allow(self, start: str) -> None:
        """Take ``deny`` back."""
        with self.lock:
            self._denied.discard(start)

    def kill_token(self, accessor: str) -> None:
        """Revoke a token; its leases go along."""
        with self.lock:
            self.tokens.pop(accessor, None)
            for lease in tuple(self.leases.values()):
                if lease.accessor == accessor:
                    del self.leases[lease.id]

    def kill_lease(self, lease_id: str) -> None:
        """Revoke a lease."""
        with self.lock:
            self.leases.pop(lease_id, None)

    # --- getters ---

    def live_tokens(self) -> list[Token]:
        """The tokens that exist now."""
        with self.lock:
            self._reap()
            return list(self.tokens.values())

    def live_leases(self) -> list[Lease]:
        """The leases that exist now."""
        with self.lock:
            self._reap()
            return list(self.leases.values())

    def is_alive(self, username: str) -> bool:
        """Whether a service would let this login in now."""
        return any(lease.username == username for lease in self.live_leases())

    # --- what the protocol does; under the lock ---

    def request_id(self) -> str:
        return self._next("request")

    def _next(self, what: str) -> str:
        return f"{what}-{next(self._numbers):06d}"

    def _reap(self) -> None:
        now = time.monotonic()
        for token in tuple(self.tokens.values()):
            if token.ends_at <= now:
                self.kill_token(token.accessor)
        for lease in tuple(self.leases.values()):
            if lease.ends_at <= now:
                del self.leases[lease.id]

    def token_of(self, secret: str) -> Token:
        """The token with this secret, if it lives."""
        self._reap()
        for token in self.tokens.values():
            if token.id == secret:
                return token
        raise DeniedError(dead=True)

    def check_policy(self, path: str) -> None:
        if any(path.startswith(start) for start in self._denied):
            raise DeniedError(dead=False)

    def log_in(self, mount: str, body: Mapping[str, Any]) -> Token:
        name = str(body.get("role_id", body.get("role", "")))
        role = self.roles.get((mount, name))
        if role is None or role.secret != body.get("secret_id", body.get("jwt")):
            if "jwt" in body:
                raise DeniedError(dead=True)
            raise RefusedError(400, "invalid role or secret ID")
        now = time.monotonic()
        ends_at = now + role.token_ttl if role.token_ttl else inf
        accessor = self._next("accessor")
        token = Token(
            f"hvs.T0KEN-{accessor}",
            accessor,
            role.token_ttl,
            ends_at,
            now + role.token_max_ttl,
            role.renewable,
        )
        self.tokens[accessor] = token
        return token

    def renew_token(self, token: Token, increment: object) -> None:
        asked = float(str(increment or "0s").removesuffix("s")) or token.ttl
        token.ends_at = min(time.monotonic() + asked, token.last_at)

    def issue(self, path: str, creds: Creds, accessor: str) -> tuple[Lease, Mapping[str, Any]]:
        now, number = time.monotonic(), self._next("lease")
        username = f"v-{number}"
        ends_at = now + min(creds.ttl, creds.max_ttl)
        lease = Lease(f"{path}/{number}", username, accessor, ends_at, now + creds.max_ttl)
        self.leases[lease.id] = lease
        self.issued.append(username)
        fields = {"username": username, "password": f"p4ssw0rd-{number}", **creds.fields}
        return lease, {name: value for name, value in fields.items() if value is not ...}

    def renew_lease(self, lease_id: str, increment: float) -> Lease:
        lease = self.leases.get(lease_id)
        if lease is None:
            raise RefusedError(400, "lease not found")
        if lease.last_at <= time.monotonic():
            raise RefusedError(400, "past the max TTL, cannot renew")
        lease.ends_at = min(time.monotonic() + increment, lease.last_at)
        return lease

    def mount_of(self, path: str) -> tuple[str, int]:
        mount = path.split("/", 1)[0]
        if mount not in self._mounts:
            raise DeniedError(
                dead=False
            )  # Vault does not tell what is not there from what is not ours
        return mount, self._mounts[mount]

    def kv1(self, path: str) -> Mapping[str, Any]:
        editions = self._kv.get(path)
        if not editions or editions[-1].fields is None:
            raise RefusedError(404)
        return editions[-1].fields

    def kv2(self, mount: str, path: str) -> Mapping[str, Any]:
        name = f"{mount}/{path.removeprefix(f'{mount}/data/')}"
        editions = self._kv.get(name)
        if not editions or not path.startswith(f"{mount}/data/"):
            raise RefusedError(404)
        number = self._stale.get(name, len(editions))
        edition = editions[number - 1]
        metadata = {
            "created_time": edition.created,
            "custom_metadata": None,
            "deletion_time": edition.deletion_time,
            "destroyed": edition.destroyed,
            "version": number,
        }
        data = {"data": edition.fields, "metadata": metadata}
        if edition.fields is None:
            raise RefusedError(404, more={"data": data})
        return data
