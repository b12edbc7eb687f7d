"""What the names in a configuration may look like."""

from __future__ import annotations

import re
from typing import Final

from vaultauthz.config.document import Scalar
from vaultauthz.config.reader import Value, quoted

# RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_LONGEST = 100
PATTERN: Final = f"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{_LONGEST - 1}}}$"  # of a stage or an upstream
_NAMESPACE = re.compile(r"[^/\s?#\\]+(?:/[^/\s?#\\]+)*\Z")
_ROOT = "root"
_QUERY = re.compile(r"\?[A-Za-z_]+=")

_HOST = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9_.\-]*[a-z0-9])?)(?::[0-9]{1,5})?\Z")
UPSTREAM_HOST: Final = "The host that the upstream receives."

# RFC 9110, 7.6.1, and what frames a message: a proxy makes these anew for each hop.
_HOP_BY_HOP: Final = frozenset(
    (
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def check_name(value: Value, name: str, what: str) -> None:
    """``name`` is fit to name a stage or an upstream: in paths, metrics and commands."""
    if not re.fullmatch(PATTERN, name):
        raise value.wrong(
            f"{quoted(name)} cannot name {what}; use letters, digits, '_', '.' and '-', "
            f"the first a letter or digit, at most {_LONGEST}"
        )


def token(value: Value) -> str:
    """A token as HTTP defines it: the name of a cookie, a method."""
    text = value.text()
    if not _TOKEN.match(text):
        raise value.wrong("holds a character that HTTP keeps out of names; use letters and '-'")
    return text


def header(value: Value) -> str:
    """A header's name in lower case, one that may be set and removed."""
    text = value.text().lower()
    if text.startswith(":"):
        raise value.wrong(f"{quoted(text)} is a pseudo header, which cannot be set; name another")
    name = token(value).lower()
    if name == "host":
        raise value.wrong("host says where a request goes and cannot be set; name another header")
    if name in _HOP_BY_HOP:
        raise value.wrong(f"{name} belongs to one connection and cannot be set; name another")
    return name


def header_to_set(value: Value) -> str:
    """As ``header``, and one that may be replaced whole."""
    name = header(value)
    if name == "cookie":
        raise value.wrong(
            "cookie as a header would drop the client's other cookies; use the cookie form"
        )
    return name


def upstream_host(value: Value) -> str:
    """The host that the upstream receives, perhaps with a port."""
    text = value.text().lower()
    if not _HOST.match(text):
        raise value.wrong(f"{quoted(text)} is no host; write it as the upstream gets it, name:port")
    return text


def is_vault_path(text: str) -> bool:
    """Whether Vault could have something at ``text``: it takes what can be printed (Go's IsPrint)."""
    segments = text.split("/")
    return text.isprintable() and all(segments) and not {".", ".."} & set(segments)


def vault_path(value: Value) -> str:
    """``mount/more`` as Vault's command line takes it: each character stands for itself."""
    text = value.text()
    if text.lstrip("/").startswith("v1/"):
        raise value.wrong("begins with v1/, which is of the HTTP API; leave it out")
    if _QUERY.search(text):
        raise value.wrong("has a query, which is of the HTTP API; use version or params")
    if not text.isprintable():
        raise value.wrong("holds a character that Vault refuses, as it cannot be printed")
    if not is_vault_path(text):
        raise value.wrong("is no path in Vault; write mount/name, without / at its ends")
    return text


def mount(value: Value) -> str:
    """Where an auth method is mounted, below ``auth/``: Vault's lists say ``approle/``.

    Its API, and other tools, say ``auth/approle``.
    """
    text = value.text().strip("/")
    if not is_vault_path(text) or text.startswith("v1/"):
        raise value.wrong("is no mount of Vault's; write where it is below auth/, as in approle")
    return text.removeprefix("auth/")


def namespace(value: Value) -> str:
    """The path of a namespace, without slashes at its ends; ``root`` for the one without a name."""
    if isinstance(value.node, Scalar) and not value.node.text.strip():
        # Without the key it would be the environment's, or that of `vault`.
        raise value.wrong("is empty; write root for the one without a name, or leave the key out")
    # Vault itself writes "platform/", and takes "/" for root.
    name = value.text().strip("/") or _ROOT
    # It is sent as a header.
    if not (name.isascii() and _NAMESPACE.match(name) and is_vault_path(name)):
        raise value.wrong("is no namespace; write its path, as in platform/team, or root")
    return name
