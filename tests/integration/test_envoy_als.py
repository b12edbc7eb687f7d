"""Envoy's own access logs at our door: audit lines, versions, and 401s that lead to a rotation."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import pytest

from tests.integration.als_bed import GAP, STAGE, AlsBed
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for

pytestmark = pytest.mark.integration

ME = "127.0.0.1"
HELD = 5.0  # seconds for which each version is in use; near a change, for 3 s, it is in doubt
VERSIONS = 3  # besides the first


@pytest.fixture(scope="module")
def bed(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, postgres: Postgres
) -> Iterator[AlsBed]:
    """One of everything for all tests here; each has upstreams of its own."""
    with AlsBed(tmp_path_factory.mktemp("als"), bao, postgres) as made:
        yield made


def grow_old() -> None:
    """Until a 401 may lead to a rotation: not right after the credential came."""
    time.sleep(GAP)


def test_a_lost_login_heals_at_once(bed: AlsBed) -> None:
    """A database login that somebody dropped: its 401 brings the next one, an hour before the renewal."""
    status, body = bed.get("/reports")
    assert status == 200
    grow_old()
    with bed.postgres.connect(bed.postgres.superuser, bed.postgres.password) as session:
        user = body["current_user"]
        session.execute(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')
    lost = bed.credential_id("reports")
    assert bed.get("/reports")[0] == 401
    assert wait_for(lambda: bed.get("/reports")[0] == 200, PATIENCE)
    (line,) = bed.audited("credential.rejected", upstream="reports")
    assert line["credential_id"] == lost
    assert line["reason"] == "the upstream answered 401"
    (rotated,) = bed.audited("lease.rotated", upstream="reports")
    assert rotated["seq"] > line["seq"]
    assert bed.count("vaultauthz_rejections_total", upstream="reports") >= 1


def test_a_key_that_was_changed_is_read_again(bed: AlsBed) -> None:
    """A static key that was changed in Vault and at its service is used at its first 401."""
    assert bed.get("/keyed")[0] == 200
    grow_old()
    bed.bao.put_kv("als/keyed", {"api_key": "key-2"})
    bed.keyed.key = "key-2"
    assert bed.get("/keyed")[0] == 401
    assert wait_for(lambda: bed.get("/keyed")[0] == 200, PATIENCE)


def test_a_service_that_always_refuses_is_not_a_flood(bed: AlsBed) -> None:
    """However many 401s come, Vault is asked once in each gap."""
    versions = iter(range(2, 10_000))
    began, asked = time.monotonic(), 0
    while time.monotonic() < began + 2.5 * GAP or asked < 120:
        asked += 20
        bed.bao.put_kv("als/never", {"api_key": f"key-{next(versions)}"})  # else nothing rotates
        assert {bed.get("/never")[0] for _ in range(20)} == {401}
    rotations = bed.audit("lease.rotated", upstream="never")
    assert 1 <= len(rotations) <= 1 + (time.monotonic() - began) / GAP
    answers = "vaultauthz_upstream_answers_total"
    assert wait_for(lambda: bed.count(answers, upstream="never") > 100, PATIENCE)


def test_a_401_of_envoys_own_leads_to_nothing(bed: AlsBed) -> None:
    """Also where we had allowed the request: no upstream has seen the credential."""
    before = bed.count("vaultauthz_rejections_total", upstream="keyed")
    told = bed.count("vaultauthz_upstream_answers_total", upstream="keyed", status="none")
    assert {bed.get("/keyed-direct")[0] for _ in range(5)} == {401}
    answers = "vaultauthz_upstream_answers_total"
    assert wait_for(
        lambda: bed.count(answers, upstream="keyed", status="none") == told + 5, PATIENCE
    )
    assert bed.count("vaultauthz_rejections_total", upstream="keyed") == before


def test_a_check_is_in_the_audit_once(bed: AlsBed) -> None:
    """With ext_authz the check wrote it down; the access log does not do it again."""
    bed.get("/keyed?once=1")
    request_id = list(bed.keyed.came)[-1]
    answered = "vaultauthz_upstream_answers_total"
    told = bed.count(answered, upstream="keyed")
    bed.get("/keyed")
    assert wait_for(lambda: bed.count(answered, upstream="keyed") > told, PATIENCE)
    assert len(bed.audit(request_id=request_id)) == 1


def test_what_was_injected_is_in_the_audit(bed: AlsBed) -> None:
    """SDS: nobody asked us, and the line says who, what, with which credential, and the answer."""
    assert wait_for(lambda: bed.get("/injected")[0] == 200, PATIENCE)
    assert bed.get("/injected/a?api_key=s3cr3t")[0] == 200
    (line,) = bed.audited("request.allowed", upstream="injected", path="/injected/a")
    assert (line["stage"], line["gateway"], line["method"]) == (STAGE, "envoy", "GET")
    assert (line["decision"], line["status"]) == ("allowed", "200")
    assert line["host"].startswith(ME)
    assert line["request_id"] in bed.injected.came
    assert "s3cr3t" not in (bed.folder / "audit.jsonl").read_text()


def test_what_envoy_refused_is_in_the_audit(bed: AlsBed) -> None:
    """Without a credential, or because of its rules for callers: denied, and by which reason."""
    assert bed.get("/missing/x")[0] == 401
    (line,) = bed.audited("request.denied", upstream="missing")
    assert (line["decision"], line["reason"], line["status"]) == ("denied", "no_credential", "")
    assert bed.get("/injected/forbidden")[0] == 403
    (line,) = bed.audited("request.denied", upstream="injected")
    assert (line["stage"], line["reason"], line["credential_id"]) == (STAGE, "caller_denied", "")


def test_other_routes_are_passed_over(bed: AlsBed) -> None:
    """What is not for an upstream of ours is counted and not written down."""
    before = len(bed.audit())
    assert bed.get("/elsewhere")[0] == 401
    ignored = "vaultauthz_access_log_ignored_total"
    assert wait_for(lambda: bed.count(ignored, reason="not_ours") >= 1, PATIENCE)
    assert len([line for line in bed.audit()[before:] if line["path"] == "/elsewhere"]) == 0


class Load:
    """Requests from three threads while it is entered."""

    def __init__(self, bed: AlsBed, path: str) -> None:
        self.sent = 0
        self._bed, self._path = bed, path
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(3)]

    def _work(self) -> None:
        while not self._end.wait(0.01):
            status = self._bed.get(self._path)[0]
            assert status in (200, 401), status
            with self._lock:
                self.sent += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def uses(bed: AlsBed, key: str) -> bool:
    """Whether this is the key that goes to Envoy now."""
    return bed.key("injected") == key


def test_each_line_names_the_version_that_was_sent(bed: AlsBed) -> None:
    """Under load, across rotations: every request has its line, and no line names another's credential."""
    ids = {bed.key("injected"): bed.credential_id("injected")}
    with Load(bed, "/injected/load") as load:
        for number in range(2, 2 + VERSIONS):
            time.sleep(HELD)
            bed.bao.put_kv("als/injected", {"api_key": f"key-{number}"})
            bed.service.engine.keeper.rotate("injected", STAGE)
            assert wait_for(partial(uses, bed, f"key-{number}"), PATIENCE)
            bed.injected.key = f"key-{number}"
            ids[f"key-{number}"] = bed.credential_id("injected")
        time.sleep(HELD)

    def lines() -> list[dict[str, Any]]:
        return bed.audit("request.allowed", path="/injected/load")

    assert wait_for(lambda: len(lines()) >= load.sent, PATIENCE)
    wrong, certain, doubted = 0, dict.fromkeys(ids, 0), 0
    for line in lines():
        key = bed.injected.came[line["request_id"]]
        if line["credential_id"]:
            wrong += line["credential_id"] != ids[key]
            certain[key] += 1
        else:
            doubted += 1
            assert ids[key] in line["reason"], line
    sys.stdout.write(f"\n{load.sent} sent, {wrong} wrong, {doubted} in doubt, certain {certain}\n")
    assert len(lines()) == load.sent
    assert wrong == 0
    assert all(certain.values()), certain
