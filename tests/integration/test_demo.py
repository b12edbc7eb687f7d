"""`vaultauthz demo`, as a newcomer runs it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interrupts import interruptible as interruptible  # noqa: PLC0414  a fixture
from tests.patience import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_DEMO = [sys.executable, "-m", "vaultauthz", "demo"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where temporary files go; unlike tmp_path, PostgreSQL's user can reach it when we are root."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _environment(folder: Path) -> dict[str, str]:
    return {"TMPDIR": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def test_every_step_holds(folder: Path) -> None:
    """It exits 0, says that all held, keeps to 80 columns, and leaves no folder behind."""
    done = subprocess.run(
        _DEMO,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=_environment(folder),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held." in done.stdout.splitlines()[-1]
    assert "✗" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_stops_and_removes_everything(folder: Path) -> None:
    """Ctrl-C in the middle: the exit status says so, no process and no folder is left."""
    with subprocess.Popen(
        _DEMO, stdout=subprocess.PIPE, text=True, env=_environment(folder), start_new_session=True
    ) as demo:
        assert demo.stdout
        for line in demo.stdout:
            if line.startswith("2."):
                break
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(timeout=PATIENCE) == 130
    assert list(folder.iterdir()) == []
    assert _left(demo.pid) == []


def _left(session: int) -> list[str]:
    """The processes of the session that the demo was the leader of."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended while we looked
            name, _, rest = stat.read_text().rpartition(")")
            state, _parent, _group, its_session = rest.split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(name)
    return found
