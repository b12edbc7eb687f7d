"""What `doctor` and `policy` ask, against a real OpenBao."""

from __future__ import annotations

import time
from math import inf

import pytest

from vaultauthz.config.values import Vault
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import OpenBao, binaries
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.mounts import Mount
from vaultauthz.vault.probe import Probe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

POLICY = """
path "probe/data/*" { capabilities = ["read", "list"] }
path "probe/data/closed" { capabilities = ["deny"] }
path "auth/token/create" { capabilities = ["update", "sudo"] }
"""


@pytest.fixture(scope="module")
def probe(bao: OpenBao) -> Probe:
    """Of a server with a KV engine of each version."""
    bao.enable_engine("probe", "kv-v2")
    bao.enable_engine("probe-old", "kv-v1")
    return Probe(Vault(bao.address), boottime)


@pytest.fixture(scope="module")
def root(bao: OpenBao) -> Secret:
    """The root token."""
    return Secret(bao.root_token)


def made(probe: Probe, root: Secret, **fields: object) -> Secret:
    """A token with the policy `probe`."""
    probe.write(root, "sys/policies/acl/probe", {"policy": POLICY})
    answer = probe.write(root, "auth/token/create", {"policies": ["probe"], **fields})
    return Secret(answer["auth"]["client_token"])


def test_the_servers_health_needs_no_token_and_no_namespace(bao: OpenBao) -> None:
    """Vault answers for its health outside of namespaces only, so none is sent."""
    health = Probe(Vault(bao.address, namespace="team"), boottime).health()
    assert (health.initialized, health.sealed, health.standby) == (True, False, False)
    assert health.version.startswith("1." if binaries.vault().hashicorps else "2.")
    assert health.cluster_name
    assert health.address == bao.address
    assert health.server_time is not None
    assert abs(health.server_time - time.time()) < 60


def test_a_tokens_facts_are_as_it_was_made(probe: Probe, root: Secret) -> None:
    """Times in seconds; what there is none of is 0, but a token without an end is endless."""
    facts = probe.token(made(probe, root, ttl="10m", explicit_max_ttl="20m"))
    assert facts.policies == ("default", "probe")
    assert 0 < facts.ttl <= 600.0
    assert (facts.creation_ttl, facts.explicit_max_ttl, facts.period) == (600.0, 1200.0, 0.0)
    assert (facts.renewable, facts.type) == (True, "service")
    assert (facts.path, facts.entity_id) == ("auth/token/create", "")
    assert facts.accessor
    assert probe.token(root).ttl == inf


def test_periodic_and_batch_tokens_are_told_apart(probe: Probe, root: Secret) -> None:
    """A batch token has no accessor and cannot be renewed."""
    periodic = probe.token(made(probe, root, period="5m", no_parent=True))
    assert periodic.period == 300.0
    batch = probe.token(made(probe, root, type="batch", ttl="5m"))
    assert (batch.type, batch.renewable, batch.accessor) == ("batch", False, "")
    assert 0 < batch.ttl <= 300.0


def test_capabilities_of_many_paths_come_in_batches(probe: Probe, root: Secret) -> None:
    """Each path once, `deny` where there is no right; 250 paths are more than one call takes."""
    token = made(probe, root, ttl="10m")
    paths = [f"probe/data/{number}" for number in range(250)]
    found = probe.capabilities(token, [*paths, paths[0], "probe/data/closed", "auth/token/create"])
    assert list(found) == [*paths, "probe/data/closed", "auth/token/create"]
    assert set(found[paths[249]]) == {"read", "list"}
    assert found["probe/data/closed"] == ("deny",)
    assert set(found["auth/token/create"]) == {"sudo", "update"}
    assert probe.capabilities(token, []) == {}


def test_a_path_named_capabilities_is_a_path(probe: Probe, root: Secret) -> None:
    """Vault's answer has a key of that name besides."""
    token = made(probe, root, ttl="10m")
    assert probe.capabilities(token, ["capabilities"]) == {"capabilities": ("deny",)}


def test_a_mount_is_found_by_any_path_below_it(probe: Probe, root: Secret) -> None:
    """With the version of a KV engine."""
    token = made(probe, root, ttl="10m")
    assert probe.mount(token, "probe/data/a/b") == Mount("probe", "kv", 2)
    assert probe.mount(root, "probe-old/a").kv_version == 1
    assert probe.mount(token, "cubbyhole/x").kv_version is None


def test_reading_writing_and_deleting_are_vaults_own(probe: Probe, root: Secret) -> None:
    """A policy is written, read and deleted; what is not there is a VaultError."""
    assert probe.write(root, "sys/policies/acl/probe-brief", {"policy": POLICY}) == {}
    assert probe.read(root, "sys/policies/acl/probe-brief")["data"]["policy"] == POLICY
    assert probe.delete(root, "sys/policies/acl/probe-brief") == {}
    with pytest.raises(VaultError) as caught:
        probe.read(root, "sys/policies/acl/probe-brief")
    assert (caught.value.status, caught.value.failure.verdict) == (404, Verdict.SECRET_GONE)
