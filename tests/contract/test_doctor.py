"""`doctor` against a fake Vault: how it asks, what it never does, and that it gives back."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.contract import faults
from tests.contract.certificates import Authority, server_context
from tests.contract.fake_http import Heard, Reply, Wire
from tests.contract.fake_vault import FakeVault
from tests.interrupts import interruptible as interruptible  # noqa: PLC0414  a fixture
from tests.patience import PATIENCE
from vaultauthz.config import Config, parse
from vaultauthz.doctor import DoctorOptions, run
from vaultauthz.doctor.evidence import Handshake
from vaultauthz.doctor.reach import node
from vaultauthz.terminal import Output

SECRET_ID = "s3cr3t-id"
STAGE = "{auth: {method: approle, role_id: ROLE, secret_id_file: secret_id}}"
UPSTREAM = """
  UP:
    secret: {path: creds/UP}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
"""
NOT_ALL = {"creds/b": ("deny",)}


class Vault(FakeVault):
    """The fake with what only doctor asks: health, capabilities, the facts of a token."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.health: dict[str, Any] = {}
        self.capabilities: Mapping[str, tuple[str, ...]] = {}
        self.fault(self._health, "sys/health")
        self.fault(self._capabilities, "sys/capabilities-self")
        self.fault(self._looked_up, "auth/token/lookup-self")

    def _health(self, heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply:
        told = {"initialized": True, "sealed": self.sealed, "standby": False, "version": "2.7.2"}
        now = {"server_time_utc": int(time.time()), "cluster_name": "fake"}
        return Reply(200, {**told, **now, **self.health})

    def _capabilities(self, heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply:
        found = {path: self.capabilities.get(path, _usual(path)) for path in heard.body["paths"]}
        return Reply(200, {"data": found})

    def _looked_up(self, heard: Heard, answer: Callable[[], Reply], wire: Wire) -> Reply:
        reply = answer()
        if not isinstance(reply.body, Mapping) or reply.status != 200:
            return reply
        more = {"policies": ["default", "gw"], "creation_ttl": 3600, "renewable": True}
        return Reply(200, {**reply.body, "data": {**reply.body["data"], **more, "type": "service"}})


def _usual(path: str) -> tuple[str, ...]:
    return ("read", "update") if path.startswith(("auth/", "sys/")) else ("read",)


@dataclass
class Bed:
    """A configuration against ``vault``, and doctor's answer to it."""

    folder: Path
    vault: Vault
    address: str = ""
    stages: dict[str, str] = field(default_factory=lambda: {"prod": STAGE})
    upstreams: tuple[str, ...] = ("a", "b")
    more: str = ""

    def text(self) -> str:
        """The file."""
        stages = "".join(
            f"  {name}: {auth.replace('ROLE', 'gateway')}\n" for name, auth in self.stages.items()
        )
        upstreams = "".join(UPSTREAM.replace("UP", name) for name in self.upstreams)
        address = f"{{address: '{self.address or self.vault.address}', timeout: 2s{self.more}}}"
        return f"vault: {address}\nstages:\n{stages}upstreams:{upstreams}"

    def config(self) -> Config:
        """The file, read."""
        return parse(self.text(), "c.yaml", self.folder, {})

    def run(self, *, stage: str | None = None, fetch: bool = True) -> tuple[int, dict[str, Any]]:
        """The status and the JSON."""
        out = io.StringIO()
        asked = DoctorOptions(stage, fetch)
        status = run(self.config(), asked, Output(out, as_json=True), io.StringIO())
        return status, json.loads(out.getvalue()) if out.getvalue() else {}

    def found(self) -> list[str]:
        """What the findings say."""
        return [finding["what"] for finding in self.run()[1]["findings"]]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """One role, two upstreams, all in order."""
    with Vault() as vault:
        vault.set_approle()
        for name in ("a", "b", "c"):
            vault.set_creds(f"creds/{name}")
        # In the fake, as in Vault, an engine answers below its mount.
        vault.set_mount("creds", 1)
        file = tmp_path / "secret_id"
        file.touch(0o600)
        file.write_text(SECRET_ID)
        yield Bed(tmp_path, vault)


def test_in_order_it_finds_nothing_and_leaves_nothing(bed: Bed) -> None:
    """One login, each secret once, and neither token nor lease is left."""
    status, told = bed.run()
    assert (status, told["findings"]) == (0, [])
    assert len(bed.vault.issued) == 2
    assert (bed.vault.live_tokens(), bed.vault.live_leases()) == ([], [])
    assert len(bed.vault.calls("auth/approle/login")) == 1
    assert told["stages"][0]["token"]["policies"] == ["default", "gw"]


def test_without_fetch_no_secret_is_read(bed: Bed) -> None:
    """Only questions; the token is revoked all the same."""
    assert bed.run(fetch=False)[0] == 0
    assert bed.vault.issued == []
    assert bed.vault.calls("creds/") == bed.vault.calls("sys/internal/ui/mounts/")
    assert bed.vault.live_tokens() == []


def test_no_secret_is_in_what_it_prints(bed: Bed) -> None:
    """Neither the secret_id, nor the token, nor what was fetched, for people or programs."""
    bed.vault.capabilities = NOT_ALL
    for as_json in (False, True):
        out, err = io.StringIO(), io.StringIO()
        run(bed.config(), DoctorOptions(fetch=True), Output(out, as_json=as_json, width=80), err)
        for secret in (SECRET_ID, "hvs.T0KEN", "p4ssw0rd"):
            assert secret not in out.getvalue() + err.getvalue()


def test_a_refused_login_is_tried_once_for_all_stages_that_share_it(bed: Bed) -> None:
    """Five wrong tries lock a role; nine stages with one wrong secret_id are one try."""
    (bed.folder / "secret_id").write_text("wrong")
    bed.stages = {f"s{n}": STAGE for n in range(9)}
    found = bed.run()[1]["findings"]
    tried, untried = sorted(found, key=lambda finding: len(finding["stages"]))
    assert len(bed.vault.calls("auth/approle/login")) == 1
    assert (len(tried["stages"]), len(untried["stages"])) == (1, 8)
    assert "failed: Vault refused the login" in tried["what"]
    assert f"the one that failed in {tried['stages'][0]}, and was not tried" in untried["what"]


def test_a_stage_that_cannot_log_in_stops_no_other(bed: Bed) -> None:
    """Each stage is told by itself."""
    bed.stages["test"] = STAGE.replace("ROLE", "nobody")
    _, told = bed.run()
    assert {one["stage"]: one["login"] for one in told["stages"]} == {
        "prod": "done",
        "test": "failed",
    }
    assert len(bed.vault.issued) == 2


def test_only_the_stage_that_was_asked_for_is_examined(bed: Bed) -> None:
    """The other does not even log in."""
    bed.stages["test"] = STAGE
    assert [one["stage"] for one in bed.run(stage="test")[1]["stages"]] == ["test"]
    assert len(bed.vault.calls("auth/approle/login")) == 1


def test_an_unknown_stage_is_wrong_usage(bed: Bed) -> None:
    """Status 2, nothing on standard output, and nobody is asked."""
    assert bed.run(stage="live") == (2, {})
    assert bed.vault.heard == []


def test_a_wrapping_token_is_not_used_up(bed: Bed) -> None:
    """It is looked up, in the body of the question; unwrapping stays for the gateway."""
    bed.stages = {"prod": STAGE.replace("secret_id}", "secret_id, secret_id_wrapped: true}")}
    made_by = {"creation_path": "auth/approle/role/gateway/secret-id", "creation_ttl": 60}
    bed.vault.fault(faults.mangled(lambda _: {"data": made_by}), "sys/wrapping/lookup")
    bed.vault.fault(faults.status(200, body=json.dumps({"data": made_by}).encode()), "lookup")
    status, told = bed.run()
    assert (status, told["stages"][0]["login"]) == (0, "wrapped")
    (asked,) = bed.vault.calls("sys/wrapping/")
    assert (asked.token, asked.body) == ("", {"token": SECRET_ID})
    bed.vault.fault(faults.status(400, "wrapping token is not valid"), "sys/wrapping/lookup")
    assert "wrapping token of the secret_id cannot be used" in bed.found()[0]


def test_vault_that_goes_away_is_asked_no_further(bed: Bed) -> None:
    """A thousand upstreams are not a thousand timeouts."""
    bed.upstreams = ("a", "b", "c")
    bed.vault.fault(faults.status(503, "Vault is sealed"), "creds/a", method="GET")
    bed.vault.fault(faults.mangled(lambda body: body), "sys/internal")  # this is in order still
    (finding,) = bed.run()[1]["findings"]
    assert "creds/a was not given: Vault is sealed" in finding["what"]
    fetched = [h.path for h in bed.vault.calls("creds/") if h.path.startswith("creds/")]
    assert fetched == ["creds/a"]


def test_vault_that_goes_away_before_it_has_told_all(bed: Bed) -> None:
    """One finding that says so, and none that takes silence for a wrong policy."""
    bed.vault.fault(faults.status(503, "Vault is sealed"), "sys/internal")
    (what,) = bed.found()
    assert "Vault went away in the middle" in what
    assert len(bed.vault.calls("sys/internal")) == 1
    assert bed.vault.live_tokens() == []


def test_leases_that_may_not_be_revoked_go_with_the_token(bed: Bed) -> None:
    """The right is asked for once, and nothing is left behind in the end."""
    bed.vault.deny("sys/leases/revoke")
    assert bed.run()[0] == 0
    assert len(bed.vault.calls("sys/leases/revoke")) == 1
    assert bed.vault.live_leases() == []


def test_what_cannot_be_given_back_is_named(bed: Bed) -> None:
    """The token by its accessor, each lease by its id."""
    bed.vault.deny("sys/leases/revoke")
    bed.vault.deny("auth/token/revoke-self")
    _, told = bed.run()
    lines = [line for finding in told["findings"] for line in finding["lines"]]
    (token,) = bed.vault.live_tokens()
    assert f"bao token revoke -accessor {token.accessor}" in lines
    for lease in bed.vault.live_leases():
        assert f"bao lease revoke {lease.id}" in lines


def test_a_token_from_a_file_is_not_revoked(bed: Bed) -> None:
    """It is another's; the leases that doctor took with it are given back one by one."""
    bed.vault.add_token("hvs.agent")
    file = bed.folder / "token"
    file.touch(0o600)
    file.write_text("hvs.agent")
    bed.stages = {"prod": "{auth: {method: token_file, path: token}}"}
    assert bed.run()[0] == 0
    assert len(bed.vault.live_tokens()) == 1
    assert len(bed.vault.issued) == 2
    assert bed.vault.live_leases() == []


def test_answers_that_are_no_vaults_are_told(bed: Bed) -> None:
    """A portal's page in place of health, a body in place of capabilities: no traceback."""
    bed.vault.fault(faults.status(200, body=b'{"data": []}'), "sys/capabilities-self")
    assert "the token may not ask what it may do: the answer is not Vault's" in bed.found()[0]
    bed.vault.fault(faults.status(200, body=b"<html>"), "sys/health")
    assert "the answer is not Vault's" in bed.found()[0]


def test_a_bug_in_one_stage_is_told_and_stops_no_other(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no clean bill of health, and what was taken is given back."""
    from vaultauthz.doctor.stage import _Examination

    ask = _Examination._ask

    def broken(self: _Examination, token: Any) -> None:
        if self.seen.name == "bad":
            raise KeyError(SECRET_ID)
        ask(self, token)

    monkeypatch.setattr(_Examination, "_ask", broken)
    bed.stages["bad"] = STAGE
    status, told = bed.run()
    (finding,) = told["findings"]
    assert (status, finding["stages"]) == (1, ["bad"])
    assert "doctor itself failed in this stage: KeyError" in finding["what"]
    assert SECRET_ID not in json.dumps(told)
    assert bed.vault.live_tokens() == []


class TestReach:
    """Each way in which an address can be wrong, over real sockets."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path)

    @staticmethod
    def _looked_at(bed: Bed, **tls: Any) -> Handshake | None:
        from dataclasses import replace

        vault = bed.config().vault
        return node(replace(vault, tls=replace(vault.tls, **tls)), vault.address).handshake

    def test_tls_in_order(self, bed: Bed, authority: Authority) -> None:
        """The version, and when the certificate ends."""
        with Vault(tls=server_context(authority.issue("127.0.0.1"))) as bed.vault:
            seen = self._looked_at(bed, ca_cert=authority.ca)
        assert seen
        assert (seen.version, seen.problem) == ("TLSv1.3", "")
        assert seen.ends_in is not None
        assert 3000 < seen.ends_in <= 3600

    def test_an_authority_that_is_not_known(self, bed: Bed, authority: Authority) -> None:
        """In OpenSSL's words."""
        with Vault(tls=server_context(authority.issue("127.0.0.1"))) as bed.vault:
            seen = self._looked_at(bed)
        assert seen
        assert "unable to get local issuer" in seen.problem

    def test_another_name(self, bed: Bed, authority: Authority) -> None:
        """The certificate is for another host, until server_name says so."""
        with Vault(tls=server_context(authority.issue("vault.test"))) as bed.vault:
            seen = self._looked_at(bed, ca_cert=authority.ca)
            named = self._looked_at(bed, ca_cert=authority.ca, server_name="vault.test")
        assert seen
        assert named
        assert "mismatch" in seen.problem
        assert named.problem == ""

    def test_a_client_certificate_that_is_not_shown(self, bed: Bed, authority: Authority) -> None:
        """TLS 1.3 tells only after the handshake."""
        context = server_context(authority.issue("127.0.0.1"), authority.ca)
        with Vault(tls=context) as bed.vault:
            seen = self._looked_at(bed, ca_cert=authority.ca)
        assert seen
        assert "certificate required" in seen.problem

    def test_no_tls_there(self, bed: Bed) -> None:
        """A listener in clear text behind an https:// address."""
        bed.address = bed.vault.address.replace("http:", "https:")
        (what,) = bed.found()
        assert "wrong version number" in what or "record layer" in what

    def test_nobody_there(self, bed: Bed) -> None:
        """The system's own word for it, and no login is tried."""
        bed.address = "http://127.0.0.1:1"
        (what,) = bed.found()
        assert "connection refused" in what

    def test_a_clock_that_is_wrong(self, bed: Bed) -> None:
        """Vault's against ours."""
        bed.vault.health = {"server_time_utc": int(time.time()) + 120}
        (what,) = bed.found()
        assert "1m59s ahead" in what or "2m ahead" in what

    def test_health_is_asked_without_the_namespace(self, bed: Bed) -> None:
        """Vault answers for it in the root namespace only; the login is in its own."""
        bed.more = ", namespace: team"
        bed.run()
        (health,) = bed.vault.calls("sys/health")
        (login,) = bed.vault.calls("auth/approle/login")
        assert "x-vault-namespace" not in health.headers
        assert login.headers["x-vault-namespace"] == "team"


class TestCommand:
    """The program itself: Ctrl-C, terminals, wrong usage."""

    @staticmethod
    def _start(bed: Bed, *more: str, **streams: Any) -> subprocess.Popen[bytes]:
        path = bed.folder / "c.yaml"
        path.write_text(bed.text())
        return subprocess.Popen(
            [sys.executable, "-m", "vaultauthz", "doctor", "-c", str(path), *more],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )

    @pytest.mark.usefixtures("interruptible")
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted_it_gives_back_what_it_took(self, bed: Bed, how: signal.Signals) -> None:
        """In the middle of a fetch: token and leases are revoked, no traceback, status 130."""
        go = threading.Event()
        bed.vault.fault(faults.held(go), "creds/b", method="GET")
        bed.upstreams = ("a", "b", "c")
        ours, theirs = pty.openpty()
        with self._start(bed, "--fetch", stderr=theirs) as running:
            os.close(theirs)
            assert faults.wait_until(
                lambda: any(heard.path == "creds/b" for heard in bed.vault.heard)
            )
            running.send_signal(how)
            err = b""
            while b"giving back" not in err:  # then it has heard, and not before
                err += os.read(ours, 65536)
            go.set()
            out, _ = running.communicate(timeout=PATIENCE)
        with contextlib.suppress(OSError):  # on Linux a terminal that was closed is an error
            while more := os.read(ours, 65536):
                err += more
        os.close(ours)
        assert running.returncode == 130
        assert out == b""
        assert b"interrupted; what it had taken is given back" in err
        assert b"Traceback" not in err
        assert (bed.vault.live_tokens(), bed.vault.live_leases()) == ([], [])
        assert len(bed.vault.issued) == 2

    def test_progress_is_for_terminals(self, bed: Bed) -> None:
        """On one it is shown and taken away again; in a pipe there is nothing."""
        ours, theirs = pty.openpty()
        with self._start(bed, stderr=theirs) as running:
            running.communicate(timeout=PATIENCE)
        os.close(theirs)
        shown = os.read(ours, 65536)
        os.close(ours)
        assert b"logging in" in shown
        assert shown.endswith(b"\r\x1b[K")
        with self._start(bed) as running:
            assert running.communicate(timeout=PATIENCE)[1] == b""

    def test_a_bad_configuration_is_wrong_usage(self, bed: Bed) -> None:
        """Status 2 and the configuration's own words."""
        bed.more = ", tiemout: 3s"
        with self._start(bed) as running:
            _, err = running.communicate(timeout=PATIENCE)
        assert running.returncode == 2
        assert b"vault.tiemout: unknown key" in err
