"""``vaultauthz kong serve``: a whole server whose gateway is Kong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaultauthz import serve
from vaultauthz.config import fit_for_kong, load_for_kong
from vaultauthz.config.values import Config
from vaultauthz.envoy.als.rejections import Rejections
from vaultauthz.kong.door import Door, Parent
from vaultauthz.kong.gate import Gate
from vaultauthz.kong.given import Given
from vaultauthz.kong.place import Place, PlaceError
from vaultauthz.kong.server import raise_file_limit
from vaultauthz.service import Service
from vaultauthz.wanted import Wanted

# Seconds for the server before to end: its requests, then what it revokes.
HANDOVER: Final = 15.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. ``child``: Kong starts and ends it."""

    socket: Path
    group: str = ""
    child: bool = False


class Hears:
    """Passes on what Kong tells of upstreams' answers."""

    def __init__(self, service: Service) -> None:
        self.answered = service.metrics.count_answer
        self._rejections = Rejections(service.rejected)

    def rejected(self, upstream: str, stage: str, credential_id: str) -> None:
        """The upstream answered 401."""
        self._rejections.tell(upstream, stage, credential_id)


def gate_of(service: Service) -> tuple[Gate, Given]:
    """The plugin over a server's engine, and what follows its requests."""
    engine = service.engine
    given = Given(Hears(service))
    return Gate(service.check, lambda: engine.broker.table, lambda: engine.config, given), given


def run(wanted: Wanted, config: Config, asked: Asked) -> int:
    """Serve Kong's plugin until SIGTERM; as ``serve.run``, but for the gateway.

    Raises:
        ConfigError: under Kong a credential of it would be in Kong's logs.
        StartError: the socket, the admin address or the audit log is not to be had.
    """
    fit_for_kong(config)
    raise_file_limit()
    parent = Parent() if asked.child else None
    place = Place(asked.socket.absolute(), asked.group)
    try:
        # First of all: from now on Kong's new connections wait for us, and the server
        # before, if there is one, gives way.
        place.take(HANDOVER if asked.child else 0.0)
    except PlaceError as exc:
        raise serve.StartError(str(exc)) from exc
    doors: list[Door] = []

    def door(service: Service) -> Door:
        gate, given = gate_of(service)
        doors.append(Door(place, gate, given, lambda: service.engine.ready, parent))
        return doors[-1]

    way = serve.Way(
        f"Kong's plugin on {place.path}",
        lambda config: Service(config, door, load_for_kong),
        lambda: doors[-1].over,
    )
    try:
        return serve.run(wanted, config, way)
    finally:
        place.release()
