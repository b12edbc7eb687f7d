"""``vaultauthz kong``: the arguments of its three commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vaultauthz.config import Config
from vaultauthz.wanted import Wanted

Parser = argparse.ArgumentParser
Load = Callable[[argparse.Namespace], Config]

_SOCKET: Final = Path("/usr/local/kong/vault-authz.socket")
# Not in Kong's prefix, where each start of Kong deletes sockets.
_OUTSIDE: Final = Path("/run/vaultauthz/kong.sock")
_GROUP: Final = "10001"  # of our image's user


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
        "--group",
        default="",
        metavar="GROUP",
        help="who may connect besides this user: a group's name or number",
    )
    serve.add_argument(
        "--child",
        action="store_true",
        help="Kong starts it: take over from the server before, end when Kong has ended",
    )
    dump = actions.add_parser("dump", help="print what Kong's query_cmd wants to know")
    dump.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        help="write it there, for `/bin/cat FILE` in a Kong without Python",
    )
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
        help="for a server that something else than Kong starts, and a Kong without Python",
    )
    config.add_argument(
        "--format",
        choices=("conf", "env", "helm"),
        default="conf",
        help="lines of kong.conf (default), KONG_ variables, or values of Kong's Helm chart with "
        "vaultauthz as a sidecar (implies --outside)",
    )
    config.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        help=f"where the server is to listen (default: {_SOCKET}; --outside: {_OUTSIDE})",
    )
    config.add_argument(
        "--dump-file",
        metavar="FILE",
        type=Path,
        help="--outside: where `kong dump --file FILE` writes (default: vault-authz.json beside "
        "the socket)",
    )
    config.add_argument(
        "--group",
        default="",
        metavar="GROUP",
        help=f"--outside: who may connect besides the server's user (helm: {_GROUP})",
    )
    return {"serve": serve, "dump": dump, "config": config}


def dump(options: argparse.Namespace) -> int:
    """Print name, priority, phases and schema of the plugin as JSON, and nothing else."""
    from vaultauthz.kong import info

    if options.file is None:
        sys.stdout.write(info.dump())
        return 0
    try:
        info.write(options.file)
    except OSError as exc:
        return _refused(f"--file {options.file}: {(exc.strerror or 'no').lower()}")
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

    outside = options.outside or options.format == "helm"
    if outside and options.stock:
        return _refused(
            "--stock is for a server that Kong starts: kong-python-pluginserver lets no group have "
            "its socket; without it our own server is meant"
        )
    group = options.group or (_GROUP if options.format == "helm" else "")
    if options.format == "helm" and not group.isdecimal():
        return _refused(f"--group {group}: Kubernetes has numbers only; give the group's")
    socket = (options.socket or (_OUTSIDE if outside else _SOCKET)).absolute()
    asked = Asked(
        socket,
        stock=options.stock,
        outside=outside,
        dump=(options.dump_file or socket.with_name("vault-authz.json")).absolute(),
        group=group,
        form=options.format,
    )
    return run(config, options.config, asked, sys.stdout, sys.stderr)


def _refused(why: str) -> int:
    print(f"vaultauthz: {why}", file=sys.stderr)
    return 2
