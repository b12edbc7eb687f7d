"""The command line: reads the arguments, calls what does the work, sets the exit status.

Status 0 is good, 1 a finding, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vaultauthz import __version__
from vaultauthz.config import Config, ConfigError, load

if TYPE_CHECKING:
    from vaultauthz.admin.client import Client
    from vaultauthz.terminal import Told

_DEFAULT_CONFIG = "vaultauthz.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vaultauthz",
        description="Short-lived upstream credentials from Vault or OpenBao, put on the request.",
    )
    parser.add_argument("--version", action="version", version=f"vaultauthz {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_config(commands)
    _add_leases(commands)
    _add_ask(
        commands, "rotate", "replace an upstream's credential, without losing a request", _rotate
    )
    _add_ask(commands, "revoke", "end an upstream's credential now, and get another", _revoke)
    return parser


_Commands = argparse._SubParsersAction  # noqa: SLF001  argparse has no public name for it


def _add_serve(commands: _Commands[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve", help="answer the gateway's checks until SIGTERM", description=_serve.__doc__
    )
    _takes_config(serve)
    serve.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="what is logged to standard error (default: info)",
    )
    serve.set_defaults(run=_serve)


def _add_demo(commands: _Commands[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="see it work on a real OpenBao, PostgreSQL and Envoy",
        description=_demo.__doc__,
    )
    demo.add_argument(
        "--keep", action="store_true", help="leave everything running and print lines to try"
    )
    demo.set_defaults(run=_demo)


def _add_config(commands: _Commands[argparse.ArgumentParser]) -> None:
    config = commands.add_parser("config", help="look at a configuration")
    actions = config.add_subparsers(title="actions", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check", help="say what is wrong with it", description=_check.__doc__
    )
    _takes_config(check)
    check.set_defaults(run=_check)


def _add_leases(commands: _Commands[argparse.ArgumentParser]) -> None:
    leases = commands.add_parser(
        "leases",
        help="show every login and lease of a running vaultauthz",
        description=_leases.__doc__,
    )
    _takes_door(leases)
    leases.set_defaults(run=_leases)


def _add_ask(
    commands: _Commands[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> None:
    parser = commands.add_parser(name, help=summary, description=run.__doc__)
    parser.add_argument("upstream", metavar="UPSTREAM", help="its name in the configuration")
    parser.add_argument("--stage", metavar="S", help="only there (default: in all its stages)")
    _takes_door(parser)
    parser.set_defaults(run=run)


def _takes_door(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    _takes_config(parser)
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


def _takes_config(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("VAULTAUTHZ_CONFIG", _DEFAULT_CONFIG)
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path(default),
        help=f"the configuration (default: $VAULTAUTHZ_CONFIG, else {_DEFAULT_CONFIG})",
    )


def _load(options: argparse.Namespace) -> Config:
    """The configuration, its warnings told on standard error."""
    config = load(options.config, os.environ)
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return config


def _serve(options: argparse.Namespace) -> int:
    """Log in to Vault, lease each upstream's credential and answer the gateway's checks."""
    from vaultauthz import serve  # late: grpc takes a while to load

    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    # Their debug lines would show Vault's paths and lease ids.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    try:
        return serve.run(options.config, _load(options))
    except serve.StartError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _demo(options: argparse.Namespace) -> int:
    """Start real servers in a temporary folder and watch a request get its credential."""
    try:
        from vaultauthz import demo
    except ModuleNotFoundError as exc:
        print(
            f"vaultauthz demo: {exc.name} is missing; pip install 'vaultauthz[demo]'",
            file=sys.stderr,
        )
        return 2
    return demo.run(keep=options.keep, out=sys.stdout)


def _check(options: argparse.Namespace) -> int:
    """Say what is wrong with the configuration, line by line, or what it holds."""
    config = _load(options)
    print(
        f"{options.config}: good: {_count(len(config.stages), 'stage')}, "
        f"{_count(len(config.upstreams), 'upstream')}, {_count(len(config.routes), 'route')}"
    )
    return 1 if config.warnings else 0


def _leases(options: argparse.Namespace) -> int:
    """Show every login and lease of a running vaultauthz; status 1 when one has no credential."""
    from vaultauthz.admin import command

    return _asked(options, command.leases)


def _rotate(options: argparse.Namespace) -> int:
    """Have a credential replaced; the present one is used until the new one is there."""
    return _tell(options, "rotate")


def _revoke(options: argparse.Namespace) -> int:
    """End a credential at once and get another; requests in between are answered 503."""
    return _tell(options, "revoke")


def _tell(options: argparse.Namespace, action: str) -> int:
    from vaultauthz.admin import command

    return _asked(
        options,
        lambda client, told: command.ask(client, action, options.upstream, options.stage, told),
    )


def _asked(options: argparse.Namespace, run: Callable[[Client, Told], int]) -> int:
    """Ask a running server; status 2 and one line when it cannot be asked."""
    from vaultauthz.admin.client import Client
    from vaultauthz.admin.door import ClientError, Door
    from vaultauthz.terminal import Told

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    try:
        if options.admin or options.token_file or options.cert:
            door = Door.at(options.admin, options.token_file, options.cert)
        else:
            door = Door.of(load(options.config, os.environ).listen, options.config)
        return run(Client(door), Told(sys.stdout, as_json=options.json, width=width))
    except ClientError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
