"""The guard of a route under Kong's own plugin server, in Lua.

That server lets a request go on when the plugin failed, and may run another route's
configuration after a restart. The plugin's last call marks the request with the names in its
configuration; ``before`` takes a client's copy of the mark away, ``after`` lets nothing pass
without the route's own.
"""

from __future__ import annotations

from vaultauthz.kong.info import MARK, mark_of


def before() -> str:
    """For the pre-function, which runs first of all plugins."""
    return f'kong.service.request.clear_header("{MARK}")'


def after(upstream: str, stage: str) -> str:
    """For the post-function, which runs last. Names need no quoting: see config/names.py."""
    mark = mark_of(upstream, stage)
    return f"""\
local mark = kong.request.get_header("{MARK}")
kong.service.request.clear_header("{MARK}")
if mark ~= "{mark}" then
  return kong.response.exit(503, '{{"error":"no_credential"}}', {{["Content-Type"] = "application/json"}})
end"""
