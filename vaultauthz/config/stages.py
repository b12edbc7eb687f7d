"""``stages``: each environment and its login to Vault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vaultauthz.config import files, later, names
from vaultauthz.config.methods import AppRole, Auth, Kubernetes, TokenFile
from vaultauthz.config.reader import Value, one_of, quoted
from vaultauthz.config.values import Stage
from vaultauthz.core.secret import Secret

KEYS: Final = ("auth",)
AUTH_KEYS: Final = {
    "approle": ("method", "mount", "role_id", "secret_id", "secret_id_file"),
    "kubernetes": ("method", "mount", "role", "token_file"),
    "token_file": ("allow_long_lived", "method", "path"),
}


def read_stages(value: Value) -> dict[str, Stage]:
    """Every stage by its name."""
    stages = value.each_entry(_read_stage)
    if not value.entries():
        raise value.wrong("has no stage; add one, with its auth")
    return stages


def _read_stage(name: str, value: Value) -> Stage:
    names.check_name(value, name, "a stage")
    table = value.table(KEYS)
    return Stage(name, table.require("auth", _read_auth, TokenFile(value.report.folder)))


def _read_auth(value: Value) -> Auth:
    methods = tuple(AUTH_KEYS)
    given = value.entries().get("method")
    if given is None:
        raise value.wrong(f"says no method; add method: {one_of(methods)}")
    method = given.text()
    if method in later.AUTH_METHODS:
        raise given.wrong(f"{method} {later.TEXT}; use {one_of(methods)}")
    if method not in AUTH_KEYS:
        raise given.wrong(f"{quoted(method)} is unknown; use {one_of(methods)}")
    return _READERS[method](value)


def _read_approle(value: Value) -> AppRole:
    table = value.table(AUTH_KEYS["approle"], later.AUTH, secretive=True)
    if "secret_id" in table and "secret_id_file" in table:
        raise value.wrong("has both secret_id and secret_id_file; keep the file")
    return AppRole(
        role_id=table.require("role_id", Value.text, "", "add the role's id"),
        secret_id=table.get("secret_id", _inline_secret, None),
        secret_id_file=table.get("secret_id_file", files.private, None),
        mount=table.get("mount", names.vault_path, "approle"),
    )


def _inline_secret(value: Value) -> Secret:
    secret = Secret(value.text())
    value.warn("a secret stands in the configuration; use secret_id_file")
    return secret


def _read_kubernetes(value: Value) -> Kubernetes:
    table = value.table(AUTH_KEYS["kubernetes"], secretive=True)
    usual = Kubernetes("").token_file
    table.supply("token_file", str(usual), "by default")
    return Kubernetes(
        role=table.require("role", Value.text, "", "add the name of the role in Vault"),
        token_file=table.get("token_file", files.awaited, usual),
        mount=table.get("mount", names.vault_path, "kubernetes"),
    )


def _read_token_file(value: Value) -> TokenFile:
    table = value.table(AUTH_KEYS["token_file"], secretive=True)
    return TokenFile(
        path=table.require("path", files.awaited_private, value.report.folder, "add path: FILE"),
        allow_long_lived=table.get("allow_long_lived", Value.flag, default=False),
    )


_READERS: Final[dict[str, Callable[[Value], Auth]]] = {
    "approle": _read_approle,
    "kubernetes": _read_kubernetes,
    "token_file": _read_token_file,
}
