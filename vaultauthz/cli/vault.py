"""``doctor`` and ``policy``: the Vault side of a configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vaultauthz.cli.arguments import Commands, Options, load_config, takes_config, told
from vaultauthz.config import load


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


def _doctor(options: Options) -> int:
    """Log in to Vault as each stage would, and say what is wrong and what mends it.

    Address, TLS, seal, login, token, policy, engines; nothing is changed in Vault, and the
    token is revoked in the end. Status 1 when there is a finding.
    """
    from vaultauthz import doctor

    asked = doctor.Asked(options.stage, options.fetch)
    config = load(options.config, os.environ)  # its warnings become findings
    return doctor.run(config, asked, told(as_json=options.json), sys.stderr)


def _policy(options: Options) -> int:
    """Print, as HCL, what each stage's token must be allowed in Vault, and nothing more.

    Status 1 with --verify: something is not held, or is allowed that need not be.
    """
    from vaultauthz.policy import command

    asked = command.Asked(
        options.stage,
        options.verify,
        options.token_file,
        os.environ.get("VAULT_TOKEN") or os.environ.get("BAO_TOKEN", ""),
    )
    # Who writes policies is not whose secrets are on the gateway's disk.
    config = load_config(options, elsewhere=True)
    return command.run(config, asked, told(as_json=options.json), sys.stderr)
