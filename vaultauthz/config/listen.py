"""``listen``: where the gateway and the operator reach us."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Final

from vaultauthz.config import addresses, files
from vaultauthz.config.keys import Key, Reader, Section, needs
from vaultauthz.config.kinds import FLAG, PRIVATE, READABLE, TEXT, choice, duration, many
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.values import Listen, ServerTls

# A URI, or a DNS name and not an IPv4 address; as a JSON Schema takes it, too.
_CLIENT_NAME: Final = (
    r"^(?:(?:[A-Za-z][A-Za-z0-9+.-]*://|urn:)[!-)+-~]+"
    r"|(?![0-9.]+$)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:[.][A-Za-z0-9_][A-Za-z0-9_-]{0,62})*)$"
)


def _client_names(value: Value) -> tuple[str, ...]:
    if not value.items():
        raise value.wrong("is empty, and nobody could ask; name the gateways' certificates")
    return value.each(_client_name)


def _client_name(value: Value) -> str:
    """As it stands in a certificate: a DNS name, compared in lower case, or a URI."""
    name = value.text()
    if "*" in name:
        raise value.wrong("holds a *; names are compared whole, so write each of them out")
    if not re.match(_CLIENT_NAME, name):
        raise value.wrong(
            f"{quoted(name)} is neither a DNS name nor a URI; write a subject alternative name of "
            "the gateway's certificate, as in gateway.internal or spiffe://corp/gateway"
        )
    return name if ":" in name else name.lower()


_NAME: Final = Reader(_client_name, {**TEXT.schema, "pattern": _CLIENT_NAME})
_TLS_KEYS: Final = (
    Key(
        "cert", READABLE, "The server's certificate, in PEM.", missing="add the certificate's file"
    ),
    Key("key", PRIVATE, "Its private key, in PEM.", missing="add the private key's file"),
    Key(
        "client_ca",
        READABLE,
        "The authorities that sign clients' certificates, in PEM.",
        stand_in=READABLE.stand_in,  # one that cannot be read is told of; it is not missing as well
    ),
)
GRPC_TLS: Final = Section(
    ServerTls,
    "Needed beyond this machine, with client_ca.",
    *_TLS_KEYS,
    Key(
        "client_names",
        many(_NAME.about("A subject alternative name: DNS or URI."), _client_names, least=1),
        "Of the certificates that client_ca signed, who may ask.",
        otherwise="whoever has one",
    ),
    conditions=(
        needs("client_names", "client_ca", "client_names are of the certificates that it signed"),
    ),
)
ADMIN_TLS: Final = Section(ServerTls, "Needed beyond this machine.", *_TLS_KEYS)
_ADDRESS: Final = TEXT.by(addresses.listen)
_TRANSPORT: Final = choice("auto", "native", "grpcio")

LISTEN: Final = Section(
    Listen,
    "Where the gateway and the operator reach us.",
    Key(
        "grpc",
        _ADDRESS,
        "For the gateway: unix:///PATH or HOST:PORT.",
        "Off loopback it wants `grpc_tls` with `client_ca`, since whoever may ask is given "
        "credentials.",
    ),
    Key("grpc_tls", GRPC_TLS.reader()),
    Key(
        "admin",
        _ADDRESS,
        "For operators: unix:///PATH or HOST:PORT.",
        "A port wants `admin_token_file`, off loopback `admin_tls`, too. See below.",
        otherwise="none",
    ),
    Key("admin_tls", ADMIN_TLS.reader()),
    Key("admin_token_file", PRIVATE, "Holds what operators have to present."),
    Key(
        "admin_insecure",
        FLAG,
        "Let whoever reaches a port on loopback rotate and revoke.",
        "Every user of the machine does, in a pod every container.",
    ),
    Key(
        "transport",
        _TRANSPORT,
        "What serves gRPC.",
        "`native` is pygrpc-native, plaintext only; `auto` the better one that can serve the address.",
    ),
    Key(
        "drain",
        duration(0.0, 600.0),
        "How long to go on answering after SIGTERM, while health checks turn gateways away.",
        "So does `/readyz`; see [envoy.md](envoy.md#stopping-one). For Envoy, not Kong.",
    ),
    conditions=(
        needs("grpc_tls", "grpc", "grpc_tls is for HOST:PORT", before="grpc"),
        needs("admin_tls", "admin", "admin_tls is for HOST:PORT", before="admin"),
    ),
)


def read_listen(value: Value) -> Listen:
    """Both listeners; what other machines can reach is protected."""
    table = LISTEN.open(value)
    listen = LISTEN.build(
        table,
        grpc=partial(_protected, table=table, needs=("grpc_tls",)),
        admin=partial(_protected, table=table, needs=("admin_tls", "admin_token_file")),
        transport=partial(_transport, table=table),
    )
    if listen.admin == listen.grpc and not listen.admin.endswith(":0"):
        raise table.entries.get("admin", value).wrong("is the address of grpc; use another")
    _refuse_if_open_to_all(table, listen)
    _refuse_if_admin_is_open_here(table, listen)
    _warn_if_open_here(table, listen)
    _warn_if_unnamed(table, listen)
    return listen


def _protected(value: Value, *, table: Table, needs: Sequence[str]) -> str:
    """An address, with what ``needs`` to be there where others can reach it."""
    address = addresses.listen(value)
    tls = needs[0]
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


def _transport(value: Value, *, table: Table) -> str:
    transport = _TRANSPORT.read(value)
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


# A port on loopback has no owner and no mode: it is every local user's.
_HERE: Final = "every user of this machine (in a pod: every container)"


def _refuse_if_admin_is_open_here(table: Table, listen: Listen) -> None:
    """Neither a socket's mode, nor a token, nor a client certificate keeps anybody out."""
    tls = listen.admin_tls
    kept = listen.admin_token_file or (tls and tls.client_ca) or listen.admin_insecure
    if listen.admin and not listen.admin.startswith(addresses.UNIX) and not kept:
        raise table.entries["admin"].wrong(
            f"{_HERE} could rotate and revoke here; add admin_token_file, or use a unix socket "
            "(admin_insecure: true lets them)"
        )


def _warn_if_open_here(table: Table, listen: Listen) -> None:
    tls = listen.grpc_tls
    if not listen.grpc.startswith(addresses.UNIX) and (tls is None or tls.client_ca is None):
        table.entries["grpc"].warn(
            f"{_HERE} is given credentials here; use a unix socket, or grpc_tls with client_ca"
        )


def _warn_if_unnamed(table: Table, listen: Listen) -> None:
    """An authority signs for more than gateways, as a rule."""
    tls = listen.grpc_tls
    if tls and tls.client_ca and not tls.client_names:
        table.entries["grpc_tls"].warn(
            "whoever has a certificate that client_ca signed is given credentials, as any caller "
            "it cares to name; add client_names, the names in the gateways' own certificates"
        )
