"""Configurations made of values, for what only looks at stages and secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.values import Config, SecretSource, Stage, Upstream, Vault
from vaultauthz.core.callers import Callers

APPROLE = AppRole("role-id")
TOKEN_FILE = TokenFile(Path("/token"))


def upstream(name: str, secrets: Mapping[str, SecretSource]) -> Upstream:
    """An upstream of the stages that it has a secret in."""
    return Upstream(name, tuple(secrets), secrets, (), Callers(None))


def config(
    upstreams: Mapping[str, Mapping[str, SecretSource]],
    auths: Mapping[str, AuthMethod] | None = None,
    namespace: str = "",
) -> Config:
    """``upstreams``: their secrets by stage; ``auths``: the stages, by default one, prod."""
    return Config(
        Vault("http://127.0.0.1:1", namespace),
        {name: Stage(name, auth) for name, auth in (auths or {"prod": APPROLE}).items()},
        {name: upstream(name, secrets) for name, secrets in upstreams.items()},
    )


def one_stage(upstreams: Mapping[str, SecretSource], auth: AuthMethod = APPROLE) -> Config:
    """A configuration of the stage prod alone."""
    return config({name: {"prod": source} for name, source in upstreams.items()}, {"prod": auth})
