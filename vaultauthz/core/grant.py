"""What a call to Vault came to, in the words the lease machine understands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from vaultauthz.core.credential import NO_LOGIN, Login
from vaultauthz.core.template import InjectionError

_NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


class EndedSecretError(InjectionError):
    """The secret says itself that it has ended. Names the field, never the value."""

    mend = "write the one that is valid now (or have what issues it give a longer life)"


@dataclass(frozen=True, slots=True)
class Version:
    """Which edition of a static secret this is.

    ``number`` is KV v2's version, or for a static role when Vault last rotated it;
    ``created`` orders editions when the numbers begin again, because the secret was
    deleted and written anew. Both are zero
    or empty where the engine keeps none.
    """

    number: int = 0
    created: str = ""  # RFC 3339 in UTC

    def older_than(self, other: Version) -> bool:
        """Whether this came before ``other``: the answer of a standby that lags."""
        # Without the Z text order is time order, also where zeros of a fraction are cut.
        mine, its = self.created.rstrip("Z"), other.created.rstrip("Z")
        return self != other and self.number <= other.number and mine <= its


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """A credential as Vault gave it.

    ``payload`` is what the caller made of the secret's fields and is only
    compared here. ``ttl`` is in seconds from the moment the call was sent;
    ``read_again`` is set for a static secret, which is read on a schedule
    instead of renewed. ``request_id`` joins it with Vault's audit log. ``uses`` is the
    number of requests that a login token is good for, 0 for any.

    ``ends_in``: seconds until the credential ends by what it says of itself, which no
    renewal and no other reading moves; ``field_ends`` the same of single fields, of
    which only those count that are used (see ``using``). ``not_after``: when the certificate
    that is used ends, in seconds since 1970; ``certificates`` the same of single fields.
    """

    payload: Any
    ttl: float = inf
    lease_id: str = ""
    renewable: bool = False
    read_again: float | None = None
    rotates_in: float | None = None  # when Vault itself is to change it: a static role
    version: Version = Version()
    credential_id: str = ""
    login: Login = NO_LOGIN
    request_id: str = ""
    uses: int = 0
    ends_in: float = inf
    field_ends: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    not_after: float = inf
    certificates: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    policies: tuple[str, ...] = ()  # of a login token

    def __repr__(self) -> str:
        return f"<Grant {self.credential_id or self.lease_id or 'static'}>"

    @property
    def life(self) -> float:
        """Seconds from sending until it must not be used any more."""
        return min(self.ttl, self.ends_in)

    @property
    def enforced(self) -> bool:
        """Whether its end is one that others hold it to, and not a caution of ours."""
        ours = self.read_again is not None or self.rotates_in is not None
        return bool(self.lease_id) or not ours or self.ends_in < self.ttl

    def using(self, fields: Iterable[str]) -> Grant:
        """This, of which ``fields`` go on requests: it ends with the first of them."""
        used = tuple(fields)
        ends = [self.field_ends[name] for name in used if name in self.field_ends]
        not_after = [self.certificates[name] for name in used if name in self.certificates]
        return replace(
            self,
            ends_in=min((self.ends_in, *ends)),
            field_ends=_NOTHING,
            not_after=min((self.not_after, *not_after)),
            certificates=_NOTHING,
        )

    def fitting(self, fields: Iterable[str]) -> Grant:
        """As ``using``, for an upstream that is to be given it.

        Raises:
            EndedSecretError: it has ended by what it says of itself.
        """
        used = tuple(fields)
        for name in used:
            if self.field_ends.get(name, 1.0) <= 0.0:
                raise EndedSecretError(
                    f"the field {name} holds a JSON Web Token whose exp has passed, "
                    "or a certificate whose notAfter has"
                )
        if self.ends_in <= 0.0 or (not self.lease_id and self.ttl <= 0.0):
            raise EndedSecretError("the secret says that it has ended")
        return self.using(used)

    def same_as(self, other: Grant) -> bool:
        """Whether both are the same credential, so that nothing need be replaced."""
        if self.lease_id or other.lease_id:
            return self.lease_id == other.lease_id
        return self.version == other.version and bool(self.payload == other.payload)


@dataclass(frozen=True, slots=True)
class Renewal:
    """Vault's answer to a renewal: the new ``ttl`` in seconds, from sending."""

    ttl: float
    renewable: bool = True
    request_id: str = ""


class Verdict(Enum):
    """What a failed call says about trying again."""

    RETRY = "retry"  # passes by itself: unreachable, sealed, overloaded
    REFUSED = "refused"  # Vault said no, and will until somebody changes something
    # Another try does harm: only a change or a command may cause one, or `again_in`.
    LOCKED = "locked"
    LEASE_GONE = "lease gone"  # the lease does not exist any more
    SECRET_GONE = "secret gone"  # nothing is stored at the path (any more)
    TOKEN_DEAD = "token dead"  # the login token does not exist any more


class NodeState(NamedTuple):
    """An address of Vault's; ``since`` is in seconds.

    ``works`` is None until a call has gone there, and again where one failed (``since``) that long ago
    that nothing is known of now.
    """

    address: str
    works: bool | None = None
    since: float | None = None  # when it began not to
    reason: str = ""  # why it does not; a phrase of ours


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that did not work.

    ``reason`` is a phrase of ours for logs and audit, without Vault's text;
    ``retry_after`` is the server's wish in seconds, 0 when it has none. ``away``:
    Vault itself did not answer, or could not serve, so that no other call would fare
    better; a failure of one engine or of the service behind it is not that.
    """

    verdict: Verdict
    reason: str
    retry_after: float = 0.0
    away: bool = False
    again_in: float = inf  # seconds, of LOCKED: when another try does no harm any more

    @property
    def word(self) -> str:
        """One of ``FAILURE_WORDS``, which stay the same whatever the reason says."""
        return _AWAY if self.away else self.verdict.value.replace(" ", "_")


_AWAY: Final = "away"
FAILURE_WORDS: Final = (_AWAY, *(verdict.value.replace(" ", "_") for verdict in Verdict))

NOT_VAULT: Final = Failure(Verdict.RETRY, "the answer is not Vault's (no JSON object)")

# What Vault has answered as it should, and is not used. Nobody but the machine knows of it.
ENDED_ON_ITS_WAY: Final = Failure(Verdict.RETRY, "it had ended when it arrived")
OLDER: Final = Failure(Verdict.RETRY, "Vault answered an older version")
DELETED: Final = Failure(Verdict.RETRY, "Vault answered a deleted version")
NOT_USED: Final = frozenset(each.reason for each in (ENDED_ON_ITS_WAY, OLDER, DELETED))
