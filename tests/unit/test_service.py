"""How the time of a stop is shared out; the clock is passed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaultauthz import service as service_module
from vaultauthz.config import parse
from vaultauthz.doors import Door
from vaultauthz.service import Service

TEXT = """
vault: {address: "http://127.0.0.1:1"}
stages: {prod: {auth: {method: token_file, path: token}}}
upstreams:
  geo: {secret: {kv: secret/geo}, inject: [{bearer: "{key}"}], callers: any}
listen: {grpc: "unix:///run/none/grpc.sock"}
audit: {file: audit.jsonl}
"""


class Parts(Door):
    """A clock, and parts that take as long to stop as they want; ``given`` is what each was given."""

    def __init__(self, server: float, vault: float) -> None:
        self.now = 0.0
        self.given: dict[str, float] = {}
        self._server, self._vault = server, vault

    def start(self) -> None:
        """As a door."""

    def stop(self, grace: float) -> None:
        """As a door, which takes its own time."""
        self.given["server"] = grace
        self.now += self._server

    def close_engine(self, timeout: float, leave: object) -> bool:
        """As the engine, which asks Vault."""
        assert not leave
        self.given["vault"] = timeout
        self.now += min(timeout, self._vault)
        return self._vault <= timeout

    def monotonic(self) -> float:
        """As of `time`."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """As of `time`."""
        self.now += seconds


def served(folder: Path, door: Door) -> Service:
    """A service that was not started."""
    token = folder / "token"
    token.touch(0o600)
    token.write_text("s.token")
    return Service(parse(TEXT, "c.yaml", folder, {}), lambda _: door)


@pytest.fixture
def stopped(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Parts:
    """The parts of a service that was stopped; its parameters are the seconds of door and Vault."""
    parts = Parts(*request.param)
    service = served(tmp_path, parts)
    close_audit = service.audit.close

    def close(timeout: float) -> bool:
        parts.given["audit"] = timeout
        return close_audit()

    monkeypatch.setattr(service_module, "time", parts)
    monkeypatch.setattr(service.engine, "close", parts.close_engine)
    monkeypatch.setattr(service.audit, "close", close)
    service.stop()
    return parts


@pytest.mark.parametrize(
    "stopped", [(0.1, 0.0), (0.1, 60.0), (1.0, 60.0), (2.2, 60.0)], indirect=True
)
def test_a_stop_has_five_seconds(stopped: Parts) -> None:
    """However slow Vault is and however long streams take; the log is written in the end."""
    assert stopped.now + stopped.given["audit"] <= 5.0 + 1e-9
    assert stopped.given["vault"] >= 1.0
    assert stopped.given["audit"] >= 0.4


@pytest.mark.parametrize("stopped", [(0.1, 0.2)], indirect=True)
def test_vault_has_three_of_them(stopped: Parts) -> None:
    """As a rule, and half a second is for requests on their way."""
    assert stopped.given["vault"] == 3.0
    assert stopped.now == pytest.approx(0.1 + 0.5 + 0.2)


def test_whichever_door_tells_of_401s_few_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of one credential's is one call of the engine's, and one in the metrics."""
    service, calls = served(tmp_path, Parts(0, 0)), []
    monkeypatch.setattr(service.engine, "answered_401", lambda *call: not calls.append(call))  # type: ignore[func-returns-value]
    told = [service.rejected("geo", "prod", "c_1") for _ in range(1000)]
    assert calls[:1] == [("geo", "prod", "c_1")]
    assert sum(told) == len(calls) < 1000
    counted = 'vaultauthz_rejections_total{stage="prod",upstream="geo"} '
    assert f"{counted}{float(len(calls))}\n" in service.metrics.text()
    service.audit.close()
