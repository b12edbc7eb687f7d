"""RS256 tokens as Google and Microsoft issue them, and checking them by public key alone."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


class Issuer:
    """A key pair with an id; ``public`` is all that a verifier has of it."""

    def __init__(self, kid: str = "key-1") -> None:
        self.kid = kid
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public = self._key.public_key()

    def sign(self, claims: dict[str, Any]) -> str:
        """The token with these claims."""
        head = _encoded({"alg": "RS256", "typ": "JWT", "kid": self.kid})
        text = f"{head}.{_encoded(claims)}"
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_base64(signature)}"

    def private_pem(self) -> str:
        """The private key, as a service account's key file holds it."""
        encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self._key.private_bytes(encoding, kind, serialization.NoEncryption()).decode()


class TokenError(Exception):
    """It is no token of this issuer, or it has run out."""


def verified(token: str, public: rsa.RSAPublicKey, kid: str = "key-1") -> dict[str, Any]:
    """The claims, once the signature, the algorithm and the key's id are right."""
    try:
        head, claims, signature = token.split(".")
        header = json.loads(_decoded(head))
        if (header["alg"], header["kid"]) != ("RS256", kid):
            raise TokenError("another algorithm or key")
        text = f"{head}.{claims}".encode()
        public.verify(_decoded(signature), text, padding.PKCS1v15(), hashes.SHA256())
        found: dict[str, Any] = json.loads(_decoded(claims))
    except (ValueError, KeyError, InvalidSignature) as exc:
        raise TokenError(type(exc).__name__) from exc
    if found["exp"] < time.time():
        raise TokenError("expired")
    return found


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
