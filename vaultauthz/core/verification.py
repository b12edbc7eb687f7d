"""How strictly a certificate is looked at: by default as every other client of Vault does it."""

from __future__ import annotations

import ssl


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
