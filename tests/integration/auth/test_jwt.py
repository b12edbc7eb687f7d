"""JWT logins against a real OpenBao, with a fixed key and with keys that it fetches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.contract.house import write
from tests.contract.jwt_issuer import Issuer
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.core.grant import Verdict

from .auth_bao import AuthBao, failure_of

pytestmark = pytest.mark.integration

AUDIENCE = "vault"


class KeyServer:
    """Serves a JSON Web Key Set, as an identity provider does; None: it answers 500."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer: Issuer | None = issuer
        self.server = FakeServer(self._respond)

    def _respond(self, heard: Heard, wire: Wire) -> None:
        reply = Reply(200, self.issuer.jwks) if self.issuer else Reply(500)
        wire.send(b"".join(reply.encoded()))


def add_role(vault: AuthBao, mount: str, **params: object) -> None:
    """The role `gateway`, for tokens whose subject is that."""
    bounds = {"bound_audiences": [AUDIENCE], "bound_subject": "gateway", "user_claim": "sub"}
    values = {"role_type": "jwt", "token_ttl": "10m", **bounds, **params}
    vault.write(f"auth/{mount}/role/gateway", **values)


@pytest.fixture(scope="module")
def issuer(vault: AuthBao) -> Issuer:
    """Whose public key the mount `jwt` has."""
    issuer = Issuer()
    vault.enable_auth("jwt")
    vault.write("auth/jwt/config", jwt_validation_pubkeys=[issuer.public_pem])
    add_role(vault, "jwt")
    return issuer


@pytest.fixture
def key_server(vault: AuthBao) -> Iterator[KeyServer]:
    """Whose keys the mount `jwks` fetches."""
    keys = KeyServer(Issuer())
    keys.server.start()
    vault.enable_auth("jwt", "jwks")
    vault.write("auth/jwks/config", jwks_url=f"{keys.server.address}/keys")
    add_role(vault, "jwks")
    yield keys
    keys.server.stop()


def test_the_token_of_now_is_used(vault: AuthBao, issuer: Issuer, tmp_path: Path) -> None:
    """The file is read at each login: its first token ends, and another takes its place."""
    file = write(tmp_path / "jwt", issuer.token("gateway", AUDIENCE, lives=-3600))
    session = vault.session(Jwt("gateway", file))
    assert "expired" in failure_of(session, file.read_text()).detail
    write(file, issuer.token("gateway", AUDIENCE) + "\n")
    grant = session.login()
    assert (grant.ttl, grant.renewable) == (600.0, True)
    assert session.renew_token(grant.payload, 600.0).ttl == 600.0


def test_a_command_gives_the_token(vault: AuthBao, issuer: Issuer, tmp_path: Path) -> None:
    """What it prints logs in; when it fails, that is said without what it printed."""
    file = write(tmp_path / "jwt", issuer.token("gateway", AUDIENCE))
    program = f"import sys; print(open({str(file)!r}).read()); sys.exit(int(sys.argv[1]))"
    command = (sys.executable, "-c", program)
    assert vault.session(Jwt("gateway", token_command=(*command, "0"))).login().lease_id
    error = failure_of(
        vault.session(Jwt("gateway", token_command=(*command, "3"))), file.read_text()
    )
    assert error.failure.verdict is Verdict.RETRY
    assert "exit status 3" in error.failure.reason


def test_what_vault_says_to_a_token_that_is_not_good(
    vault: AuthBao, issuer: Issuer, tmp_path: Path
) -> None:
    """Each is refused with 400, for whatever reason, and the token is never told."""
    file = tmp_path / "jwt"
    session = vault.session(Jwt("gateway", file))
    for token, text in (
        (issuer.token("gateway", AUDIENCE, lives=-3600), "token is expired"),
        (issuer.token("gateway", AUDIENCE, nbf=int(time.time()) + 3600), "not yet valid"),
        (issuer.token("gateway", "another"), "audience"),
        (issuer.token("another", AUDIENCE), "subject"),
        (Issuer().token("gateway", AUDIENCE), "signature"),
        ("eyJhbGciOiJub25lIn0.e30.", "signature"),
        ("not-a-jwt", "three parts"),
    ):
        write(file, token)
        error = failure_of(session, token)
        assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED), text
        assert text in error.detail


def test_a_wrong_role_mount_or_address_is_refused(
    vault: AuthBao, issuer: Issuer, tmp_path: Path
) -> None:
    """Somebody must change a configuration: ours, or the role's."""
    file = write(tmp_path / "jwt", issuer.token("gateway", AUDIENCE))
    vault.write(
        "auth/jwt/role/elsewhere",
        role_type="jwt",
        user_claim="sub",
        bound_audiences=[AUDIENCE],
        token_bound_cidrs=["10.0.0.0/8"],
    )
    for auth, status in (
        (Jwt("no-such-role", file), 400),
        (Jwt("gateway", file, mount="no-such-mount"), 403),
        (Jwt("elsewhere", file), 403),
    ):
        error = failure_of(vault.session(auth), file.read_text())
        assert (error.status, error.failure.verdict) == (status, Verdict.REFUSED)


def test_what_cannot_be_a_token_is_not_sent(vault: AuthBao, tmp_path: Path) -> None:
    """Two lines, or a page of HTML, where a JWT should be: tried again, as it may be replaced."""
    file = write(tmp_path / "jwt", "<html>\nsorry\n</html>")
    error = failure_of(vault.session(Jwt("gateway", file)), "sorry")
    assert (error.status, error.failure.verdict) == (0, Verdict.RETRY)
    error = failure_of(vault.session(Jwt("gateway", token_command=("echo", "two words"))), "two")
    assert error.failure.reason == "what the token command printed is no JWT"


def test_keys_are_fetched_and_followed(
    vault: AuthBao, key_server: KeyServer, tmp_path: Path
) -> None:
    """With keys that OpenBao fetches: good, rotated, gone for a while, and back."""
    first, second, third = (Issuer(kid=f"key-{n}") for n in range(3))
    key_server.issuer = first
    file = write(tmp_path / "jwt", first.token("gateway", AUDIENCE))
    session = vault.session(Jwt("gateway", file, mount="jwks"))
    session.login()
    write(file, second.token("gateway", AUDIENCE))
    assert "signature" in failure_of(session).detail
    key_server.issuer = second
    session.login()
    write(file, third.token("gateway", AUDIENCE))
    key_server.issuer = None
    assert failure_of(session, file.read_text()).status == 400
    key_server.server.stop()
    assert failure_of(session, file.read_text()).status == 400
    key_server.server.start()
    key_server.issuer = third
    session.login()
