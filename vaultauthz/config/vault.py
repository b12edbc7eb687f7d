"""``vault``: the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.config import addresses, durations, environment, files, names
from vaultauthz.config.document import Items
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.values import Tls, Vault

KEYS: Final = ("address", "calls_per_second", "insecure", "namespace", "timeout", "tls")
TLS_KEYS: Final = ("ca_cert", "client_cert", "client_key", "server_name", "x509_strict")
MOST_ADDRESSES: Final = 8
# Stands in for a refused one, so that a stage's login by certificate does not miss it again.
HIDDEN: Final = Tls(client_cert=Path("?"), client_key=Path("?"))
TIMEOUT: Final = partial(durations.between, least=0.1, most=60.0)


def read_vault(value: Value, environ: Mapping[str, str]) -> Vault:
    """The server; what the file does not say comes from ``$VAULT_ADDR`` and its like."""
    table = value.table(KEYS)
    environment.tell_unread(value, environ)
    environment.supply(table, environment.PLACE, environ)
    address, *fallbacks = _addresses(table, environ) or ("",)
    return Vault(
        address=address,
        fallbacks=tuple(fallbacks),
        namespace=table.get("namespace", names.namespace, ""),
        tls=_tls(table, environ),
        timeout=table.get("timeout", TIMEOUT, 5.0),
        calls_per_second=table.get("calls_per_second", _rate, inf),
    )


def _rate(value: Value) -> float:
    text = value.text()
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0.1 <= float(text) <= 1000:
        raise value.wrong(f"wants a number from 0.1 to 1000, found {quoted(text)}")
    return float(text)


def _addresses(table: Table, environ: Mapping[str, str]) -> tuple[str, ...]:
    environment.supply(table, environment.ADDRESS, environ)
    insecure = table.get("insecure", Value.flag, default=False)
    read = partial(_one_or_more, insecure=insecure)
    return table.require("address", read, (), "add https://HOST:PORT, or set $VAULT_ADDR")


def _one_or_more(value: Value, *, insecure: bool) -> tuple[str, ...]:
    if not isinstance(value.node, Items):
        return (_one(value, insecure=insecure),)
    count = len(value.items())
    if not 1 <= count <= MOST_ADDRESSES:
        text = f"lists {count} addresses; name 1 to {MOST_ADDRESSES} nodes of one cluster"
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


def _tls(table: Table, environ: Mapping[str, str]) -> Tls:
    read = partial(_read_tls, environ=environ)
    return table.read_section("tls", read, HIDDEN if "tls" in table else Tls())


def _read_tls(value: Value, environ: Mapping[str, str]) -> Tls:
    table = value.table(TLS_KEYS)
    environment.supply(table, environment.TLS, environ)
    environment.supply_pair(table, environ)
    table.need_both("client_cert", "client_key")
    usual = HIDDEN if {"client_cert", "client_key"} & set(table.entries) else Tls()
    return Tls(
        ca_cert=table.get("ca_cert", files.readable, None),
        client_cert=table.get("client_cert", files.readable, usual.client_cert),
        client_key=table.get("client_key", files.private, usual.client_key),
        server_name=table.get("server_name", Value.text, ""),
        x509_strict=table.get("x509_strict", Value.flag, default=False),
    )
