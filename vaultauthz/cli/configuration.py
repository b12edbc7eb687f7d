"""``config check`` and ``config schema``."""

from __future__ import annotations

import json

from vaultauthz.cli.arguments import Commands, Options, load_config, takes_config


def add_config(commands: Commands) -> None:
    config = commands.add_parser("config", help="look at a configuration")
    actions = config.add_subparsers(title="actions", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check", help="say what is wrong with it", description=_check.__doc__
    )
    takes_config(check)
    check.set_defaults(run=_check)
    schema = actions.add_parser(
        "schema", help="print its JSON Schema, for editors", description=_schema.__doc__
    )
    schema.set_defaults(run=_schema)


def _check(options: Options) -> int:
    """Say what is wrong with the configuration, line by line, or what it holds."""
    config = load_config(options)
    print(
        f"{options.config}: good: {_count(len(config.stages), 'stage')}, "
        f"{_count(len(config.upstreams), 'upstream')}, {_count(len(config.routes), 'route')}"
    )
    return 1 if config.warnings else 0


def _schema(_options: Options) -> int:
    """Print the JSON Schema (draft 2020-12) of the configuration file."""
    from vaultauthz.config.schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
