"""A first configuration: what `vaultauthz init` writes, with comments, from a few answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz.config.auth.methods import METHODS
from vaultauthz.config.load import parse
from vaultauthz.config.problems import ConfigError
from vaultauthz.config.secret_source import FORMS
from vaultauthz.config.values import Config

STAGE: Final = "production"
LOGINS: Final = tuple(METHODS)
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*(?:://[A-Za-z0-9._-]+(?::[0-9]+)?)?\Z")
_WORDS: Final = frozenset(("false", "n", "no", "null", "off", "on", "true", "y", "yes"))
_LOGIN: Final = '{basic: {username: "{username}", password: "{password}"}}'

_TEXT: Final = """\
# Written by `vaultauthz init`. docs/configuration.md has every key, and `vaultauthz config check` looks at them.

vault:
  address: %(vault)s
  # tls: {ca_cert: ca.pem}    # where its certificate is of an authority of your own

stages:
  # An environment with a login to Vault of its own; docs/auth.md has Vault's side of each method.
  production:
    # Files are looked for in this file's folder. Secrets stand in them alone: chmod 600.
    auth: {method: %(auth)s, %(keys)s}

upstreams:
  # A service behind the gateway, and the credential that it wants.
  %(upstream)s:
    secret: %(secret)s
    # Where it goes. Names in braces are the secret's fields: `vaultauthz doctor --fetch` tells them.
    inject: [%(inject)s]
    # Who may use it. any is whoever reaches the gateway; by certificate, or by token:
    # callers: [{principal: "spiffe://corp/checkout/*"}, {claims: {scope: pay}}]
    callers: any
    # Where the service is, for what `vaultauthz envoy` and `kong config` print.
    %(to)s

routes:
  # Every request. Or of one host: {host: pay.example.com, path_prefix: /v1, upstream: %(upstream)s}
  - {path_prefix: /, upstream: %(upstream)s}

listen:
  grpc: unix:///run/vaultauthz/grpc.sock      # for Envoy
  admin: unix:///run/vaultauthz/admin.sock    # for vaultauthz leases, rotate and revoke

audit: {file: /var/log/vaultauthz/audit.jsonl}

gateway:
  # Where clients come in. From other machines: 0.0.0.0:8443, and tls: {cert: gateway.crt, key: gateway.key}
  address: 127.0.0.1:10000
  # Envoy's own name, for certificates and `--mode sds`: a different one for each.
  node: gateway-1
"""


@dataclass(frozen=True, slots=True)
class FirstAnswers:
    """What has to be known; none of it is a secret.

    ``secret`` is a path in Vault, before which its form may stand (``kv:secret/geocoder``);
    ``to`` is where the service is, "" where that is not known yet.
    """

    vault: str = "https://vault.internal:8200"
    auth: str = "approle"
    upstream: str = "payments"
    secret: str = "database/creds/payments"
    to: str = ""


def first_config(answers: FirstAnswers) -> str:
    """The text of the file."""
    form, path = _source(answers.secret)
    method = METHODS.get(answers.auth)
    params = ", params: {common_name: gateway.example.com}" if form == "pki" else ""
    return _TEXT % {
        "vault": _scalar(answers.vault),
        "auth": _scalar(answers.auth),
        "keys": method.first if method else "role: gateway",
        "upstream": _scalar(answers.upstream),
        "secret": f"{{{form}: {_scalar(path)}{params}}}",
        "inject": _inject(form),
        "to": f"to: {_scalar(answers.to)}" if answers.to else "# to: https://HOST:PORT",
    }


def read_first(answers: FirstAnswers, path: Path) -> Config:
    """What the file at ``path`` would say; its own files need not be there yet.

    Raises:
        ConfigError: an answer cannot stand there.
    """
    return parse(first_config(answers), str(path), path.parent, {}, elsewhere=True)


def problems(answers: FirstAnswers) -> tuple[str, ...]:
    """What is wrong with the answers, each a line; () when nothing is."""
    try:
        read_first(answers, Path("init"))
    except ConfigError as exc:
        return tuple(line.partition(": ")[2] for line in exc.problems)
    return ()


def _source(secret: str) -> tuple[str, str]:
    """The form of the secret and its path: the one that is said, else as engines are named as a rule."""
    form, colon, path = secret.partition(":")
    if colon and form in FORMS:
        return form, path
    mount, _, rest = secret.partition("/")
    if mount == "secret" or mount.startswith("kv"):
        return "kv", secret
    if rest.startswith("static-cred"):
        return "static_role", secret
    return "pki" if rest.startswith(("issue/", "sign/")) else "path", secret


def _inject(form: str) -> str:
    if form == "pki":
        return "{tls: {}}"
    return '{bearer: "{token}"}' if form == "kv" else _LOGIN


def _scalar(text: str) -> str:
    """As it is where that is safe, else in quotes."""
    if _PLAIN.match(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text)
