"""``audit verify``, ``report`` and ``join``: what an audit log proves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vaultauthz.cli.arguments import Commands, Options, Parser, output, takes_config
from vaultauthz.config import load

if TYPE_CHECKING:
    from vaultauthz.audit import SelectedLines


def add_audit(commands: Commands) -> None:
    """Add the three."""
    audit = commands.add_parser(
        "audit",
        help="check the audit log, report who used what, join it with Vault's",
        description="Read the audit log of one server, rotated files too; see audit.file.",
    )
    actions = audit.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_verify(actions)
    _add_report(actions)
    _add_join(actions)


def _add_verify(actions: Commands) -> None:
    verify = actions.add_parser(
        "verify", help="say whether lines were changed or removed", description=_verify.__doc__
    )
    _takes_log(verify)
    verify.add_argument(
        "--seal",
        metavar="NUMBER:SHA256",
        default="",
        help="a seal that was printed earlier and kept elsewhere: that line must still be there",
    )
    verify.set_defaults(run=_verify)


def _add_report(actions: Commands) -> None:
    report = actions.add_parser(
        "report", help="who used which credential, and when", description=_report.__doc__
    )
    _takes_log(report)
    report.add_argument(
        "--by",
        choices=("upstream", "caller", "credential", "reason"),
        default="upstream",
        help="what a row is about (default: upstream)",
    )
    _takes_selection(report)
    report.set_defaults(run=_report)


def _add_join(actions: Commands) -> None:
    join = actions.add_parser(
        "join", help="put it side by side with Vault's audit log", description=_join.__doc__
    )
    _takes_log(join)
    join.add_argument(
        "--vault",
        metavar="FILE",
        type=Path,
        nargs="+",
        required=True,
        help="Vault's audit log: the file of a `file` audit device, rotated ones too, of each node",
    )
    _takes_selection(join)
    join.add_argument(
        "--request", metavar="ID", default="", help="one request by its request_id, told whole"
    )
    join.set_defaults(run=_join)


def _takes_log(parser: Parser) -> None:
    parser.add_argument(
        "log",
        metavar="LOG",
        type=Path,
        nargs="*",
        help="the audit log's files, in any order, also compressed by gzip; - for standard input "
        "(default: audit.file in the configuration)",
    )
    takes_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _takes_selection(parser: Parser) -> None:
    for name in ("upstream", "stage", "caller"):
        parser.add_argument(f"--{name}", metavar="X", default="", help=f"only this {name}")
    parser.add_argument("--credential", metavar="ID", default="", help="only this credential_id")
    for name, what in (("since", "from then on"), ("until", "before then")):
        parser.add_argument(
            f"--{name}", metavar="T", help=f"{what}: 24h (ago), 2026-11-22 or 2026-11-22T08:30:00Z"
        )


def _verify(options: Options) -> int:
    """Say whether lines of the audit log were changed, removed, moved or put in.

    Each line has the hash of the one before. Status 1 when the chain does not hold.
    """
    from vaultauthz import audit

    return _status(
        lambda: audit.verify(_paths(options), options.seal, output(as_json=options.json))
    )


def _report(options: Options) -> int:
    """Count the requests in the audit log: by upstream, caller, credential or reason."""
    from vaultauthz import audit

    return _status(
        lambda: audit.report(_selected(options), options.by, output(as_json=options.json))
    )


def _join(options: Options) -> int:
    """Put the audit log and Vault's side by side: who used which credential, issued when and to whom.

    Status 1 when one log has what the other lacks, or a credential was used after its end.
    """
    from vaultauthz import audit

    return _status(
        lambda: audit.join(_selected(options), options.vault, output(as_json=options.json))
    )


def _status(run: Callable[[], int]) -> int:
    """Run it; status 2 and one line when it cannot be told."""
    from vaultauthz.audit.files import LogError, MomentError
    from vaultauthz.audit.verification import SealError

    try:
        return run()
    except (LogError, SealError, MomentError) as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _selected(options: Options) -> SelectedLines:
    from vaultauthz.audit import SelectedLines
    from vaultauthz.audit.files import Selection, moment

    now = datetime.now(UTC)
    return SelectedLines(
        _paths(options),
        Selection(
            options.upstream,
            options.stage,
            options.caller,
            options.credential,
            getattr(options, "request", ""),
            moment(options.since, now) if options.since else None,
            moment(options.until, now) if options.until else None,
        ),
    )


def _paths(options: Options) -> list[Path]:
    from vaultauthz.audit import paths_of

    if options.log:
        return list(options.log)
    return paths_of(load(options.config, os.environ, elsewhere=True).audit, options.config)
