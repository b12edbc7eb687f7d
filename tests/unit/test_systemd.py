"""What systemd is told, and what it has passed on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaultauthz import systemd
from vaultauthz.systemd import Notifier, for_another, passed


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(0)
        yield made


def told(heard: socket.socket) -> list[str]:
    """The datagrams that are there."""
    found = []
    while True:
        try:
            found.append(heard.recv(4096).decode())
        except BlockingIOError:
            return found


def test_its_words(heard: socket.socket) -> None:
    """Each is one datagram; one that takes over says that it is the main process."""
    notifier = Notifier(heard.getsockname(), clock=lambda: 2.5)
    notifier.ready("serving")
    notifier.ready("serving", main=True)
    notifier.status("so")
    notifier.reloading()
    notifier.stopping("ends")
    assert told(heard) == [
        "READY=1\nSTATUS=serving",
        f"READY=1\nSTATUS=serving\nMAINPID={os.getpid()}",
        "STATUS=so",
        "RELOADING=1\nMONOTONIC_USEC=2500000",
        "STOPPING=1\nSTATUS=ends",
    ]


def test_the_watchdog_is_fed_twice_in_its_time(heard: socket.socket) -> None:
    """However often it is called; without one, never."""
    now = [0.0]
    notifier = Notifier(heard.getsockname(), 10.0, lambda: now[0])
    fed = []
    for now[0] in (0.0, 0.2, 4.9, 5.0, 5.1, 9.9, 10.1):
        notifier.alive()
        fed.append(len(told(heard)))
    assert fed == [1, 0, 0, 1, 0, 0, 1]
    Notifier(heard.getsockname(), 0.0).alive()
    assert told(heard) == []


def test_an_abstract_socket() -> None:
    """As in a container."""
    name = f"vaultauthz-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        heard.settimeout(0)
        Notifier(f"@{name}").status("here")
        assert told(heard) == ["STATUS=here"]


@pytest.mark.parametrize("place", ["", "/nowhere/at/all"])
def test_nobody_listens(place: str) -> None:
    """Nothing happens."""
    Notifier(place).ready("serving")
    assert bool(Notifier(place)) == bool(place)


@pytest.mark.parametrize(
    ("environment", "every"),
    [
        ({"WATCHDOG_USEC": "4000000"}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "4s"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_of_the_environment(environment: dict[str, str], every: float) -> None:
    """One that is for another process is not fed."""
    assert Notifier.of(environment)._every == every


def test_what_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, once, and not on to those that we start; another's is not taken."""
    with socket.socket() as one:
        first = os.dup(one.fileno())
        monkeypatch.setattr(systemd, "_FIRST", first)
        environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "grpc", "A": "b"}
        assert passed(environment) == {}
        assert environment == {"A": "b"}
        environment |= {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "admin:more",
        }
        found = passed(environment)
        assert {name: each.fileno() for name, each in found.items()} == {"admin": first}
        assert not found["admin"].get_inheritable()
        found["admin"].close()
        assert passed(environment) == {}


def test_the_environment_of_another_process() -> None:
    """What names this process stays here; what is the service's goes along."""
    given = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "7",
        "LISTEN_FDS": "1",
    }
    assert for_another(given) == {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1"}
