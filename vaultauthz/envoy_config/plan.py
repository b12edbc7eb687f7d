"""What an Envoy has to be configured for: the upstreams, the hosts that lead to them, the needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vaultauthz.config.values import Config, Destination, Upstream
from vaultauthz.core.injection import Signature, header_names, needs_body, unwanted
from vaultauthz.core.readings import long_names
from vaultauthz.core.routing import Route, StageUpstream

# Clusters of the printed files that are no upstream's.
OWN_CLUSTERS = frozenset(("vaultauthz", "vaultauthz_logs", "identity_provider"))


@dataclass(frozen=True, slots=True)
class Target:
    """One upstream in one stage; it has a cluster of its own."""

    upstream: Upstream
    stage: str
    cluster: str

    @property
    def to(self) -> Destination | None:
        """Where the service is; None where the configuration does not say."""
        return self.upstream.to.get(self.stage)

    @property
    def signature(self) -> Signature | None:
        """What is signed of its requests, if anything is."""
        return next((i.signature for i in self.upstream.inject if i.signature), None)

    @property
    def signs_body(self) -> bool:
        """Whether vaultauthz has to see the body of each request to it."""
        return needs_body(self.upstream.inject)


@dataclass(frozen=True, slots=True)
class PathRoute:
    """Requests below ``prefix`` go to ``target``; None: to nobody, as it is left out."""

    prefix: str
    target: Target | None


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """Requests for ``domain``; ``example``: the configuration names none, so it is made up."""

    domain: str
    routes: tuple[PathRoute, ...]
    example: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the printed files depend on."""

    config: Config
    targets: tuple[Target, ...]

    @classmethod
    def of(cls, config: Config) -> Plan:
        """The plan for every upstream of ``config``."""
        named = len(config.stages) > 1 or bool(OWN_CLUSTERS & config.upstreams.keys())
        targets = (
            Target(upstream, stage, f"{stage}/{upstream.name}" if named else upstream.name)
            for upstream in config.upstreams.values()
            for stage in upstream.stages
        )
        return cls(config, tuple(targets))

    @property
    def unreached(self) -> tuple[Target, ...]:
        """Those that no route leads to."""
        reached = {(route.stage, route.upstream) for route in self.config.routes}
        return tuple(t for t in self.targets if (t.stage, t.upstream.name) not in reached)

    def only(self, targets: Iterable[Target]) -> Plan:
        """The same for these targets alone."""
        return Plan(self.config, tuple(targets))

    @property
    def has_node(self) -> bool:
        """Whether the configuration says which Envoy it is."""
        return self.config.gateway is not None and bool(self.config.gateway.node)

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """The upstreams, each once."""
        return tuple({target.upstream.name: target.upstream for target in self.targets}.values())

    @property
    def headers(self) -> tuple[str, ...]:
        """Every header that vaultauthz may set or remove, sorted."""
        names = {name for upstream in self.upstreams for name in cleared(upstream)}
        return tuple(sorted(names))

    @property
    def has_long_headers(self) -> bool:
        """Whether one of them has more aliases than are listed."""
        return bool(long_names(self.headers))

    @property
    def reads_methods(self) -> bool:
        """Whether a rule asks for the method."""
        return any(upstream.callers.reads_method for upstream in self.upstreams)

    @property
    def sets_query(self) -> bool:
        """Whether a credential goes into a query string."""
        return any(i.parameter_names for upstream in self.upstreams for i in upstream.inject)

    @property
    def sets_cookies(self) -> bool:
        """Whether a credential goes beside the client's cookies."""
        return any(i.cookie_names for upstream in self.upstreams for i in upstream.inject)

    @property
    def signs(self) -> bool:
        """Whether an upstream has each request signed."""
        return any(target.signature for target in self.targets)

    @property
    def reads_claims(self) -> bool:
        """Whether a rule asks for claims of a token."""
        return any(upstream.callers.reads_claims for upstream in self.upstreams)

    @property
    def reads_principals(self) -> bool:
        """Whether a rule asks for a client certificate."""
        rules = (rule for upstream in self.upstreams for rule in upstream.callers.rules)
        return any(rule.principal is not None for rule in rules)

    @property
    def signs_bodies(self) -> bool:
        """Whether an upstream has bodies signed."""
        return any(target.signs_body for target in self.targets)

    @property
    def asks_vault(self) -> bool:
        """Whether a check may have to wait for Vault."""
        return any(upstream.per != "instance" for upstream in self.upstreams)

    @property
    def hosts(self) -> tuple[VirtualHost, ...]:
        """A host for each that ``routes`` names, and an example for what it does not reach.

        The route of a target that is left out stays, or a shorter one would have its requests.
        """
        by_key = {(target.stage, target.upstream.name): target for target in self.targets}
        routes = self.config.routes
        anywhere = _path_routes([r for r in routes if not r.host], by_key)
        named = [
            VirtualHost(
                host, (*_path_routes([r for r in routes if r.host == host], by_key), *anywhere)
            )
            for host in dict.fromkeys(r.host for r in routes if r.host)
        ]
        reached = {(r.stage, r.upstream) for r in routes}
        lost = [target for key, target in by_key.items() if key not in reached]
        examples = [
            VirtualHost(domain, (PathRoute("/", target),), example=True)
            for domain, target in zip(_example_domains(lost), lost, strict=True)
        ]
        return (*named, *examples, *([VirtualHost("*", anywhere)] if anywhere else []))


def cleared(upstream: Upstream) -> tuple[str, ...]:
    """The client's headers that never reach the upstream as the client sent them.

    Those that are set, what ``strip`` names, and their aliases (servers read ``x_api_key`` as
    ``x-api-key``), of which long names have more than stand here.
    """
    return unwanted(header_names(upstream.inject), upstream.strip)


def _example_domains(targets: Iterable[Target]) -> list[str]:
    """A made-up domain for each; no two are the same, whatever the letter case."""
    domains: list[str] = []
    for target in targets:
        label = target.cluster.lower().replace("/", ".")
        while f"{label}.gateway.example" in domains:
            label += "-2"
        domains.append(f"{label}.gateway.example")
    return domains


def _path_routes(
    routes: Iterable[Route], by_key: Mapping[StageUpstream, Target]
) -> tuple[PathRoute, ...]:
    """The longest prefix first, as ``routes`` are tried."""
    longest = sorted(routes, key=lambda r: len(r.path_prefix), reverse=True)
    return tuple(PathRoute(r.path_prefix, by_key.get((r.stage, r.upstream))) for r in longest)
