"""Each alert by the fault that it is for: a real server, a real Prometheus, our rules without their patience."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import faults
from tests.contract.certificates import Authority
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.running import database, fake, kv
from tests.integration.alerts_bed import STAGE, defined, watched
from tests.prometheus import DASHBOARD, filled_in, free_port
from tests.unit.envoy.als_entries import checked, entry, message

pytestmark = pytest.mark.integration

ONE = {"one": kv("one")}
REPORTED = {"vaultauthz.stage": STAGE.encode(), "vaultauthz.upstream": b"one"}
# By the test that has them fire.
OUTAGE = (
    "VaultauthzVaultFailing",
    "VaultauthzLoginFailing",
    "VaultauthzLeaseNotRenewed",
    "VaultauthzNoCredential",
    "VaultauthzNotReady",
)
AUDIT = ("VaultauthzAuditBehind", "VaultauthzAuditDropped", "VaultauthzAuditNotWorking")
FILES = (
    "VaultauthzCertificateRefused",
    "VaultauthzCertificateEnding",
    "VaultauthzCertificateEnded",
)
OTHERS = (
    "VaultauthzCallersWithoutCredential",
    "VaultauthzCredentialRejected",
    "VaultauthzReloadRefused",
    "VaultauthzAbsent",
)
# Panels without anything to show while all is well, nobody has asked, and no listener has TLS.
FAULTS = {"Denied, by reason", "Entries passed over", "Failures by reason", "Rejected"}
REQUESTS = {"Answers of upstreams", "Checks", "Checks by upstream", "Leases of callers' own"}
TLS = {
    *("Clients that may not ask", "Current", "First certificate to end", "Replacements"),
    *("Time left of certificates", "Next ends"),
}
NOTHING = {"Alerts that are on", *FAULTS, *REQUESTS, *TLS}


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role, two databases and two keys."""
    with fake() as made:
        yield made


def test_each_alert_is_tried() -> None:
    """One that is new has to fire here by its fault."""
    assert sorted((*OUTAGE, *AUDIT, *FILES, *OTHERS)) == sorted(defined())


def test_vault_is_away(vault: FakeVault, tmp_path: Path) -> None:
    """Its calls fail, renewals are late, what they were for has ended; it is over when Vault is back."""
    vault.set_approle(token_ttl=15.0)
    vault.set_creds("database/creds/pay", ttl=12.0)
    with watched(vault, tmp_path, {"pay": database("pay")}) as server:
        server.quiet()
        vault.fault(faults.status(503, "Vault is sealed"))
        server.alarms(*OUTAGE)
        vault.heal()
        server.quiet()


def test_a_caller_gets_no_lease_of_its_own(vault: FakeVault, tmp_path: Path) -> None:
    """Nothing is leased before somebody asks, so that only its requests tell."""
    vault.deny("database/creds/pay")
    with watched(vault, tmp_path, {**ONE, "pay": database("pay", per="caller")}) as server:
        server.quiet()
        server.alarms(
            "VaultauthzCallersWithoutCredential",
            meanwhile=lambda: server.check("pay", "spiffe://example/caller"),
        )
        assert "VaultauthzNoCredential" not in server.prometheus.firing()


def test_the_audit_log_is_not_written(vault: FakeVault, tmp_path: Path) -> None:
    """A pipe that nobody reads: lines wait, what there is no room for is lost, and checks are refused."""
    reader, writer = os.pipe()
    with watched(vault, tmp_path, ONE, stdout=writer) as server:
        os.close(writer)
        server.quiet()
        server.report(message([entry(tags=REPORTED) for _ in range(3000)]))
        server.alarms(*AUDIT)
        assert server.prometheus.firing()["VaultauthzNotReady"]
        os.set_blocking(reader, False)
        assert wait_until(
            lambda: _drained(reader) and "VaultauthzAuditBehind" not in server.prometheus.firing()
        )
    os.close(reader)


def _drained(reader: int) -> bool:
    try:
        while os.read(reader, 1 << 16):
            pass
    except BlockingIOError:
        pass
    return True


def test_certificates(vault: FakeVault, tmp_path: Path) -> None:
    """Files that do not fit, one that ends soon, and one that has ended; a good one makes an end of it."""
    authority = Authority(tmp_path, hours=24 * 60)
    shown = authority.issue("127.0.0.1", hours=24 * 30, file="shown")
    tls = {"cert": str(shown.cert), "key": str(shown.key), "client_ca": str(authority.ca)}

    listen = {"grpc": f"127.0.0.1:{free_port()}", "grpc_tls": tls}

    def replace(hours: float) -> None:
        other = authority.issue("127.0.0.1", hours=hours, file="other")
        for new, old in ((other.key, shown.key), (other.cert, shown.cert)):
            shutil.copyfile(new, old)

    with watched(vault, tmp_path, ONE, listen=listen) as server:
        server.quiet()
        shown.key.write_text("no key\n")
        server.alarms("VaultauthzCertificateRefused")
        replace(hours=24)
        server.alarms("VaultauthzCertificateEnding")
        replace(hours=10 / 3600)
        server.alarms("VaultauthzCertificateEnded")
        replace(hours=24 * 30)
        server.quiet()


def test_the_dashboard_shows_a_server_that_is_well(vault: FakeVault, tmp_path: Path) -> None:
    """Each panel has something but those about what has not happened; no query is one that nothing answers."""
    with watched(vault, tmp_path, ONE) as server:
        server.quiet()
        panels = [one for one in json.loads(DASHBOARD.read_text())["panels"] if "targets" in one]

        def empty() -> set[str]:
            return {
                panel["title"]
                for panel in panels
                for one in panel["targets"]
                if not server.prometheus.value(filled_in(one["expr"], "1m"))
            }

        assert wait_until(lambda: empty() == NOTHING), sorted(empty() ^ NOTHING)


def test_the_configuration_has_a_mistake(vault: FakeVault, tmp_path: Path) -> None:
    """Until it is mended; what is in use is the one before."""
    with watched(vault, tmp_path, ONE) as server:
        server.quiet()
        server.configure("upstreams: nothing\n")
        server.alarms("VaultauthzReloadRefused")
        assert list(server.prometheus.firing()) == ["VaultauthzReloadRefused"]
        server.configure(server.document)
        server.quiet()


def test_a_service_refuses_its_credential(vault: FakeVault, tmp_path: Path) -> None:
    """As Envoy reports it; until a request with it is answered otherwise."""
    with watched(vault, tmp_path, ONE) as server:
        server.quiet()
        check = {
            "upstream": "one",
            "stage": STAGE,
            "credential_id": server.credential_id("one"),
            "request_id": "r-1",
        }
        server.report(message([checked(401, check)]))
        server.alarms("VaultauthzCredentialRejected")
        (alert,) = server.prometheus.firing()["VaultauthzCredentialRejected"]
        assert (alert.labels["stage"], alert.labels["upstream"]) == (STAGE, "one")
        server.report(message([checked(200, check)]))
        server.quiet()


def test_the_server_is_gone(vault: FakeVault, tmp_path: Path) -> None:
    """Nobody tells of anything any more, and that is told."""
    with watched(vault, tmp_path, ONE) as server:
        server.quiet()
        server.process.kill()
        server.alarms("VaultauthzAbsent")
        assert list(server.prometheus.firing()) == ["VaultauthzAbsent"]
