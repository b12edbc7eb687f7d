"""A Vault with two stages, each with the printed policy alone; and what its audit log has of them."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import requests
from hvac.exceptions import InvalidRequest

from tests.contract.house import write
from tests.integration.policy_bed import printed
from tests.integration.served import Answer, Login, Served, asking, check_request
from tests.patience import PATIENCE
from vaultauthz.demo.parts import OpenBao, Postgres
from vaultauthz.demo.parts.openbao import CONNECTION
from vaultauthz.policy.stage import policy_name

STAGES: Final = ("production", "staging")
OTHER: Final = dict(zip(STAGES, reversed(STAGES), strict=True))
UPSTREAMS: Final = ("db", "geo")
LEASES: Final = ("sys/leases/renew", "sys/leases/revoke")
TOKEN_TTL: Final = "6s"  # is renewed after about four
_CONFIG: Final = """\
vault: {{address: "{address}", timeout: 2s}}
stages:
{stages}
upstreams:
  db:
    secret: {{path: "database/creds/{db}"}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    callers: any
  geo:
    secret: {{kv: "{geo}", refresh: 1s}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: any
{more}
listen: {{grpc: "unix://{folder}/grpc.sock", admin: "unix://{folder}/admin.sock"}}
"""
_LATER: Final = """\
  later:
    secret: {{kv: "{later}", refresh: 1s}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: any
"""
_STAGE: Final = (
    "  {name}: {{auth: {{method: approle, role_id: {role_id}, secret_id_file: {name}}}{more}}}"
)

Place = tuple[str, str]  # a namespace ("" for the root's) and a path in it


class Inside(OpenBao):
    """The same server, as it is seen from one of its namespaces."""

    def __init__(self, server: OpenBao, namespace: str) -> None:
        super().__init__(server.audit_path.parent, port=server.port)
        self.root_token = server.root_token
        self.namespace = namespace

    def client(self, token: str | None = None) -> Any:
        """An `hvac.Client` of the namespace."""
        client = super().client(token)
        client.adapter.namespace = self.namespace
        return client


@dataclass(frozen=True)
class Layout:
    """Where the stages' secrets are: beside each other, or at the same paths of two namespaces."""

    names: Mapping[str, str]
    namespaces: Mapping[str, str]

    def paths(self, stage: str) -> frozenset[Place]:
        """Where the stage's secrets are read."""
        db, geo, later = (name.replace("{stage}", stage) for name in self.names.values())
        kv = (path.replace("two/", "two/data/", 1) for path in (geo, later))
        return frozenset((self.namespaces[stage], p) for p in (f"database/creds/{db}", *kv))


LAYOUTS: Final = {
    "stage-in-paths": Layout(
        {"db": "two-{stage}", "geo": "two/{stage}/geo", "later": "two/{stage}/later"},
        dict.fromkeys(STAGES, ""),
    ),
    "stage-in-namespaces": Layout(
        {"db": "two", "geo": "two/geo", "later": "two/later"},
        {stage: f"team-{stage}" for stage in STAGES},
    ),
}


@dataclass
class House:
    """A Vault in which each stage has its secrets, and a login with the printed policy alone."""

    bao: OpenBao
    layout: Layout
    postgres: Postgres
    logins: dict[str, tuple[str, str]] = field(default_factory=dict)

    def inside(self, stage: str) -> Inside:
        """Vault as this stage sees it."""
        return Inside(self.bao, self.layout.namespaces[stage])

    def lay_out(self, folder: Path) -> None:
        """Secrets and roles, then the policies as `vaultauthz policy` prints them."""
        for stage in STAGES:
            place = self.inside(stage)
            if place.namespace:
                self.bao.client().write_data(f"sys/namespaces/{place.namespace}", data={})
            self._database(place, self.name("db", stage))
            for name in ("geo", "later"):
                place.put_kv(self.name(name, stage), {"api_key": f"{name}-of-{stage}"})
            self.logins[stage] = place.enable_approle(stage, "# nothing", token_ttl=TOKEN_TTL)
        config = self.configure(folder)
        for stage in STAGES:
            status, text, _ = printed(config, "--stage", stage)
            assert status == 0
            client = self.inside(stage).client()
            client.sys.create_or_update_policy(policy_name(stage), text)
            client.auth.approle.create_or_update_approle(
                stage,
                token_policies=[policy_name(stage)],
                token_no_default_policy=True,
                token_ttl=TOKEN_TTL,
                token_max_ttl="1h",
            )

    def _database(self, place: Inside, role: str) -> None:
        """Logins that are granted nothing: what two of them share, PostgreSQL updates one by one.

        «tuple concurrently updated», it says to the other, and Vault tries again much later.
        """
        lives = {"default_ttl": "8s", "max_ttl": "1h"}
        place.database(self.postgres, role, **lives)
        place.client().secrets.database.create_role(
            role,
            CONNECTION,
            creation_statements=["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}';"],
            revocation_statements=['DROP ROLE "{{name}}";'],
            **lives,
        )

    def name(self, upstream: str, stage: str) -> str:
        """The name of a secret in a stage."""
        return self.layout.names[upstream].replace("{stage}", stage)

    def configure(self, folder: Path, *, wrong: str = "", later: bool = True) -> Path:
        """Write the configuration and each stage's secret_id; ``wrong``: that of this stage is.

        ``later``: with the upstream that a reload brings.
        """
        for stage, (_, secret_id) in self.logins.items():
            file = folder / stage
            file.touch(0o600)
            file.write_text("wrong" if stage == wrong else secret_id)
        text = _CONFIG.format(
            address=self.bao.address,
            folder=folder,
            stages="\n".join(map(self._stage, STAGES)),
            more=_LATER.format(**self.layout.names) if later else "",
            **self.layout.names,
        )
        return write(folder / "vaultauthz.yaml", text)

    def _stage(self, name: str) -> str:
        namespace = self.layout.namespaces[name]
        more = f", namespace: {namespace}" if namespace else ""
        return _STAGE.format(name=name, role_id=self.logins[name][0], more=more)

    def served(self, folder: Path, *, wrong: str = "") -> Served:
        """The server, not yet started."""
        server = Served(folder, Login(self.bao.address, "", "unused"), "")
        self.configure(folder, wrong=wrong, later=False)
        return server

    def token(self, stage: str) -> str:
        """A token as vaultauthz is given one."""
        role_id, secret_id = self.logins[stage]
        answer = self.inside(stage).client().auth.approle.login(role_id, secret_id, use_token=False)
        return str(answer["auth"]["client_token"])

    def call(
        self, token: str, path: str, namespace: str, body: dict[str, Any] | None = None
    ) -> requests.Response:
        """A read, or with a body a write."""
        return requests.request(
            "PUT" if body else "GET",
            f"{self.bao.address}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": token, "X-Vault-Namespace": namespace},
            timeout=PATIENCE,
        )

    def lives(self, accessor: str, stage: str) -> bool:
        """Whether there is such a token."""
        try:
            self.inside(stage).client().auth.token.lookup_accessor(accessor)
        except InvalidRequest:
            return False
        return True

    def hashed(self, text: str) -> str:
        """The text as Vault's audit log has it."""
        answer = self.bao.client().write_data("sys/audit-hash/file", data={"input": text})
        return str(answer["data"]["hash"])


class Traffic:
    """Checks in both stages without a pause; ``given`` is what each stage's requests were to carry."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.given: dict[str, list[str]] = {stage: [] for stage in STAGES}
        self.denied: list[tuple[str, Answer]] = []

    def _run(self) -> None:
        asked = [(stage, name) for stage in STAGES for name in UPSTREAMS]
        data = [check_request(name, stage=stage) for stage, name in asked]
        with asking(self._socket) as asker:
            while not self._stop.wait(0.01):
                for (stage, _), answer in zip(asked, asker.calls(data), strict=True):
                    self._note(stage, answer)

    def _note(self, stage: str, answer: Answer) -> None:
        if answer.status != 200:
            self.denied.append((stage, answer))
        self.given[stage] += [value for value in answer.headers.values() if value]

    def users(self, stage: str) -> set[str]:
        """The database users among it."""
        found = {value for value in self.given[stage] if value.startswith("Basic ")}
        return {b64decode(value.removeprefix("Basic ")).decode().split(":")[0] for value in found}

    def keys(self, stage: str) -> set[str]:
        """The API keys among it."""
        return {value for value in self.given[stage] if "-of-" in value}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


class VaultsLog:
    """What Vault's own audit log has of the tokens and leases that our audit log names."""

    def __init__(self, house: House, server: Served) -> None:
        lines = [line for line in server.audit() if line.get("lease_id")]
        tokens = {line["lease_id"]: line["stage"] for line in lines if line["event"] == "login"}
        leases = {line["lease_id"]: line["stage"] for line in lines}
        self.accessors = tokens
        self._tokens = {house.hashed(each): stage for each, stage in tokens.items()}
        self._leases = {house.hashed(each): stage for each, stage in leases.items()}
        entries = house.bao.audit_entries()
        self.entries = [entry for entry in entries if self._stage(entry) in STAGES]
        self._strangers = [e for e in entries if e["type"] == "request" and e not in self.entries]

    def _stage(self, entry: dict[str, Any]) -> str | None:
        return self._tokens.get(entry.get("auth", {}).get("accessor", ""))

    def asked(self, stage: str) -> set[Place]:
        """Everything that was asked for with a token of this stage."""
        return {_path(entry) for entry in self.entries if self._stage(entry) == stage}

    def named(self, stage: str) -> list[str | None]:
        """Whose leases were named in the calls about leases by a token of this stage."""
        return [
            self._leases.get(entry["request"]["data"]["lease_id"])
            for entry in self.entries
            if self._stage(entry) == stage and entry["request"]["path"] in LEASES
        ]

    def strangers(self, paths: frozenset[Place]) -> list[Any]:
        """By what other policies than the root's these paths were asked for."""
        asked = (entry for entry in self._strangers if _path(entry) in paths)
        policies = [entry.get("auth", {}).get("policies") for entry in asked]
        return [each for each in policies if each != ["root"]]

    def errors(self) -> list[Any]:
        """What was refused to our tokens."""
        return [entry["request"]["path"] for entry in self.entries if "error" in entry]


def _path(entry: dict[str, Any]) -> Place:
    request = entry["request"]
    return request.get("namespace", {}).get("path", "").rstrip("/"), request["path"]
