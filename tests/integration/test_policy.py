"""The printed policies on the real OpenBao: enough for everything, and for nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.policy_bed import STAGES, Bed, printed, without_each
from tests.patience import PATIENCE
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.config.values import Stage
from vaultauthz.core import events
from vaultauthz.core.decision import Allowed
from vaultauthz.core.events import Event
from vaultauthz.core.pace import Pace
from vaultauthz.core.request import Request
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import OpenBao, Postgres, binaries, wait_for
from vaultauthz.engine import Engine
from vaultauthz.policy import hcl
from vaultauthz.policy.needs import CAPABILITIES, LEASE_RENEW, LEASE_REVOKE, LOOKUP
from vaultauthz.policy.stage import header as policy_header
from vaultauthz.policy.stage import policy_name
from vaultauthz.policy.verify import Operator, trial
from vaultauthz.vault.probe import Probe

pytestmark = pytest.mark.integration

# What serving does only when Vault says no, or never.
_UNUSED = {LOOKUP, CAPABILITIES}


@pytest.fixture(scope="module")
def bed(bao: OpenBao, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Bed:
    """Two stages with the printed policies."""
    return Bed.create(bao, postgres, tmp_path_factory.mktemp("policy"))


class Life:
    """An engine on the bed's configuration, and what it announced."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.events: list[Event] = []
        self.engine = Engine(bed.loaded, [], [self.events.append], Pace(drain=0.2))

    def wait(self, name: str, stage: str, upstream: str, count: int = 1) -> None:
        """Wait until that was announced so often."""
        found = wait_for(lambda: self.count(name, stage, upstream) >= count, PATIENCE)
        assert found, (name, stage, upstream, self.events)

    def count(self, name: str, stage: str, upstream: str) -> int:
        """How often that was announced."""
        wanted = (name, stage, upstream)
        return sum((e.name, e.stage, e.upstream) == wanted for e in tuple(self.events))

    def header(self, stage: str, upstream: str) -> str:
        """The one header that is set."""
        decision = self.engine.check(Request("test", upstream=upstream, stage=stage))
        assert isinstance(decision, Allowed), decision
        assert decision.credential
        return decision.credential.mutation.headers[0][1]


@pytest.fixture
def life(bed: Bed) -> Iterator[Life]:
    """Started and ready."""
    made = Life(bed)
    with made.engine:
        assert wait_for(lambda: made.engine.ready, PATIENCE), made.engine.keeper.rows()
        yield made


def test_a_whole_life_needs_each_line_and_no_other(bed: Bed, life: Life) -> None:
    """From fetch to stop Vault denies nothing, and each line of the policy is used."""
    for stage in STAGES:
        life.wait(events.RENEWED, stage, "pay")
        life.engine.keeper.rotate("pay", stage)
        life.wait(events.ROTATED, stage, "pay")
        life.wait(events.REVOKED, stage, "pay")
        life.engine.keeper.revoke("pay", stage)
        life.wait(events.REVOKED, stage, "pay", 2)
        life.wait(events.TOKEN_RENEWED, stage, "")
    life.wait(events.REVOKED, "alpha", "cert")  # its replacement's time has come, too
    bed.bao.client().write("policy-old/app/key", key="second")
    assert wait_for(lambda: life.header("beta", "first") == "Bearer second", PATIENCE)
    assert life.engine.close(10)
    assert not [event for event in life.events if event.name == events.FAILED]
    for stage in STAGES:
        entries = bed.audited(stage)
        assert not [entry for entry in entries if "error" in entry]
        used = {entry["request"]["path"] for entry in entries}
        assert used >= {need.path for need in bed.needs(stage)} - _UNUSED
        beside = used - {need.path for need in bed.needs(stage)}
        assert all(path.startswith("sys/internal/ui/mounts/") for path in beside)


def test_nothing_beside_is_allowed(bed: Bed) -> None:
    """Other stages' secrets, siblings, KV's other paths, Vault's own, others' leases: denied."""
    token = bed.token(policy_name("alpha"))
    foreign = bed.bao.client().read("database/creds/policy-gamma")["lease_id"]
    own = bed.call(token, "GET", "database/creds/policy-alpha").json()["lease_id"]
    for method, path, body in [*_beside(), *_leases(own, foreign)]:
        answer = bed.call(token, method, path, body)
        assert answer.status_code == 403, (method, path, body, answer.text)
    renewed = {"lease_id": own, "increment": 5}
    assert bed.call(token, "PUT", LEASE_RENEW, renewed).status_code == 200
    assert bed.call(token, "PUT", LEASE_REVOKE, {"lease_id": own}).status_code == 204


def _beside() -> list[tuple[str, str, Any]]:
    reads = (
        "database/creds/policy-beta",
        "database/creds/policy-alphabet",
        "database/creds/policy-alpha/x",
        "database/roles/policy-alpha",
        "database/config/postgres",
        "database/static-roles/policy-fixed",
        "policy-old/app/sibling",
        "policy-old/app",
        "policy/nested/data/app/beta",
        "policy/nested/metadata/app/alpha",
        "policy/nested/config",
        "policy-pki/roles/gateway",
        "sys/policies/acl/vaultauthz-alpha",
        "sys/mounts",
        "sys/internal/ui/mounts/secret/x",
        "auth/approle/role/alpha/role-id",
    )
    writes = (
        "policy-old/app/key",
        "policy/nested/data/app/alpha",
        "policy/nested/delete/app/alpha",
        "policy/nested/undelete/app/alpha",
        "policy/nested/destroy/app/alpha",
        "policy-pki/sign/gateway",
        "policy-pki/issue/other",
        "database/rotate-role/policy-fixed",
        "sys/policies/acl/vaultauthz-alpha",
        "auth/token/create",
        "auth/token/lookup",
        "auth/token/revoke-accessor",
        "auth/approle/role/alpha/secret-id",
        "sys/leases/lookup",
        "sys/leases/revoke-prefix/database",
        "sys/leases/revoke-force/database",
        "sys/capabilities",
    )
    return [
        *(("GET", path, None) for path in reads),
        *(("POST", path, {"x": "y"}) for path in writes),
        ("DELETE", "policy/nested/data/app/alpha", None),
        ("DELETE", "policy-old/app/key", None),
        ("LIST", "policy/nested/metadata/app", None),
        ("LIST", "policy-old/app", None),
    ]


def _leases(own: str, foreign: str) -> list[tuple[str, str, Any]]:
    """Ways to a lease that is not below the stage's paths."""
    ways: list[tuple[str, str, Any]] = []
    for path in (LEASE_RENEW, LEASE_REVOKE):
        ways += [
            ("PUT", path, {"lease_id": foreign}),
            ("PUT", path, {"url_lease_id": foreign}),
            ("PUT", path, {"lease_id": own, "url_lease_id": foreign}),
            ("PUT", path, {"LEASE_ID": foreign}),
            ("PUT", f"{path}/{foreign}", None),
            ("PUT", f"{path}/{foreign}", {"lease_id": own}),
            ("PUT", path.replace("leases/", ""), {"lease_id": foreign}),
        ]
    return ways


def test_a_path_of_two_dots_leads_to_no_other_lease(bed: Bed) -> None:
    """The id begins as it must, and Vault refuses what follows."""
    foreign = bed.bao.client().read("database/creds/policy-gamma")["lease_id"]
    crooked = f"database/creds/policy-alpha/../policy-gamma/{foreign.rpartition('/')[2]}"
    token = bed.token(policy_name("alpha"))
    answer = bed.call(token, "PUT", LEASE_RENEW, {"lease_id": crooked, "increment": 60})
    assert (answer.status_code, "relative paths" in answer.text) == (400, True)
    bed.call(token, "PUT", LEASE_REVOKE, {"lease_id": crooked})
    assert bed.call(
        bed.bao.root_token, "PUT", LEASE_RENEW, {"lease_id": foreign}
    ).json()["renewable"]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_no_line_can_be_spared(bed: Bed, stage: str) -> None:
    """Each line taken away is a capability that is gone, and the others stay."""
    found = bed.needs(stage)
    client, name = bed.bao.client(), f"policy-cut-{stage}"
    client.sys.create_or_update_policy(name, "# nothing")
    token = Secret(bed.token(name))
    probe = Probe(bed.loaded.vault, time.monotonic)
    for cut, text in without_each(found):
        client.sys.create_or_update_policy(name, text)
        # Asked for by the root token where the cut line is the asking itself.
        data = client.write(
            "sys/capabilities", token=token.reveal(), paths=[need.path for need in found]
        )["data"]
        for need in found:
            assert tuple(data[need.path]) == (("deny",) if need is cut else need.capabilities)
        if cut.path != CAPABILITIES:
            assert probe.capabilities(token, [cut.path]) == {cut.path: ("deny",)}


_ROLES: dict[str, tuple[AuthMethod, str, dict[str, Any]]] = {
    "approle": (AppRole("x"), "role/ROLE", {"secret_id_num_uses": 3}),
    "kubernetes": (
        Kubernetes("x", mount="policy-k8s"),
        "role/x",
        {"bound_service_account_names": "a", "bound_service_account_namespaces": "b"},
    ),
    "jwt": (
        Jwt("x", mount="policy-jwt"),
        "role/x",
        {"role_type": "jwt", "user_claim": "sub", "bound_subject": "s", "bound_claims": {"a": "b"}},
    ),
    "userpass": (UserPass("x", Path("/file"), "policy-users"), "users/x", {"password": "p"}),
}


@pytest.mark.parametrize("method", _ROLES)
def test_the_printed_command_changes_a_roles_policies_only(bed: Bed, method: str) -> None:
    """Whatever else the role says stays as it is."""
    auth, role, body = _ROLES[method]
    assert not isinstance(auth, TokenFile)
    client, place = bed.bao.client(), f"auth/{auth.mount}/{role}"
    if method != "approle":
        client.sys.enable_auth_method(method, path=auth.mount)
    client.write_data(place, data={**body, "token_ttl": "7m", "token_policies": ["old"]})
    before = client.read(place)["data"]
    config = replace(bed.loaded, stages={"alpha": Stage("alpha", auth)})
    (command,) = [line for line in policy_header(config, "alpha") if place in line]
    bed.shell(command.replace("bao ", f"{binaries.vault().path} ", 1))
    changed = {"token_policies": ["vaultauthz-alpha"], "token_no_default_policy": True}
    assert client.read(place)["data"] == before | changed


# --- verifying ---


def _traces(bao: OpenBao) -> tuple[set[str], set[str]]:
    """The policies and the trial tokens that there are."""
    client = bao.client()
    names = set()
    for accessor in client.list("auth/token/accessors")["data"]["keys"]:
        answer = bao.client().adapter.post(
            "/v1/auth/token/lookup-accessor", json={"accessor": accessor}, raise_exception=False
        )
        data = answer.json().get("data") if hasattr(answer, "json") else answer.get("data")
        names.add((data or {}).get("display_name", ""))
    trials = {name for name in names if "vaultauthz-verify" in name}
    return set(client.sys.list_policies()["data"]["policies"]), trials


def test_verify_holds_all_and_leaves_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 0, each need `yes`, field names and no values; no policy, token or login is left."""
    monkeypatch.setenv("VAULT_TOKEN", bed.bao.root_token)
    before = _traces(bed.bao)
    status, out, err = printed(bed.config, "--verify")
    assert (status, err) == (0, ""), out
    assert " NO " not in out
    assert out.count("all held") == len(STAGES)
    assert "read; fields: key" in out
    assert "first" not in out.replace("policy-old", "")
    assert _traces(bed.bao) == before == (before[0], set())


def test_verify_by_an_operator_who_may_do_just_that(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the error for a lesser token names is all that it takes."""
    client = bed.bao.client()
    client.sys.create_or_update_policy(
        "policy-operator",
        'path "sys/policies/acl/vaultauthz-verify-*" { capabilities = ["update", "delete"] }\n'
        'path "auth/token/create" { capabilities = ["update", "sudo"] }\n'
        'path "auth/token/revoke-accessor" { capabilities = ["update"] }\n'
        'path "policy/nested/data/app/+" { capabilities = ["list"] }\n'
        'path "policy-old/app/+" { capabilities = ["list"] }\n',
    )
    made = client.auth.token.create(policies=["policy-operator"])
    monkeypatch.setenv("VAULT_TOKEN", made["auth"]["client_token"])
    before = _traces(bed.bao)
    assert printed(bed.config, "--verify")[0] == 0
    assert _traces(bed.bao) == before
    made = client.auth.token.create(policies=["default"])
    monkeypatch.setenv("VAULT_TOKEN", made["auth"]["client_token"])
    status, out, err = printed(bed.config, "--verify")
    assert (status, out) == (2, "")
    assert "it lacks update and delete on sys/policies/acl/vaultauthz-verify-*; update and" in err
    assert _traces(bed.bao) == before


def test_verify_says_what_is_not_held(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KV path where no engine is mounted: its line says NO, status 1."""
    for stage in STAGES:
        (tmp_path / stage).touch(0o600)
        (tmp_path / stage).write_text("x")
    config = tmp_path / "c.yaml"
    config.write_text(bed.config.read_text().replace("policy-old/app/key", "policy-gone/key"))
    monkeypatch.setenv("VAULT_TOKEN", bed.bao.root_token)
    status, out, err = printed(config, "--verify", "--stage", "beta")
    assert status == 1
    (line,) = [line for line in out.splitlines() if " NO " in line]
    assert line.startswith("policy-gone/data/key")
    assert "1 of" in out.splitlines()[-2]
    assert err.startswith("warning: stage beta: the KV version was not found out")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_trial_leaves_nothing(bed: Bed, ending: signal.Signals) -> None:
    """What asks a program to end comes after the policy and the token are removed."""
    before, left = _traces(bed.bao), list[str]()
    probe = Probe(bed.loaded.vault, time.monotonic)
    operator = Operator(probe, Secret(bed.bao.root_token))
    text = "".join(map(hcl.block, bed.needs("alpha")))
    handlers = [signal.getsignal(number) for number in signal.Signals]

    def interrupted() -> None:
        with trial(operator, text, left.append) as (token, name):
            assert probe.token(token).policies == (name,)
            os.kill(os.getpid(), ending)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (_traces(bed.bao), left) == (before, [])
    assert [signal.getsignal(number) for number in signal.Signals] == handlers
