"""What a chaos run counts: whose a credential is, its order, and requests that were refused."""

from __future__ import annotations

import json
from math import inf

from tests.chaos.judge import Window
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Place, places
from tests.chaos.record import Record
from tests.chaos.services import Use
from tests.chaos.traffic import Asked
from tests.integration.faults.vault_proxy import Exchange, Reply

PLACES = {place.name: place for place in places("ext_authz")}
ORDERS, OTHER, DESK, GEO = (
    PLACES[name] for name in ("orders-blue", "orders-green", "desk-blue", "geo-blue")
)


def _exchange(
    path: str, answer: dict[str, object] | None, *, at: float, token: str = "t", body: str = ""
) -> Exchange:
    exchange = Exchange("GET", path, {"x-vault-token": token}, body.encode())
    exchange.at, exchange.replied_at, exchange.sent = at, at + 0.1, True
    exchange.reply = Reply(200, json.dumps(answer).encode()) if answer is not None else None
    return exchange


def _record(*issued: tuple[Place, str, float]) -> Record:
    ledger = Ledger(PLACES.values())
    for place, user, at in issued:
        data = {"username": user, "password": "p"}
        answer = {"lease_id": f"{user}/1", "lease_duration": 8, "data": data, "request_id": user}
        path = f"/v1/database/creds/{place.name}"
        ledger.heard(_exchange(path, answer, at=at), passed=True)
    return Record("ext_authz", ledger, 0.0)


def _uses(
    record: Record, place: Place, user: str, at: float, *, caller: str = "", n: str = "1"
) -> Record:
    record.sent(n, at, caller)
    record.use(Use(place, n, user, at + 0.01, at + 0.02, good=True))
    record.settle(inf)
    return record


def test_a_credential_at_its_own_service_is_good() -> None:
    assert not _uses(_record((ORDERS, "v-a", 100)), ORDERS, "v-a", 103).found.counts


def test_a_credential_at_another_service_is_anothers() -> None:
    record = _uses(_record((OTHER, "v-a", 100)), ORDERS, "v-a", 103)
    assert record.found.counts == {"anothers": 1}


def test_a_credential_that_vault_did_not_give_is_anothers() -> None:
    assert _uses(_record(), ORDERS, "own", 103).found.counts == {"anothers": 1}


def test_a_callers_own_credential_is_for_no_other_caller() -> None:
    record = _uses(_record((DESK, "v-a", 100)), DESK, "v-a", 103, caller="a")
    assert not record.found.counts
    assert _uses(record, DESK, "v-a", 103, caller="b", n="2").found.counts == {"anothers": 1}


def test_a_credential_past_its_time_by_vaults_word_is_dead() -> None:
    assert _uses(_record((ORDERS, "v-a", 100)), ORDERS, "v-a", 108.2).found.counts == {"dead": 1}


def test_a_renewal_moves_the_end_also_if_its_answer_did_not_get_through() -> None:
    record = _record((ORDERS, "v-a", 100))
    body = json.dumps({"lease_id": "v-a/1"})
    answer = {"lease_duration": 8, "request_id": "r"}
    path = "/v1/sys/leases/renew"
    record.ledger.heard(_exchange(path, answer, at=105, body=body), passed=False)
    assert not _uses(record, ORDERS, "v-a", 112).found.counts


def test_after_a_renewal_that_vault_never_answered_its_end_is_not_known() -> None:
    record = _record((ORDERS, "v-a", 100))
    body = json.dumps({"lease_id": "v-a/1"})
    record.ledger.heard(_exchange("/v1/sys/leases/renew", None, at=105, body=body), passed=False)
    assert not _uses(record, ORDERS, "v-a", 112).found.counts


def test_a_lease_ends_with_its_token() -> None:
    record = _record((ORDERS, "v-a", 100))
    record.ledger.heard(_exchange("/v1/auth/token/revoke-self", {}, at=102), passed=True)
    assert _uses(record, ORDERS, "v-a", 103).found.counts == {"dead": 1}


def test_an_older_version_never_comes_again() -> None:
    record = _record()
    for number in (1, 2):
        record.ledger.new_key(GEO, f"geo-blue.{number}.x", lambda: None)
    for number, at, n in ((1, 10.0, "1"), (2, 11.0, "2"), (2, 12.0, "3")):
        _uses(record, GEO, f"geo-blue.{number}.x", at, n=n)
    assert not record.found.counts
    assert _uses(record, GEO, "geo-blue.1.x", 13.0, n="4").found.counts == {"dead": 1}


def _asked(record: Record, status: int, at: float, reason: str = "") -> Record:
    record.asked(Asked("1", ORDERS, "a", at, at + 0.1, status, reason))
    record.settle(inf)
    return record


def test_a_refusal_needs_a_fault() -> None:
    record = _record()
    record.windows.append(Window(100, 110, 5, frozenset({"bao"}), "1 bao.kill"))
    assert not _asked(record, 503, 114.9, "no_credential").found.counts
    assert record.excused == {"1 bao.kill": 1}
    assert _asked(record, 503, 115.1, "no_credential").found.counts == {"refused": 1}


def test_a_caller_who_may_is_never_denied() -> None:
    record = _record()
    record.windows.append(Window(100, 110, 5, frozenset({"bao"}), "1 bao.kill"))
    assert _asked(record, 403, 105, "caller_denied").found.counts == {"refused": 1}


def test_a_refusal_while_the_machine_stood_still_is_counted_by_itself() -> None:
    record = _record()
    record.late.append((101.0, 2.0))
    assert not _asked(record, 503, 100).found.counts
    assert record.counts["starved"] == 1


def test_a_service_may_take_longer_than_the_client() -> None:
    """When the gateway is killed, the client knows at once, and the service is asked about later."""
    record = _record((DESK, "v-a", 100))
    record.sent("1", 103, "a")
    record.asked(Asked("1", DESK, "a", 103, 103.1, 200, ""))
    record.settle(104)
    record.use(Use(DESK, "1", "v-a", 103.1, 108, good=True))
    record.settle(109)
    assert not _uses(record, DESK, "v-a", 104, caller="a", n="2").found.counts
