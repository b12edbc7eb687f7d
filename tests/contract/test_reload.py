"""A reload: what it asks of Vault, what it keeps in use, what it ends; see also test_reload_stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.contract import faults
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.running import (
    CALLER_DENIED,
    LATER,
    NO_CREDENTIAL,
    NO_UPSTREAM,
    Load,
    Running,
    Settings,
    changed,
    database,
    fake,
    kv,
    settings,
)
from tests.patience import PATIENCE
from vaultauthz.core import events
from vaultauthz.core.request import Request


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with fake() as made:
        yield made


# --- what costs nothing ---


def test_what_changes_nothing_asks_nothing(vault: FakeVault) -> None:
    """Ten reloads of the same file: no call to Vault, no event, the same slots and leases."""
    document = settings(vault, pay=database("pay"), geo=kv("one"))
    with Running(document) as running:
        running.wait_ready()
        calls, told = len(vault.heard), len(running.events)
        before = running.engine.keeper.rows()
        sources = dict(running.engine._sources)
        assert [bool(running.reload(document)) for _ in range(10)] == [False] * 10
        time.sleep(0.3)
        assert (len(vault.heard), len(running.events)) == (calls, told)
        ids = [(r.lease_id, r.credential_id, r.state) for r in before]
        assert [(r.lease_id, r.credential_id, r.state) for r in running.engine.keeper.rows()] == ids
        assert all(running.engine._sources[place] is sources[place] for place in sources)


def test_another_order_and_spelling_is_no_change(vault: FakeVault) -> None:
    """Upstreams in another order, a default written out: nothing is asked."""
    document = settings(vault, pay=database("pay"), geo=kv("one"))
    spelt = settings(
        vault, geo=kv("one", optional=False, stages=["production"]), pay=database("pay")
    )
    with Running(document) as running:
        running.wait_ready()
        calls = len(vault.heard)
        assert not running.reload(spelt)
        time.sleep(0.2)
        assert len(vault.heard) == calls
        assert running.sent("geo") == "one-1"


def test_callers_take_effect_at_once_and_without_a_call(vault: FakeVault) -> None:
    """The very next request is denied, the lease stays; and back."""
    document = settings(vault)
    closed = settings(vault, pay=database("pay", callers=[{"principal": "spiffe://corp/shop"}]))
    with Running(document) as running:
        running.wait_ready()
        user, calls = running.sent(), len(vault.heard)
        assert running.reload(closed)
        assert running.sent() == CALLER_DENIED
        assert running.sent(principal="spiffe://corp/shop") == user
        assert running.reload(document)
        assert running.sent() == user
        time.sleep(0.2)
        assert len(vault.heard) == calls
        assert len(running.named(events.RELOADED)) == 2


def test_routes_and_unmatched_take_effect_at_once(vault: FakeVault) -> None:
    """Without a call a host leads elsewhere, and what nobody claims may pass."""
    document = settings(vault)
    routed = {**document, "routes": [{"host": "pay.test", "upstream": "pay"}], "unmatched": "pass"}
    with Running(document) as running:
        running.wait_ready()
        calls = len(vault.heard)
        assert running.sent("", host="pay.test") == NO_UPSTREAM
        running.reload(routed)
        assert running.sent("", host="pay.test").startswith("v-")
        assert running.engine.check(Request("test", host="other.test")).allowed
        running.reload(document)
        assert running.sent("", host="pay.test") == NO_UPSTREAM
        assert len(vault.heard) == calls


# --- another credential ---

ANOTHER = {
    "inject": lambda pay: pay.update(
        inject=[{"basic": {"username": "{username}", "password": "x{password}"}}]
    ),
    "strip": lambda pay: pay.update(strip=["X-Debug"]),
    "secret": lambda pay: pay.update(secret={"path": "database/creds/geo"}),
}


@pytest.mark.parametrize("what", ANOTHER)
def test_the_old_credential_is_used_until_the_new_one_is_there(vault: FakeVault, what: str) -> None:
    """With Vault slow no request goes without; then the old lease drains and is revoked."""
    document = settings(vault)
    new = changed(document, lambda d: ANOTHER[what](d["upstreams"]["pay"]))
    with Running(document, LATER) as running:
        running.wait_ready()
        old = running.sent()
        go = threading.Event()
        vault.fault(faults.held(go), "database/creds/")
        with Load(running, vault) as load:
            running.reload(new)
            assert wait_until(lambda: len(vault.calls("database/creds/")) == 2)
            assert running.sent() == old
            go.set()
            load.see(2)
            assert vault.is_alive(old)  # it drains
        assert (load.denied, load.dead, len(load.seen)) == ([], [], 2)
        calls = len(vault.calls("database/creds/"))
        assert calls == 2
    with Running(document) as running:  # the same with a drain that a test can wait for
        running.wait_ready()
        old = running.sent()
        running.reload(new)
        assert wait_until(lambda: not vault.is_alive(old))
        assert running.sent() != old
        running.settle()
        assert [e.lease_id.split("/")[2] for e in running.named(events.REVOKED)] == ["pay"]


def test_versions_of_another_place_do_not_count(vault: FakeVault) -> None:
    """From a secret at version 3 to one at version 1, and back: each is taken."""
    for number in (2, 3):
        vault.put_kv("secret/one", {"key": f"one-{number}"})
    document = settings(vault, pay=kv("one"))
    with Running(document) as running:
        running.wait_ready()
        for name, wanted in (("two", "two-1"), ("one", "one-3"), ("two", "two-1")):
            running.reload(settings(vault, pay=kv(name)))
            assert wait_until(lambda: running.sent() == wanted)  # noqa: B023  waited for here
    assert running.named(events.FAILED) == []


def test_what_was_asked_before_is_not_put_into_the_new_place(vault: FakeVault) -> None:
    """A read that is out during the reload belongs to the old place and its header altogether."""
    vault.fault(faults.latency(0.5), "secret/data/")
    renamed = [{"header": {"name": "X-Other-Key", "value": "{key}"}}]
    with Running(settings(vault, pay=kv("one"))) as running:
        assert wait_until(lambda: len(vault.calls("secret/data/one")) == 1)
        running.reload(settings(vault, pay=kv("two", inject=renamed)))
        seen = set()

        def settled() -> bool:
            if running.sent() != NO_CREDENTIAL:
                seen.add(running.headers())
            return (("x-other-key", "two-1"),) in seen

        assert wait_until(settled)
    assert seen <= {(("x-api-key", "one-1"),), (("x-other-key", "two-1"),)}


@pytest.mark.parametrize(
    "place",
    [{"kv": "secret/nowhere"}, {"path": "database/creds/nowhere"}, {"path": "denied/path"}],
    ids=["no such key", "no such role", "denied"],
)
@pytest.mark.parametrize("before", [database("pay"), kv("one")], ids=["leased", "static"])
def test_a_place_that_gives_nothing_leaves_the_old_credential(
    vault: FakeVault, before: Settings, place: Settings
) -> None:
    """What is in use stays in use, the failure is told; mended, the right one comes."""
    vault.deny("denied/")
    document = settings(vault, pay=before)
    broken = changed(document, lambda d: d["upstreams"]["pay"].update(secret=place))
    with Running(document) as running:
        running.wait_ready()
        old = running.sent()
        with Load(running, vault) as load:
            running.reload(broken)
            assert wait_until(lambda: len(running.named(events.FAILED, "pay")) >= 2)
        assert (load.denied, load.seen) == ([], [old])
        (row,) = [r for r in running.engine.keeper.rows() if r.upstream]
        assert row.last_error
        running.reload(settings(vault, pay=database("geo")))
        assert wait_until(lambda: running.sent() != old)
        assert running.sent().startswith("v-")


def test_a_static_secret_that_is_deleted_after_a_reload_is_not_served_on(vault: FakeVault) -> None:
    """At its new place, what somebody deletes is gone, as at any."""
    quick = {"kv": "secret/two", "refresh": "1s"}
    with Running(settings(vault, pay=kv("one"))) as running:
        running.wait_ready()
        running.reload(settings(vault, pay=kv("two", secret=quick)))
        assert wait_until(lambda: running.sent() == "two-1")
        vault.delete_kv("secret/two")
        assert wait_until(lambda: running.sent() == NO_CREDENTIAL)


def test_a_reload_during_an_outage(vault: FakeVault) -> None:
    """The old is used while Vault is away; when it is back, the new comes by itself."""
    document = settings(vault, pay=database("pay"), geo=kv("one"))
    new = settings(vault, pay=database("geo"), geo=kv("two"), more=kv("one", optional=True))
    with Running(document) as running:
        running.wait_ready()
        old = running.sent()
        with Load(running, vault) as load:
            vault.stop()
            running.reload(new)
            assert wait_until(lambda: len(running.named(events.FAILED)) >= 3)
            assert (running.sent(), running.sent("geo")) == (old, "one-1")
            assert running.sent("more") == NO_CREDENTIAL
            vault.start()
            assert wait_until(lambda: running.sent("geo") == "two-1")
            assert wait_until(lambda: running.sent("more") == "one-1")
            assert wait_until(lambda: running.sent() != old)
        assert (load.denied, load.dead) == ([], [])
        running.settle()
        assert len(vault.live_leases()) == 1


def test_new_callers_are_not_let_to_the_old_secret(vault: FakeVault) -> None:
    """While the new secret is on its way, only who may use both gets the old one."""
    shop = [{"principal": "spiffe://corp/shop"}]
    document = settings(vault, pay=kv("one", callers=shop))
    opened = settings(vault, pay=kv("two"))
    with Running(document) as running:
        running.wait_ready()
        vault.stop()
        running.reload(opened)
        assert running.sent(principal="spiffe://corp/shop") == "one-1"
        assert running.sent(principal="spiffe://corp/guest") == CALLER_DENIED
        running.reload(changed(opened, lambda d: d["upstreams"]["pay"].update(strip=["x-a"])))
        assert running.sent(principal="spiffe://corp/guest") == CALLER_DENIED
        vault.start()
        assert wait_until(lambda: running.sent(principal="spiffe://corp/guest") == "two-1")


def test_the_old_secret_keeps_its_rules_over_two_reloads(vault: FakeVault) -> None:
    """All that was said since it came holds on; a reload that leaves the upstream alone forgets none of it."""
    shop, guest = ({"principal": f"spiffe://corp/{name}"} for name in ("shop", "guest"))
    job = {"consumer": "job"}
    document = settings(vault, pay=kv("one", callers=[shop, job]))
    between = settings(vault, pay=kv("two", callers=[shop, guest]))
    opened = settings(vault, pay=kv("two", strip=["x-a"]))
    apart = changed(opened, lambda d: d.update(unmatched="pass"))
    with Running(document) as running:
        running.wait_ready()
        vault.stop()
        for new in (between, opened, apart):
            running.reload(new)
            sent = [running.sent(**who) for who in (shop, guest, job)]
            assert sent == ["one-1", CALLER_DENIED, CALLER_DENIED]
        vault.start()
        assert wait_until(
            lambda: [running.sent(**who) for who in (shop, guest, job)] == ["two-1"] * 3
        )


# --- upstreams that come and go ---


def test_an_upstream_that_comes_and_goes(vault: FakeVault) -> None:
    """It comes without touching the others; it goes at once for requests, and is revoked."""
    alone, both = settings(vault), settings(vault, pay=database("pay"), geo=database("geo"))
    with Running(alone) as running:
        running.wait_ready()
        old = running.sent()
        assert running.sent("geo") == NO_UPSTREAM
        with Load(running, vault) as load:
            running.reload(both)
            assert wait_until(lambda: running.sent("geo").startswith("v-"))
            user = running.sent("geo")
            running.reload(alone)
            assert running.sent("geo") == NO_UPSTREAM
            assert vault.is_alive(user)  # a request may be on its way with it
            assert wait_until(lambda: not vault.is_alive(user))
        assert (load.seen, load.denied) == ([old], [])
        assert [row.upstream for row in running.engine.keeper.rows()] == ["", "pay"]
        running.settle()
        assert len(running.named(events.REVOKED, "geo")) == 1
        assert ("production", "geo") not in running.engine._sources


def test_what_is_dropped_drains(vault: FakeVault) -> None:
    """A request may be on its way with it: it is not revoked while the drain lasts, but by a stop."""
    with Running(settings(vault, pay=database("pay"), geo=database("geo")), LATER) as running:
        running.wait_ready()
        user = running.sent("geo")
        running.reload(settings(vault))
        time.sleep(0.5)
        assert vault.is_alive(user)
        assert vault.calls("revoke") == []
        assert running.engine.close(PATIENCE)
    assert not vault.is_alive(user)


def test_what_is_dropped_and_added_again_gets_a_new_lease(vault: FakeVault) -> None:
    """The old one drains beside it, and only the old one is revoked."""
    both = settings(vault, pay=database("pay"), geo=database("geo"))
    with Running(both) as running:
        running.wait_ready()
        old = running.sent("geo")
        running.reload(settings(vault))
        running.reload(both)
        assert wait_until(lambda: running.sent("geo").startswith("v-"))
        assert running.sent("geo") != old
        assert wait_until(lambda: not vault.is_alive(old))
        running.settle()
        assert vault.is_alive(running.sent("geo"))


def test_what_is_dropped_while_its_login_is_out_leaves_no_lease(vault: FakeVault) -> None:
    """The answer comes for nobody and is revoked."""
    both = settings(vault, pay=database("pay"), geo=database("geo"))
    go = threading.Event()
    vault.fault(faults.held(go), "database/creds/geo")
    with Running(both) as running:
        assert wait_until(lambda: len(vault.calls("database/creds/geo")) == 1)
        running.reload(settings(vault))
        go.set()
        assert wait_until(lambda: len(vault.issued) == 2)
        assert wait_until(lambda: len(vault.live_leases()) == 1)
        running.settle()


def test_what_is_dropped_while_its_renewal_waits_is_revoked(vault: FakeVault) -> None:
    """A renewal that nobody had time to send does not hide the lease from its revocation."""
    names = ("a", "b", "c")  # three workers for leases
    for name in names:
        vault.set_creds(f"database/creds/{name}")
    vault.set_creds("database/creds/geo", ttl=6.0)
    hung = {name: database(name) for name in names}
    document = settings(vault, pay=database("pay"), geo=database("geo"), **hung)
    with Running(document) as running:
        running.wait_ready()
        user = running.sent("geo")
        geo = running.engine.keeper._stages["production"].leases.shared["geo"]
        go = threading.Event()
        rule = vault.fault(faults.held(go), "database/creds/")
        for name in names:
            running.engine.keeper.rotate(name)
        assert wait_until(lambda: geo.machine.state.value == "renewing")
        assert vault.is_alive(user)
        running.reload(settings(vault, pay=database("pay"), **hung))
        rule.times = 0
        go.set()
        running.settle()
        # Where its time was up first: that began for us before it began for Vault.
        assert wait_until(lambda: not vault.is_alive(user))
    assert len(vault.calls("sys/leases/renew")) == 0
    assert (
        len(running.named(events.REVOKED, "geo")) + len(running.named(events.EXPIRED, "geo")) == 1
    )


# --- readiness ---


def test_a_required_upstream_that_becomes_optional_does_not_hold_up(vault: FakeVault) -> None:
    """What waited for nothing but this is ready, without another call."""
    vault.deny("database/creds/geo")
    document = settings(vault, pay=database("pay"), geo=database("geo"))
    mended = settings(vault, pay=database("pay"), geo=database("geo", optional=True))
    with Running(document) as running:
        assert wait_until(lambda: running.sent().startswith("v-"))
        assert not running.engine.ready
        running.reload(mended)
        assert running.engine.ready


def test_dropping_what_was_waited_for_makes_ready(vault: FakeVault) -> None:
    """The upstream that never came is taken out of the file."""
    vault.deny("database/creds/geo")
    with Running(settings(vault, pay=database("pay"), geo=database("geo"))) as running:
        assert wait_until(lambda: running.sent().startswith("v-"))
        assert not running.engine.ready
        running.reload(settings(vault))
        assert running.engine.ready


def test_an_optional_upstream_that_becomes_required_is_waited_for(vault: FakeVault) -> None:
    """What has started stays so, with any new upstream; it is ready again when that has its credential."""
    vault.deny("database/creds/")
    optional = settings(vault, pay=database("pay"), geo=database("geo", optional=True))
    required = settings(vault, pay=database("pay"), geo=database("geo"))
    with Running(optional) as running:
        assert wait_until(lambda: len(running.named(events.FAILED)) >= 2)
        running.reload(required)
        vault.allow("database/creds/")
        vault.deny("database/creds/geo")
        assert wait_until(lambda: running.sent().startswith("v-"))
        assert not running.engine.ready
        vault.heal()
        vault.allow("database/creds/geo")
        running.wait_ready()
        running.reload({**required, "upstreams": {**required["upstreams"], "new": kv("nowhere")}})
        assert wait_until(lambda: bool(running.named(events.FAILED, "new")))
        assert running.engine.started
        assert not running.engine.ready
        vault.put_kv("secret/nowhere", {"key": "here"})
        running.wait_ready()
