"""What Kong is told of the plugin: its name, its place among the others, its configuration, its guard.

Kong's own plugin server lets a request go on when the plugin failed, and may run another route's
configuration after a restart. There the plugin's last call marks the request with the names in its
configuration; the guard of the route, in Lua, takes a client's copy of the mark away before, and
lets nothing pass without the route's own after.
"""

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
Names = tuple[str, str]  # of an upstream and a stage, as a configuration of the plugin has them
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


# One word: nginx takes `X_Mark` for `X-Mark` when a header is asked for,
# so a client's copy in the other spelling would pass for ours.
MARK: Final = "Vaultauthz"


def mark_of(upstream: str, stage: str) -> str:
    """What the requests of a plugin's configuration are marked with."""
    return f"{upstream}/{stage}"


def guard_before() -> str:
    """For the pre-function, which runs first of all plugins."""
    return f'kong.service.request.clear_header("{MARK}")'


def guard_after(upstream: str, stage: str) -> str:
    """For the post-function, which runs last. Names need no quoting: see config/kinds.py."""
    mark = mark_of(upstream, stage)
    return f"""\
local mark = kong.request.get_header("{MARK}")
kong.service.request.clear_header("{MARK}")
if mark ~= "{mark}" then
  return kong.response.exit(503, '{{"error":"no_credential"}}', {{["Content-Type"] = "application/json"}})
end"""
