"""``config``, ``explain``, ``doctor`` and ``policy``: what a configuration comes to, before anything is served."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vaultauthz.cli.arguments import Commands, Options, load_config, output, takes_config
from vaultauthz.config import Config, fit_for_kong, load


def add_config(commands: Commands) -> None:
    config = commands.add_parser(
        "config",
        help="look at a configuration",
        description="Look at a configuration; neither Vault nor a server is asked.",
    )
    actions = config.add_subparsers(title="actions", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check", help="say what is wrong with it", description=_check.__doc__
    )
    takes_config(check)
    check.add_argument(
        "--kong",
        action="store_true",
        help="it is for Kong: refuse what Kong's own logs would show (default: warn of it, where "
        "rules name a consumer or a group)",
    )
    check.set_defaults(run=_check)
    schema = actions.add_parser(
        "schema", help="print its JSON Schema, for editors", description=_schema.__doc__
    )
    schema.set_defaults(run=_schema)


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


def add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="log in to Vault as each stage, say what is wrong and what mends it",
        description=_doctor.__doc__,
    )
    takes_config(doctor)
    doctor.add_argument("--stage", metavar="S", help="only this one (default: every stage)")
    doctor.add_argument(
        "--fetch",
        action="store_true",
        help="also fetch each secret, look at the names of its fields and give it back",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON, for programs")
    doctor.set_defaults(run=_doctor)


def add_policy(commands: Commands) -> None:
    policy = commands.add_parser(
        "policy",
        help="print the least Vault policy that each stage needs",
        description=_policy.__doc__,
    )
    takes_config(policy)
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


def _check(options: Options) -> int:
    """Say what is wrong with the configuration, line by line, or what it holds.

    Status 1 with warnings, as of a certificate that ends in under 7 days. Login and TLS files that
    are not on this machine, or not this user's to read, are told of, and no reason for it: `doctor`
    and `serve` want them.
    """
    config = load_config(options, elsewhere=True)
    if options.kong:
        fit_for_kong(config)
    unfit = config.unfit_for_kong if _names_kongs(config) else ()
    for line in unfit:
        print(f"warning: not for Kong: {line}", file=sys.stderr)
    unsaid = tuple(_not_for_sds(config))
    for line in unsaid:
        print(f"warning: not for SDS: {line}", file=sys.stderr)
    from vaultauthz.certificates import configured, ending

    ends = list(ending(configured(config), time.time()))
    for line in ends:
        print(f"warning: {line}", file=sys.stderr)
    print(
        f"{options.config}: good: {_count(len(config.stages), 'stage')}, "
        f"{_count(len(config.upstreams), 'upstream')}, {_count(len(config.routes), 'route')}"
    )
    return 1 if len(config.warnings) > len(config.absent) or unfit or unsaid or ends else 0


def _not_for_sds(config: Config) -> Iterator[str]:
    """Rules that Envoy is to enforce, and cannot as we do; other obstacles have been told with their line."""
    from vaultauthz.config.sds_slots import kept_back, unfit
    from vaultauthz.envoy_config import sds

    for upstream in config.upstreams.values():
        told = kept_back(upstream) or unfit(upstream.inject)
        if upstream.callers_enforced_by == "envoy" and not told:
            found = sds.obstacle(upstream)
            if found:
                yield f"upstreams.{upstream.name}.{found.key}: the upstream {found.why}"


def _names_kongs(config: Config) -> bool:
    """Whether a rule asks for what Kong alone tells."""
    callers = [upstream.callers for upstream in config.upstreams.values()]
    rules = [rule for one in callers for rule in (*one.rules, *one.deny)]
    return any(rule.consumer is not None or rule.group is not None for rule in rules)


def _schema(_options: Options) -> int:
    """Print the JSON Schema (draft 2020-12) of the configuration file."""
    from vaultauthz.config.load import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _explain(options: Options) -> int:
    """Say what the configuration makes of one request; status 1 when it would be denied.

    Which upstream claims it, which rule decides, what is set. Nobody is asked.
    """
    from vaultauthz.explain import DescribedRequest, UsageError, run

    described = DescribedRequest(
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
        return run(load_config(options, elsewhere=True), described, output(as_json=options.json))
    except UsageError as exc:
        print(f"vaultauthz: {exc}", file=sys.stderr)
        return 2


def _doctor(options: Options) -> int:
    """Log in to Vault as each stage would, and say what is wrong and what mends it.

    Address, TLS, seal, login, token, policy, engines; nothing is changed in Vault, and the
    token is revoked in the end. Status 1 when there is a finding.
    """
    from vaultauthz import doctor

    doctor_options = doctor.DoctorOptions(options.stage, options.fetch)
    config = load(options.config, os.environ)  # its warnings become findings
    return doctor.run(config, doctor_options, output(as_json=options.json), sys.stderr)


def _policy(options: Options) -> int:
    """Print, as HCL, what each stage's token must be allowed in Vault, and nothing more.

    Status 1 with --verify: something is not held, or is allowed that need not be.
    """
    from vaultauthz.policy import command

    policy_options = command.PolicyOptions(
        options.stage,
        options.verify,
        options.token_file,
        os.environ.get("VAULT_TOKEN") or os.environ.get("BAO_TOKEN", ""),
    )
    # Who writes policies is not whose secrets are on the gateway's disk.
    config = load_config(options, elsewhere=True)
    return command.run(config, policy_options, output(as_json=options.json), sys.stderr)
