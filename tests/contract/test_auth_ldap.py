"""LDAP logins: OpenBao 2.7 has no such method, so a fake answers as Vault does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.contract.house import write
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.values import Vault
from vaultauthz.core.grant import Verdict
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

WRONG = "ldap operation failed: failed to bind as user"


class Directory:
    """A Vault whose LDAP mounts know one user; ``says`` is what it answers instead."""

    def __init__(self) -> None:
        self.server = FakeServer(self._respond)
        self.users = {"auth/ldap/login/mary": "s3cr3t w0rd"}
        self.says: Reply | None = None
        self.heard: list[Heard] = []

    def _respond(self, heard: Heard, wire: Wire) -> None:
        self.heard.append(heard)
        wire.send(b"".join((self.says or self._answer(heard)).encoded()))

    def _answer(self, heard: Heard) -> Reply:
        if self.users.get(heard.path) != heard.body["password"]:
            return Reply(400, {"errors": [WRONG]})
        auth = {"client_token": "s.t", "accessor": "a", "lease_duration": 600, "renewable": True}
        return Reply(200, {"auth": auth})


@pytest.fixture
def directory() -> Iterator[Directory]:
    """One that works, until the test says otherwise."""
    found = Directory()
    found.server.start()
    yield found
    found.server.stop()


def session(directory: Directory, auth: Ldap) -> Session:
    return Session(Vault(directory.server.address), auth, boottime)


def failure_of(ours: Session, password: str) -> VaultError:
    """The login's failure, which does not tell the password."""
    with pytest.raises(VaultError) as caught:
        ours.login()
    assert password not in f"{caught.value!r} {caught.value.detail}"
    return caught.value


def test_the_password_of_now_goes_in_the_body(directory: Directory, tmp_path: Path) -> None:
    """To the user's path below the mount, and without a token."""
    directory.users["auth/corp/ldap/login/mary"] = "an0ther"
    file = write(tmp_path / "password", "s3cr3t w0rd\n")
    assert session(directory, Ldap("mary", file)).login().lease_id == "a"
    write(file, "an0ther")
    assert session(directory, Ldap("mary", file, mount="corp/ldap")).login().ttl == 600.0
    assert [dict(heard.body) for heard in directory.heard] == [
        {"password": "s3cr3t w0rd"},
        {"password": "an0ther"},
    ]
    assert {heard.token for heard in directory.heard} == {""}


@pytest.mark.parametrize("name", ["CORP\\mary", "mary@corp.example", "mary ann", "märy", "a?b#c"])
def test_a_name_is_one_part_of_the_path(directory: Directory, tmp_path: Path, name: str) -> None:
    """Whatever a directory takes for a name reaches Vault as it is."""
    directory.users = {f"auth/ldap/login/{name}": "s3cr3t w0rd"}
    file = write(tmp_path / "password", "s3cr3t w0rd")
    session(directory, Ldap(name, file)).login()


def test_a_wrong_password_is_locked(directory: Directory, tmp_path: Path) -> None:
    """400, as some of them lock the user in the directory too."""
    file = write(tmp_path / "password", "wr0ng")
    error = failure_of(session(directory, Ldap("mary", file)), "wr0ng")
    assert (error.status, error.failure.verdict) == (400, Verdict.LOCKED)


def test_what_passes_is_tried_again(directory: Directory, tmp_path: Path) -> None:
    """A user who is locked out, and a Vault that is sealed."""
    ours = session(directory, Ldap("mary", write(tmp_path / "password", "s3cr3t w0rd")))
    directory.says = Reply(403, {"errors": ["permission denied"]})
    error = failure_of(ours, "s3cr3t")
    assert error.failure.verdict is Verdict.REFUSED
    assert "locked out" in error.failure.reason
    directory.says = Reply(503, {"errors": ["Vault is sealed"]})
    assert failure_of(ours, "s3cr3t").failure.verdict is Verdict.RETRY
    directory.says = None
    ours.login()
