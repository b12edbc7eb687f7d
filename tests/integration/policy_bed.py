"""Stages whose logins have the policies that `vaultauthz policy` printed, and nothing else."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import requests

from tests.patience import PATIENCE
from vaultauthz.cli import main
from vaultauthz.config import Config, load
from vaultauthz.demo.parts import OpenBao, Postgres, binaries
from vaultauthz.policy import hcl
from vaultauthz.policy.needs import Need, needs
from vaultauthz.policy.stage import policy_name
from vaultauthz.vault.mounts import Mount, Mounts

STAGES = ("alpha", "beta")
_CONFIG = """\
vault: {{address: "{address}"}}
stages:
  alpha: {{auth: {{method: approle, role_id: {roles[alpha]}, secret_id_file: alpha}}}}
  beta: {{auth: {{method: approle, role_id: {roles[beta]}, secret_id_file: beta}}}}
upstreams:
  pay:
    secret: {{path: "database/creds/policy-{{stage}}"}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    callers: any
  first:
    secret: {{kv: policy-old/app/key, refresh: 1s}}
    inject: [{{bearer: "{{key}}"}}]
    callers: any
  second:
    secret: {{kv: "policy/nested/app/{{stage}}", refresh: 1s}}
    inject: [{{bearer: "{{key}}"}}]
    callers: any
  fixed:
    secret: {{static_role: database/static-creds/policy-fixed}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    callers: any
  cert:
    stages: [alpha]
    secret: {{pki: policy-pki/issue/gateway, params: {{common_name: gateway}}}}
    inject: [{{header: {{name: X-Serial, value: "{{serial_number}}"}}}}]
    callers: any
"""


def printed(config: Path, *arguments: str) -> tuple[int, str, str]:
    """What `vaultauthz policy` says: status, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["policy", "-c", str(config), *arguments])
    return status, out.getvalue(), err.getvalue()


def without_each(found: Sequence[Need]) -> Iterator[tuple[Need, str]]:
    """For each need, the policy that has every line but this one."""
    for need in found:
        yield need, "\n".join(hcl.block(other) for other in found if other is not need)


@dataclass(frozen=True)
class Bed:
    """The servers with everything in place; ``config`` is the configuration's file."""

    bao: OpenBao
    config: Path
    mounts: Mounts

    @classmethod
    def create(cls, bao: OpenBao, postgres: Postgres, folder: Path) -> Bed:
        """Engines and secrets, a role for each stage, and the printed policies given to them."""
        _engines(bao, postgres)
        roles = {}
        for stage in STAGES:
            roles[stage], secret_id = bao.enable_approle(stage, "# nothing", token_ttl="6s")
            (folder / stage).touch(0o600)
            (folder / stage).write_text(secret_id)
        config = folder / "vaultauthz.yaml"
        config.write_text(_CONFIG.format(address=bao.address, roles=roles))
        mounts = Mounts(Mount("policy/nested", "kv", 2), Mount("policy-old", "kv", 1))
        bed = cls(bao, config, mounts)
        for stage in STAGES:
            bed._attach(stage)
        return bed

    def _attach(self, stage: str) -> None:
        """Print the policy, pipe it into Vault's own command line, and give it to the role."""
        token = self.config.parent / "operator"
        token.write_text(self.bao.root_token)
        status, text, err = printed(self.config, "--stage", stage, "--token-file", str(token))
        assert (status, err) == (0, "")
        self.shell(f"{binaries.vault().path} policy write {policy_name(stage)} -", text)
        self.bao.client().auth.approle.create_or_update_approle(
            stage,
            token_policies=[policy_name(stage)],
            token_no_default_policy=True,
            token_ttl="6s",
            token_max_ttl="1h",
        )

    def shell(self, command: str, given: str = "") -> None:
        """Run a command as an operator whose shell has OpenBao's variables set."""
        called = binaries.vault().variables
        env = {
            **os.environ,
            f"{called}ADDR": self.bao.address,
            f"{called}TOKEN": self.bao.root_token,
        }
        subprocess.run(
            command, shell=True, input=given, text=True, env=env, capture_output=True, check=True
        )

    @property
    def loaded(self) -> Config:
        """The configuration."""
        return load(self.config, {})

    def needs(self, stage: str) -> tuple[Need, ...]:
        """What the stage needs."""
        return needs(self.loaded, stage, self.mounts)

    def token(self, policy: str) -> str:
        """A token that has this policy alone."""
        made = self.bao.client().auth.token.create(policies=[policy], no_default_policy=True)
        return str(made["auth"]["client_token"])

    def call(self, token: str, method: str, path: str, body: Any = None) -> requests.Response:
        """One call with a token."""
        return requests.request(
            method,
            f"{self.bao.address}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": token},
            timeout=PATIENCE,
            allow_redirects=False,
        )

    def audited(self, stage: str) -> list[dict[str, Any]]:
        """Vault's audit entries of the answers to this stage's calls by its token."""
        return [
            entry
            for entry in self.bao.audit_entries()
            if entry["type"] == "response"
            and not entry["request"]["path"].endswith("/login")
            and entry.get("auth", {}).get("token_policies") == [policy_name(stage)]
        ]


def _engines(bao: OpenBao, postgres: Postgres) -> None:
    with psycopg.connect(postgres.superuser_url, autocommit=True) as superuser:
        superuser.execute("CREATE ROLE policy_fixed LOGIN PASSWORD 'before'")
    client = bao.client()
    for stage in (*STAGES, "gamma"):
        bao.database(postgres, f"policy-{stage}", default_ttl="5s", max_ttl="1h")
    client.write(
        "database/static-roles/policy-fixed",
        db_name="postgres",
        username="policy_fixed",
        rotation_period="5s",
    )
    bao.enable_engine("policy/nested", "kv-v2")
    bao.enable_engine("policy-old", "kv-v1")
    for name in ("key", "sibling"):
        client.write(f"policy-old/app/{name}", key="first")
    for name in (*STAGES, "gamma"):
        client.secrets.kv.v2.create_or_update_secret(
            f"app/{name}", {"key": "first"}, mount_point="policy/nested"
        )
    if bao.enable_engine("policy-pki", "pki"):
        client.write("policy-pki/root/generate/internal", common_name="policy", ttl="1h")
    client.write(
        "policy-pki/roles/gateway",
        allow_any_name=True,
        ttl="6s",
        max_ttl="6s",
        generate_lease=True,
    )
