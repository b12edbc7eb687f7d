"""SDS on a real engine and a fake Vault: what is left at the end, and what a reload may hand out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from tests.contract import faults
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.running import (
    LATER,
    Running,
    Settings,
    changed,
    database,
    fake,
    kv,
    settings,
    two_stages,
)
from tests.patience import PATIENCE
from vaultauthz._pb.discovery_pb2 import Secret
from vaultauthz.core import events
from vaultauthz.envoy.sds.secrets import Secrets
from vaultauthz.envoy.sds.subscription import WITHDRAWN, ServedSecret
from vaultauthz.leases.clock import boottime

PAY, GEO, KEY = (("production", name) for name in ("pay", "geo", "key"))


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with two databases and two keys."""
    with fake() as made:
        yield made


def all_kinds(vault: FakeVault) -> Settings:
    """Two upstreams with leases, and one with a static key."""
    return settings(vault, pay=database("pay"), geo=database("geo"), key=kv("one"))


class Once(Running):
    """Closed by the test; leaving it closes it only when that did not come to pass."""

    def __exit__(self, *_: object) -> None:
        if not self.engine._closed:
            self.engine.close(PATIENCE)


class TestTheEnd:
    """What is revoked when some credentials are in use by Envoys."""

    def test_what_is_in_use_lives_on(self, vault: FakeVault) -> None:
        """Its lease and its token; the other leases are revoked, and the audit log is told."""
        with Once(all_kinds(vault), LATER) as running:
            running.wait_ready()
            pay, geo = running.sent("pay"), running.sent("geo")
            assert running.engine.close(3.0, {PAY})
            assert (vault.is_alive(pay), vault.is_alive(geo)) == (True, False)
            assert len(vault.live_tokens()) == 1
            (left,) = running.named(events.TOKEN_LEFT)
            assert (left.stage, left.lease_id) != ("production", "")
            assert "1 of its leases" in left.reason
            assert not running.named(events.TOKEN_REVOKED)
            assert [e.upstream for e in running.named(events.REVOKED)] == ["geo"]
            assert running.engine.keeper.left

    @pytest.mark.parametrize("leave", [set(), {KEY}, {("production", "nobody")}, {("x", "pay")}])
    def test_what_needs_no_token_leaves_none(self, vault: FakeVault, leave: Any) -> None:
        """A static key outlives the login, and what is not there is in nobody's use."""
        with Once(all_kinds(vault), LATER) as running:
            running.wait_ready()
            assert running.engine.close(3.0, leave)
            assert (vault.live_tokens(), vault.live_leases()) == ([], [])
            assert not running.named(events.TOKEN_LEFT)
            assert not running.engine.keeper.left

    def test_another_stage_is_revoked_as_ever(self, vault: FakeVault) -> None:
        """One stage's Envoys keep no other stage's token alive."""
        with Once(two_stages(vault), LATER) as running:
            running.wait_ready()
            kept = running.sent("pay", "production")
            gone = running.sent("pay", "staging")
            assert running.engine.close(3.0, {PAY})
            assert (vault.is_alive(kept), vault.is_alive(gone)) == (True, False)
            assert len(vault.live_tokens()) == 1

    def test_a_replaced_lease_of_another_upstream_is_revoked(self, vault: FakeVault) -> None:
        """Also one that was still draining."""
        with Once(all_kinds(vault), LATER) as running:
            running.wait_ready()
            pay, old = running.sent("pay"), running.sent("geo")
            running.engine.keeper.rotate("geo")
            assert wait_until(lambda: running.sent("geo") != old)
            new = running.sent("geo")
            assert running.engine.close(3.0, {PAY})
            assert [vault.is_alive(user) for user in (pay, old, new)] == [True, False, False]


def shown(served: ServedSecret | None) -> str:
    """The header's value."""
    assert served
    assert served.value is not None
    return Secret.FromString(served.value).generic_secret.secret.inline_bytes.decode()


class TestReload:
    """What a name stands for while a reload is on its way."""

    NAME = "production/key"
    GUARDED: ClassVar[Settings] = {"callers": [{"principal": "spiffe://corp/a"}]}

    def secrets(self, running: Running) -> Secrets:
        """What SDS would look up."""
        return Secrets(running.engine, boottime)

    def test_the_old_secret_is_never_for_new_callers(self, vault: FakeVault) -> None:
        """Rules that go together with the secret they guarded: the old one is not handed out."""
        guarded = settings(vault, key=kv("one", **self.GUARDED))
        with Running(guarded, LATER) as running:
            running.wait_ready()
            secrets = self.secrets(running)
            withheld = secrets.lookup(self.NAME)
            assert withheld
            assert withheld.version == WITHDRAWN
            vault.fault(faults.hang(), "secret/data/two")
            running.reload(settings(vault, key=kv("two")))
            assert running.sent("key") == "caller_denied"
            assert secrets.lookup(self.NAME) is None
            vault.heal()
            assert wait_until(lambda: secrets.lookup(self.NAME) is not None)
            assert shown(secrets.lookup(self.NAME)) == "two-1"

    def test_new_rules_take_the_secret_back(self, vault: FakeVault) -> None:
        """And Envoy's word for them gives it again, with the same configuration otherwise."""
        document = settings(vault, key=kv("one"))
        with Running(document, LATER) as running:
            running.wait_ready()
            secrets = self.secrets(running)
            assert shown(secrets.lookup(self.NAME)) == "one-1"
            guarded = changed(document, lambda d: d["upstreams"]["key"].update(self.GUARDED))
            running.reload(guarded)
            assert shown(secrets.lookup(self.NAME)) == ""
            enforced = {"callers_enforced_by": "envoy"}
            running.reload(changed(guarded, lambda d: d["upstreams"]["key"].update(enforced)))
            assert shown(secrets.lookup(self.NAME)) == "one-1"

    def test_a_dropped_upstream_is_taken_back(self, vault: FakeVault) -> None:
        """Envoy must not go on with a lease that will be revoked."""
        document = all_kinds(vault)
        with Running(document, LATER) as running:
            running.wait_ready()
            secrets = self.secrets(running)
            assert shown(secrets.lookup("production/pay")).startswith("Basic ")
            running.reload(changed(document, lambda d: d["upstreams"].pop("pay")))
            assert shown(secrets.lookup("production/pay")) == ""

    @pytest.mark.parametrize("per", ["caller", "request"])
    def test_leases_of_ones_own_are_not_for_sds(self, vault: FakeVault, per: str) -> None:
        """There is none that all callers share."""
        callers = [{"principal": "spiffe://corp/*"}]
        document = settings(vault, pay=database("pay", per=per, callers=callers))
        with Running(document, LATER) as running:
            running.wait_ready()
            assert shown(self.secrets(running).lookup("production/pay")) == ""


def test_the_keepers_news_reach_sds(vault: FakeVault) -> None:
    """Each first credential, rotation and withdrawal is told, with stage and upstream."""
    told: list[tuple[str, str]] = []
    running = Running(all_kinds(vault), LATER)
    running.engine.keeper.watch(lambda *place: told.append(place))
    with running:
        running.wait_ready()
        assert set(told) == {PAY, GEO, KEY}
        told.clear()
        running.engine.keeper.rotate("pay")
        assert wait_until(lambda: PAY in told)
        told.clear()
        vault.fault(faults.status(503), "database/creds/geo")
        running.engine.keeper.revoke("geo")
        assert GEO in told
