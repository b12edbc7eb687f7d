"""What `vaultauthz envoy` prints, with what it marks REPLACE replaced, in a real Envoy."""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import itertools
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

import requests
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.contract.certificates import Authority, Pair
from tests.contract.jwt_issuer import Issuer
from tests.integration.gateway_bed import FLUSH, TIMEOUT, TRACE, Headers, Reply, logged
from vaultauthz import cli
from vaultauthz.demo.parts import Envoy, Upstream, echo, free_port

AUDIENCE: Final = "gateway.example"  # as printed
_JWT: Final = "envoy.filters.http.jwt_authn"
_CLIENT: Final = "/etc/envoy/vaultauthz"
_TLS: Final = "/etc/envoy/tls"

Document = dict[str, Any]


def printed(config: Path, *options: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(["envoy", "-c", str(config), *options])
    return status, out.getvalue(), err.getvalue()


class Certificates(Authority):
    """An authority for gateways, and for clients with any names."""

    def client(self, file: str, subject: str, uris: Iterable[str], dns: Iterable[str]) -> Pair:
        """A certificate with these names, in this order."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        builder = self._builder(subject, key)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        pair.cert.write_bytes(certificate.public_bytes(encoding))
        pair.key.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
        return pair


@functools.cache
def _context(ca: Path, certificate: Pair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if certificate:
        context.load_cert_chain(certificate.cert, certificate.key)
    return context


def with_files(text: str, authority: Authority, folder: Path) -> str:
    """The bootstrap with the files it names for TLS, put into ``folder``."""
    pair = authority.issue("localhost")
    for place, names in (
        (_TLS, {"gateway.pem": pair.cert, "gateway.key": pair.key, "clients-ca.pem": authority.ca}),
        (_CLIENT, {"client.pem": pair.cert, "client.key": pair.key, "ca.pem": authority.ca}),
    ):
        here = folder / place.rpartition("/")[2]
        here.mkdir(parents=True, exist_ok=True)
        for name, file in names.items():
            (here / name).write_bytes(file.read_bytes())
        text = text.replace(place, str(here))
    return text


def replaced(text: str, port: int, services: Mapping[str, int], issuer: Issuer) -> Document:
    """The bootstrap with this listener, these services by cluster, and this issuer of tokens.

    Envoy waits less for what is not there, so that a test need not.
    """
    document: Document = yaml.safe_load(text.replace("fetch_timeout: 5s", "fetch_timeout: 0.5s"))
    resources = document["static_resources"]
    (listener,) = resources["listeners"]
    listener["address"]["socket_address"]["port_value"] = port
    for cluster in resources["clusters"]:
        if cluster["name"] in services:
            _move(cluster, services[cluster["name"]])
        for check in cluster.get("health_checks", ()):
            check |= {"interval": "0.2s", "no_traffic_interval": "0.2s"}
    for one in manager_of(document)["http_filters"]:
        if one["name"] == _JWT:
            provider = one["typed_config"]["providers"]["identity_provider"]
            del provider["remote_jwks"]
            provider["issuer"] = issuer.name
            provider["local_jwks"] = {"inline_string": json.dumps(issuer.jwks)}
    return document


def manager_of(document: Document) -> Document:
    """The connection manager of a bootstrap."""
    chain = document["static_resources"]["listeners"][0]["filter_chains"][0]
    manager: Document = chain["filters"][0]["typed_config"]
    return manager


def _move(cluster: Document, port: int) -> None:
    del cluster["transport_socket"]
    cluster["type"] = "STATIC"
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}


class PrintedBed:
    """Envoy from a printed bootstrap in front of one service that stands for all clusters."""

    def __init__(self, text: str, folder: Path, authority: Authority, issuer: Issuer) -> None:
        self.port = free_port()
        self.service = Upstream(echo())
        clusters = [c["name"] for c in yaml.safe_load(text)["static_resources"]["clusters"]]
        own = ("vaultauthz", "vaultauthz_logs", "identity_provider")
        services = {name: self.service.port for name in clusters if name not in own}
        text = with_files(text, authority, folder)
        self.document = replaced(text, self.port, services, issuer)
        self.has_tls = f"{folder}/tls" in text
        self.envoy = Envoy(self.document, folder / "envoy", options=FLUSH)
        self._authority = authority
        self._parts = contextlib.ExitStack()
        self._numbers = itertools.count(1)

    def send(
        self,
        host: str,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        certificate: Pair | None = None,
    ) -> Reply:
        """Send a request as it is written here, and see what came of it."""
        trace = f"{self.port}-{next(self._numbers)}"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"{TRACE}: {trace}"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [f"Content-Length: {len(body)}"] if body else []
        address = ("127.0.0.1", self.port)
        with (
            socket.create_connection(address, TIMEOUT) as plain,
            self._secured(plain, certificate) as connection,
        ):
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            text = response.read().decode()
        lowered = {name.lower(): value for name, value in response.getheaders()}
        for seen in list(self.service.seen):
            if seen.all(TRACE) == [trace]:
                return Reply(response.status, lowered, text, "service", seen)
        return Reply(response.status, lowered, text)

    def _secured(self, plain: socket.socket, certificate: Pair | None) -> socket.socket:
        if not self.has_tls:
            return plain
        # The request would wait for the acknowledgement of the handshake.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = _context(self._authority.ca, certificate)
        return context.wrap_socket(plain, server_hostname="localhost")

    def secrets(self) -> int:
        """How many secrets it has got by SDS."""
        found = self.envoy.stats("sds\\..*\\.update_success")
        return sum(count > 0 for count in found.values())

    def logged(self, **fields: object) -> Document:
        """The first line of Envoy's access log with these fields."""
        return logged(self.envoy, **fields)

    def reopen_logs(self) -> None:
        """Have Envoy open its logs anew, as after a rotation."""
        assert requests.post(f"{self.envoy.admin}/reopen_logs", timeout=TIMEOUT).ok

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as parts:
            parts.enter_context(self.service)
            parts.enter_context(self.envoy)
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()
