"""What may be seen, in which time, and the sentence of the docs that says so: data, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

EXT_AUTHZ, SDS = "ext_authz", "sds"
MODES: Final = (EXT_AUTHZ, SDS)

# What a fault takes hold of; two faults of a plan never hold the same one at once.
VAULT, NETWORK, DATABASE, ENVOY, OURS, AUDIT = "bao", "net", "pg", "envoy", "ours", "audit"


class Cause(Enum):
    """Why a credential is no good any more."""

    TIME = "its time was over"
    OURS = "we revoked it"
    LEASE = "an operator revoked its lease"
    TOKEN = "an operator revoked its token"
    ROLE = "an operator dropped its role"
    CHANGED = "the secret was changed"
    DELETED = "the secret was deleted"
    UNKNOWN = "nobody knows why"


@dataclass(frozen=True)
class Bound:
    """How long a credential may still be sent after its end.

    ``seconds`` and ``share`` of the credential's TTL (a KV secret's `refresh`) are added up. Time in which one
    of ``hidden`` was disturbed does not count: then nobody could know, or nobody could be told.
    """

    seconds: float
    share: float
    hidden: frozenset[str]
    source: str


_CALLS: Final = frozenset({VAULT, NETWORK, OURS})  # without them Vault's word does not reach us
_HANDED: Final = frozenset({ENVOY, OURS})  # without them ours does not reach an Envoy with SDS
_NONE: Final[frozenset[str]] = frozenset()

_NEVER: Final = "README: until its lease ends, after that 503, never the old credential"
_BY_TIME: Final = (
    "docs/envoy.md: an ended lease is taken back by time; not while vaultauthz is gone"
)
_RENEWAL: Final = "docs/architecture.md: a renewal is asked for at 60 to 75 % of the lease"
_REFRESH: Final = (
    "README: read again every refresh; an older one never again, a deleted one not any more"
)
_REJECTED: Final = (
    "docs/envoy.md: a 401 asks for another; README: a failing renewal mints in the last third"
)

# A renewal at three quarters of the lease at the latest, and a second for the call and what follows.
_NEXT_RENEWAL: Final = (1.0, 0.75)

BOUNDS: Final[dict[str, dict[Cause, Bound]]] = {
    EXT_AUTHZ: {
        Cause.TIME: Bound(0.0, 0.0, _NONE, _NEVER),
        Cause.OURS: Bound(0.0, 0.0, _NONE, _NEVER),
        Cause.LEASE: Bound(*_NEXT_RENEWAL, _CALLS, _RENEWAL),
        Cause.TOKEN: Bound(*_NEXT_RENEWAL, _CALLS, _RENEWAL),
        Cause.ROLE: Bound(0.0, 1.0, _NONE, _REJECTED),
        Cause.CHANGED: Bound(1.0, 1.0, _CALLS, _REFRESH),
        Cause.DELETED: Bound(1.0, 1.0, _CALLS, _REFRESH),
        Cause.UNKNOWN: Bound(0.0, 0.0, _NONE, _NEVER),
    },
    SDS: {
        Cause.TIME: Bound(1.0, 0.0, _HANDED, _BY_TIME),
        Cause.OURS: Bound(1.0, 0.0, _HANDED, _BY_TIME),
        Cause.LEASE: Bound(2.0, 0.75, _CALLS | _HANDED, _RENEWAL),
        Cause.TOKEN: Bound(2.0, 0.75, _CALLS | _HANDED, _RENEWAL),
        Cause.ROLE: Bound(1.0, 1.0, _HANDED, _REJECTED),
        Cause.CHANGED: Bound(2.0, 1.0, _CALLS | _HANDED, _REFRESH),
        Cause.DELETED: Bound(2.0, 1.0, _CALLS | _HANDED, _REFRESH),
        Cause.UNKNOWN: Bound(1.0, 0.0, _HANDED, _BY_TIME),
    },
}


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it holds, how long it lasts, and how long after it a refusal is no surprise.

    ``recovers`` is 0 where the docs promise that no request is lost. ``disturbs`` is what it keeps from
    working meanwhile, and until it has recovered.
    """

    does: str
    holds: tuple[str, ...]
    seconds: tuple[float, float]
    recovers: float
    disturbs: tuple[str, ...]
    source: str
    weight: int = 2
    mild: bool = False
    needs: str = ""  # of the machine, else it is left out


# A lease of 20 s that an operator has revoked is found out by its renewal, after 15 s at the latest; then
# two calls of 2 s, and what follows. The longest backoff of what is renewed here is less (a third of 24 s).
BACK: Final = 20.0
# What has nothing yet, as a caller's first lease, is asked for a minute apart at the most.
FIRST_BACK: Final = 66.0
_BACKOFF: Final = (
    "README: failed calls back off; the next retry renews or fetches, without a restart"
)
_RESTART: Final = "README: killed: Envoy answers 503; stopped: it refuses new checks"
_LOSSLESS: Final = "README: no request is lost"
_ROTATES: Final = "README: rotate: the old one drains"
_OPERATOR: Final = "docs/chaos.md: the operator's word is noticed at the next call"

KINDS: Final[dict[str, Kind]] = {
    "net.cut": Kind(
        "every call to Vault is reset",
        (NETWORK,),
        (1, 14),
        BACK,
        (NETWORK,),
        _BACKOFF,
        3,
        mild=True,
    ),
    "net.hole": Kind(
        "calls to Vault are never answered", (NETWORK,), (1, 12), BACK, (NETWORK,), _BACKOFF
    ),
    "net.slow": Kind("Vault's answers are late", (NETWORK,), (2, 12), BACK, (NETWORK,), _BACKOFF),
    "net.torn": Kind(
        "half of Vault's answer gets through", (NETWORK,), (0.5, 4), BACK, (NETWORK,), _BACKOFF
    ),
    "net.status": Kind(
        "a proxy answers 429, 500, 502, 503",
        (NETWORK,),
        (1, 10),
        BACK,
        (NETWORK,),
        _BACKOFF,
        3,
        mild=True,
    ),
    "net.lossy": Kind(
        "every second call is reset", (NETWORK,), (2, 12), BACK, (NETWORK,), _BACKOFF
    ),
    "bao.freeze": Kind("SIGSTOP to OpenBao", (VAULT,), (1, 10), BACK, (VAULT,), _BACKOFF),
    "bao.kill": Kind("SIGKILL to OpenBao", (VAULT,), (0.5, 6), BACK, (VAULT,), _BACKOFF, mild=True),
    "bao.stop": Kind("SIGTERM to OpenBao", (VAULT,), (0.5, 6), BACK, (VAULT,), _BACKOFF),
    "bao.seal": Kind("OpenBao is sealed", (VAULT,), (1, 10), BACK, (VAULT,), _BACKOFF),
    "bao.role": Kind("a database role is deleted", (VAULT,), (2, 12), BACK, (VAULT,), _BACKOFF),
    "bao.lease": Kind(
        "an operator revokes a lease",
        (VAULT, DATABASE),
        (0.1, 0.1),
        BACK,
        (VAULT,),
        _OPERATOR,
        3,
        mild=True,
    ),
    "bao.prefix": Kind(
        "an operator revokes a role's leases",
        (VAULT, DATABASE),
        (0.1, 0.1),
        BACK,
        (VAULT,),
        _OPERATOR,
    ),
    "bao.token": Kind(
        "an operator revokes a login token",
        (VAULT, DATABASE),
        (0.1, 0.1),
        BACK,
        (VAULT,),
        _OPERATOR,
        3,
        mild=True,
    ),
    "kv.put": Kind("a KV secret is changed", (VAULT,), (0.1, 0.1), 0, (), _REFRESH, 5, mild=True),
    "kv.delete": Kind(
        "a KV version is deleted, another comes", (VAULT,), (1, 6), 4, (), _REFRESH, 2
    ),
    "pg.freeze": Kind(
        "SIGSTOP to PostgreSQL's server", (DATABASE,), (0.5, 5), BACK, (DATABASE,), _BACKOFF
    ),
    "pg.kill": Kind(
        "SIGQUIT to PostgreSQL", (DATABASE,), (0.5, 5), BACK, (DATABASE,), _BACKOFF, mild=True
    ),
    "pg.stop": Kind("PostgreSQL is stopped", (DATABASE,), (0.5, 5), BACK, (DATABASE,), _BACKOFF),
    "pg.drop": Kind(
        "an operator drops a role in use", (DATABASE, VAULT), (0.1, 0.1), 35, (), _REJECTED
    ),
    "envoy.freeze": Kind(
        "SIGSTOP to Envoy", (ENVOY,), (0.5, 5), 3, (ENVOY,), "a frozen gateway answers nobody"
    ),
    "envoy.kill": Kind(
        "SIGKILL to Envoy", (ENVOY,), (0.2, 2), 4, (ENVOY,), "a killed gateway answers nobody", 1
    ),
    "ours.freeze": Kind("SIGSTOP to vaultauthz", (OURS,), (0.3, 14), BACK, (OURS,), _RESTART, 3),
    "ours.kill": Kind(
        "SIGKILL to vaultauthz", (OURS,), (0.2, 5), BACK, (OURS,), _RESTART, 3, mild=True
    ),
    "ours.stop": Kind("SIGTERM to vaultauthz", (OURS,), (0.2, 4), BACK, (OURS,), _RESTART, 2),
    "ours.clock": Kind(
        "restarted, its boot clock stepped",
        (OURS,),
        (0.2, 1),
        BACK,
        (OURS,),
        _RESTART,
        1,
        needs="timens",
    ),
    "ours.reload": Kind(
        "its configuration changes, and back", (OURS,), (1, 12), 0, (), _LOSSLESS, 4, mild=True
    ),
    "ours.invalid": Kind(
        "its configuration has a mistake", (OURS,), (1, 6), 0, (), _LOSSLESS, 2, mild=True
    ),
    "ours.hup": Kind("SIGHUP, nothing has changed", (OURS,), (0.1, 0.1), 0, (), _LOSSLESS, 1),
    "ours.rotate": Kind("vaultauthz rotate", (OURS,), (0.1, 0.1), 0, (), _ROTATES, 4, mild=True),
    "ours.revoke": Kind(
        "vaultauthz revoke", (OURS,), (0.1, 0.1), BACK, (), "README: revoke ended at once", 3
    ),
    "audit.rename": Kind(
        "its audit log is moved away",
        (AUDIT,),
        (0.1, 0.1),
        0,
        (),
        "docs/configuration.md: a new one is begun",
        2,
        mild=True,
    ),
    "audit.full": Kind(
        "its audit log's disk is full",
        (AUDIT, OURS),
        (0.5, 6),
        5,
        (AUDIT,),
        "README: checks are refused with 503 overloaded",
    ),
}
