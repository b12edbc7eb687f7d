"""``serve --take-over``: the next server from the one that runs, while a gateway asks without a pause."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import vaultauthz
from tests.contract.certificates import Authority
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import held
from tests.contract.take_over_bed import Bed, Server
from tests.contract.test_server import KINDS, trusting
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for
from vaultauthz.version import __version__

SERVES, LEAVES = "serving Envoy", "gateways are sent there"


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with one login."""
    with FakeVault() as made:
        yield made


@pytest.fixture(params=KINDS)
def bed(request: pytest.FixtureRequest, tmp_path: Path, vault: FakeVault) -> Iterator[Bed]:
    """Each transport on each kind of address."""
    transport, place = request.param.split("-")
    with Bed(tmp_path, vault, transport, tcp=place == "tcp") as made:
        yield made


@pytest.fixture
def plain(tmp_path: Path, vault: FakeVault) -> Iterator[Bed]:
    """A unix socket and the usual transport."""
    with Bed(tmp_path, vault, "auto", tcp=False) as made:
        yield made


def test_no_check_is_lost(bed: Bed) -> None:
    """Each is answered and written down once, in one chain, and Vault has the last one's login alone."""
    server = bed.first()
    with bed.traffic() as traffic:
        for _ in range(3):
            traffic.wait_for()
            before, server = server, bed.next()
            before.wait_until_told(LEAVES)
            traffic.wait_for()
            assert before.ended(ask=signal.SIGTERM) == 0, before.log
        traffic.wait_for()
    assert traffic.answers.keys() == {"200"}
    assert bed.tokens() == 1
    assert server.ended(ask=signal.SIGTERM) == 0
    assert bed.tokens() == 0
    assert bed.count("request.allowed") == traffic.answers["200"]
    assert bed.count("token.revoked") == 4
    assert not [one.log for one in bed.servers if '"error"' in one.log or "Traceback" in one.log]
    assert [each.name for each in bed.folder.glob(".*")] == []


def test_the_one_before_waits_for_what_it_gave(plain: Bed) -> None:
    """What requests have got from it is good for half a minute more; then it ends by itself."""
    before = plain.first()
    server = plain.next()
    before.wait_until_told(LEAVES)
    assert plain.tokens() == 2
    assert before.ended() == 0
    assert plain.tokens() == 1
    server.wait_until_told(f"process {before.pid}, which served before, has ended")
    assert server.ended(ask=signal.SIGTERM) == 0
    assert plain.count("lease.revoked") == 2


def test_nobody_to_take_over_from(plain: Bed) -> None:
    """It is an ordinary start, and says so; so it is after one that was killed."""
    for _ in range(2):
        server = plain.start("--take-over")
        server.wait_until_told("no server serves yet")
        server.wait_until_told("ready: every upstream")
        assert plain.started()
        server.ended(ask=signal.SIGKILL)


def refused(server: Server) -> str:
    """What it said when it ended."""
    assert server.ended() == 2, server.log
    assert "Traceback" not in server.log
    return server.log


def goes_on(bed: Bed, left: int = 0) -> None:
    """The first one serves and writes, can be taken over from, and Vault has what another has ``left`` besides."""
    assert bed.tokens() == 1 + left
    assert bed.started()
    with bed.traffic() as traffic:
        traffic.wait_for()
        server = bed.next()
        bed.servers[0].wait_until_told(LEAVES)
        assert bed.servers[0].ended(ask=signal.SIGTERM) == 0
        traffic.wait_for()
    assert traffic.answers.keys() == {"200"}
    assert bed.tokens() == 1 + left
    assert server.ended(ask=signal.SIGTERM) == 0
    assert bed.lines()


def test_one_that_is_not_ready(plain: Bed) -> None:
    """Its login fails; told to end, it leaves the one that serves as it is."""
    plain.first()
    login = {"method": "approle", "role_id": "gateway", "secret_id": "wrong"}
    wrong = plain.document | {"stages": {"production": {"auth": login}}}
    (plain.folder / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    with plain.traffic() as traffic:
        traffic.wait_for()
        server = plain.start("--take-over", config="wrong.yaml")
        server.wait_until_told("login of stage production")
        server.process.send_signal(signal.SIGTERM)
        assert "before it was ready" in refused(server)
        traffic.wait_for()
    assert traffic.answers.keys() == {"200"}
    goes_on(plain)
    assert plain.count("vault.failed") >= 1  # the other one's, in the log of the one that served


def test_a_wrong_configuration(plain: Bed) -> None:
    """It is refused before anybody is asked anything."""
    plain.first()
    (plain.folder / "wrong.yaml").write_text("vault: {}\n")
    assert "wrong.yaml" in refused(plain.start("--take-over", config="wrong.yaml"))
    goes_on(plain)


def test_an_audit_log_that_cannot_be_written(plain: Bed) -> None:
    """The one that serves keeps its place: what it has not written, the next one could not."""
    plain.first()
    file, moved = plain.folder / "audit.jsonl", plain.folder / "moved"
    go = threading.Event()
    plain.vault.fault(held(go), "database/creds/pay")
    server = plain.start("--take-over")
    server.wait_until_told("logged in")
    file.rename(moved)
    file.mkdir()
    with plain.traffic() as traffic:
        plain.servers[0].wait_until_told("checks are refused until it can")
        go.set()
        assert "keeps its place" in refused(server)
        file.rmdir()
        moved.rename(file)
        plain.servers[0].wait_until_told("is written again")
        traffic.wait_for()
    goes_on(plain)
    assert plain.count("login") == 3


def test_the_one_that_serves_hangs(plain: Bed) -> None:
    """The next one says so, with what to do, and leaves it alone; let go on, it serves as before."""
    before = plain.first()
    before.process.send_signal(signal.SIGSTOP)
    assert f"kill -KILL {before.pid}" in refused(plain.start("--take-over"))
    before.process.send_signal(signal.SIGCONT)
    goes_on(plain)


def test_the_one_that_serves_is_killed_meanwhile(bed: Bed) -> None:
    """The next one, which was getting ready, takes the place all the same; one chain."""
    before = bed.first()
    go = threading.Event()
    bed.vault.fault(held(go), "database/creds/pay")
    server = bed.start("--take-over")
    server.wait_until_told("logged in")
    before.ended(ask=signal.SIGKILL)
    go.set()
    server.wait_until_told(SERVES)
    with bed.traffic() as traffic:
        traffic.wait_for()
    assert traffic.answers.keys() == {"200"}
    assert bed.started()
    assert server.ended(ask=signal.SIGTERM) == 0
    assert bed.count("login") == 2


HAS, KILL = "take_place(service, before)", "os.kill(os.getpid(), signal.SIG{})"
NO_FILE = "service.audit.open = lambda _: fail(AuditError('it is not to be had'))"


@pytest.mark.parametrize(
    ("happens", "said", "left"),
    [
        (f"{NO_FILE}; {HAS}", "did not take over", 0),
        (f"{HAS}; fail(OSError('the disk is gone'))", "did not take over", 0),
        (f"{HAS}; {KILL.format('KILL')}", "did not take over", 1),
        (f"{HAS}; {KILL.format('STOP')}", "does not go on: it is killed", 1),
    ],
    ids=["has no audit log", "fails", "killed", "hangs"],
)
def test_one_that_does_not_last(bed: Bed, happens: str, said: str, left: int) -> None:
    """It has not said that it has the place: the one before has all of it again."""
    before = bed.first()
    server = bed.start("--take-over", happens=happens)
    before.wait_until_told(said)
    server.ended()
    before.wait_until_told("goes on")
    goes_on(bed, left)
    assert bed.count("login") == 3  # what it did is written down all the same


def test_two_at_once(plain: Bed) -> None:
    """The second is told of the first, and ends; the first takes over."""
    plain.first()
    go = threading.Event()
    plain.vault.fault(held(go), "database/creds/pay")
    one = plain.start("--take-over")
    one.wait_until_told("logged in")
    assert "another take-over" in refused(plain.start("--take-over"))
    go.set()
    one.wait_until_told(SERVES)


def test_two_ports_are_no_place_to_meet(plain: Bed) -> None:
    """Without a unix socket it says which key to add."""
    listen = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "admin_insecure": True}
    (plain.folder / "ports.yaml").write_text(yaml.safe_dump(plain.document | {"listen": listen}))
    server = plain.start("--take-over", config="ports.yaml")
    assert "set listen.admin: unix:///" in refused(server)


def test_sigusr2_starts_the_next_one(plain: Bed) -> None:
    """An upgrade of what runs, by itself: systemd is told whom to follow, and the one before ends."""
    plain.systemd.listen(plain.folder)
    before = plain.first()
    with plain.traffic() as traffic:
        traffic.wait_for()
        before.process.send_signal(signal.SIGUSR2)
        plain.systemd.wait_for("MAINPID=")
        before.wait_until_told(LEAVES)
        assert before.ended(ask=signal.SIGTERM) == 0
        traffic.wait_for()
    assert traffic.answers.keys() == {"200"}
    assert plain.tokens() == 1
    told = plain.systemd.told()
    assert told[0] == "READY=1\nSTATUS=serving; not every upstream has its credential yet"
    assert next(one for one in told if "MAINPID" in one).startswith("READY=1\n")
    (main,) = plain.systemd.mains()
    assert main != before.pid
    os.kill(main, signal.SIGTERM)
    plain.systemd.wait_for("STOPPING=1")


def test_a_change_of_listen_by_sighup(plain: Bed) -> None:
    """Under systemd another process takes over; the one before answers for half a minute where it was."""
    plain.systemd.listen(plain.folder)
    before = plain.first()
    other = f"unix://{plain.folder}/other.sock"
    with plain.traffic() as traffic:
        traffic.wait_for()
        plain.rewrite(grpc=other)
        before.process.send_signal(signal.SIGHUP)
        plain.systemd.wait_for("MAINPID=")
        before.wait_until_told(f"the next one listens elsewhere, at {other}")
        traffic.wait_for()
    with plain.traffic(other) as moved:
        moved.wait_for()
        assert before.ended(ask=signal.SIGTERM) == 0
        moved.wait_for()
    assert traffic.answers.keys() == moved.answers.keys() == {"200"}
    assert any("RELOADING=1" in one for one in plain.systemd.told())
    assert not (plain.folder / "grpc.sock").exists()
    total = (traffic.answers + moved.answers)["200"]
    assert wait_for(lambda: plain.count("request.allowed") == total, PATIENCE)


def test_a_change_of_listen_that_cannot_be(plain: Bed) -> None:
    """The one that serves says so and goes on, and another try may be better."""
    plain.systemd.listen(plain.folder)
    before = plain.first()
    plain.rewrite(grpc="unix:///nowhere/at/all.sock")
    before.process.send_signal(signal.SIGHUP)
    before.wait_until_told("the other server has not taken over: it ended with status 2")
    plain.rewrite(grpc=plain.grpc)
    goes_on(plain)


def test_without_systemd_a_change_of_listen_waits(plain: Bed) -> None:
    """Whoever looks after the process would not follow it: the log says that it takes a restart."""
    before = plain.first()
    plain.rewrite(grpc=f"unix://{plain.folder}/other.sock")
    before.process.send_signal(signal.SIGHUP)
    before.wait_until_told("the change of listen takes effect at a restart")
    plain.rewrite(grpc=plain.grpc)
    goes_on(plain)


def test_sockets_of_systemd(plain: Bed) -> None:
    """Who asks before there is a server is answered by it, also between two; over a take-over each name is kept."""
    folder = plain.folder
    plain.systemd.open(grpc=folder / "grpc.sock", admin=folder / "admin.sock")
    with plain.traffic() as traffic:
        for _ in range(2):
            server = plain.start()
            server.wait_until_told("ready: every upstream")
            traffic.wait_for()
            assert plain.started()
            before, server = server, plain.next()
            assert before.ended(ask=signal.SIGTERM) == 0
            traffic.wait_for()
            assert server.ended(ask=signal.SIGTERM) == 0
            assert sorted(each.name for each in folder.glob("*.sock")) == [
                "admin.sock",
                "grpc.sock",
            ]
        assert wait_for(plain.systemd.waits, PATIENCE)
        plain.start().wait_until_told("ready: every upstream")
        traffic.wait_for()
    # While there was no credential that was denied; nothing was cut, and nobody refused a connection.
    assert traffic.answers.keys() <= {"200", "503"}, traffic.answers
    assert {".grpc.sock.lent"} < {each.name for each in folder.glob(".*")}
    assert not list(folder.glob(".*.kept"))


def test_a_socket_of_systemd_elsewhere(plain: Bed) -> None:
    """It says what does not fit: nobody would come there."""
    plain.systemd.open(grpc=plain.folder / "other.sock")
    assert "listen.grpc be the same unix socket" in refused(plain.start())


def test_an_admin_socket_of_systemd_elsewhere(plain: Bed) -> None:
    """So is that of operators."""
    plain.systemd.open(admin=plain.folder / "other.sock")
    assert "under the name admin" in refused(plain.start())


def test_an_upgrade(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The next one is of another version, from another folder."""
    code = tmp_path_factory.mktemp("code")
    shutil.copytree(Path(vaultauthz.__file__).parent, code / "vaultauthz")
    version = code / "vaultauthz" / "version.py"
    version.write_text(version.read_text().replace(__version__, "99.0"))
    bed.first()
    with bed.traffic() as traffic:
        traffic.wait_for()
        assert f'version="{__version__}"' in bed.metrics()
        bed.start("--take-over", code=code).wait_until_told(SERVES)
        bed.servers[0].wait_until_told(LEAVES)
        traffic.wait_for()
        assert 'version="99.0"' in bed.metrics()
        assert bed.servers[0].ended(ask=signal.SIGTERM) == 0
    assert traffic.answers.keys() == {"200"}
    assert bed.servers[1].ended(ask=signal.SIGTERM) == 0
    assert bed.count("request.allowed") == traffic.answers["200"]


def test_over_tls(tmp_path: Path, vault: FakeVault) -> None:
    """A call that crosses the end of its connection may fail, to be asked again; none is denied, or goes unrecorded."""
    authority = Authority(tmp_path)
    ours, gateway = authority.issue("localhost"), authority.issue("gateway")
    with Bed(tmp_path, vault, "auto", tcp=True) as bed:
        files = {"cert": str(ours.cert), "key": str(ours.key), "client_ca": str(authority.ca)}
        bed.document["listen"]["grpc_tls"] = files
        bed.first()
        target = bed.grpc.replace("127.0.0.1", "localhost")
        with bed.traffic(target, trusting(authority, gateway.key, gateway.cert)) as traffic:
            traffic.wait_for()
            server = bed.next()
            bed.servers[0].wait_until_told(LEAVES)
            assert bed.servers[0].ended(ask=signal.SIGTERM) == 0
            traffic.wait_for()
        asked_again = ("UNAVAILABLE", "CANCELLED")  # by retry_on, as it is printed
        others = [told for told in traffic.answers if not any(one in told for one in asked_again)]
        assert others == ["200"]
        failed = traffic.answers.total() - traffic.answers["200"]
        assert failed <= 4  # connections, each with one call
        assert server.ended(ask=signal.SIGTERM) == 0
        assert bed.count("request.allowed") >= traffic.answers["200"]
