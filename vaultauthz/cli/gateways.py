"""``envoy`` and ``kong``: the gateway's side of a configuration, and the server that Kong asks."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from vaultauthz.cli.arguments import (
    Commands,
    Options,
    load_config,
    takes_config,
    takes_log,
)
from vaultauthz.cli.server import until_sigterm
from vaultauthz.config import Config, ConfigError, fit_for_kong, load_for_kong
from vaultauthz.watching import Signals

_SOCKET: Final = Path("/usr/local/kong/vault-authz.socket")
# Not in Kong's prefix, where each start of Kong deletes sockets.
_OUTSIDE: Final = Path("/run/vaultauthz/kong.sock")
_GROUP: Final = "10001"  # of our image's user


def add_envoy(commands: Commands) -> None:
    envoy = commands.add_parser(
        "envoy",
        help="print the Envoy configuration that goes with ours",
        description=_envoy.__doc__,
    )
    takes_config(envoy)
    envoy.add_argument(
        "--mode",
        default="ext_authz",
        choices=("ext_authz", "sds"),
        help="how Envoy gets credentials: it asks about each request (ext_authz, the default), "
        "or keeps them and asks about none (sds)",
    )
    envoy.add_argument(
        "--snippet",
        action="store_true",
        help="print only what goes into a configuration that you have",
    )
    envoy.set_defaults(run=_envoy)


def _envoy(options: Options) -> int:
    """Print an Envoy bootstrap, or the parts for one that you have, with a reason for each knob.

    What is yours to fill in is marked REPLACE. Status 1 when an upstream had to be left out.
    """
    from vaultauthz.envoy_config import EnvoyOptions, run

    envoy_options = EnvoyOptions(options.mode, options.snippet)
    config = load_config(options, elsewhere=True)
    return run(config, options.config, envoy_options, sys.stdout, sys.stderr)


def add_kong(commands: Commands) -> None:
    kong = commands.add_parser(
        "kong",
        help="serve Kong's plugin, and print how to set it up",
        description="Serve Kong's plugin vault-authz, and print how to set it up.",
    )
    actions = kong.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_kong_serve(actions)
    _add_kong_dump(actions)
    _add_kong_config(actions)


def _add_kong_serve(actions: Commands) -> None:
    serve = actions.add_parser(
        "serve",
        help="be Kong's plugin server until SIGTERM",
        description="Log in to Vault, lease each upstream's credential and serve the plugin "
        "vault-authz: for Kong's start_cmd (--child), systemd, or as a container.",
    )
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
        help="Kong starts it: keep a server that outlives Kong's workers, and ends after Kong",
    )
    serve.add_argument(
        "--log-file",
        metavar="FILE",
        type=Path,
        help="with --child: what the server says (default: beside the socket, PATH.log)",
    )
    # How the process that Kong has started calls the server.
    serve.add_argument("--supervised", default="", help=argparse.SUPPRESS)
    serve.set_defaults(run=_kong_serve)


def _add_kong_dump(actions: Commands) -> None:
    dump = actions.add_parser(
        "dump",
        help="print what Kong's query_cmd wants to know",
        description="Print the plugin's name, priority, phases and schema, as JSON.",
    )
    dump.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help="say on standard error if this configuration is not valid, as Kong's log may show",
    )
    dump.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        help="write it there, for `/bin/cat FILE` in a Kong without Python",
    )
    dump.set_defaults(run=_kong_dump)


def _add_kong_config(actions: Commands) -> None:
    config = actions.add_parser(
        "config",
        help="print the Kong configuration that goes with ours",
        description="Print lines for kong.conf, and a kong.yml with a route for each upstream. "
        "What is yours to fill in is marked REPLACE. Status 1 when something does not go with Kong.",
    )
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
        "--part",
        choices=("conf", "yml"),
        default="",
        help="print only this one of the two files (default: both, one below the other)",
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
    config.set_defaults(run=_kong_config)


def _kong_serve(options: Options) -> int:
    return _kong_supervise(options) if options.child else until_sigterm(options, _kong_serve_checks)


def _kong_supervise(options: Options) -> int:
    """Keep a server for the Kong that has started this."""
    from vaultauthz.kong import supervise as kong_supervise

    socket, config = options.socket.absolute(), options.config.absolute()
    words = ["-c", str(config), "--socket", str(socket), "--log-level", options.log_level]
    words += ["--group", options.group] if options.group else []
    # What Kong shows of it, and whoever looks into the file, is for people unless it was asked for.
    log_format = "json" if options.log_format == "json" else "text"
    words += ["--log-format", log_format]
    log_file = options.log_file or socket.with_name(f"{socket.name}.log")
    supervisor_options = kong_supervise.SupervisorOptions(
        socket, config, log_file.absolute(), log_format, tuple(words)
    )
    try:
        return kong_supervise.run(supervisor_options)
    except kong_supervise.SuperviseError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _kong_serve_checks(options: Options, config: Config, signals: Signals) -> int:
    """Speak ProtoBuf:1 with Kong; otherwise as `vaultauthz serve`."""
    from vaultauthz.kong import door as kong_door

    supervised = kong_door.Supervised.parse(options.supervised) if options.supervised else None
    server_options = kong_door.ServerOptions(options.socket, options.group, supervised)
    return kong_door.serve(signals, config, server_options)


def _kong_dump(options: Options) -> int:
    """Print name, priority, phases and schema of the plugin as JSON, and nothing else.

    What is wrong with the configuration goes to standard error, which Kong leaves alone: it
    shows what a server says at its level `info`, and so not why one did not start.
    """
    from vaultauthz.kong import registration

    if options.config is not None:
        try:
            load_for_kong(options.config, os.environ)
        except ConfigError as exc:
            print(f"vaultauthz: the plugin server will not start:\n{exc}", file=sys.stderr)
    if options.file is None:
        sys.stdout.write(registration.dump())
        return 0
    try:
        registration.write(options.file)
    except OSError as exc:
        return _refused(f"--file {options.file}: {(exc.strerror or 'no').lower()}")
    return 0


def _kong_config(options: Options) -> int:
    """Print the lines for kong.conf and the routes' plugins for kong.yml."""
    from vaultauthz.kong_config import SetupOptions, run

    config = load_config(options, elsewhere=True)
    fit_for_kong(config)
    outside = options.outside or options.format == "helm"
    if outside and options.stock:
        return _refused(
            "--stock is for a server that Kong starts: kong-python-pluginserver lets no group have "
            "its socket; without it our own server is meant"
        )
    group = options.group or (_GROUP if options.format == "helm" else "")
    if options.format == "helm" and options.part:
        return _refused("--part is for conf and env; values of a chart are one file")
    if options.format == "helm" and not group.isdecimal():
        return _refused(f"--group {group}: Kubernetes has numbers only; give the group's")
    socket = (options.socket or (_OUTSIDE if outside else _SOCKET)).absolute()
    setup = SetupOptions(
        socket,
        stock=options.stock,
        outside=outside,
        dump=(options.dump_file or socket.with_name("vault-authz.json")).absolute(),
        group=group,
        form=options.format,
        part=options.part,
    )
    return run(config, options.config, setup, sys.stdout, sys.stderr)


def _refused(why: str) -> int:
    print(f"vaultauthz: {why}", file=sys.stderr)
    return 2
