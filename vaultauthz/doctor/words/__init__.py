"""Vault's own words at a login that it refuses, and the setting that each of them is about.

The texts are those of Vault 1.21, of its auth plugins of that release and of OpenBao 2.7,
from their sources (named in each file) or as they were answered in our tests. They are
looked for in an answer's whole text (``VaultError.says``): what is told of it is cut, and
hides each word that was sent.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from vaultauthz.doctor.words import aws, azure, gcp, issued, kept
from vaultauthz.doctor.words.said import Said

_OF_METHOD: Final[dict[str, tuple[Said, ...]]] = {
    "approle": kept.APPROLE,
    "cert": kept.CERT,
    "userpass": (),
    "ldap": kept.LDAP,
    "jwt": issued.JWT,
    "kubernetes": issued.KUBERNETES,
    "aws": aws.ROWS,
    "gcp": gcp.ROWS,
    "azure": azure.ROWS,
}


PHRASES: Final = frozenset(
    phrase for rows in _OF_METHOD.values() for row in rows for phrase in row.texts
)


def said(method: str, phrases: Collection[str]) -> Said | None:
    """The first row of the method that one of the phrases is of; None where none is."""
    rows = _OF_METHOD.get(method, ())
    return next((row for row in rows if any(text in phrases for text in row.texts)), None)
