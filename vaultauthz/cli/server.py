"""``serve`` and ``demo``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from vaultauthz.cli.arguments import Commands, Options, load_config, takes_config, takes_log_level
from vaultauthz.config import Config
from vaultauthz.wanted import Wanted


def add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve", help="answer the gateway's checks until SIGTERM", description=_serve.__doc__
    )
    takes_config(serve)
    takes_log_level(serve)
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

    def run(_options: Options, config: Config, wanted: Wanted) -> int:
        from vaultauthz.envoy import door

        return door.serve(wanted, config)

    return until_sigterm(options, run)


def until_sigterm(options: Options, run: Callable[[Options, Config, Wanted], int]) -> int:
    wanted = Wanted(options.config)  # first: what comes next takes a while, grpc most of it
    from vaultauthz.serve import StartError

    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    # Their debug lines would show Vault's paths and lease ids.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    try:
        return run(options, load_config(options), wanted)
    except StartError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
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
