"""``routes``, ``listen`` and ``audit``."""

from __future__ import annotations

from collections.abc import Sequence

from vaultauthz.config import listen as listen_reader
from vaultauthz.config import routes as routes_reader
from vaultauthz.config.load import AUDIT_KEYS
from vaultauthz.config.schema.forms import Schema, choice, closed, duration, file, many, text
from vaultauthz.config.values import Listen

_USUAL = Listen()


def routes() -> Schema:
    """The section ``routes``."""
    route = closed(
        routes_reader.KEYS,
        {
            "host": text("The request's host, without a port; default: any."),
            "path_prefix": text("The path or what is below it.", usual="/", pattern="^/"),
            "upstream": text("The name of an upstream."),
            "stage": text("The name of one of its stages; needed if it has several."),
        },
        "Which upstream a request is for.",
        required=("upstream",),
        anyOf=[{"required": ["host"]}, {"required": ["path_prefix"]}],
    )
    return many(route, "Used when the gateway names no upstream itself.")


def listen() -> Schema:
    """The section ``listen``."""
    return closed(
        listen_reader.KEYS,
        {
            "grpc": text("For the gateway: unix:///PATH or HOST:PORT.", usual=_USUAL.grpc),
            "grpc_tls": _tls(
                "Needed beyond this machine, with client_ca.",
                listen_reader.GRPC_TLS_KEYS,
                client_names=_client_names(),
            ),
            "admin": text("For operators: unix:///PATH or HOST:PORT; default: none."),
            "admin_tls": _tls("Needed beyond this machine."),
            "admin_token_file": file("Holds what operators have to present."),
            "transport": choice(
                listen_reader.TRANSPORTS, "What serves gRPC.", usual=_USUAL.transport
            ),
            "drain": duration(
                "How long to go on answering after SIGTERM, while health checks turn gateways away.",
                listen_reader.DRAIN,
                _USUAL.drain,
            ),
        },
        "Where the gateway and the operator reach us.",
        dependentRequired={"grpc_tls": ["grpc"], "admin_tls": ["admin"]},
    )


def _client_names() -> Schema:
    name = text("A subject alternative name: DNS or URI.", pattern=listen_reader.CLIENT_NAME)
    described = "Of the certificates that client_ca signed, who may ask; default: whoever has one."
    return many(name, described, least=1)


def _tls(description: str, keys: Sequence[str] = listen_reader.TLS_KEYS, **more: Schema) -> Schema:
    dependent = {"dependentRequired": {"client_names": ["client_ca"]}} if more else {}
    return closed(
        keys,
        {
            "cert": file("The server's certificate, in PEM."),
            "key": file("Its private key, in PEM."),
            "client_ca": file("The authorities that sign clients' certificates, in PEM."),
            **more,
        },
        description,
        required=("cert", "key"),
        **dependent,
    )


def audit() -> Schema:
    """The section ``audit``."""
    properties = {
        "file": file("Where to write; default: standard output."),
        "access_log": file(
            "Where Envoy writes what it did, if it asks nobody (SDS); default: it sends that."
        ),
    }
    return closed(AUDIT_KEYS, properties, "One JSON object a line.")
