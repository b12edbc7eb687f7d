"""Who may use the socket besides its owner: a group by its name, or by its number.

Kubernetes and containers have numbers only: ``fsGroup`` and ``supplementalGroups`` are in no
``/etc/group``.
"""

from __future__ import annotations

import grp
from typing import Final

# To chown, the number after it means "as it is": the socket would be for another group.
LAST: Final = 2**32 - 2


def group_number(text: str) -> int:
    """The number of a group; a name wins over a number, as with chown(1).

    Raises:
        LookupError: there is no group of this name, and it is no number of one.
    """
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):  # ValueError: a NUL in it
        if text.isascii() and text.isdecimal() and len(text) <= len(str(LAST)):
            number = int(text)
            if number <= LAST:
                return number
        raise LookupError(
            f"there is no group {text!r:.60}; give its name, or its number (0 to {LAST})"
        ) from None
