"""What a test tells the stand-in: routes with their plugin's config, consumers, settings, the server's commands."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.kong.upstream import Service

WORKSPACE = str(uuid.uuid5(uuid.NAMESPACE_DNS, "default.workspace.kong"))
CREATED_AT = 1_700_000_000


def entity_id(kind: str, name: str) -> str:
    """A UUID that is the same in every run, as DB-less Kong's are."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{kind}.kong"))


@dataclass(frozen=True)
class Guard:
    """A pre-function that clears these slots and a post-function that answers 503 when one is empty.

    `marks` are headers that must have these values by then, and do not go to the service.
    """

    headers: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Route:
    """A route, the plugin's config on it (None: no plugin) and the service behind it."""

    name: str
    path: str  # a prefix; the longest that fits wins
    config: Mapping[str, Any] | None = None
    service: Service = field(default_factory=Service)
    guard: Guard | None = None
    strip_path: bool = False
    seq: int = 1  # goes up with each new config; Kong's __seq__

    def upstream_path(self, path: str) -> str:
        """What the service gets of a path; Kong's own default for `strip_path` is true."""
        return "/" + path[len(self.path) :].lstrip("/") if self.strip_path else path

    @property
    def id(self) -> str:
        """The route's UUID."""
        return entity_id("routes", self.name)

    @property
    def plugin_id(self) -> str:
        """The UUID of the plugin's configuration on this route."""
        return entity_id("plugins", self.name)

    def conf(self, plugin: str) -> dict[str, Any]:
        """The config as the plugin server gets it: with Kong's own keys among the plugin's."""
        own = {key: value for key, value in (self.config or {}).items() if value is not None}
        return {
            **own,
            "__key__": f"plugins:{plugin}:{self.id}::::{WORKSPACE}",
            "__seq__": self.seq,
            "__ws_id": WORKSPACE,
            "__plugin_id": self.plugin_id,
            "route_id": self.id,
        }


@dataclass(frozen=True)
class Consumer:
    """A consumer that an authentication plugin found. `groups` are what such a plugin says of it (LDAP, OIDC)."""

    username: str | None = None
    custom_id: str | None = None
    tags: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def entity(self) -> dict[str, Any]:
        """As `kong.client.get_consumer` gives it: what is not set is left out."""
        name = self.username or self.custom_id or "nobody"
        wanted = {"username": self.username, "custom_id": self.custom_id, "tags": list(self.tags)}
        dates = {"created_at": CREATED_AT, "updated_at": CREATED_AT}
        return {
            "id": entity_id("consumers", name),
            **dates,
            **{key: value for key, value in wanted.items() if value},
        }

    def credential(self) -> dict[str, Any]:
        """As `kong.client.get_credential` gives it, with key-auth: its consumer is a table of its own."""
        owner = self.entity()["id"]
        return {
            "id": entity_id("credentials", owner),
            "consumer": {"id": owner},
            "key": f"key-of-{self.username or self.custom_id}",
            "created_at": CREATED_AT,
        }


@dataclass(frozen=True)
class Server:
    """A plugin server as kong.conf names it. Without `start_cmd` it is run by somebody else.

    nginx empties the environment of its workers, so the server gets `environment` and nothing more.
    `process` tells who serves (0 for nobody), where that is not what `start_cmd` runs: a process that goes on
    at a reload, and for a while after Kong's end.
    """

    socket: Path
    query_cmd: str
    start_cmd: str | None = None
    name: str = "py"
    environment: Mapping[str, str] = field(default_factory=dict)
    process: Callable[[], int] | None = None


@dataclass(frozen=True)
class Settings:
    """Kong's numbers. The defaults are its own, apart from `max_retries` (Kong has no limit)."""

    timeout: float = 60.0  # seconds: connect, send, read; each on its own
    pool_size: int = 256  # idle connections a worker keeps
    keepalive: float = 60.0  # seconds an idle one is kept
    claim_wait: float = 10.0  # seconds to wait for an instance that another request starts
    event_delay: float = 0.005  # seconds until the workers hear of an instance reset
    max_retries: int = 100
    respawn: float = 1.0  # seconds between two starts of the server
    body_buffer: int = 8192  # bytes of a request body that are not put into a file
    notices_hangups: bool = (
        True  # False: hand out idle connections that are closed already (a race in Kong)
    )
