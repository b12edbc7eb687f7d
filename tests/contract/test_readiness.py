"""Ready and started, by every way to ask: /readyz, the metric, `vaultauthz leases`, gRPC health; what is refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST
from tests.contract.running import database, fake, kv
from tests.contract.served_bed import Asked, served
from tests.patience import PATIENCE
from vaultauthz import service as service_module
from vaultauthz.engine import Engine

Serve = Callable[[FakeVault, dict[str, Any]], contextlib.AbstractContextManager[Asked]]


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role, two databases and two keys."""
    with fake() as made:
        yield made


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves these upstreams to Envoy, in a hurry with Vault."""
    monkeypatch.setattr(service_module, "Engine", partial(Engine, pace=FAST))
    return lambda vault, upstreams: served(vault, tmp_path, upstreams)


def test_one_that_loses_its_credential_is_not_ready_and_has_started(
    vault: FakeVault, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every way to ask agrees, before, meanwhile and after; gateways are told to go on asking."""
    vault.set_creds("database/creds/pay", ttl=1.0, renewable=False)
    with serve(vault, {"pay": database("pay"), "geo": database("geo")}) as asked:
        assert wait_until(lambda: asked.readyz() == (200, {"ready": True, "started": True}))
        assert (asked.gauge("vaultauthz_ready"), asked.leases(), asked.serving()) == (1, 0, True)
        capsys.readouterr()

        vault.deny("database/creds/pay")
        assert wait_until(lambda: asked.readyz()[0] == 503)
        told = asked.readyz()[1]
        assert (told["ready"], told["started"]) == (False, True)
        (waiting,) = told["waiting"]
        assert (waiting["upstream"], waiting["optional"]) == ("pay", False)
        assert asked.readyz("?started")[0] == 200
        assert asked.serving()
        assert asked.gauge("vaultauthz_ready") == 0
        lost = 'vaultauthz_lease_seconds_left{stage="production",upstream="pay"}'
        assert asked.gauge(lost) == 0
        assert asked.leases() == 1
        shown = capsys.readouterr().out
        assert shown.endswith(
            "1 of 3 has no credential\nnot ready: no credential for pay (production)\n"
        )

        vault.allow("database/creds/pay")
        vault.set_creds("database/creds/pay")
        assert wait_until(lambda: asked.readyz()[0] == 200)
        assert (asked.gauge("vaultauthz_ready"), asked.leases()) == (1, 0)


def test_an_optional_one_stands_in_nobodys_way(vault: FakeVault, serve: Serve) -> None:
    """It is among those that wait, and said to be optional."""
    vault.deny("database/creds/geo")
    upstreams = {"pay": database("pay"), "geo": database("geo", optional=True)}
    with serve(vault, upstreams) as asked:
        assert wait_until(lambda: asked.readyz()[0] == 200)
        (waiting,) = asked.readyz()[1]["waiting"]
        assert (waiting["upstream"], waiting["optional"]) == ("geo", True)
        assert (asked.gauge("vaultauthz_ready"), asked.serving()) == (1, True)


def test_before_it_has_started_nobody_is_to_ask(vault: FakeVault, serve: Serve) -> None:
    """Neither question has a yes until each required upstream has had its credential."""
    vault.deny("database/creds/geo")
    with serve(vault, {"pay": database("pay"), "geo": database("geo")}) as asked:
        assert wait_until(lambda: asked.waits_for("geo"))
        assert asked.readyz("?started")[0] == asked.readyz()[0] == 503
        assert (asked.gauge("vaultauthz_ready"), asked.serving()) == (0, False)
        vault.allow("database/creds/geo")
        assert wait_until(lambda: asked.readyz("?started")[0] == 200)
        assert asked.serving()


def test_what_its_service_refuses_is_told(
    vault: FakeVault, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """The count, and since when, until it is answered otherwise; the credential is there all the same."""
    with serve(vault, {"pay": database("pay"), "one": kv("one")}) as asked:
        assert wait_until(lambda: asked.readyz()[0] == 200)
        series = 'vaultauthz_credentials_refused{stage="production",upstream="pay"}'

        def trial(status: int) -> None:
            asked.service.tried("production", "pay", asked.row().credential_id, status)

        def shown() -> dict[str, Any]:
            capsys.readouterr()
            asked.leases("--json")
            found = json.loads(capsys.readouterr().out)
            return {row["upstream"]: (row["refused"], row["refused_for"]) for row in found}

        assert (shown()["pay"], asked.gauge(series)) == ((0, None), 0)
        for _ in range(3):
            trial(401)
        count, seconds = shown()["pay"]
        assert (count, asked.gauge(series)) == (3, 1)
        assert 0 <= seconds <= PATIENCE
        assert shown()["one"] == (0, None)
        assert asked.leases() == 1
        told = capsys.readouterr().out
        assert "pay       production  refused" in told
        assert (
            "! pay in production: for 0s it has answered 401 to this credential (3 times)" in told
        )
        assert asked.readyz()[0] == 200
        trial(200)
        assert (shown()["pay"], asked.gauge(series), asked.leases()) == ((0, None), 0, 0)


def test_a_new_credential_is_refused_by_nobody_yet(vault: FakeVault, serve: Serve) -> None:
    """What was said of the one before goes with it."""
    with serve(vault, {"pay": database("pay")}) as asked:
        assert wait_until(lambda: asked.readyz()[0] == 200)
        service, series = (
            asked.service,
            'vaultauthz_credentials_refused{stage="production",upstream="pay"}',
        )

        first = asked.row().credential_id
        service.tried("production", "pay", first, 401)
        assert asked.gauge(series) == 1
        service.engine.keeper.rotate("pay")
        assert wait_until(lambda: asked.row().credential_id != first)
        assert asked.gauge(series) == 0
