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
    """``texts``: one of them is in Vault's, as ``VaultError.says`` reads it.

    ``means`` is why the login is refused, ``mend`` what to do about it.
    """

    texts: tuple[str, ...]
    means: str
    mend: str
    commands: tuple[tuple[str, str], ...] = ROLE
