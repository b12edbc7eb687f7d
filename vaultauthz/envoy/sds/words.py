"""Envoy's words about a secret, made fit for a log."""

from __future__ import annotations

import re
from typing import Final

_MOST: Final = 300  # characters
# A piece of a secret so long gives it away. Envoy is not known to quote secrets; should one
# ever do, its words are not worth it.
_PIECE: Final = 6
_PUBLIC: Final = re.compile(rb"-----(BEGIN|END) [A-Z ]+-----|Bearer |Basic ")


def cleaned(text: bytes, *secrets: bytes) -> str:
    """``text`` on one line, cut, in printable ASCII; nothing of it if it quotes a secret."""
    shown = re.sub(rb"[^\x21-\x7e]+", b" ", text).decode("ascii").strip()[:_MOST]
    if any(_quotes(shown, secret) for secret in secrets):
        return "(its words are left out, since they quote the secret)"
    return shown


def _quotes(text: str, secret: bytes) -> bool:
    for part in _PUBLIC.sub(b" ", secret).split():
        plain = part.decode("utf-8", "replace")
        last = max(1, len(plain) - _PIECE + 1)
        if any(plain[start : start + _PIECE] in text for start in range(last)):
            return True
    return False
