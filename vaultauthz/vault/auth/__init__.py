"""Logging in: what an auth method wants to be asked is asked of Vault, once.

Which call that is, the method says (``vaultauthz.config.auth``). Here is what it is made from,
and what needs a cloud's own library: ``aws`` and ``gcp``, which are loaded when they are first
used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import cast

from vaultauthz.config.auth import (
    AuthMethod,
    LoginRequest,
    NoLoginError,
    ServiceReply,
    SignedFields,
    Surroundings,
)
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.core.events import Operation
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth import cloud, here, wrapping
from vaultauthz.vault.auth.lockable import Lockable
from vaultauthz.vault.errors import Call, Denial, VaultError
from vaultauthz.vault.transport import Answer, Transport, url

Memory = dict[str, Secret]  # what one login leaves for the next, in this process only


def login(
    transport: Transport, method: AuthMethod, memory: Memory, lockable: Lockable | None = None
) -> Answer:
    """Log in by ``method``: Vault's answer with its ``auth``.

    Raises:
        VaultError: the login did not work, or what it needs cannot be had.
    """
    try:
        request = method.login(_Surroundings(transport, memory))
        return method.granted(request, _sent(transport, method, request, lockable or Lockable("")))
    except NoLoginError as exc:
        raise VaultError(exc.failure, detail=exc.detail) from exc


def _sent(
    transport: Transport, method: AuthMethod, request: LoginRequest, lockable: Lockable
) -> Answer:
    transport.call, transport.credential = Call.LOGIN, request.token
    transport.operation = Operation.LOGIN
    lockout = request.lockout
    care = lockable.trying(transport, method.mount, lockout) if lockout else nullcontext()
    try:
        with care:
            answer = (
                transport.get(url(request.path))
                if request.body is None
                else transport.post(
                    url(request.path), json=dict(request.body), hidden=request.hidden
                )
            )
    except VaultError as exc:
        denied = exc.denied is Denial.POLICY
        failure = method.denial(by_policy=denied) if exc.status == 403 else None
        if failure:
            raise exc.meaning(failure) from exc
        raise
    return cast(Answer, answer)


class _Surroundings(Surroundings):
    """This machine, its cloud, and the Vault that ``transport`` leads to."""

    def __init__(self, transport: Transport, memory: Memory) -> None:
        self.environ = os.environ
        self._transport = transport
        self._memory = memory

    def text(self, path: Path, what: str) -> Secret:
        return here.read_secret(path, what)

    def printed(self, command: tuple[str, ...]) -> Secret:
        return here.printed(command)

    def unwrapped(self, mount: str, token: Secret) -> Secret:
        return wrapping.secret_id(self._transport, mount, token, self._memory)

    def asked(
        self, who: str, url: str, headers: Mapping[str, str], params: Mapping[str, str]
    ) -> ServiceReply:
        return cloud.exchange(who, url, headers=headers, params=params)

    def signed(self, method: AuthMethod) -> SignedFields:
        try:
            match method:
                case Aws():
                    from vaultauthz.vault.auth import aws  # noqa: PLC0415  needs botocore

                    return aws.signed(method)
                case Gcp():
                    from vaultauthz.vault.auth import gcp  # noqa: PLC0415  needs google-auth

                    return SignedFields({"jwt": gcp.signed(method)})
        except ModuleNotFoundError as exc:
            text = f"{exc.name} is missing: pip install '{method.library or exc.name}'"
            raise VaultError(Failure(Verdict.REFUSED, text)) from exc
        raise TypeError(f"{method.name} has no library")
