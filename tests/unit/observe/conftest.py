"""What every test of the audit log and the metrics starts from."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.patience import PATIENCE
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import Allowed
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import Request

SECRET = "s3cr3t-value"


@pytest.fixture
def request_() -> Request:
    """A request whose query and cookie hold a secret."""
    return Request(
        "envoy",
        "GET",
        "pay.example.com",
        f"/v1/charges?key={SECRET}",
        principal="spiffe://corp/checkout/a",
        cookie=f"session={SECRET}",
        request_id="r-1",
    )


@pytest.fixture
def allowed() -> Allowed:
    """An allowed answer with a credential that holds the secret."""
    mutation = Mutation(headers=(("x-api-key", SECRET),))
    credential = Credential(mutation, "c_1", "database/creds/pay/abc", ends_at=1e9)
    return Allowed("payments", "production", credential)


def wait_until(met: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for what another thread brings about."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.002)


class FakeSink:
    """A log that fails, writes short or blocks when it is told to."""

    name = "fake"

    def __init__(self) -> None:
        self.data = b""
        self.error: OSError | None = None
        self.room: int | None = None  # bytes until ENOSPC
        self.moved = False
        self.files: list[bytes] = []
        self.closed = False

    def refresh(self) -> bool:
        """Begin a new file when told that the old one was moved away."""
        if not self.moved:
            return False
        self.files.append(self.data)
        self.data, self.moved = b"", False
        return True

    def write(self, data: bytes) -> int:
        """Take what there is room for."""
        if self.error:
            raise self.error
        if self.room is None:
            self.data += data
            return len(data)
        if not self.room:
            raise OSError(28, "No space left on device")
        part = data[: self.room]
        self.room -= len(part)
        self.data += part
        return len(part)

    def close(self) -> None:
        """Remember it."""
        self.closed = True
