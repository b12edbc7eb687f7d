"""A line of the server's log: as text, as JSON, once where it comes again and again."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.terminal import (
    EACH_TIME,
    JsonLines,
    LogWriter,
    Repeats,
    TextLines,
    log_format,
    log_to,
)


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


def record(
    message: str, *args: object, level: int = logging.INFO, **more: Any
) -> logging.LogRecord:
    found = logging.LogRecord("vaultauthz.service", level, "", 0, message, args, None)
    for name, value in more.items():
        setattr(found, name, value)
    return found


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Logging as it is started by a command; as it was before at the end."""
    root, ours = logging.getLogger(), logging.getLogger("vaultauthz")
    before, levels = list(root.handlers), (root.level, ours.level)
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.mark.parametrize(
    ("chosen", "stream", "form"),
    [
        ("auto", Terminal(), "text"),
        ("auto", io.StringIO(), "json"),
        ("text", io.StringIO(), "text"),
        ("json", Terminal(), "json"),
    ],
)
def test_the_format(chosen: str, stream: io.StringIO, form: str) -> None:
    """Left to itself it is text on a terminal, and JSON where a program reads it."""
    assert log_format(chosen, stream) == form


def test_an_object() -> None:
    """The time in UTC with milliseconds, level, logger, message; then the fields that there are."""
    fields = {"stage": "demo", "upstream": "", "seconds": 0.0, "request_id": None}
    line = JsonLines().format(record("took %d s", 3, created=1.5, fields=fields))
    assert line == (
        '{"time": "1970-01-01T00:00:01.500Z", "level": "info", "logger": "vaultauthz.service", '
        '"message": "took 3 s", "stage": "demo", "seconds": 0.0}'
    )


def test_a_field_takes_no_key_of_the_line() -> None:
    """Whatever is told of an event, when and what it was stays as it is."""
    line = json.loads(JsonLines().format(record("so it is", fields={"message": "not so"})))
    assert line["message"] == "so it is"


def test_text() -> None:
    """Time, level and message, as it has always been."""
    line = TextLines().format(record("serving %s", "Envoy", fields={"stage": "demo"}))
    assert line.split(" ", 2)[2] == "INFO serving Envoy"


@pytest.mark.parametrize("lines", [TextLines(), JsonLines()])
@given(text=st.text())
def test_a_line_is_one_line(lines: logging.Formatter, text: str) -> None:
    """Whatever is in a value: no line begins within, and a terminal finds nothing to obey."""
    line = lines.format(record("it said %s", text, fields={"reason": text}))
    assert line.isprintable()
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("lines", [TextLines(), JsonLines()])
def test_the_text_of_an_error_is_left_out(lines: logging.Formatter) -> None:
    """It may quote a value."""
    error = ValueError("hunter2")
    line = lines.format(record("a fault", exc_info=(ValueError, error, None)))
    assert "ValueError" in line
    assert "hunter2" not in line


def test_what_repeats_is_told_once_a_minute_with_its_count() -> None:
    """The first at once, then one a minute, which says how many were kept back."""
    repeats = Repeats(every=60.0)
    told = [(now, repeats.due("x", float(now))) for now in range(0, 150, 10)]
    assert [each for each in told if each[1] is not None] == [(0, 0), (60, 5), (120, 5)]


def test_each_line_has_a_count_of_its_own() -> None:
    """One that comes often keeps no other back."""
    repeats = Repeats(every=60.0)
    assert [repeats.due(what, 1.0) for what in "xxyx"] == [0, None, 0, None]


def test_what_ends_is_told_with_its_count() -> None:
    """What was kept back and has not come since; what was told as often as it came is forgotten."""
    repeats = Repeats(every=60.0)
    for what in "xxxy":
        repeats.due(what, 0.0)
    assert repeats.over(59.9) == []
    assert repeats.over(60.0) == [("x", 2, 0.0)]
    assert repeats.over(999.0) == []
    assert repeats.due("x", 60.0) == 0


def test_no_more_than_so_many_are_known() -> None:
    """What comes beyond them is told each time, and no count of another is lost."""
    repeats = Repeats(every=60.0, most=2)
    assert [repeats.due(what, 0.0) for what in "aabcc"] == [0, None, 0, 0, 0]
    assert repeats.over(60.0) == [("a", 1, 0.0)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 50.0)), max_size=60))
def test_every_line_is_told_or_counted(lines: list[tuple[str, float]]) -> None:
    """As many as there were are told or in a count, whenever they come."""
    repeats, now, seen = Repeats(every=60.0, most=2), 0.0, 0
    for what, wait in lines:
        now += wait
        kept = repeats.due(what, now)
        seen += 0 if kept is None else 1 + kept
        seen += sum(count for _, count, _ in repeats.over(now))
    assert seen + sum(count for _, count, _ in repeats.over(1e9)) == len(lines)


def test_a_warning_again_is_counted() -> None:
    """The same words are written once; at the end the log says how often they came besides."""
    out = io.StringIO()
    writer = LogWriter(out, "json")
    for _ in range(3):
        writer.write(record("Vault %s", "is away", level=logging.WARNING))
    writer.write(record("another", level=logging.WARNING))
    writer.close()
    first, other, end = map(json.loads, out.getvalue().splitlines())
    assert (first["message"], other["message"]) == ("Vault is away", "another")
    assert end["message"] == "Vault is away (and 2 more times since it was told, the last 0 s ago)"
    assert (end["level"], end["repeated"]) == ("warning", 2)


@pytest.mark.parametrize("more", [{"level": logging.INFO}, {"level": logging.ERROR, **EACH_TIME}])
def test_an_answer_is_written_each_time(more: dict[str, Any]) -> None:
    """What is no trouble, or is said to who asked, is told as often as it is said."""
    out = io.StringIO()
    writer = LogWriter(out, "text")
    for _ in range(3):
        writer.write(record("reloaded", **more))
    writer.close()
    assert out.getvalue().count("reloaded") == 3


def test_no_library_shows_what_it_sends(root: logging.Logger) -> None:
    """At the level debug our own lines are there, and of others those that are no debug lines.

    No cloud library: those are kept quiet from their first use on (``vault.auth.cloud.quiet``).
    """
    out = io.StringIO()
    log_to(out, "text", "debug")
    logging.getLogger("vaultauthz.vault").debug("ours")
    logging.getLogger("library.auth").debug("theirs")
    logging.getLogger("library.auth").info("something")
    logging.getLogger("urllib3").info("a connection")
    root.handlers[0].flush()
    assert [line.split(" ", 3)[3] for line in out.getvalue().splitlines()] == ["ours", "something"]


def test_a_line_that_cannot_be_made(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever writes it goes on, as with Python's own handlers; the next line is there."""
    out = io.StringIO()
    log_to(out, "json", "info")
    log = logging.getLogger("vaultauthz.test")
    log.warning("%d", "no number")
    log.warning("the next")
    root.handlers[0].flush()
    assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == ["the next"]
    assert "Logging error" in capsys.readouterr().err


def test_the_level(root: logging.Logger) -> None:
    """Lines below it are left out, also of libraries."""
    out = io.StringIO()
    log_to(out, "text", "error")
    for name in ("vaultauthz", "another"):
        logging.getLogger(name).warning("a warning")
        logging.getLogger(name).error("an error of %s", name)
    root.handlers[0].flush()
    assert out.getvalue().count("\n") == 2
