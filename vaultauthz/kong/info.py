"""What Kong is told of the plugin: its name, its place among the others, its configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from vaultauthz.version import __version__

NAME: Final = "vault-authz"
# Below Kong's authentication plugins (key-auth 1250 … acl 950), which say who the caller is,
# and above those that limit, change and log what goes on (rate-limiting 910).
PRIORITY: Final = 940
VERSION: Final = __version__
PHASES: Final = ("access", "log")
# Names only: the credential, and who may use it, are in our own configuration.
FIELDS: Final[tuple[dict[str, Any], ...]] = (
    {"upstream": {"type": "string", "required": False}},
    {"stage": {"type": "string", "required": False}},
)


def dump() -> str:
    """What ``pluginserver_X_query_cmd`` prints."""
    config = {"config": {"type": "record", "fields": FIELDS}}
    plugin = {
        "Name": NAME,
        "Phases": PHASES,
        "Priority": PRIORITY,
        "Version": VERSION,
        "Schema": {"name": NAME, "fields": [config]},
    }
    return json.dumps({"Protocol": "ProtoBuf:1", "Plugins": [plugin]})


def write(path: Path) -> None:
    """``dump`` in a file that every user can read, there whole or not at all.

    Raises:
        OSError: it cannot be written there.
    """
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        passing.write_text(dump())
        passing.chmod(0o644)  # Kong is another user, and a umask is not about what is public
        passing.replace(path)
    finally:
        passing.unlink(missing_ok=True)


# Under Kong's own server each request is marked with the names in its plugin's configuration,
# for the guard to see. One word: nginx takes `X_Mark` for `X-Mark` when a header is asked for,
# so a client's copy in the other spelling would pass for ours.
MARK: Final = "Vaultauthz"


def mark_of(upstream: str, stage: str) -> str:
    """What the requests of a plugin's configuration are marked with."""
    return f"{upstream}/{stage}"
