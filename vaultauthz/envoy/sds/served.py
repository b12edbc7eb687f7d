"""A secret as it goes to Envoy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vaultauthz.core.credential import Credential

# Versions that stand for no credential. Those of credentials have a dash in them.
WITHDRAWN: Final = "withdrawn"  # an empty secret: Envoy refuses the requests that want it
ABSENT: Final = "absent"  # there is no such secret

Place = tuple[str, str]  # stage, upstream


@dataclass(frozen=True, slots=True, repr=False)
class Served:
    """What a name stands for: ``value`` is the encoded Secret, in clear; None when ABSENT."""

    name: str
    version: str
    value: bytes | None
    credential: Credential | None = None

    def __repr__(self) -> str:
        return f"<Served {self.name} {self.version}>"

    @property
    def ends_at(self) -> float:
        """Until when its credential is good, by the keeper's clock; it may move."""
        credential = self.credential
        return credential.last_at if credential else 0.0


# The secret of a name as it is now. None: there is nothing to say yet, and Envoy keeps
# what it may have.
Lookup = Callable[[str], Served | None]


def place_of(name: str) -> Place:
    """The stage and the upstream in a secret's name."""
    stage, _, rest = name.partition("/")
    return stage, rest.partition("/")[0]
