"""``vault``: the server; of the file, and of the environment where that says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from vaultauthz.config import addresses, files, kinds
from vaultauthz.config.document import Items
from vaultauthz.config.keys import Key, Reader, Section, both
from vaultauthz.config.kinds import FLAG, PRIVATE, READABLE, TEXT, duration
from vaultauthz.config.reader import Table, Value, quoted
from vaultauthz.config.values import Tls, Vault

# What Vault's own commands read of the environment, taken where the file says nothing:
# $VAULT_… and OpenBao's $BAO_…, each of which stands in for one key.
_MAKERS: Final = ("VAULT_", "BAO_")
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")  # Go's strconv.ParseBool
_SERVER_OF: Final = {"NAMESPACE": "namespace", "ADDR": "address"}
_TLS_OF: Final = {"CACERT": "ca_cert", "TLS_SERVER_NAME": "server_name"}
_PAIR_OF: Final = {"CLIENT_CERT": "client_cert", "CLIENT_KEY": "client_key"}
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
    conditions=both("client_cert", "client_key"),
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
    ),
    Key(
        "insecure",
        FLAG,
        "Allow http:// beyond this machine: logins and secrets travel in clear text.",
        default=False,
    ),
    Key(
        "namespace",
        TEXT.by(kinds.namespace),
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
        "For a fleet see below.",
        otherwise="no bound",
    ),
)


def read_vault(value: Value, environ: Mapping[str, str]) -> Vault:
    """The server; what the file does not say comes from ``$VAULT_ADDR`` and its like."""
    table = VAULT.open(value)
    _warn_of_unread(value, environ)
    _supply(table, _SERVER_OF, environ)
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
    _supply(table, _TLS_OF, environ)
    if not any(key in table for key in _PAIR_OF.values()):  # half of a pair is nobody's
        _supply(table, _PAIR_OF, environ)
    pair = {"client_cert", "client_key"} & set(table.entries)
    hidden = {"client_cert": HIDDEN.client_cert, "client_key": HIDDEN.client_key}
    return TLS.build(table, usual=hidden if pair else {})


def _supply(table: Table, keys: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Put what ``environ`` has into ``table``, where that has no such key.

    A warning where both makers' variables are set and differ: `bao` takes the other one.
    """
    for name, key in keys.items():
        found = dict(_set(name, environ))
        if key in table or not found:
            continue
        (variable, first), *others = found.items()
        # A path there starts where the command is run, as for every other program.
        table.supply(
            key, str(Path(first).absolute()) if key in _FILES else first, f"from ${variable}"
        )
        for other, second in others:
            if second != first:
                table.place.warn(f"${other} is not read: ${variable} goes first, and differs")


def _warn_of_unread(value: Value, environ: Mapping[str, str]) -> None:
    """A warning for what is set, and would be missed."""
    for name, instead in _NOT_READ.items():
        for variable, found in _set(name, environ):
            if name not in _SWITCHES or found in _TRUE:
                value.warn(f"${variable} is not read: {instead}")


def _set(name: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for maker in _MAKERS:
        found = environ.get(maker + name, "")
        if found:
            yield maker + name, found
