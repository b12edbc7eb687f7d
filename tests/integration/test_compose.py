"""The files of docker-compose.yml at work as plain processes, each container name replaced by a local address."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.contract.test_compose import ROOT, SERVICES, copied, json_of
from tests.patience import PATIENCE
from vaultauthz.demo.parts import (
    Envoy,
    Postgres,
    Process,
    binaries,
    free_port,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COMPOSE = ROOT / "deploy" / "compose"
FOLDERS = ("approle", "geocoder-key", "openbao-keys", "postgres-password", "admin", "vaultauthz")
SEALED = 2  # what `bao status` ends with


class House:
    """The compose file's services, by hand; `at` says where on this machine each place of theirs is."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self.folder = folder
        self.postgres = postgres
        self.port = free_port()
        self.at = {
            "/opt/demo": str(COMPOSE),
            "/opt/vaultauthz/healthcheck.py": str(ROOT / "deploy" / "healthcheck.py"),
            "/openbao/file": str(folder / "openbao"),
            "/openbao/config/openbao.hcl": str(folder / "openbao.hcl"),
            "/etc/vaultauthz/vaultauthz.yaml": str(folder / "vaultauthz.yaml"),
            "//postgres:5432": f"//{postgres.address}",
            "postgres:5432": postgres.address,
            "address: 0.0.0.0, port_value: 10000": f"address: 127.0.0.1, port_value: {self.port}",
            "127.0.0.1:8201": f"127.0.0.1:{free_port()}",
        }
        vault, reports, geocoder = (f"127.0.0.1:{free_port()}" for _ in range(3))
        for name, port, here in (("reports", 8081, reports), ("geocoder", 8082, geocoder)):
            self.at[f"0.0.0.0:{port}"] = here
            host, _, local = here.rpartition(":")
            self.at[f"address: {name}, port_value: {port}"] = (
                f"address: {host}, port_value: {local}"
            )
        for place in ("openbao:8200", "0.0.0.0:8200", "127.0.0.1:8200"):
            self.at[place] = vault
        for name in FOLDERS:
            (folder / "run" / name).mkdir(parents=True, mode=0o700)
            self.at[f"/run/{name}/"] = f"{folder}/run/{name}/"
        (folder / "openbao").mkdir()
        for source in (COMPOSE / "openbao.hcl", COMPOSE / "vaultauthz.yaml"):
            (folder / source.name).write_text(self.here(source.read_text()))
        bao: list[str | Path] = [binaries.bao(), *map(self.here, SERVICES["openbao"]["command"])]
        self.services = {name: self.part(name) for name in ("reports", "geocoder")}
        self.bao = Process(bao, folder / "openbao.log", env={"HOME": str(folder)})
        serve = [*json_of("vaultauthz", "ENTRYPOINT"), *json_of("vaultauthz", "CMD")]
        self.serve = Process(
            [sys.executable, "-m", *map(self.here, serve)], folder / "vaultauthz.log", env={}
        )
        self.envoy = Envoy(self.here((ROOT / "envoy" / "compose.yaml").read_text()), folder / "e")

    def here(self, text: str) -> str:
        """The text with every place of the containers replaced by ours."""
        for place in sorted(self.at, key=len, reverse=True):
            text = text.replace(place, self.at[place])
        return text

    def run(self, service: str) -> str:
        """A one-shot service, to its end; what it printed."""
        argv = [sys.executable, *map(self.here, SERVICES[service]["command"])]
        return _run(argv, self._environment(service))

    def part(self, service: str) -> Process:
        """A service of the demo's own image, not started."""
        argv = [sys.executable, *map(self.here, SERVICES[service]["command"])]
        return Process(argv, self.folder / f"{service}.log", env=self._environment(service))

    def healthy(self, service: str, program: Path) -> int:
        """The exit status of the service's health check, with our copy of its program."""
        words = [*map(self.here, SERVICES[service]["healthcheck"]["test"])]
        assert words[0] == "CMD"
        done = subprocess.run(
            [program, *words[2:]], capture_output=True, timeout=PATIENCE, check=False
        )
        return done.returncode

    def get(self, host: str, headers: dict[str, str] | None = None) -> requests.Response:
        """A GET through Envoy, as curl sends it."""
        url = f"http://127.0.0.1:{self.port}/"
        return requests.get(url, headers={"Host": host, **(headers or {})}, timeout=PATIENCE)

    def file(self, place: str) -> Path:
        """A file in one of the volumes."""
        return self.folder / "run" / place

    def _environment(self, service: str) -> dict[str, str]:
        variables = SERVICES[service].get("environment", {})
        return {name: self.here(value) for name, value in variables.items()}


def _run(argv: list[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Everything in the order that `depends_on` gives, up to Envoy."""
    folder = tmp_path_factory.mktemp("compose")
    with contextlib.ExitStack() as parts:
        postgres = parts.enter_context(Postgres(folder / "postgres"))
        house = House(folder, postgres)
        house.run("passwords")
        _as_the_image_would(postgres, house.file("postgres-password/password").read_text())
        parts.callback(house.bao.terminate)
        house.bao.start()
        house.run("setup")
        for part in house.services.values():
            parts.callback(part.terminate)
            part.start()
        parts.callback(house.serve.terminate)
        house.serve.start()
        house.serve.wait_until(lambda: house.healthy("vaultauthz", Path(sys.executable)) == 0)
        parts.enter_context(house.envoy)
        assert wait_for(lambda: house.get("geocoder.demo").status_code == 200, PATIENCE)
        yield house


def _as_the_image_would(postgres: Postgres, password: str) -> None:
    """The superuser's password from the file, and reports.sql run in an empty database."""
    with postgres.connect(postgres.superuser, postgres.password) as session:
        session.execute("DROP TABLE reports")
        session.execute((COMPOSE / "reports.sql").read_bytes())
        session.execute(
            psycopg.sql.SQL("ALTER ROLE postgres PASSWORD {}").format(psycopg.sql.Literal(password))
        )
    postgres.password = password


class TestTheWayThrough:
    def test_reports(self, house: House) -> None:
        """The request of the page is answered with rows, and the database user is one that OpenBao made."""
        answer = house.get("reports.demo")
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["rows"]) == 3
        assert answer.json()["current_user"] in house.postgres.users()

    def test_geocoder(self, house: House) -> None:
        """The key that setup made reaches the service, whatever key the client sends."""
        assert house.get("geocoder.demo", {"X-Api-Key": "mine"}).json()["place"] == "Prague"

    def test_a_clients_own_login_is_not_used(self, house: House) -> None:
        """A client that knows PostgreSQL's superuser does not become it."""
        login = requests.Request(auth=("postgres", house.postgres.password), url="http://x")
        header = {"Authorization": str(login.prepare().headers["Authorization"])}
        answer = house.get("reports.demo", header).json()
        assert answer["current_user"].startswith("v-")

    def test_an_unknown_host(self, house: House) -> None:
        """It is refused by vaultauthz, which writes it down."""
        assert (house.get("other.demo").json()["error"]) == "no_upstream"

    def test_the_audit_log_is_on_standard_output(self, house: House) -> None:
        """What `docker compose logs vaultauthz` shows has the request and no secret."""
        house.get("reports.demo")
        assert wait_for(lambda: "request.allowed" in house.serve.log.read_text(), PATIENCE)
        text = house.serve.log.read_text() + house.envoy.log.read_text()
        assert house.file("geocoder-key/api_key").read_text() not in text
        assert house.file("approle/secret_id").read_text() not in text

    def test_openbaos_audit_log_is_on_standard_output(self, house: House) -> None:
        """`docker compose logs openbao` shows the login, and joins with ours by the correlation id."""
        lines = [line for line in house.bao.log.read_text().splitlines() if line.startswith("{")]
        paths = {json.loads(line)["request"]["path"] for line in lines if '"request"' in line}
        assert {"auth/approle/login", "database/creds/reports-demo"} <= paths

    def test_the_reader_alone_can_read(self, house: House) -> None:
        """Every secret's file is 0600."""
        files = [path for path in (house.folder / "run").rglob("*") if path.is_file()]
        assert len(files) == 4
        assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}

    def test_the_sockets_modes(self, house: House) -> None:
        """Envoy gets to the checks by its group, and to the admin page not at all."""
        assert house.file("vaultauthz/grpc.sock").stat().st_mode & 0o777 == 0o660
        assert house.file("admin/admin.sock").stat().st_mode & 0o777 == 0o600

    def test_the_health_checks(self, house: House) -> None:
        """Each says yes while its service is well, and vaultauthz's says no where nobody listens."""
        psql = binaries.postgres_install() / "bin" / "pg_isready"
        words = SERVICES["postgres"]["healthcheck"]["test"][2:]
        words = [str(house.postgres.port) if word == "5432" else word for word in words]
        assert subprocess.run([psql, *words], capture_output=True, check=False).returncode == 0
        assert house.healthy("openbao", binaries.bao()) == 0
        assert house.healthy("vaultauthz", Path(sys.executable)) == 0
        nowhere = [sys.executable, str(ROOT / "deploy" / "healthcheck.py"), "/nowhere", "/healthz"]
        done = subprocess.run(nowhere, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "")

    def test_up_again(self, house: House) -> None:
        """After a restart OpenBao is sealed; setup unseals it and leaves every secret as it was."""
        files = [path for path in (house.folder / "run").rglob("*") if path.is_file()]
        before = {path: path.read_text() for path in files}
        house.bao.terminate()
        house.bao.start()
        assert wait_for(lambda: house.healthy("openbao", binaries.bao()) == SEALED, PATIENCE)
        assert house.get("reports.demo").status_code == 200
        house.run("passwords")
        house.run("setup")
        assert house.healthy("openbao", binaries.bao()) == 0
        assert {path: path.read_text() for path in files} == before

    def test_on_stop_nothing_is_left(self, house: House) -> None:
        """SIGTERM, which is what `docker compose stop` sends: the database user goes, Envoy answers 503."""
        assert house.postgres.users()
        assert house.serve.terminate() == 0, house.serve.log_tail()
        assert house.postgres.users() == []
        assert house.get("reports.demo").status_code == 503
        assert [part.terminate() for part in house.services.values()] == [0, 0]


def test_envoy_takes_its_file(tmp_path: Path) -> None:
    """envoy/compose.yaml passes Envoy's validation as it stands."""
    argv = [str(binaries.envoy()), "--mode", "validate", "-c", str(ROOT / "envoy" / "compose.yaml")]
    _run([*argv, "--log-level", "error"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from what the Dockerfile's build stage copies, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *copied("build")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "src" / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "-q"]
    pip.append("--no-build-isolation")  # with the locked hatchling, and no download in a test
    _run([*pip, "-w", str(folder), str(folder / "src")])
    (built,) = folder.glob("vaultauthz-*.whl")
    return built


class TestTheWheel:
    @pytest.mark.parametrize(
        "name",
        [
            "vaultauthz/_pb/ext_authz_pb2.py",
            "vaultauthz/_pb/health_pb2.py",
            "vaultauthz/admin/page.html",
            "vaultauthz/demo/envoy.yaml",
            "LICENSE",
        ],
    )
    def test_what_is_in_it(self, wheel: Path, name: str) -> None:
        """Generated code, pages, the demo's Envoy file and the license come along."""
        names = zipfile.ZipFile(wheel).namelist()
        assert any(
            found == name or found.endswith(f".dist-info/licenses/{name}") for found in names
        )

    def test_what_is_not(self, wheel: Path) -> None:
        """Only the package and its own description."""
        names = zipfile.ZipFile(wheel).namelist()
        tops = {name.split("/")[0].partition("-")[0] for name in names}
        assert tops == {"vaultauthz"}
        assert not [name for name in names if "__pycache__" in name]

    def test_it_runs(self, wheel: Path, tmp_path: Path) -> None:
        """In an environment of its own the command says its version and checks the compose configuration."""
        python = _environment(tmp_path / "venv", wheel)
        command = str(python.parent / "vaultauthz")
        where = _run([str(python), "-I", "-c", "import vaultauthz; print(vaultauthz.__file__)"])
        assert where.startswith(str(tmp_path))
        assert _run([command, "--version"]).startswith("vaultauthz ")
        (tmp_path / "secret_id").touch(0o600)
        (tmp_path / "secret_id").write_text("a secret id")
        text = (COMPOSE / "vaultauthz.yaml").read_text()
        text = text.replace("/run/approle/", f"{tmp_path}/")
        text = text.replace("http://openbao:8200", "http://127.0.0.1:8200")
        (tmp_path / "c.yaml").write_text(text)
        said = _run([command, "config", "check", "-c", str(tmp_path / "c.yaml")])
        assert said.endswith("good: 1 stage, 2 upstreams, 1 route\n")


def _environment(folder: Path, wheel: Path) -> Path:
    """A new virtual environment with the wheel, which finds its dependencies in ours (no download in a test)."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    ours = sysconfig.get_path("purelib")
    names: dict[str, Any] = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=names))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    _run([*pip, "install", "--no-deps", "--no-index", "-q", str(wheel)])
    # A path that a .pth file adds is searched last, and its own .pth files (our editable install) are not read.
    (site / "dependencies.pth").write_text(f"{ours}\n")
    return python
