"""``kong.yml``: Kong's declarative configuration, a service for each upstream and stage.

Where an upstream has `to`, service and routes are as the configuration says; else they are placeholders.
"""

from __future__ import annotations

import json
import re
import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from vaultauthz.config.values import Config, Destination, Upstream
from vaultauthz.core.routing import Route
from vaultauthz.kong import registration

_PEM: Final = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# As in RFC 3986: what may stand in a path as it is.
_IN_A_PATH: Final = "/~:@!$&'()*+,;=-._"
_DEPTH: Final = 5  # intermediate certificates; nginx takes one


@dataclass(frozen=True, slots=True)
class _Entry:
    """An upstream in one stage, with the routes that lead to it."""

    upstream: Upstream
    stage: str
    routes: tuple[Route, ...]

    @property
    def name(self) -> str:
        """Of its service."""
        several = len(self.upstream.stages) > 1
        return f"{self.upstream.name}-{self.stage}" if several else self.upstream.name

    @property
    def to(self) -> Destination | None:
        """Where the service is, if the configuration says so."""
        return self.upstream.to.get(self.stage)


def lines(config: Config, *, stock: bool) -> list[str]:
    """The file; with ``stock`` each route has its guard."""
    entries = [entry for entry in _entries(config) if not _lost(config, entry)]
    found = ['_format_version: "3.0"', "services:"]
    for entry in entries:
        found += _service(entry, stock=stock)
    files = dict.fromkeys(entry.to.ca_cert for entry in entries if entry.to)
    authorities = [pem for file in files if file for pem in _certificates(file)]
    if authorities:
        found.append("ca_certificates:")
        for pem in dict.fromkeys(authorities):
            found += [f"  - id: {_id(pem)}", "    cert: |", textwrap.indent(pem, " " * 6)]
    return found


def problems(config: Config) -> Iterator[str]:
    """What of `to` and `gateway` Kong cannot do, or lacks."""
    for entry in _entries(config):
        where = f"upstreams.{entry.upstream.name}"
        if _lost(config, entry):
            yield f"{where}: left out, as no route leads to it in stage {entry.stage}; add one to routes"
        elif entry.to:
            yield from _unfit(where, entry.to)
    if config.gateway and config.gateway.tls and config.gateway.tls.client_ca:
        yield "gateway.tls.client_ca: Kong tells the plugin of no client certificate; it is left out"


def _unfit(where: str, to: Destination) -> Iterator[str]:
    if to.server_name:
        yield f"{where}.to.server_name: Kong compares a certificate with the service's host alone"
    if to.preserve_host and to.has_tls:
        yield (
            f"{where}.to.preserve_host: Kong then compares the service's certificate with the host "
            "that the client asked for"
        )
    if to.health:
        yield f"{where}.to.health: left out; Kong has health checks on its own `upstreams` alone"
    if to.ca_cert and not _certificates(to.ca_cert):
        yield (
            f"{where}.to.ca_cert: {to.ca_cert} has no certificate that can be read here, and Kong "
            "takes no file with REPLACE in its place; print this where it is"
        )


def public_authorities(config: Config) -> bool:
    """Whether the certificate of a service is one of a public authority."""
    found = (to for upstream in config.upstreams.values() for to in upstream.to.values())
    return any(to.has_tls and to.ca_cert is None for to in found)


def _entries(config: Config) -> Iterator[_Entry]:
    for upstream in config.upstreams.values():
        for stage in upstream.stages:
            wanted = (stage, upstream.name)
            yield _Entry(
                upstream, stage, tuple(r for r in config.routes if (r.stage, r.upstream) == wanted)
            )


def _lost(config: Config, entry: _Entry) -> bool:
    """Whether no client could reach it through the gateway that is described."""
    return config.gateway is not None and not entry.routes


def _service(entry: _Entry, *, stock: bool) -> list[str]:
    plugins = _plugins(entry, stock=stock)
    # Quoted, as YAML would take some names for numbers or booleans.
    name = json.dumps(entry.name)
    to = entry.to
    if to is None:
        return [
            f"  - name: {name}",
            "    url: https://REPLACE",
            "    routes:",
            f"      - name: {name}",
            f'        paths: ["/{entry.name}"]  # REPLACE',
            "        plugins:",
            *plugins,
        ]
    return [
        f"  - name: {name}",
        f"    url: {json.dumps(f'{to.address}/')}",
        *(_tls(to) if to.has_tls else []),
        "    routes:",
        *(line for place in _places(entry, to) for line in (*place, "        plugins:", *plugins)),
    ]


def _tls(to: Destination) -> list[str]:
    # Without one Kong would trust whom it trusts otherwise; what is no id it refuses to load.
    ids = [str(_id(pem)) for pem in _certificates(to.ca_cert)] if to.ca_cert else []
    ids = ids or ["REPLACE"]
    return [
        "    tls_verify: true",
        f"    tls_verify_depth: {_DEPTH}",
        *([f"    ca_certificates: [{', '.join(ids)}]"] if to.ca_cert else []),
    ]


def _places(entry: _Entry, to: Destination) -> Iterator[list[str]]:
    """Each route, without its plugins."""
    if not entry.routes:
        yield [
            f"      - name: {json.dumps(entry.name)}",
            f'        paths: ["/{entry.name}"]  # REPLACE',
        ]
    for number, route in enumerate(entry.routes, 1):
        name = entry.name if number == 1 else f"{entry.name}-{number}"
        yield [
            f"      - name: {json.dumps(name)}",
            *([f"        hosts: [{json.dumps(route.host)}]"] if route.host else []),
            f"        paths: [{json.dumps(_path(route.path_prefix))}]",
            # Kong tries the highest first, whatever their lengths are.
            f"        regex_priority: {len(route.path_prefix)}",
            "        strip_path: false",
            f"        preserve_host: {json.dumps(to.preserve_host)}",
        ]


def _path(prefix: str) -> str:
    """A regular expression: Kong would take ``/v10`` for a path below ``/v1``."""
    written = re.sub(r"[^A-Za-z0-9/_~%-]", r"\\\g<0>", quote(prefix, safe=_IN_A_PATH + "%"))
    return f"~{written}" if written.endswith("/") else f"~{written}(?:/|$)"


def _plugins(entry: _Entry, *, stock: bool) -> list[str]:
    names = json.dumps(entry.upstream.name), json.dumps(entry.stage)
    config = "{{upstream: {}, stage: {}}}".format(*names)
    plugins = [f"- name: {registration.NAME}", f"  config: {config}"]
    if stock:
        plugins = [
            *_function("pre-function", registration.guard_before()),
            *plugins,
            *_function("post-function", registration.guard_after(entry.upstream.name, entry.stage)),
        ]
    return [f"          {line}" for line in plugins]


def _function(name: str, code: str) -> list[str]:
    lines = [f"      {line}" for line in code.splitlines()]
    return [f"- name: {name}", "  config:", "    access:", "    - |", *lines]


def _certificates(file: Path) -> list[str]:
    """The certificates in a PEM file; [] where it cannot be read."""
    try:
        return _PEM.findall(file.read_text(errors="replace"))
    except OSError:
        return []


def _id(pem: str) -> uuid.UUID:
    """Of the same certificate the same, whenever it is printed."""
    return uuid.uuid5(uuid.NAMESPACE_OID, pem)
