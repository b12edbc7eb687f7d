"""A certificate that is in use and ends: whose it is, and when; and how strictly others' are looked at.

Nothing of it is secret.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Final

# What it is used for.
GRPC, ADMIN = "grpc", "admin"  # a listener of ours shows it to clients
VAULT = "vault"  # we show it to Vault
UPSTREAM = "upstream"  # Envoy shows it to an upstream: Vault's PKI engine has issued it, as a rule
USES: Final = (GRPC, ADMIN, VAULT, UPSTREAM)

SOON: Final = 7 * 86_400.0  # seconds; less is told of as near …
_LITTLE: Final = 0.1  # … or, of a life that is short, this part of it
_YEAR_10000: Final = 253_402_300_800  # in seconds since 1970


@dataclass(frozen=True, slots=True)
class EndingCertificate:
    """``use`` is one of ``USES``; its times are in seconds since 1970, infinite where it does not say.

    ``stage`` and ``upstream`` say whose it is, where there are several of that use. Of one that comes
    from ``file``: ``trouble`` says why what is there now is not taken, ``taken`` and ``refused`` how often
    another was found there since the start.
    """

    use: str
    not_after: float = inf
    stage: str = ""
    upstream: str = ""
    file: str = ""
    trouble: str = ""
    taken: int = 0
    refused: int = 0
    not_before: float = -inf

    @property
    def name(self) -> str:
        """For people: the key of the configuration, or what it is for."""
        if self.use in (GRPC, ADMIN):
            return f"listen.{self.use}_tls"
        if self.use == VAULT:
            return f"client certificate for Vault{f' in {self.stage}' if self.stage else ''}"
        return f"{self.upstream} in {self.stage}"

    def seconds_left(self, now: float) -> float:
        """From ``now``, in seconds since 1970; less than 0 once it has ended."""
        return self.not_after - now

    def near(self, now: float) -> bool:
        """Whether its end is, or has been: what renews one that lives long, or short, does so well before."""
        life = self.not_after - self.not_before
        left = self.seconds_left(now)
        return left <= 0 or left < min(SOON, life * _LITTLE)


def date(when: float) -> str:
    """A moment in seconds since 1970 as RFC 3339 has it, in UTC; at the ends of time, in words."""
    if not 0 <= when < _YEAR_10000:
        return "at no time" if when > 0 else "before 1970"
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_others_do(context: ssl.SSLContext, *, strict: bool = False) -> ssl.SSLContext:
    """The same verification under every version of Python, which from 3.13 on asks for more.

    Certificates are then refused for the form of an extension (RFC 5280, 4.2: an authority
    without ``keyUsage``, a leaf without ``authorityKeyIdentifier``), as home-made ones often
    have it; Go, which `bao` and `vault` are written in, curl and Python before 3.13 take them.
    ``strict`` asks for it under each version. What is configured as an authority is trusted
    as it is, also where it is an intermediate one, as Go and curl do and Python from 3.13 on.
    """
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
