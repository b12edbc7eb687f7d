"""How far the log is read, as it is kept beside the log."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaultauthz.envoy.access_logs.log_file import BadPositionError, Position, load, save

OPENING = b'{"attempts":1,"path":"/1"}\n'


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the log would be."""
    return tmp_path / "access.jsonl"


def kept(log: Path) -> Path:
    """The file beside it."""
    return log.with_name(log.name + ".position")


def test_what_is_kept_is_found(log: Path) -> None:
    """Also when it was kept before; nothing else is left in the folder."""
    assert load(log) is None
    for offset in (27, 1000):
        position = Position.of(offset, OPENING)
        save(log, position)
        found = load(log)
        assert found
        assert found == (position, kept(log).stat().st_mtime_ns)
    assert list(log.parent.iterdir()) == [kept(log)]


def test_it_is_ours_alone(log: Path) -> None:
    """Nobody else reads it; none of the log's text is in it."""
    save(log, Position.of(27, OPENING))
    assert stat.S_IMODE(kept(log).stat().st_mode) == 0o600
    assert "attempts" not in kept(log).read_text()


def test_it_goes_through_no_link(log: Path) -> None:
    """Who may write into the folder cannot have us write elsewhere."""
    victim = log.with_name("victim")
    victim.write_text("untouched")
    for name in (kept(log).name, kept(log).name + ".new"):
        log.with_name(name).symlink_to(victim)
        save(log, Position.of(27, OPENING))
        assert victim.read_text() == "untouched"


def test_a_file_is_known_by_how_it_begins() -> None:
    """Not by a part of that, and whatever follows it."""
    position = Position.of(5000, OPENING)
    assert position.is_in(OPENING)
    assert position.is_in(OPENING + b"more")
    assert not position.is_in(OPENING[:-1])
    assert not position.is_in(b"x" + OPENING)


GOOD = {"offset": 27, "opening_bytes": 27, "opening_sha256": "00"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b"[" * 4000, b"1" * 5000,
        *(
            json.dumps(GOOD | changes).encode()
            for changes in (
                {"offset": -1}, {"offset": "27"}, {"offset": 2.5}, {"offset": 26}, {"offset": True},
                {"opening_bytes": 0}, {"opening_bytes": 28}, {"opening_bytes": None},
                {"opening_sha256": None},
            )
        ),
    ],
)  # fmt: skip
def test_anything_else_is_no_position(log: Path, data: bytes) -> None:
    """It is refused, and nothing is guessed from it."""
    kept(log).write_bytes(data)
    with pytest.raises(BadPositionError):
        load(log)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=300))
def test_no_bytes_do_harm(log: Path, data: bytes) -> None:
    """A broken disk or a hand in the folder ends in the same refusal."""
    kept(log).write_bytes(data)
    with pytest.raises(BadPositionError):
        load(log)


def test_a_disk_that_takes_half_of_it(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept before stays: half a position would have the whole log read anew."""
    first = Position.of(27, OPENING)
    save(log, first)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    with pytest.raises(OSError, match="No space left"):
        save(log, Position.of(200, OPENING))
    found = load(log)
    assert found
    assert found[0] == first
