"""A request in the one spelling that AWS's signature is computed over.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
says how a client that builds a request spells it. We are handed what another client has
spelled, so what matters is what the service makes of those bytes, measured by people who
asked the services (github.com/aws/aws-sdk-js/issues/853, envoyproxy/envoy issue 35023):
S3 decodes the path and encodes it once; the others encode it as it came, without its dot
segments and double slashes; all of them decode the query and encode it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, unquote_to_bytes

# The services that take a path as it is, as object keys may hold anything.
OBJECT_STORES: Final = frozenset(("s3", "s3express", "s3-outposts", "s3-object-lambda"))
_SPACES: Final = re.compile("[ \t]+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~/\-]*\Z")


def path(sent: str, *, object_store: bool) -> str:
    """The canonical path of one that was sent."""
    if object_store:
        return "/".join(map(_reencoded, sent.split("/"))) or "/"
    if "//" in sent or "/." in sent or not sent.startswith("/"):
        sent = _straight(sent)
    return sent if _PLAIN.match(sent) else quote(_bytes(sent), safe="/~")


def query(sent: str) -> str:
    """The canonical query: decoded, encoded anew, in the order of the encoded names."""
    if not sent:
        return ""
    pairs = (part.partition("=") for part in sent.split("&") if part)
    encoded = sorted((_reencoded(name), _reencoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def headers(names: Iterable[str], values: Mapping[str, list[str]]) -> str:
    """A line for each header of ``names``, which are sorted: one space for several, none around."""
    lines = []
    for name in names:
        joined = ",".join(_SPACES.sub(" ", value.strip(" \t")) for value in values[name])
        lines.append(f"{name}:{joined}\n")
    return "".join(lines)


def _reencoded(part: str) -> str:
    """What is encoded differently, or not at all, in AWS's one way; ``+`` is a space."""
    if _PLAIN.match(part):
        return part.replace("/", "%2F")
    return quote(unquote_to_bytes(_bytes(part.replace("+", " "))), safe="~")


def _straight(sent: str) -> str:
    """Without dot segments and double slashes; a trailing slash stays."""
    kept: list[str] = []
    for segment in sent.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    whole = "/" + "/".join(kept)
    return whole + "/" if kept and sent.endswith("/") else whole


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
