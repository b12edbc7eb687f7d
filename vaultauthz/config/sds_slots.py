"""What SDS hands out of an upstream: its slots, their names, and what keeps it back.

One rule for who prints the names into an Envoy's configuration, who answers them, and who
warns of those that nobody would ever answer. A slot is a header's name in lower case, or
``tls`` for the certificate; its secret is named ``STAGE/UPSTREAM``, or ``STAGE/UPSTREAM/SLOT``
where the upstream has more than one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vaultauthz.config.values import Upstream
from vaultauthz.core.callers import Callers
from vaultauthz.core.injection import Injection, header_names

TLS: Final = "tls"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why SDS does not hand something out: a key of the upstream, and words that follow "it"."""

    key: str
    why: str


def slots(upstream: Upstream) -> tuple[str, ...]:
    """The slots that a secret of SDS fills; () where there is none.

    Beside a form that SDS cannot carry no header is one: it would be half a credential, and
    a check sets both. The certificate is, as no check carries it.
    """
    tls = (TLS,) if any(injection.is_certificate for injection in upstream.inject) else ()
    return tls if unfit(upstream.inject) else (*header_names(upstream.inject), *tls)


def secret_name(stage: str, upstream: Upstream, slot: str) -> str:
    """The name of the secret that fills ``slot``, one of ``slots``."""
    several = len(slots(upstream)) > 1
    return "/".join((stage, upstream.name, *((slot,) if several else ())))


def unfit(inject: Iterable[Injection]) -> tuple[str, ...]:
    """The forms that SDS cannot carry, each once, in the configuration's words."""
    return tuple(dict.fromkeys(filter(None, map(_unfit, inject))))


def _unfit(injection: Injection) -> str:
    """Its name, unless it is all in headers and certificates that are the same for each request."""
    if injection.signature or injection.parameter_names or injection.cookie_names:
        return injection.form
    if TLS in injection.header_names:
        return f"{injection.form} {TLS} (in SDS that names the certificate)"
    return ""


def kept_back(upstream: Upstream) -> Obstacle | None:
    """Why no slot of this upstream is handed out; None where all are."""
    if upstream.per != "instance":
        why = "its leases are made when requests come, and SDS has one for all; say per: instance"
        return Obstacle("per", f"has per: {upstream.per}: {why}")
    if has_rules(upstream.callers) and upstream.callers_enforced_by != "envoy":
        key = "deny" if upstream.callers.allow is None else "callers"
        why = f"has {key}, which SDS asks nobody about; say callers_enforced_by: envoy"
        return Obstacle(key, why)
    return None


def has_rules(callers: Callers) -> bool:
    """Whether it depends on the request who may use the credential."""
    return callers.allow is not None or bool(callers.deny)


def never_answered(upstream: Upstream) -> Obstacle | None:
    """Why SDS hands nothing out where the configuration counts on it; None where all is well.

    A certificate comes by SDS only, and ``callers_enforced_by: envoy`` is said for its sake.
    """
    if TLS in slots(upstream):
        return kept_back(upstream)
    if upstream.callers_enforced_by != "envoy":
        return None
    if not slots(upstream):
        forms = " and ".join(unfit(upstream.inject))
        return Obstacle(
            "callers_enforced_by",
            f"injects {forms}, which SDS cannot carry; put it in a header, or remove this key",
        )
    return kept_back(upstream)
