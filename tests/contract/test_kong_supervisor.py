"""What Kong starts and kills, and the server that it cannot: reloads, ends, and every way of dying, without Vault."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.kong import Kong, Server, Settings
from tests.contract.kong.process import Supervisor, listening
from tests.contract.kong_bed import (
    audit,
    config,
    inject,
    our_server,
    routes,
    serve,
    server_pid,
    started,
    words,
)
from tests.contract.kong_load import Load
from tests.contract.running import fake
from tests.patience import PATIENCE
from vaultauthz.kong.ownership import (
    Failures,
    Holder,
    Ownership,
    SupervisorClaim,
    claimed,
    coming,
    holder,
)
from vaultauthz.kong.processes import began_at
from vaultauthz.listening import ListenError

NAMES = ("a", "b")
TWO = {name: inject(name, {"bearer": "{key}"}) for name in NAMES}
QUICK = Settings(timeout=PATIENCE, respawn=0.2, max_retries=50)


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with two keys, each with its own name in it."""
    with fake() as running:
        for name in NAMES:
            running.put_kv(f"secret/{name}", {"key": name})
        yield running


@pytest.fixture
def path(tmp_path: Path, vault: FakeVault) -> Path:
    """The configuration."""
    return config(vault, tmp_path, TWO)


def kong_with(server: Server) -> Kong:
    return Kong(server, routes(NAMES), settings=QUICK)


def _signal(pid: int | None, number: signal.Signals) -> None:
    assert pid is not None
    assert pid > 1  # 0 is the whole group, the test's own
    os.kill(pid, number)


def _said(folder: Path, what: str, times: int) -> bool:
    return words(folder).count(what) >= times


def _is_over(supervisor: Supervisor) -> bool:
    return supervisor.pid is None


def _serves_another(folder: Path, before: int) -> bool:
    return server_pid(folder) not in {0, before}


def whole_chain(folder: Path) -> bool:
    """Whether the audit log is one chain without a gap, whoever wrote it."""
    told = subprocess.run(
        [sys.executable, "-m", "vaultauthz", "audit", "verify", str(folder / "audit.jsonl")],
        capture_output=True,
        text=True,
        check=False,
    )
    numbers = [line["seq"] for line in audit(folder)]
    return told.returncode == 0 and numbers == list(range(1, len(numbers) + 1))


def recorded(folder: Path, load: Load) -> bool:
    """Whether each request that was proxied has its line, and one only."""
    told = [line["request_id"] for line in audit(folder, "request.allowed")]
    return len(told) == len(set(told)) and set(load.proxied) <= set(told)


class TestReload:
    def test_the_server_goes_on(self, tmp_path: Path, path: Path) -> None:
        """Kong's new workers get the server that there is, and no request is lost, nor its line."""
        with kong_with(our_server(tmp_path, path)) as kong, Load(kong, threads=4) as load:
            load.see(20)
            first = server_pid(tmp_path)
            for _ in range(3):
                before = kong.supervisor
                kong.reload(overlap=1)
                load.see(50)
                assert wait_until(partial(_is_over, before))
            load.see(50)
            assert server_pid(tmp_path) == first
        assert (load.wrong, load.others) == ([], [])
        assert len(audit(tmp_path, "login")) == 1
        assert recorded(tmp_path, load)

    @pytest.mark.parametrize("why", ["command", "section"])
    def test_another_takes_over(
        self, tmp_path: Path, vault: FakeVault, path: Path, why: str
    ) -> None:
        """With another command, or what only a restart takes over: requests wait, and none is lost."""
        with kong_with(our_server(tmp_path, path)) as kong, Load(kong, threads=4) as load:
            load.see(20)
            for turn in range(2):
                first = server_pid(tmp_path)
                if why == "command":
                    kong.server = our_server(tmp_path, path, "--log-level", ["debug", "info"][turn])
                else:
                    document = yaml.safe_load(path.read_text())
                    document["listen"]["admin"] = f"unix://{tmp_path}/admin{turn}.sock"
                    path.write_text(yaml.safe_dump(document))
                    assert wait_until(partial(_said, tmp_path, "of listen takes", turn + 1))
                kong.reload(overlap=1)
                assert wait_until(partial(_serves_another, tmp_path, first))
                load.see(50)
        assert (load.wrong, load.others) == ([], [])
        # Each got the connections of the one before, and what the instances' numbers mean.
        assert kong.counts["retries"] == 0
        # All wrote the one audit log, each from where the one before had ended.
        assert whole_chain(tmp_path)
        assert recorded(tmp_path, load)
        assert len(audit(tmp_path, "login")) == len(audit(tmp_path, "token.revoked")) == 3
        assert not vault.leases

    @pytest.mark.parametrize("why", ["command", "section"])
    def test_many_at_once(self, tmp_path: Path, vault: FakeVault, path: Path, why: str) -> None:
        """Where each would have a server take over: one comes after the other, and who waits for one is not lost."""
        with kong_with(our_server(tmp_path, path)) as kong, Load(kong, threads=4) as load:
            load.see(20)
            first = server_pid(tmp_path)
            if why == "section":
                document = yaml.safe_load(path.read_text())
                document["listen"]["admin"] = f"unix://{tmp_path}/other.sock"
                path.write_text(yaml.safe_dump(document))
                assert wait_until(partial(_said, tmp_path, "of listen takes", 1))
            for turn in range(5):
                if why == "command":
                    level = ["debug", "info"][turn % 2]
                    kong.server = our_server(tmp_path, path, "--log-level", level)
                kong.reload(overlap=0.5)
                load.see(50)
            assert wait_until(partial(_serves_another, tmp_path, first))
            load.see(50)
        assert (load.wrong, load.others) == ([], [])
        assert "yet another server" not in words(tmp_path)
        assert whole_chain(tmp_path)
        assert recorded(tmp_path, load)
        assert not vault.leases

    def test_one_that_does_not_start_takes_nothing_over(self, tmp_path: Path, path: Path) -> None:
        """A configuration that is not valid: the server before stays, and the log says why."""
        with kong_with(our_server(tmp_path, path)) as kong, Load(kong, threads=2) as load:
            load.see(20)
            first = server_pid(tmp_path)
            other = tmp_path / "other.yaml"
            other.write_text("upstreams: 5\n")
            kong.server = our_server(tmp_path, other)
            kong.reload(overlap=1)
            assert wait_until(lambda: "the one before stays" in words(tmp_path))
            assert "other.yaml:1" in words(tmp_path)
            assert kong.logged("other.yaml:1")
            load.see(20)
            assert server_pid(tmp_path) == first
        assert (load.wrong, load.others) == ([], [])

    @pytest.mark.parametrize("section", ["listen", "audit"])
    def test_what_is_new_cannot_be_had(self, tmp_path: Path, path: Path, section: str) -> None:
        """The next one tries it while the one before serves, which stays."""
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            kong_with(our_server(tmp_path, path)) as kong,
            Load(kong, threads=2) as load,
        ):
            load.see(20)
            first = server_pid(tmp_path)
            document = yaml.safe_load(path.read_text())
            if section == "listen":
                document["listen"]["admin_insecure"] = True
                document["listen"]["admin"] = f"127.0.0.1:{taken.getsockname()[1]}"
            else:
                (tmp_path / "notes").write_text("somebody else's\n")
                document["audit"]["file"] = str(tmp_path / "notes")
            path.write_text(yaml.safe_dump(document))
            assert wait_until(partial(_said, tmp_path, f"of {section} takes", 1))
            kong.reload(overlap=1)
            assert wait_until(partial(_said, tmp_path, "the one before stays", 1))
            load.see(20)
            assert server_pid(tmp_path) == first
        assert f"vaultauthz: {section}." in words(tmp_path)
        assert (load.wrong, load.others) == ([], [])

    def test_without_the_plugin_it_ends(self, tmp_path: Path, vault: FakeVault, path: Path) -> None:
        """Kong lives and starts no supervisor any more: nobody needs the server."""
        with kong_with(our_server(tmp_path, path)) as kong:
            assert kong.request("GET", "/a").status == 200
            kong.server = replace(kong.server, start_cmd=None)
            kong.reload(overlap=1)
            assert wait_until(lambda: not server_pid(tmp_path))
            assert not kong.server.socket.exists()
            assert audit(tmp_path, "token.revoked")


class TestKilled:
    def test_the_supervisor(self, tmp_path: Path, path: Path) -> None:
        """Kong starts another, which goes on with the server: nobody notices."""
        with kong_with(our_server(tmp_path, path)) as kong, Load(kong, threads=4) as load:
            load.see(20)
            first = server_pid(tmp_path)
            for count in (1, 2):
                kong.supervisor.kill(signal.SIGKILL)
                assert wait_until(partial(_said, tmp_path, "the server goes on", count))
                load.see(20)
            assert server_pid(tmp_path) == first
        assert (load.wrong, load.others) == ([], [])

    def test_while_the_server_starts(self, tmp_path: Path, path: Path) -> None:
        """Two servers may be on their way then: one comes to serve, the other gives way."""
        with kong_with(our_server(tmp_path, path)) as kong:
            for _ in range(3):
                begun = started(tmp_path)
                kong.kill_server()
                assert wait_until(partial(_said, tmp_path, "the server is started", begun + 1))
                kong.supervisor.kill(signal.SIGKILL)
                assert wait_until(lambda: kong.supervisor.pid is not None)
            assert wait_until(lambda: kong.request("GET", "/a").status == 200)
        assert whole_chain(tmp_path)

    def test_a_zombie_is_not_left(self, tmp_path: Path, path: Path) -> None:
        """The supervisor waits for the server that it started, and starts another at once."""
        with kong_with(our_server(tmp_path, path)) as kong:
            supervisor = kong.supervisor.pid
            first = server_pid(tmp_path)
            kong.kill_server()
            assert wait_until(lambda: kong.request("GET", "/a").status == 200)
            assert not Path(f"/proc/{first}").exists()
            assert kong.supervisor.pid == supervisor
            assert wait_until(lambda: bool(kong.logged("has ended by signal 9")))

    def test_all_of_kong(self, tmp_path: Path, vault: FakeVault, path: Path) -> None:
        """First its master, without which nginx's workers go on; then the worker as well."""
        kong = kong_with(our_server(tmp_path, path)).__enter__()
        try:
            kong.request("GET", "/a")
            os.kill(kong.master.pid, signal.SIGKILL)
            assert wait_until(lambda: not _lives(kong.master.pid))
            assert kong.request("GET", "/a").status == 200
            _signal(kong.supervisor.worker, signal.SIGKILL)
            assert wait_until(lambda: not server_pid(tmp_path))
        finally:
            kong.stop()
            for worker in kong.workers:
                worker.pool.close()
        assert not kong.server.socket.exists()
        assert audit(tmp_path, "token.revoked")
        assert not claimed(kong.server.socket)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestSeveral:
    def test_the_last_supervisor_counts(self, tmp_path: Path, path: Path) -> None:
        """One that came later has the server; when it has died without another, the one before is back."""
        server = our_server(tmp_path, path)
        with _supervisor(server), contextlib.ExitStack() as later:
            assert wait_until(lambda: bool(audit(tmp_path, "login")))
            second = later.enter_context(_supervisor(server))
            assert wait_until(partial(_said, tmp_path, "the server goes on", 1))
            second.kill()
            second.wait(PATIENCE)
            _signal(server_pid(tmp_path), signal.SIGKILL)
            assert wait_until(partial(_said, tmp_path, "the server is started", 2))
            assert wait_until(lambda: listening(server) is not None)
        assert wait_until(lambda: not claimed(server.socket))
        assert wait_until(lambda: not server_pid(tmp_path))

    def test_nobody_to_tell(self, tmp_path: Path, path: Path) -> None:
        """Its output was closed before it began: the log file has it all."""
        server = our_server(tmp_path, path)
        with kong_with(replace(server, start_cmd=f"{server.start_cmd} >&- 2>&-")) as kong:
            assert kong.request("GET", "/a").status == 200
        assert "the server is started" in words(tmp_path)

    def test_proc_hides_kongs_master(self, tmp_path: Path, path: Path) -> None:
        """A reload is not taken for Kong's end, as it would be if the old worker were all of Kong."""
        name = "nginx: master process"
        program = f"import sys, vaultauthz.kong.processes as p; p._MASTER = b'not {name}'; "
        program += "from vaultauthz.cli import main; sys.exit(main(sys.argv[1:]))"
        server = our_server(tmp_path, path)
        command = shlex.join(
            [sys.executable, "-c", program, *shlex.split(str(server.start_cmd))[4:]]
        )
        with kong_with(replace(server, start_cmd=command)) as kong, Load(kong, threads=2) as load:
            load.see(20)
            first = server_pid(tmp_path)
            for _ in range(2):
                before = kong.supervisor
                kong.reload(overlap=0.5)
                assert wait_until(partial(_is_over, before))
                load.see(50)
            assert server_pid(tmp_path) == first
        assert (load.wrong, load.others) == ([], [])
        assert audit(tmp_path, "token.revoked")

    def test_sighup_reaches_the_server(self, tmp_path: Path, path: Path) -> None:
        """Whoever knows of the process that Kong has started may have the configuration read again."""
        with kong_with(our_server(tmp_path, path)) as kong:
            assert wait_until(partial(_said, tmp_path, "ready: every", 1))
            _signal(kong.supervisor.pid, signal.SIGHUP)
            assert wait_until(partial(_said, tmp_path, "reloaded: nothing has changed", 1))
            assert kong.request("GET", "/a").status == 200


@contextlib.contextmanager
def _supervisor(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """One that the test has started, in place of a worker of Kong's."""
    quiet = subprocess.DEVNULL
    command = shlex.split(str(server.start_cmd))
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as running:
        try:
            yield running
        finally:
            running.kill()


class TestAStartThatFails:
    def test_the_reason_is_seen(self, tmp_path: Path, path: Path) -> None:
        """In the log file, in what Kong logs of its plugin server, and the status at Kong's default level."""
        path.write_text("upstreams: 5\n")
        kong = kong_with(our_server(tmp_path, path))
        kong.supervisor.start()
        try:
            assert wait_until(lambda: bool(kong.logged("terminated: exit 2")))
            assert kong.logged("c.yaml:1")
            assert "c.yaml:1" in words(tmp_path)
            assert "the server did not start" in words(tmp_path)
        finally:
            kong.close()

    def test_it_is_not_tried_for_ever_without_a_pause(
        self, tmp_path: Path, vault: FakeVault, path: Path
    ) -> None:
        """Kong starts it again each second; the pauses are ours, and grow. A change of the file ends them."""
        good = path.read_text()
        path.write_text("upstreams: 5\n")
        kong = kong_with(our_server(tmp_path, path))
        kong.supervisor.start()
        try:
            assert wait_until(lambda: started(tmp_path) == 3)
            claim = SupervisorClaim(kong.server.socket)
            assert wait_until(lambda: _count(claim) >= 3)
            path.write_text(good)
            kong.wait_for_server()
            assert kong.request("GET", "/a").status == 200
        finally:
            kong.close()

    def test_a_log_file_that_cannot_be_written(self, tmp_path: Path, path: Path) -> None:
        """Is told of, and a link is not followed."""
        (tmp_path / "link").symlink_to(tmp_path / "victim")
        for name in ("missing/x.log", "link"):
            told = _child(tmp_path, path, "--log-file", str(tmp_path / name))
            assert (told.returncode, f"{name}: " in told.stderr) == (2, True)
        assert "name the file" in told.stderr
        assert not (tmp_path / "victim").exists()

    def test_a_lock_that_cannot_be_had(self, tmp_path: Path, path: Path) -> None:
        """The log file says why, as Kong's own log does not at its default level."""
        (tmp_path / "k.sock.lock").symlink_to(tmp_path / "victim")
        with _supervisor(our_server(tmp_path, path)) as running:
            assert running.wait(PATIENCE) == 2
        assert "k.sock.lock: " in words(tmp_path)

    def test_without_a_file_for_the_audit_log(self, tmp_path: Path, vault: FakeVault) -> None:
        """Kong's pipe closes at its reload, and the server goes on: where would the lines go?"""
        path = config(vault, tmp_path, TWO, audit={})
        told = _child(tmp_path, path)
        assert (told.returncode, "audit.file: name a file" in told.stderr) == (2, True)

    def test_query_cmd_says_what_is_wrong(self, tmp_path: Path, path: Path) -> None:
        """On standard error, which Kong passes on; what Kong reads stays whole."""
        path.write_text("upstreams: 5\n")
        told = subprocess.run(
            [sys.executable, "-m", "vaultauthz", "kong", "dump", "-c", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (told.returncode, "c.yaml:1" in told.stderr) == (0, True)
        assert json.loads(told.stdout)["Plugins"]

    def test_the_stand_in_tells_of_it(self, tmp_path: Path, path: Path) -> None:
        """`kong start` would go on, and every request fail."""
        gone = Server(tmp_path / "k.sock", our_server(tmp_path, path).query_cmd, "false")
        kong = kong_with(gone)
        kong.supervisor.start()
        try:
            assert wait_until(lambda: bool(kong.logged("terminated: exit 1")))
        finally:
            kong.close()


def _count(claim: SupervisorClaim) -> int:
    return int(json.loads(claim.path.read_bytes() or b'{"count": 0}')["count"])


def _child(folder: Path, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What Kong would start, and it does not go on."""
    return subprocess.run(
        serve(folder, path, "--child", *options),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


class TestPlaces:
    def test_a_server_that_is_stuck_is_killed(self, tmp_path: Path) -> None:
        """It has the place and does not go: the next one does not wait for ever."""
        path = tmp_path / "k.sock"
        program = (
            "import sys, time; from pathlib import Path; from vaultauthz.kong.ownership import Ownership; "
            "place = Ownership(Path(sys.argv[1])); place.take(0); place.tell('x'); print(flush=True); "
            "time.sleep(3600)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
        ) as stuck:
            try:
                assert stuck.stdout is not None
                stuck.stdout.readline()
                place = Ownership(path)
                place.take(0.2)
                assert stuck.wait(PATIENCE) == -signal.SIGKILL
                place.release()
            finally:
                stuck.terminate()

    def test_the_next_waits_for_the_one_before_it(self, tmp_path: Path) -> None:
        """It does not listen before a server that came earlier is known, as that one's clients would be lost."""
        path = tmp_path / "k.sock"
        first, second, third = Ownership(path), Ownership(path), Ownership(path)
        first.take(0)
        taking = [Thread(target=one.take, args=(PATIENCE,)) for one in (second, third)]
        taking[0].start()
        assert wait_until(lambda: first.lost)
        assert coming(path)
        taking[1].start()
        first.release()
        taking[0].join()
        assert (coming(path), second.lost) == (True, False)
        second.tell("x")
        assert wait_until(lambda: second.lost)
        second.release()
        taking[1].join()
        third.tell("y")
        assert not coming(path)
        third.release()

    def test_a_lock_is_not_written_through_a_link(self, tmp_path: Path) -> None:
        """Who may write to the folder could have any file of ours be emptied."""
        victim = tmp_path / "victim"
        victim.write_text("mine")
        for name in ("k.sock.lock", "k.sock.next"):
            link = tmp_path / name
            link.symlink_to(victim)
            with pytest.raises(ListenError, match="links"):
                Ownership(tmp_path / "k.sock").take(1)
            link.unlink()
        assert victim.read_text() == "mine"

    def test_who_says_nothing_is_not_killed(self, tmp_path: Path) -> None:
        """An older version's number is not known: it is left alone, and the next one does not start."""
        first, second = Ownership(tmp_path / "k.sock"), Ownership(tmp_path / "k.sock")
        first.take(0)
        with pytest.raises(ListenError, match="has not ended"):
            second.take(0.1)
        first.release()


class TestClaims:
    def test_the_last_one_has_it(self, tmp_path: Path) -> None:
        """What the one before has noted stays, and with the last of them the claim ends."""
        socket = tmp_path / "k.sock"
        first, second = SupervisorClaim(socket), SupervisorClaim(socket)
        assert not claimed(socket)
        first.take()
        first.note(Failures(3, 7.0))
        assert (first.mine, claimed(socket)) == (True, True)
        second.take()
        assert (first.mine, second.mine, second.failures) == (False, True, Failures(3, 7.0))
        first.release()
        assert claimed(socket)
        second.release()
        assert not claimed(socket)

    def test_on_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has what is told by locks, which need no room."""

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        socket = tmp_path / "k.sock"
        claim, place = SupervisorClaim(socket), Ownership(socket)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            claim.take()
            place.take(1)
            assert not place.tell("x")
            assert (claim.mine, claimed(socket), holder(socket)) == (True, True, Holder())
            assert not coming(socket)
        assert place.tell("x")
        assert holder(socket) == Holder(os.getpid(), began_at(os.getpid()), "x")
        place.release()
        claim.release()

    @pytest.mark.parametrize("told", ["", "5", '{"count": null, "at": 0}', "{"])
    def test_nonsense_in_the_file(self, tmp_path: Path, told: str) -> None:
        """Counts for nothing."""
        (tmp_path / "k.sock.supervisor").write_text(told)
        claim = SupervisorClaim(tmp_path / "k.sock")
        claim.take()
        assert claim.failures == Failures()
        claim.release()


def test_what_a_closed_pipe_does(tmp_path: Path, path: Path) -> None:
    """Kong has died and reads no more: the supervisor goes on until it sees that, the server until it has revoked."""
    server = our_server(tmp_path, path)
    program = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen({shlex.split(str(server.start_cmd))!r}, stdin=subprocess.PIPE, "
        "stdout=subprocess.PIPE, stderr=subprocess.STDOUT); child.stdout.close(); "
        "print(flush=True); time.sleep(3600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            assert wait_until(lambda: bool(audit(tmp_path, "login")))
            _signal(server_pid(tmp_path), signal.SIGKILL)  # has the supervisor say something
            assert wait_until(lambda: started(tmp_path) == 2 and listening(server) is not None)
        finally:
            worker.kill()
    assert wait_until(lambda: not claimed(server.socket))
    _signal(server_pid(tmp_path), signal.SIGTERM)  # its master is the test, which goes on
    assert wait_until(lambda: not server_pid(tmp_path))
    assert audit(tmp_path, "token.revoked")
