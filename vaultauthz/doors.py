"""Doors: where gateways ask us. What one has to fulfil, for Envoy, for Kong and for the next.

A door is one folder beside ``envoy/`` and ``kong/``. It turns its gateway's words into
``core.Request`` and our ``Decision`` into its gateway's words; why a request is denied it does not
know, and nobody outside of the folder knows its gateway, but for the command that opens it:

- ``door.py`` has the class that fulfils ``Door``, made with the ``Service`` that it is a door to,
  and what a command of ``cli/`` runs: ``serve.run`` with a ``Way`` that opens it.
- A check goes to ``Service.check``, a request for which the gateway waits ``wait`` seconds. Where
  Vault must be asked first the answer is a ``Later``: the thread goes on, and none is held up.
- What it denies by itself, as it cannot read it or has no room, goes to ``Service.refused``.
- ``Service.rejected`` is told of each upstream's 401, ``Service.metrics.count_answer`` of each
  answer, where the gateway tells them; events go to ``Service.announce``.
- What is configured about it is a key of ``listen`` (``config/listen.py``), or an option of its
  command, as Kong's socket is. Where it listens, ``listening.SocketName`` sees to the name.
- What it adds to the metrics is in ``DoorGauges``; which gateways are connected the page asks of
  ``connected``.
- Its tests subclass ``tests.contract.door_cases.DoorCases``: what every door answers alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

from vaultauthz.admin.overview import ConnectedGateway
from vaultauthz.core.routing import StageUpstream
from vaultauthz.observe.gauges import DoorGauges
from vaultauthz.server_tls import FollowedTls


class Door(ABC):
    """Where one gateway asks. The methods are called in this order, by the thread of ``serve.run``.

    Whoever subclasses it has a door that reports nothing and has nothing to turn away.
    """

    drains: ClassVar[bool] = False  # whether ``drain`` turns gateways away

    def prepare(self) -> None:
        """Do what it can before the address is ours, as another server gives it to this one.

        Raises:
            ListenError: it cannot be opened.
        """

    @abstractmethod
    def start(self) -> None:
        """Open it: from now on checks are answered, though there is no credential yet.

        Raises:
            ListenError: it cannot be opened; then nothing of it is left.
        """

    def started(self) -> None:
        """All that can fail at the start has not: begin what lasts, as to follow a file."""

    def reloaded(self) -> None:
        """The configuration is another; its own part is so only at a restart."""

    def let_go(self, seconds: float) -> None:
        """Another server is about to take over: give up what one alone can have, in so long.

        Gateways are answered as before. Then comes ``recorded``, and ``take_back`` or ``leave``.

        Raises:
            OSError: it cannot be done.
        """

    def take_back(self) -> None:
        """The other server has not lasted: undo ``let_go``. Raises OSError: to be tried again."""

    def leave(self, seconds: float, over: Callable[[], bool]) -> None:
        """Have gateways turn to the server that has taken over, answering what still comes.

        For so long at most, and no longer once ``over`` says so.
        """

    def drain(self) -> None:
        """Go on answering, and have gateways turn away, as by a health check; ``draining`` from now on."""

    def in_use(self) -> Collection[StageUpstream]:
        """The leases with which gateways go on after our end, without asking."""
        return ()

    @abstractmethod
    def stop(self, grace: float) -> None:
        """Take no new checks, finish those in flight within ``grace`` seconds, close."""

    def finish(self, seconds: float) -> None:
        """Take in, for so long, what is told of requests that have just got their credential."""

    def recorded(self) -> None:
        """The audit log is closed: what was queued for it is written, or never will be."""

    @property
    def draining(self) -> bool:
        """Whether gateways are turned away, since the server is about to stop."""
        return False

    @property
    def tls(self) -> Mapping[str, FollowedTls]:
        """The files of certificates that are followed, by the key of ``listen`` (NAME of NAME_tls)."""
        return {}

    @property
    def connected(self) -> Sequence[ConnectedGateway]:
        """The gateways that are connected, as far as they can be told apart."""
        return ()

    @property
    def gauges(self) -> DoorGauges:
        """What it adds to each scrape of the metrics."""
        return DoorGauges()
