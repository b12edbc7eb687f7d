"""Prints the lines, with a reason for each that is not plain."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from vaultauthz.config import Config, ConfigError, load
from vaultauthz.config.values import Upstream
from vaultauthz.kong import registration
from vaultauthz.kong_config import helm

# Kong's usual prefix, and that of its Helm chart.
_PREFIXES: Final = (Path("/usr/local/kong"), Path("/kong_prefix"))
# Longer than a request may wait for us: for the server before (kong.door.HANDOVER), then for Vault.
READ_TIMEOUT: Final = 25  # seconds
FROZEN: Final = (
    "# A server that is frozen: Kong answers 500 after this, instead of its 60s. Other plugins' sockets",
    "# that have no timeout of their own wait no longer, either.",
    f"nginx_proxy_lua_socket_read_timeout = {READ_TIMEOUT}s",
)


@dataclass(frozen=True, slots=True)
class SetupOptions:
    """``socket`` is where the server is to listen; the way is ours unless ``stock``."""

    socket: Path
    stock: bool = False
    outside: bool = False  # something else than Kong starts the server
    dump: Path = Path()  # outside: the file that query_cmd prints
    group: str = ""  # outside: who may connect besides the server's user
    form: str = "conf"  # | env | helm


def run(config: Config, path: Path, options: SetupOptions, out: TextIO, err: TextIO) -> int:
    """Print it; status 1 when something in the configuration does not go with Kong."""
    path = path.absolute()
    warnings = [
        *([] if options.outside else _about_environment(config, path)),
        *_about_audit(config, options),
        *_about_place(options),
        *_about_upstreams(config),
    ]
    err.writelines(f"warning: {warning}\n" for warning in warnings)
    out.write("\n".join([*_printed(config, path, options), ""]))
    return 1 if warnings else 0


def _printed(config: Config, path: Path, options: SetupOptions) -> list[str]:
    lines, routes = _conf(path, options), _routes(config, options)
    if options.form == "helm":
        sidecar = helm.Sidecar(options.socket, options.dump, options.group, path.parent)
        return [*helm.values(config, sidecar, _by_name(lines)), *helm.routes(routes)]
    title = "# --- kong.yml: REPLACE url and paths ---"
    if options.form == "env":
        return [*_as_environment(lines), "", title, *routes]
    return [*_as_conf(lines), "", title, *routes]


# --- kong.conf ---------------------------------------------------------------


def _conf(path: Path, options: SetupOptions) -> list[str]:
    name = "pluginserver_vaultauthz"
    lines = [
        f"plugins = bundled,{registration.NAME}",
        "pluginserver_names = vaultauthz",
        f"{name}_socket = {options.socket}",
    ]
    if options.stock:
        return [*lines, *_stock(name, path, options)]
    serve = _ours("serve", "-c", str(path), "--socket", str(options.socket))
    if options.outside:
        return [*lines, *_outside(name, serve, options)]
    return [
        *lines,
        f"{name}_query_cmd = {_ours('dump', '-c', str(path))}",
        f"# What the server says is in {options.socket}.log; Kong shows it at log_level info alone.",
        f"{name}_start_cmd = {serve} --child",
        *FROZEN,
    ]


def _outside(name: str, serve: str, options: SetupOptions) -> list[str]:
    # Without start_cmd Kong leaves the server's life to others; and it needs no Python.
    group = f" --group {shlex.quote(options.group)}" if options.group else ""
    return [
        "# Made before Kong starts, and again after each upgrade of vaultauthz, by",
        f"#   {_ours('dump', '--file', str(options.dump))}",
        f"{name}_query_cmd = /bin/cat {shlex.quote(str(options.dump))}",
        "# The server, to be started by systemd or as a container of its own"
        + ("" if group else " (a Kong of another user: --group)"),
        f"#   {serve}{group}",
        *FROZEN,
    ]


def _ours(*words: str) -> str:
    """A command with absolute paths: Kong's workers have no PATH, and no other variable.

    With -P, as they are in the folder that Kong was started from: a module there is not ours.
    """
    return shlex.join([sys.executable, "-P", "-m", "vaultauthz", "kong", *words])


def _stock(name: str, path: Path, options: SetupOptions) -> list[str]:
    folder = options.socket.parent / "plugins"
    server = str(Path(sys.executable).with_name("kong-python-pluginserver"))
    environment = ["/usr/bin/env", f"VAULTAUTHZ_CONFIG={path}"]
    load_it = [server, "-d", str(folder), "--no-lua-style"]
    serve = ["-p", str(options.socket.parent), "--socket-name", options.socket.name]
    return [
        f"# {folder} holds one file, {registration.NAME}.py, whose name is the plugin's:",
        "#   from vaultauthz.kong.stock import Plugin, Schema, priority, version",
        f"{name}_query_cmd = {shlex.join([*load_it, '--dump-all-plugins'])}",
        f"{name}_start_cmd = {shlex.join([*environment, *load_it, *serve])}",
        *FROZEN,
    ]


# --- kong.yml ----------------------------------------------------------------


def _routes(config: Config, options: SetupOptions) -> list[str]:
    lines = ['_format_version: "3.0"', "services:"]
    for upstream in config.upstreams.values():
        for stage in upstream.stages:
            lines += _service(upstream, stage, options)
    return lines


def _service(upstream: Upstream, stage: str, options: SetupOptions) -> list[str]:
    # Quoted, as YAML would take some names for numbers or booleans.
    name = upstream.name if len(upstream.stages) == 1 else f"{upstream.name}-{stage}"
    config = f"{{upstream: {json.dumps(upstream.name)}, stage: {json.dumps(stage)}}}"
    plugins = [f"- name: {registration.NAME}", f"  config: {config}"]
    if options.stock:
        plugins = [
            *_function("pre-function", registration.guard_before()),
            *plugins,
            *_function("post-function", registration.guard_after(upstream.name, stage)),
        ]
    return [
        f"  - name: {json.dumps(name)}",
        "    url: https://REPLACE",
        "    routes:",
        f"      - name: {json.dumps(name)}",
        f'        paths: ["/{name}"]  # REPLACE',
        "        plugins:",
        *(f"          {line}" for line in plugins),
    ]


def _function(name: str, code: str) -> list[str]:
    lines = [f"      {line}" for line in code.splitlines()]
    return [f"- name: {name}", "  config:", "    access:", "    - |", *lines]


# --- what does not go with Kong ----------------------------------------------


def _about_environment(config: Config, path: Path) -> Iterator[str]:
    try:
        if load(path, {}, elsewhere=True).vault != config.vault:
            yield (
                "Kong starts its plugin servers with an empty environment: write what $VAULT_… or "
                "$BAO_… says into the section vault"
            )
    except ConfigError as exc:
        yield (
            "Kong starts its plugin servers with an empty environment, and without yours "
            f"the configuration is not valid:\n{exc}"
        )


def _about_audit(config: Config, options: SetupOptions) -> Iterator[str]:
    if config.audit.file is not None or options.outside:
        return
    if not options.stock:
        yield (
            "audit: a server that Kong starts wants a file, as it goes on when Kong has closed "
            "its standard output; add audit.file"
        )
    else:
        yield (
            "audit: without a file it goes to standard output, which Kong writes to its own log, "
            "and only at log_level info or debug; add audit.file"
        )


def _about_place(options: SetupOptions) -> Iterator[str]:
    for prefix in _PREFIXES if options.outside else ():
        if options.socket.absolute().is_relative_to(prefix):
            yield (
                f"--socket {options.socket}: Kong deletes every socket that it finds in its prefix "
                f"({prefix}) when it starts; name a folder outside of it"
            )


def _about_upstreams(config: Config) -> Iterator[str]:
    for upstream in config.upstreams.values():
        if any(rule.principal or rule.claims for rule in upstream.callers.rules):
            yield (
                f"upstreams.{upstream.name}.callers: a rule that wants a principal or claims "
                "never fits, as Kong tells neither; use consumer or group"
            )
        for form in (one.form for one in upstream.inject if one.is_certificate):
            yield (
                f"upstreams.{upstream.name}.inject: {form} is not for Kong, whose plugins cannot "
                "give it a certificate"
            )


def _by_name(lines: Iterable[str]) -> Mapping[str, str]:
    """The settings among ``lines``, which are ``name = value`` and comments, by their names."""
    found = (line.partition(" = ") for line in lines if not line.startswith("#"))
    return {name: value for name, _, value in found}


def _as_conf(lines: Iterable[str]) -> list[str]:
    """As kong.conf has them."""
    # There a # begins a comment anywhere in a line, unless it is escaped.
    escaped = (line if line.startswith("#") else line.replace("#", r"\#") for line in lines)
    return ["# --- kong.conf ---", *escaped]


def _as_environment(lines: Iterable[str]) -> list[str]:
    """As variables, in the form of ``docker run --env-file``: no quotes, nothing is expanded."""
    written = (line if line.startswith("#") else _variable(line) for line in lines)
    return ["# --- Kong's environment ---", *written]


def _variable(line: str) -> str:
    name, _, value = line.partition(" = ")
    return f"KONG_{name.upper()}={value}"
