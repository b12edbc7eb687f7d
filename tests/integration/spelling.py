"""Commands as the server at hand spells them: OpenBao's `bao`, or HashiCorp's `vault`."""

from __future__ import annotations

import re

from vaultauthz.demo.parts import binaries


def spelled(text: str, variables: str = "") -> str:
    """The text, which says `bao` and `BAO_`, in that spelling.

    ``variables``: how they begin, where that is not the server's own way.
    """
    binary = binaries.vault()
    text = re.sub(r"\bbao(?= )", binary.cli, text)
    return re.sub(r"\bBAO_", variables or binary.variables, text)
