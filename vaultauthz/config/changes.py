"""What differs between two configurations, for a reload."""

from __future__ import annotations

from dataclasses import dataclass

from vaultauthz.config.values import Config, Upstream, Vault
from vaultauthz.core.routing import StageUpstream


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reload has to do; places are (stage, upstream).

    Each place is in one of ``added``, ``kept``, ``replaced`` and ``dropped``. Of the
    kept ones, which are in both configurations, the ``changed`` ones need another
    credential, and of the rest only the rules may differ.
    """

    added: tuple[StageUpstream, ...]
    changed: frozenset[StageUpstream]
    kept: tuple[StageUpstream, ...]
    dropped: tuple[StageUpstream, ...]
    replaced: tuple[StageUpstream, ...]  # in both, with leases of each caller's or request's own
    stages_added: tuple[str, ...]
    stages_changed: tuple[str, ...]  # these log in anew
    stages_moved: tuple[str, ...]  # … of which to another Vault, with other things stored in it
    stages_adjusted: tuple[str, ...]  # reach the same Vault by the same login in another way
    stages_dropped: tuple[str, ...]
    rules: bool  # callers, bounds, routes or what becomes of unmatched requests
    at_restart: tuple[str, ...]  # sections that differ and are read at start only

    def __bool__(self) -> bool:
        return bool(str(self))

    def __str__(self) -> str:
        """In words, for the log; "" when nothing differs that a reload takes over."""
        counted = [
            (len(self.added), "upstream added"),
            (len(self.changed) + len(self.replaced), "upstream changed"),
            (len(self.dropped), "upstream dropped"),
            (len(self.stages_added), "stage added"),
            (len(self.stages_changed), "stage with another login"),
            (len(self.stages_adjusted), "stage with another way to Vault"),
            (len(self.stages_dropped), "stage dropped"),
        ]
        words = [f"{number}x {what}" for number, what in counted if number]
        return ", ".join([*words, *(["rules changed"] if self.rules else [])])


def compare(old: Config, new: Config) -> Changes:
    """What a reload from ``old`` to ``new`` has to do."""
    before, after = _places(old), _places(new)
    stages = [name for name in new.stages if name in old.stages]
    replaced = tuple(
        place
        for place in after
        if place in before and _replaced(before[place], after[place], place[0])
    )
    moved = tuple(name for name in stages if _moved(old.vault_of(name), new.vault_of(name)))
    changed = tuple(
        name for name in stages if name in moved or old.stages[name].auth != new.stages[name].auth
    )
    return Changes(
        added=tuple(place for place in after if place not in before),
        changed=frozenset(
            place
            for place in after
            if place in before
            and place not in replaced
            and _wants(after[place], place[0]) != _wants(before[place], place[0])
        ),
        kept=tuple(place for place in after if place in before and place not in replaced),
        replaced=replaced,
        dropped=tuple(place for place in before if place not in after),
        stages_added=tuple(name for name in new.stages if name not in old.stages),
        stages_changed=changed,
        stages_moved=moved,
        stages_adjusted=tuple(
            name
            for name in stages
            if name not in changed and old.vault_of(name) != new.vault_of(name)
        ),
        stages_dropped=tuple(name for name in old.stages if name not in new.stages),
        rules=_rules(old) != _rules(new),
        at_restart=tuple(
            name for name in ("listen", "audit") if getattr(old, name) != getattr(new, name)
        ),
    )


def _places(config: Config) -> dict[StageUpstream, Upstream]:
    return {(stage, u.name): u for u in config.upstreams.values() for stage in u.stages}


def _wants(upstream: Upstream, stage: str) -> object:
    """What the credential is made from: when it differs, another must be fetched."""
    return upstream.secrets[stage], upstream.inject, upstream.strip


def _replaced(before: Upstream, after: Upstream, stage: str) -> bool:
    """Whether the leases of a scope must be given back, to begin another."""
    if before.per == after.per == "instance":
        return False
    return (before.per, _wants(before, stage)) != (after.per, _wants(after, stage))


def _moved(before: Vault, after: Vault) -> bool:
    """Whether what is stored there has nothing to do with what was stored here."""
    if before.namespace != after.namespace:
        return True
    return not set(before.addresses) & set(after.addresses)  # else they are one cluster's nodes


def _rules(config: Config) -> object:
    callers = {
        name: (upstream.callers, upstream.callers_enforced_by)
        for name, upstream in config.upstreams.items()
    }
    optional = {name: upstream.optional for name, upstream in config.upstreams.items()}
    bounds = {n: (u.max_callers, u.idle, u.hold) for n, u in config.upstreams.items()}
    return callers, optional, bounds, config.routes, config.unmatched
