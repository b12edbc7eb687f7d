"""Exchanges with Vault for many threads: each has a transport of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

from hvac.api.auth_methods import Token as TokenApi

from vaultauthz.config.values import Vault
from vaultauthz.core.events import Operation
from vaultauthz.core.grant import NodeState
from vaultauthz.core.secret import Secret
from vaultauthz.vault import errors
from vaultauthz.vault.errors import Call, Denial, NodeFate, VaultError
from vaultauthz.vault.nodes import Nodes
from vaultauthz.vault.transport import Told, Transport, nobody
from vaultauthz.vault.trust import Trust

# Every state answers 200, so that the state can be read instead of guessed from a status.
STATE_IN_THE_BODY: Final = {
    **dict.fromkeys(("standbyok", "perfstandbyok"), "true"),
    **dict.fromkeys(("sealedcode", "uninitcode", "standbycode"), "200"),
    **dict.fromkeys(("performancestandbycode", "drsecondarycode", "haunhealthycode"), "200"),
}
HEALTH: Final = "/v1/sys/health"


def check_answers(transport: Transport) -> None:
    """Ask whether Vault answers at all, which needs no token and changes nothing.

    Raises:
        VaultError: nothing did, or what stands before it has no answer of it.
    """
    transport.call, transport.credential = Call.OTHER, None
    transport.operation = Operation.HEALTH
    try:
        transport.get(HEALTH, params=STATE_IN_THE_BODY)
    except VaultError as exc:
        if exc.status == 0 or exc.node is not NodeFate.FINE:
            raise


class Calls:
    """Gives out transports; what one thread learns of the nodes, all of them use. ``told`` hears of each call."""

    def __init__(
        self, vault: Vault, clock: Callable[[], float], told: Told = nobody, stage: str = ""
    ) -> None:
        self._vault = vault
        self._clock = clock
        self._told = told
        self._nodes = Nodes(vault.addresses)
        self.trust = Trust(vault.tls, stage)
        self._local = threading.local()

    @property
    def nodes(self) -> tuple[NodeState, ...]:
        """What is known of each address; asks nobody."""
        return self._nodes.states(self._clock())

    def transport(
        self, call: Call, token: Secret | None = None, operation: Operation = Operation.OTHER
    ) -> Transport:
        """This thread's transport, reset to ``call`` and ``operation``; ``token`` goes along."""
        transport: Transport | None = getattr(self._local, "transport", None)
        if transport is None:
            transport = Transport(self._vault, self._clock, self._nodes, self.trust, self._told)
            self._local.transport = transport
        transport.call, transport.credential = call, token
        transport.operation = operation
        return transport

    @contextlib.contextmanager
    def carrying(
        self, token: Secret, call: Call, operation: Operation = Operation.OTHER
    ) -> Iterator[Transport]:
        """A transport that carries ``token``; a 403 is looked into.

        What a policy refuses is that call's own trouble: the text says so. Any other
        403 may be a dead token's, and is taken for one only when a second call agrees.
        """
        try:
            yield self.transport(call, token, operation)
        except VaultError as exc:
            if exc.status == 403 and exc.denied is not Denial.POLICY and self._dead(token):
                raise VaultError(
                    errors.TOKEN_DEAD, exc.status, exc.detail, denied=Denial.TOKEN
                ) from exc
            raise

    def _dead(self, token: Secret) -> bool:
        """Whether Vault refuses the token itself.

        A ``lookup-self`` that the policy does not allow has got as far as the policy, which
        a dead token does not; nor does a failure of another kind, or a proxy's 403, prove
        anything.
        """
        try:
            TokenApi(self.transport(Call.OTHER, token, Operation.TOKEN_LOOKUP)).lookup_self()
        except VaultError as exc:
            return exc.status == 403 and exc.denied is Denial.TOKEN
        return False
