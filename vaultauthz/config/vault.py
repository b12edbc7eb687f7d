"""``vault``: the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from math import inf
from typing import Final

from vaultauthz.config import addresses, durations, files, names
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.values import Tls, Vault

KEYS: Final = ("address", "calls_per_second", "insecure", "namespace", "timeout", "tls")
TLS_KEYS: Final = ("ca_cert", "client_cert", "client_key", "server_name")
_TIMEOUT = partial(durations.between, least=0.1, most=60.0)


def read_vault(value: Value, environ: Mapping[str, str]) -> Vault:
    """The server, its address from ``$VAULT_ADDR`` when the file has none."""
    table = value.table(KEYS)
    return Vault(
        address=_address(table, environ),
        namespace=table.get("namespace", _namespace, ""),
        tls=table.get("tls", _read_tls, Tls()),
        timeout=table.get("timeout", _TIMEOUT, 5.0),
        calls_per_second=table.get("calls_per_second", _rate, inf),
    )


def _rate(value: Value) -> float:
    text = value.text()
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0.1 <= float(text) <= 1000:
        raise value.wrong(f"wants a number from 0.1 to 1000, found {quoted(text)}")
    return float(text)


def _namespace(value: Value) -> str:
    name = value.text().strip("/")  # Vault itself writes "platform/"
    if not names.is_vault_path(name):
        raise value.wrong("is no namespace; write its path, as in platform/team")
    return name


def _address(table: Table, environ: Mapping[str, str]) -> str:
    if environ.get("VAULT_ADDR"):
        table.supply("address", environ["VAULT_ADDR"], "from $VAULT_ADDR")
    read = partial(addresses.vault, insecure=table.get("insecure", Value.flag, default=False))
    return table.require("address", read, "", "add https://HOST:PORT, or set $VAULT_ADDR")


def _read_tls(value: Value) -> Tls:
    table = value.table(TLS_KEYS)
    for name, partner in (("client_cert", "client_key"), ("client_key", "client_cert")):
        if name in table and partner not in table:
            table.missing(partner, f"{name} needs it")
    return Tls(
        ca_cert=table.get("ca_cert", files.readable, None),
        client_cert=table.get("client_cert", files.readable, None),
        client_key=table.get("client_key", files.private, None),
        server_name=table.get("server_name", Value.text, ""),
    )
