"""Accesses without a line: how many there can be, on a real server, when its log breaks."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.contract.audit_bed import PATIENCE, Bed, Load, drain, recorded, served
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.running import fake
from vaultauthz import cli
from vaultauthz.observe.audit_log import _BATCH, CAPACITY

CLIENTS = 8
KILLS = 2
FULL = 200_000  # bytes of room, and then no more
MOST = CAPACITY + _BATCH + CLIENTS  # what may wait, be written, or be on its way to the client


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    """A Vault with a secret."""
    with fake() as vault:
        yield vault


def test_killed_under_load(vault: FakeVault, tmp_path: Path) -> None:
    """Kill -9: of what was allowed the lines that were not handed to the kernel are missing, no more."""
    log = tmp_path / "audit.jsonl"
    allowed, lost = 0, []
    for kill in range(KILLS):
        log.unlink(missing_ok=True)
        with served(vault, tmp_path, f"{{file: {log}}}") as bed:
            load = Load(bed, CLIENTS)
            # More than may be lost: a log that is only written in the end would not pass.
            assert wait_until(lambda load=load: len(load.allowed()) > MOST + 500, PATIENCE)  # type: ignore[misc]
            bed.process.kill()
            load.end()
        answered = load.allowed()
        allowed += len(answered)
        lost.append(len(answered - recorded(log.read_bytes())))
        assert lost[kill] <= MOST
        assert cli.main(["audit", "verify", str(log)]) == 0
    sys.stdout.write(f"\nof {allowed} allowed answers without a line: {lost}\n")


def test_a_pipe_that_nobody_reads(vault: FakeVault, tmp_path: Path) -> None:
    """Standard output stalls: within a bound all is refused, and after it all is there."""
    reader, writer = os.pipe()
    with served(vault, tmp_path, "{}", writer) as bed:
        os.close(writer)
        load = Load(bed, CLIENTS)
        assert wait_until(lambda: load.refused() > 100, PATIENCE)
        assert wait_until(lambda: bed.ready() == 503, PATIENCE)
        waiting = load.allowed()
        data = b""
        while bed.ready() != 200:
            data += os.read(reader, 1 << 16)
        assert len(waiting - recorded(data)) <= MOST
        before = len(load.allowed())
        following = _Reading(reader, data)
        assert wait_until(lambda: len(load.allowed()) > before + 100, PATIENCE)
        assert bed.log.count("cannot be written (a line has waited for a second)") >= 1
        assert "is written again" in bed.log
        bed.process.terminate()
        load.end()
        bed.process.wait(PATIENCE)
    lines = following.all()
    assert load.allowed() <= recorded(lines)
    assert b'"event":"audit.dropped"' in lines
    (tmp_path / "out").write_bytes(lines)
    assert cli.main(["audit", "verify", str(tmp_path / "out")]) == 0


def test_killed_while_the_pipe_is_stalled(vault: FakeVault, tmp_path: Path) -> None:
    """The most that a kill can take with it."""
    reader, writer = os.pipe()
    with served(vault, tmp_path, "{}", writer) as bed:
        os.close(writer)
        load = Load(bed, CLIENTS)
        assert wait_until(lambda: load.refused() > 100, PATIENCE)
        bed.process.kill()
        load.end()
    assert len(load.allowed() - recorded(drain(reader))) <= MOST
    os.close(reader)


def _room(bed: Bed, size: int) -> None:
    """So many bytes a file of the server may have; what is beyond is as on a full disk."""
    _, most = resource.prlimit(bed.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(bed.process.pid, resource.RLIMIT_FSIZE, (size, most))


def _is_torn(data: bytes) -> bool:
    """Whether it ends within a line, as it nearly always does when the room was used up."""
    with contextlib.suppress(ValueError):
        json.loads(data.splitlines()[-1])
        return False
    return True


@pytest.mark.parametrize("rotation", ["none", "rename", "copytruncate"])
def test_a_full_disk(vault: FakeVault, tmp_path: Path, rotation: str) -> None:
    """In the middle of a line, several times over: checks are refused, and it is no tampering."""
    log = tmp_path / "audit.jsonl"
    with served(vault, tmp_path, f"{{file: {log}}}") as bed:
        client, number, torn = bed.client(), 0, 0
        answered = []
        for turn in (1, 2, 3):
            _room(bed, log.stat().st_size + FULL)
            while (status := client.check(number)) == 200:
                answered.append(number)
                number += 1
            assert status == 503
            assert bed.ready() == 503
            torn += _is_torn(log.read_bytes())
            if rotation == "rename":
                log.rename(tmp_path / f"audit.jsonl.{4 - turn}")
            elif rotation == "copytruncate":
                (tmp_path / f"audit.jsonl.{4 - turn}").write_bytes(log.read_bytes())
                os.truncate(log, 0)
            _room(bed, 100 * FULL)
            assert wait_until(lambda: bed.ready() == 200, PATIENCE)
        bed.process.terminate()
        bed.process.wait(PATIENCE)
    files = sorted(tmp_path.glob("audit.jsonl*"))
    assert len(files) == (1 if rotation == "none" else 4)
    assert cli.main(["audit", "verify", *map(str, files)]) == 0
    lines = b"\n".join(file.read_bytes() for file in files)
    assert recorded(lines) == set(answered)
    assert lines.count(b'"event":"audit.torn"') == (0 if rotation == "none" else torn)
    assert lines.count(b'"event":"audit.dropped"') == 3
    assert cli.main(["audit", "report", *map(str, files)]) == 0


def test_killed_with_a_torn_line(
    vault: FakeVault, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is full, the process is killed, and begins again: on the same file."""
    log = tmp_path / "audit.jsonl"
    with served(vault, tmp_path, f"{{file: {log}}}") as bed:
        _room(bed, FULL)
        client, number = bed.client(), 0
        while client.check(number) == 200:
            number += 1
        torn = _is_torn(log.read_bytes())
    with served(vault, tmp_path, f"{{file: {log}}}") as bed:
        assert bed.client().check(number) == 200
        bed.process.terminate()
        bed.process.wait(PATIENCE)
    assert (b'"event":"audit.torn"' in log.read_bytes()) == torn
    capsys.readouterr()
    assert cli.main(["audit", "verify", str(log)]) == 0
    assert ("torn: a line that was not finished" in capsys.readouterr().out) == torn


class _Reading:
    """Reads a pipe to its end, in a thread of its own."""

    def __init__(self, reader: int, data: bytes) -> None:
        self._reader, self._data = reader, data
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._data += drain(self._reader)

    def all(self) -> bytes:
        """All that was in it."""
        self._thread.join(PATIENCE)
        os.close(self._reader)
        return self._data
