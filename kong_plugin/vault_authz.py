"""The plugin `vault-authz` for Kong's own kong-python-pluginserver.

Put it into the plugin directory as `vault-authz.py`, since the file's name is the plugin's, and
start the server with `--no-lua-style`, as `vaultauthz kong config --stock` prints it. What it
does is in the package: Kong's PDK ↔ ours, and no logic here.
"""

from vaultauthz.kong.stock import Plugin, Schema, priority, version

__all__ = ["Plugin", "Schema", "priority", "version"]
