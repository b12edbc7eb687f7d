"""TOTP: a code ends with the time step that it was made for (RFC 6238).

OpenBao says with the code when it ends. Vault's answer holds the code and nothing else:
how long a step is, it says where the key is described, which shows no secret.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import floor
from typing import Final

from vaultauthz.core.grant import NOT_VAULT, Failure, Grant, Verdict
from vaultauthz.vault.ends import Now
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.transport import Answer

_CODE: Final = re.compile(r"(.+)/code/([^/]+)")
_TOLD: Final = frozenset(("expire_time", "generated", "period"))
_LONGEST: Final = 86400  # seconds; what is longer is no time step
# The first second of a step: the header that tells the time may be from after the code.
_UNSURE: Final = 1.0


def key_path(path: str) -> str:
    """Where the key is described whose codes ``path`` gives; "" where it gives none."""
    match = _CODE.fullmatch(path)
    return f"{match[1]}/keys/{match[2]}" if match else ""


def is_code(path: str, answer: Answer) -> bool:
    """Whether this is a code."""
    data = answer.get("data")
    return bool(key_path(path)) and isinstance(data, dict) and set(data) - _TOLD == {"code"}


def told(grant: Grant, answer: Answer, now: Now) -> Grant | None:
    """The code's grant by what OpenBao says beside it; None where nothing is said (Vault)."""
    end = answer["data"].get("expire_time")
    if isinstance(end, bool) or not isinstance(end, (int, float)):
        return None
    return _until(grant, min(end, now.vault + _LONGEST) - now.vault)


def unknown(key: str) -> Failure:
    """Why a code cannot be used when its key may not be looked at."""
    text = f"nobody says how long the TOTP code is good: let the policy allow read on {key}"
    return Failure(Verdict.REFUSED, text)


def bounded(grant: Grant, key: Answer, now: Now) -> Grant:
    """The code's grant, which ends with its time step.

    Raises:
        VaultError: the key's description does not tell its period.
    """
    data = key.get("data")
    period = data.get("period") if isinstance(data, dict) else None
    if isinstance(period, bool) or not isinstance(period, int) or not 1 <= period <= _LONGEST:
        raise VaultError(NOT_VAULT)
    # By Vault's clock, which the code was made by.
    since = now.vault - floor(now.vault / period) * period
    left = period - since
    if since < _UNSURE:
        return replace(grant, ttl=min(_UNSURE, left), read_again=None)
    return _until(grant, left)


def _until(grant: Grant, left: float) -> Grant:
    """The next code is not there before this one has ended: it is not asked for before."""
    left = max(0.0, left)
    return replace(grant, ttl=left, read_again=None, rotates_in=left, ends_in=left)
