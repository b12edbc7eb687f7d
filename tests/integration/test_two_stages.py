"""Two stages with the printed policies: neither ever reads, or could read, what is the other's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.served import Served, asking
from tests.integration.stages_bed import (
    LAYOUTS,
    LEASES,
    OTHER,
    STAGES,
    UPSTREAMS,
    House,
    Traffic,
    VaultsLog,
)
from tests.patience import PATIENCE
from vaultauthz.cli import main
from vaultauthz.core import events
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(
    scope="module",
    params=[
        "stage-in-paths",
        pytest.param(
            "stage-in-namespaces",
            marks=pytest.mark.openbao("Vault has namespaces in its Enterprise edition only"),
        ),
    ],
)
def house(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A Vault for each layout."""
    with OpenBao(tmp_path_factory.mktemp("two-stages")) as bao:
        made = House(bao, LAYOUTS[request.param], postgres)
        made.lay_out(tmp_path_factory.mktemp("two-stages-config"))
        yield made


def test_in_a_whole_life_no_stage_asks_for_the_others_secrets(house: House, tmp_path: Path) -> None:
    """By Vault's own log, from start to stop: each token asks for its stage's paths and leases only."""
    with house.served(tmp_path) as server:
        server.wait_ready()
        with Traffic(server.socket) as traffic:
            _live(server)
            house.configure(tmp_path)
            server.audited(events.RELOADED)
            server.wait_ready()
            _ask_for_what_is_new(server)
        tokens = {line["stage"]: line["lease_id"] for line in server.audit(events.LOGIN)}
        assert all(house.lives(tokens[stage], stage) for stage in STAGES)
        server.ask(signal.SIGTERM)
        assert server.ended() == 0, server.stderr
        log = VaultsLog(house, server)
    assert not traffic.denied
    assert log.errors() == []
    for stage in STAGES:
        assert traffic.keys(stage) == {f"geo-of-{stage}"}
        assert len(traffic.users(stage)) >= 2
        own, others = house.layout.paths(stage), house.layout.paths(OTHER[stage])
        asked = log.asked(stage)
        assert own <= asked
        assert not others & asked
        assert set(log.named(stage)) == {stage}
        assert log.strangers(own) == []
        assert {namespace for namespace, _ in asked} == {house.layout.namespaces[stage]}
    assert not traffic.users("production") & traffic.users("staging")
    assert set(log.accessors.values()) == set(STAGES)
    assert not any(house.lives(accessor, stage) for accessor, stage in log.accessors.items())
    users = traffic.users("production") | traffic.users("staging")
    assert wait_for(lambda: not users & set(house.postgres.users()), PATIENCE)


def _live(server: Served) -> None:
    """Renew tokens and leases, and rotate; each in both stages."""
    for stage in STAGES:
        server.audited(events.TOKEN_RENEWED, stage=stage)
        server.audited(events.RENEWED, stage=stage, upstream="db")
    assert main(["rotate", "db", "-c", str(server.config)]) == 0
    for stage in STAGES:
        server.audited(events.ROTATED, stage=stage, upstream="db")


def _ask_for_what_is_new(server: Served) -> None:
    with asking(server.socket) as asker:
        for stage in STAGES:
            answer = asker.check("later", stage=stage)
            assert answer.headers["x-api-key"] == f"later-of-{stage}"


def test_what_is_the_others_is_denied(house: House) -> None:
    """Really asked: its secrets, in either namespace, and renewing or revoking its leases."""
    tokens = {stage: house.token(stage) for stage in STAGES}
    leased = dict[str, str]()
    for stage in STAGES:
        for namespace, path in house.layout.paths(stage):
            answer = house.call(tokens[stage], path, namespace)
            assert answer.status_code == 200, (stage, path, answer.text)
            leased[stage] = answer.json()["lease_id"] or leased.get(stage, "")
    for stage in STAGES:
        own, other = house.layout.namespaces[stage], OTHER[stage]
        for namespace, path in house.layout.paths(other):
            answer = house.call(tokens[stage], path, namespace)
            assert answer.status_code == 403, (stage, path, answer.text)
        for path in LEASES:
            for namespace in {own, house.layout.namespaces[other]}:
                answer = house.call(tokens[stage], path, namespace, {"lease_id": leased[other]})
                assert answer.status_code in (400, 403), (stage, path, answer.text)
    for stage in STAGES:  # none of it has ended the lease
        body = {"lease_id": leased[stage], "increment": 5}
        answer = house.call(tokens[stage], LEASES[0], house.layout.namespaces[stage], body)
        assert answer.status_code == 200, answer.text


def test_a_stage_that_cannot_log_in_does_not_hurt_the_other(house: House, tmp_path: Path) -> None:
    """Its upstreams alone are waited for and answered 503, and a right secret_id mends it."""
    with house.served(tmp_path, wrong="staging") as server, asking(server.socket) as asker:
        server.audited(events.FAILED, stage="staging")
        server.wait(lambda: _waiting(server) == _all("staging"), "production is not ready")
        assert not server.ready
        for name in UPSTREAMS:
            assert asker.check(name, stage="production").status == 200
            refused = asker.check(name, stage="staging")
            assert (refused.status, refused.error) == (503, "no_credential")
        asked = server.audit(events.FAILED, stage="staging", upstream="")
        (tmp_path / "staging").write_text(house.logins["staging"][1])
        server.wait_ready()
        for stage in STAGES:
            answer = asker.check("geo", stage=stage)
            assert answer.headers["x-api-key"] == f"geo-of-{stage}"
        assert len(server.audit(events.FAILED, stage="staging", upstream="")) == len(asked)
        assert not server.audit(events.FAILED, stage="production")


def _all(stage: str) -> set[tuple[str, str]]:
    return {(stage, name) for name in UPSTREAMS}


def _waiting(server: Served) -> set[tuple[str, str]]:
    waiting = server.admin("/readyz").body.get("waiting", [])
    return {(each["stage"], each["upstream"]) for each in waiting}
