"""`vaultauthz demo`: the whole way of a request on real parts, told step by step.

Sets the stage, tells the story, clears up: also after Ctrl-C and SIGTERM.
Needs the extra `demo`; without it the import raises ModuleNotFoundError.
"""

import contextlib
import http.client
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

import psycopg
from hvac.exceptions import VaultError

from vaultauthz.demo.parts import PartError
from vaultauthz.demo.stage import DemoStage
from vaultauthz.demo.story import ENDING, STEPS, Step
from vaultauthz.demo.tell import Teller

HELD, FAILED, INTERRUPTED = 0, 1, 130
# What the services, Vault and PostgreSQL raise when they do not do what the story asks of them.
BROKEN = (OSError, http.client.HTTPException, LookupError, ValueError, VaultError, psycopg.Error)


def run(*, keep: bool, out: TextIO) -> int:
    """Tell the story on `out`; 0 if every step held, 1 if not, 130 if it was interrupted.

    `keep` leaves everything running before the last steps, until Ctrl-C.
    Call it from the main thread: it handles SIGTERM, and the kernel ends the parts with the thread that started them.
    """
    tell = Teller(out)
    try:
        with _terminated_like_interrupted(), _folder() as folder:
            stage = DemoStage(folder)
            try:
                _tell(stage, tell, keep=keep)
            finally:
                _tear_down(stage)
    except (PartError, *BROKEN) as error:
        tell.broken(error)
        return FAILED
    except KeyboardInterrupt:
        tell.say("Interrupted; everything is stopped and removed.")
        return INTERRUPTED
    tell.close()
    return FAILED if tell.failed else HELD


def _tell(stage: DemoStage, tell: Teller, *, keep: bool) -> None:
    tell.title("vaultauthz: credentials from Vault, added at the gateway")
    tell.say("Starting the parts, all on this machine:")
    stage.set_up(tell.fact)
    _walk(STEPS, stage, tell)
    if keep:
        _show_commands(stage, tell)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    _walk(ENDING, stage, tell)
    if tell.failed:
        tell.say("The end of vaultauthz's log:")
        for line in stage.serve.log_tail().splitlines():
            tell.command(f"  {line}")


def _walk(steps: Iterable[Step], stage: DemoStage, tell: Teller) -> None:
    for step in steps:
        try:
            step(stage, tell)
        except BROKEN as error:
            # A step that cannot be carried out did not hold; the others are still worth telling.
            tell.broken(error)


def _show_commands(stage: DemoStage, tell: Teller) -> None:
    tell.step("Your turn", "Everything keeps running until Ctrl-C. To try:")
    tell.command(f"cd {stage.folder}")
    curl = f"curl -s --cacert ca.pem --resolve '*:{stage.port}:127.0.0.1'"
    tell.command(
        f"{curl} --cert dashboard.pem --key dashboard.key https://reports.demo:{stage.port}/"
    )
    tell.command(
        f"{curl} --cert intruder.pem --key intruder.key https://reports.demo:{stage.port}/"
    )
    tell.command(f"{curl} -H 'X-Api-Key: mine' https://geocoder.demo:{stage.port}/")
    tell.command(f"export VAULT_ADDR={stage.bao.address} VAULT_TOKEN=$(cat root_token)")
    tell.command("curl -s --unix-socket admin.sock http://localhost/leases")
    tell.command("tail -f audit.jsonl")


def _tear_down(stage: DemoStage) -> None:
    # A second Ctrl-C must not stop the clean-up half way.
    asked = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in asked]
    try:
        stage.tear_down()
    finally:
        for number, handler in zip(asked, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A private folder, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="vaultauthz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
