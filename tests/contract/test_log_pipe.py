"""`vaultauthz serve` whose standard error is a pipe that nobody empties."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.running import database, fake, settings
from tests.patience import PATIENCE
from vaultauthz.demo.client import get_unix

FULL = 4096  # bytes; a few lines


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A fake with a role, two databases and two keys."""
    with fake() as made:
        yield made


def serving(vault: FakeVault, folder: Path, *more: str) -> tuple[subprocess.Popen[bytes], int]:
    """`serve` with leases of a second, which are renewed all the time; its standard error, to read from."""
    vault.set_creds("database/creds/pay", ttl=1.0)
    many = {f"pay{number}": database("pay") for number in range(8)}
    document = settings(vault, **many) | {
        "listen": {"grpc": f"unix://{folder}/g.sock", "admin": f"unix://{folder}/a.sock"},
        "audit": {"file": f"{folder}/audit.jsonl"},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(document))
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, FULL)
    argv = [sys.executable, "-m", "vaultauthz", "serve", "-c", f"{folder}/c.yaml", *more]
    process = subprocess.Popen(argv, stderr=writing)
    os.close(writing)
    return process, reading


def drained(reading: int) -> tuple[threading.Thread, list[bytes]]:
    """Whoever reads all of it from now on."""
    found: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 65536):
            found.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, found


def test_renewals_go_on_behind_a_full_pipe(vault: FakeVault, tmp_path: Path) -> None:
    """Nobody reads: far more is logged than fits, and leases are renewed all the same; then it is all there."""
    process, reading = serving(vault, tmp_path, "--log-level", "debug", "--log-format", "json")

    def renewed() -> int:
        return len(vault.calls("leases/renew"))

    try:
        assert wait_until(lambda: renewed() > 0)
        # Each renewal is some 300 bytes of debug lines.
        begun = renewed()
        assert wait_until(lambda: renewed() >= begun + 3 * FULL // 300)
        assert get_unix(tmp_path / "a.sock", "/readyz").status == 200
        reader, found = drained(reading)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        reader.join(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
    lines = [json.loads(line) for line in b"".join(found).splitlines()]
    assert len(b"".join(found)) > 2 * FULL
    assert sum(line.get("event") == "lease.renewed" for line in lines) >= begun + 3 * FULL // 300
    assert lines[-1]["message"].startswith("stopped; everything leased is revoked")


def test_a_stop_behind_a_full_pipe(vault: FakeVault, tmp_path: Path) -> None:
    """Whoever reads is gone for good: it revokes, and ends with the status that it would have."""
    process, reading = serving(vault, tmp_path, "--log-level", "debug")
    try:
        assert wait_until(lambda: len(vault.calls("leases/renew")) > FULL // 300)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert vault.calls("auth/token/revoke-self")
    finally:
        process.kill()
        process.wait()
        os.close(reading)
