"""Exchanges with Vault for many threads: each has a transport of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from hvac.api.auth_methods import Token as TokenApi

from vaultauthz.config.values import Vault
from vaultauthz.core.secret import Secret
from vaultauthz.vault import errors
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.nodes import Nodes
from vaultauthz.vault.transport import Transport
from vaultauthz.vault.trust import Trust


class Calls:
    """Gives out transports; what one thread learns of the nodes, all of them use."""

    def __init__(self, vault: Vault, clock: Callable[[], float]) -> None:
        self._vault = vault
        self._clock = clock
        self._nodes = Nodes(vault.addresses)
        self._trust = Trust(vault.tls)
        self._local = threading.local()

    def transport(self, call: Call, token: Secret | None = None) -> Transport:
        """This thread's transport, reset to ``call``; ``token`` goes along."""
        transport: Transport | None = getattr(self._local, "transport", None)
        if transport is None:
            transport = Transport(self._vault, self._clock, self._nodes, self._trust)
            self._local.transport = transport
        transport.call, transport.credential = call, token
        return transport

    @contextlib.contextmanager
    def carrying(self, token: Secret, call: Call) -> Iterator[Transport]:
        """A transport that carries ``token``; a 403 is looked into.

        "permission denied" may mean that the policy says no or that the token is
        dead; only ``lookup-self`` tells the two apart.
        """
        try:
            yield self.transport(call, token)
        except VaultError as exc:
            if exc.status == 403 and not self._alive(token):
                raise VaultError(errors.TOKEN_DEAD, exc.status, exc.detail) from exc
            raise

    def _alive(self, token: Secret) -> bool:
        try:
            TokenApi(self.transport(Call.OTHER, token)).lookup_self()
        except VaultError as exc:
            # Any other failure proves nothing; the token is taken for alive.
            return exc.status != 403
        return True
