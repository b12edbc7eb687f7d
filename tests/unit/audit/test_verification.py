"""`audit verify`: a whole log, and each way in which one is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.audit.logs import call as vault_call
from tests.unit.audit.logs import file, told, used, vaults, written
from vaultauthz import audit
from vaultauthz.audit.files import LogError
from vaultauthz.audit.verification import SealError
from vaultauthz.observe.chain import Chain

LINES = written(*(used(n) for n in range(5))).splitlines(keepends=True)


def verified(path: Path, data: bytes, seal: str = "") -> tuple[int, str]:
    """Status and text for a log that holds this."""
    out, text = told()
    status = audit.verify([file(path, data)], seal, out)
    return status, text.getvalue()


def seal_of(text: str) -> str:
    """The seal that was printed."""
    (line,) = [line for line in text.splitlines() if line.startswith("Seal: ")]
    return line.removeprefix("Seal: ")


def test_a_whole_log(tmp_path: Path) -> None:
    """Status 0, what was read, and a seal for later."""
    status, text = verified(tmp_path / "a", b"".join(LINES))
    assert status == 0
    assert text.startswith("5 lines in 1 file, 2026-11-22T08:00:00.000000Z to ")
    assert "The chain holds" in text
    assert seal_of(text).startswith("5:")


@pytest.mark.parametrize(
    ("lines", "place", "why"),
    [
        ([LINES[0], LINES[1].replace(b"/rows", b"/cows"), *LINES[2:]], 3, "not the one"),
        ([LINES[0], *LINES[2:]], 2, "numbers 2 to 2 are missing"),
        ([LINES[0], LINES[2], LINES[1], *LINES[3:]], 2, "numbers 2 to 2 are missing"),
        ([*LINES[:2], b"a note\n", *LINES[2:]], 3, "not an audit record"),
    ],
)
def test_what_was_done_to_it_shows(
    tmp_path: Path, lines: list[bytes], place: int, why: str
) -> None:
    """Status 1, the file and the line."""
    path = tmp_path / "audit.jsonl"
    status, text = verified(path, b"".join(lines))
    assert status == 1
    assert f"!! {path}:{place}  " in text
    assert why in text
    assert "The chain does not hold" in text


def test_a_crash_is_no_finding(tmp_path: Path) -> None:
    """A line that was not finished is noted; so is a log that begins later."""
    status, text = verified(tmp_path / "a", b"".join(LINES[2:]) + b'{"time":"2026')
    assert status == 0
    assert "-- " in text
    assert "late start" in text
    assert "torn" in text
    assert "The chain holds from number 3 on" in text


def test_two_chains(tmp_path: Path) -> None:
    """What a chain cannot show is said."""
    status, text = verified(tmp_path / "a", b"".join(LINES) + written(used(60), used(61)))
    assert status == 0
    assert "Each of the 2 chains holds" in text
    assert "or a whole chain, would not show" in text


def test_a_seal_shows_a_lost_end(tmp_path: Path) -> None:
    """What a chain cannot show by itself: the last lines cut off, or written anew."""
    path = tmp_path / "a"
    seal = seal_of(verified(path, b"".join(LINES[:4]))[1])
    assert verified(path, b"".join(LINES), seal)[0] == 0
    assert verified(path, b"".join(LINES[:4]), seal)[0] == 0
    anew = written(used(0), used(1), used(2), used(3, upstream="other"), used(4))
    for data in (b"".join(LINES[:3]), anew):
        assert verified(path, data)[0] == 0
        status, text = verified(path, data, seal)
        assert status == 1
        assert "The sealed line is not in there" in text


def test_a_seal_of_an_older_file(tmp_path: Path) -> None:
    """It is no finding that a line is not there which is in another file."""
    seal = seal_of(verified(tmp_path / "a", b"".join(LINES[:2]))[1])
    with pytest.raises(LogError, match="begins with number 4, and the seal is of number 2"):
        verified(tmp_path / "a", b"".join(LINES[3:]), seal)


def test_a_seal_before_a_torn_line(tmp_path: Path) -> None:
    """The seal is of the last whole line; what follows it may have been finished, or torn."""
    path, chain = tmp_path / "a", Chain()
    first = written(used(0), used(1), chain=chain)
    torn = b'{"time":"2026-11'
    seal = seal_of(verified(path, first + torn)[1])
    whole = first + written(used(2), chain=chain)
    assert verified(path, whole, seal)[0] == 0


def test_as_json(tmp_path: Path) -> None:
    """The same for programs."""
    path = file(tmp_path / "a", b"".join([LINES[0], *LINES[2:]]))
    out, text = told(as_json=True)
    assert audit.verify([path], "", out) == 1
    found = json.loads(text.getvalue())
    assert (found["holds"], found["lines"], found["sealed"]) == (False, 4, None)
    (one,) = found["breaks"]
    assert (one["file"], one["line"], one["tampering"]) == (str(path), 2, True)


def test_many_breaks_are_counted(tmp_path: Path) -> None:
    """A page for people, not all of them."""
    path = tmp_path / "a"
    status, text = verified(path, LINES[0] + b"rubbish\n" * 3000 + LINES[1])
    assert status == 1
    assert len(text.splitlines()) < 30
    assert "… and 982 more (--json)" in text


@pytest.mark.parametrize("data", [b"", b"\n", b"hello\n" * 5000, vaults(vault_call(1, "a"))])
def test_no_log_of_ours(tmp_path: Path, data: bytes) -> None:
    """It is an error that names the file, not a whole log."""
    with pytest.raises(LogError, match="no line of a vaultauthz audit log"):
        verified(tmp_path / "a", data)


@pytest.mark.parametrize("seal", ["5", "0:" + "0" * 64, "5:" + "0" * 63, "x:" + "0" * 64])
def test_no_seal(tmp_path: Path, seal: str) -> None:
    """It says how one looks."""
    with pytest.raises(SealError, match="NUMBER:SHA256"):
        verified(tmp_path / "a", b"".join(LINES), seal)
