"""``auth`` of a stage: how it logs in to Vault, one reader for each method."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from vaultauthz.config import addresses, auth_clouds, files, names
from vaultauthz.config.document import Scalar
from vaultauthz.config.methods import (
    AppRole,
    Auth,
    Cert,
    Jwt,
    Kubernetes,
    Ldap,
    TokenFile,
    UserPass,
)
from vaultauthz.config.reader import Table, Value, one_of, quoted
from vaultauthz.config.values import Vault
from vaultauthz.core.secret import Secret

_PASSWORD: Final = ("method", "mount", "password_file", "username")
KEYS: Final = {
    "approle": (
        "method",
        "mount",
        "role_id",
        "role_id_file",
        "secret_id",
        "secret_id_file",
        "secret_id_wrapped",
    ),
    "kubernetes": ("method", "mount", "role", "token_file"),
    "jwt": ("method", "mount", "role", "token_command", "token_file"),
    "cert": ("client_cert", "client_key", "method", "mount", "role"),
    "userpass": _PASSWORD,
    "ldap": _PASSWORD,
    "aws": auth_clouds.AWS_KEYS,
    "gcp": auth_clouds.GCP_KEYS,
    "azure": auth_clouds.AZURE_KEYS,
    "token_file": ("allow_long_lived", "method", "path"),
}
_FOR_PEOPLE: Final = {"oidc": "oidc wants a person at a browser; use jwt"}
_NO_PASSWORD: Final = {"password": "does not belong in this file; use password_file"}


def read_auth(value: Value, vault: Vault) -> Auth:
    """The login of a stage; by certificate, it may use that of ``vault``."""
    methods = tuple(KEYS)
    given = value.entries().get("method")
    if given is None:
        raise value.wrong(f"says no method; add method: {one_of(methods)}")
    method = given.text()
    if method in _FOR_PEOPLE:
        raise given.wrong(_FOR_PEOPLE[method])
    if method not in KEYS:
        raise given.wrong(f"{quoted(method)} is unknown; use {one_of(methods)}")
    refused = _NO_PASSWORD if "password_file" in KEYS[method] else {}
    table = value.table(KEYS[method], refused=refused, secretive=True)
    return _read_cert(table, vault) if method == "cert" else _READERS[method](table)


def _read_approle(table: Table) -> AppRole:
    _refuse_both(table, "role_id", "role_id_file", "keep one")
    _refuse_both(table, "secret_id", "secret_id_file", "keep the file")
    if not {"role_id", "role_id_file"} & set(table.entries):
        table.missing("role_id", "add the role's id, or role_id_file: FILE")
    wrapped = table.get("secret_id_wrapped", partial(_only_with_file, table=table), default=False)
    # What wraps secret_ids delivers a new one at each start, perhaps after ours.
    secret_id_file = files.awaited_private if wrapped else files.private
    return AppRole(
        role_id=table.get("role_id", Value.text, ""),
        role_id_file=table.get("role_id_file", files.readable, None),
        secret_id=table.get("secret_id", _inline_secret, None),
        secret_id_file=table.get("secret_id_file", secret_id_file, None),
        secret_id_wrapped=wrapped,
        mount=table.get("mount", names.mount, "approle"),
    )


def _only_with_file(value: Value, table: Table) -> bool:
    if "secret_id_file" not in table:
        raise value.wrong("is about secret_id_file; add that, or remove this")
    return value.flag()


def _inline_secret(value: Value) -> Secret:
    secret = Secret(value.text())
    value.warn("a secret stands in the configuration; use secret_id_file")
    return secret


def _read_kubernetes(table: Table) -> Kubernetes:
    usual = Kubernetes("").token_file
    table.supply("token_file", str(usual), "by default")
    return Kubernetes(
        role=names.role(table),
        token_file=table.get("token_file", files.awaited, usual),
        mount=table.get("mount", names.mount, "kubernetes"),
    )


def _read_jwt(table: Table) -> Jwt:
    _refuse_both(table, "token_file", "token_command", "keep one")
    if not {"token_file", "token_command"} & set(table.entries):
        table.missing("token_file", "add token_file: FILE, or token_command: [PROGRAM, WORD]")
    return Jwt(
        role=names.role(table),
        token_file=table.get("token_file", files.awaited_private, None),
        token_command=table.get("token_command", _command, ()),
        mount=table.get("mount", names.mount, "jwt"),
    )


def _command(value: Value) -> tuple[str, ...]:
    if isinstance(value.node, Scalar):
        raise value.wrong("wants a list, as no shell reads it; write [PROGRAM, WORD, WORD]")
    items = value.items()
    if not items:
        raise value.wrong("is an empty list; name the program that prints the token")
    words = value.each(files.argument)
    if len(words) < len(items):
        return ()  # what is wrong with the others is noted already
    return (str(files.program(items[0])), *words[1:])


def _read_cert(table: Table, vault: Vault) -> Cert:
    bare = [address for address in vault.addresses if not address.startswith("https://")]
    for address in filter(None, bare):
        what = "a unix socket" if address.startswith(addresses.UNIX) else "http://"
        raise table.place.wrong(
            f"cert needs TLS, and {what} has none; "
            f"use https:// in place of {quoted(address)}, or another method"
        )
    own = "client_cert" in table or "client_key" in table
    if own:
        table.need_both("client_cert", "client_key")
    elif vault.tls.client_cert is None:
        raise table.place.wrong(
            "cert has no certificate; add client_cert and client_key here, or to vault.tls"
        )
    nowhere = table.place.report.folder
    return Cert(
        client_cert=table.get("client_cert", files.readable, vault.tls.client_cert or nowhere),
        client_key=table.get("client_key", files.private, vault.tls.client_key or nowhere),
        role=table.get("role", Value.text, ""),
        mount=table.get("mount", names.mount, "cert"),
    )


def _user_and_file(table: Table) -> tuple[str, Path]:
    username = table.require("username", _username, "", "add the user's name")
    nowhere = table.place.report.folder
    if "password_file" not in table and "password" not in table.place.entries():
        table.missing("password_file", "add the file that holds the password")
    return username, table.get("password_file", files.private, nowhere)


def _username(value: Value) -> str:
    name = value.text()
    if "/" in name or name in (".", ".."):
        raise value.wrong("has no place in a path of Vault; leave out /")
    return name


def _read_userpass(table: Table) -> UserPass:
    return UserPass(*_user_and_file(table), mount=table.get("mount", names.mount, "userpass"))


def _read_ldap(table: Table) -> Ldap:
    return Ldap(*_user_and_file(table), mount=table.get("mount", names.mount, "ldap"))


def _read_token_file(table: Table) -> TokenFile:
    nowhere = table.place.report.folder
    return TokenFile(
        path=table.require("path", files.awaited_private, nowhere, "add path: FILE"),
        allow_long_lived=table.get("allow_long_lived", Value.flag, default=False),
    )


def _refuse_both(table: Table, one: str, other: str, way_out: str) -> None:
    if one in table and other in table:
        raise table.place.wrong(f"has both {one} and {other}; {way_out}")


_READERS: Final[dict[str, Callable[[Table], Auth]]] = {
    "approle": _read_approle,
    "kubernetes": _read_kubernetes,
    "jwt": _read_jwt,
    "userpass": _read_userpass,
    "ldap": _read_ldap,
    "aws": auth_clouds.read_aws,
    "gcp": auth_clouds.read_gcp,
    "azure": auth_clouds.read_azure,
    "token_file": _read_token_file,
}
