"""The configuration: one YAML file → frozen, validated values.

``load`` reads a file, ``parse`` a text; both raise ``ConfigError``, whose text
tells the user every problem there is, each with its file, line and key.
"""

from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.load import fit_for_kong, load, load_for_kong, parse
from vaultauthz.config.problems import ConfigError
from vaultauthz.config.values import (
    Audit,
    Config,
    KvSecret,
    Listen,
    PathSecret,
    SecretSource,
    ServerTls,
    Stage,
    Tls,
    Upstream,
    Vault,
)

__all__ = [
    "Audit",
    "AuthMethod",
    "Config",
    "ConfigError",
    "KvSecret",
    "Listen",
    "PathSecret",
    "SecretSource",
    "ServerTls",
    "Stage",
    "Tls",
    "Upstream",
    "Vault",
    "fit_for_kong",
    "load",
    "load_for_kong",
    "parse",
]
