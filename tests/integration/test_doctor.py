"""`doctor` on a real OpenBao and PostgreSQL: what is good is good, what is broken is named."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import pytest

from tests.integration.spelling import spelled
from tests.patience import PATIENCE
from vaultauthz.config import Config, parse
from vaultauthz.demo.parts import OpenBao, Postgres, wait_for
from vaultauthz.doctor import DoctorOptions, run
from vaultauthz.policy import Need, hcl, needs
from vaultauthz.policy.needs import CAPABILITIES
from vaultauthz.terminal import Output
from vaultauthz.vault.mounts import Mounts

pytestmark = pytest.mark.integration

_TEXT = """\
vault: {address: ADDRESS, timeout: 5s}
stages:
  production: {auth: {method: approle, role_id: ID-PRODUCTION, secret_id_file: production}}
  staging: {auth: {method: approle, role_id: ID-STAGING, secret_id_file: staging}}
upstreams:
  payments:
    secret: {path: "database/creds/payments-{stage}"}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
  geocoder:
    secret: {kv: doctor/geocoder}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
"""
_STAGES = ("production", "staging")


@dataclass
class Bed:
    """Two stages with the policies that `needs` names, and nothing else."""

    bao: OpenBao
    folder: Path
    text: str

    def config(self, *edits: tuple[str, str]) -> Config:
        """The configuration with each ``old`` replaced by its ``new``."""
        text = self.text
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new)
        return parse(text, "c.yaml", self.folder, {})

    def needs(self, stage: str) -> tuple[Need, ...]:
        """What the stage's policy has."""
        return needs(self.config(), stage, Mounts())

    def write_policy(self, stage: str, lines: Sequence[Need]) -> None:
        """Give the stage these lines and no other."""
        self.bao.client().sys.create_or_update_policy(f"doctor-{stage}", hcl.policy(lines, (), {}))

    def write_role(self, stage: str, **settings: Any) -> None:
        """Set up the stage's role; without the policy `default`."""
        usual = {
            "token_policies": [f"doctor-{stage}"],
            "token_no_default_policy": True,
            "token_ttl": "30m",
            "token_max_ttl": "4h",
            "token_explicit_max_ttl": 0,
            "token_num_uses": 0,
            "token_type": "service",
        }
        path = f"auth/approle/role/doctor-{stage}"
        self.bao.client().write_data(path, data={**usual, **settings})

    @contextmanager
    def role(self, stage: str, **settings: Any) -> Iterator[None]:
        """The role with these settings, for a while."""
        self.write_role(stage, **settings)
        try:
            yield
        finally:
            self.write_role(stage)

    def run(
        self, *edits: tuple[str, str], stage: str | None = None, fetch: bool = True
    ) -> tuple[int, dict[str, Any]]:
        """The status and the JSON."""
        out, err = io.StringIO(), io.StringIO()
        status = run(
            self.config(*edits), DoctorOptions(stage, fetch), Output(out, as_json=True), err
        )
        assert err.getvalue() == ""
        return status, json.loads(out.getvalue())

    def findings(
        self, *edits: tuple[str, str], stage: str = "production", fetch: bool = True
    ) -> list[dict[str, Any]]:
        """What is found in one stage."""
        found: list[dict[str, Any]] = self.run(*edits, stage=stage, fetch=fetch)[1]["findings"]
        return found

    def accessors(self) -> set[str]:
        """Every token there is in Vault."""
        return set(self.bao.client().list("auth/token/accessors")["data"]["keys"])

    def leases(self) -> list[str]:
        """Every lease of this configuration's database roles."""
        found: list[str] = []
        for stage in _STAGES:
            try:
                path = f"sys/leases/lookup/database/creds/payments-{stage}"
                answer = self.bao.client().list(path)
            except hvac.exceptions.InvalidPath:
                continue
            found += answer["data"]["keys"] if answer else []
        return found


@pytest.fixture(scope="module")
def bed(bao: OpenBao, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Bed:
    """All in order. Whoever breaks something mends it."""
    folder = tmp_path_factory.mktemp("doctor")
    bao.put_kv("doctor/geocoder", {"api_key": "k-1", "note": "x"})
    text = _TEXT.replace("ADDRESS", f"'{bao.address}'")
    for stage in _STAGES:
        bao.database(postgres, f"payments-{stage}", default_ttl="30m", max_ttl="2h")
        role_id, secret_id = bao.enable_approle(f"doctor-{stage}", 'path "x" {}')
        file = folder / stage
        file.touch(0o600)
        file.write_text(secret_id)
        text = text.replace(f"ID-{stage.upper()}", role_id)
    made = Bed(bao, folder, text)
    for stage in _STAGES:
        made.write_policy(stage, made.needs(stage))
        made.write_role(stage)
    return made


def test_what_is_good_is_good_and_leaves_nothing(bed: Bed, postgres: Postgres) -> None:
    """Two stages, every secret fetched; afterwards no token, lease or user of doctor's is left."""
    before, users = bed.accessors(), postgres.users()
    status, told = bed.run()
    assert told["findings"] == []
    assert (status, told["good"]) == (0, True)
    fetched = [one["fetch"] for stage in told["stages"] for one in stage["upstreams"]]
    assert [fetch["ttl"] for fetch in fetched] == [1800.0, None, 1800.0, None]
    assert {one["engine"] for one in told["stages"][0]["upstreams"]} == {"database", "kv v2"}
    assert wait_for(lambda: bed.accessors() <= before, PATIENCE)
    assert wait_for(lambda: not bed.leases(), PATIENCE)
    assert postgres.users() == users


def test_without_fetch_no_login_is_made(bed: Bed, postgres: Postgres) -> None:
    """The whole policy is judged, and PostgreSQL hears nothing of it."""
    issued = len(bed.bao.audit_entries())
    assert bed.run(fetch=False)[0] == 0
    asked = [entry["request"]["path"] for entry in bed.bao.audit_entries()[issued:]]
    assert "sys/capabilities-self" in asked
    assert not [path for path in asked if path.startswith(("database/", "doctor/"))]


def test_each_line_that_is_taken_away_is_named(bed: Bed) -> None:
    """One after the other: its path, its capability, and the text that brings it back."""
    lines = bed.needs("production")
    assert len(lines) == 8
    try:
        for gone in lines:
            bed.write_policy("production", [line for line in lines if line != gone])
            found = bed.findings(fetch=False)
            assert len(found) == 1, (gone.path, found)
            (finding,) = found
            if gone.path == CAPABILITIES:
                assert "the token may not ask what it may do" in finding["what"]
            else:
                wanted = f"the policy does not allow {gone.capabilities[0]} on {gone.path}"
                assert finding["what"] == wanted
            assert finding["severity"] == ("error" if gone.required else "warning")
            assert "\n".join(finding["lines"]) in hcl.block(gone)
    finally:
        bed.write_policy("production", lines)


def test_a_line_that_is_missing_is_told_once_also_when_fetching(bed: Bed) -> None:
    """The fetch that is denied for want of it is not a second finding."""
    lines = bed.needs("production")
    try:
        bed.write_policy("production", lines[1:])
        (finding,) = bed.findings()
    finally:
        bed.write_policy("production", lines)
    assert finding["upstreams"] == ["payments"]
    assert finding["what"].endswith("read on database/creds/payments-production")


def test_a_wrong_secret_id(bed: Bed) -> None:
    """One stage is refused and told how to get another; the other is examined."""
    file = bed.folder / "production"
    right = file.read_text()
    file.write_text("wrong")
    try:
        status, told = bed.run(fetch=False)
    finally:
        file.write_text(right)
    assert bed.run(stage="production", fetch=False)[0] == 0  # which ends the counting of tries
    (finding,) = told["findings"]
    assert (status, finding["stages"]) == (1, ["production"])
    assert spelled("bao write -f auth/approle/role/ROLE/secret-id") in finding["lines"]
    assert [stage["login"] for stage in told["stages"]] == ["failed", "done"]


def test_a_wrong_role(bed: Bed) -> None:
    """An AppRole that is not there; Vault does not say which of the two ids is wrong."""
    role_id = re.search(r"staging: {auth: {method: approle, role_id: ([^,]+)", bed.text)
    assert role_id
    (finding,) = bed.findings((role_id[1], "nobody"), stage="staging")
    assert "role_id is unknown" in finding["why"]
    assert spelled("bao read auth/approle/role/ROLE/role-id") in finding["lines"]


def test_a_wrong_mount_of_the_login(bed: Bed) -> None:
    """Vault does not say whether it is locked or absent; both are named."""
    edit = ("secret_id_file: staging", "secret_id_file: staging, mount: elsewhere")
    (finding,) = bed.findings(edit, stage="staging")
    assert "auth/elsewhere failed" in finding["what"]
    assert spelled("bao auth list") in finding["lines"]


def test_a_database_role_that_is_not_there(bed: Bed) -> None:
    """The policy has the path, as a pattern does; Vault's own words name the role."""
    lines = bed.needs("production")
    other = Need("database/creds/payroll-production", ("read",), (), "x", ())
    prefixes = tuple(f"database/creds/{name}-production/" for name in ("payments", "payroll"))
    wider = [
        Need(n.path, n.capabilities, n.upstreams, n.why, prefixes) if n.lease_prefixes else n
        for n in lines
    ]
    try:
        bed.write_policy("production", [*wider, other])
        (finding,) = bed.findings(("creds/payments-", "creds/payroll-"))
    finally:
        bed.write_policy("production", lines)
    assert "unknown role: payroll-production" in finding["what"]
    assert finding["lines"] == [spelled("bao list database/roles")]


def test_a_field_that_is_missing(bed: Bed) -> None:
    """The names that there are, never a value."""
    (finding,) = bed.findings(("{api_key}", "{apikey}"))
    assert finding["what"] == "doctor/geocoder has no field apikey; it has: api_key, note"
    assert finding["upstreams"] == ["geocoder"]


@pytest.mark.parametrize(
    ("allowed", "what"),
    [
        (False, "the policy does not allow read on doktor/data/geocoder"),
        (True, "no engine is mounted at doktor/data/geocoder"),
    ],
)
def test_a_mount_that_is_not_there(bed: Bed, *, allowed: bool, what: str) -> None:
    """Until the policy allows something there, Vault does not say; both are told apart."""
    lines = bed.needs("production")
    extra = [Need("doktor/data/geocoder", ("read",), (), "x")] if allowed else []
    try:
        bed.write_policy("production", [*lines, *extra])
        (finding,) = bed.findings(("kv: doctor/", "kv: doktor/"))
    finally:
        bed.write_policy("production", lines)
    assert finding["what"] == what


def test_a_path_of_the_http_api_in_place_of_a_name(bed: Bed) -> None:
    """`kv: doctor/data/geocoder` and `path: doctor/data/geocoder`, the usual two mistakes."""
    lines = bed.needs("production")
    twice = Need("doctor/data/data/geocoder", ("read",), (), "x")
    try:
        bed.write_policy("production", [*lines, twice])
        by_kv = bed.findings(("kv: doctor/", "kv: doctor/data/"), fetch=False)
        by_path = bed.findings(("kv: doctor/", "path: doctor/data/"), fetch=False)
    finally:
        bed.write_policy("production", lines)
    for found in (by_kv, by_path):
        assert [finding["mend"] for finding in found] == ["write secret: {kv: doctor/geocoder}"]


@pytest.mark.parametrize(
    ("settings", "what", "line"),
    [
        (
            {"token_policies": [], "token_no_default_policy": False},
            "the token has only the policy default",
            "bao write auth/approle/role/doctor-staging token_policies=vaultauthz-staging",
        ),
        (
            {"token_ttl": "1m"},
            "the token lives for 1m, the longest lease for 30m",
            "bao write auth/approle/role/doctor-staging token_ttl=30m",
        ),
        (
            {"token_ttl": "2h"},
            "the token lives for 2h without a renewal",
            "bao write auth/approle/role/doctor-staging token_ttl=1h",
        ),
        (
            {"token_type": "batch"},
            "the token is a batch token of 30m",
            "bao write auth/approle/role/doctor-staging token_type=service",
        ),
        (
            {"token_num_uses": 500},
            "the token is good for a number of requests only (498 left)",
            "bao write auth/approle/role/doctor-staging token_num_uses=0",
        ),
        (
            {"token_explicit_max_ttl": "25m", "token_ttl": "25m", "token_max_ttl": "25m"},
            "the token ends after 25m, renewed or not (explicit_max_ttl)",
            "bao write auth/approle/role/doctor-staging token_explicit_max_ttl=24h",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_role_with_a_wrong_setting(
    bed: Bed, settings: dict[str, Any], what: str, line: str
) -> None:
    """The setting is named, with the command that changes it; nothing is left of a batch token."""
    with bed.role("staging", **settings):
        found = bed.findings(stage="staging")
    by_what = {finding["what"]: finding for finding in found}
    assert what in by_what, found
    assert spelled(line) in by_what[what]["lines"]
    assert wait_for(lambda: not bed.leases(), PATIENCE)


def test_the_root_token_in_a_file(bed: Bed) -> None:
    """Refused as a token without an end; named as root where that is allowed. It lives on."""
    file = bed.folder / "token"
    file.touch(0o600)
    file.write_text(bed.bao.root_token)
    auth = re.search(r"staging: {auth: ({.*?})}", bed.text)
    assert auth
    (refused,) = bed.findings((auth[1], "{method: token_file, path: token}"), stage="staging")
    assert "the token never expires" in refused["what"]
    allowed = "{method: token_file, path: token, allow_long_lived: true}"
    (root,) = bed.findings((auth[1], allowed), stage="staging")
    assert root["what"] == "the token has the root policy"
    assert bed.bao.client().lookup_token()["data"]["policies"] == ["root"]
    assert not bed.leases()


def test_a_file_that_everybody_can_read(bed: Bed) -> None:
    """Told once, although the configuration warns of it too."""
    file = bed.folder / "staging"
    file.chmod(0o644)
    try:
        (finding,) = bed.findings(stage="staging", fetch=False)
    finally:
        file.chmod(0o600)
    assert "has mode 0644" in finding["what"]
    assert finding["lines"] == [f"chmod 600 {file}"]


def test_a_wrapped_secret_id_can_still_be_used_afterwards(bed: Bed) -> None:
    """Doctor only looks at it; once it was unwrapped, it says so."""
    admin = bed.bao.client()
    path = "auth/approle/role/doctor-staging/secret-id"
    token = admin.write_data(path, wrap_ttl="5m")["wrap_info"]["token"]
    file = bed.folder / "wrapped"
    file.touch(0o600)
    file.write_text(token)
    edit = ("secret_id_file: staging", "secret_id_file: wrapped, secret_id_wrapped: true")
    assert bed.findings(edit, stage="staging") == []
    assert admin.sys.unwrap(token)["data"]["secret_id"]
    (finding,) = bed.findings(edit, stage="staging")
    assert "the wrapping token of the secret_id cannot be used" in finding["what"]


def test_vault_that_is_sealed_and_then_away(bed: Bed, tmp_path: Path) -> None:
    """No login is tried; the command that mends it is named."""
    with OpenBao(tmp_path) as own:
        own.seal()
        edit = (bed.bao.address, own.address)
        (sealed,) = bed.run(edit)[1]["findings"]
        own.stop()
        status, told = bed.run(edit)
    assert sealed["what"] == f"{own.address} is sealed"
    assert sealed["lines"] == [spelled(f"bao operator unseal -address={own.address}")]
    (away,) = told["findings"]
    assert (status, away["stages"]) == (1, ["production", "staging"])
    assert "connection refused" in away["what"]
    assert [stage["login"] for stage in told["stages"]] == ["not tried", "not tried"]


def test_the_example_in_the_documentation_is_what_is_printed(bed: Bed) -> None:
    """docs/doctor.md, but for the address and the version."""
    document = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    example = re.search(r"```\n(VAULT .*?)```", document, re.DOTALL)
    assert example
    lines = bed.needs("staging")
    try:
        bed.write_policy("staging", [line for line in lines if line.path != "sys/leases/revoke"])
        with bed.role("staging", token_ttl="1m"):
            out = io.StringIO()
            run(
                bed.config(("{api_key}", "{key}")),
                DoctorOptions(fetch=True),
                Output(out, width=80),
                out,
            )
    finally:
        bed.write_policy("staging", lines)
    shown = out.getvalue().replace(bed.bao.address, "http://127.0.0.1:8200")
    assert _words(shown) == _words(spelled(example[1]))


def _words(text: str) -> list[str]:
    """Without the spaces between columns, which an address of another length moves."""
    numbered = re.sub(r"active +[\d.]+", "active VERSION", text)
    return [" ".join(line.split()) for line in numbered.splitlines()]


def test_words_are_compared_line_by_line() -> None:
    """The comparison can fail: another word, another line."""
    assert _words("a  b\nc") == _words("a b\nc")
    for one, other in itertools.combinations(("a b\nc", "a b c", "a b\nd"), 2):
        assert _words(one) != _words(other)
