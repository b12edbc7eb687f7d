"""A plugin server's life in Kong: killed, started again, followed by the next, ended, without Vault."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.kong import Kong, Settings, Verdict
from tests.contract.kong_bed import (
    OURS,
    STOCK,
    UPSTREAMS,
    audit,
    config,
    inject,
    kong_of,
    our_server,
    outside,
    routes,
    serve,
    server_of,
    server_pid,
    started,
)
from tests.contract.kong_load import Load
from tests.contract.running import fake
from tests.patience import PATIENCE

NAMES = ("a", "b", "c", "d")
FOUR = {name: inject(name, {"bearer": "{key}"}) for name in NAMES}
QUICK = Settings(timeout=PATIENCE, respawn=0.2, max_retries=50)


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with four keys, each with its own name in it."""
    with fake() as running:
        for name in NAMES:
            running.put_kv(f"secret/{name}", {"key": name})
        yield running


@pytest.mark.parametrize("kind", [OURS, STOCK])
def test_killed_under_load(tmp_path: Path, vault: FakeVault, kind: str) -> None:
    """Three times kill -9: nobody ever gets another route's credential, and nothing goes on without its own."""
    server = server_of(kind, tmp_path, config(vault, tmp_path, FOUR))
    with Kong(server, routes(NAMES, kind), settings=QUICK) as kong, Load(kong) as load:
        for _ in range(3):
            load.see(100)
            kong.kill_server()
        load.see(100)
    assert load.wrong == []
    assert (started(tmp_path) if kind == OURS else kong.supervisor.starts) >= 4
    # While there is no server, Kong says 500, or with the stock one the guard 503.
    assert {answer.verdict for answer in load.others} <= {Verdict.FAILED, Verdict.GUARDED}


def test_ids_of_the_server_before(tmp_path: Path, vault: FakeVault) -> None:
    """A worker that has not heard of the restart: its ids mean nothing, and are started anew."""
    deaf = Settings(timeout=PATIENCE, respawn=0.2, event_delay=60)
    server = our_server(tmp_path, config(vault, tmp_path, FOUR))
    with Kong(server, routes(NAMES), settings=deaf) as kong:
        for worker, order in enumerate((NAMES, NAMES[::-1])):
            for name in order:
                kong.request("GET", f"/{name}", worker=worker)
        before = kong.workers[0].instances.known
        kong.kill_server()
        kong.wait_for_server()
        for worker in (1, 0):
            for name in NAMES:
                answer = kong.request("GET", f"/{name}", worker=worker)
                assert answer.upstream.header("authorization") == f"Bearer {name}"
                assert answer.access.retries <= 1
        assert not set(before.values()) & set(kong.workers[0].instances.known.values())


class TestOneAtATime:
    def test_a_second_server_is_refused(self, tmp_path: Path, vault: FakeVault) -> None:
        """Unless Kong starts it, which does so to replace the first."""
        path = config(vault, tmp_path, FOUR)
        server = our_server(tmp_path, path)
        with Kong(server, routes(NAMES)) as kong:
            assert kong.request("GET", "/a").status == 200
            told = _serve(tmp_path, path)
            assert (told.returncode, "another server has it" in told.stderr) == (2, True)
            assert kong.request("GET", "/a").status == 200

    def test_a_file_that_is_no_socket_stays(self, tmp_path: Path, vault: FakeVault) -> None:
        """It is somebody's: the server does not start."""
        (tmp_path / "k.sock").write_text("kept")
        told = _serve(tmp_path, config(vault, tmp_path, FOUR))
        assert (told.returncode, "is not a socket" in told.stderr) == (2, True)
        assert (tmp_path / "k.sock").read_text() == "kept"

    def test_an_unknown_group(self, tmp_path: Path, vault: FakeVault) -> None:
        """Is told of, and nothing is left in the folder but the lock."""
        told = _serve(tmp_path, config(vault, tmp_path, FOUR), "--group", "no-such-group")
        assert (told.returncode, "no-such-group" in told.stderr) == (2, True)
        assert not (tmp_path / "k.sock").exists()
        assert not list(tmp_path.glob("*.kong"))

    def test_the_socket_is_its_owners(self, tmp_path: Path, vault: FakeVault) -> None:
        """Nobody else may ask for credentials; one that a killed server left is replaced, and in the end it goes."""
        server = our_server(tmp_path, config(vault, tmp_path, FOUR))
        with Kong(server, routes(NAMES), settings=QUICK) as kong:
            assert server.socket.stat().st_mode & 0o777 == 0o600
            kong.kill_server()
            assert server.socket.exists()
            kong.wait_for_server()
            assert kong.request("GET", "/a").status == 200
        assert not server.socket.exists()


def _serve(folder: Path, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A server that is not going to start."""
    return subprocess.run(
        serve(folder, path, *options),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


class TestItsEnd:
    def test_after_a_stop_everything_is_revoked(self, tmp_path: Path) -> None:
        """Kong's SIGKILL hits nobody who has anything to do, and the server ends by itself."""
        with kong_of(OURS, tmp_path) as (kong, vault):
            assert kong.request("GET", "/pay").status == 200
            assert vault.leases
        assert not vault.leases

    @pytest.mark.parametrize("kind", [OURS, STOCK])
    def test_on_sigterm_everything_is_revoked(
        self, tmp_path: Path, vault: FakeVault, kind: str
    ) -> None:
        """Where something else than Kong has started it: within seconds, and its status is 0."""
        path = config(vault, tmp_path, {"pay": UPSTREAMS["pay"]})
        started = outside(kind, tmp_path, path)
        kong = Kong(started.server, routes(["pay"], kind))
        try:
            kong.wait_for_server()
            assert kong.request("GET", "/pay").status == 200
            assert vault.leases
        finally:
            started.process.terminate()
            assert started.process.wait(PATIENCE) == 0
            kong.close()
        assert not vault.leases

    def test_it_ends_with_the_worker_that_started_it(
        self, tmp_path: Path, vault: FakeVault
    ) -> None:
        """Also where nobody told it: a Kong that was killed leaves no server behind."""
        server = our_server(tmp_path, config(vault, tmp_path, FOUR))
        start = f"exec {server.start_cmd}"
        command = f"import subprocess; subprocess.Popen({start!r}, shell=True).wait()"
        with (tmp_path / "log").open("w") as out:
            parent = subprocess.Popen([sys.executable, "-c", command], stdout=out, stderr=out)
            assert wait_until(lambda: bool(audit(tmp_path, "login")))
            parent.kill()
            parent.wait(PATIENCE)
        assert wait_until(lambda: not server.socket.exists())
        assert wait_until(lambda: bool(audit(tmp_path, "token.revoked")))


class TestWithoutVault:
    @pytest.mark.parametrize("kind", [OURS, STOCK])
    def test_what_there_is_stays_in_use(self, tmp_path: Path, kind: str) -> None:
        """Vault goes away: requests go on with the credentials that are still good."""
        with kong_of(kind, tmp_path) as (kong, vault):
            given = kong.request("GET", "/pay").upstream.header("authorization")
            vault.stop()
            assert kong.request("GET", "/pay").upstream.header("authorization") == given
            vault.start()

    @pytest.mark.parametrize("kind", [OURS, STOCK])
    def test_a_start_without_it(self, tmp_path: Path, vault: FakeVault, kind: str) -> None:
        """503 with Retry-After until it is back, and then by itself all is well."""
        path = config(vault, tmp_path, FOUR)
        vault.stop()
        with Kong(server_of(kind, tmp_path, path), routes(NAMES, kind)) as kong:
            answer = kong.request("GET", "/a")
            assert (answer.status, answer.json()["error"]) == (503, "no_credential")
            assert int(answer.header("retry-after") or "0") >= 1
            vault.start()
            assert wait_until(lambda: kong.request("GET", "/a").status == 200)


def test_nothing_grows(tmp_path: Path, vault: FakeVault) -> None:
    """Memory, threads and files of the server after thousands of requests, half of them denied."""
    denied = {"no": inject("a", {"bearer": "{key}"}, callers=[{"consumer": "x"}])}
    path = config(vault, tmp_path, {"a": FOUR["a"], **denied})
    with Kong(our_server(tmp_path, path), routes(("a", "no"))) as kong:

        def requests(count: int) -> tuple[int, int, int]:
            for _ in range(count):
                for path, status in (("/a", 200), ("/no", 403)):
                    answer = kong.request("GET", path)
                    assert answer.status == status
                    answer.log.wait()
            return footprint(server_pid(tmp_path))

        before = requests(300)
        after = requests(700)
    assert after[0] - before[0] < 2048, "KiB"
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 4


def footprint(process: int) -> tuple[int, int, int]:
    """KiB in memory, threads and open files."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    files = sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    return int(status["VmRSS"].split()[0]), int(status["Threads"]), files
