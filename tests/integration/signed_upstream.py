"""A service that keeps each request byte for byte, and two strangers who check its signature."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import subprocess
import threading
from dataclasses import dataclass
from typing import BinaryIO

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.patience import PATIENCE

TIMEOUT = PATIENCE
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire; header names in lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of this header."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        """The value of a header that has to be there once."""
        (value,) = self.all(name)
        return value


class Wire:
    """Answers 200 to everything over HTTP/1.1 and keeps what it got, the latest last."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.received: list[Received] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            while (received := _request(stream)) is not None:
                self.received.append(received)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()


def _request(stream: BinaryIO) -> Received | None:
    line = stream.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ")
    headers = []
    while (line := stream.readline().rstrip(b"\r\n")) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name.lower(), value.strip()))
    lengths = [int(value) for name, value in headers if name == "content-length"]
    chunked = ("transfer-encoding", "chunked") in headers
    body = _chunks(stream) if chunked else stream.read(sum(lengths))
    return Received(method, target, tuple(headers), body)


def _chunks(stream: BinaryIO) -> bytes:
    body = b""
    while size := int(stream.readline().split(b";")[0], 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


def by_botocore(received: Received, secret_key: str) -> str:
    """The signature that botocore makes of what was received, to hold against the one in it.

    Raises AssertionError where the body is not what its hash says.
    """
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/([0-9]{8})/([^/]+)/([^/]+)/aws4_request, "
        r"SignedHeaders=([^,]+), Signature=[0-9a-f]{64}",
        received.one("authorization"),
    )
    assert found, received.one("authorization")
    access_key, day, region, service, signed = found.groups()
    content = received.one("x-amz-content-sha256")
    assert content in (UNSIGNED, hashlib.sha256(received.body).hexdigest())
    # S3's own rule, which others leave aside: whatever x-amz-* came has to be signed.
    assert {n for n, _ in received.headers if n.startswith("x-amz-")} <= set(signed.split(";"))
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    auth = kind(Credentials(access_key, secret_key), service, region)
    sent = AWSRequest(received.method, f"https://{received.one('host')}{received.target}")
    for name in signed.split(";"):
        sent.headers[name] = ",".join(received.all(name))
    sent.context["timestamp"] = received.one("x-amz-date")
    assert sent.context["timestamp"].startswith(day)
    return str(auth.signature(auth.string_to_sign(sent, auth.canonical_request(sent)), sent))


def signature_of(received: Received) -> str:
    """The signature that came with it."""
    return received.one("authorization").rpartition("Signature=")[2]


def by_openssl(key: bytes, text: bytes, algorithm: str = "sha256") -> bytes:
    """The keyed hash as `openssl dgst` makes it."""
    option = ["-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary"]
    command = ["openssl", "dgst", f"-{algorithm}", *option]
    done = subprocess.run(command, input=text, capture_output=True, check=True, timeout=TIMEOUT)
    return done.stdout
