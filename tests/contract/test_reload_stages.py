"""A reload that changes logins, or that comes often, late or with the end; see also test_reload."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST, write
from tests.contract.running import (
    LATER,
    NO_UPSTREAM,
    Load,
    Running,
    approle,
    changed,
    configured,
    database,
    fake,
    kv,
    settings,
    two_stages,
)
from tests.patience import PATIENCE
from vaultauthz.core import events
from vaultauthz.core.events import Event
from vaultauthz.core.request import Request
from vaultauthz.engine import Engine


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with fake() as made:
        yield made


@pytest.fixture
def other() -> Iterator[FakeVault]:
    with fake() as made:
        made._numbers = itertools.count(1001)  # no two Vaults make the same accessor
        yield made


# --- stages that come and go ---


def test_a_stage_that_comes_and_goes(vault: FakeVault) -> None:
    """It has a login and threads of its own; at the end its token is revoked, the threads end."""
    with Running(settings(vault)) as running:
        running.wait_ready()
        (token,), threads, old = vault.live_tokens(), running.threads(), running.sent()
        running.reload(two_stages(vault))
        assert wait_until(lambda: running.sent(stage="staging").startswith("v-"))
        assert len(running.threads()) == len(threads) + 4
        user = running.sent(stage="staging")
        running.reload(settings(vault))
        assert running.sent(stage="staging") == NO_UPSTREAM
        assert {row.stage for row in running.engine.keeper.rows()} == {"production"}
        assert running.engine.keeper.rotate("pay", "staging") == ()
        assert vault.is_alive(user)
        assert wait_until(lambda: not vault.is_alive(user))
        running.settle()
        assert [t.accessor for t in vault.live_tokens()] == [token.accessor]
        assert wait_until(lambda: running.threads() == threads)
        assert wait_until(lambda: len(running.engine.keeper._threads) == len(threads))
        assert running.sent() == old
        assert {place[0] for place in running.engine._sources} == {"production"}
        names = [(e.name, e.upstream) for e in running.events if e.stage == "staging"]
        assert names == [
            (events.LOGIN, ""),
            (events.ISSUED, "pay"),
            (events.REVOKED, "pay"),
            (events.TOKEN_REVOKED, ""),
        ]


def test_a_stage_that_is_dropped_and_added_again_at_once(vault: FakeVault) -> None:
    """The old one still drains, is revoked and ends its threads, beside the new one."""
    with Running(two_stages(vault)) as running:
        running.wait_ready()
        old, threads = running.sent(stage="staging"), running.threads()
        running.reload(settings(vault))
        running.reload(two_stages(vault))
        assert wait_until(lambda: running.sent(stage="staging").startswith("v-"))
        assert running.sent(stage="staging") != old
        assert wait_until(lambda: not vault.is_alive(old))
        running.settle()
        assert len(vault.live_tokens()) == 2
        assert wait_until(lambda: running.threads() == threads)
        assert running.engine.close(PATIENCE)
    assert (vault.live_tokens(), vault.live_leases()) == ([], [])


def test_stop_while_a_stage_drains_revokes_it_too(vault: FakeVault) -> None:
    """Also when another of the same name has taken its place."""
    with Running(two_stages(vault), LATER) as running:
        running.wait_ready()
        running.reload(settings(vault))
        running.reload(two_stages(vault))
        running.wait_ready()
        assert wait_until(lambda: len(vault.live_tokens()) == 3)
        assert running.engine.close(PATIENCE)
        assert running.threads() == []
    assert (vault.live_tokens(), vault.live_leases()) == ([], [])


def test_a_stage_that_cannot_log_in_can_be_dropped(vault: FakeVault) -> None:
    """Nothing was ever leased there: its threads end, and it is not heard of any more."""
    document = two_stages(vault)
    document["stages"]["staging"] = approle("wrong")
    with Running(document) as running:
        assert wait_until(lambda: bool(running.named(events.FAILED)))
        assert wait_until(lambda: running.sent(stage="production").startswith("v-"))
        running.reload(settings(vault))
        running.settle()
        assert wait_until(lambda: len(running.threads()) == 5)
        assert running.engine.ready


# --- another login ---


def test_another_role_logs_in_anew_and_the_leases_move(vault: FakeVault) -> None:
    """No request is lost; the old token is revoked when nothing hangs on it any more."""
    vault.set_approle("other", "another-id")
    document = settings(vault, pay=database("pay"), geo=kv("one"))
    auth = {"role_id": "other", "secret_id": "another-id"}
    new = changed(document, lambda d: d["stages"]["production"]["auth"].update(auth))
    vault.set_approle(token_ttl=6.0)  # of which the half is how long leases take to move
    with Running(document) as running:
        running.wait_ready()
        (old,), user = vault.live_tokens(), running.sent()
        vault.set_approle()
        with Load(running, vault) as load:
            running.reload(new)
            assert wait_until(lambda: bool(running.named(events.TOKEN_REVOKED)))
            load.see(2)
        assert (load.denied, load.dead, len(load.seen)) == ([], [], 2)
        assert running.named(events.TOKEN_REVOKED)[0].lease_id == old.accessor
        assert user in load.seen
        (token,) = vault.live_tokens()
        assert {lease.accessor for lease in vault.live_leases()} == {token.accessor}
        assert running.sent("geo") == "one-1"


def test_a_login_that_is_refused_leaves_the_old_one(vault: FakeVault) -> None:
    """The old token goes on, its leases are renewed; the refused one is tried once."""
    vault.set_creds("database/creds/pay", ttl=4.0)
    document = settings(vault)
    broken = changed(document, lambda d: d["stages"].update(production=approle("wrong")))
    with Running(document) as running:
        running.wait_ready()
        (old,) = vault.live_tokens()
        with Load(running, vault) as load:
            running.reload(broken)
            assert wait_until(lambda: len(running.named(events.FAILED)) == 1)
            assert wait_until(lambda: len(running.named(events.RENEWED)) >= 2)
        assert (load.denied, load.dead) == ([], [])
        assert len(vault.calls("/login")) == 2
        running.reload(document)
        assert wait_until(lambda: len(vault.live_tokens()) == 2)
        assert running.engine.close(PATIENCE)
    assert old.accessor in {e.lease_id for e in running.named(events.TOKEN_REVOKED)}
    assert vault.live_tokens() == []


def test_another_way_to_the_same_vault(vault: FakeVault) -> None:
    """Nobody logs in or fetches again, and the next calls go the new way."""
    vault.set_approle(token_ttl=6.0)
    document = settings(vault)
    with Running(document) as running:
        running.wait_ready()
        old, calls = running.sent(), len(vault.calls("login"))
        document["vault"]["timeout"] = "9s"
        running.reload(document)
        tokens = running.engine.keeper._stages["production"].tokens
        assert tokens.token is not None
        assert tokens.token.source is tokens.source
        assert tokens.source._vault.timeout == 9.0
        assert wait_until(lambda: bool(vault.calls("renew-self")))
        assert (running.sent(), len(vault.calls("login"))) == (old, calls)
        assert running.engine.close(PATIENCE)
    assert (vault.live_tokens(), vault.live_leases()) == ([], [])


def test_another_vault(vault: FakeVault, other: FakeVault) -> None:
    """Leases move there; the old ones and the old token are revoked where they are known."""
    vault.set_approle(token_ttl=6.0)
    document = settings(vault)
    with Running(document) as running:
        running.wait_ready()
        old = running.sent()
        with Load(running, vault, other) as load:
            running.reload(settings(other))
            assert wait_until(lambda: other.is_alive(running.sent()))
            assert wait_until(lambda: not vault.is_alive(old))
            assert wait_until(lambda: vault.live_tokens() == [])
            load.see(2)
        assert (load.denied, load.dead, len(load.seen)) == ([], [], 2)
        assert [e.lease_id for e in running.named(events.REVOKED)] == [
            heard.body["lease_id"] for heard in vault.calls("sys/leases/revoke")
        ]
        assert other.calls("revoke") == []
        assert running.engine.close(PATIENCE)
    assert (other.live_tokens(), other.live_leases()) == ([], [])


@pytest.mark.parametrize("how", ["alive", "gone", "dead token"])
def test_static_secrets_are_read_at_the_other_vault(
    vault: FakeVault, other: FakeVault, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose versions begin anew, and also when nothing of the first Vault works any more."""
    monkeypatch.setattr("vaultauthz.core.calls.LATELY", 0.0)  # each failure counts at once
    vault.set_approle(token_ttl=4.0)
    for number in (2, 3):
        vault.put_kv("secret/one", {"key": f"one-{number}"})
    other.put_kv("secret/two", {"key": "two-2"})
    with Running(settings(vault, pay=kv("one"))) as running:
        running.wait_ready()
        if how == "gone":
            vault.stop()
        elif how == "dead token":
            vault.kill_token(vault.live_tokens()[0].accessor)
            vault.set_approle("nobody")
            vault.roles.pop(("approle", "gateway"))
            running.engine.keeper.rotate("pay")
            assert wait_until(lambda: bool(running.named(events.TOKEN_LOST)))
        with Load(running) as load:
            running.reload(settings(other, pay=kv("one")))
            load.see(2)
        assert (load.seen, load.denied) == (["one-3", "one-1"], [])
        other.put_kv("secret/one", {"key": "one-2"})
        running.engine.keeper.rotate("pay")
        assert wait_until(lambda: running.sent() == "one-2")
        if how == "gone":  # what fails at the first Vault does not slow the second
            calls = running.engine.keeper._stages["production"].calls
            assert wait_until(lambda: calls.flow_before._strikes >= 3)
            assert (calls.flow._strikes, calls.flow._out) == (0, 0)


def test_the_same_token_at_another_address(vault: FakeVault, tmp_path: Path) -> None:
    """A cluster that is to be reached by another name: from now on it is asked there."""
    accessor = vault.add_token("hvs.agent")
    path = write(tmp_path / "token", "hvs.agent")
    path.chmod(0o600)
    document = settings(vault, pay=kv("one"), geo=database("geo"))
    document["stages"]["production"] = {"auth": {"method": "token_file", "path": str(path)}}
    with FakeVault() as twin:
        twin.put_kv("secret/one", {"key": "from the twin"})
        twin.add_token("hvs.agent", accessor=accessor)
        twin.set_creds("database/creds/geo")
        new = changed(document, lambda d: d["vault"].update(address=twin.address))
        with Running(document) as running:
            running.wait_ready()
            running.reload(new)
            assert wait_until(lambda: len(twin.calls("lookup-self")) == 1)
            vault.stop()
            running.engine.keeper.rotate("pay")
            running.engine.keeper.rotate("geo")
            assert wait_until(lambda: running.sent() == "from the twin")
            assert wait_until(lambda: twin.is_alive(running.sent("geo")))


@pytest.mark.parametrize("direction", ["to a token file", "to a role"])
def test_stop_just_after_another_kind_of_login(
    vault: FakeVault, tmp_path: Path, direction: str
) -> None:
    """Each lease ends, by its own revocation or with a token of ours; the foreign token stays."""
    foreign = vault.add_token("hvs.agent")
    path = write(tmp_path / "token", "hvs.agent")
    path.chmod(0o600)
    role = settings(vault, pay=database("pay"), geo=database("geo"))
    file = {"auth": {"method": "token_file", "path": str(path)}}
    sink = changed(role, lambda d: d["stages"].update(production=file))
    first, second = (role, sink) if direction == "to a token file" else (sink, role)
    with Running(first, LATER) as running:
        running.wait_ready()
        tokens = len(vault.live_tokens())
        running.reload(second)
        login = running.engine.keeper._stages["production"].login.machine
        assert wait_until(lambda: len(login.retired) == 1)
        running.engine.keeper.rotate("pay")  # one lease of each login; the other moves later
        assert wait_until(lambda: len({lease.accessor for lease in vault.live_leases()}) == 2)
        assert tokens
        assert running.engine.close(PATIENCE)
        assert vault.live_leases() == []
        assert [token.accessor for token in vault.live_tokens()] == [foreign]
        assert running.threads() == []


# --- many, at once, and the end ---


def test_fifty_reloads_under_load_leave_nothing_behind(vault: FakeVault) -> None:
    """Upstreams and a stage come and go: no request lost, no runner, thread or plan kept."""
    pay, here = database("pay", stages=["production"]), {"stages": ["production"]}
    small = settings(vault, pay=pay, key=kv("one", **here))
    large = {**small, "stages": two_stages(vault)["stages"]}
    more = {"geo": database("geo"), "more": kv("one", strip=["X-Debug"])}
    large["upstreams"] = {"pay": pay, "key": kv("two", **here), **more}
    with Running(small) as running:
        running.wait_ready()
        threads = running.threads()
        with Load(running, vault) as load, Load(running, upstream="key") as keys:
            for number in range(50):
                running.reload(large if number % 2 == 0 else small)
                time.sleep(0.02)
        assert (load.denied, load.dead, len(load.seen)) == ([], [], 1)
        assert (keys.denied, set(keys.seen) <= {"one-1", "two-1"}) == ([], True)
        running.settle()
        keeper = running.engine.keeper
        assert wait_until(lambda: running.threads() == threads)
        assert wait_until(lambda: len(keeper._threads) == len(threads))
        assert {r.upstream for r in keeper.rows()} == {"", "pay", "key"}
        assert len(keeper._awaited) == 0
        with keeper.lock:
            stage = keeper._stages["production"]
            leases = stage.leases
            assert (len(leases.shared), leases.leaving, stage.calls.waiting) == (2, [], 0)
            planned = {
                entry[2] for entry in keeper._waker.agenda._heap if entry[0] == entry[2].scheduled
            }
        assert len(planned) <= 3
        assert len(vault.live_tokens()) == 1
        assert len(vault.live_leases()) == 1
    assert vault.overlaps - {"auth/token/lookup-self", "auth/approle/login"} == set()


def test_a_reload_after_the_end_does_nothing(vault: FakeVault) -> None:
    """No thread, no login: whoever closes has the last word."""
    with Running(settings(vault)) as running:
        running.wait_ready()
        assert running.engine.close(PATIENCE)
        calls = len(vault.heard)
        assert not running.reload(two_stages(vault))
        time.sleep(0.2)
        assert (len(vault.heard), running.threads()) == (calls, [])
        assert running.sent() == NO_UPSTREAM


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.1])
def test_reloads_and_the_end_at_the_same_time(vault: FakeVault, after: float) -> None:
    """Whichever comes first: everything is revoked and nothing runs on."""
    with Running(settings(vault, pay=database("pay"), key=kv("one"))) as running:
        running.wait_ready()
        stop = threading.Event()

        def reload() -> None:
            for document in itertools.cycle((two_stages(vault), settings(vault))):
                if stop.is_set():
                    return
                running.reload(document)

        thread = threading.Thread(target=reload, daemon=True)
        thread.start()
        time.sleep(after)
        assert running.engine.close(PATIENCE)
        calls = len(vault.heard)
        time.sleep(0.05)
        stop.set()
        thread.join()
        assert running.sent() == NO_UPSTREAM
        assert wait_until(lambda: running.threads() == [])
        assert len(vault.heard) == calls
        assert (vault.live_tokens(), vault.live_leases()) == ([], [])


def test_a_listener_that_fails_does_not_hurt_a_reload(vault: FakeVault) -> None:
    """What was taken over is taken over, and the caller hears nothing of it."""

    def listener(event: Event) -> None:
        if event.name == events.RELOADED:
            raise RuntimeError(event.name)

    engine = Engine(configured(settings(vault)), [], [listener], FAST)
    with engine:
        assert wait_until(lambda: engine.ready)
        assert engine.reload(configured({**settings(vault), "unmatched": "pass"}))
        assert engine.check(Request("test", host="other.test")).allowed


def test_what_is_read_at_start_only_is_told_until_it_is_as_at_the_start(vault: FakeVault) -> None:
    """The address it listens on: at each reload while it differs, and not when it is back."""
    document = settings(vault)
    moved = {**document, "listen": {"grpc": "127.0.0.1:9"}}
    with Running(document) as running:
        told = [running.reload(d).at_restart for d in (moved, moved, document, document)]
    assert told == [("listen",), ("listen",), (), ()]
