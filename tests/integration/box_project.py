"""docker-compose.yml as a project of boxes: up, down, and whether all is well."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.contract.test_compose import SERVICES
from tests.integration.boxes import Box, Network
from tests.patience import PATIENCE
from vaultauthz.demo.parts import wait_for


class Project:
    """All services of the file, without profiles or with those that are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.volumes = folder / "volumes"
        self.network = Network()
        self.boxes: dict[str, Box] = {
            name: Box(folder / name, self.volumes, name, self.network) for name in SERVICES
        }

    def up(self, *names: str) -> None:
        """As `docker compose up --wait`: each in its turn, with what it waits for; what runs stays."""
        for name in order(names or self._default()):
            self._bring_up(self.boxes[name])

    @staticmethod
    def _default() -> tuple[str, ...]:
        return tuple(name for name, service in SERVICES.items() if "profiles" not in service)

    def _bring_up(self, box: Box) -> None:
        for name, how in box.service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                self.until_healthy(name)
        if box.service["restart"] == "no":
            assert box.run() == 0, box.tail
        elif not box.running:
            box.start()

    def until_healthy(self, name: str) -> None:
        """Wait for it. Fails with its log when it ends, or is not healthy in time."""
        box = self.boxes[name]
        healthy = wait_for(lambda: not box.running or box.healthy, PATIENCE)
        assert box.running, box.tail
        assert healthy, box.tail

    def down(self) -> None:
        """As `docker compose down`: each is asked to end, those first that others do not wait for."""
        for name in reversed(order(tuple(SERVICES))):
            box = self.boxes[name]
            box.signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)  # its STOPSIGNAL

    def close(self) -> None:
        """Kill what runs."""
        for box in self.boxes.values():
            if box.running:
                box.signal(signal.SIGKILL)
        self.network.close()


def order(names: tuple[str, ...]) -> list[str]:
    """These and what they wait for, in the order of their starts."""
    found: list[str] = []
    for name in names:
        before = order(tuple(SERVICES[name].get("depends_on", {})))
        found += [one for one in (*before, name) if one not in found]
    return found


@contextlib.contextmanager
def project(folder: Path) -> Iterator[Project]:
    """A project that ends with all its processes."""
    made = Project(folder)
    try:
        yield made
    finally:
        made.close()
