"""What Vault's own commands read of the environment: taken where the file says nothing.

``$VAULT_…`` and OpenBao's ``$BAO_…``, each of which stands in for one key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from vaultauthz.config.reader import Table, Value

_MAKERS: Final = ("VAULT_", "BAO_")
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")  # Go's strconv.ParseBool
ADDRESS: Final = {"ADDR": "address"}
PLACE: Final = {"NAMESPACE": "namespace"}
TLS: Final = {"CACERT": "ca_cert", "TLS_SERVER_NAME": "server_name"}
PAIR: Final = {"CLIENT_CERT": "client_cert", "CLIENT_KEY": "client_key"}
_FILES: Final = frozenset(("ca_cert", "client_cert", "client_key"))
_SWITCHES: Final = frozenset(("SKIP_VERIFY", "SRV_LOOKUP"))
# What is not taken, and what to do instead.
_NOT_READ: Final = {
    "SKIP_VERIFY": "Vault's certificate is always verified; set vault.tls.ca_cert",
    "CAPATH": "set vault.tls.ca_cert to one file with the certificates",
    "CACERT_BYTES": "set vault.tls.ca_cert to a file with the certificates",
    "AGENT_ADDR": "set vault.address to the agent's",
    "PROXY_ADDR": "calls go straight to Vault; set vault.address to what forwards them",
    "HTTP_PROXY": "calls go straight to Vault; set vault.address to what forwards them",
    "SRV_LOOKUP": "list the nodes in vault.address",
    "CLIENT_TIMEOUT": "set vault.timeout",
    "RATE_LIMIT": "set vault.calls_per_second",
}


def supply(table: Table, keys: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Put what ``environ`` has into ``table``, where that has no such key.

    A warning where both makers' variables are set and differ: `bao` takes the other one.
    """
    for name, key in keys.items():
        found = dict(_set(name, environ))
        if key in table or not found:
            continue
        (variable, text), *others = found.items()
        # A path there starts where the command is run, as for every other program.
        given = str(Path(text).absolute()) if key in _FILES else text
        table.supply(key, given, f"from ${variable}")
        for other, said in others:
            if said != text:
                table.place.warn(f"${other} is not read: ${variable} goes first, and differs")


def supply_pair(table: Table, environ: Mapping[str, str]) -> None:
    """Put both of ``PAIR`` in, where neither is: half of one is nobody's."""
    if not any(key in table for key in PAIR.values()):
        supply(table, PAIR, environ)


def tell_unread(value: Value, environ: Mapping[str, str]) -> None:
    """A warning for what is set, and would be missed."""
    for name, instead in _NOT_READ.items():
        for variable, text in _set(name, environ):
            if name not in _SWITCHES or text in _TRUE:
                value.warn(f"${variable} is not read: {instead}")


def _set(name: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for maker in _MAKERS:
        text = environ.get(maker + name, "")
        if text:
            yield maker + name, text
