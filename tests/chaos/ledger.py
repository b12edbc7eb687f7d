"""What Vault has said of each credential, by its own answers, and what operators did to them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from tests.chaos.bounds import Cause
from tests.chaos.judge import End, Life, never
from tests.chaos.plan import Place
from tests.integration.faults.vault_proxy import Exchange, Kind, Reply, VaultProxy

# Vault answers TTLs in whole seconds.
_ROUNDING = 1.0
_CREDS, _KV = "/v1/database/creds/", "/v1/secret/data/"


@dataclass(frozen=True)
class Answered:
    """A call that issued a lease: when it came and was over, and whether its answer was passed on as it was."""

    at: float
    over: float
    passed: bool


class Ledger:
    """The lives of all credentials, by user or by key. Safe for threads."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = {place.name: place for place in places}
        self.secrets: set[str] = set()  # what no log may hold
        self.issued: dict[str, Answered] = {}  # by Vault's id of the request
        self._lock = threading.Lock()
        self._lives: dict[str, Life] = {}
        self._user_of: dict[str, str] = {}  # by lease
        self._taken_with: dict[str, str] = {}  # the token, by user
        self._users_of: dict[str, list[str]] = {}  # by token
        self._token_of: dict[str, str] = {}  # by accessor
        self._token_ttl: dict[str, float] = {}
        self._token_end: dict[str, End] = {}

    # --- what is known ---

    def life(self, credential: str) -> Life | None:
        """What is known of it now."""
        with self._lock:
            life = self._lives.get(credential)
            return life and replace(life, ends=[*life.ends, *self._of_token(credential)])

    def owned_by(self, credential: str, caller: str) -> str:
        """Whose it is with `per: caller`: the first who was seen with it."""
        with self._lock:
            life = self._lives[credential]
            life.caller = life.caller or caller
            return life.caller

    @property
    def minted(self) -> int:
        """How many database users Vault has made."""
        return len(self._user_of)

    def _of_token(self, user: str) -> list[End]:
        end = self._token_end.get(self._taken_with.get(user, ""))
        return [end] if end else []

    # --- Vault's own word ---

    def heard(self, exchange: Exchange, *, passed: bool) -> None:
        """Take in a call that is over; ``passed``: its answer got through as it was."""
        if not exchange.sent:
            return
        with self._lock:
            document = _document(exchange.reply)
            if exchange.kind is Kind.ISSUE and document.get("request_id"):
                now = time.monotonic()
                self.issued[str(document["request_id"])] = Answered(exchange.at, now, passed)
            hear = _HEAR.get(exchange.kind)
            if hear and (exchange.reply is None or exchange.reply.status < 300):
                hear(self, exchange, document)

    def _login(self, exchange: Exchange, document: dict[str, Any]) -> None:
        if not document:
            return
        auth = document["auth"]
        token = str(auth["client_token"])
        self.secrets.add(token)
        self._token_of[auth["accessor"]] = token
        self._token_ttl[token] = auth["lease_duration"]
        self._token_end[token] = _end(exchange, auth["lease_duration"])

    def _token(self, exchange: Exchange, document: dict[str, Any]) -> None:
        token = exchange.headers.get("x-vault-token", "")
        if token in self._token_end:
            ttl = document["auth"]["lease_duration"] if document else inf
            self._token_end[token] = _end(exchange, ttl)

    def _issue(self, exchange: Exchange, document: dict[str, Any]) -> None:
        if not document:
            return
        data, place = document["data"], self.places[exchange.path.removeprefix(_CREDS)]
        self.secrets.add(data["password"])
        self._user_of[document["lease_id"]] = data["username"]
        token = exchange.headers.get("x-vault-token", "")
        self._users_of.setdefault(token, []).append(data["username"])
        self._taken_with[data["username"]] = token
        end = _end(exchange, document["lease_duration"])
        self._lives[data["username"]] = Life(place.name, place.ttl, end)

    def _renew(self, exchange: Exchange, document: dict[str, Any]) -> None:
        user = self._user_of.get(json.loads(exchange.body or b"{}").get("lease_id", ""))
        if user:
            self._lives[user].time = _end(exchange, document["lease_duration"] if document else inf)

    def _revoke(self, exchange: Exchange, document: dict[str, Any]) -> None:
        latest = exchange.replied_at if exchange.reply else inf
        end = End(Cause.OURS, exchange.at, latest)
        if exchange.path.endswith("revoke-self"):
            users = self._users_of.get(exchange.headers.get("x-vault-token", ""), [])
        else:
            lease = json.loads(exchange.body or b"{}").get("lease_id", "")
            users = [self._user_of[lease]] if lease in self._user_of else []
        for user in users:
            self._lives[user].ends.append(end)

    def _read(self, exchange: Exchange, document: dict[str, Any]) -> None:
        key = ((document.get("data") or {}).get("data") or {}).get("api_key", "")
        life = self._lives.get(key)
        if life:
            life.time = _end(exchange, self.places[life.place].most)

    # --- an operator's word ---

    def new_key(self, place: Place, key: str, write: Callable[[], object]) -> None:
        """``write`` it as the place's secret; that ends the one before."""
        self.secrets.add(key)
        with self._lock:
            before = [
                life
                for life in self._lives.values()
                if life.place == place.name and all(e.cause is not Cause.CHANGED for e in life.ends)
            ]
            self._lives[key] = Life(place.name, place.ttl, never())
        self._ended(before, Cause.CHANGED, write)

    def deletes_key(self, place: str, delete: Callable[[], object]) -> None:
        """``delete`` the place's secret."""
        with self._lock:
            lives = [life for life in self._lives.values() if life.place == place]
        self._ended(lives, Cause.DELETED, delete)

    def revokes(self, users: Iterable[str], cause: Cause, revoke: Callable[[], object]) -> None:
        """``revoke`` what is behind these users."""
        with self._lock:
            lives = [self._lives[user] for user in users if user in self._lives]
        self._ended(lives, cause, revoke)

    def revokes_token(self, accessor: str, revoke: Callable[[], object]) -> None:
        """``revoke`` a token, and with it what is leased with it, meanwhile as well."""
        begun = time.monotonic()
        before = self.users_of(accessor)
        self.revokes(before, Cause.TOKEN, revoke)
        gone = End(Cause.TOKEN, begun, time.monotonic())
        meanwhile = set(self.users_of(accessor)).difference(before)
        with self._lock:
            for user in meanwhile & self._lives.keys():
                self._lives[user].ends.append(gone)

    def _ended(self, lives: Iterable[Life], cause: Cause, act: Callable[[], object]) -> None:
        begun = time.monotonic()
        unsure = End(cause, begun, inf)
        with self._lock:
            for life in lives:
                life.ends.append(unsure)
        act()
        sure = End(cause, begun, time.monotonic())
        with self._lock:
            for life in lives:
                life.ends[life.ends.index(unsure)] = sure

    def user_of(self, lease: str) -> str:
        """The database user behind a lease, "" if nobody was told of one."""
        with self._lock:
            return self._user_of.get(lease, "")

    def users_of(self, accessor: str) -> list[str]:
        """The database users that hang on a token."""
        with self._lock:
            return list(self._users_of.get(self._token_of.get(accessor, ""), []))


_HEAR: dict[Kind, Callable[[Ledger, Exchange, dict[str, Any]], None]] = {
    Kind.LOGIN: Ledger._login,
    Kind.TOKEN: Ledger._token,
    Kind.ISSUE: Ledger._issue,
    Kind.RENEW: Ledger._renew,
    Kind.REVOKE: Ledger._revoke,
    Kind.READ: Ledger._read,
}


def _end(exchange: Exchange, ttl: float) -> End:
    """By Vault's word: counted from its answer, so that it is never too early."""
    return End(
        Cause.TIME,
        exchange.at + ttl - _ROUNDING if ttl < inf else exchange.at,
        exchange.replied_at + ttl,
    )


def _document(reply: Reply | None) -> dict[str, Any]:
    try:
        document = json.loads(reply.body) if reply else {}
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


class Ears(VaultProxy):
    """The proxy before Vault, which tells the ledger of each call."""

    def __init__(self, bao_port: int, ledger: Ledger) -> None:
        super().__init__(bao_port, lambda *_: None)
        self._ledger = ledger

    def handle(self, exchange: Exchange) -> Reply | None:
        """As the proxy's own."""
        reply = super().handle(exchange)
        self._ledger.heard(exchange, passed=reply is not None and reply is exchange.reply)
        return reply
