"""Transport and Session against the fake: what each outcome means, and what may never happen."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import faults
from tests.contract.fake_vault import FakeVault
from tests.patience import PATIENCE
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.values import KvSecret, PathSecret, Vault
from vaultauthz.core.credential import NO_LOGIN
from vaultauthz.core.events import Operation
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.calls import Calls, check_answers
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.session import Session

CREDS = PathSecret("database/creds/pay")
KV = KvSecret("secret/geo")
ROLE = AppRole("gateway", Secret("s3cr3t-id"))
TOKEN_SHOWN = "hvs.T0KEN"


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role, a database and a key."""
    with FakeVault() as fake:
        fake.set_approle()
        fake.set_creds(CREDS.path)
        fake.put_kv(KV.path, {"key": "k-1"})
        yield fake


class Client:
    """A session that has logged in, with its token at hand; ``told`` are the calls and their statuses."""

    def __init__(self, values: Vault, auth: Any = ROLE) -> None:
        self.told: list[tuple[str, int]] = []
        self.session = Session(
            values,
            auth,
            boottime,
            told=lambda operation, status, _: self.told.append((operation.value, status)),
        )
        self.grant = self.session.login()
        self.token: Secret = self.grant.payload

    def fetch(self, source: PathSecret | KvSecret = CREDS) -> Grant:
        return self.session.fetch(self.token, self.grant.login, source)


@pytest.fixture
def client(vault: FakeVault) -> Client:
    """Logged in by AppRole, with two seconds for each call."""
    return Client(Vault(vault.address, timeout=PATIENCE))


def failure_of(call: Callable[[], object]) -> VaultError:
    """The VaultError that the call must raise."""
    with pytest.raises(VaultError) as caught:
        call()
    return caught.value


# --- what works ---


def test_each_call_of_a_session_does_what_it_says(vault: FakeVault, client: Client) -> None:
    """Log in, fetch, renew and revoke a lease, renew and revoke the token."""
    assert client.grant.ttl == 3600.0
    assert client.grant.renewable
    lease = client.fetch()
    assert sorted(lease.payload) == ["password", "username"]
    assert lease.login is client.grant.login
    assert vault.is_alive(lease.payload["username"].reveal())
    assert client.session.renew(client.token, lease.lease_id, 600).ttl == 600.0
    client.session.revoke(client.token, lease.lease_id)
    assert not vault.live_leases()
    assert client.session.renew_token(client.token, 60).ttl == 60.0
    client.session.revoke_token(client.token)
    assert not vault.live_tokens()


def test_kv_of_both_versions_is_read(vault: FakeVault, client: Client) -> None:
    """The engine's version is found out; only version 2 has editions."""
    vault.put_kv("kv1/old", {"key": "v1", "port": 8080})
    old = client.fetch(KvSecret("kv1/old", 10.0, 20.0))
    assert {name: value.reveal() for name, value in old.payload.items()} == {
        "key": "v1",
        "port": "8080",
    }
    assert (old.version.number, old.ttl, old.read_again) == (0, 20.0, 10.0)
    assert client.fetch(KV).version.number == 1
    assert vault.put_kv(KV.path, {"key": "k-2"}) == 2
    new = client.fetch(KV)
    assert (new.version.number, new.payload["key"].reveal()) == (2, "k-2")
    assert new.login is NO_LOGIN


def test_each_call_is_told_by_a_word(vault: FakeVault, client: Client) -> None:
    """Which stays the same: it is a label of the metrics. Also of calls that fail, and of the one that looks why."""
    lease, session, token = client.fetch(), client.session, client.token
    client.fetch(KV)
    session.renew(token, lease.lease_id, 600)
    session.revoke(token, lease.lease_id)
    session.renew_token(token, 60)
    vault.deny(CREDS.path)
    failure_of(client.fetch)
    session.revoke_token(token)
    failure_of(client.fetch)
    vault.stop()
    failure_of(session.login)
    assert client.told == [
        ("login", 200),
        ("issue", 200),
        ("mount_lookup", 200),
        ("read", 200),
        ("lease_renew", 200),
        ("lease_revoke", 204),
        ("token_renew", 200),
        ("issue", 403),
        ("token_revoke", 204),
        ("issue", 403),
        ("token_lookup", 403),
        ("login", 0),
    ]


def test_a_look_at_who_answers_is_told_as_that(vault: FakeVault) -> None:
    """It is asked before a login that Vault would lock."""
    told: list[str] = []
    calls = Calls(
        Vault(vault.address), boottime, lambda operation, *_: told.append(operation.value)
    )
    check_answers(calls.transport(Call.LOGIN, operation=Operation.LOGIN))
    assert told == ["health"]


def test_a_mount_is_looked_up_once_for_all_its_secrets(vault: FakeVault, client: Client) -> None:
    """Ten secrets of one KV engine cost ten reads and one look at the mount."""
    for number in range(10):
        vault.put_kv(f"secret/team/{number}", {"key": "x"})
        client.fetch(KvSecret(f"secret/team/{number}"))
    assert len(vault.calls("sys/internal/ui/mounts/")) == 1
    assert len(vault.calls("secret/data/team/")) == 10


def test_an_engine_that_was_upgraded_is_looked_up_again(vault: FakeVault, client: Client) -> None:
    """After a version 1 engine became version 2, the second read finds the secret."""
    vault.set_mount("kv3", 1)
    vault.put_kv("kv3/a", {"key": "x"})
    client.fetch(KvSecret("kv3/a"))
    vault.set_mount("kv3", 2)
    failure_of(lambda: client.fetch(KvSecret("kv3/a")))
    assert client.fetch(KvSecret("kv3/a")).version.number == 1


def test_a_secret_that_deletes_itself_later_is_not_yet_deleted(
    vault: FakeVault, client: Client
) -> None:
    """With delete_version_after, Vault gives a deletion_time while the version still lives."""
    vault.put_kv(KV.path, {"key": "brief"}, deletion_time="2099-01-01T00:00:00Z")
    assert client.fetch(KV).payload["key"].reveal() == "brief"


def test_a_path_with_odd_characters_arrives_as_it_is(vault: FakeVault, client: Client) -> None:
    """A query mark, a hash, a space or an umlaut in a path is part of the path."""
    path = "database/creds/a?b#c dü"
    vault.set_creds(path)
    assert client.fetch(PathSecret(path)).lease_id
    vault.put_kv("secret/a?b#c dü", {"key": "x"})
    assert client.fetch(KvSecret("secret/a?b#c dü")).payload["key"].reveal() == "x"


# --- what goes along ---


def test_every_call_carries_its_own_correlation_id(vault: FakeVault, client: Client) -> None:
    """X-Correlation-Id is there each time, each time another."""
    client.fetch()
    client.fetch(KV)
    ids = [heard.headers["x-correlation-id"] for heard in vault.heard]
    assert len(ids) == len(set(ids)) == 4


def test_the_namespace_goes_along(vault: FakeVault) -> None:
    """X-Vault-Namespace is sent when one is configured, and not at all when none is."""
    Client(Vault(vault.address, namespace="platform")).fetch()
    assert {heard.headers.get("x-vault-namespace") for heard in vault.heard} == {"platform"}
    vault.heard.clear()
    Client(Vault(vault.address)).fetch()
    assert {heard.headers.get("x-vault-namespace") for heard in vault.heard} == {None}


def test_a_login_carries_no_token(vault: FakeVault, client: Client) -> None:
    """A second login on the same thread doesn't send the first one's token."""
    client.fetch()
    client.session.login()
    assert [heard.token for heard in vault.calls("/login")] == ["", ""]
    assert vault.calls(CREDS.path)[0].token == client.token.reveal()


def test_nothing_of_the_environment_goes_along(
    vault: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ~/.netrc nor a proxy nor a foreign VAULT_TOKEN changes a call."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password from-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("VAULT_TOKEN", "foreign")
    Client(Vault(vault.address)).fetch()
    assert not any("authorization" in heard.headers for heard in vault.heard)
    assert [heard.token == "foreign" for heard in vault.heard] == [False, False]


def test_threads_do_not_mix_their_tokens(vault: FakeVault, client: Client) -> None:
    """Calls of many threads at once go out each with its own token, over its own transport."""
    tokens = [Secret(f"tok-{number}") for number in range(8)]
    for token in tokens:
        vault.add_token(token.reveal())
        vault.set_creds(f"creds/{token.reveal()}")
    transports = {id(client.session._calls.transport(Call.READ))}
    all_there = threading.Barrier(len(tokens))

    def use(token: Secret) -> None:
        for _ in range(20):
            client.session.fetch(token, NO_LOGIN, PathSecret(f"creds/{token.reveal()}"))
        transports.add(id(client.session._calls.transport(Call.READ)))
        all_there.wait(PATIENCE)  # else the next thread's transport may lie where this one's lay

    threads = [threading.Thread(target=use, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = vault.calls("creds/tok-")
    assert len(heard) == 160
    assert all(h.path == f"creds/{h.token}" for h in heard)
    assert len(transports) == 9


# --- the table ---

RENEW_WITHOUT_DATABASE = (
    "failed to renew entry: resp: (*logical.Response)(nil) err: failed to connect to "
    "`host=db user=vault`: dial error (dial tcp: connect: connection refused)"
)
MOUNTS: list[object] = [
    None,
    [],
    {},
    {"type": "pki", "path": "secret/"},
    {"type": "kv", "path": "other/"},
    {"type": "kv", "path": "secret/", "options": []},
    {"type": "kv", "path": "secret/", "options": "2"},
    {"type": "kv", "path": "secret/", "options": {}},
]
# By the clock of who answered: ours may be wrong.
AT_NINE = {"Date": "Fri, 31 Dec 1999 09:00:00 GMT"}
IN_A_MINUTE = "Fri, 31 Dec 1999 09:01:00 GMT"
AGES = 999_999.0
V = Verdict
TABLE = [
    (faults.status(429), Verdict.RETRY, 0.0),
    (faults.status(429, headers={"Retry-After": "7"}), Verdict.RETRY, 7.0),
    (faults.status(429, headers={"Retry-After": "-7"}), Verdict.RETRY, 0.0),
    (faults.status(429, headers={"Retry-After": "soon"}), V.RETRY, 0.0),
    (faults.status(429, headers=AT_NINE | {"Retry-After": IN_A_MINUTE}), V.RETRY, 60.0),
    (faults.status(429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), V.RETRY, 0.0),
    (faults.status(429, headers={"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}), V.RETRY, AGES),
    (faults.status(503, "Vault is sealed", headers={"Retry-After": "3"}), Verdict.RETRY, 3.0),
    (faults.status(500, "internal"), Verdict.RETRY, 0.0),
    (faults.status(502, body=b"<html>bad gateway</html>"), Verdict.RETRY, 0.0),
    (faults.status(412), Verdict.RETRY, 0.0),
    (faults.status(472), Verdict.RETRY, 0.0),
    (faults.status(473), Verdict.RETRY, 0.0),
    (faults.status(599), Verdict.RETRY, 0.0),
    (faults.status(400, "unknown role: pay"), Verdict.REFUSED, 0.0),
    (faults.status(404), Verdict.SECRET_GONE, 0.0),
    (faults.status(405, "unsupported operation"), Verdict.REFUSED, 0.0),
    (faults.status(418), Verdict.REFUSED, 0.0),
    (faults.status(301, headers={"Location": "/v1/other"}), Verdict.RETRY, 0.0),
    (faults.status(200, body=b"<html>sign in to the guest wifi</html>"), Verdict.RETRY, 0.0),
    (faults.status(200, body=b""), Verdict.RETRY, 0.0),
    (faults.status(200, body=b"[]"), Verdict.RETRY, 0.0),
    (faults.status(200, body=b"null"), Verdict.RETRY, 0.0),
    (faults.status(200, body=b'{"data": NaN}'), Verdict.RETRY, 0.0),
    (faults.status(200, body=b"[" * 100_000), Verdict.RETRY, 0.0),
    (faults.status(200, body=b'{"data": {"a": ' + b"9" * 5000 + b"}}"), Verdict.RETRY, 0.0),
    (faults.status(200, body=b"\xff\xfe\x00"), Verdict.RETRY, 0.0),
    (faults.status(204), Verdict.RETRY, 0.0),
    (faults.cut(), Verdict.RETRY, 0.0),
    (faults.cut(honest=True), Verdict.RETRY, 0.0),
    (faults.reset(), Verdict.RETRY, 0.0),
    (faults.garbage(), Verdict.RETRY, 0.0),
    (
        faults.garbage(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        Verdict.RETRY,
        0,
    ),
    (faults.garbage(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}"), Verdict.RETRY, 0.0),
    (faults.garbage(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000), Verdict.RETRY, 0.0),
    (faults.huge(), Verdict.REFUSED, 0.0),
]


@pytest.mark.parametrize(("fault", "verdict", "wait"), TABLE)
def test_a_read_that_fails_has_its_verdict(
    vault: FakeVault, client: Client, fault: faults.Fault, verdict: Verdict, wait: float
) -> None:
    """Each outcome of a read becomes the verdict of the table, and the next read works."""
    vault.fault(fault, CREDS.path)
    error = failure_of(client.fetch)
    assert (error.failure.verdict, error.failure.retry_after) == (verdict, wait)
    vault.heal()
    assert client.fetch().lease_id


def test_an_answer_that_ends_early_is_told_from_one_that_is_not_vaults(
    vault: FakeVault, client: Client
) -> None:
    """Half of Vault's JSON is a connection that broke; a whole page of HTML is a wrong address."""
    vault.fault(faults.cut(), CREDS.path)
    assert "broke off" in failure_of(client.fetch).failure.reason
    vault.fault(faults.status(200, body=b"<html>"), CREDS.path)
    assert "not Vault's" in failure_of(client.fetch).failure.reason


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("lease not found", Verdict.LEASE_GONE),
        ("lease expired", Verdict.LEASE_GONE),
        ("invalid lease", Verdict.LEASE_GONE),
        ("past the max TTL, cannot renew", Verdict.REFUSED),
        ("lease is not renewable", Verdict.REFUSED),
        (RENEW_WITHOUT_DATABASE, Verdict.RETRY),
        ("something else", Verdict.REFUSED),
    ],
)
def test_a_renewal_answered_400_is_read_closely(
    vault: FakeVault, client: Client, text: str, verdict: Verdict
) -> None:
    """Vault says 400 for a lease that is gone, one that cannot, and a database that is down."""
    lease = client.fetch()
    vault.fault(faults.status(400, text), "sys/leases/renew")
    error = failure_of(lambda: client.session.renew(client.token, lease.lease_id, 60))
    assert error.failure.verdict is verdict


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"lease_duration": "60"}',
        b'{"lease_duration": -1}',
        b'{"lease_duration": true}',
        b'{"lease_duration": NaN}',
        b'{"lease_duration": 1e400}',
        b'{"lease_duration": ' + b"9" * 400 + b"}",
        b'{"lease_duration": null, "renewable": true}',
    ],
)
def test_a_renewal_that_says_nothing_sure_ends_no_lease(
    vault: FakeVault, client: Client, content: bytes
) -> None:
    """A 200 without a proper lease_duration is no answer of Vault's; the lease may live on."""
    lease = client.fetch()
    vault.fault(faults.status(200, body=content), "sys/leases/renew")
    error = failure_of(lambda: client.session.renew(client.token, lease.lease_id, 60))
    assert error.failure.verdict is Verdict.RETRY


@pytest.mark.parametrize(
    "auth",
    [
        None,
        [],
        {},
        {"client_token": ""},
        {"client_token": 1},
        {"client_token": "a\r\nX-Evil: 1", "lease_duration": 60},
        {"client_token": "tökén", "lease_duration": 60},
        {"client_token": "hvs.x", "lease_duration": "60"},
        {"client_token": "hvs.x"},
    ],
)
def test_a_login_without_a_proper_token_is_none(vault: FakeVault, auth: object) -> None:
    """An answer to a login that has no usable token is refused and may be asked again."""
    vault.fault(faults.mangled(lambda content: {**content, "auth": auth}), "/login")
    error = failure_of(lambda: Client(Vault(vault.address)))
    assert error.failure.verdict is Verdict.RETRY


def test_a_wrong_secret_id_is_locked(vault: FakeVault) -> None:
    """AppRole's 400 is the verdict that nothing may retry by itself."""
    auth = AppRole("gateway", Secret("wrong"))
    error = failure_of(lambda: Client(Vault(vault.address), auth))
    assert error.failure.verdict is Verdict.LOCKED


def test_a_kubernetes_403_may_pass(vault: FakeVault, tmp_path: Path) -> None:
    """The API server may not know a new pod yet: the same 403 that is final elsewhere is not."""
    jwt = tmp_path / "jwt"
    jwt.write_text("e30.e30.x\n")
    auth = Kubernetes("gateway", jwt)
    error = failure_of(lambda: Client(Vault(vault.address), auth))
    assert (error.failure.verdict, error.status) == (Verdict.RETRY, 403)
    vault.set_approle("gateway", "e30.e30.x", mount="kubernetes")
    assert Client(Vault(vault.address), auth).fetch().lease_id


def test_a_403_is_looked_into(vault: FakeVault, client: Client) -> None:
    """No policy for the path is final for the path; a dead token is a verdict of its own."""
    vault.deny(CREDS.path)
    assert failure_of(client.fetch).failure.verdict is Verdict.REFUSED
    vault.allow(CREDS.path)
    vault.kill_token(client.grant.lease_id)
    assert failure_of(client.fetch).failure.verdict is Verdict.TOKEN_DEAD
    renew = failure_of(lambda: client.session.renew_token(client.token, 60))
    assert renew.failure.verdict is Verdict.TOKEN_DEAD


def test_a_lookup_that_fails_proves_no_death(vault: FakeVault, client: Client) -> None:
    """When lookup-self cannot be asked after a 403, the token is taken for alive."""
    vault.deny(CREDS.path)
    vault.fault(faults.status(500), "lookup-self")
    assert failure_of(client.fetch).failure.verdict is Verdict.REFUSED


def test_a_deleted_secret_is_gone(vault: FakeVault, client: Client) -> None:
    """A deleted KV version, a destroyed one and one that never was answer alike."""
    vault.put_kv("secret/destroyed", None, destroyed=True)
    vault.delete_kv(KV.path)
    for path in (KV.path, "secret/destroyed", "secret/never", "kv1/never"):
        error = failure_of(lambda path=path: client.fetch(KvSecret(path)))  # type: ignore[misc]
        assert error.failure.verdict is Verdict.SECRET_GONE


@pytest.mark.parametrize("data", MOUNTS)
def test_a_mount_that_is_not_as_documented_is_an_error_and_no_crash(
    vault: FakeVault, client: Client, data: object
) -> None:
    """Whatever the mount's lookup says, the outcome is a VaultError."""
    vault.fault(faults.mangled(lambda content: {**content, "data": data}), "internal/ui/mounts")
    failure_of(lambda: client.fetch(KV))


# --- bounds ---


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        (faults.hang(), CREDS.path),
        (faults.stall(), CREDS.path),
        (faults.drip(0.3), CREDS.path),
        (faults.drip(0.3, head=True), CREDS.path),
        (faults.hang(), "/login"),
    ],
)
def test_a_call_ends_in_time(vault: FakeVault, fault: faults.Fault, path: str) -> None:
    """A server that hangs, stalls or drips holds a call for the timeout, not longer."""
    vault.fault(fault, path)
    # The last three would never end, and the drips would take as long as pytest gives a test.
    error = failure_of(lambda: Client(Vault(vault.address, timeout=0.4)).fetch())
    assert error.failure.verdict is Verdict.RETRY
    assert error.failure.reason == "Vault did not answer in time"


def test_a_stopped_vault_is_unreachable_until_it_is_back(vault: FakeVault, client: Client) -> None:
    """Connections that died are not used again, and a refused one passes."""
    client.fetch()
    vault.stop()
    assert failure_of(client.fetch).failure.verdict is Verdict.RETRY
    vault.start()
    assert client.fetch().lease_id


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(vault: FakeVault, client: Client, code: int) -> None:
    """The other host hears nothing, least of all a token."""
    with FakeVault() as other:
        to = {"Location": f"{other.address}/v1/{CREDS.path}"}
        vault.fault(faults.status(code, headers=to))
        assert failure_of(client.fetch).failure.verdict is Verdict.RETRY
        assert failure_of(client.session.login).failure.verdict is Verdict.RETRY
        assert other.heard == []


# --- what is said ---


def test_vaults_text_stays_in_the_detail_and_tokens_nowhere(
    vault: FakeVault, client: Client
) -> None:
    """The reason is ours; the detail is Vault's text, cleaned, short, without the token."""
    said = f"bad\x1b[31m thing \r\n with {client.token.reveal()} " + "x" * 5000
    vault.fault(faults.status(500, said), CREDS.path)
    error = failure_of(client.fetch)
    assert error.failure.reason == str(error) == "Vault answered 500"
    assert "thing with <hidden>" in error.detail
    assert error.detail.isprintable()
    assert len(error.detail) <= 300
    assert TOKEN_SHOWN not in error.detail


@pytest.mark.parametrize(
    "fault",
    [faults.status(500, "x"), faults.reset(), faults.cut(), faults.status(403), faults.huge()],
)
def test_no_secret_is_logged(
    vault: FakeVault, caplog: pytest.LogCaptureFixture, fault: faults.Fault
) -> None:
    """Not by us or what is below us, at any level, whatever happens."""
    caplog.set_level(logging.DEBUG)
    client = Client(Vault(vault.address))
    lease = client.fetch()
    vault.fault(fault)
    failure_of(client.fetch)
    failure_of(client.session.login)
    shown = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    for secret in ("s3cr3t-id", TOKEN_SHOWN, lease.payload["password"].reveal()):
        assert secret not in shown


def test_each_call_is_a_line_at_the_level_debug(
    vault: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, path, status, duration and Vault's request id, each a field of its own too."""
    client = Client(Vault(vault.address))
    caplog.set_level(logging.DEBUG, "vaultauthz.vault.transport")
    lease = client.fetch()
    client.session.revoke(client.token, lease.lease_id)
    vault.fault(faults.status(500, "x"))
    failure_of(client.fetch)
    vault.fault(faults.reset())
    failure_of(client.fetch)
    fields = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    told = [(each["method"], each["path"], each["status"]) for each in fields]
    read, revoked = f"/v1/{CREDS.path}", "/v1/sys/leases/revoke"
    assert told == [
        ("GET", read, 200),
        ("PUT", revoked, 204),
        ("GET", read, 500),
        ("GET", read, None),
    ]
    assert fields[0]["vault_request_id"] == lease.request_id != ""
    assert all(each["seconds"] >= 0 for each in fields)
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        rf"Vault: GET {read}: 200 in [\d.]+ ms, request {lease.request_id}", lines[0]
    )
    assert re.fullmatch(rf"Vault: GET {read}: no answer in [\d.]+ ms: .+", lines[3])


def test_a_path_in_the_log_has_no_query_and_no_secret(
    vault: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    """What somebody has put into the path of a call that carries it is no exception."""
    client = Client(Vault(vault.address))
    caplog.set_level(logging.DEBUG, "vaultauthz.vault.transport")
    client.fetch(PathSecret(CREDS.path, params=(("format", "pem-bundle"),)))
    failure_of(lambda: client.fetch(PathSecret(f"cubbyhole/{client.token.reveal()}")))
    assert "pem-bundle" not in caplog.text
    assert client.token.reveal() not in caplog.text
    assert "GET <hidden>: " in caplog.text


# --- files of a login ---


@pytest.mark.parametrize(
    "content", [None, b"", b" \n", b"\xff\xfe", b"a b", b"a\nb", "tökén".encode()]
)
def test_a_token_file_that_holds_no_token_may_soon(
    vault: FakeVault, tmp_path: Path, content: bytes | None
) -> None:
    """Missing, empty or odd: an agent may be about to write it; nothing is sent."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    error = failure_of(lambda: Client(Vault(vault.address), TokenFile(path)))
    assert error.failure.verdict is Verdict.RETRY
    assert "file" in error.failure.reason
    assert vault.heard == []


def test_a_token_without_an_end_wants_leave(vault: FakeVault, tmp_path: Path) -> None:
    """A root token in the file is refused unless allow_long_lived says so."""
    path = tmp_path / "token"
    path.write_text("hvs.root\n")
    vault.add_token("hvs.root", ttl=0)
    error = failure_of(lambda: Client(Vault(vault.address), TokenFile(path)))
    assert error.failure.verdict is Verdict.REFUSED
    client = Client(Vault(vault.address), TokenFile(path, allow_long_lived=True))
    assert client.grant.ttl == float("inf")


def test_a_token_in_its_last_second_is_not_taken_for_endless(
    vault: FakeVault, tmp_path: Path
) -> None:
    """A TTL of 0 with an expire_time is a token that is about to end."""
    path = tmp_path / "token"
    path.write_text("hvs.short")
    vault.add_token("hvs.short", ttl=0.9)
    auth = TokenFile(path, allow_long_lived=True)
    assert failure_of(lambda: Client(Vault(vault.address), auth)).failure.verdict is Verdict.RETRY


@pytest.mark.parametrize("data", [None, [], {}, {"ttl": "1h"}, {"ttl": None}, {"ttl": -1}])
def test_a_lookup_that_is_not_as_documented_is_no_login(
    vault: FakeVault, tmp_path: Path, data: object
) -> None:
    """Whatever lookup-self says about the token in the file, the outcome is a VaultError."""
    path = tmp_path / "token"
    path.write_text("hvs.agent")
    vault.add_token("hvs.agent")
    vault.fault(faults.mangled(lambda content: {**content, "data": data}), "lookup-self")
    failure_of(lambda: Client(Vault(vault.address), TokenFile(path)))
