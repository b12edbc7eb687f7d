"""`vaultauthz serve` over a fake Vault, and a real Prometheus that looks at it by our alert rules."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.contract.audit_bed import CHECK
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.running import settings
from tests.patience import PATIENCE
from tests.prometheus import RULES, Prometheus, free_port, hurried
from vaultauthz._pb.ext_authz_pb2 import AttributeContext, CheckRequest
from vaultauthz.envoy.access_logs.stream import METHOD

TOKEN = "t0ken-of-an-operator"
STAGE = "production"


@dataclass
class Watched:
    """A server that is watched; ``document`` is the configuration that it has begun with."""

    folder: Path
    document: dict[str, Any]
    process: subprocess.Popen[bytes]
    prometheus: Prometheus
    admin: str

    def quiet(self) -> None:
        """Wait until it is ready, and no alert is on."""
        well = wait_until(
            lambda: (
                self.prometheus.value("vaultauthz_ready") == [1] and not self.prometheus.firing()
            )
        )
        assert well, (self.prometheus.firing(), self.log)

    def alarms(self, *names: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until each of these alerts has been on; ``meanwhile`` is done again and again."""
        seen: set[str] = set()

        def all_seen() -> bool:
            meanwhile()
            seen.update(self.prometheus.firing())
            return seen.issuperset(names)

        assert wait_until(all_seen), (seen, self.log)

    def configure(self, document: dict[str, Any] | str) -> None:
        """Write the configuration's file, which the server follows."""
        text = document if isinstance(document, str) else yaml.safe_dump(document)
        passing = self.folder / "next.yaml"
        passing.write_text(text)
        passing.replace(self.folder / "c.yaml")

    def credential_id(self, upstream: str) -> str:
        """Of the credential in use, as the admin server tells it."""
        asked = urllib.request.Request(
            f"http://{self.admin}/leases", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(asked) as reply:
            rows = json.load(reply)
        return str(next(row["credential_id"] for row in rows if row["upstream"] == upstream))

    def report(self, message: bytes) -> None:
        """Tell the server of requests that are over, as an Envoy does."""
        with grpc.insecure_channel(f"unix:{self.folder}/g.sock") as channel:
            call = channel.stream_unary(
                METHOD, request_serializer=bytes, response_deserializer=bytes
            )
            call(iter([message]), timeout=PATIENCE)

    def check(self, upstream: str, caller: str) -> None:
        """Ask about a request, as an Envoy does; whatever comes of it."""
        peer = AttributeContext.Peer(principal=caller)
        http = AttributeContext.HttpRequest(method=b"GET", host=b"h", path=b"/")
        asked = CheckRequest(
            attributes=AttributeContext(
                source=peer,
                request=AttributeContext.Request(http=http),
                context_extensions={"upstream": upstream},
            )
        )
        with grpc.insecure_channel(f"unix:{self.folder}/g.sock") as channel:
            call = channel.unary_unary(
                CHECK,
                request_serializer=CheckRequest.SerializeToString,
                response_deserializer=bytes,
            )
            call(asked, timeout=PATIENCE)

    @property
    def log(self) -> str:
        """What the server has said on standard error."""
        return (self.folder / "stderr").read_text()


@contextlib.contextmanager
def watched(
    vault: FakeVault,
    folder: Path,
    upstreams: dict[str, Any],
    *,
    listen: dict[str, Any] | None = None,
    stdout: int = subprocess.DEVNULL,
) -> Iterator[Watched]:
    """It runs, with these upstreams, until the block ends; ``listen`` has keys besides ours."""
    admin = f"127.0.0.1:{free_port()}"
    token = folder / "admin_token"
    token.touch(0o600)
    token.write_text(TOKEN)
    ours = {"grpc": f"unix://{folder}/g.sock", "admin": admin, "admin_token_file": str(token)}
    document = settings(vault, **upstreams) | {"listen": ours | (listen or {})}
    (folder / "c.yaml").write_text(yaml.safe_dump(document))
    argv = [sys.executable, "-m", "vaultauthz", "serve", "-c", str(folder / "c.yaml")]
    rules = hurried(RULES, folder / "rules.yaml")
    prometheus = Prometheus(folder, [admin], rules, TOKEN)
    with (folder / "stderr").open("ab") as errors:
        process = subprocess.Popen(argv, stdout=stdout, stderr=errors)
    try:
        with prometheus.running():
            yield Watched(folder, document, process, prometheus, admin)
    finally:
        process.kill()
        process.wait()


def defined() -> list[str]:
    """The names of all alerts."""
    document = yaml.safe_load(RULES.read_text())
    return [rule["alert"] for group in document["groups"] for rule in group["rules"]]
