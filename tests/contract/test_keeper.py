"""The keeper with real threads against the fake: readiness, bounds, tokens, what survives."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import faults
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import FAST, ROLE, STAGE, House, Traffic, database, key, upstream, write
from tests.patience import PATIENCE
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.forms.query import Query
from vaultauthz.config.values import PathSecret, Vault
from vaultauthz.core import events
from vaultauthz.core.credential import Login
from vaultauthz.core.grant import Grant
from vaultauthz.core.secret import Secret
from vaultauthz.core.template import Template
from vaultauthz.leases.clock import boottime
from vaultauthz.leases.keeper import Keeper
from vaultauthz.leases.runner import Runner
from vaultauthz.leases.stage import StageRunner
from vaultauthz.vault.session import Session


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role and the databases ``pay`` and ``geo``."""
    with FakeVault() as fake:
        fake.set_approle()
        fake.set_creds("database/creds/pay")
        fake.set_creds("database/creds/geo")
        yield fake


def ready(house: House) -> bool:
    return house.keeper.ready


def session(vault: FakeVault, auth: AuthMethod = ROLE, timeout: float = PATIENCE) -> Session:
    return Session(Vault(vault.address, timeout=timeout), auth, boottime)


# --- readiness ---


def test_ready_when_every_required_upstream_has_had_its_credential(vault: FakeVault) -> None:
    """One that is denied holds readiness back, an optional one does not; the start, once over, stays."""
    vault.deny("database/creds/geo")
    vault.deny("database/creds/extra")
    vault.set_creds("database/creds/pay", ttl=1.0, renewable=False)
    upstreams = [database("pay"), database("geo"), database("extra", optional=True)]
    with House(vault, upstreams) as house:
        assert wait_until(lambda: house.sent("pay") is not None)
        assert wait_until(lambda: len(vault.calls("database/creds/")) >= 3)
        missing = [row.upstream for row in house.keeper.waiting()]
        assert sorted(missing) == ["extra", "geo"]
        assert not ready(house)
        vault.allow("database/creds/geo")
        assert wait_until(lambda: ready(house))
        vault.stop()
        assert wait_until(lambda: house.sent("pay") is None)
        assert not ready(house)
        assert house.keeper.started
    assert not house.keeper.started


def test_a_stage_that_cannot_log_in_does_not_hurt_another(vault: FakeVault) -> None:
    """Production works while staging's login is refused, hangs or has no file."""
    hanging = FakeVault()
    hanging.fault(faults.hang())
    with hanging:
        stages = [
            ("refused", session(vault, AppRole("gateway", Secret("wrong")))),
            ("hanging", session(hanging, timeout=0.3)),
            ("fileless", session(vault, AppRole("gateway", secret_id_file=Path("/no/such")))),
            (STAGE, session(vault)),
        ]
        names = tuple(name for name, _ in stages)
        pay = upstream("pay", PathSecret("database/creds/pay"), stages=names)
        with House(vault, [pay], stages=stages) as house:
            assert wait_until(lambda: house.sent("pay") is not None)
            with Traffic(house, vault, "pay") as traffic:
                calls = len(hanging.calls("/login"))
                assert wait_until(lambda: len(hanging.calls("/login")) >= calls + 2)
                assert wait_until(lambda: traffic.count >= 50)
            assert (traffic.none, traffic.dead) == (0, [])
            assert [house.sent("pay", name) for name in names[:3]] == [None] * 3
            assert not house.keeper.ready


def test_a_thousand_upstreams_come_up(vault: FakeVault) -> None:
    """Each is asked for once, four at a time, and there is one login."""
    names = [f"u{number}" for number in range(1000)]
    for name in names:
        vault.set_creds(f"database/creds/{name}")
    with House(vault, [database(name) for name in names]) as house:
        assert wait_until(lambda: house.keeper.ready)
        assert len({house.sent(name) for name in names}) == 1000
        assert len(vault.calls("database/creds/")) == 1000
        assert len(vault.calls("/login")) == 1
        assert vault.most_at_once <= 4


# --- bounds ---


def test_at_most_four_calls_at_once_and_one_for_a_lease(vault: FakeVault) -> None:
    """Also with slow answers, leases and a token of a second, and somebody who rotates."""
    renewed = "sys/leases/renew"
    names = [f"u{number}" for number in range(12)]
    for name in names:
        vault.set_creds(f"database/creds/{name}", ttl=1.0)
    vault.set_approle(token_ttl=1.0)
    vault.fault(faults.latency(0.03))
    with House(vault, [database(name) for name in names]) as house:

        def renewals() -> int:
            for name in names[:3]:
                house.keeper.rotate(name)
            return len(vault.calls(renewed))

        assert wait_until(lambda: renewals() > 40)
    assert 2 <= vault.most_at_once <= 4
    assert vault.overlaps - {"auth/token/lookup-self"} == set()


def test_an_outage_is_asked_about_with_pauses(vault: FakeVault) -> None:
    """While Vault answers 500, calls for one lease are never closer than the floor."""
    vault.fault(faults.status(500), "database/creds/pay")
    with House(vault, [database("pay")]) as house:
        assert wait_until(lambda: len(vault.calls("database/creds/pay")) >= 4)
        house.keeper.rotate("pay")
        assert wait_until(lambda: len(vault.calls("database/creds/pay")) >= 6)
    times = [heard.at for heard in vault.calls("database/creds/pay")]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) >= FAST.backoff_floor


# --- leases ---


def test_a_lease_is_asked_for_and_renewed_by_as_much_as_configured(vault: FakeVault) -> None:
    """``ttl`` goes along with the fetch, in a read and a write, and ``increment`` with a renewal."""
    vault.set_creds("database/creds/pay", ttl=3.0)
    vault.set_creds("pki/issue/web", ttl=60.0)
    pay = upstream("pay", PathSecret("database/creds/pay", ttl=1200.0, increment=2.0))
    web = upstream("web", PathSecret("pki/issue/web", True, (("common_name", "a"),), ttl=60.0))
    with House(vault, [pay, web]) as house:
        assert wait_until(lambda: ready(house))
        assert wait_until(lambda: bool(house.named(events.RENEWED, "pay")))
    assert vault.calls("database/creds/pay")[0].query == {"ttl": "1200s"}
    assert vault.calls("pki/issue/web")[0].body == {"common_name": "a", "ttl": "60s"}
    assert {heard.body["increment"] for heard in vault.calls("leases/renew")} == {2}


def test_an_outage_ends_a_lease_but_never_serves_it_dead(vault: FakeVault) -> None:
    """Vault away: the lease is used to its end, then nothing; back: a new one, and no more."""
    vault.set_creds("database/creds/pay", ttl=3.0)
    with House(vault, [database("pay")]) as house:
        assert wait_until(lambda: ready(house))
        with Traffic(house, vault, "pay") as traffic:
            vault.stop()
            assert wait_until(lambda: house.sent("pay") is None)
            # No request sets out in its last moment, in which it may still be renewed.
            assert wait_until(lambda: bool(house.named(events.EXPIRED, "pay")))
            vault.set_creds("database/creds/pay")
            vault.start()
            assert wait_until(lambda: house.sent("pay") is not None)
    assert traffic.dead == []
    assert len(vault.issued) == 2


@pytest.mark.parametrize(
    "fields", [{"password": ...}, {"password": "a\r\nX-Evil: 1"}, {"password": "\ud800"}]
)
def test_an_unusable_secret_is_revoked_and_the_old_one_kept(
    vault: FakeVault, fields: dict[str, Any]
) -> None:
    """A field that is missing, ends the header or is no text: its lease does not stay behind."""
    with House(vault, [database("pay")]) as house:
        assert wait_until(lambda: ready(house))
        before = house.sent("pay")
        vault.set_creds("database/creds/pay", fields=fields)
        house.keeper.rotate("pay")
        assert wait_until(lambda: len(vault.issued) >= 2)
        assert wait_until(lambda: len(vault.live_leases()) == 1)
        assert house.sent("pay") == before
        vault.set_creds("database/creds/pay")
        assert wait_until(lambda: house.sent("pay") not in (before, None))


def test_a_new_key_arrives_and_an_old_one_never_comes_back(vault: FakeVault) -> None:
    """KV is read on its schedule; a standby that lags does not bring the last version back."""
    vault.put_kv("secret/key", {"key": "k-1"})
    with House(vault, [key("key")]) as house:
        assert wait_until(lambda: house.sent("key") == "k-1")
        vault.put_kv("secret/key", {"key": "k-2"})
        assert wait_until(lambda: house.sent("key") == "k-2")
        vault.serve_stale("secret/key", 1)
        since = time.monotonic()
        assert wait_until(lambda: len(vault.calls("secret/data/key", since)) >= 3)
        assert house.sent("key") == "k-2"
        vault.serve_stale("secret/key", None)
        vault.delete_kv("secret/key")
        assert wait_until(lambda: house.sent("key") is None)


# --- the login token ---


def test_a_token_that_is_dead_at_once_is_no_reason_to_log_in_all_the_time(
    vault: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is bound to another address: the logins are paced like failed calls."""
    vault.set_creds("database/creds/pay")
    for path in ("database/", "auth/token/"):
        vault.fault(faults.status(403, "permission denied"), path)
    names = [f"u{number}" for number in range(8)]
    with House(vault, [database(name) for name in names]):
        assert wait_until(lambda: len(vault.calls("approle/login")) >= 6)
    times = [heard.at for heard in vault.calls("approle/login")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps[1:]) >= FAST.backoff_floor  # the first time, at once
    assert "token_bound_cidrs" in caplog.text


@pytest.mark.parametrize("file", [False, True])
def test_a_token_that_is_good_for_a_few_requests_is_told(
    vault: FakeVault, caplog: pytest.LogCaptureFixture, tmp_path: Path, file: bool
) -> None:
    """With the setting, once in a while; whoever reads the log need not run doctor first."""
    vault.set_creds("database/creds/pay")
    (tmp_path / "token").write_text("hvs.of-an-agent")
    vault.add_token("hvs.of-an-agent")
    part, path = ("data", "lookup-self") if file else ("auth", "approle/login")
    vault.fault(faults.mangled(lambda answer: _with_uses(answer, part)), path)
    auth = TokenFile(tmp_path / "token") if file else ROLE
    with House(vault, [database("pay")], auth=auth) as house:
        assert wait_until(lambda: house.sent("pay") is not None)
        house.keeper.change_stage(STAGE, house.keeper.session(STAGE))
        assert wait_until(lambda: len(vault.calls(path)) == 2)
    (line,) = [r.getMessage() for r in caplog.records if "num_uses" in r.getMessage()]
    assert "login of stage production: the token is good for 3 requests only" in line
    assert "token_num_uses=0" in line


def _with_uses(answer: dict[str, Any], part: str) -> dict[str, Any]:
    return answer | {part: answer[part] | {"num_uses": 3}}


def test_an_old_token_is_revoked_when_its_last_lease_has_drained(
    vault: FakeVault, tmp_path: Path
) -> None:
    """A new secret_id: a new login; the old token lives for as long as a lease hangs on it."""
    secret_id = write(tmp_path / "secret_id", "s3cr3t-id")
    auth = AppRole("gateway", secret_id_file=secret_id)
    with House(vault, [database("pay"), database("geo")], auth=auth) as house:
        assert wait_until(lambda: ready(house))
        (old,) = vault.live_tokens()
        write(secret_id, "s3cr3t-id")
        assert wait_until(lambda: len(house.named(events.LOGIN)) == 2)
        house.keeper.rotate("pay")  # else it would move some time within a minute
        assert wait_until(lambda: bool(house.named(events.REVOKED, "pay")))
        time.sleep(1.5)  # more than a look round
        assert old in vault.live_tokens()
        house.keeper.rotate("geo")
        with Traffic(house, vault, "pay", "geo") as traffic:
            assert wait_until(lambda: bool(house.named(events.TOKEN_REVOKED)))
        assert (traffic.dead, traffic.none) == ([], 0)
        assert house.named(events.TOKEN_REVOKED)[0].lease_id == old.accessor
        assert house.named(events.TOKEN_LOST) == []


def test_what_was_fetched_with_a_token_that_was_replaced_meanwhile_moves_too(
    vault: FakeVault, tmp_path: Path
) -> None:
    """A slow answer brings a lease of the old token: it is rotated, then the old token revoked."""
    secret_id = write(tmp_path / "secret_id", "s3cr3t-id")
    auth = AppRole("gateway", secret_id_file=secret_id)
    go = threading.Event()
    vault.fault(faults.held(go), "database/creds/geo", times=1)
    with House(vault, [database("pay"), database("geo")], auth=auth) as house:
        assert wait_until(lambda: len(vault.calls("database/creds/geo")) == 1)
        assert wait_until(lambda: house.sent("pay") is not None)
        (old,) = vault.live_tokens()
        write(secret_id, "s3cr3t-id")
        assert wait_until(lambda: len(house.named(events.LOGIN)) == 2)
        go.set()
        house.keeper.rotate("pay")  # else it would move some time within a minute
        with Traffic(house, vault, "geo") as traffic:
            assert wait_until(lambda: bool(house.named(events.TOKEN_REVOKED)))
        assert traffic.dead == []
        assert len(vault.calls("database/creds/geo")) == 2
        (token,) = vault.live_tokens()
        assert token.accessor != old.accessor
        assert {lease.accessor for lease in vault.live_leases()} == {token.accessor}


def test_a_file_that_changes_while_a_login_is_out_is_read_after_it(
    vault: FakeVault, tmp_path: Path
) -> None:
    """The login that is out may have read the old content; the change is not forgotten."""
    secret_id = write(tmp_path / "secret_id", "wrong")
    vault.fault(faults.latency(1.8), "/login", times=1)
    auth = AppRole("gateway", secret_id_file=secret_id)
    with House(vault, [database("pay")], auth=auth) as house:
        assert wait_until(lambda: len(vault.calls("/login")) == 1)
        write(secret_id, "s3cr3t-id")
        assert wait_until(lambda: ready(house))
        assert len(vault.calls("/login")) == 2


def test_a_file_that_is_not_there_yet_is_read_when_it_comes(
    vault: FakeVault, tmp_path: Path
) -> None:
    """Nothing is sent before, and it doesn't take a backoff's minute afterwards."""
    auth = AppRole("gateway", secret_id_file=tmp_path / "secret_id")
    slow = FAST.__class__(backoff_floor=30.0, backoff_cap=60.0)
    with House(vault, [database("pay")], auth=auth, pace=slow) as house:
        assert wait_until(lambda: bool(house.named(events.FAILED)))
        assert vault.heard == []
        write(tmp_path / "secret_id", "s3cr3t-id")
        login = house.keeper._stages[STAGE].login
        assert wait_until(lambda: login.machine.due <= boottime())


def test_a_token_file_is_followed_and_its_tokens_left_alone(
    vault: FakeVault, tmp_path: Path
) -> None:
    """New content is picked up, leases move; another program's tokens are not renewed or revoked."""
    path = write(tmp_path / "token", "hvs.agent-1")
    vault.add_token("hvs.agent-1")
    with House(vault, [database("pay")], auth=TokenFile(path)) as house:
        assert wait_until(lambda: ready(house))
        with Traffic(house, vault, "pay") as traffic:
            vault.add_token("hvs.agent-2")
            write(path, "hvs.agent-2")
            # In use, not only asked for: what is rotated before that moves twice.
            assert wait_until(lambda: len(house.named(events.LOGIN)) == 2)
            assert len(vault.calls("lookup-self")) == 2
            house.keeper.rotate("pay")  # else it would move some time within a minute
            assert wait_until(lambda: len(traffic.seen["pay"]) == 2)
            assert wait_until(lambda: len(vault.live_leases()) == 1)
            time.sleep(1.5)  # a look round, at which the old token would be let go
        assert (traffic.dead, traffic.none) == ([], 0)
        assert house.keeper.stop(PATIENCE)
    assert vault.calls("auth/token/re") == []
    assert house.named(events.TOKEN_REVOKED) == []
    assert len(vault.live_tokens()) == 2
    assert vault.live_leases() == []


def test_a_token_that_comes_back_is_used_again(vault: FakeVault, tmp_path: Path) -> None:
    """A standby that did not know the token yet made it look dead; later it is the same one."""
    path = write(tmp_path / "token", "hvs.agent")
    accessor = vault.add_token("hvs.agent")
    with House(vault, [database("pay")], auth=TokenFile(path)) as house:
        assert wait_until(lambda: ready(house))
        vault.kill_token(accessor)
        house.keeper.rotate("pay")
        assert wait_until(lambda: house.sent("pay") is None)
        vault.add_token("hvs.agent", accessor=accessor)
        assert wait_until(lambda: vault.is_alive(house.sent("pay") or ""))


# --- the end ---


def test_stop_revokes_the_token_and_ends_the_threads(vault: FakeVault) -> None:
    """One call takes all leases along; afterwards nothing is served, asked or running."""
    with House(vault, [database("pay"), database("geo")]) as house:
        assert wait_until(lambda: ready(house))
        assert house.keeper.stop(PATIENCE)
        assert (vault.live_tokens(), vault.live_leases()) == ([], [])
        assert vault.calls("sys/leases/revoke") == []
        assert (house.sent("pay"), house.sent("geo")) == (None, None)
        assert wait_until(lambda: house.alive() == [])
        assert house.keeper.stop(PATIENCE)
    assert len(house.named(events.TOKEN_REVOKED)) == 1


@pytest.mark.parametrize("whose", ["own", "foreign"])
@pytest.mark.parametrize("how", ["down", "hangs"])
def test_stop_is_bounded_when_vault_does_not_answer(
    vault: FakeVault, tmp_path: Path, whose: str, how: str
) -> None:
    """It says False, does not wait for a call that is out, and the threads end with that."""
    vault.add_token("hvs.agent")
    auth: AuthMethod = ROLE if whose == "own" else TokenFile(write(tmp_path / "token", "hvs.agent"))
    with House(vault, [database("pay"), database("geo")], auth=auth) as house:
        assert wait_until(lambda: ready(house))
        if how == "down":
            vault.stop()
        else:
            vault.fault(faults.hang())
        house.keeper.rotate("pay")
        if how == "hangs":
            assert wait_until(lambda: len(vault.calls("database/creds/pay")) == 2)
        assert not house.keeper.stop(0.5)
        if how == "hangs":
            assert house.alive() != []  # it had gone on while a call was out
            vault.stop()
        assert house.sent("geo") is None
        assert wait_until(lambda: house.alive() == [])


def test_many_hanging_stages_stop_together(
    vault: FakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that stop takes does not add up over the stages: they share one deadline."""
    deadlines: list[float] = []
    settled = StageRunner.settled

    def noted(stage: StageRunner, revoking: Iterable[Runner], deadline: float) -> bool:
        deadlines.append(deadline)
        return settled(stage, revoking, deadline)

    monkeypatch.setattr(StageRunner, "settled", noted)
    vault.fault(faults.hang())
    # Each its own role, as those of one name log in one after the other.
    stages = [
        (f"s{number}", session(vault, AppRole(f"gateway-{number}", Secret("s3cr3t-id"))))
        for number in range(30)
    ]
    with House(vault, [], stages=stages) as house:
        assert wait_until(lambda: len(vault.calls("/login")) == 30)
        assert not house.keeper.stop(0.3)
        assert len(house.alive()) >= 30  # each in the call that hangs, which nobody waited for
        vault.stop()
    assert len(deadlines) >= 30
    assert len(set(deadlines[:30])) == 1


def test_a_login_that_is_out_at_the_end_leaves_no_token_behind(vault: FakeVault) -> None:
    """Its token comes too late to be used, and is revoked."""
    vault.fault(faults.latency(1.0), "/login")
    with House(vault, [database("pay")]) as house:
        assert wait_until(lambda: len(vault.calls("/login")) == 1)
        assert house.keeper.stop(PATIENCE)
    assert vault.live_tokens() == []


def test_a_lease_that_is_out_at_the_end_is_revoked_under_a_foreign_token(
    vault: FakeVault, tmp_path: Path
) -> None:
    """Where no token takes it along, a lease that comes too late is revoked by itself."""
    vault.add_token("hvs.agent")
    auth = TokenFile(write(tmp_path / "token", "hvs.agent"))
    vault.fault(faults.latency(1.0), "database/creds/pay")
    with House(vault, [database("pay")], auth=auth) as house:
        assert wait_until(lambda: len(vault.calls("database/creds/pay")) == 1)
        assert house.keeper.stop(PATIENCE)
    assert vault.issued
    assert vault.live_leases() == []


# --- faults of our own ---


class Clumsy(Session):
    """A session with a bug: the first ``falls`` fetches raise what nobody expects."""

    falls = 12

    def fetch(self, token: Secret, login: Login, source: Any) -> Grant:
        if self.falls:
            self.falls -= 1
            raise RuntimeError("a bug")
        return super().fetch(token, login, source)


def test_the_workers_survive_a_bug(vault: FakeVault, caplog: pytest.LogCaptureFixture) -> None:
    """More bugs than there are workers, and the credentials still come."""
    values = Vault(vault.address)
    stages = [(STAGE, Clumsy(values, ROLE, boottime))]
    with House(vault, [database("pay"), database("geo")], stages=stages) as house:
        assert wait_until(lambda: ready(house))
    assert caplog.text.count("failed inside vaultauthz: RuntimeError\n") == 12


def test_the_clock_and_the_workers_survive_a_bug_in_a_machine(vault: FakeVault) -> None:
    """One upstream's broken machine neither ends the clock nor the others' renewals."""
    vault.set_creds("database/creds/pay", ttl=1.0)
    with House(vault, [database("pay"), database("geo")]) as house:
        assert wait_until(lambda: ready(house))
        broken = house.keeper._stages[STAGE].leases.shared["geo"].machine
        with house.keeper.lock:
            broken.due = boottime()
            broken.retired = None  # type: ignore[assignment]
        for _ in range(10):
            house.keeper.rotate("geo")
        since = time.monotonic()
        assert wait_until(lambda: len(vault.calls("sys/leases/renew", since)) >= 2)


def test_a_listener_that_raises_hurts_nobody(vault: FakeVault) -> None:
    """Its error is logged and the lease goes on."""

    def listener(event: events.Event) -> None:
        raise RuntimeError(event.name)

    keeper = Keeper(listener, FAST)
    keeper.add_stage(STAGE, session(vault))
    keeper.add(STAGE, database("pay"))
    keeper.start()
    assert wait_until(lambda: keeper.ready)
    assert keeper.stop(PATIENCE)


def test_no_secret_is_in_a_log_or_an_event(
    vault: FakeVault, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """At DEBUG, urllib3 included, through issue, renewal, faults, rotation, a bad secret and stop."""
    caplog.set_level(logging.DEBUG)
    vault.set_creds("database/creds/pay", ttl=1.0)
    vault.put_kv("secret/key", {"key": "k3y-value"})
    field = Query("key", Template.parse("{password}\r"))
    bad = upstream("bad", PathSecret("database/creds/geo"), inject=field, optional=True)
    with House(vault, [database("pay"), key("key"), bad]) as house:

        def told(name: str) -> int:
            return len(house.named(name))

        def works() -> bool:
            return bool(house.sent("pay") and house.sent("key") and vault.live_tokens())

        assert wait_until(lambda: ready(house))
        assert wait_until(lambda: told(events.RENEWED) > 0)
        for fault in (faults.status(500, "text"), faults.cut(), faults.reset(), faults.status(403)):
            failed = told(events.FAILED)
            vault.fault(fault)
            assert wait_until(lambda: told(events.FAILED) >= failed + 2)  # noqa: B023  waited for
            vault.heal()
            assert wait_until(works)
        rotated, lost = told(events.ROTATED), told(events.TOKEN_LOST)
        house.keeper.rotate("pay")
        assert wait_until(lambda: told(events.ROTATED) > rotated)
        for token in vault.live_tokens():
            vault.kill_token(token.accessor)
        assert wait_until(lambda: told(events.TOKEN_LOST) > lost)
        assert wait_until(lambda: "does not fit" in str(tuple(house.events)))
        rows = str(house.keeper.rows())
    shown = caplog.text + str([record.__dict__ for record in caplog.records])
    shown += str(house.events) + rows
    for secret in ("hvs.", "s3cr3t-id", "p4ssw0rd", "k3y-value"):
        assert secret not in shown


def test_checks_read_while_everything_changes(vault: FakeVault) -> None:
    """Readers of the slots and of the rows never see half a change, with Vault slow all the time."""
    vault.set_creds("database/creds/pay", ttl=4.0)
    vault.fault(faults.latency(0.2))
    with House(vault, [database("pay"), database("geo")]) as house:
        assert wait_until(lambda: ready(house))

        def changed() -> bool:
            assert len(house.keeper.rows()) == 3
            house.keeper.rotate("geo")
            return len(house.named(events.RENEWED, "pay")) > 1

        with Traffic(house, vault, "pay", "geo") as traffic:
            assert wait_until(changed)
        assert len(traffic.seen["geo"]) > 2
    assert (traffic.dead, traffic.none) == ([], 0)


def test_checks_do_not_wait_for_vault(vault: FakeVault) -> None:
    """While no call is answered, slots and rows are read and a rotation is asked for all the same."""
    with House(vault, [database("pay"), database("geo")]) as house:
        assert wait_until(lambda: ready(house))
        calls = len(vault.heard)
        vault.fault(faults.hang())
        house.keeper.rotate("geo")
        assert wait_until(lambda: len(vault.heard) > calls)
        for _ in range(100):
            assert len(house.keeper.rows()) == 3
            house.keeper.rotate("pay")
            assert house.sent("pay")
        assert house.named(events.FAILED) == []  # as it were if somebody had waited for that call
        vault.stop()
