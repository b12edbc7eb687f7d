"""The command line: reads the arguments, calls what does the work, sets the exit status.

Status 0 is good, 1 a finding, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import json
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
    _add_doctor(commands)
    _add_policy(commands)
    _add_explain(commands)
    _add_envoy(commands)
    _add_kong(commands)
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
    _takes_log_level(serve)
    serve.set_defaults(run=_serve)


def _takes_log_level(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="what is logged to standard error (default: info)",
    )


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
    schema = actions.add_parser(
        "schema", help="print its JSON Schema, for editors", description=_schema.__doc__
    )
    schema.set_defaults(run=_schema)


def _add_doctor(commands: _Commands[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="log in to Vault as each stage, say what is wrong and what mends it",
        description=_doctor.__doc__,
    )
    _takes_config(doctor)
    doctor.add_argument("--stage", metavar="S", help="only this one (default: every stage)")
    doctor.add_argument(
        "--fetch",
        action="store_true",
        help="also fetch each secret, look at the names of its fields and give it back",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON, for programs")
    doctor.set_defaults(run=_doctor)


def _add_policy(commands: _Commands[argparse.ArgumentParser]) -> None:
    policy = commands.add_parser(
        "policy",
        help="print the least Vault policy that each stage needs",
        description=_policy.__doc__,
    )
    _takes_config(policy)
    policy.add_argument("--stage", metavar="S", help="only its policy (default: all stages')")
    policy.add_argument("--json", action="store_true", help="print JSON, for programs")
    policy.add_argument(
        "--verify",
        action="store_true",
        help="have Vault judge it: write it for a moment, try it with a token, remove both",
    )
    policy.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="where your Vault token is (default: $VAULT_TOKEN); Vault is asked for the version "
        "of each KV engine with it, and --verify needs it",
    )
    policy.set_defaults(run=_policy)


def _add_explain(commands: _Commands[argparse.ArgumentParser]) -> None:
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
    explain.add_argument("--json", action="store_true", help="print JSON, for programs")
    _takes_config(explain)
    explain.set_defaults(run=_explain)


def _add_envoy(commands: _Commands[argparse.ArgumentParser]) -> None:
    envoy = commands.add_parser(
        "envoy",
        help="print the Envoy configuration that fits it",
        description=_envoy.__doc__,
    )
    _takes_config(envoy)
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


def _add_kong(commands: _Commands[argparse.ArgumentParser]) -> None:
    from vaultauthz import kong_cli

    kong = commands.add_parser("kong", help="serve Kong's plugin, and print how to set it up")
    parsers = kong_cli.add(kong, _takes_config, _takes_log_level)
    parsers["serve"].set_defaults(run=lambda options: _until_sigterm(options, kong_cli.serve))
    parsers["dump"].set_defaults(run=kong_cli.dump)
    parsers["config"].set_defaults(run=lambda options: kong_cli.config(options, _load(options)))


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

    return _until_sigterm(options, lambda options, config: serve.run(options.config, config))


def _until_sigterm(
    options: argparse.Namespace, run: Callable[[argparse.Namespace, Config], int]
) -> int:
    from vaultauthz.serve import StartError

    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    # Their debug lines would show Vault's paths and lease ids.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    try:
        return run(options, _load(options))
    except StartError as exc:
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


def _schema(_options: argparse.Namespace) -> int:
    """Print the JSON Schema (draft 2020-12) of the configuration file."""
    from vaultauthz.config.schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """Log in to Vault as each stage would, and say what is wrong and what mends it.

    Address, TLS, seal, login, token, policy, engines; nothing is changed in Vault, and the
    token is revoked in the end. Status 1 when there is a finding.
    """
    from vaultauthz import doctor

    asked = doctor.Asked(options.stage, options.fetch)
    config = load(options.config, os.environ)  # its warnings become findings
    return doctor.run(config, asked, _told(as_json=options.json), sys.stderr)


def _policy(options: argparse.Namespace) -> int:
    """Print, as HCL, what each stage's token must be allowed in Vault, and nothing more.

    Status 1 with --verify: something is not held, or is allowed that need not be.
    """
    from vaultauthz.policy import command

    asked = command.Asked(
        options.stage, options.verify, options.token_file, os.environ.get("VAULT_TOKEN", "")
    )
    return command.run(_load(options), asked, _told(as_json=options.json), sys.stderr)


def _explain(options: argparse.Namespace) -> int:
    """Say what the configuration makes of one request; status 1 when it would be denied.

    Which upstream claims it, which rule decides, what is set. Nobody is asked.
    """
    from vaultauthz.explain.command import Asked, UsageError, run

    asked = Asked(
        options.url,
        options.method,
        options.upstream,
        options.stage,
        options.principal,
        tuple(options.claims),
        options.consumer,
        tuple(options.group),
    )
    try:
        return run(_load(options), asked, _told(as_json=options.json))
    except UsageError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _envoy(options: argparse.Namespace) -> int:
    """Print an Envoy bootstrap, or the parts for one that you have, with a reason for each knob.

    What is yours to fill in is marked REPLACE. Status 1 when an upstream had to be left out.
    """
    from vaultauthz.envoy_config.command import Asked, run

    asked = Asked(options.mode, options.snippet)
    return run(_load(options), options.config, asked, sys.stdout, sys.stderr)


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

    try:
        if options.admin or options.token_file or options.cert:
            door = Door.at(options.admin, options.token_file, options.cert)
        else:
            door = Door.of(load(options.config, os.environ).listen, options.config)
        return run(Client(door), _told(as_json=options.json))
    except ClientError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _told(*, as_json: bool) -> Told:
    """To standard output, in the width of the terminal if it is one."""
    from vaultauthz.terminal import Told

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Told(sys.stdout, as_json=as_json, width=width)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
