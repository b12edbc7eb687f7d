"""The stock plugin server of the wheel kong-pdk, with plugin files of ours."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.contract.kong.routes import Server

EXECUTABLE = Path(sys.executable).with_name("kong-python-pluginserver")


def stock_server(
    folder: Path, plugin: Path, *, environment: Mapping[str, str] | None = None, options: str = ""
) -> Server:
    """kong-python-pluginserver, in thread mode unless `options` say `-g`. Its plugin has its file's name.

    `folder` gets the plugin directory and the socket, so its path has to be short (108 bytes for a socket).
    """
    plugins = folder / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    shutil.copy(plugin, plugins)
    command = f"{EXECUTABLE} -d {plugins} --no-lua-style"
    return Server(
        socket=folder / "py.socket",
        query_cmd=f"{command} --dump-all-plugins",
        start_cmd=f"{command} {options} -p {folder} --socket-name py.socket",
        environment={"PYTHONWARNINGS": "ignore", **(environment or {})},
    )
