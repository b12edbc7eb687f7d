"""Everything a fault needs: OpenBao behind a proxy, PostgreSQL, two services, ``vaultauthz serve``, Envoy."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from tests.integration.faults.ledger import Ledger
from tests.integration.faults.services import Geocoder, reports
from tests.integration.faults.traffic import WORKERS, Traffic
from tests.integration.faults.vault_proxy import Kind, VaultProxy
from tests.patience import PATIENCE
from vaultauthz.demo.client import get_unix
from vaultauthz.demo.parts import Envoy, OpenBao, Postgres, Process, Upstream, free_port, wait_for
from vaultauthz.demo.stage import envoy_template, write_private

REPORTS, GEOCODER = "reports.demo", "geocoder.demo"
ROLE, CREDS, KEY_PATH = "reports-demo", "database/creds/reports-demo", "secret/geocoder"
POLICY = f"""
path "{CREDS}" {{ capabilities = ["read"] }}
path "secret/data/geocoder" {{ capabilities = ["read"] }}
path "sys/leases/revoke" {{ capabilities = ["update"] }}
"""

# Rule 3: two failed calls for one lease are never closer than this, less what a proxy's clock may be off.
FLOOR: Final = 0.5
FLOOR_SEEN: Final = 0.45


@dataclass(frozen=True)
class Times:
    """The lifetimes of one test, in seconds."""

    lease: int = 4
    lease_max: int = 3600
    token: int = 3600
    token_max: int = 7200
    refresh: int = 1
    max_stale: int = 3600
    call: int = 2
    check: float = 20.0  # how long Envoy waits for our answer


class Bed:
    """One gateway with all it stands on; leave it to stop everything."""

    def __init__(self, folder: Path, postgres: Postgres, times: Times) -> None:
        self.folder = folder
        self.times = times
        self.postgres = postgres
        self.bao = OpenBao(folder / "openbao")
        self.ledger = Ledger()
        self.geocoder = Geocoder(self.ledger)
        self.proxy = VaultProxy(self.bao.port, self.ledger.heard)
        self.serve = Process(
            [sys.executable, "-m", "vaultauthz", "serve", "-c", folder / "vaultauthz.yaml"],
            folder / "vaultauthz.log",
        )
        self.port = free_port()
        self._services = (Upstream(reports(postgres, self.ledger)), Upstream(self.geocoder.answer))
        self.allowed = "never"  # when dead answers are, for the table
        self._traffic: list[Traffic] = []
        self._parts = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            for part in (self.proxy, *self._services):
                parts.enter_context(part)
            # Killed at the end: an orderly stop of them has a test of its own.
            parts.callback(self.bao.kill)
            self.bao.start()
            self._lay_out()
            parts.callback(self.serve.kill)
            self.start_serve()
            envoy = Envoy(self._gateway(), self.folder / "envoy")
            parts.callback(envoy.kill)
            envoy.start()
            self._parts = parts.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parts.close()

    # --- the parts ---

    def start_serve(self) -> None:
        """Start our process and wait until it has every credential."""
        self.serve.start()
        self.serve.wait_until(self._ready)

    def traffic(self, host: str = REPORTS) -> Traffic:
        """Constant traffic to a host, while it is entered; it counts for the summary."""
        self._traffic.append(Traffic(self.port, host))
        return self._traffic[-1]

    def new_key(self, key: str) -> int:
        """A key that the geocoder takes from now on, as a new version in Vault; the version."""
        self.geocoder.add(key)
        return self.bao.put_kv(KEY_PATH, {"api_key": key})

    def leases(self) -> list[str]:
        """The database leases that OpenBao holds."""
        found = self.bao.client().list(f"sys/leases/lookup/{CREDS}")
        return [f"{CREDS}/{name}" for name in found["data"]["keys"]] if found else []

    def tokens(self) -> list[str]:
        """The accessors of the login tokens that OpenBao holds."""
        client = self.bao.client()
        found = client.list("auth/token/accessors")["data"]["keys"]
        paths = {a: client.auth.token.lookup_accessor(a)["data"]["path"] for a in found}
        return [accessor for accessor, path in paths.items() if path == "auth/approle/login"]

    def write_role(self) -> None:
        """Write the database role (again)."""
        self.bao.database(
            self.postgres,
            ROLE,
            default_ttl=f"{self.times.lease}s",
            max_ttl=f"{self.times.lease_max}s",
        )

    def _lay_out(self) -> None:
        self._drop_leftovers()
        self.write_role()
        self.new_key("key-one")
        role_id, secret_id = self.bao.enable_approle(
            "demo",
            POLICY,
            token_ttl=f"{self.times.token}s",
            token_max_ttl=f"{self.times.token_max}s",
        )
        write_private(self.folder / "secret_id", secret_id)
        (self.folder / "vaultauthz.yaml").write_text(yaml.safe_dump(self._config(role_id)))

    def _drop_leftovers(self) -> None:
        """The users of a test before, whose OpenBao is gone."""
        with self.postgres.connect(self.postgres.superuser, self.postgres.password) as session:
            for user in self.postgres.users():
                session.execute(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')

    def _config(self, role_id: str) -> dict[str, Any]:
        times, folder = self.times, self.folder
        auth = {"method": "approle", "role_id": role_id, "secret_id_file": f"{folder}/secret_id"}
        return {
            "vault": {"address": self.proxy.address, "timeout": f"{times.call}s"},
            "stages": {"demo": {"auth": auth}},
            "upstreams": {
                "reports": {
                    "secret": {"path": CREDS},
                    "inject": [{"basic": {"username": "{username}", "password": "{password}"}}],
                    "callers": "any",
                },
                "geocoder": {
                    "secret": {
                        "kv": KEY_PATH,
                        "refresh": f"{times.refresh}s",
                        "max_stale": f"{times.max_stale}s",
                    },
                    "inject": [{"header": {"name": "X-Api-Key", "value": "{api_key}"}}],
                    "callers": "any",
                },
            },
            "routes": [
                {"host": REPORTS, "upstream": "reports", "stage": "demo"},
                {"host": GEOCODER, "upstream": "geocoder", "stage": "demo"},
            ],
            "listen": {
                "grpc": f"unix://{folder}/grpc.sock",
                "admin": f"unix://{folder}/admin.sock",
            },
            "audit": {"file": f"{folder}/audit.jsonl"},
        }

    def _gateway(self) -> dict[str, Any]:
        """The demo's gateway, without TLS, and asking us for the upstream by host."""
        document: dict[str, Any] = yaml.safe_load(envoy_template())
        resources = document["static_resources"]
        listener = resources["listeners"][0]
        listener["address"]["socket_address"]["port_value"] = self.port
        chain = listener["filter_chains"][0]
        del chain["transport_socket"]
        (asks,) = (
            each["typed_config"]["grpc_service"]
            for each in chain["filters"][0]["typed_config"]["http_filters"]
            if each["name"] == "envoy.filters.http.ext_authz"
        )
        asks["timeout"] = f"{self.times.check}s"
        for virtual_host in chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]:
            virtual_host.pop("typed_per_filter_config", None)
        ports = {"reports": self._services[0].port, "geocoder": self._services[1].port}
        for cluster in resources["clusters"]:
            endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            if "pipe" in endpoint["address"]:
                endpoint["address"]["pipe"]["path"] = f"{self.folder}/grpc.sock"
            else:
                endpoint["address"]["socket_address"]["port_value"] = ports[cluster["name"]]
        return document

    def _ready(self) -> bool:
        try:
            return self.admin("/readyz") == 200
        except OSError:
            return False

    def admin(self, page: str) -> int:
        """The status of a page of the admin server's."""
        return get_unix(self.folder / "admin.sock", page).status

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.folder / "admin.sock"))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with client.makefile("r") as lines:
                (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)

    def revoked(self, upstream: str) -> tuple[int, str]:
        """The exit status of `vaultauthz revoke --wait`, and what it says."""
        file = f"{self.folder}/vaultauthz.yaml"
        command = [sys.executable, "-m", "vaultauthz", "revoke", upstream, "--wait", "-c", file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout

    def leases_status(self) -> int:
        """The exit status of `vaultauthz leases`."""
        file = f"{self.folder}/vaultauthz.yaml"
        command = [sys.executable, "-m", "vaultauthz", "leases", "-c", file]
        return subprocess.run(
            command, capture_output=True, timeout=PATIENCE, check=False
        ).returncode

    # --- what came of it ---

    def assert_none_dead(self, *, after: float = 0.0, allowed: str = "never") -> None:
        """No dead credential was given out later than ``after``, when we knew of its end."""
        self.allowed = allowed
        # A line is written a little later than the answer is given.
        assert wait_for(lambda: self.ledger.wanted <= self._given().keys(), PATIENCE)
        self.ledger.judge(self._given())
        dead = [use for use in self.ledger.dead if use.at > after]
        assert not dead, f"{len(dead)} dead, the first: {dead[0]}"
        # Each client has one request at a time, so at most that many can be on their way.
        crossed = Counter(use.credential for use in self.ledger.crossed)
        assert all(count <= WORKERS for count in crossed.values()), self.ledger.crossed

    def _given(self) -> dict[str, float]:
        """When we let each request through (monotonic), by its id."""
        since = time.time() - time.monotonic()
        lines = (self.folder / "audit.jsonl").read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return {
            line["request_id"]: datetime.fromisoformat(line["time"]).timestamp() - since
            for line in told
            if line["event"] == "request.allowed"
        }

    def wait_for_no_users(self) -> None:
        """Until PostgreSQL has no user of Vault's any more."""
        assert wait_for(lambda: not self.postgres.users(), PATIENCE), self.postgres.users()

    def assert_paced(self) -> None:
        """No call for the lease, nor for the login, within the backoff's floor after one that failed."""
        for kinds in ({Kind.ISSUE, Kind.RENEW}, {Kind.LOGIN, Kind.TOKEN}):
            calls = self.proxy.calls(kinds)
            close = [
                f"{second.kind.value} {second.at - first.at:.2f} s after a failed {first.kind.value}"
                for first, second in itertools.pairwise(calls)
                if not first.good and second.at - first.at < FLOOR_SEEN
            ]
            assert not close, close

    def issues(self, since: float, until: float) -> int:
        """How many times a database user was asked for in this time."""
        return len(self.proxy.calls({Kind.ISSUE}, since, until))

    def told(self, level: str = "", **fields: str) -> list[dict[str, Any]]:
        """The lines of our log that have this level and these fields."""
        text = (self.folder / "vaultauthz.log").read_text(errors="replace")
        whole = text.splitlines(keepends=True)
        lines = [json.loads(line) for line in whole if line.endswith("\n")]
        wanted = {"level": level, **fields} if level else fields
        return [line for line in lines if wanted.items() <= line.items()]

    def wait_until_told(self, times: Callable[[], int], level: str, **fields: str) -> None:
        """Wait until the log has so many of these lines: a line comes a moment after what it tells of."""
        assert wait_for(lambda: len(self.told(level, **fields)) == times(), PATIENCE), self.told(
            level, **fields
        )

    def assert_told(self, upstream: str = "reports", *, times: int = 1) -> None:
        """The log has one line for each outage of the upstream, which says why, and one for its end."""

        def over() -> list[dict[str, Any]]:
            lines = self.told("info", upstream=upstream)
            return [line for line in lines if "has its credential again" in line["message"]]

        assert wait_for(lambda: len(over()) >= times, PATIENCE), "the log tells of no end"
        began, ended = [e for e in self.told("error", upstream=upstream) if "event" in e], over()
        assert len(began) == len(ended) == times, (began, ended)
        for begins, ends in zip(began, ended, strict=True):
            assert "its credential has ended (" in begins["message"]
            assert begins["reason"]
            assert begins["time"] <= ends["time"]
            assert ends["seconds"] > 0.0

    def assert_quiet(self) -> None:
        """The log tells of no outage, and of no fault of ours."""
        assert self.told("error") == []

    def assert_clean_logs(self) -> None:
        """Our process fell over nothing, and told no log a token, password or key."""
        log = (self.folder / "vaultauthz.log").read_text(errors="replace")
        assert "Traceback" not in log, log
        told = log + (self.folder / "audit.jsonl").read_text(errors="replace")
        assert self.ledger.secrets
        assert not [secret for secret in self.ledger.secrets if secret in told]

    def summary(self, fault: str) -> str:
        """One line of the table; `allowed` says in which time dead answers are."""
        counts: Counter[int] = Counter()
        for traffic in self._traffic:
            counts += traffic.statuses()
        other = counts.total() - counts[200] - counts[503]
        ledger = self.ledger
        numbers = (counts.total(), counts[200], counts[503], other, len(ledger.dead))
        columns = (fault, *numbers, len(ledger.crossed), ledger.minted, self.allowed)
        return "| " + " | ".join(map(str, columns)) + " |"


def most_issues(seconds: float) -> int:
    """The most calls for one credential in an outage of this length, by the backoff's floor alone."""
    return int(seconds / FLOOR) + 1
