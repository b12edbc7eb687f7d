"""AWS Signature Version 4 (AWS4-HMAC-SHA256), in the ``authorization`` header.

Not by botocore, which signs requests that it has built: it takes the query for one of
its own spelling, reads the clock itself, and writes the session token to its debug log.
The tests hold this against botocore and against AWS's own test suite.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vaultauthz.core.field_value import header_value, not_blank
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import canonical
from vaultauthz.core.signing.outgoing import Outgoing, Pairs, SigningError
from vaultauthz.core.template import Template

AUTHORIZATION: Final = "authorization"
DATE: Final = "x-amz-date"
TOKEN: Final = "x-amz-security-token"
CONTENT: Final = "x-amz-content-sha256"

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
# A body in chunks with a checksum behind it, which is signed no more than UNSIGNED: what
# AWS's SDKs send to S3 by default.
_UNSIGNED_CHUNKS: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
# Vault before 1.16 and OpenBao call it security_token, Vault since then both.
_TOKEN_FIELDS: Final = ("session_token", "security_token")


@dataclass(frozen=True, slots=True)
class SigV4:
    """``body`` is ``signed`` or ``unsigned``; ``host`` is "" where the client's goes on.

    ``session_token`` None: whichever field the secret has of those that Vault's aws engine
    gives, and no token where it has none (an IAM user's keys).
    """

    region: str
    service: str
    access_key: Template
    secret_key: Template
    session_token: Template | None = None
    body: str = "signed"
    host: str = ""

    @property
    def header_names(self) -> tuple[str, ...]:
        """The header slots that it fills, or keeps empty."""
        return (*self.per_request, TOKEN)

    @property
    def per_request(self) -> tuple[str, ...]:
        """Those that the signer fills."""
        return (AUTHORIZATION, DATE, CONTENT)

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields of the secret that it cannot do without."""
        token = self.session_token.fields if self.session_token else ()
        return self.access_key.fields + self.secret_key.fields + token

    @property
    def needs_body(self) -> bool:
        """Whether the gateway has to send bodies along."""
        return self.body == "signed"

    def constant(self, fields: Mapping[str, Secret]) -> Pairs:
        """The headers that are the same for each request: the session token's, if there is one.

        Raises:
            MissingFieldError: the secret lacks a field.
            InjectionError: a header cannot carry the token.
        """
        token = self._token(fields)
        return ((TOKEN, header_value(token, "sigv4 session_token")),) if token else ()

    def _token(self, fields: Mapping[str, Secret]) -> str:
        if self.session_token:
            return self.session_token.fill(fields)
        found = ((name, fields[name].reveal()) for name in _TOKEN_FIELDS if name in fields)
        return next((not_blank(token, name) for name, token in found if token), "")

    def signer(self, fields: Mapping[str, Secret]) -> SigV4Signer:
        """What signs with this credential.

        Raises:
            MissingFieldError: the secret lacks a field.
            InjectionError: one of the keys is blank, or is none that AWS could have given:
                with a stray blank or newline every signature would be wrong.
        """
        access_key = _key(self.access_key, "sigv4 access_key", fields)
        secret_key = _key(self.secret_key, "sigv4 secret_key", fields)
        return SigV4Signer(self, access_key, Secret(secret_key))


def _key(template: Template, place: str, fields: Mapping[str, Secret]) -> str:
    return header_value(template.fill(fields), template.at(place))


class SigV4Signer:
    """Signs with one credential; keeps the key that AWS derives from it for each day."""

    __slots__ = ("_access_key", "_day", "_form", "_object_store", "_secret_key")

    def __init__(self, form: SigV4, access_key: str, secret_key: Secret) -> None:
        self._form = form
        self._access_key = access_key
        self._secret_key = secret_key
        self._object_store = form.service in canonical.OBJECT_STORES
        self._day: tuple[str, bytes] = ("", b"")

    def __repr__(self) -> str:
        return f"<SigV4Signer {self._form.region}/{self._form.service}>"

    def sign(self, sent: Outgoing, now: float, nonce: Callable[[], str]) -> Pairs:
        """See ``Signer``."""
        content = self._content(sent)
        stamp = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {name: values for name, values in sent.headers.items() if _is_signed(name)}
        headers |= {"host": [self._form.host or sent.host], DATE: [stamp], CONTENT: [content]}
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
            canonical.path(sent.path, object_store=self._object_store),
            canonical.query(sent.query),
            canonical.headers(names, headers),
            signed,
            content,
        )
        whole = "\n".join(lines).encode("utf-8", "surrogateescape")
        scope = f"{stamp[:8]}/{self._form.region}/{self._form.service}/aws4_request"
        to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(whole).hexdigest()}"
        signature = hmac.digest(self._key(stamp[:8]), to_sign.encode(), "sha256").hex()
        return (
            f"{_ALGORITHM} Credential={self._access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )

    def _key(self, day: str) -> bytes:
        known, key = self._day
        if known != day:
            steps = (day, self._form.region, self._form.service, "aws4_request")
            key = _derived(self._secret_key, steps)
            self._day = (day, key)
        return key

    def _content(self, sent: Outgoing) -> str:
        """The hash of the body, or the word that stands in for it."""
        claimed = sent.header(CONTENT)
        if self._form.body == "unsigned" and claimed == _UNSIGNED_CHUNKS:
            return claimed
        if claimed.startswith("STREAMING-"):
            raise SigningError("its client has signed each chunk of the body with its own key")
        if self._form.body == "unsigned":
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
