"""What one stage asks of Vault. Safe for threads; keeps no token itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from hvac.api.auth_methods import Token as TokenApi
from hvac.api.secrets_engines import KvV1, KvV2
from hvac.api.system_backend import Lease as LeaseApi

from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.values import KvSecret, PathSecret, SecretSource, Vault
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.credential import Login
from vaultauthz.core.events import Operation
from vaultauthz.core.grant import NOT_VAULT, Failure, Grant, NodeState, Renewal, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault import auth, ends, grants
from vaultauthz.vault.auth.lockable import Lockable
from vaultauthz.vault.auth.tries import SHARED, Tries
from vaultauthz.vault.calls import Calls
from vaultauthz.vault.ends import Now
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.mounts import MOUNT, Mount, Mounts
from vaultauthz.vault.transport import Told, Transport, nobody, url

_STATIC: Final = "/static-creds/"  # where the engines give what they rotate by themselves


class Session:
    """The calls of one stage, each bounded by ``vault.timeout``.

    ``clock`` gives the seconds that ``sent_at`` and token ends are counted in.
    Every method raises ``VaultError`` and nothing else.
    """

    def __init__(
        self,
        vault: Vault,
        method: AuthMethod,
        clock: Callable[[], float],
        memory: auth.Memory | None = None,
        tries: Tries = SHARED,
        *,
        told: Told = nobody,
        stage: str = "",
    ) -> None:
        """``vault`` is as the stage sees it; ``memory`` of the stage's session before this.

        ``tries`` bounds the logins that lock when they fail often, for all stages together. ``told``
        hears of each call, on the thread that makes it. ``stage`` names it in the log.
        """
        self._vault = vault
        self._method = method
        self._clock = clock
        self.memory: auth.Memory = {} if memory is None else memory
        # By whatever way it is reached first, it is the same Vault.
        place = "\n".join((*sorted(vault.addresses), vault.namespace))
        self._lockable = Lockable(place, tries)
        self._calls = Calls(vault, clock, told, stage)
        self._mounts = Mounts()

    @property
    def owns_token(self) -> bool:
        """Whether the token is ours to renew and revoke, or another program's."""
        return self._method.owns_token

    @property
    def client_certificate(self) -> EndingCertificate | None:
        """What our connections show Vault; None where they show nothing."""
        return self._calls.trust.client

    @property
    def watched(self) -> tuple[Path, ...]:
        """Files that a login reads: when one changes, a login is worth a try."""
        return tuple(file.path for file in self._method.files if file.watched)

    @property
    def nodes(self) -> tuple[NodeState, ...]:
        """What is known of each of Vault's addresses; asks nobody."""
        return self._calls.nodes

    @property
    def calls_per_second(self) -> float:
        """The pace of this stage's calls; infinity for no bound."""
        return self._vault.calls_per_second

    def login(self) -> Grant:
        """A new token. Its payload is the token as a ``Secret``."""
        transport = self._calls.transport(Call.LOGIN, operation=Operation.LOGIN)
        sent_at = self._clock()
        return grants.token(
            auth.login(transport, self._method, self.memory, self._lockable), sent_at
        )

    def renew_token(self, token: Secret, increment: float) -> Renewal:
        """Renew the token itself by ``increment`` seconds."""
        with self._calls.carrying(token, Call.RENEW, Operation.TOKEN_RENEW) as transport:
            return grants.renewal(TokenApi(transport).renew_self(increment=f"{int(increment)}s"))

    def revoke_token(self, token: Secret) -> None:
        """End the token; Vault ends every lease taken with it."""
        with self._calls.carrying(token, Call.REVOKE, Operation.TOKEN_REVOKE) as transport:
            TokenApi(transport).revoke_self()

    def fetch(self, token: Secret, login: Login, source: SecretSource) -> Grant:
        """Read a secret. The grant's payload is its fields."""
        operation = Operation.READ if isinstance(source, KvSecret) else Operation.ISSUE
        with self._calls.carrying(token, Call.READ, operation) as transport:
            if isinstance(source, KvSecret):
                return self._kv(transport, source)
            return self._path(transport, source, login)

    def _path(self, transport: Transport, source: PathSecret, login: Login) -> Grant:
        at, params = url(source.path), dict(source.params)
        if source.ttl is not None:
            params["ttl"] = f"{int(source.ttl)}s"
        answer = (
            transport.post(at, json=params) if source.write else transport.get(at, params=params)
        )
        now = _now(transport)
        grant = grants.path_secret(answer, login, now, static=_STATIC in source.path)
        if grant.lease_id or not ends.is_code(source.path, answer):
            return grant
        return ends.by_expire_time(grant, answer, now) or self._by_key(
            transport, source, grant, now
        )

    def _by_key(self, transport: Transport, source: PathSecret, grant: Grant, now: Now) -> Grant:
        """A TOTP code of a Vault that says nothing beside it."""
        key, transport.operation = ends.key_path(source.path), Operation.READ
        try:
            described = transport.get(url(key))
        except VaultError as exc:
            if exc.status in (403, 404) and exc.failure.verdict is not Verdict.TOKEN_DEAD:
                raise VaultError(ends.unknown(key), exc.status, exc.detail) from exc
            raise
        return ends.bounded(grant, described, now)

    def _kv(self, transport: Transport, source: KvSecret) -> Grant:
        mount = self._kv_mount(transport, source.path)
        path, version = mount.below(source.path), mount.kv_version
        try:
            if version == 2:
                answer = KvV2(transport).read_secret_version(
                    path,
                    version=source.version,
                    mount_point=mount.path,
                    raise_on_deleted_version=True,
                )
            else:
                answer = KvV1(transport).read_secret(path, mount_point=mount.path)
            return grants.kv(answer, source, version, _now(transport))
        except VaultError as exc:
            if exc.failure.verdict is not Verdict.RETRY or exc.status == 200:
                self._mounts.forget(mount)
            if version == 2 and path.startswith("data/") and exc.status in (403, 404):
                raise _data_twice(exc) from exc
            raise

    def _kv_mount(self, transport: Transport, path: str) -> Mount:
        """The KV engine of ``path``."""
        known = self._mounts.kv(path)
        if known:
            return known
        transport.operation = Operation.MOUNT_LOOKUP
        found = Mount.of_answer(transport.get(url(f"{MOUNT}/{path}")))
        transport.operation = Operation.READ
        if found.kv_version is None:
            raise VaultError(Failure(Verdict.REFUSED, "no KV engine is mounted at this path"))
        if not found.holds(path):
            raise VaultError(NOT_VAULT)
        self._mounts.add(found)
        return found

    def renew(self, token: Secret, lease_id: str, increment: float) -> Renewal:
        """Renew a lease by ``increment`` seconds."""
        with self._calls.carrying(token, Call.RENEW, Operation.LEASE_RENEW) as transport:
            return grants.renewal(LeaseApi(transport).renew_lease(lease_id, int(increment)))

    def revoke(self, token: Secret, lease_id: str) -> None:
        """End a lease now."""
        with self._calls.carrying(token, Call.REVOKE, Operation.LEASE_REVOKE) as transport:
            LeaseApi(transport).revoke_lease(lease_id)


def _data_twice(exc: VaultError) -> VaultError:
    """As the HTTP API has the path, where the command line's is wanted."""
    reason = f"{exc.failure.reason}; leave out data/ after the mount, which is put in by itself"
    failure = replace(exc.failure, reason=reason)
    return VaultError(failure, exc.status, exc.detail, exc.node, exc.denied)


def _now(transport: Transport) -> Now:
    """The time of the answer that the transport has just given."""
    return Now.of(time.time(), transport.date)
