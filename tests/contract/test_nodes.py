"""Several addresses of one Vault: where a call goes, and that none is made twice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract import faults
from tests.contract.certificates import Authority, server_context
from tests.contract.fake_vault import FakeVault
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.values import PathSecret, Tls, Vault
from vaultauthz.core.credential import NO_LOGIN
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

CREDS = PathSecret("database/creds/pay")


class Clock:
    """Time that passes, and can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Bed:
    """Two nodes that know the same login, and a session that has both addresses."""

    def __init__(self, first: FakeVault, second: FakeVault, tls: Tls = Tls()) -> None:
        self.first, self.second, self.clock = first, second, Clock()
        for node in (first, second):
            node.set_approle()
            node.set_creds(CREDS.path)
            node.add_token("hvs.both")
        self.vault = Vault(first.address, tls=tls, timeout=3.0, fallbacks=(second.address,))
        self.session = Session(self.vault, AppRole("gateway", Secret("s3cr3t-id")), self.clock)

    def fetch(self) -> Grant:
        return self.session.fetch(Secret("hvs.both"), NO_LOGIN, CREDS)

    def heard(self) -> tuple[int, int]:
        """How many requests for the secret each has had."""
        return len(self.first.calls(CREDS.path)), len(self.second.calls(CREDS.path))


@pytest.fixture
def bed() -> Iterator[Bed]:
    """Two nodes in clear text."""
    with FakeVault() as first, FakeVault() as second:
        yield Bed(first, second)


def failure_of(call: Callable[[], object]) -> VaultError:
    """The VaultError that the call must raise."""
    with pytest.raises(VaultError) as caught:
        call()
    return caught.value


NOT_DONE = [
    faults.status(503, "Vault is sealed"),
    faults.status(307, headers={"Location": "http://127.0.0.1:1/v1/x"}),
    faults.status(472),
    faults.status(473),
    faults.status(474),
    faults.status(501),
    faults.status(412),
    faults.status(500, "local node not active but active cluster node not found"),
]
MAYBE_DONE = [
    faults.reset(after_work=True),
    faults.cut(),
    faults.garbage(),
    faults.status(502, body=b"<html>bad gateway</html>"),
    faults.status(504),
    faults.status(200, body=b"<html>sign in to the guest wifi</html>"),
]
SAID_BY_ALL = [
    faults.status(400, "unknown role: pay"),
    faults.status(404),
    faults.status(429),
    faults.status(500, "internal error"),
    faults.status(503, 'API access to this namespace has been locked by an administrator - "x/"'),
    faults.huge(),
]


def test_the_first_address_is_used_as_long_as_it_works(bed: Bed) -> None:
    """The second hears nothing."""
    for _ in range(3):
        bed.fetch()
    assert bed.heard() == (3, 0)


@pytest.mark.parametrize("fault", NOT_DONE)
def test_what_a_node_did_not_do_the_next_one_does(bed: Bed, fault: faults.Fault) -> None:
    """Within the same call, once each; and the next call goes there directly."""
    bed.first.fault(fault)
    assert bed.fetch().lease_id
    assert bed.heard() == (1, 1)
    bed.fetch()
    assert bed.heard() == (1, 2)
    assert len(bed.second.live_leases()) == 2


@pytest.mark.parametrize("fault", MAYBE_DONE)
def test_what_a_node_may_have_done_is_not_sent_again(bed: Bed, fault: faults.Fault) -> None:
    """A second database login must not be made; but the next call goes elsewhere."""
    bed.first.fault(fault, CREDS.path)
    assert failure_of(bed.fetch).failure.verdict is Verdict.RETRY
    assert bed.heard() == (1, 0)
    assert bed.fetch().lease_id
    assert bed.heard() == (1, 1)


@pytest.mark.parametrize("fault", SAID_BY_ALL)
def test_what_any_node_would_say_is_taken_from_the_first(bed: Bed, fault: faults.Fault) -> None:
    """No refusal, quota or engine's error is gone round by way of another node."""
    bed.first.fault(fault, CREDS.path)
    failure_of(bed.fetch)
    failure_of(bed.fetch)
    assert bed.heard() == (2, 0)


def test_a_login_that_hangs_is_made_once(bed: Bed) -> None:
    """It was sent, so it may have worked: no other node is asked within the call."""
    bed.first.fault(faults.hang(), "/login")
    error = failure_of(bed.session.login)
    assert error.failure.reason == "Vault did not answer in time"
    assert len(bed.first.calls("/login") + bed.second.calls("/login")) == 1
    bed.session.login()
    assert len(bed.second.calls("/login")) == 1


def test_a_node_that_is_gone_is_passed_over_by_all_threads(bed: Bed) -> None:
    """Refused connections cost one call; what it learned holds for the session's threads."""
    bed.first.stop()
    bed.fetch()
    bed.first.start()
    threads = [threading.Thread(target=bed.fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bed.heard() == (0, 5)


def test_after_a_minute_the_first_is_tried_again(bed: Bed) -> None:
    """If it works again, it is in use again; if not, the call goes on to the second."""
    bed.first.sealed = True
    bed.fetch()
    bed.clock.ahead += 61
    bed.fetch()
    assert bed.heard() == (2, 2)
    bed.first.sealed = False
    bed.fetch()
    assert bed.heard() == (2, 3)
    bed.clock.ahead += 61
    bed.fetch()
    bed.fetch()
    assert bed.heard() == (4, 3)


def test_the_correlation_id_is_that_of_the_call(bed: Bed) -> None:
    """Both nodes' audit logs show one call; the namespace goes along to each."""
    bed.first.sealed = True
    session = Session(
        Vault(bed.first.address, "team", fallbacks=(bed.second.address,)),
        AppRole("gateway", Secret("s3cr3t-id")),
        bed.clock,
    )
    session.login()
    [one], [other] = bed.first.calls("/login"), bed.second.calls("/login")
    for name, value in (("x-correlation-id", None), ("x-vault-namespace", "team")):
        assert one.headers[name] == other.headers[name]
        assert value in (None, one.headers[name])


def test_a_black_hole_leaves_time_for_the_second(bed: Bed) -> None:
    """An address where nobody accepts gets a share of the timeout, not all of it."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        port = hole.getsockname()[1]
        # The queue of those who wait to be accepted is full then, and the kernel is silent.
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        vault = Vault(f"http://127.0.0.1:{port}", timeout=2.0, fallbacks=(bed.second.address,))
        Session(vault, bed.session._method, bed.clock).login()
        for sock in waiting:
            sock.close()
    assert len(bed.second.calls("/login")) == 1


def test_a_handshake_that_hangs_leaves_time_for_the_second(bed: Bed) -> None:
    """Nothing was sent before the handshake is done, so the call goes on."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://127.0.0.1:{silent.getsockname()[1]}"
        vault = Vault(address, timeout=2.0, fallbacks=(bed.second.address,))
        Session(vault, bed.session._method, bed.clock).login()
    assert len(bed.second.calls("/login")) == 1


def test_when_no_node_serves_the_log_says_why_each_did_not(bed: Bed) -> None:
    """And what passes by itself decides: a sealed node may be unsealed."""
    bed.second.stop()
    bed.first.sealed = True
    error = failure_of(bed.fetch)
    assert error.failure.verdict is Verdict.RETRY
    assert error.failure.away
    assert f"{bed.first.address}: Vault is sealed" in error.detail
    assert f"{bed.second.address}: Connection refused" in error.detail
    bed.first.sealed = False
    assert bed.fetch().lease_id


def test_a_node_with_a_wrong_certificate_is_passed_over(tmp_path: Path) -> None:
    """Nothing is sent to it; with no other node it is final, and so it is when all are so."""
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    good, bad = Authority(tmp_path / "good"), Authority(tmp_path / "bad", "stranger")
    trusted = server_context(good.issue("127.0.0.1"))
    with (
        FakeVault(tls=server_context(bad.issue("127.0.0.1"))) as first,
        FakeVault(tls=trusted) as second,
    ):
        bed = Bed(first, second, Tls(good.ca))
        assert bed.fetch().lease_id
        assert first.heard == []
        second.stop()
        assert failure_of(bed.fetch).failure.verdict is Verdict.RETRY
        wrong = Bed(first, first, Tls(good.ca))
        assert failure_of(wrong.fetch).failure.verdict is Verdict.REFUSED


def test_a_name_that_nobody_knows_is_passed_over(bed: Bed) -> None:
    """RFC 2606 keeps .invalid free, so no resolver has it."""
    vault = Vault("http://vault.invalid", fallbacks=(bed.second.address,))
    Session(vault, bed.session._method, bed.clock).login()
    alone = Session(Vault("http://vault.invalid"), bed.session._method, bed.clock)
    assert "not resolved" in failure_of(alone.login).failure.reason


def test_a_unix_socket_may_be_among_the_addresses(tmp_path: Path) -> None:
    """An agent on this machine first, the cluster when it is gone."""
    with FakeVault(unix=tmp_path / "agent.sock") as agent, FakeVault() as second:
        bed = Bed(agent, second)
        bed.fetch()
        assert bed.heard() == (1, 0)
        agent.stop()
        bed.fetch()
        bed.fetch()
        assert bed.heard() == (1, 2)


def test_connections_are_kept(bed: Bed) -> None:
    """Ten calls of a thread go over one connection to each node."""
    fetched = [bed.fetch() for _ in range(10)]
    assert len(fetched) == 10
    assert bed.first.connections == 1
    bed.clock.ahead += 61  # what stands between may have forgotten it
    bed.fetch()
    assert bed.first.connections == 2
