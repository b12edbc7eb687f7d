"""An OpenBao for the auth methods: besides its usual door it has one with TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.certificates import Authority
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.values import Config, Stage, Tls, Vault
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import OpenBao
from vaultauthz.demo.parts.process import Process, free_port
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.auth import Memory
from vaultauthz.vault.auth.tries import SHARED, Tries
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session

LISTENER = """
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file = "{cert}"
  tls_key_file = "{key}"
}}
"""


class AuthBao(OpenBao):
    """``tls_address`` is the second door, which asks each client for its certificate."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        tls = folder / "tls"
        tls.mkdir()
        self._authority = Authority(tls, "server CA")
        self._tls_port = free_port()
        self.tls_address = f"https://127.0.0.1:{self._tls_port}"

    def _prepare(self) -> Process:
        process = super()._prepare()
        pair = self._authority.issue("127.0.0.1", hours=200)  # doctor warns in its last week
        with (self._folder / "config.hcl").open("a") as file:
            file.write(
                LISTENER.format(
                    port=self._tls_port,
                    cluster_port=free_port(),
                    cert=pair.cert,
                    key=pair.key,
                )
            )
        return process

    def session(
        self, auth: AuthMethod, memory: Memory | None = None, tries: Tries = SHARED
    ) -> Session:
        """A stage's session that logs in by ``auth``: with TLS if that takes a certificate."""
        address = self.tls_address if isinstance(auth, Cert) else self.address
        vault = Vault(address, tls=Tls(self._authority.ca))
        config = Config(vault, {"production": Stage("production", auth)}, {})
        return Session(config.vault_of("production"), auth, boottime, memory, tries)

    def elsewhere(self, auth: AuthMethod) -> Session:
        """One on another machine, which knows nothing of what was tried before."""
        return self.session(auth, tries=Tries(lambda: None))

    def enable_auth(self, kind: str, mount: str = "") -> None:
        """Enable an auth method, by default at the mount of its name."""
        mount = mount or kind
        if f"{mount}/" not in self.client().sys.list_auth_methods()["data"]:
            self.client().sys.enable_auth_method(kind, path=mount)

    def write(self, path: str, **fields: Any) -> Any:
        """`bao write PATH …`: the answer's data."""
        answer = self.client().write_data(path, data=fields)
        return answer["data"] if isinstance(answer, dict) else None


def failure_of(session: Session, *secrets: str | Secret) -> VaultError:
    """The VaultError that the login must raise; it tells none of the secrets."""
    with pytest.raises(VaultError) as caught:
        session.login()
    error = caught.value
    told = f"{error!r} {error.failure!r} {error.detail}"
    for secret in secrets:
        assert (secret.reveal() if isinstance(secret, Secret) else secret) not in told
    return error
