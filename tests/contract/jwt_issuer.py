"""A signer of JWTs, as an identity provider or a Kubernetes API server is one."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


class Issuer:
    """Signs with RS256 and a key of its own; ``kid`` names the key."""

    def __init__(self, name: str = "https://issuer.test", kid: str = "key-1") -> None:
        self.name = name
        self.kid = kid
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def token(self, subject: str, audience: str, *, lives: float = 600.0, **claims: Any) -> str:
        """A JWT for ``subject`` that ends in ``lives`` seconds; ``claims`` are added."""
        now = int(time.time())
        payload = {
            "iss": self.name,
            "sub": subject,
            "aud": [audience],
            # Begun long enough ago for a server to take one that has ended, or not.
            "iat": now - 7200,
            "nbf": now - 7200,
            "exp": now + int(lives),
            **claims,
        }
        signed = b".".join(
            _base64url(json.dumps(part).encode())
            for part in ({"alg": "RS256", "typ": "JWT", "kid": self.kid}, payload)
        )
        signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _base64url(signature)).decode()

    @property
    def public_pem(self) -> str:
        """The key to check with, as PEM."""
        return (
            self._key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    @property
    def jwks(self) -> Mapping[str, Any]:
        """The key to check with, as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid}
        return {"keys": [{**key, "n": _number(numbers.n), "e": _number(numbers.e)}]}


def _number(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
