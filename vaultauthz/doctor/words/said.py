"""One row of the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Verbs of Vault's command line, and what follows them; `{role}` is the path of the role,
# `{config}` that of the method's own settings, `{roles}` where its roles are listed.
ROLE: Final = (("read", "{role}"),)
CONFIG: Final = (("read", "{config}"),)
BOTH: Final = (*ROLE, *CONFIG)
ROLES: Final = (("list", "{roles}"),)


@dataclass(frozen=True, slots=True)
class Said:
    """``texts``: one of them is in Vault's, in lower case; ` … ` stands for what may be between.

    ``means`` is why the login is refused, ``mend`` what to do about it.
    """

    texts: tuple[str, ...]
    means: str
    mend: str
    commands: tuple[tuple[str, str], ...] = ROLE

    def fits(self, text: str) -> bool:
        """Whether ``text``, in lower case, is one of these."""
        return any(_has(text, each.split(" … ")) for each in self.texts)


def _has(text: str, parts: list[str]) -> bool:
    """Whether the parts are in the text, one after the other."""
    at = 0
    for part in parts:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True
