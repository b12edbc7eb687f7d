"""The command line: reads the arguments, calls what does the work, sets the exit status.

Status 0 is good, 1 a finding, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vaultauthz import __version__
from vaultauthz.config import Config, ConfigError, load

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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
