"""``stages``: each environment, its login to Vault and how long its leases live."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from vaultauthz.config import kinds
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.methods import SCHEMA, read_auth
from vaultauthz.config.auth.token_file import TokenFile
from vaultauthz.config.keys import Key, Reader, Section
from vaultauthz.config.kinds import TEXT
from vaultauthz.config.reader import Value
from vaultauthz.config.secret_source import LIFETIME, Lifetimes, read_lifetimes
from vaultauthz.config.values import Stage, Vault


def _method(value: Value) -> AuthMethod:
    return read_auth(value, Vault(""))


STAGE: Final = Section(
    Stage,
    "An environment with a Vault login of its own.",
    Key(
        "auth",
        Reader(_method, SCHEMA, stand_in=TokenFile(Path("?"))),
        "How the stage logs in to Vault.",
        "A `method` and its keys, see below.",
    ),
    Key(
        "namespace",
        TEXT.by(kinds.namespace),
        "Where it logs in and reads.",
        otherwise="vault.namespace",
    ),
    Key(
        "ttl",
        LIFETIME,
        "The life that its credentials are asked to have, of secrets by path and pki.",
        "Sent as the parameter `ttl` when one is issued, unless `params` has a `ttl`; without it "
        "the role's holds.",
        default=None,
    ),
    Key(
        "increment",
        LIFETIME,
        "What renewals of its leases ask for.",
        "Only for secrets by `path`.",
        otherwise="what the lease had at first",
    ),
)


@dataclass(frozen=True, slots=True)
class Declared:
    """A stage, and what its secrets ask for unless they say it themselves."""

    stage: Stage
    lifetimes: Lifetimes


def read_stages(value: Value, vault: Vault) -> dict[str, Declared]:
    """Every stage by its name; ``vault`` is the server that all of them log in to."""
    stages = value.each_entry(partial(_read_stage, vault=vault))
    if not value.entries():
        raise value.wrong("has no stage; add one, with its auth")
    return stages


def _read_stage(name: str, value: Value, *, vault: Vault) -> Declared:
    kinds.check_name(value, name, "a stage")
    table = STAGE.open(value)
    stage = STAGE.build(table, {"name": name}, auth=partial(read_auth, vault=vault))
    return Declared(stage, read_lifetimes(table, Lifetimes()))
