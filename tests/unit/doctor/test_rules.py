"""Each rule by example: one thing wrong, one finding, with the words that mend it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.doctor import examples as ex
from tests.unit.doctor.examples import judged
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.config.values import KvSecret, PathSecret, Tls
from vaultauthz.core.grant import Verdict
from vaultauthz.doctor.evidence import (
    ExaminedStage,
    Handshake,
    PathRights,
    SecretFile,
    Trouble,
    VaultNode,
    VaultServer,
)
from vaultauthz.policy import Need
from vaultauthz.vault.mounts import Mount


class Case(NamedTuple):
    """Something wrong; the finding's severity, a part of what it says, and of what mends it."""

    given: ExaminedStage | VaultServer
    severity: str
    what: str
    mend: str


_DENIED = Trouble("permission denied by Vault", "1 error occurred: * permission denied", 403)
_AWAY = Trouble("Vault cannot be reached", "connection refused", 0, Verdict.RETRY, True)
_GONE = Trouble("nothing at this path in Vault", "", 404, Verdict.SECRET_GONE)
_SEALED = replace(ex.NODE, health=replace(ex.HEALTH, sealed=True))
_SEALED_VAULT = VaultNode(ex.ADDRESS, replace(ex.HEALTH, sealed=True, version="1.21.4"))
_NEW = replace(ex.NODE, health=replace(ex.HEALTH, sealed=True, initialized=False))
_OTHER = replace(ex.NODE, health=replace(ex.HEALTH, cluster_name="cluster-b"))
_GONE_NODE = VaultNode("https://b.test:8200", trouble=_AWAY)
_TLS = Trouble("the TLS handshake with Vault failed", "SSLError")


def _tls(problem: str, *, strict: bool = False) -> VaultServer:
    found = ex.server(VaultNode(ex.ADDRESS, trouble=_TLS, handshake=Handshake(problem=problem)))
    return replace(found, vault=replace(found.vault, tls=Tls(x509_strict=strict)))


def _file(mode: int | None, *, private: bool = True) -> ExaminedStage:
    return ex.stage(files=(SecretFile("secret_id_file", Path("/run/id"), mode, private),))


SERVERS = {
    "away": Case(ex.server(_GONE_NODE), "error", "connection refused", "bao status -address="),
    "away, and others have a proxy": Case(
        ex.server(replace(_GONE_NODE, proxy="HTTPS_PROXY")),
        "error",
        "connection refused",
        "$HTTPS_PROXY is set, and not used",
    ),
    "one of two away": Case(
        ex.server(_GONE_NODE, ex.NODE), "warning", "https://b.test:8200: ", "check the address"
    ),
    "standby that redirects": Case(
        ex.server(VaultNode(ex.ADDRESS, trouble=Trouble("redirects", "", 307))),
        "error",
        "redirects",
        "the active node's",
    ),
    "unknown authority": Case(
        _tls("unable to get local issuer certificate"), "error", "local issuer", "vault.tls.ca_cert"
    ),
    "another name": Case(
        _tls("Hostname mismatch, certificate is not valid for 'vault.test'."),
        "error",
        "Hostname mismatch",
        "vault.tls.server_name",
    ),
    "expired certificate": Case(_tls("certificate has expired"), "error", "expired", "renewed"),
    "against RFC 5280": Case(
        _tls("Missing Authority Key Identifier", strict=True),
        "error",
        "Missing Authority Key Identifier",
        "remove vault.tls.x509_strict",
    ),
    "a certificate that is refused for another reason": Case(
        _tls("CA certificate key too weak"), "error", "too weak", "the network is well"
    ),
    "no TLS there": Case(_tls("wrong version number"), "error", "wrong version", "tls_disable"),
    "client certificate wanted": Case(
        _tls("tlsv13 alert certificate required"), "error", "required", "vault.tls.client_cert"
    ),
    "TLS wanted": Case(
        ex.server(VaultNode("http://localhost:1", trouble=Trouble("no", "", 400))),
        "error",
        "no",
        "https://localhost:1",
    ),
    "no socket": Case(
        ex.server(VaultNode("unix:///run/a b", trouble=_AWAY)),
        "error",
        "refused",
        "ls -l '/run/a b'",
    ),
    "not initialized": Case(ex.server(_NEW), "error", "is not initialized", "bao operator init"),
    "sealed": Case(ex.server(_SEALED), "error", "is sealed", "bao operator unseal"),
    "sealed, HashiCorp's": Case(
        ex.server(_SEALED_VAULT), "error", "is sealed", "vault operator unseal"
    ),
    "one of two sealed": Case(ex.server(_SEALED, ex.NODE), "warning", "is sealed", "unseal"),
    "two clusters": Case(
        ex.server(ex.NODE, _OTHER), "error", "cluster-a, cluster-b", "one cluster"
    ),
    "clear text": Case(
        ex.server(ex.NODE, address="http://vault.test:8200"), "warning", "without TLS", "https://"
    ),
    "certificate ends": Case(
        ex.server(replace(ex.NODE, handshake=Handshake("TLSv1.3", 86_400.0))),
        "warning",
        "ends in 1d",
        "have it renewed",
    ),
    "its clock is ahead": Case(
        ex.server(replace(ex.NODE, ahead=90.0)), "warning", "1m30s ahead of ours", "timedatectl"
    ),
    "its clock is behind": Case(
        ex.server(replace(ex.NODE, ahead=-31.0)), "warning", "31s behind ours", "timedatectl"
    ),
}
LOGINS = {
    "crash": Case(ex.stage(crash="KeyError\nline 1"), "error", "KeyError", "line 1"),
    "gone": Case(
        ex.stage(gone=_AWAY, accesses=(), fetched=()),
        "error",
        "went away in the middle",
        "bao status",
    ),
    "no namespaces": Case(
        ex.stage(namespace="team", version="1.17.0"), "warning", "'team'", "upgrade"
    ),
    "no namespaces yet": Case(
        ex.stage(namespace="team", version="2.2.1"), "warning", "2.2.1", "upgrade"
    ),
    "same as another": Case(
        ex.stage(login=_DENIED, same_as="test"), "error", "not tried again", "mend it for test"
    ),
    "file is absent": Case(_file(None), "error", "/run/id is not there", "namei -l /run/id"),
    "all may read it": Case(_file(0o644), "warning", "has mode 0644", "chmod 600 /run/id"),
    "the group may write it": Case(_file(0o620), "warning", "has mode 0620", "chmod 600"),
    "used wrapping token": Case(
        ex.stage(wrapped=True, login=Trouble("refused", "not valid", 400)),
        "error",
        "wrapping token of the secret_id cannot be used",
        "-wrap-ttl",
    ),
    "audit header absent": Case(
        ex.stage(audit_header="absent"), "warning", "X-Correlation-Id", "hmac=false"
    ),
    "audit header hashed": Case(
        ex.stage(audit_header="hashed"), "warning", "hides (hmac)", "hmac=false"
    ),
}
TOKENS = {
    "not looked up": Case(
        ex.stage(token=None, lookup=_DENIED),
        "error",
        "may not look itself up",
        'path "auth/token/lookup-self"',
    ),
    "not taken": Case(
        ex.stage(
            token=None,
            lookup=Trouble("dead", status=403, verdict=Verdict.TOKEN_DEAD),
            accesses=(),
            places=(),
            fetched=(),
        ),
        "error",
        "does not take it from us",
        "bao read auth/approle/role/gw",
    ),
    "root": Case(ex.token(policies=("root",)), "error", "root policy", "policy --stage prod"),
    "only default": Case(
        ex.token(policies=("default",)),
        "error",
        "only the policy default",
        "bao write auth/approle/role/gw token_policies=vaultauthz-prod",
    ),
    "no policy": Case(ex.token(policies=()), "error", "no policy", "token_policies="),
    "few uses": Case(ex.stage(uses=10), "error", "(10 left)", "token_num_uses=0"),
    "endless": Case(ex.token(ttl=ex.ENDLESS), "warning", "never ends", "token_ttl=1h"),
    "batch": Case(
        ex.token(type="batch", renewable=False),
        "warning",
        "batch token of 1h",
        "token_type=service",
    ),
    "shorter than its leases": Case(
        ex.token(creation_ttl=600.0),
        "warning",
        "lives for 10m, the longest lease for 1h",
        "token_ttl=1h",
    ),
    "a file's token that is shorter": Case(
        replace(ex.token(creation_ttl=600.0), auth=ex.TOKEN_FILE),
        "warning",
        "for 10m",
        "whatever writes the token file",
    ),
    "hard end": Case(
        ex.token(explicit_max_ttl=1800.0),
        "warning",
        "after 30m, renewed or not",
        "token_explicit_max_ttl=24h",
    ),
    "longer than an hour": Case(
        ex.token(creation_ttl=28_800.0), "warning", "8h without a renewal", "token_ttl=1h"
    ),
    "left behind": Case(
        ex.stage(left=_DENIED), "warning", "doctor's own token", "-accessor accessor-1"
    ),
}
_NO_LEASES = ex.stage(places=(ex.GEO,), fetched=(), accesses=(ex.access(ex.GEO, "read"),))
POLICIES = {
    "short and not renewable": Case(
        replace(_NO_LEASES, token=replace(ex.TOKEN, renewable=False, creation_ttl=60.0)),
        "warning",
        "lives for 1m and cannot be renewed",
        "token_ttl=1h",
    ),
    "may not ask": Case(
        ex.stage(asked=_DENIED, accesses=()),
        "warning",
        "may not ask what it may do",
        'path "sys/capabilities-self"',
    ),
    "a line is missing": Case(
        ex.stage(accesses=(ex.access(ex.PAY, "read"), ex.access(ex.GEO, "deny"))),
        "error",
        "does not allow read on secret/data/geo",
        'path "secret/data/geo" {',
    ),
    "what may be left out": Case(
        ex.stage(accesses=(PathRights(Need("sys/x", ("update",), (), "asks", (), False), ()),)),
        "warning",
        "does not allow update on sys/x",
        'path "sys/x" {',
    ),
    "more than needed": Case(
        ex.stage(
            accesses=(ex.access(ex.PAY, "read", "update"), ex.access(ex.GEO, "read", "patch"))
        ),
        "warning",
        "secret/data/geo (patch)",
        "vaultauthz policy --stage prod",
    ),
    "sudo": Case(
        ex.stage(accesses=(ex.access(ex.PAY, "read", "sudo"),)), "warning", "(sudo)", "narrow"
    ),
}
ENGINES = {
    "nothing is mounted": Case(
        ex.with_source(PathSecret("x"), None, trouble=_DENIED),
        "error",
        "no engine is mounted at x",
        "bao secrets list",
    ),
    "no KV engine": Case(
        ex.with_source(KvSecret("database/x"), ex.DATABASE),
        "error",
        "of type database",
        "{path: database/x}",
    ),
    "data/ twice": Case(
        ex.with_source(KvSecret("secret/data/geo"), ex.KV2, "secret/data/data/geo"),
        "error",
        "secret/data/data/geo: data/ stands there twice",
        "{kv: secret/geo}",
    ),
    "KV by its path": Case(
        ex.with_source(PathSecret("secret/data/geo"), ex.KV2),
        "error",
        "KV engine, version 2",
        "{kv: secret/geo}",
    ),
    "a version of KV 1": Case(
        ex.with_source(KvSecret("old/geo", version=3), Mount("old", "kv", 1)),
        "warning",
        "keeps none",
        "bao kv enable-versioning old/",
    ),
}
FETCHES = {
    "nothing there": Case(
        ex.stage(fetched=(replace(ex.STATIC, trouble=_GONE),)),
        "error",
        "secret/geo was not given: nothing at this path",
        "bao kv put secret/geo key=…",
    ),
    "unknown role": Case(
        ex.fetched(trouble=Trouble("refused", "unknown role: pay", 400), lease_id=""),
        "error",
        "unknown role: pay",
        "bao list database/roles",
    ),
    "the database is away": Case(
        ex.fetched(trouble=Trouble("Vault answered 500", "failed to connect", 500), lease_id=""),
        "error",
        "failed to connect",
        "could not reach its service",
    ),
    "a field is missing": Case(
        ex.stage(fetched=(replace(ex.STATIC, wanted=("key", "id"), fields=("key", "note")),)),
        "error",
        "has no field id; it has: key, note",
        "bao kv patch secret/geo id=…",
    ),
    "a stray newline": Case(
        ex.fetched(unfit="the value for header x holds 0x0a", unfit_mend="use printf"),
        "error",
        "holds 0x0a",
        "printf",
    ),
    "ends soon without a lease": Case(
        ex.fetched(ends_in=12.0), "warning", "ends in 12s, by its own word", "a role's ttl"
    ),
    "a brief lease": Case(ex.fetched(ttl=59.0), "warning", "lives for 59s", "default_ttl"),
    "less than asked": Case(
        ex.stage(
            places=(replace(ex.PAY, source=PathSecret("database/creds/pay", ttl=3600.0)),),
            fetched=(replace(ex.LEASE, ttl=600.0),),
        ),
        "warning",
        "asks for 1h, Vault gives 10m",
        "max_ttl",
    ),
    "a lease is left": Case(
        ex.fetched(left=_DENIED), "warning", "could not be revoked", "bao lease revoke pay/1"
    ),
}
ALL = {**SERVERS, **LOGINS, **TOKENS, **POLICIES, **ENGINES, **FETCHES}


@pytest.mark.parametrize("name", ALL)
def test_one_thing_wrong_is_one_finding(name: str) -> None:
    """It says what, why and the way out, and nothing else is found."""
    case = ALL[name]
    (finding,) = judged(case.given)
    assert finding.severity == case.severity
    assert case.what in finding.what
    assert case.mend in " ".join([finding.mend, *finding.lines])
    assert finding.why
    assert finding.stages == ("prod",)


@pytest.mark.parametrize(
    "given",
    [
        ex.stage(),
        ex.server(ex.NODE, replace(ex.NODE, health=replace(ex.HEALTH, standby=True))),
        ex.server(ex.NODE, address="http://127.0.0.1:8200"),
        ex.server(replace(ex.NODE, ahead=-29.0)),
        ex.stage(namespace="team", version="2.3.0"),
        ex.stage(namespace="team", version="1.15.0+ent"),
        _file(0o600),
        _file(0o440),
        _file(0o644, private=False),
        ex.stage(tried=False, token=None, accesses=(), places=(), fetched=()),
        ex.stage(wrapped=True, token=None, accesses=(), places=(), fetched=()),
        ex.stage(audit_header="clear"),
        replace(
            ex.token(ttl=ex.ENDLESS, creation_ttl=0.0),
            auth=TokenFile(Path("/run/token"), allow_long_lived=True),
        ),
        ex.stage(fetched=(replace(ex.LEASE, ttl=86_400.0),)),
        replace(ex.token(creation_ttl=28_800.0), fetched=(replace(ex.LEASE, ttl=28_800.0),)),
        ex.token(explicit_max_ttl=86_400.0),
        ex.stage(fetched=(replace(ex.STATIC, ttl=1.0),)),
        ex.with_source(KvSecret("old/data/geo"), Mount("old", "kv", 1)),
    ],
)
def test_what_is_good_is_no_finding(given: ExaminedStage | VaultServer) -> None:
    """Standbys, loopback, small differences, a group that may read, leases longer than a day."""
    assert judged(given) == ()


def test_a_missing_right_is_told_once() -> None:
    """The engine that was not told and the fetch that failed are its consequences."""
    hidden = replace(ex.GEO, mount=None, trouble=_DENIED)
    failed = replace(ex.STATIC, trouble=_DENIED)
    (finding,) = judged(
        ex.stage(places=(hidden,), accesses=(ex.access(ex.GEO, "deny"),), fetched=(failed,))
    )
    assert "is secret/ the right mount?" in finding.why
    assert finding.upstreams == ("geo",)


def test_only_default_hides_the_lines_that_it_lacks() -> None:
    """One finding for a role without a policy, not one for each path."""
    lacking = (ex.access(ex.PAY, "deny"), ex.access(ex.GEO, "deny"))
    (finding,) = judged(replace(ex.token(policies=("default",)), accesses=lacking))
    assert "default" in finding.what


def test_the_root_capability_lacks_nothing() -> None:
    """Root may do everything: the policy itself is the finding, no path is."""
    everything = (ex.access(ex.PAY, "root"), ex.access(ex.GEO, "root"))
    (finding,) = judged(replace(ex.token(policies=("root",)), accesses=everything))
    assert finding.severity == "error"


def test_errors_come_first() -> None:
    """Whatever the order of the rules."""
    found = judged(ex.server(replace(ex.NODE, ahead=99.0)), ex.stage(uses=3, audit_header="absent"))
    assert [finding.severity for finding in found] == ["error", "warning", "warning"]


def test_commands_name_the_namespace_and_the_server_s_own_tool() -> None:
    """`vault` for HashiCorp's versions, `bao` for OpenBao's."""
    given = ex.stage(uses=3, namespace="team", version="1.15.0+ent")
    assert judged(given)[0].lines == (
        "vault write -namespace=team auth/approle/role/gw token_num_uses=0",
    )


@pytest.mark.parametrize(
    ("auth", "role"),
    [
        (Kubernetes("gw"), "auth/kubernetes/role/gw"),
        (UserPass("joe", Path("/p")), "auth/userpass/users/joe"),
    ],
)
def test_the_role_is_where_its_method_keeps_it(auth: Kubernetes | UserPass, role: str) -> None:
    """The command that mends a token's settings is for the method at hand."""
    assert judged(ex.stage(uses=3, auth=auth))[0].lines == (f"bao write {role} token_num_uses=0",)


def test_the_configuration_s_own_warnings_are_findings_unless_told_already() -> None:
    """A file that everybody can read is told once, by the rule that says more."""
    mine = "c.yaml:5: stages.prod.auth.secret_id_file: everybody can read it; chmod 600 /run/id"
    other = "c.yaml:5: stages.prod.auth.secret_id: a secret stands here; use secret_id_file"
    found = judged(_file(0o644), warnings=[mine, other])
    assert [finding.mend for finding in found] == ["leave it to its owner", "use secret_id_file"]


def test_what_is_wrong_in_several_stages_is_one_finding() -> None:
    """It names them all; what differs stays apart."""
    found = judged(ex.stage(uses=3), ex.stage(uses=3, name="test"), ex.stage(uses=4, name="live"))
    assert [finding.stages for finding in found] == [("prod", "test"), ("live",)]
