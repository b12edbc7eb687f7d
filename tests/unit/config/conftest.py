"""A folder with the files that the configurations of these tests name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from vaultauthz.config import Config, ConfigError, parse

_NOBODY = 65534
SECRET = "s3cr3t-0f-the-role"
VALID = """\
vault:
  address: https://vault.test:8200
stages:
  prod:
    auth: {method: approle, role_id: gateway, secret_id_file: secret_id}
  test:
    auth: {method: token_file, path: token}
upstreams:
  pay:
    secret: {path: "database/creds/pay-{stage}"}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
  geo:
    stages: [prod]
    secret: {kv: secret/geo}
    inject:
      - {header: {name: X-Api-Key, value: "{key}"}}
    callers:
      - {principal: spiffe://corp/shop}
routes:
  - {host: pay.test, path_prefix: /v1, upstream: pay, stage: prod}
listen:
  grpc: unix:///run/vaultauthz/grpc.sock
"""

# Every way to log in, and every lifetime.
EVERY = """\
vault:
  address: [https://vault.test:8200, https://vault2.test]
  tls: {client_cert: cert.pem, client_key: key.pem}
stages:
  approle:
    auth: {method: approle, role_id_file: token, secret_id_file: late, secret_id_wrapped: true}
    namespace: corp/team
    ttl: 2h
    increment: 1h
  kubernetes: {auth: {method: kubernetes, role: a, token_file: token, mount: b}}
  jwt: {auth: {method: jwt, role: a, token_command: [/bin/sh, -c, echo]}}
  cert: {auth: {method: cert, role: a}}
  userpass: {auth: {method: userpass, username: a, password_file: token}}
  ldap: {auth: {method: ldap, username: a, password_file: token}}
  aws: {auth: {method: aws, role: a, region: eu-central-1, server_id: vault.test}}
  gcp: {auth: {method: gcp, role: a, type: iam, service_account: a@b.test}}
  azure: {auth: {method: azure, role: a, resource: api://a, client_id: b}}
  token_file: {auth: {method: token_file, path: token, allow_long_lived: true}}
upstreams:
  pay:
    secret: {path: "database/creds/{stage}", ttl: 4h, increment: 30m}
    inject: [{bearer: "{password}"}]
    callers: any
    to: "https://pay-{stage}.test"
  cert:
    secret: {pki: pki/issue/a, params: {common_name: a}, ttl: 24h}
    inject: [{cookie: {name: a, value: "{certificate}"}}]
    callers: any
    to: {address: "https://[::1]:8443", ca_cert: ca.pem, server_name: c.test, health: /up, preserve_host: true}
gateway:
  address: 0.0.0.0:8443
  tls: {cert: cert.pem, key: key.pem, client_ca: ca.pem}
  node: gateway-2
  jwt: {issuer: "https://login.test", jwks: "https://login.test/keys", audiences: [a], ca_cert: ca.pem}
  vaultauthz: {address: "authz.test:9000", ca_cert: ca.pem, client_cert: cert.pem, client_key: key.pem}
"""


class Folder:
    """Writes files, and reads configurations that name them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("ca.pem", "cert.pem", "key.pem", "token"):
            self.write(name, "anything")
        self.write("secret_id", SECRET)

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file in this folder."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def parse(self, text: str, environ: Mapping[str, str] | None = None) -> Config:
        """What ``text`` says."""
        return parse(text, "c.yaml", self.path, environ or {})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """Why ``text`` is refused, with this folder written as DIR; () when it is not."""
        try:
            self.parse(text, environ)
        except ConfigError as exc:
            return tuple(str(exc).replace(str(self.path), "DIR").split("\n"))
        return ()

    def warnings(self, text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """The warnings about ``text``, with this folder written as DIR."""
        found = self.parse(text, environ).warnings
        return tuple(line.replace(str(self.path), "DIR") for line in found)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An own folder for each test."""
    return Folder(tmp_path)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, as whom the test runs: root reads everything."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        if os.geteuid() != 0:
            yield path
            return
        os.chown(path, _NOBODY, _NOBODY)
        os.seteuid(_NOBODY)
        try:
            yield path
        finally:
            os.seteuid(0)


def edited(old: str, new: str) -> str:
    """The valid configuration with its one ``old`` replaced."""
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)
