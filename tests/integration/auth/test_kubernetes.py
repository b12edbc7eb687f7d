"""Kubernetes logins: a real OpenBao asks a fake API server about the service account's token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.certificates import Authority, server_context
from tests.contract.house import write
from tests.contract.kube_api import Account, KubeApi
from vaultauthz.config.auth.kubernetes import Kubernetes
from vaultauthz.core.grant import Verdict

from .auth_bao import AuthBao, failure_of

pytestmark = pytest.mark.integration

GATEWAY = Account("production", "gateway")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The cluster's CA."""
    return Authority(tmp_path_factory.mktemp("kube"), "cluster CA")


@pytest.fixture
def kube(vault: AuthBao, authority: Authority) -> Iterator[KubeApi]:
    """The API server that OpenBao is configured for, with a role for one account."""
    with KubeApi(server_context(authority.issue("127.0.0.1"))) as api:
        vault.enable_auth("kubernetes")
        configure(vault, api, authority, api.token(api.reviewer))
        bounds = {
            "bound_service_account_names": [GATEWAY.name],
            "bound_service_account_namespaces": [GATEWAY.namespace],
        }
        vault.write("auth/kubernetes/role/gateway", token_ttl="10m", **bounds)
        vault.write("auth/kubernetes/role/for-vault", audience="vault", **bounds)
        yield api


def configure(vault: AuthBao, api: KubeApi, authority: Authority, reviewer: str) -> None:
    """Tell OpenBao which cluster to ask, and with whose token."""
    vault.write(
        "auth/kubernetes/config",
        kubernetes_host=api.address,
        kubernetes_ca_cert=authority.ca.read_text(),
        token_reviewer_jwt=reviewer,
    )


def test_the_clusters_word_is_taken(vault: AuthBao, kube: KubeApi, tmp_path: Path) -> None:
    """The account's token logs in, is renewed, and a rotated one logs in again."""
    file = write(tmp_path / "token", kube.token(GATEWAY))
    session = vault.session(Kubernetes("gateway", file))
    grant = session.login()
    assert (grant.ttl, grant.renewable) == (600.0, True)
    assert session.renew_token(grant.payload, 600.0).ttl == 600.0
    write(file, kube.token(GATEWAY) + "\n")
    assert session.login().lease_id != grant.lease_id
    asked = [heard.body["spec"]["token"] for heard in kube.reviewed]
    assert asked[-1] == file.read_text().strip()


def test_a_token_for_vault_alone(vault: AuthBao, kube: KubeApi, tmp_path: Path) -> None:
    """A role with an audience takes a projected token for it, and no other."""
    file = write(tmp_path / "token", kube.token(GATEWAY, "vault"))
    session = vault.session(Kubernetes("for-vault", file))
    assert session.login().lease_id
    assert kube.reviewed[-1].body["spec"]["audiences"] == ["vault"]
    write(file, kube.token(GATEWAY))
    error = failure_of(session, file.read_text())
    assert (error.status, error.failure.verdict) == (403, Verdict.RETRY)
    assert "audience" in error.detail


def test_an_account_that_may_not_is_refused_and_tried_again(
    vault: AuthBao, kube: KubeApi, tmp_path: Path
) -> None:
    """Another account, one that is deleted, an ended token, none at all: 403 for each."""
    deleted = Account("production", "gateway")
    tokens = {
        "another name": kube.token(Account("production", "other")),
        "another namespace": kube.token(Account("staging", "gateway")),
        "deleted": kube.token(deleted),
        "ended": kube.token(GATEWAY, lives=-10),
        "none": "garbage",
    }
    kube.delete(deleted)
    for what, token in tokens.items():
        file = write(tmp_path / "token", token)
        error = failure_of(vault.session(Kubernetes("gateway", file)), token)
        assert (error.status, error.failure.verdict) == (403, Verdict.RETRY), what


def test_a_role_that_is_not_there_is_refused(vault: AuthBao, kube: KubeApi, tmp_path: Path) -> None:
    """400: that is not the cluster's lag but somebody's mistake."""
    file = write(tmp_path / "token", kube.token(GATEWAY))
    error = failure_of(vault.session(Kubernetes("no-such-role", file)), file.read_text())
    assert (error.status, error.failure.verdict) == (400, Verdict.REFUSED)


def test_a_cluster_that_cannot_answer_passes(
    vault: AuthBao, kube: KubeApi, authority: Authority, tmp_path: Path
) -> None:
    """OpenBao says 403 to all of it, so that a 403 must be tried again; then it works."""
    file = write(tmp_path / "token", kube.token(GATEWAY))
    session = vault.session(Kubernetes("gateway", file))

    def passes() -> None:
        error = failure_of(session, file.read_text())
        assert (error.status, error.failure.verdict) == (403, Verdict.RETRY)

    for broken in (500, 503, 429):
        kube.broken = broken
        passes()
    kube.broken = 0
    kube.stop()
    passes()
    kube.start()
    session.login()
    for reviewer in (kube.token(GATEWAY), kube.token(kube.reviewer, lives=-10)):
        configure(vault, kube, authority, reviewer)
        passes()
