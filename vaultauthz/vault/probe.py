"""What `doctor` and `policy` ask of Vault. It changes nothing unless told to write or delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from vaultauthz.config.values import Vault
from vaultauthz.core.grant import NOT_VAULT
from vaultauthz.core.secret import Secret
from vaultauthz.vault.calls import HEALTH, STATE_IN_THE_BODY, Calls
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.mounts import MOUNT, Mount, text_of
from vaultauthz.vault.transport import Answer, url

_PATHS_AT_ONCE = 100  # of one capabilities call; an answer of ours holds 1 MiB at most


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """The state of the node at ``address``. ``server_time`` is in Unix seconds."""

    initialized: bool
    sealed: bool
    standby: bool
    version: str
    server_time: float | None
    cluster_name: str
    address: str


@dataclass(frozen=True, slots=True)
class TokenLookup:
    """What Vault knows of a token; durations in seconds.

    ``ttl`` is infinite for a token without an end. Of the others, 0 is "none".
    """

    policies: tuple[str, ...]
    ttl: float
    creation_ttl: float
    explicit_max_ttl: float
    renewable: bool
    type: str  # service | batch
    accessor: str
    period: float
    entity_id: str
    path: str  # of the login that made it, such as auth/approle/login


class Probe:
    """Questions to one Vault, in its namespace. Safe for threads; keeps no token.

    Every method raises ``VaultError`` and nothing else.
    """

    def __init__(self, vault: Vault, clock: Callable[[], float]) -> None:
        """``vault`` is as the stage sees it; ``clock`` bounds each call."""
        self._calls = Calls(vault, clock)
        # Vault answers for its health outside of namespaces only.
        self._node = Calls(replace(vault, namespace=""), clock)

    def health(self) -> NodeHealth:
        """The state of the node that answers, whatever its state is; without a token."""
        transport = self._node.transport(Call.OTHER)
        answer = transport.get(HEALTH, params=STATE_IN_THE_BODY)
        if not isinstance(answer.get("sealed"), bool):
            raise VaultError(NOT_VAULT)
        return NodeHealth(
            initialized=answer.get("initialized") is True,
            sealed=answer["sealed"],
            standby=answer.get("standby") is True,
            version=text_of(answer, "version"),
            server_time=_number(answer, "server_time_utc"),
            cluster_name=text_of(answer, "cluster_name"),
            address=transport.address,
        )

    def token(self, token: Secret) -> TokenLookup:
        """What Vault knows of ``token`` (``auth/token/lookup-self``)."""
        data = _data(self.read(token, "auth/token/lookup-self"))
        ends = data.get("expire_time") is not None
        return TokenLookup(
            policies=_texts(data, "policies") + _texts(data, "identity_policies"),
            ttl=_number(data, "ttl") or 0.0 if ends else inf,
            creation_ttl=_number(data, "creation_ttl") or 0.0,
            explicit_max_ttl=_number(data, "explicit_max_ttl") or 0.0,
            renewable=data.get("renewable") is True,
            type=text_of(data, "type"),
            accessor=text_of(data, "accessor"),
            period=_number(data, "period") or 0.0,
            entity_id=text_of(data, "entity_id"),
            path=text_of(data, "path"),
        )

    def capabilities(self, token: Secret, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """What ``token`` may do at each path: create, read, update, delete, list, sudo, deny."""
        found: dict[str, tuple[str, ...]] = {}
        asked = list(dict.fromkeys(paths))
        for start in range(0, len(asked), _PATHS_AT_ONCE):
            part = asked[start : start + _PATHS_AT_ONCE]
            data = _data(self.write(token, "sys/capabilities-self", {"paths": part}))
            for path in part:
                if not isinstance(data.get(path), list):
                    raise VaultError(NOT_VAULT)
                found[path] = _texts(data, path)
        return found

    def mount(self, token: Secret, path: str) -> Mount:
        """The engine that ``path`` belongs to; a token with any right on it may ask."""
        found = Mount.of_answer(self.read(token, f"{MOUNT}/{path}"))
        if not found.path or not found.type:
            raise VaultError(NOT_VAULT)
        return found

    def read(self, token: Secret, path: str) -> Answer:
        """GET ``path`` (without ``/v1/``): the whole answer."""
        with self._calls.carrying(token, Call.READ) as transport:
            answer: Answer = transport.get(url(path))
            return answer

    def write(self, token: Secret, path: str, body: Mapping[str, Any]) -> Answer:
        """POST ``body`` to ``path``: the whole answer, {} for an empty one."""
        with self._calls.carrying(token, Call.OTHER) as transport:
            answer: Answer = transport.post(url(path), json=dict(body))
            return answer

    def delete(self, token: Secret, path: str) -> Answer:
        """DELETE ``path``: the whole answer, {} for an empty one."""
        with self._calls.carrying(token, Call.OTHER) as transport:
            answer: Answer = transport.delete(url(path))
            return answer


def _data(answer: Answer) -> dict[str, Any]:
    data = answer.get("data")
    if not isinstance(data, dict):
        raise VaultError(NOT_VAULT)
    return data


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key)
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _number(data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)
