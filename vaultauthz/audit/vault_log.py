"""Vault's and OpenBao's audit log: what one of its entries says about a call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vaultauthz.audit.files import Log, LogError, record_of

# Of the two entries for each call the one that has the answer. Without a space, as Vault writes it; a log
# that something else wrote anew may have one.
_RESPONSE: Final = (b'"type":"response"', b'"type": "response"')
_OURS: Final = b'Z","seq":'  # after the time


@dataclass(frozen=True, slots=True)
class Call:
    """A call that Vault answered. Values that Vault shows as fingerprints only are left so."""

    id: str
    time: str
    operation: str
    path: str
    namespace: str
    address: str  # where it came from
    display_name: str  # of the token: method and role, as approle or kubernetes-shop-gateway
    role: str
    entity: str
    policies: tuple[str, ...]
    accessor: str  # of the token that it was made with, or that it made
    lease_id: str  # that it issued
    error: str
    is_login: bool


class VaultLog:
    """The answered calls in ``log``; ``begins`` and ``ends`` are the times of its first and last entry."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.begins = self.ends = ""

    def calls(self) -> Iterator[Call]:
        """Each of them, once.

        Raises:
            LogError: a file cannot be read, or it holds no audit log of Vault.
        """
        some = False
        for line in self.log:
            if _OURS in line[:60]:
                path, _ = self.log.place(self.log.count)
                raise LogError(
                    f"{path}: this is our audit log, not Vault's; name it before --vault"
                )
            if not any(mark in line for mark in _RESPONSE):
                continue
            entry = record_of(line)
            if entry is None or not isinstance(entry.get("request"), dict):
                continue
            some = True
            call = _call(entry)
            self.begins = min(self.begins or call.time, call.time)
            self.ends = max(self.ends, call.time)
            yield call
        if not some:
            names = ", ".join(map(str, self.log.paths))
            raise LogError(
                f"{names}: no answered call in there; --vault wants the file of a `file` audit device "
                "of Vault, in JSON"
            )


def _call(entry: dict[str, Any]) -> Call:
    request, answer = _part(entry, "request"), _part(entry, "response")
    given = _part(answer, "auth")
    auth = given or _part(entry, "auth")
    policies = auth.get("token_policies") or auth.get("policies") or ()
    return Call(
        _text(request, "id"),
        _text(entry, "time"),
        _text(request, "operation"),
        _text(request, "path"),
        _text(_part(request, "namespace"), "path"),
        _text(request, "remote_address"),
        _text(auth, "display_name"),
        _role(_part(auth, "metadata")),
        _text(auth, "entity_id"),
        tuple(str(one) for one in policies if one != "default"),
        _text(auth, "accessor"),
        _text(_part(answer, "secret"), "lease_id"),
        _text(entry, "error"),
        is_login=bool(given),
    )


def _role(metadata: dict[str, Any]) -> str:
    """As the methods name it: AppRole, Kubernetes and JWT, certificates, LDAP and userpass."""
    for key in ("role_name", "role", "cert_name", "username"):
        if found := _text(metadata, key):
            return found
    return ""


def _part(whole: dict[str, Any], key: str) -> dict[str, Any]:
    found = whole.get(key)
    return found if isinstance(found, dict) else {}


def _text(whole: dict[str, Any], key: str) -> str:
    found = whole.get(key)
    return found if isinstance(found, str) else ""
