"""``serve`` and ``demo``; ``leases``, ``rotate`` and ``revoke``, asked of a server that runs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from argparse import ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vaultauthz.cli.arguments import (
    Commands,
    Options,
    Parser,
    load_config,
    output,
    takes_config,
    takes_log,
)
from vaultauthz.config import Config, ConfigError, load
from vaultauthz.core.events import AskedBy
from vaultauthz.terminal import EACH_TIME, Output, log_format, log_to
from vaultauthz.watching import Signals

if TYPE_CHECKING:
    from vaultauthz.admin.client import AdminClient


log = logging.getLogger(__name__)


def add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve", help="answer the gateway's checks until SIGTERM", description=_serve.__doc__
    )
    takes_config(serve)
    takes_log(serve)
    serve.add_argument(
        "--take-over",
        action="store_true",
        help="from the server that runs, once this one has every credential that it has; nobody "
        "notices (without one: an ordinary start)",
    )
    # How a server that runs calls the next one: its own listen may be another by now.
    serve.add_argument("--take-over-at", type=Path, help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)


def add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="see it work on a real OpenBao, PostgreSQL and Envoy",
        description=_demo.__doc__,
    )
    demo.add_argument(
        "--keep", action="store_true", help="leave everything running and print lines to try"
    )
    demo.set_defaults(run=_demo)


def _serve(options: Options) -> int:
    """Log in to Vault, lease each upstream's credential and answer the gateway's checks."""

    def run(options: Options, config: Config, signals: Signals) -> int:
        from vaultauthz.envoy import door
        from vaultauthz.serve import meeting_place

        before = options.take_over_at or (meeting_place(config) if options.take_over else None)
        return door.serve(signals, config, _again(options), before)

    return until_sigterm(options, run)


def _again(options: Options) -> list[str]:
    """The command that starts another server as this one was started."""
    words = ["--log-level", options.log_level, "--log-format", options.log_format]
    # -P: not what the folder that we were started in has by that name.
    return [sys.executable, "-P", "-m", "vaultauthz", "serve", "-c", str(options.config), *words]


def until_sigterm(options: Options, run: Callable[[Options, Config, Signals], int]) -> int:
    signals = Signals(options.config)  # first: what comes next takes a while, grpc most of it
    from vaultauthz.serve import StartError

    log_to(sys.stderr, options.log_format, options.log_level)
    try:
        return run(options, load_config(options), signals)
    except StartError as exc:
        return _not_started(options, (str(exc),), f"vaultauthz: {exc}")
    except ConfigError as exc:
        return _not_started(options, exc.problems, str(exc))


def _not_started(options: Options, why: Sequence[str], text: str) -> int:
    """Say why: for people as other commands do, and where the log is JSON as a line of it."""
    if log_format(options.log_format, sys.stderr) == "json":
        log.error("not started: %s", "; ".join(why), extra=EACH_TIME)
        return 2
    for handler in logging.getLogger().handlers:
        handler.flush()  # what was told before comes before
    print(text, file=sys.stderr)
    return 2


def _demo(options: Options) -> int:
    """Start real servers in a temporary folder and watch a request get its credential."""
    try:
        from vaultauthz import demo
    except ModuleNotFoundError as exc:
        print(
            f"vaultauthz demo: {exc.name} is missing: run make demo in the checkout",
            file=sys.stderr,
        )
        return 2
    return demo.run(keep=options.keep, out=sys.stdout)


def add_running(commands: Commands) -> None:
    """Add the three."""
    _add_leases(commands)
    _add_ask(
        commands, "rotate", "replace an upstream's credential, without losing a request", _rotate
    )
    _add_ask(commands, "revoke", "end an upstream's credential now, and get another", _revoke)


def _add_leases(commands: Commands) -> None:
    leases = commands.add_parser(
        "leases",
        help="show every login and lease of a running vaultauthz",
        description=_leases.__doc__,
    )
    leases.add_argument(
        "--certificates",
        action="store_true",
        help="the certificates in use instead, with their ends; status 1 when one has ended or is not taken",
    )
    _takes_door(leases)
    leases.set_defaults(run=_leases)


def _add_ask(
    commands: Commands,
    name: str,
    summary: str,
    run: Callable[[Options], int],
) -> None:
    parser = commands.add_parser(name, help=summary, description=run.__doc__)
    parser.add_argument("upstream", metavar="UPSTREAM", help="its name in the configuration")
    parser.add_argument("--stage", metavar="S", help="only there (default: in all its stages)")
    parser.add_argument(
        "--wait",
        action=BooleanOptionalAction,
        help="until it is done at Vault, 15 s at most, and status 1 if it is not (default: on a terminal)",
    )
    parser.add_argument(
        "--reason",
        metavar="TEXT",
        type=_reason,
        default="",
        help="why, for the server's audit log and its own: a line, and no secret",
    )
    _takes_door(parser)
    parser.set_defaults(run=run)


def _reason(text: str) -> str:
    if len(text) > AskedBy.longest or not text.isprintable():
        raise ArgumentTypeError(f"it is to be one line of at most {AskedBy.longest} characters")
    return text


def _takes_door(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    takes_config(parser)
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        help="unix:///PATH, HOST:PORT or https://HOST:PORT (default: listen.admin in FILE)",
    )
    parser.add_argument(
        "--token-file", metavar="FILE", type=Path, help="with --admin: where the admin token is"
    )
    parser.add_argument(
        "--cert",
        metavar="FILE",
        type=Path,
        help="with --admin: a client certificate and its key, in PEM",
    )


def _leases(options: Options) -> int:
    """Show every login and lease of a running vaultauthz; status 1 when one has none, or a refused credential."""
    from vaultauthz.admin import command

    return _with_client(options, command.certificates if options.certificates else command.leases)


def _rotate(options: Options) -> int:
    """Have a credential replaced; the present one is used until the new one is there."""
    return _ask(options, "rotate")


def _revoke(options: Options) -> int:
    """End a credential at once and get another; requests in between are answered 503."""
    return _ask(options, "revoke")


def _ask(options: Options, action: str) -> int:
    from vaultauthz.admin import command

    return _with_client(
        options,
        lambda client, out: command.ask(
            client,
            action,
            options.upstream,
            options.stage,
            out,
            wait=options.wait,
            reason=options.reason,
        ),
    )


def _with_client(options: Options, run: Callable[[AdminClient, Output], int]) -> int:
    """Ask a running server; status 2 and one line when it cannot be asked."""
    from vaultauthz.admin.client import AdminAccess, AdminClient, ClientError

    try:
        if options.admin or options.token_file or options.cert:
            access = AdminAccess.at(options.admin, options.token_file, options.cert)
        else:
            # An operator who may use the admin address need not be able to read the login's files.
            config = load(options.config, os.environ, elsewhere=True)
            access = AdminAccess.of(config.listen, options.config)
        return run(AdminClient(access), output(as_json=options.json))
    except ClientError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2
