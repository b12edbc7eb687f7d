"""Vault's and OpenBao's audit log: what one of its entries says about a call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from vaultauthz.audit.files import Log, LogError, part_of, record_of, text_of
from vaultauthz.audit.wanted import time_of

# Of the two entries for each call the one that has the answer. Without a space, as Vault writes it; a log
# that something else wrote anew may have one.
_RESPONSE: Final = (b'"type":"response"', b'"type": "response"')
_NO_TIME: Final = 1  # the year of a time that Go has not set
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
            if not entry or entry.get("type") != "response" or not part_of(entry, "request"):
                continue
            some = True
            call = _call(entry)
            when = time_of(entry)
            if when and when.year > _NO_TIME:
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
    request, answer = part_of(entry, "request"), part_of(entry, "response")
    auth = part_of(answer, "auth") or part_of(entry, "auth")
    return Call(
        text_of(request, "id"),
        text_of(entry, "time"),
        text_of(request, "operation"),
        text_of(request, "path"),
        text_of(part_of(request, "namespace"), "path"),
        text_of(request, "remote_address"),
        text_of(auth, "display_name"),
        _role(part_of(auth, "metadata")),
        text_of(auth, "entity_id"),
        _policies(auth),
        sys.intern(text_of(auth, "accessor")),
        text_of(part_of(answer, "secret"), "lease_id"),
    )


def _policies(auth: dict[str, Any]) -> tuple[str, ...]:
    """Those of the token and of its identity, but for `default`, which nearly all have."""
    found: list[object] = []
    for key in ("token_policies", "identity_policies", "policies"):
        named = auth.get(key)
        found += named if isinstance(named, list) else []
    return tuple(dict.fromkeys(one for one in found if isinstance(one, str) and one != "default"))


def _role(metadata: dict[str, Any]) -> str:
    """As the methods name it: AppRole, Kubernetes and JWT, certificates, LDAP and userpass."""
    for key in ("role_name", "role", "cert_name", "username"):
        if found := text_of(metadata, key):
            return found
    return ""
