"""``stages``: each environment, its login to Vault and how long its leases live."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from vaultauthz.config import names
from vaultauthz.config.auth import read_auth
from vaultauthz.config.lifetimes import Lifetimes, read_lifetimes
from vaultauthz.config.methods import TokenFile
from vaultauthz.config.reader import Value
from vaultauthz.config.values import Stage, Vault

KEYS: Final = ("auth", "increment", "namespace", "ttl")


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
    names.check_name(value, name, "a stage")
    table = value.table(KEYS)
    read = partial(read_auth, vault=vault)
    stage = Stage(
        name=name,
        auth=table.require("auth", read, TokenFile(value.report.folder)),
        namespace=table.get("namespace", names.namespace, None),
    )
    return Declared(stage, read_lifetimes(table, Lifetimes()))
