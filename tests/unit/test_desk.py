"""What a server that runs does for the next one, apart from whole servers."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from vaultauthz.desk import ServiceDesk
from vaultauthz.observe.sink import AuditError


def service(*, tls: bool = False, older: bool = False, fails: int = 0) -> Any:
    """A stand-in that writes down what is done with it; its audit log cannot send so many times."""
    did: list[str] = []

    def send(line: socket.socket, timeout: float) -> None:
        did.append("send")
        if did.count("send") <= fails:
            raise AuditError("audit: is not written in 1 s")

    listen = SimpleNamespace(grpc_tls=object() if tls else None)
    config = SimpleNamespace(listen=listen, audit=SimpleNamespace(file=None))
    return SimpleNamespace(
        did=did,
        engine=SimpleNamespace(config=config),
        receives=lambda: older,
        door=SimpleNamespace(
            let_go=lambda seconds: did.append("let go"), recorded=lambda: did.append("recorded")
        ),
        admin=None,
        audit=SimpleNamespace(held=True, send=send),
        succeeded="",
    )


@pytest.mark.parametrize(
    ("tls", "older", "kept"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_a_third_one_over_tls(tls: bool, older: bool, kept: bool) -> None:
    """Is refused while the first has gateways, before anything is let go of."""
    found = service(tls=tls, older=older)
    if kept:
        with pytest.raises(OSError, match="still has gateways over TLS"):
            ServiceDesk(found).let_go()
    else:
        assert ServiceDesk(found).let_go() == []
    assert found.did == ([] if kept else ["let go", "recorded"])


@pytest.mark.parametrize("fails", [0, 3, 99])
def test_the_next_one_serves_whatever_becomes_of_our_lines(fails: int) -> None:
    """They are tried again, and the gateways are sent on at once."""
    found = service(fails=fails)
    with socket.socket() as line:
        ServiceDesk(found).go(line, "unix:///g")
    assert found.succeeded == "unix:///g"
    assert len(found.did) == min(fails + 1, 10)
