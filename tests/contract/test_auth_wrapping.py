"""Unwrapping a secret_id when Vault, or what stands before it, answers badly or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.patience import PATIENCE
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.values import Vault
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.auth import Memory
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session
from vaultauthz.vault.transport import Told, nobody

TOKEN = "s.wrapping0000000000000001"
MADE_BY = "auth/approle/role/gateway/secret-id"
GONE = {"errors": ["wrapping token is not valid or does not exist"]}
LOOKUP, UNWRAP, LOGIN = "sys/wrapping/lookup", "sys/wrapping/unwrap", "auth/approle/login"


class Wrapped:
    """A Vault with one wrapping token; ``loses`` is the path whose answers do not arrive."""

    def __init__(self) -> None:
        self.server = FakeServer(self._respond)
        self.found: Any = {"creation_path": MADE_BY, "creation_ttl": 300}
        self.given: Any = {"secret_id": "s3cr3t-id", "secret_id_accessor": "x"}
        self.used = False
        self.loses = ""
        self.uses_up = True  # whether a lost unwrapping had been done
        self.heard: list[Heard] = []
        self._lock = threading.Lock()

    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [heard.path for heard in self.heard]

    def _respond(self, heard: Heard, wire: Wire) -> None:
        with self._lock:
            self.heard.append(heard)
            reply = self._answer(heard)
        if heard.path == self.loses:
            wire.reset()
        else:
            wire.send(b"".join(reply.encoded()))

    def _answer(self, heard: Heard) -> Reply:
        if heard.path == LOGIN:
            good = heard.body.get("secret_id") == "s3cr3t-id"
            return Reply(200, {"auth": _AUTH}) if good else Reply(400, {"errors": ["invalid"]})
        sent = heard.token if heard.path == UNWRAP else heard.body.get("token")
        if self.used or sent != TOKEN:
            return Reply(400, GONE)
        if heard.path == LOOKUP:
            return Reply(200, {"data": self.found})
        self.used = heard.path != self.loses or self.uses_up
        return Reply(200, {"data": self.given})


_AUTH: Mapping[str, Any] = {
    "client_token": "s.token",
    "accessor": "accessor",
    "lease_duration": 600,
    "renewable": True,
}


@pytest.fixture
def vault() -> Iterator[Wrapped]:
    """One in order, until the test says otherwise."""
    wrapped = Wrapped()
    wrapped.server.start()
    yield wrapped
    wrapped.server.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The secret_id file with the wrapping token."""
    path = tmp_path / "secret_id"
    path.write_text(TOKEN)
    return path


def session(
    vault: Wrapped, file: Path, memory: Memory | None = None, told: Told = nobody, **ids: Any
) -> Session:
    auth = AppRole(secret_id_file=file, secret_id_wrapped=True, **(ids or {"role_id": "r"}))
    values = Vault(vault.server.address, timeout=PATIENCE)
    return Session(values, auth, boottime, memory, told=told)


def failure_of(ours: Session) -> VaultError:
    """The login's failure, which tells no secret."""
    with pytest.raises(VaultError) as caught:
        ours.login()
    told = f"{caught.value!r} {caught.value.failure!r} {caught.value.detail}"
    assert TOKEN not in told
    assert "s3cr3t" not in told
    return caught.value


def test_where_the_token_goes(vault: Wrapped, file: Path) -> None:
    """In the body to look it up, which does not use it; alone in the header to use it; once."""
    told: list[str] = []
    ours = session(vault, file, told=lambda operation, *_: told.append(operation.value))
    ours.login()
    ours.login()
    assert vault.paths() == [LOOKUP, UNWRAP, LOGIN, LOGIN]
    assert told == ["unwrap", "unwrap", "login", "login"]
    lookup, unwrap, *logins = vault.heard
    assert (lookup.token, lookup.body) == ("", {"token": TOKEN})
    assert (unwrap.token, dict(unwrap.body)) == (TOKEN, {})
    assert [login.token for login in logins] == ["", ""]


def test_a_vault_that_is_away_uses_nothing_up(vault: Wrapped, file: Path) -> None:
    """Down or hanging up at the lookup: tried again, and then all is well."""
    ours = session(vault, file)
    vault.server.stop()
    assert failure_of(ours).failure.verdict is Verdict.RETRY
    vault.server.start()
    vault.loses = LOOKUP
    assert failure_of(ours).failure.verdict is Verdict.RETRY
    assert UNWRAP not in vault.paths()
    vault.loses = ""
    ours.login()


def test_a_lost_answer_is_told_from_an_interception(vault: Wrapped, file: Path) -> None:
    """We used the token and heard nothing: the next try says that it may have been us."""
    memory: Memory = {}
    vault.loses = UNWRAP
    assert failure_of(session(vault, file, memory)).failure.verdict is Verdict.RETRY
    vault.loses = ""
    for ours in (session(vault, file, memory), session(vault, file, memory)):
        failure = failure_of(ours).failure
        assert failure.verdict is Verdict.LOCKED
        assert "the answer was lost" in failure.reason
    assert vault.paths().count(UNWRAP) == 1
    other_process = failure_of(session(vault, file)).failure
    assert "possible interception" in other_process.reason


def test_an_unwrapping_that_did_not_arrive_is_made_again(vault: Wrapped, file: Path) -> None:
    """The token is still good by the lookup, so the login goes on; nothing of it is left over."""
    memory: Memory = {}
    vault.loses, vault.uses_up = UNWRAP, False
    assert failure_of(session(vault, file, memory)).failure.verdict is Verdict.RETRY
    vault.loses = ""
    session(vault, file, memory).login()
    (secret_id,) = memory.values()
    assert secret_id.reveal() == "s3cr3t-id"


def test_a_token_used_between_lookup_and_unwrapping(vault: Wrapped, file: Path) -> None:
    """Somebody was faster by a hair: that is an interception, also when it is tried again."""
    memory: Memory = {}
    answer = vault._answer

    def interceptor(heard: Heard) -> Reply:
        vault.used |= heard.path == UNWRAP
        return answer(heard)

    vault._answer = interceptor  # type: ignore[method-assign]
    for _ in range(2):
        failure = failure_of(session(vault, file, memory)).failure
        assert failure.verdict is Verdict.LOCKED
        assert "possible interception" in failure.reason


@pytest.mark.parametrize(
    "path",
    [
        "sys/wrapping/wrap",
        "cubbyhole/auth/approle/role/gateway/secret-id",
        "team/auth/approle/role/gateway/secret-id",
        "auth/approle2/role/gateway/secret-id",
        "auth/approle/role/gateway/secret-id/lookup",
        "auth/approle/role/gateway/custom-secret-id",
        "auth/approle/role/gateway/x/secret-id",
        "auth/approle/role//secret-id",
        "auth/approle/role/gateway/secret-id\n",
        "AUTH/approle/role/gateway/secret-id",
        "\x1b[31m" + "x" * 5000,
        "",
    ],
)
def test_a_foreign_path_is_never_unwrapped(vault: Wrapped, file: Path, path: str) -> None:
    """Only what our mount's roles make; what the log is told of the other is short and plain."""
    vault.found = {"creation_path": path}
    error = failure_of(session(vault, file))
    assert error.failure.verdict is Verdict.LOCKED
    assert "possible interception" in error.failure.reason
    assert UNWRAP not in vault.paths()
    assert len(error.detail) < 300
    assert error.detail.isprintable()


def test_a_dot_in_the_mount_is_no_wildcard(vault: Wrapped, file: Path) -> None:
    """The mount's name is taken as it is written."""
    vault.found = {"creation_path": "auth/app-role/role/gateway/secret-id"}
    error = failure_of(session(vault, file, role_id="r", mount="app.role"))
    assert error.failure.verdict is Verdict.LOCKED
    assert UNWRAP not in vault.paths()


@pytest.mark.parametrize("found", [None, [], {}, {"creation_path": 7}, "text"])
def test_a_lookup_that_is_not_as_documented_uses_nothing_up(
    vault: Wrapped, file: Path, found: object
) -> None:
    """It may be a page of something in between: tried again, and never unwrapped."""
    vault.found = found
    assert failure_of(session(vault, file)).failure.verdict is Verdict.RETRY
    assert UNWRAP not in vault.paths()


@pytest.mark.parametrize(
    "given", [None, [], {}, {"secret_id": 7}, {"secret_id": ""}, {"secret_id": "x" * 5000}]
)
def test_an_answer_without_a_secret_id_is_final(vault: Wrapped, file: Path, given: object) -> None:
    """The token is used up by then, so that only a new one helps; nothing is kept or sent on."""
    vault.given = given
    assert failure_of(session(vault, file)).failure.verdict is Verdict.LOCKED
    assert LOGIN not in vault.paths()


def test_a_missing_role_id_does_not_cost_the_token(
    vault: Wrapped, file: Path, tmp_path: Path
) -> None:
    """Its file is read first; nothing is asked of Vault until it is there."""
    ours = session(vault, file, role_id_file=tmp_path / "role_id")
    assert failure_of(ours).failure.verdict is Verdict.RETRY
    assert vault.heard == []
    (tmp_path / "role_id").write_text("r")
    ours.login()


def test_a_file_that_comes_back_brings_its_secret_id_back(vault: Wrapped, file: Path) -> None:
    """A wrong token in between, also a foreign one, does not make the good one forgotten."""
    ours = session(vault, file, {})
    ours.login()
    file.write_text("s.another00000000000000001")
    assert failure_of(ours).failure.verdict is Verdict.LOCKED
    file.write_text(TOKEN)
    ours.login()
    assert isinstance(next(iter(ours.memory.values())), Secret)
    assert TOKEN not in repr(ours.memory)
