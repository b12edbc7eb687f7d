"""``vault``: the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from vaultauthz.config import addresses, environment, files, names
from vaultauthz.config.document import Items
from vaultauthz.config.keys import Key, Reader, Section, both
from vaultauthz.config.kinds import FLAG, PRIVATE, READABLE, TEXT, duration, text
from vaultauthz.config.reader import Value, quoted
from vaultauthz.config.values import Tls, Vault

_MOST_ADDRESSES: Final = 8
# Stands in for a refused one, so that a stage's login by certificate does not miss it again.
HIDDEN: Final = Tls(client_cert=Path("?"), client_key=Path("?"))
_RATE: Final = r"[0-9]{1,4}(\.[0-9]{1,3})?"


def _rate(value: Value) -> float:
    text = value.text()
    if not re.fullmatch(_RATE, text) or not 0.1 <= float(text) <= 1000:
        raise value.wrong(f"wants a number from 0.1 to 1000, found {quoted(text)}")
    return float(text)


def _one_or_more(value: Value, *, insecure: bool) -> tuple[str, ...]:
    if not isinstance(value.node, Items):
        return (_one(value, insecure=insecure),)
    count = len(value.items())
    if not 1 <= count <= _MOST_ADDRESSES:
        text = f"lists {count} addresses; name 1 to {_MOST_ADDRESSES} nodes of one cluster"
        raise value.wrong(text)
    found = value.each(lambda item: (item, _one(item, insecure=insecure)))
    first: dict[str, Value] = {}
    for item, address in found:
        same = address if address.startswith(addresses.UNIX) else address.lower()
        if same in first:
            text = f"is the address of {first[same].key}, too; remove one of them"
            value.report.refused(item.wrong(text))
        first.setdefault(same, item)
    return tuple(address for _, address in found)


def _one(value: Value, *, insecure: bool) -> str:
    address = addresses.vault(value, insecure=insecure)
    if address.startswith(addresses.UNIX):  # logins would go to whoever listens there
        files.socket(value, address.removeprefix(addresses.UNIX))
    return address


_ADDRESS: Final = {
    "description": "https://HOST:PORT, or unix:///PATH of an agent or proxy on this host.",
    "type": "string",
    "pattern": r"^\s*[A-Za-z]+://",
}
_ADDRESSES: Final = {
    "description": "Nodes of one cluster; the next is asked when one is away.",
    "type": "array",
    "items": _ADDRESS,
    "minItems": 1,
    "maxItems": _MOST_ADDRESSES,
    "uniqueItems": True,
}
_CALLS: Final = {
    "type": ["number", "string"],
    "minimum": 0.1,
    "maximum": 1000,
    "pattern": f"^{_RATE}$",
}

TLS: Final = Section(
    Tls,
    "TLS towards Vault.",
    Key("ca_cert", READABLE, "The authorities that sign Vault's certificate, in PEM."),
    Key("client_cert", READABLE, "Our certificate, in PEM."),
    Key("client_key", PRIVATE, "Its private key, in PEM."),
    Key("server_name", TEXT, "The name in Vault's certificate, where it is not the host's."),
    Key(
        "x509_strict",
        FLAG,
        "Refuse certificates that lack what RFC 5280 demands, as Python does from 3.13 on.",
    ),
    conditions=(both("client_cert", "client_key"),),
)

VAULT: Final = Section(
    Vault,
    "The server.",
    Key(
        "address",
        Reader(
            partial(_one_or_more, insecure=False), {"anyOf": [_ADDRESS, _ADDRESSES]}, stand_in=()
        ),
        "Where Vault is.",
        "`https://HOST:PORT`, or `unix:///PATH` for a Vault Agent or Proxy on the host. `http://` "
        "only for loopback. Or a list of up to 8: nodes of one cluster in the order in which they "
        "are asked, the next when one is away.",
        otherwise="$VAULT_ADDR",
        missing="add https://HOST:PORT, or set $VAULT_ADDR",
        aside=True,
    ),
    Key(
        "insecure",
        FLAG,
        "Allow http:// beyond this machine: logins and secrets travel in clear text.",
        default=False,
        aside=True,
    ),
    Key(
        "namespace",
        text(names.namespace),
        "Of Vault Enterprise, HCP or OpenBao, as in platform/team.",
        "`root` for the one without a name. A stage may have its own.",
        otherwise="$VAULT_NAMESPACE",
    ),
    Key("tls", TLS.reader(), TLS.text, otherwise="the system's authorities", stand_in=HIDDEN),
    Key("timeout", duration(0.1, 60.0), "Of one call to Vault."),
    Key(
        "calls_per_second",
        Reader(_rate, _CALLS),
        "Of each stage at most.",
        "0.1 to 1000. For a fleet see below.",
        otherwise="no bound",
    ),
)


def read_vault(value: Value, environ: Mapping[str, str]) -> Vault:
    """The server; what the file does not say comes from ``$VAULT_ADDR`` and its like."""
    table = VAULT.open(value)
    environment.tell_unread(value, environ)
    environment.supply(table, environment.PLACE, environ)
    environment.supply(table, environment.ADDRESS, environ)
    read = partial(_one_or_more, insecure=VAULT.get(table, "insecure"))
    address, *fallbacks = VAULT.get(table, "address", read) or ("",)
    table.begin("tls")
    return VAULT.build(
        table,
        {"address": address, "fallbacks": tuple(fallbacks)},
        tls=partial(_read_tls, environ=environ),
    )


def _read_tls(value: Value, environ: Mapping[str, str]) -> Tls:
    table = TLS.open(value)
    environment.supply(table, environment.TLS, environ)
    environment.supply_pair(table, environ)
    pair = {"client_cert", "client_key"} & set(table.entries)
    hidden = {"client_cert": HIDDEN.client_cert, "client_key": HIDDEN.client_key}
    return TLS.build(table, hidden if pair else {})
