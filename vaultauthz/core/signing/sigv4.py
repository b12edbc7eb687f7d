"""AWS Signature Version 4 (AWS4-HMAC-SHA256), in the ``authorization`` header.

Not by botocore, which signs requests that it has built: it takes the query for one of
its own spelling, reads the clock itself, and writes the session token to its debug log.
The tests hold this against botocore and against AWS's own test suite.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
says how a client that builds a request spells it. We are handed what another client has
spelled, so what matters is what the service makes of those bytes, measured by people who
asked the services (github.com/aws/aws-sdk-js/issues/853, envoyproxy/envoy issue 35023):
S3 decodes the path and encodes it once; the others encode it as it came, without its dot
segments and double slashes; all of them decode the query and encode it again.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import Outgoing, Pairs, SigningError

AUTHORIZATION: Final = "authorization"
DATE: Final = "x-amz-date"
CONTENT: Final = "x-amz-content-sha256"
# The services that take a path as it is, as object keys may hold anything.
OBJECT_STORES: Final = frozenset(("s3", "s3express", "s3-outposts", "s3-object-lambda"))

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
# A body in chunks with a checksum behind it, which is signed no more than UNSIGNED: what
# AWS's SDKs send to S3 by default.
_UNSIGNED_CHUNKS: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_SPACES: Final = re.compile("[ \t]+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~/\-]*\Z")


class SigV4Signer:
    """Signs with one credential; keeps the key that AWS derives from it for each day."""

    __slots__ = (
        *("_access_key", "_day", "_host", "_object_store", "_region"),
        *("_secret_key", "_service", "_unsigned"),
    )

    def __init__(
        self,
        scope: tuple[str, str],
        access_key: str,
        secret_key: Secret,
        *,
        host: str = "",
        unsigned: bool = False,
    ) -> None:
        """``scope``: region and service. ``host``: "" for the request's own. ``unsigned``: bodies."""
        self._region, self._service = scope
        self._access_key = access_key
        self._secret_key = secret_key
        self._host = host
        self._unsigned = unsigned
        self._object_store = self._service in OBJECT_STORES
        self._day: tuple[str, bytes] = ("", b"")

    def __repr__(self) -> str:
        return f"<SigV4Signer {self._region}/{self._service}>"

    def sign(self, sent: Outgoing, now: float, nonce: Callable[[], str]) -> Pairs:
        """See ``Signer``."""
        content = self._content(sent)
        stamp = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {name: values for name, values in sent.headers.items() if _is_signed(name)}
        headers |= {"host": [self._host or sent.host], DATE: [stamp], CONTENT: [content]}
        authorization = self.authorization(sent, headers, content, stamp)
        return ((AUTHORIZATION, authorization), (DATE, stamp), (CONTENT, content))

    def authorization(
        self, sent: Outgoing, headers: Mapping[str, list[str]], content: str, stamp: str
    ) -> str:
        """The value of ``authorization``, with exactly these headers signed."""
        names = sorted(headers)
        signed = ";".join(names)
        lines = (
            sent.method.upper(),
            canonical_path(sent.path, object_store=self._object_store),
            canonical_query(sent.query),
            canonical_headers(names, headers),
            signed,
            content,
        )
        whole = "\n".join(lines).encode("utf-8", "surrogateescape")
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(whole).hexdigest()}"
        signature = hmac.digest(self._key(stamp[:8]), to_sign.encode(), "sha256").hex()
        return (
            f"{_ALGORITHM} Credential={self._access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )

    def _key(self, day: str) -> bytes:
        known, key = self._day
        if known != day:
            steps = (day, self._region, self._service, "aws4_request")
            key = _derived(self._secret_key, steps)
            self._day = (day, key)
        return key

    def _content(self, sent: Outgoing) -> str:
        """The hash of the body, or the word that stands in for it."""
        claimed = sent.header(CONTENT)
        if self._unsigned and claimed == _UNSIGNED_CHUNKS:
            return claimed
        if claimed.startswith("STREAMING-"):
            raise SigningError("its client has signed each chunk of the body with its own key")
        if self._unsigned:
            return UNSIGNED
        if sent.body is not None:
            return hashlib.sha256(sent.body).hexdigest()
        if _SHA256.match(claimed):
            return claimed  # AWS holds the body against it
        raise SigningError("the gateway did not send us its whole body")


def _is_signed(name: str) -> bool:
    """AWS wants these and refuses others that a proxy on the way may change."""
    return name.startswith("x-amz-") or name in ("content-type", "content-md5")


def _derived(secret_key: Secret, steps: Sequence[str]) -> bytes:
    key = b"AWS4" + secret_key.reveal().encode("utf-8", "surrogatepass")
    for step in steps:
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def canonical_path(sent: str, *, object_store: bool) -> str:
    """The canonical path of one that was sent."""
    if object_store:
        return "/".join(map(_reencoded, sent.split("/"))) or "/"
    if "//" in sent or "/." in sent or not sent.startswith("/"):
        sent = _straight(sent)
    return sent if _PLAIN.match(sent) else quote(_bytes(sent), safe="/~")


def canonical_query(sent: str) -> str:
    """The canonical query: decoded, encoded anew, in the order of the encoded names."""
    if not sent:
        return ""
    pairs = (part.partition("=") for part in sent.split("&") if part)
    encoded = sorted((_reencoded(name), _reencoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def canonical_headers(names: Iterable[str], values: Mapping[str, list[str]]) -> str:
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
