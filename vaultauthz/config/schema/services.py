"""``upstreams``."""

from __future__ import annotations

from vaultauthz.config import kong_logs, lifetimes, secret_source
from vaultauthz.config import upstreams as reader
from vaultauthz.config.schema.forms import (
    Schema,
    choice,
    closed,
    duration,
    exactly_one,
    flag,
    many,
    named,
    text,
    whole,
)
from vaultauthz.config.schema.injections import injection
from vaultauthz.config.schema.rules import callers, rules
from vaultauthz.config.values import KvSecret, Upstream
from vaultauthz.core.callers import Callers

_USUAL = Upstream("", (), {}, (), Callers(None))
_USUAL_KV = KvSecret("")


def upstreams() -> Schema:
    """The section ``upstreams``."""
    upstream = closed(
        reader.KEYS,
        {
            "secret": _secret(),
            "inject": many(injection(), "Where the credential goes.", least=1),
            "callers": callers(),
            "deny": rules("Who may not, whatever callers says."),
            "stages": many(text("The name of a stage."), "Default: every stage.", least=1),
            "strip": many(text("A header's name."), "Headers of the client to drop."),
            "optional": flag("Readiness does not wait for it."),
            "callers_enforced_by": choice(
                reader.ENFORCERS,
                "envoy: SDS hands the credential out, and Envoy's RBAC filter asks about callers.",
                usual=_USUAL.callers_enforced_by,
            ),
            kong_logs.QUERY: _accepted(
                "With inject: query, under Kong, whose error.log has it then."
            ),
            kong_logs.USERNAME: _accepted(
                "With a credential as the user name of basic, which Kong's access.log has then."
            ),
            "per": choice(reader.PER, "Who shares a lease.", usual=_USUAL.per),
            "max_callers": whole(
                "With per: caller: leases at once.", reader.MOST_CALLERS, _USUAL.max_callers
            ),
            "idle": duration(
                "With per: caller: how long a lease is kept without use.", reader.IDLE, _USUAL.idle
            ),
            "hold": duration(
                "With per: request: how long until its lease is revoked.", reader.HOLD, _USUAL.hold
            ),
        },
        "A service behind the gateway and the credential it wants.",
        required=("secret", "inject", "callers"),
    )
    return named(upstream, "Each service behind the gateway by its name.")


def _accepted(description: str) -> Schema:
    return {"description": description, "const": kong_logs.WORD}


def _secret() -> Schema:
    return closed(
        secret_source.KEYS,
        {
            "path": text("What `vault read PATH` gives, of any engine."),
            "kv": text("A KV secret, MOUNT/NAME; version 1 or 2."),
            "static_role": text("A database login whose password Vault rotates."),
            "pki": text("A certificate, as in pki/issue/ROLE."),
            "method": choice(secret_source.METHODS, "With path.", usual="read"),
            "params": {
                "description": "What is written, as in `vault write PATH key=value`.",
                "type": "object",
                "additionalProperties": text("A parameter."),
            },
            "ttl": duration(
                "The life that a credential is asked to have; default: the stage's.",
                lifetimes.LIFETIME,
            ),
            "increment": duration(
                "What renewals of the lease ask for; default: the stage's.", lifetimes.LIFETIME
            ),
            "refresh": duration("How often it is read.", secret_source.REFRESH, _USUAL_KV.refresh),
            "max_stale": duration(
                "How long it is used without having been read; default: 1h, or three times refresh."
            ),
            "version": whole(
                "Pins a version of KV v2; default: the newest.", secret_source.VERSION
            ),
        },
        "Where in Vault the credential comes from; {stage} is the stage's name.",
        **exactly_one(secret_source.FORMS),
        dependentSchemas={
            key: {"anyOf": [{"required": [form]} for form in forms]}
            for key, forms in secret_source.GOES_WITH.items()
        },
    )
