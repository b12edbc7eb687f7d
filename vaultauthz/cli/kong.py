"""``vaultauthz kong``: the arguments of its three commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from vaultauthz.config import Config
from vaultauthz.wanted import Wanted

Parser = argparse.ArgumentParser
Load = Callable[[argparse.Namespace], Config]


def add(
    kong: Parser, takes_config: Callable[[Parser], None], takes_log: Callable[[Parser], None]
) -> dict[str, Parser]:
    """Add the commands to ``kong``; their parsers by name."""
    actions = kong.add_subparsers(title="actions", required=True, metavar="ACTION")
    serve = actions.add_parser("serve", help="be Kong's plugin server until SIGTERM")
    takes_config(serve)
    takes_log(serve)
    serve.add_argument(
        "--socket", metavar="PATH", type=Path, required=True, help="where Kong connects"
    )
    serve.add_argument(
        "--group", default="", metavar="NAME", help="who may connect besides this user"
    )
    serve.add_argument(
        "--child",
        action="store_true",
        help="Kong starts it: take over from the server before, end when Kong has ended",
    )
    dump = actions.add_parser("dump", help="print what Kong's query_cmd wants to know")
    config = actions.add_parser("config", help="print Kong's configuration that fits it")
    takes_config(config)
    config.add_argument(
        "--stock",
        action="store_true",
        help="for kong-python-pluginserver, with the guard that makes it fail closed",
    )
    config.add_argument(
        "--outside",
        action="store_true",
        help="for a server that something else than Kong starts",
    )
    config.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        default=Path("/usr/local/kong/vault-authz.socket"),
        help="where the server is to listen (default: %(default)s)",
    )
    return {"serve": serve, "dump": dump, "config": config}


def dump(_options: argparse.Namespace) -> int:
    """Print name, priority, phases and schema of the plugin as JSON, and nothing else."""
    from vaultauthz.kong import info

    sys.stdout.write(info.dump())
    return 0


def serve(options: argparse.Namespace, config: Config, wanted: Wanted) -> int:
    """Speak ProtoBuf:1 with Kong; otherwise as `vaultauthz serve`."""
    from vaultauthz import kong_serve

    asked = kong_serve.Asked(options.socket, options.group, options.child)
    return kong_serve.run(wanted, config, asked)


def config(options: argparse.Namespace, config: Config) -> int:
    """Print the lines for kong.conf and the routes' plugins for kong.yml."""
    from vaultauthz.config import fit_for_kong
    from vaultauthz.kong_config import Asked, run

    fit_for_kong(config)

    asked = Asked(options.socket, stock=options.stock, outside=options.outside)
    return run(config, options.config, asked, sys.stdout, sys.stderr)
