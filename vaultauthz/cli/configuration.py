"""``config check`` and ``config schema``."""

from __future__ import annotations

import json
import sys

from vaultauthz.cli.arguments import Commands, Options, load_config, takes_config
from vaultauthz.config import Config, fit_for_kong


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


def _check(options: Options) -> int:
    """Say what is wrong with the configuration, line by line, or what it holds."""
    config = load_config(options)
    if options.kong:
        fit_for_kong(config)
    unfit = config.unfit_for_kong if _names_kongs(config) else ()
    for line in unfit:
        print(f"warning: not for Kong: {line}", file=sys.stderr)
    print(
        f"{options.config}: good: {_count(len(config.stages), 'stage')}, "
        f"{_count(len(config.upstreams), 'upstream')}, {_count(len(config.routes), 'route')}"
    )
    return 1 if config.warnings or unfit else 0


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
