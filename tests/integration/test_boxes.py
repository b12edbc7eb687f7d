"""docker-compose.yml comes up on read-only roots, as the images' users: twice, and after kill -9 of each part."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hvac
import psycopg
import pytest
import requests

from tests.contract.test_compose import ROOT, SERVICES, stages
from tests.integration.box_project import Project, project
from tests.integration.boxes import Box, permitted
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for

REASON = permitted()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]

SERVERS = [
    name
    for name, service in SERVICES.items()
    if service["restart"] != "no" and "profiles" not in service
]
HOSTS = ("reports.demo", "geocoder.demo")
SEALED = 2  # what `bao status` ends with
# Made by every engine, read-only or not.
ENGINES_OWN = {"/dev/shm", "/proc"} | {
    f"/dev/{n}" for n in ("null", "zero", "full", "random", "urandom")
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """`docker compose up --wait`, for the first time."""
    with project(tmp_path_factory.mktemp("boxes")) as demo:
        demo.up()
        yield demo


def status(demo: Project, host: str) -> int:
    """Envoy's answer; 0 when there is none."""
    try:
        return demo.network.within(
            lambda: (
                requests.get(
                    "http://127.0.0.1:10000/", headers={"Host": host}, timeout=PATIENCE
                ).status_code
            )
        )
    except requests.ConnectionError:
        return 0


def works(demo: Project) -> None:
    """Everything that has a health check passes it, and both services answer, each with its credential."""
    for name in SERVERS:
        assert demo.boxes[name].running, demo.boxes[name].tail
        if "healthcheck" in SERVICES[name]:
            demo.until_healthy(name)
    for host in HOSTS:
        answered = wait_for(lambda host=host: status(demo, host) == 200, PATIENCE)  # type: ignore[misc]
        assert answered, "\n".join(demo.boxes[name].tail for name in ("vaultauthz", "envoy"))


def secrets(demo: Project) -> dict[str, str]:
    """What `passwords` and `setup` have written, by file."""
    volumes = ("approle", "geocoder-key", "openbao-keys", "postgres-password")
    files = [file for name in volumes for file in (demo.volumes / name).iterdir()]
    assert len(files) == 4
    return {str(file): file.read_text() for file in files}


def in_kv(demo: Project, what: Callable[[Any], Any]) -> Any:
    """What it gives for OpenBao's key-value store, as root."""
    token = json.loads((demo.volumes / "openbao-keys" / "keys.json").read_text())["root_token"]
    client = hvac.Client("http://127.0.0.1:8200", token=token)
    return demo.network.within(lambda: what(client.secrets.kv.v2))


def key_versions(demo: Project) -> int:
    """How many versions of the geocoder's key OpenBao has."""
    found = in_kv(demo, lambda kv: kv.read_secret_metadata("geocoder", mount_point="secret"))
    return len(found["data"]["versions"])


def database_users(demo: Project) -> list[str]:
    """The logins that OpenBao has made in PostgreSQL and not removed."""
    password = (demo.volumes / "postgres-password" / "password").read_text()

    def read() -> list[str]:
        with psycopg.connect(
            host="127.0.0.1", port=5432, user="postgres", password=password, dbname="postgres"
        ) as session:
            rows = session.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")
            return [str(row[0]) for row in rows]

    return demo.network.within(read)


class TestUp:
    def test_it_works(self, demo: Project) -> None:
        """The two requests of docs/compose.md."""
        works(demo)

    @pytest.mark.parametrize("name", SERVERS)
    def test_what_can_be_written(self, demo: Project, name: str) -> None:
        """The root cannot, nor anything but what the service declares."""
        service, mounts = SERVICES[name], demo.boxes[name].mounts
        declared = {m["target"] for m in service.get("volumes", []) if not m.get("read_only")}
        declared |= {text.partition(":")[0] for text in service.get("tmpfs", [])}
        root = set() if service.get("read_only") else {"/"}
        writable = {place for place, can_be in mounts.items() if can_be}
        assert writable - ENGINES_OWN == declared | root
        assert (name == "postgres") == bool(root)

    @pytest.mark.parametrize(
        ("name", "user", "group"),
        [
            ("envoy", "101", "10001"),
            ("vaultauthz", "10001", "10001"),
            ("reports", "10001", "10001"),
            ("openbao", "100", "1000"),
            ("postgres", "70", "70"),
        ],
    )
    def test_who_runs_it(self, demo: Project, name: str, user: str, group: str) -> None:
        """The image's user, with no group besides and no capability."""
        box = demo.boxes[name]
        assert (set(box.status("Uid")), set(box.status("Gid"))) == ({user}, {group})
        assert box.status("Groups") == []
        assert box.status("NoNewPrivs") == ["1"]
        assert {int(word, 16) for word in box.status("CapEff")} == {0}

    def test_the_images_own_health_check(self, demo: Project) -> None:
        """What `docker run` without Compose asks."""
        (check,) = [rest for name, rest in stages()["vaultauthz"] if name == "HEALTHCHECK"]
        words: list[str] = json.loads(check[check.index("[") :])
        box = demo.boxes["vaultauthz"]
        assert wait_for(lambda: box.execute(*words).returncode == 0, PATIENCE)

    def test_the_audit_log_is_what_docker_logs_shows(self, demo: Project) -> None:
        """Lines of requests, no secret, and no word that wrong logins cannot be counted here."""
        works(demo)
        box = demo.boxes["vaultauthz"]
        assert wait_for(lambda: '"request.allowed"' in box.log.read_text(), PATIENCE)
        text = box.log.read_text()
        assert "wrong logins" not in text
        assert not [secret for secret in secrets(demo).values() if secret in text]

    def test_a_user_of_another_group_does_not_get_in(self, demo: Project) -> None:
        """Envoy's own group does not reach the socket; with vaultauthz's it does."""
        connect = (
            "import socket; socket.socket(socket.AF_UNIX).connect('/run/vaultauthz/grpc.sock')"
        )
        argv = [f"{sys.prefix}/bin/python", "-I", "-c", connect]
        assert demo.boxes["envoy"].execute(*argv).returncode == 0
        refused = demo.boxes["envoy"].execute(*argv, user="101:101")
        assert "PermissionError" in refused.stderr


class TestAgain:
    def test_up_while_it_runs(self, demo: Project) -> None:
        """Nobody is started anew, and nothing that is there is changed."""
        before = secrets(demo), {name: demo.boxes[name].pid for name in SERVERS}
        demo.up()
        assert (secrets(demo), {name: demo.boxes[name].pid for name in SERVERS}) == before
        assert key_versions(demo) == 1
        works(demo)

    def test_down_and_up(self, demo: Project) -> None:
        """With the volumes kept; while it is down, no login of OpenBao's is left in the database."""
        before = secrets(demo)
        vaultauthz = demo.boxes["vaultauthz"]
        assert wait_for(lambda: bool(database_users(demo)), PATIENCE)
        vaultauthz.signal(signal.SIGTERM)
        assert wait_for(lambda: database_users(demo) == [], PATIENCE), vaultauthz.tail
        assert status(demo, "reports.demo") == 503
        demo.down()
        demo.up()
        works(demo)
        assert secrets(demo) == before
        assert key_versions(demo) == 1

    @pytest.mark.parametrize("name", SERVERS)
    def test_kill_9(self, demo: Project, name: str) -> None:
        """It is started again, as `restart:` has it, and everything works; OpenBao is sealed until `setup`."""
        assert demo.boxes[name].signal(signal.SIGKILL) != 0
        demo.boxes[name].start()
        if name == "openbao":
            unsealed_by_setup(demo)
        works(demo)

    def test_kill_9_of_all(self, demo: Project) -> None:
        """As when the machine loses its power."""
        for name in SERVERS:
            demo.boxes[name].signal(signal.SIGKILL)
        demo.up()
        works(demo)
        assert key_versions(demo) == 1

    def test_openbao_restarts(self, demo: Project) -> None:
        """Requests go on while it is sealed, since their lease lasts."""
        works(demo)
        openbao = demo.boxes["openbao"]
        openbao.signal(signal.SIGTERM)
        openbao.start()
        sealed(demo)
        assert wait_for(lambda: status(demo, "geocoder.demo") == 200, PATIENCE)
        unsealed_by_setup(demo)
        works(demo)


def sealed(demo: Project) -> None:
    """Wait until OpenBao says that it is."""
    openbao = demo.boxes["openbao"]
    words = SERVICES["openbao"]["healthcheck"]["test"][1:]
    assert wait_for(lambda: openbao.execute(*words).returncode == SEALED, PATIENCE), openbao.tail


def unsealed_by_setup(demo: Project) -> None:
    """`docker compose run --rm setup`, once it is sealed."""
    sealed(demo)
    assert demo.boxes["setup"].run() == 0, demo.boxes["setup"].tail
    demo.until_healthy("openbao")


class TestKong:
    def test_the_server_and_its_gateway(self, demo: Project) -> None:
        """The profile's server is healthy, and Kong's user reaches it with nothing but what its box has."""
        works(demo)
        demo.up("vaultauthz-kong")
        demo.until_healthy("vaultauthz-kong")
        kong = demo.boxes["kong"]
        query = SERVICES["kong"]["environment"]["KONG_PLUGINSERVER_VAULTAUTHZ_QUERY_CMD"].split()
        assert in_box(kong, *query) == 0
        assert json.loads(kong.log.read_text()) == json.loads(
            (ROOT / "deploy" / "compose" / "vault-authz.json").read_text()
        )
        code = (
            "import os, pathlib, socket; assert os.getuid() == 1001 and os.getgid() == 10001;"
            "socket.socket(socket.AF_UNIX).connect('/run/vaultauthz/kong.sock');"
            "pathlib.Path('/run/kong/pids').mkdir(); pathlib.Path('/tmp/body').touch()"
        )
        assert in_box(kong, f"{sys.prefix}/bin/python", "-I", "-c", code) == 0, kong.tail

    def test_kill_9(self, demo: Project) -> None:
        """Its own health check passes again afterwards."""
        demo.up("vaultauthz-kong")
        box = demo.boxes["vaultauthz-kong"]
        box.signal(signal.SIGKILL)
        box.start()
        demo.until_healthy("vaultauthz-kong")


def in_box(box: Box, *argv: str) -> int | None:
    """Run this instead of what the service runs; the exit status."""
    box.start(list(argv))
    return box.ended()


def test_setup_killed_half_way(tmp_path: Path) -> None:
    """When it has made OpenBao's keys, the next run goes on from there."""
    with project(tmp_path) as demo:
        demo.up("openbao", "postgres")
        setup = demo.boxes["setup"]
        setup.start()
        keys = demo.volumes / "openbao-keys" / "keys.json"
        assert wait_for(lambda: keys.exists() or not setup.running, PATIENCE), setup.tail
        setup.signal(signal.SIGKILL)
        demo.up()
        works(demo)
        # And what somebody has deleted is put back.
        in_kv(
            demo,
            lambda kv: kv.delete_latest_version_of_secret("geocoder", mount_point="secret"),
        )
        assert setup.run() == 0, setup.tail
        assert key_versions(demo) == 2
        works(demo)


def test_setup_without_its_keys(tmp_path: Path) -> None:
    """When their volume was removed alone: nobody can unseal OpenBao, and what to do is said."""
    with project(tmp_path) as demo:
        demo.up("openbao", "postgres", "setup")
        (demo.volumes / "openbao-keys" / "keys.json").unlink()
        setup = demo.boxes["setup"]
        assert setup.run() == 1
        assert "docker compose down --volumes" in setup.tail
        assert "Traceback" not in setup.tail
