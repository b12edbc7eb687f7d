"""``vaultauthz policy`` as a shell sees it, before a Vault that is only played."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fake_http import Heard, Reply, Wire
from tests.contract.fake_vault import FakeVault
from tests.unit.policy.hcl_reader import read
from vaultauthz.cli import main

OPERATOR = "s.the-operators"
CONFIG = """\
vault: {{address: "{address}", timeout: 1s}}
stages:
  prod: {{auth: {{method: approle, role_id: r, secret_id_file: secret_id}}}}
  test: {{auth: {{method: approle, role_id: r, secret_id_file: secret_id}}}}
upstreams:
  pay:
    secret: {{path: "database/creds/pay-{{stage}}"}}
    inject: [{{bearer: "{{password}}"}}]
    callers: any
  geo:
    stages: [prod]
    secret: {{kv: team/geo}}
    inject: [{{bearer: "{{key}}"}}]
    callers: any
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with KV version 1 at team, and a token of the operator's."""
    with FakeVault() as fake:
        fake.set_mount("team", 1)
        fake.put_kv("team/geo", {"key": "the-secret-value"})
        fake.add_token(OPERATOR)
        yield fake


@pytest.fixture
def run(
    vault: FakeVault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs the command in a folder with a configuration; ``token`` is $VAULT_TOKEN."""
    (tmp_path / "secret_id").touch(0o600)
    (tmp_path / "secret_id").write_text("s3cr3t")
    (tmp_path / "vaultauthz.yaml").write_text(CONFIG.format(address=vault.address))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VAULTAUTHZ_CONFIG", raising=False)

    def run(*arguments: str, token: str = "") -> Done:
        monkeypatch.setenv("VAULT_TOKEN", token)
        status = main(["policy", *arguments])
        said = capsys.readouterr()
        assert OPERATOR not in said.out + said.err
        assert "the-secret-value" not in said.out + said.err
        return Done(status, said.out, said.err)

    return run


# --- printing ---


def test_without_a_token_vault_is_not_asked(run: Run, vault: FakeVault) -> None:
    """KV version 2 is assumed, and the line says so and what to write for version 1."""
    done = run("--stage", "prod")
    assert (done.status, done.err, vault.heard) == (0, "", [])
    assert list(read(done.out))[:2] == ["database/creds/pay-prod", "team/data/geo"]
    note = "# (assumed: KV version 2 at team/; for version 1: path team/geo)\n"
    assert note + 'path "team/data/geo"' in done.out


def test_what_only_the_gateway_has_is_not_needed(run: Run, tmp_path: Path) -> None:
    """Policies may be written before there is a secret_id, and on another machine: a warning."""
    before = run("--stage", "prod").out
    (tmp_path / "secret_id").unlink()
    done = run("--stage", "prod")
    assert (done.status, done.out) == (0, before)
    assert "stages.prod.auth.secret_id_file" in done.err
    assert "the machine that serves will need it" in done.err


@pytest.mark.parametrize("place", ["environment", "file"])
def test_with_a_token_vault_is_asked_for_the_version(
    run: Run, vault: FakeVault, tmp_path: Path, place: str
) -> None:
    """$VAULT_TOKEN or --token-file: the mount and the version are then known."""
    (tmp_path / "token").write_text(OPERATOR + "\n")
    more, token = ([], OPERATOR) if place == "environment" else (["--token-file", "token"], "")
    done = run("--stage", "prod", *more, token=token)
    assert (done.status, done.err) == (0, "")
    assert "team/geo" in read(done.out)
    assert "assumed" not in done.out
    assert {heard.token for heard in vault.heard} == {OPERATOR}
    assert [heard.path for heard in vault.heard] == ["sys/internal/ui/mounts/team/geo"]


def test_a_vault_that_cannot_be_asked_is_a_warning(run: Run, vault: FakeVault) -> None:
    """The policy is printed all the same, as without a token."""
    vault.stop()
    done = run("--stage", "prod", token=OPERATOR)
    assert (done.status, "team/data/geo" in read(done.out)) == (0, True)
    assert done.err.startswith("warning: stage prod: the KV version was not found out, version 2")
    assert "team/geo: Vault cannot be reached" in done.err


def test_one_stage_is_one_policy_and_all_are_told_apart(run: Run) -> None:
    """Without --stage every policy is printed, with a word that they are several."""
    one, other, both = (run(*args).out for args in (("--stage", "prod"), ("--stage", "test"), ()))
    assert both == f"# 2 policies, to be written one by one: --stage\n\n{one}\n{other}"
    assert "# Policy vaultauthz-prod:" in one
    assert "prod" not in "".join(read(other))


def test_json_is_the_same_for_programs(run: Run) -> None:
    """Name, text and needs by stage."""
    told = json.loads(run("--json").out)
    assert list(told) == ["prod", "test"]
    assert told["prod"]["policy"] == "vaultauthz-prod"
    assert told["prod"]["hcl"] == run("--stage", "prod").out
    assert [need["path"] for need in told["prod"]["needs"]] == list(read(told["prod"]["hcl"]))
    assert told["prod"]["needs"][0] == {
        "path": "database/creds/pay-prod",
        "capabilities": ["read"],
        "upstreams": ["pay"],
        "why": "issues the login of pay",
        "lease_prefixes": [],
        "required": True,
    }


def test_a_terminal_breaks_no_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow it is, what is copied from it is the policy."""
    plain = run("--stage", "prod").out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(
        shutil, "get_terminal_size", lambda **_: __import__("os").terminal_size((40, 9))
    )
    assert run("--stage", "prod").out == plain


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--stage", "live"], "there is no stage 'live'; stages: prod, test"),
        (["--verify"], "--verify wants your token: set $VAULT_TOKEN or name a --token-file"),
        (["--token-file", "nowhere"], "nowhere: the token cannot be read: No such file"),
        (["--token-file", "binary"], "binary: the token cannot be read: it is not text"),
        (["--token-file", "two"], "two holds no token"),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, arguments: list[str], told: str) -> None:
    """Status 2 and one line that says what is wrong."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "two").write_text("one two")
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"vaultauthz: {told}")
    assert done.err.count("\n") == 1


def test_a_path_that_no_policy_can_name(run: Run, tmp_path: Path) -> None:
    """Status 2, with stage, upstream and path."""
    text = (tmp_path / "vaultauthz.yaml").read_text().replace("team/geo", "team/geo*")
    (tmp_path / "vaultauthz.yaml").write_text(text)
    done = run()
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith('vaultauthz: stage prod: geo: a policy cannot name "team/data/')


def test_stages_that_would_share_a_policy(run: Run, tmp_path: Path) -> None:
    """Vault takes names of policies without regard to case: status 2."""
    text = (tmp_path / "vaultauthz.yaml").read_text().replace("  test:", "  PROD:")
    (tmp_path / "vaultauthz.yaml").write_text(text)
    done = run()
    assert (done.status, done.out) == (2, "")
    assert "stages prod and PROD would share a policy" in done.err


# --- verifying: what the operator's token may, and what is left behind ---


class Policies:
    """What a Vault does about policies and tokens made for a trial; ``may``: the operator."""

    def __init__(self, vault: FakeVault) -> None:
        self.vault = vault
        self.may = ["root"]
        self.entity = ""
        self.policies: dict[str, str] = {}
        self.tokens: list[str] = []
        for path, answer in (
            ("sys/capabilities-self", self._capabilities),
            ("sys/policies/acl/", self._policy),
            ("auth/token/create", self._create),
            ("auth/token/revoke-accessor", self._revoke),
            ("auth/token/lookup-self", self._lookup),
        ):
            vault.fault(_answering(answer), path)

    def _capabilities(self, heard: Heard) -> Reply:
        may = self.may if heard.token == OPERATOR else ["deny"]
        return Reply(200, {"data": dict.fromkeys(heard.body["paths"], may)})

    def _policy(self, heard: Heard) -> Reply:
        name = heard.path.rpartition("/")[2]
        if heard.method == "DELETE":
            self.policies.pop(name, None)
        else:
            self.policies[name] = heard.body["policy"]
        return Reply(204)

    def _create(self, heard: Heard) -> Reply:
        accessor = self.vault.add_token(f"s.trial-{len(self.tokens)}")
        self.tokens.append(accessor)
        self.body = {"path": heard.path, **heard.body}
        auth = {"client_token": f"s.trial-{len(self.tokens) - 1}", "accessor": accessor}
        return Reply(200, {"auth": auth})

    def _revoke(self, heard: Heard) -> Reply:
        self.tokens.remove(heard.body["accessor"])
        return Reply(204)

    def _lookup(self, heard: Heard) -> Reply:
        data = {"entity_id": self.entity, "type": "service", "ttl": 60, "expire_time": "x"}
        return Reply(200 if heard.token == OPERATOR else 403, {"data": data})


def _answering(answer: Callable[[Heard], Reply]) -> Callable[..., Reply]:
    def fault(heard: Heard, _as_it_is: Callable[[], Reply], _wire: Wire) -> Reply:
        return answer(heard)

    return fault


def _refusing(status: int, text: str) -> Callable[..., Reply]:
    return _answering(lambda _heard: Reply(status, {"errors": [text]}))


@pytest.fixture
def policies(vault: FakeVault) -> Policies:
    """The same Vault, which takes policies."""
    return Policies(vault)


def _left(policies: Policies) -> tuple[Any, ...]:
    return (policies.policies, policies.tokens)


def test_a_trial_is_told_by_need_and_leaves_nothing(run: Run, policies: Policies) -> None:
    """A Vault that allows nothing: status 1, each need NO, policy and token gone."""
    done = run("--verify", "--stage", "test", token=OPERATOR)
    assert done.status == 1
    assert re.search(r"^database/creds/pay-test +read +NO +has deny$", done.out, re.MULTILINE)
    assert re.search(r"^database/creds/pay-prod +deny +yes +denied$", done.out, re.MULTILINE)
    assert _left(policies) == ({}, [])
    assert policies.body["path"] == "auth/token/create"
    assert policies.body["no_default_policy"] is True
    assert policies.body["explicit_max_ttl"] == policies.body["ttl"] == "10m"


def test_an_operator_with_an_identity_makes_an_orphan(run: Run, policies: Policies) -> None:
    """A child would bring the policies of that identity, and everything would be held."""
    policies.entity = "e-1"
    run("--verify", "--stage", "test", token=OPERATOR)
    assert policies.body["path"] == "auth/token/create-orphan"


def test_an_operator_who_may_not_is_told_what_lacks(run: Run, policies: Policies) -> None:
    """Status 2, each path with what lacks there, before anything is written."""
    policies.may = ["update"]
    done = run("--verify", token=OPERATOR)
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "vaultauthz: stage prod: your token may not try a policy out; it lacks delete on "
        "sys/policies/acl/vaultauthz-verify-*; sudo on auth/token/create\n"
    )
    assert not policies.vault.calls("sys/policies/acl/")


def test_a_token_that_is_none(run: Run, vault: FakeVault) -> None:
    """Vault does not know it: status 2."""
    done = run("--verify", "--stage", "test", token="s.nobodys")
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith("your token cannot be used: the token is not valid, or not any more\n")


def test_no_vault_to_verify_with(run: Run, vault: FakeVault) -> None:
    """Status 2, and why."""
    vault.stop()
    done = run("--verify", "--stage", "test", token=OPERATOR)
    assert (done.status, done.out) == (2, "")
    assert "stage test: your token cannot be used: Vault cannot be reached" in done.err


def test_no_token_is_made(run: Run, policies: Policies) -> None:
    """The policy that was written already is removed again."""
    policies.vault.fault(_refusing(400, "child policies must be subset"), "auth/token/create")
    done = run("--verify", token=OPERATOR)
    assert (done.status, done.out) == (2, "")
    assert "no token was made: Vault refused the request (child policies" in done.err
    assert policies.vault.calls("sys/policies/acl/")
    assert _left(policies) == ({}, [])


def test_vault_fails_in_the_middle(run: Run, policies: Policies) -> None:
    """What was written is removed, and the error is told."""
    policies.vault.fault(_refusing(500, "no"), "sys/capabilities-self", every=2)
    done = run("--verify", "--stage", "test", token=OPERATOR)
    assert (done.status, done.out) == (2, "")
    assert "stage test: Vault could not be asked: Vault answered 500 (no)" in done.err
    assert _left(policies) == ({}, [])


def test_what_cannot_be_removed_is_told(run: Run, policies: Policies) -> None:
    """Each with the command that removes it; the one whatever becomes of the other."""
    policies.vault.fault(_refusing(403, "no"), "sys/policies/acl/", method="DELETE")
    policies.vault.fault(_refusing(503, "sealed"), "auth/token/revoke-accessor")
    done = run("--verify", "--stage", "test", token=OPERATOR)
    (name,), (accessor,) = _left(policies)
    assert done.status == 1
    token, policy = done.err.splitlines()
    assert token.startswith("vaultauthz: a token was not revoked (")
    assert token.endswith(f"it ends within 10m, or by: bao token revoke -accessor {accessor}")
    assert policy.endswith(f": bao policy delete {name}")
