"""Upstreams and their credentials without a Vault, for what hands them to Envoy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vaultauthz.broker import Former
from vaultauthz.config.forms.header import Header
from vaultauthz.config.values import KvSecret, Upstream
from vaultauthz.core.callers import Callers, Rule
from vaultauthz.core.credential import Credential, Login, Slot
from vaultauthz.core.injection import Injection, render
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template

STAGE = "production"
KEY = Header("x-api-key", Template.parse("{key}"))
ANY = Callers(None)
RULES = Callers((Rule(methods=frozenset({"GET"})),))


class World:
    """A clock that the test moves, and the engine as SDS sees it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.login = Login(1000.0)
        self._places: dict[tuple[str, str], tuple[Upstream, Slot]] = {}
        self.formers: dict[tuple[str, str], Former] = {}
        self._numbers = itertools.count(1)

    def clock(self) -> float:
        """The keeper's clock."""
        return self.now

    def shared(self, stage: str, upstream: str) -> tuple[Upstream, Slot] | None:
        """As the engine."""
        return self._places.get((stage, upstream))

    def former(self, stage: str, upstream: str) -> Former | None:
        """As the engine."""
        return self.formers.get((stage, upstream))

    def add(self, name: str, inject: Iterable[Injection] = (KEY,), callers: Callers = ANY) -> None:
        """An upstream without a credential yet."""
        secrets = {STAGE: KvSecret(f"secret/{name}")}
        upstream = Upstream(name, (STAGE,), secrets, tuple(inject), callers)
        self._places[STAGE, name] = (upstream, Slot())

    def reload(self, name: str, **changes: Any) -> None:
        """Another configuration of the upstream; its slot stays."""
        upstream, slot = self._places[STAGE, name]
        self._places[STAGE, name] = (replace(upstream, **changes), slot)

    def drop(self, name: str) -> None:
        """A configuration without the upstream."""
        del self._places[STAGE, name]

    def give(self, name: str, key: str, lasts: float = 100.0, **fields: str) -> Credential:
        """A credential arrives: ``key`` and other fields of the secret."""
        upstream, slot = self._places[STAGE, name]
        values = {field: Secret(value) for field, value in {"key": key, **fields}.items()}
        number = next(self._numbers)
        slot.credential = Credential(
            render(upstream.inject, values, upstream.strip),
            f"id{number}",
            f"lease/{number}",
            self.now + lasts,
            self.login,
        )
        return slot.credential

    def renew(self, name: str, lasts: float) -> None:
        """The same credential, for longer."""
        slot = self._places[STAGE, name][1]
        assert slot.credential
        slot.credential = replace(slot.credential, ends_at=self.now + lasts)

    def withdraw(self, name: str) -> None:
        """There is no credential any more."""
        self._places[STAGE, name][1].credential = None
