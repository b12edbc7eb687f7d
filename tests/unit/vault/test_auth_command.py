"""A command that prints a token: what it may do, and what is told of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from vaultauthz.core.grant import Verdict
from vaultauthz.demo.parts.process import wait_for
from vaultauthz.vault.auth.here import printed
from vaultauthz.vault.errors import VaultError

LIMIT = 64 * 1024


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def reason_of(argv: tuple[str, ...], timeout: float = PATIENCE) -> str:
    """Why it fails, which is worth another try."""
    with pytest.raises(VaultError) as caught:
        printed(argv, timeout)
    assert caught.value.failure.verdict is Verdict.RETRY
    assert caught.value.detail == ""
    return caught.value.failure.reason


def ended(pid: int) -> bool:
    """Whether this process runs no more, or is only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_it_prints_is_the_token() -> None:
    """Without the white space around it; errors are another channel."""
    assert printed(shell("echo warning >&2; echo; printf ' ey.J.x \\n\\n'")).reveal() == "ey.J.x"


def test_arguments_are_no_shells() -> None:
    """They arrive as they are written."""
    assert printed(("echo", "$HOME;", "*")).reveal() == "$HOME; *"


def test_it_has_our_environment_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a cloud's own tool finds its settings, and a question does not wait for an answer."""
    monkeypatch.setenv("TOKEN_OF", "the environment")
    assert printed(shell('cat; printf "%s" "$TOKEN_OF"')).reveal() == "the environment"


def test_it_runs_apart_from_our_terminal() -> None:
    """Its session is its own, so that a Ctrl-C at our terminal is not for it."""
    program = "import os; print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())"
    assert printed((sys.executable, "-c", program)).reveal() == "True True"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo s3cr3t; echo s3cr3t >&2; exit 7", "failed with exit status 7"),
        ("echo s3cr3t; kill -9 $$", "was ended by signal 9"),
        ("echo '  '", "printed nothing"),
        ("printf 's3cr3t\\377'", "printed what is not text"),
        (f"head -c {LIMIT + 1} /dev/zero; echo s3cr3t", "printed more than 64 KiB"),
        ("yes s3cr3t", "printed more than 64 KiB"),
    ],
)
def test_a_failure_says_what_without_its_words(script: str, told: str) -> None:
    """The command's name and how it ended: neither its output nor its arguments."""
    assert reason_of(shell(script)) == f"the token command sh {told}"


def test_the_limit_itself_is_taken() -> None:
    """64 KiB and not a byte more."""
    assert len(printed(shell(f"head -c {LIMIT} /dev/zero | tr '\\0' x")).reveal()) == LIMIT


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("/no/such/tool", "s3cr3t"), "tool cannot be run: No such file or directory"),
        (("/dev/null", "s3cr3t"), "null cannot be run: Permission denied"),
        (("/bin/echo", "s3cr3t\0"), "echo cannot be run: a NUL in its arguments"),
    ],
)
def test_a_command_that_cannot_be_run_is_named(argv: tuple[str, ...], told: str) -> None:
    """As the system says it."""
    assert reason_of(argv) == f"the token command {told}"


@pytest.mark.parametrize(
    "script",
    [
        "{}; sleep 600",
        "trap '' TERM INT HUP; {}; while :; do sleep 600; done",
        "{}; exec >&-; sleep 600",
        "{}; yes",
    ],
    ids=["sleeps", "ignores signals", "closes its output", "prints for ever"],
)
def test_what_takes_too_long_is_ended_with_all_it_started(tmp_path: Path, script: str) -> None:
    """Its children too: none of them is left."""
    pids = tmp_path / "pids"
    begin = f"sleep 600 & echo $! >{pids}; echo $$ >>{pids}"
    reason = reason_of(shell(script.format(begin)), timeout=1.5)
    assert "did not end within 1.5 s" in reason or "more than 64 KiB" in reason
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    assert wait_for(lambda: all(ended(pid) for pid in started), PATIENCE)


def test_a_child_that_keeps_the_output_open_is_not_waited_for_longer(tmp_path: Path) -> None:
    """The command itself is done; what it left behind is ended with its group."""
    pid = tmp_path / "pid"
    assert "did not end" in reason_of(shell(f"sleep 600 & echo $! >{pid}; echo token"), 1.5)
    assert wait_for(lambda: ended(int(pid.read_text())), PATIENCE)


def test_no_descriptor_is_left_open() -> None:
    """Neither of a good run nor of a bad one."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    printed(("echo", "token"))
    reason_of(("false",))
    reason_of(("sleep", "600"), 0.05)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
