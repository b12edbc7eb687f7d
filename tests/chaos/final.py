"""The last look: ours stopped in order, and what has to be so afterwards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.bed import Bed
from tests.chaos.bounds import OURS, SDS
from tests.chaos.configuration import CALL, TOKEN_MAX_TTL, TOKEN_TTL
from vaultauthz.demo.parts import wait_for

# OpenBao tries a revocation that failed again after 10, 20, 40 s …
_RETRIES: Final = 75.0
# Ours hangs up on an answer that comes later than that.
_GIVEN_UP: Final = 0.75 * CALL
# Between an answer's arrival and its line, when ours is killed.
_RECORDED: Final = 0.5
_ID: Final = re.compile(r"\(request ([0-9a-f-]{36}),")


@dataclass
class Last:
    """What the end showed; ``stopped`` is the exit status of ours."""

    stopped: int | None = None
    users: list[str] = field(default_factory=list)
    users_gone: float = 0.0
    chain: str = ""
    chain_holds: bool = False
    findings: list[str] = field(default_factory=list)
    explained: int = 0
    joined: bool = False
    logs: list[str] = field(default_factory=list)


def look(bed: Bed) -> Last:
    """Stop ours and look at everything."""
    last = Last()
    wait_for(bed.ready, 40)
    last.stopped = bed.serve.terminate(timeout=30)
    begun = time.monotonic()
    # By SDS what Envoys hold is left to lapse, with the token that nobody renews.
    patience = _RETRIES + (TOKEN_TTL if bed.mode == SDS or last.stopped else 5)
    wait_for(lambda: not bed.postgres.users(), patience + TOKEN_MAX_TTL)
    last.users, last.users_gone = bed.postgres.users(), time.monotonic() - begun
    _verify(bed, last)
    _join(bed, last)
    _read_logs(bed, last)
    return last


def _run(*words: str | Path) -> tuple[int, dict[str, Any], str]:
    argv = [sys.executable, "-m", "vaultauthz", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    try:
        return done.returncode, json.loads(done.stdout), done.stderr
    except ValueError:
        return done.returncode, {}, done.stdout + done.stderr


def _verify(bed: Bed, last: Last) -> None:
    status, told, errors = _run("audit", "verify", "--json", *bed.audit_files())
    last.chain_holds = status == 0 and bool(told.get("holds"))
    wrong = [f"{b['kind']}: {b['detail']}" for b in told.get("breaks", []) if b["tampering"]]
    kept = f"{told.get('lines', 0):,} lines in {len(told.get('files', []))} files, {told.get('chains')} chains"
    last.chain = "; ".join([kept, *wrong, errors.strip()]).strip("; ")


def _join(bed: Bed, last: Last) -> None:
    status, told, errors = _run(
        "audit", "join", "--json", *bed.audit_files(), "--vault", bed.bao.audit_path
    )
    last.joined = status in (0, 1) and bool(told)
    if not last.joined:
        last.findings.append(f"it could not be told: {errors.strip()[:300]}")
    for finding in told.get("findings", []):
        if _explains(bed, finding):
            last.explained += 1
        else:
            last.findings.append(finding)


def _explains(bed: Bed, finding: str) -> bool:
    """Whether the run did it: an answer that did not reach us, or that came as we were killed."""
    found = _ID.search(finding)
    answer = bed.ledger.issued.get(found[1]) if found else None
    if answer is None:
        return False
    gone = (window for window in bed.record.windows if OURS in window.disturbs)
    return (
        not answer.passed
        or answer.over - answer.at > _GIVEN_UP
        or any(w.begin - _RECORDED < answer.over and answer.at < w.end for w in gone)
    )


def _read_logs(bed: Bed, last: Last) -> None:
    log = bed.log.read_text(errors="replace")
    last.logs += ["a traceback in its log"] * log.count("Traceback")
    last.logs += [line for line in log.splitlines() if "ERROR" in line and "internal" in line]
    secrets = bed.ledger.secrets
    for file in (bed.log, *bed.audit_files(), bed.folder / "envoy" / "envoy.log"):
        text = file.read_text(errors="replace")
        told = sum(secret in text for secret in secrets)
        last.logs += [f"{told} secrets are in {file.name}"] if told else []


def keep(bed: Bed, where: Path) -> None:
    """Copy what is needed to look into a failure."""
    where.mkdir(parents=True, exist_ok=True)
    for file in (
        bed.log,
        *bed.audit_files(),
        bed.bao.audit_path,
        bed.folder / "envoy" / "envoy.log",
    ):
        name = f"bao-{file.name}" if file == bed.bao.audit_path else file.name
        shutil.copy(file, where / name)
