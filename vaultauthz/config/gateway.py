"""``gateway`` and each upstream's ``to``: what `vaultauthz envoy` and `kong config` have to know besides.

Nothing here is used by a server of ours: the files that it names are the gateway's, and are
looked at by the commands that print and check, for a warning.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

from vaultauthz.config import addresses, files
from vaultauthz.config.document import Scalar
from vaultauthz.config.keys import Key, Reader, Section, both
from vaultauthz.config.kinds import FLAG, TEXT, file, many
from vaultauthz.config.reader import Value, quoted
from vaultauthz.config.secret_source import by_stage
from vaultauthz.config.values import CallerTokens, Destination, GatewaySide, ServerTls, WayToUs

_FILE: Final = file(files.of_gateway)
_PRIVATE: Final = file(files.private_of_gateway)
_PATH: Final = re.compile(r"/[!-~]*\Z")
_NODE: Final = r"^[A-Za-z0-9_.-]{1,100}$"


def _addresses(value: Value, *, stages: Collection[str]) -> Mapping[str, str]:
    return {
        stage: addresses.service(value, text) for stage, text in by_stage(value, stages).items()
    }


def _path(value: Value) -> str:
    text = value.text()
    if not _PATH.match(text):
        raise value.wrong(f"{quoted(text)} is no path; begin with /, as in /healthz")
    return text


def _dns_name(value: Value) -> str:
    text = value.text().lower()
    if not addresses.valid_host(text) or text.startswith("["):
        raise value.wrong(f"{quoted(text)} is no host; write the name in the certificate")
    return text


_ADDRESS: Final = {"type": "string", "pattern": r"^\s*[Hh][Tt][Tt][Pp][Ss]?://"}
_ADDRESSES: Final[Reader[Mapping[str, str]]] = Reader(
    partial(_addresses, stages=()), _ADDRESS, stand_in=MappingProxyType({})
)
TO: Final = Section(
    Destination,
    "Where the service is.",
    Key(
        "address",
        _ADDRESSES,
        "https://HOST:PORT.",
        "`{stage}` stands for the stage's name; without a port it is the scheme's. `http://` too, in clear text.",
        missing="add https://HOST:PORT",
    ),
    Key(
        "ca_cert",
        _FILE,
        "The authorities that sign its certificate, in PEM.",
        otherwise="the public ones",
    ),
    Key("server_name", TEXT.by(_dns_name), "The name in its certificate.", otherwise="the host"),
    Key("preserve_host", FLAG, "Send it the host that the client asked for, not its own."),
    Key(
        "health",
        TEXT.by(_path),
        "A path that it answers with 200 while it is well.",
        "It is asked every 5 s; while no address of it is well, requests are answered 503.",
        otherwise="nobody asks",
    ),
)


def read_to(value: Value, *, stages: Collection[str]) -> Mapping[str, Destination]:
    """The service of each stage: an address, or a mapping of ``TO``."""
    if isinstance(value.node, Scalar):
        return {
            stage: Destination(text) for stage, text in _addresses(value, stages=stages).items()
        }
    table = TO.open(value)
    found: Mapping[str, str] = TO.get(table, "address", partial(_addresses, stages=stages))
    one = TO.build(table, {"address": ""})
    for key in ("ca_cert", "server_name"):
        if key in table and any(text.startswith("http:") for text in found.values()):
            value.report.refused(table.entries[key].wrong("is for https://; remove it"))
    return {stage: replace(one, address=text) for stage, text in found.items()}


TO_READER: Final[Reader[Mapping[str, Destination]]] = Reader(
    partial(read_to, stages=()),
    {"anyOf": [{"description": "https://HOST:PORT.", **_ADDRESS}, TO.schema()]},
    stand_in=MappingProxyType({}),
    section=TO,
)


def _url(value: Value) -> str:
    text = value.text().strip()
    url = addresses.web(value, text, "write https://HOST/PATH")
    if url.scheme == "http" and not addresses.is_loopback(url.hostname or ""):
        raise value.wrong("would be fetched in clear text, and with it who may ask; use https://")
    return text


def _texts(value: Value) -> tuple[str, ...]:
    return value.each(Value.text)


def _address_of_ours(value: Value) -> str:
    address = addresses.listen(value)
    if address.startswith(addresses.UNIX) or address.endswith(":0"):
        raise value.wrong(
            f"{quoted(address)} is no HOST:PORT; a unix socket is known by listen.grpc"
        )
    return address


def _node(value: Value) -> str:
    text = value.text()
    if not re.match(_NODE, text):
        raise value.wrong(
            f"{quoted(text)} cannot name an Envoy; use letters, digits, '_', '.' and '-'"
        )
    return text


GATEWAY_TLS: Final = Section(
    ServerTls,
    "What it shows its clients.",
    Key("cert", _FILE, "Its certificate, in PEM.", missing="add the certificate's file"),
    Key("key", _PRIVATE, "Its private key, in PEM.", missing="add the private key's file"),
    Key(
        "client_ca",
        _FILE,
        "The authorities that sign callers' certificates, in PEM.",
        "For rules with `principal`; Envoy's alone.",
        stand_in=_FILE.stand_in,
    ),
)
JWT: Final = Section(
    CallerTokens,
    "Who issues the callers' tokens, for rules with `claims`; Envoy's alone.",
    Key("issuer", TEXT, "The tokens' `iss`."),
    Key("jwks", TEXT.by(_url), "Where its keys are: https://HOST/PATH."),
    Key(
        "audiences",
        many(TEXT.about("One of the tokens' `aud`."), _texts, least=1),
        "Of these a token has one.",
        otherwise="any",
    ),
    Key(
        "ca_cert",
        _FILE,
        "The authorities of that host's certificate, in PEM.",
        otherwise="the public ones",
    ),
)
WAY_TO_US: Final = Section(
    WayToUs,
    "How Envoy reaches listen.grpc where that is a port.",
    Key("address", TEXT.by(_address_of_ours), "HOST:PORT.", otherwise="that of listen.grpc"),
    Key("ca_cert", _FILE, "The authority that signed the certificate of grpc_tls, in PEM."),
    Key("client_cert", _FILE, "Envoy's certificate for it, in PEM."),
    Key("client_key", _PRIVATE, "Its private key, in PEM."),
    conditions=both("client_cert", "client_key"),
)
GATEWAY: Final = Section(
    GatewaySide,
    "What the gateway's printed configuration has to know besides; not used by `serve`.",
    Key(
        "address",
        Reader(addresses.gateway, {**TEXT.schema, "pattern": "^[^%]+$"}),
        "Where clients come in: IP:PORT.",
        missing="say where clients come in, as in 0.0.0.0:8443",
    ),
    Key("tls", GATEWAY_TLS.reader(), GATEWAY_TLS.text),
    Key(
        "node",
        Reader(_node, {**TEXT.schema, "pattern": _NODE}),
        "Envoy's own name, a different one for each.",
        "For SDS, and certificates that are injected.",
        otherwise="a placeholder is printed",
    ),
    Key("jwt", JWT.reader(), JWT.text),
    Key("vaultauthz", WAY_TO_US.reader(), WAY_TO_US.text),
)
