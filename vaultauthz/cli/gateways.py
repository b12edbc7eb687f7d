"""``explain``, ``envoy`` and ``kong``: the gateway's side of a configuration."""

from __future__ import annotations

import sys

from vaultauthz.cli import kong
from vaultauthz.cli.arguments import (
    Commands,
    Options,
    load_config,
    takes_config,
    takes_log_level,
    told,
)
from vaultauthz.cli.server import until_sigterm


def add_explain(commands: Commands) -> None:
    explain = commands.add_parser(
        "explain",
        help="say what would become of one request, and which rule decides",
        description=_explain.__doc__,
    )
    explain.add_argument("url", metavar="URL", help="https://HOST/PATH, or /PATH")
    explain.add_argument("--method", default="GET", metavar="M", help="default: GET")
    explain.add_argument("--upstream", default="", metavar="U", help="the gateway's route names it")
    explain.add_argument("--stage", default="", metavar="S", help="the gateway's route names it")
    explain.add_argument(
        "--principal", default="", metavar="NAME", help="the client certificate's URI or DNS name"
    )
    explain.add_argument(
        "--claims",
        action="append",
        default=[],
        metavar="JSON",
        help="a verified token's claims; again for another token",
    )
    explain.add_argument("--consumer", default="", metavar="NAME", help="Kong's consumer")
    explain.add_argument(
        "--group", action="append", default=[], metavar="NAME", help="a group of Kong's consumer"
    )
    explain.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'N: V'",
        help="a header of the client's that may name another method; again for another",
    )
    explain.add_argument("--json", action="store_true", help="print JSON, for programs")
    takes_config(explain)
    explain.set_defaults(run=_explain)


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


def add_kong(commands: Commands) -> None:
    parser = commands.add_parser(
        "kong",
        help="serve Kong's plugin, and print how to set it up",
        description="Serve Kong's plugin vault-authz, and print how to set it up.",
    )
    parsers = kong.add(parser, takes_config, takes_log_level)
    parsers["serve"].set_defaults(run=_kong_serve)
    parsers["dump"].set_defaults(run=kong.dump)
    parsers["config"].set_defaults(run=_kong_config)


def _kong_serve(options: Options) -> int:
    return kong.supervise(options) if options.child else until_sigterm(options, kong.serve)


def _kong_config(options: Options) -> int:
    return kong.config(options, load_config(options, elsewhere=True))


def _explain(options: Options) -> int:
    """Say what the configuration makes of one request; status 1 when it would be denied.

    Which upstream claims it, which rule decides, what is set. Nobody is asked.
    """
    from vaultauthz.explain import DescribedRequest, UsageError, run

    asked = DescribedRequest(
        options.url,
        options.method,
        options.upstream,
        options.stage,
        options.principal,
        tuple(options.claims),
        options.consumer,
        tuple(options.group),
        tuple(options.header),
    )
    try:
        return run(load_config(options, elsewhere=True), asked, told(as_json=options.json))
    except UsageError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _envoy(options: Options) -> int:
    """Print an Envoy bootstrap, or the parts for one that you have, with a reason for each knob.

    What is yours to fill in is marked REPLACE. Status 1 when an upstream had to be left out.
    """
    from vaultauthz.envoy_config import EnvoyOptions, run

    asked = EnvoyOptions(options.mode, options.snippet)
    config = load_config(options, elsewhere=True)
    return run(config, options.config, asked, sys.stdout, sys.stderr)
