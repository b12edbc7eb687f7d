"""Several addresses of a real cluster: standbys, a sealed node, and a leader that dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.integration.vault_cluster import Follower, join
from tests.patience import PATIENCE
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.values import Vault
from vaultauthz.core.grant import Grant
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import OpenBao, wait_for
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.calls import Calls
from vaultauthz.vault.errors import Call, NodeFate, VaultError
from vaultauthz.vault.probe import Probe
from vaultauthz.vault.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

POLICY = 'path "x" { capabilities = ["read"] }'


@dataclass
class Cluster:
    """``leader`` leads at first; any node can be asked."""

    leader: OpenBao
    one: Follower
    two: Follower
    role: AppRole

    def session(self, *addresses: str) -> Session:
        return Session(self.vault(*addresses), self.role, boottime)

    def vault(self, *addresses: str) -> Vault:
        return Vault(addresses[0], timeout=5.0, fallbacks=addresses[1:])

    def logins(self) -> int:
        """How many logins the cluster has counted."""
        found = self.leader.client().list("auth/token/accessors")["data"]["keys"]
        return len(found)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; the last test of this file ends the leader."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "a").mkdir()
    with OpenBao(folder / "a") as leader:
        nodes = list[Follower]()
        # Before they join: a standby answers by itself, and knows a new role 20 ms later.
        role_id, secret_id = leader.enable_approle("nodes", POLICY)
        try:
            nodes = join(leader, folder, "bc")
            one, two = nodes
            yield Cluster(leader, one, two, AppRole(role_id, Secret(secret_id)))
        finally:
            for node in nodes:
                node.stop()


def test_a_standby_serves_a_login_and_its_renewal(cluster: Cluster) -> None:
    """It hands them to the leader, whose answer it gives: one address is enough."""
    session = cluster.session(cluster.one.address)
    grant = session.login()
    assert session.renew_token(grant.payload, 600).ttl > 0
    health = Probe(cluster.vault(cluster.one.address), boottime).health()
    assert (health.standby, health.sealed) == (True, False)


def test_a_standby_that_may_not_hand_on_redirects(cluster: Cluster) -> None:
    """307 to the leader: not followed, but the next address is asked in the same call."""

    def create(*addresses: str) -> object:
        calls = Calls(cluster.vault(*addresses), boottime)
        with calls.carrying(Secret(cluster.leader.root_token), Call.OTHER) as transport:
            header = {"X-Vault-No-Request-Forwarding": "true"}
            return transport.post("/v1/auth/token/create", json={"ttl": "1m"}, headers=header)

    with pytest.raises(VaultError) as caught:
        create(cluster.one.address)
    assert (caught.value.status, caught.value.node) == (307, NodeFate.OUT)
    assert caught.value.detail.startswith(cluster.leader.address)
    assert create(cluster.one.address, cluster.leader.address)


def test_a_sealed_node_is_passed_over(cluster: Cluster) -> None:
    """503 there, the same login at the next node, once; alone it has to be waited for."""
    cluster.one.seal()
    before = cluster.logins()
    cluster.session(cluster.one.address, cluster.leader.address).login()
    assert cluster.logins() == before + 1
    with pytest.raises(VaultError) as caught:
        cluster.session(cluster.one.address).login()
    assert caught.value.detail == "Vault is sealed"
    assert wait_for(cluster.one.unsealed, PATIENCE)


def test_a_stopped_leader_costs_the_seconds_of_an_election(cluster: Cluster) -> None:
    """A token from before is renewed by the node that leads after; none is minted for it."""
    addresses = cluster.leader.address, cluster.one.address, cluster.two.address
    session = cluster.session(*addresses)
    grant = session.login()
    cluster.leader.kill()
    assert wait_for(lambda: works(lambda: session.renew_token(grant.payload, 600)), PATIENCE)
    again = session.login()
    assert isinstance(again, Grant)
    assert again.lease_id != grant.lease_id


def works(call: Callable[[], object]) -> bool:
    """Whether it raises nothing; a failure that does not pass by itself is raised."""
    try:
        call()
    except VaultError as exc:
        if not exc.failure.away:
            raise
        return False
    return True
