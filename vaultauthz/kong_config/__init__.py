"""Prints the lines, with a reason for each that is not plain."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from vaultauthz.config import Config, ConfigError, load
from vaultauthz.kong import registration
from vaultauthz.kong_config import declarative, helm

# Kong's usual prefix, and that of its Helm chart.
_PREFIXES: Final = (Path("/usr/local/kong"), Path("/kong_prefix"))
# Where Debian, and so Kong's image, keeps them.
_PUBLIC_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
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
    part: str = ""  # | conf | yml: one of the two files alone


def run(config: Config, path: Path, options: SetupOptions, out: TextIO, err: TextIO) -> int:
    """Print it; status 1 when something in the configuration does not go with Kong."""
    path = path.absolute()
    warnings = [
        *([] if options.outside else _about_environment(config, path)),
        *_about_audit(config, options),
        *_about_place(options),
        *_about_upstreams(config),
        *declarative.problems(config),
    ]
    err.writelines(f"warning: {warning}\n" for warning in warnings)
    out.write("\n".join([*_printed(config, path, options), ""]))
    return 1 if warnings else 0


def _printed(config: Config, path: Path, options: SetupOptions) -> list[str]:
    lines = [*_conf(path, options), *_gateway(config, options)]
    routes = declarative.lines(config, stock=options.stock)
    unfinished = any("REPLACE" in line for line in routes)
    if options.form == "helm":
        sidecar = helm.Sidecar(options.socket, options.dump, options.group, path.parent)
        printed = helm.routes(routes, finished=not unfinished)
        return [*helm.values(config, sidecar, _by_name(lines)), *printed]
    conf = _as_environment(lines) if options.form == "env" else _as_conf(lines)
    title = f"# --- kong.yml{': REPLACE url and paths' if unfinished else ''} ---"
    parts = {"conf": conf, "yml": [title, *routes]}
    return parts.get(options.part) or [*conf, "", title, *routes]


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


def _gateway(config: Config, options: SetupOptions) -> list[str]:
    """Where clients come in, and whom Kong trusts. Of the first Kong's chart has its own words."""
    lines = []
    side = config.gateway
    if side and options.form != "helm":
        lines.append(f"proxy_listen = {side.address}{' http2 ssl' if side.tls else ''}")
        if side.tls:
            lines += [f"ssl_cert = {side.tls.cert}", f"ssl_cert_key = {side.tls.key}"]
    if declarative.public_authorities(config):
        lines += [
            "# Whom services' certificates are trusted by where they have no ca_cert of their own.",
            f"nginx_proxy_proxy_ssl_trusted_certificate = {_PUBLIC_AUTHORITIES}",
        ]
    return lines


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
