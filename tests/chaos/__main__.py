"""``python -m tests.chaos --seconds 1800 --seed 1 --mode sds``: see docs/chaos.md."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from tests.chaos import final, show
from tests.chaos.bed import Bed, has_time_namespaces
from tests.chaos.bounds import EXT_AUTHZ, MODES
from tests.chaos.plan import plan
from tests.chaos.run import Run, folder

# A slow machine is slow in processes that nobody watches, too.
MILD_SLACK = 4.0


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run it; exit status 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(
        prog="chaos", description="Random faults, every answer judged."
    )
    parser.add_argument("--seconds", type=float, default=1800.0, help="of faults (default: 1800)")
    parser.add_argument("--seed", type=int, default=1, help="what is done when (default: 1)")
    parser.add_argument("--mode", choices=MODES, default=EXT_AUTHZ)
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second (default: 30)")
    parser.add_argument("--mild", action="store_true", help="few faults, for slow machines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the logs there, if it fails")
    parser.add_argument("--plan", action="store_true", help="print what would be done, and end")
    asked = parser.parse_args()
    lacks = () if has_time_namespaces() else ("timens",)
    steps = plan(asked.seed, asked.seconds, asked.mode, mild=asked.mild, lacks=lacks)
    _tell(f"chaos: {asked.mode}, {asked.seconds:g} s, seed {asked.seed}, {len(steps)} faults")
    if lacks:
        _tell("!! no time namespaces here (they take root): no clock is stepped")
    if asked.plan:
        for step in steps:
            _tell(str(step))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    last = None
    with folder() as name, Bed(Path(name), asked.mode, time.monotonic()) as bed:
        bed.record.slack = MILD_SLACK if asked.mild else 0.0
        if not bed.disk.real:
            _tell("!! no tmpfs can be mounted here: the full disk is a limit on the file's size")
        run = Run(bed, steps, _tell)
        try:
            run.go(asked.seconds, asked.rate)
            last = final.look(bed)
        except KeyboardInterrupt:
            _tell("!! stopped")
        finally:
            run.judge(float("inf"))
            wrong = show.failures(bed.record, run.seen, last, mild=asked.mild)
            for line in show.table(bed.record, run.seen, last, wrong):
                _tell(line)
            if asked.json:
                told = show.as_json(steps, bed.record, run.seen, last, wrong)
                asked.json.write_text(json.dumps({"seed": asked.seed, **told}, indent=1))
            if wrong and asked.keep:
                final.keep(bed, asked.keep)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
