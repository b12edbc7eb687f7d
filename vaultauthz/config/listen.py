"""``listen``: where the gateway and the operator reach us."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Final

from vaultauthz.config import addresses, durations, files
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.values import Listen, ServerTls

KEYS: Final = (
    *("admin", "admin_tls", "admin_token_file"),
    *("drain", "grpc", "grpc_tls", "transport"),
)
TLS_KEYS: Final = ("cert", "client_ca", "key")
GRPC_TLS_KEYS: Final = ("cert", "client_ca", "client_names", "key")
DRAIN: Final = partial(durations.between, least=0.0, most=600.0)
TRANSPORTS: Final = ("auto", "native", "grpcio")
_USUAL = Listen()
# A URI, or a DNS name and not an IPv4 address; as a JSON Schema takes it, too.
CLIENT_NAME: Final = (
    r"^(?:(?:[A-Za-z][A-Za-z0-9+.-]*://|urn:)[!-)+-~]+"
    r"|(?![0-9.]+$)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:[.][A-Za-z0-9_][A-Za-z0-9_-]{0,62})*)$"
)


def read_listen(value: Value) -> Listen:
    """Both listeners; what other machines can reach is protected."""
    table = value.table(KEYS)
    listen = Listen(
        grpc=_address(table, "grpc", ("grpc_tls",), _USUAL.grpc),
        grpc_tls=table.get("grpc_tls", _grpc_tls, None),
        admin=_address(table, "admin", ("admin_tls", "admin_token_file"), _USUAL.admin),
        admin_tls=table.get("admin_tls", _server_tls, None),
        admin_token_file=table.get("admin_token_file", files.private, None),
        transport=table.get("transport", lambda item: _transport(item, table), _USUAL.transport),
        drain=table.get("drain", DRAIN, _USUAL.drain),
    )
    if listen.admin == listen.grpc and not listen.admin.endswith(":0"):
        raise table.entries.get("admin", value).wrong("is the address of grpc; use another")
    _refuse_if_open_to_all(table, listen)
    _warn_if_open_here(table, listen)
    _warn_if_unnamed(table, listen)
    return listen


def _address(table: Table, name: str, needs: Sequence[str], usual: str) -> str:
    tls = f"{name}_tls"
    if tls in table and name not in table:
        table.missing(name, f"{tls} is for HOST:PORT")
    return table.get(name, lambda item: _protected(item, table, tls, needs), usual)


def _protected(value: Value, table: Table, tls: str, needs: Sequence[str]) -> str:
    address = addresses.listen(value)
    if address.startswith(addresses.UNIX):
        if tls in table:
            raise value.wrong(f"is a unix socket, which has no TLS; remove {tls}")
        files.socket(value, address.removeprefix(addresses.UNIX))
    lacking = [name for name in needs if name not in table]
    if lacking and not addresses.is_local(address):
        raise value.wrong(
            f"{address} can be reached from other machines; add {' and '.join(lacking)}, "
            "or listen on 127.0.0.1 or a unix socket"
        )
    return address


def _server_tls(value: Value, keys: Sequence[str] = TLS_KEYS) -> ServerTls:
    table = value.table(keys)
    nowhere = value.report.folder
    if "client_names" in table and "client_ca" not in table:
        table.missing("client_ca", "client_names are of the certificates that it signed")
    return ServerTls(
        cert=table.require("cert", files.readable, nowhere, "add the certificate's file"),
        key=table.require("key", files.private, nowhere, "add the private key's file"),
        # One that cannot be read is told of; it is not missing as well.
        client_ca=table.get("client_ca", files.readable, nowhere if "client_ca" in table else None),
        client_names=table.get("client_names", _client_names, ()),
    )


def _grpc_tls(value: Value) -> ServerTls:
    return _server_tls(value, GRPC_TLS_KEYS)


def _client_names(value: Value) -> tuple[str, ...]:
    if not value.items():
        raise value.wrong("is empty, and nobody could ask; name the gateways' certificates")
    return value.each(_client_name)


def _client_name(value: Value) -> str:
    """As it stands in a certificate: a DNS name, compared in lower case, or a URI."""
    name = value.text()
    if "*" in name:
        raise value.wrong("holds a *; names are compared whole, so write each of them out")
    if not re.match(CLIENT_NAME, name):
        raise value.wrong(
            f"{quoted(name)} is neither a DNS name nor a URI; write a subject alternative name of "
            "the gateway's certificate, as in gateway.internal or spiffe://corp/gateway"
        )
    return name if ":" in name else name.lower()


def _transport(value: Value, table: Table) -> str:
    transport = value.choice(TRANSPORTS)
    if transport == "native" and "grpc_tls" in table:
        raise value.wrong("native has no TLS; use auto, or remove grpc_tls")
    return transport


def _refuse_if_open_to_all(table: Table, listen: Listen) -> None:
    """TLS alone hides the credentials from listeners, and hands them to whoever asks."""
    tls = listen.grpc_tls
    if tls and tls.client_ca is None and not addresses.is_local(listen.grpc):
        raise table.entries["grpc_tls"].wrong(
            "whoever reaches this port would be given credentials; add client_ca, so that only "
            "a gateway with a certificate is answered, or listen on 127.0.0.1"
        )


def _warn_if_open_here(table: Table, listen: Listen) -> None:
    """A port on loopback has no owner and no mode: it is every local user's."""
    who = "every user of this machine (in a pod: every container)"
    tls = listen.grpc_tls
    if not listen.grpc.startswith(addresses.UNIX) and (tls is None or tls.client_ca is None):
        table.entries["grpc"].warn(
            f"{who} is given credentials here; use a unix socket, or grpc_tls with client_ca"
        )
    open_admin = listen.admin and listen.admin_token_file is None
    if open_admin and not listen.admin.startswith(addresses.UNIX):
        table.entries["admin"].warn(
            f"{who} can rotate and revoke here; use a unix socket, or add admin_token_file"
        )


def _warn_if_unnamed(table: Table, listen: Listen) -> None:
    """An authority signs for more than gateways, as a rule."""
    tls = listen.grpc_tls
    if tls and tls.client_ca and not tls.client_names:
        table.entries["grpc_tls"].warn(
            "whoever has a certificate that client_ca signed is given credentials, as any caller "
            "it cares to name; add client_names, the names in the gateways' own certificates"
        )
