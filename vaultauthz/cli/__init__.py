"""The command line: reads the arguments, calls what does the work, sets the exit status.

Status 0 is good, 1 a finding, 2 wrong usage or configuration.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vaultauthz import __version__
from vaultauthz.cli.arguments import Parser
from vaultauthz.cli.auditing import add_audit
from vaultauthz.cli.completion import add_completion, add_help
from vaultauthz.cli.configuration import add_config, add_doctor, add_explain, add_policy
from vaultauthz.cli.gateways import add_envoy, add_kong
from vaultauthz.cli.init import add_init
from vaultauthz.cli.parsing import SuggestingParser, parse
from vaultauthz.cli.server import add_demo, add_running, add_serve
from vaultauthz.config import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = parse(_parser(), sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()  # at exit it would be too late to do without the reader
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return 2
    except BrokenPipeError:  # `vaultauthz … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> Parser:
    parser: Parser = SuggestingParser(
        prog="vaultauthz",
        description="Short-lived upstream credentials from Vault or OpenBao, put on the request.",
        epilog="Exit status: 0 good, 1 a finding, 2 wrong usage or configuration. "
        "`vaultauthz COMMAND --help` says more of each.",
    )
    parser.add_argument("--version", action="version", version=f"vaultauthz {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        add_init,
        add_serve,
        add_demo,
        add_config,
        add_doctor,
        add_policy,
        add_explain,
        add_envoy,
        add_kong,
        add_running,
        add_audit,
    ):
        add(commands)
    add_help(commands, _parser)
    add_completion(commands, _parser)
    return parser
