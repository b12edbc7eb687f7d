"""The table of errors against a real OpenBao 2.7: every text here is what it answered.

What it cannot be made to say has its row tested in tests/unit/vault/test_errors.py,
which names the source of each text, and on the fake in tests/contract/test_nodes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.patience import PATIENCE
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.config.values import KvSecret, PathSecret, Vault
from vaultauthz.core.credential import NO_LOGIN
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import OpenBao
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.auth.tries import Tries
from vaultauthz.vault.errors import NodeFate, VaultError
from vaultauthz.vault.probe import Probe
from vaultauthz.vault.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

POLICY = """
path "errors/data/*" { capabilities = ["read"] }
path "no-engine/*" { capabilities = ["read"] }
path "errors-db/*" { capabilities = ["read"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/policies/acl/errors" { capabilities = ["read", "update"] }
"""


@dataclass
class Bed:
    """A server with a KV engine, a database engine without roles, and logins."""

    bao: OpenBao
    token: Secret
    folder: Path

    def session(self, auth: AuthMethod, namespace: str = "") -> Session:
        # Each as if on another machine, which knows nothing of what was tried before.
        elsewhere = Tries(lambda: None)
        return Session(Vault(self.bao.address, namespace), auth, boottime, tries=elsewhere)

    @property
    def ours(self) -> Session:
        """A session whose login nobody asks for."""
        return self.session(AppRole("nobody"))

    def probe(self, namespace: str = "") -> Probe:
        return Probe(Vault(self.bao.address, namespace), boottime)

    @property
    def bare_token(self) -> Secret:
        """One with no policy that lets it look itself up."""
        made = self.bao.client().write_data(
            "auth/token/create", data={"policies": ["errors-none"], "no_default_policy": True}
        )
        return Secret(made["auth"]["client_token"])

    def bound_token(self) -> Secret:
        """One of a role that is for other addresses: AppRole gives it all the same."""
        client, role = self.bao.client(), "auth/errors-roles/role/elsewhere"
        client.write_data(role, data={"token_bound_cidrs": ["10.9.0.0/16"]})
        ids = {
            "role_id": client.read(f"{role}/role-id")["data"]["role_id"],
            "secret_id": client.write_data(f"{role}/secret-id")["data"]["secret_id"],
        }
        made = client.write_data("auth/errors-roles/login", data=ids)
        return Secret(made["auth"]["client_token"])

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def userpass(self, password: str, user: str = "someone") -> Session:
        return self.session(UserPass(user, self.file("password", password), "errors-users"))

    def fetch(self, path: str) -> object:
        return self.ours.fetch(self.token, NO_LOGIN, PathSecret(path))


@pytest.fixture(scope="module")
def bed(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Bed:
    """Laid out once; what a test locks or limits is its own."""
    client = bao.client()
    bao.enable_engine("errors", "kv-v2")
    bao.enable_engine("errors-db", "database")
    client.sys.create_or_update_policy("errors", POLICY)
    for method, path in (("userpass", "users"), ("approle", "roles"), ("jwt", "jwt")):
        client.sys.enable_auth_method(method, path=f"errors-{path}")
    client.sys.enable_auth_method("kubernetes", path="errors-kube")
    for user in ("someone", "locked"):
        client.write_data(f"auth/errors-users/users/{user}", data={"password": "right"})
    client.write_data("auth/errors-roles/role/gateway", data={"token_policies": ["errors"]})
    token = client.auth.token.create(policies=["errors"], ttl="1h")["auth"]["client_token"]
    return Bed(bao, Secret(token), tmp_path_factory.mktemp("errors"))


def failure_of(call: Callable[[], object]) -> VaultError:
    """The VaultError that the call must raise."""
    with pytest.raises(VaultError) as caught:
        call()
    return caught.value


def batch_token(bed: Bed) -> Secret:
    """One that cannot be renewed or revoked."""
    made = bed.bao.client().write_data(
        "auth/token/create", data={"type": "batch", "policies": ["errors"], "ttl": "10m"}
    )
    return Secret(made["auth"]["client_token"])


Row = tuple[str, Callable[[Bed], object], int, Verdict, str]
V = Verdict
LOGINS: list[Row] = [
    (
        "a wrong password",
        lambda bed: bed.userpass("wrong", "nobody").login(),
        400,
        V.LOCKED,
        "invalid username or password",
    ),
    (
        "a wrong role_id",
        lambda bed: bed.session(AppRole("x", Secret("y"), mount="errors-roles")).login(),
        400,
        V.LOCKED,
        "invalid role or secret ID",
    ),
    (
        "no such auth mount, of a login that locks",
        lambda bed: bed.session(AppRole("x", Secret("y"), mount="nowhere")).login(),
        403,
        V.REFUSED,
        "permission denied",
    ),
    (
        "no such auth mount, of another",
        lambda bed: bed.session(Jwt("r", bed.file("jwt", "a.b.c"), mount="nowhere")).login(),
        403,
        V.REFUSED,
        "permission denied",
    ),
    (
        "a JWT mount that was not set up",
        lambda bed: bed.session(Jwt("r", bed.file("jwt", "a.b.c"), mount="errors-jwt")).login(),
        400,
        V.REFUSED,
        "could not load configuration",
    ),
    (
        "an unknown Kubernetes role",
        lambda bed: bed.session(
            Kubernetes("r", bed.file("jwt", "a.b.c"), mount="errors-kube")
        ).login(),
        400,
        V.REFUSED,
        'invalid role name "r"',
    ),
    (
        "a login in an unknown namespace",
        lambda bed: bed.session(AppRole("x", Secret("y")), "nowhere").login(),
        404,
        V.REFUSED,
        "namespace not found",
    ),
]
READS: list[Row] = [
    ("a policy says no", lambda bed: bed.fetch("cubbyhole2/x"), 403, V.REFUSED, "1 error occurred"),
    ("a role that is none", lambda bed: bed.fetch("errors-db/creds/x"), 400, V.REFUSED, "unknown"),
    ("nothing there", lambda bed: bed.fetch("errors/data/none"), 404, V.SECRET_GONE, ""),
    ("no engine there", lambda bed: bed.fetch("no-engine/x"), 404, V.SECRET_GONE, "no handler"),
    (
        "no KV engine there",
        lambda bed: bed.ours.fetch(bed.token, NO_LOGIN, KvSecret("no-engine2/x")),
        403,
        V.REFUSED,
        "preflight capability check returned 403",
    ),
    (
        "an unknown namespace",
        lambda bed: bed.probe("nowhere").read(bed.token, "errors/data/x"),
        404,
        V.SECRET_GONE,
        "namespace not found",
    ),
    (
        "a dead token",
        lambda bed: bed.ours.fetch(Secret("hvs.dead"), NO_LOGIN, PathSecret("errors/data/x")),
        403,
        V.TOKEN_DEAD,
        "permission denied",
    ),
    (
        "two slashes, which Vault corrects by a redirect",
        lambda bed: bed.fetch("errors//data/x"),
        307,
        V.RETRY,
        "",  # a path may name anything, and there is no host in it
    ),
    (
        "a policy that forbids this path, and lookup-self too",
        lambda bed: bed.ours.fetch(bed.bare_token, NO_LOGIN, PathSecret("errors-db/creds/x")),
        403,
        V.REFUSED,
        "1 error occurred: * permission denied",
    ),
    (
        "a live token from elsewhere (token_bound_cidrs)",
        lambda bed: bed.ours.fetch(bed.bound_token(), NO_LOGIN, PathSecret("errors/data/x")),
        403,
        V.TOKEN_DEAD,
        "permission denied",
    ),
]
OTHERS: list[Row] = [
    (
        "renewing a lease that is none",
        lambda bed: bed.ours.renew(bed.token, "errors-db/creds/x/abc", 60),
        400,
        V.LEASE_GONE,
        "lease not found",
    ),
    (
        "renewing a dead token",
        lambda bed: bed.ours.renew_token(Secret("hvs.dead"), 60),
        403,
        V.TOKEN_DEAD,
        "permission denied",
    ),
    (
        "renewing a batch token",
        lambda bed: bed.ours.renew_token(batch_token(bed), 60),
        400,
        V.REFUSED,
        "batch tokens cannot be renewed",
    ),
    (
        "revoking a batch token",
        lambda bed: bed.ours.revoke_token(batch_token(bed)),
        400,
        V.REFUSED,
        "batch tokens cannot be revoked",
    ),
    (
        "revoking without the right to",
        lambda bed: bed.ours.revoke(bed.token, "errors-db/creds/x/abc"),
        403,
        V.REFUSED,
        "1 error occurred: * permission denied",
    ),
    (
        "looking up a dead token",
        lambda bed: bed.probe().token(Secret("hvs.dead")),
        403,
        V.TOKEN_DEAD,
        "permission denied",
    ),
    (
        "capabilities with a dead token",
        lambda bed: bed.probe().capabilities(Secret("hvs.dead"), ["errors/data/x"]),
        403,
        V.TOKEN_DEAD,
        "permission denied",
    ),
    (
        "a mount that is none",
        lambda bed: bed.probe().mount(bed.token, "nowhere/x"),
        403,
        V.REFUSED,
        "preflight capability check returned 403",
    ),
    (
        "an operation that the path has not",
        lambda bed: bed.probe().delete(Secret(bed.bao.root_token), "sys/capabilities-self"),
        405,
        V.REFUSED,
        "unsupported operation",
    ),
    (
        "more than Vault reads (32 MiB)",
        lambda bed: bed.probe().write(bed.token, "sys/policies/acl/errors", {"policy": BIG}),
        413,
        V.REFUSED,
        "request body too large",
    ),
]
BIG = "#" * (33 << 20)
NAMESPACES = "Vault has namespaces in its Enterprise edition only"
# What HashiCorp's Vault answers otherwise; a unit test has its words.
OPENBAOS = {
    "a login in an unknown namespace": NAMESPACES,
    "an unknown namespace": NAMESPACES,
    "more than Vault reads (32 MiB)": "Vault answers 500 and `exceeds allowed length`",
}


@pytest.mark.parametrize(
    ("call", "status", "verdict", "text"),
    [
        pytest.param(
            *row[1:],
            id=row[0],
            marks=[pytest.mark.openbao(OPENBAOS[row[0]])] if row[0] in OPENBAOS else [],
        )
        for row in LOGINS + READS + OTHERS
    ],
)
def test_what_openbao_answers_has_its_meaning(
    bed: Bed, call: Callable[[Bed], object], status: int, verdict: Verdict, text: str
) -> None:
    """Each row's status and text come from the server, its verdict from our table."""
    error = failure_of(lambda: call(bed))
    assert (error.status, error.failure.verdict) == (status, verdict)
    assert text in error.detail
    assert error.node is (NodeFate.OUT if status == 307 else NodeFate.FINE)


def test_revoking_a_lease_that_is_gone_is_no_error(bed: Bed) -> None:
    """Vault answers 204, so that a revocation may be asked for twice."""
    root = Secret(bed.bao.root_token)
    bed.ours.revoke(root, "errors-db/creds/x/abc")


def test_five_wrong_passwords_lock_the_user_out(bed: Bed) -> None:
    """From the sixth on it is 403, also for the right one, and asked once a minute."""
    for _ in range(5):
        wrong = failure_of(lambda: bed.userpass("wrong", "locked").login())
        assert (wrong.status, wrong.failure.verdict) == (400, Verdict.LOCKED)
    right = failure_of(lambda: bed.userpass("right", "locked").login())
    assert (right.status, right.failure.verdict) == (403, Verdict.REFUSED)
    assert right.failure.retry_after == 60.0
    assert "locked out" in right.failure.reason
    assert bed.userpass("right").login().lease_id  # others log in as ever


@pytest.fixture
def quota(bed: Bed) -> Iterator[None]:
    """One read of the KV engine in ten seconds."""
    client = bed.bao.client()
    client.write_data(
        "sys/quotas/rate-limit/errors", data={"rate": 1, "interval": "10s", "path": "errors/"}
    )
    yield
    client.delete("sys/quotas/rate-limit/errors")


@pytest.mark.usefixtures("quota")
def test_a_quota_asks_us_to_wait(bed: Bed) -> None:
    """429, without Retry-After in OpenBao 2.7; another node is not asked instead."""
    first = failure_of(lambda: bed.fetch("errors/data/none"))
    assert first.status == 404
    error = failure_of(lambda: bed.fetch("errors/data/none"))
    assert (error.status, error.failure.verdict, error.node) == (429, Verdict.RETRY, NodeFate.BUSY)
    assert "rate limit quota exceeded" in error.detail


@pytest.mark.openbao(NAMESPACES)
def test_a_locked_namespace_passes(bed: Bed) -> None:
    """503, as for a sealed server, but another node would say the same."""
    root = Secret(bed.bao.root_token)
    probe = bed.probe()
    probe.write(root, "sys/namespaces/errors-team", {})
    probe.write(root, "sys/namespaces/api-lock/lock/errors-team", {})
    error = failure_of(lambda: bed.probe("errors-team").read(root, "secret/data/x"))
    assert (error.status, error.failure.verdict, error.node) == (503, Verdict.RETRY, NodeFate.BUSY)
    assert error.failure.reason == "an administrator has locked the namespace"


def test_a_server_without_keys_is_as_good_as_sealed(tmp_path: Path) -> None:
    """Before it is initialized it answers 503, after it is stopped nothing at all."""
    server = OpenBao(tmp_path)
    process = server._prepare()
    process.start()
    try:
        process.wait_until(lambda: answers(server.address))
        session = Session(Vault(server.address), AppRole("x", Secret("y")), boottime)
        error = failure_of(session.login)
        assert (error.status, error.detail, error.node) == (503, "Vault is sealed", NodeFate.OUT)
        health = Probe(Vault(server.address), boottime).health()
        assert (health.initialized, health.sealed) == (False, True)
    finally:
        process.kill()
    stopped = failure_of(session.login)
    assert (stopped.status, stopped.detail) == (0, "Connection refused")
    assert stopped.failure.verdict is Verdict.RETRY


def answers(address: str) -> bool:
    """Whether somebody speaks HTTP there."""
    try:
        requests.get(f"{address}/v1/sys/health", timeout=PATIENCE)
    except requests.ConnectionError:
        return False
    return True
