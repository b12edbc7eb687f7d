"""Vault's own words at a login that it refuses, and the setting that each of them is about.

The texts are those of Vault 1.21, of its auth plugins of that release and of OpenBao 2.7,
from their sources (named in each file) or as they were answered in our tests. They are
looked for in what is told of an answer, which is cut and has its credentials hidden
(``core.outside``): so the fixed parts at a text's beginning count, and no names.
"""

from __future__ import annotations

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


def said(method: str, detail: str) -> Said | None:
    """The first row of the method that fits the text; None where none does."""
    text = detail.lower()
    return next((row for row in _OF_METHOD.get(method, ()) if row.fits(text)), None)
