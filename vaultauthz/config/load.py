"""A file → a ``Config``, or all that is wrong with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from vaultauthz.config import document, files
from vaultauthz.config.files import exposure
from vaultauthz.config.gateway import GATEWAY
from vaultauthz.config.keys import Key, Schema, Section
from vaultauthz.config.kinds import choice, file, many, named
from vaultauthz.config.listen import LISTEN, read_listen
from vaultauthz.config.problems import ConfigError, Refused, Report
from vaultauthz.config.reader import Table, Value
from vaultauthz.config.routes import ROUTE, Routable, read_routes
from vaultauthz.config.secret_source import Lifetimes
from vaultauthz.config.stages import STAGE, Declared, read_stages
from vaultauthz.config.upstreams import UPSTREAM, read_upstreams
from vaultauthz.config.values import Audit, Config, GatewaySide, Upstream, Vault
from vaultauthz.config.vault import HIDDEN, VAULT, read_vault

_LOOKED_AT: Final = 100  # keys
_WORD: Final = re.compile(r"[\w.-]{1,30}")
LARGEST_FILE: Final = 5_000_000  # bytes; ten thousand upstreams fit, written out at length

AUDIT: Final = Section(
    Audit,
    "One JSON object a line.",
    Key("file", file(files.to_write), "Where to write.", otherwise="standard output"),
    Key(
        "access_log",
        file(files.to_write),
        "Where Envoy writes what it did, if it asks nobody (SDS).",
        otherwise="it sends that",
    ),
)
CONFIG: Final = Section(
    Config,
    "Short-lived upstream credentials from Vault or OpenBao, put on the request.",
    Key("vault", VAULT.reader(apart=True), default=Vault("", tls=HIDDEN)),
    Key(
        "stages",
        named(STAGE.schema(), partial(read_stages, vault=Vault(""))),
        "Each environment by its name.",
        missing="add a stage with its auth",
    ),
    Key(
        "upstreams",
        named(UPSTREAM.schema(), partial(read_upstreams, stages={})),
        "Each service behind the gateway by its name.",
        missing="add the services behind the gateway",
    ),
    Key(
        "routes",
        many(ROUTE.schema(), partial(read_routes, declared=None)),
        "Used when the gateway names no upstream itself.",
    ),
    Key("listen", LISTEN.reader(apart=True).by(read_listen)),
    Key("audit", AUDIT.reader(apart=True)),
    Key("gateway", GATEWAY.reader(apart=True), GATEWAY.text),
    Key("unmatched", choice("deny", "pass"), "What a request gets that no upstream claims."),
)


def schema() -> Schema:
    """The whole file as a JSON Schema, draft 2020-12, for editors and checks before a deployment.

    It says less than the readers do: files, and what one key means for another far away, are
    known to `vaultauthz config check` alone.
    """
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, "title": "vaultauthz configuration", **CONFIG.schema()}


def load(path: Path, environ: Mapping[str, str], *, elsewhere: bool = False) -> Config:
    """The configuration in the file at ``path``.

    ``elsewhere``: it is another machine's, so that the files it names need not be here.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong.
    """
    config = parse(_text(path), str(path), path.parent, environ, elsewhere=elsewhere)
    problem = exposure(path)  # whoever can write it can have any program run
    if problem is None:
        return config
    return replace(config, warnings=(f"{path}: {problem}", *config.warnings))


def fit_for_kong(config: Config) -> Config:
    """The same configuration.

    Raises:
        ConfigError: under Kong a credential of it would be in Kong's logs.
    """
    if config.unfit_for_kong:
        raise ConfigError(config.unfit_for_kong)
    return config


def load_for_kong(path: Path, environ: Mapping[str, str]) -> Config:
    """As ``load``, for a server of Kong's.

    Raises:
        ConfigError: as ``load``, or it is not ``fit_for_kong``.
    """
    return fit_for_kong(load(path, environ))


def parse(
    text: str, name: str, folder: Path, environ: Mapping[str, str], *, elsewhere: bool = False
) -> Config:
    """The configuration in ``text``.

    ``name`` stands for the file in messages, relative paths start at ``folder``,
    ``environ`` may give ``VAULT_ADDR``; ``elsewhere`` as for ``load``.

    Raises:
        ConfigError: something in it is wrong.
    """
    if len(text) > LARGEST_FILE:
        raise _too_large(name)
    report = Report(name, folder.absolute(), elsewhere=elsewhere)
    try:
        config = _read(_root(text, report), environ)
    except Refused as refusal:
        report.refused(refusal)
    report.raise_problems()
    return config


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as exc:
        why = (exc.strerror or "it does not open").lower()
        raise ConfigError(
            (f"{path}: cannot be read: {why}; name the configuration's file",)
        ) from None
    except ValueError:  # a NUL in the path
        raise ConfigError((f"{str(path)!r}: is no path; name the configuration's file",)) from None
    if len(data) > LARGEST_FILE:
        raise _too_large(str(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigError((f"{path}:{line}: is not UTF-8 text; save it as UTF-8",)) from None


def _too_large(name: str) -> ConfigError:
    return ConfigError((f"{name}: is larger than 5 MB, the limit; is this the right file?",))


def _root(text: str, report: Report) -> Value:
    try:
        node = document.read(text)
    except document.DocumentError as exc:
        raise Refused(exc.line, "", exc.text) from None
    if node is None or (isinstance(node, document.Scalar) and not node.text):
        raise Refused(1, "", "the file is empty; it needs vault, stages and upstreams")
    if not isinstance(node, document.Pairs):
        raise Refused(
            node.line, "", f"the file wants a mapping, found {node.kind}; begin with vault:"
        )
    if node.pairs and not any(_is_near_ours(key) for key, _ in node.pairs[:_LOOKED_AT]):
        # Nothing of it is shown: it may be /etc/shadow, read for somebody who may not.
        raise Refused(
            node.line,
            "",
            f"none of its keys is one of a configuration's ({', '.join(CONFIG.names)}); "
            "is this the right file?",
        )
    return Value(node, 1, "", report)


def _is_near_ours(key: document.Node) -> bool:
    """Whether this is a key of ours, or one with a slip."""
    if not isinstance(key, document.Scalar) or not _WORD.fullmatch(key.text):
        return False  # "vault:!:" is of /etc/gshadow, which YAML takes for a mapping
    return bool(difflib.get_close_matches(key.text.lower(), CONFIG.names, n=1))


def _read(root: Value, environ: Mapping[str, str]) -> Config:
    table = CONFIG.open(root)
    table.begin("vault")
    vault: Vault = CONFIG.get(table, "vault", partial(read_vault, environ=environ))
    stages: Mapping[str, Declared] = CONFIG.get(table, "stages", partial(read_stages, vault=vault))
    read = partial(read_upstreams, stages=_lifetimes(table, stages))
    upstreams: Mapping[str, Upstream] = CONFIG.get(table, "upstreams", read)
    return Config(
        vault=vault,
        stages=MappingProxyType({name: declared.stage for name, declared in stages.items()}),
        upstreams=MappingProxyType(upstreams),
        routes=CONFIG.get(
            table, "routes", partial(read_routes, declared=_routable(table, upstreams))
        ),
        listen=CONFIG.get(table, "listen"),
        audit=CONFIG.get(table, "audit", _read_audit),
        gateway=CONFIG.get(table, "gateway", partial(_read_gateway, upstreams=upstreams)),
        unmatched=CONFIG.get(table, "unmatched"),
        warnings=root.report.warnings,
        absent=root.report.absent,
        unfit_for_kong=root.report.unfit,
    )


def _names(table: Table, name: str) -> tuple[str, ...]:
    """The keys of a section, also of those entries that have a problem."""
    section = table.entries.get(name)
    if section is None or not isinstance(section.node, document.Pairs):
        return ()
    return tuple(section.entries())


def _lifetimes(table: Table, stages: Mapping[str, Declared]) -> Mapping[str, Lifetimes]:
    """What each stage's secrets ask for, in every stage that the file names."""
    of = {name: declared.lifetimes for name, declared in stages.items()}
    return {name: of.get(name, Lifetimes()) for name in _names(table, "stages")}


def _routable(table: Table, upstreams: Mapping[str, Upstream]) -> Routable:
    names = _names(table, "upstreams")
    return {n: upstreams[n].stages if n in upstreams else () for n in names} or None


def _read_gateway(value: Value, *, upstreams: Mapping[str, Upstream]) -> GatewaySide:
    """A warning for rules that it gives nobody what to fit them by."""
    gateway = GATEWAY.read(value)
    rules = [rule for upstream in upstreams.values() for rule in upstream.callers.rules]
    if any(rule.principal for rule in rules) and not (gateway.tls and gateway.tls.client_ca):
        value.warn("no caller has a principal, which rules ask for; add tls.client_ca (for Envoy)")
    if any(rule.claims for rule in rules) and gateway.jwt is None:
        value.warn("no caller has claims, which rules ask for; add jwt (for Envoy)")
    return gateway


def _read_audit(value: Value) -> Audit:
    table = AUDIT.open(value)
    audit = AUDIT.build(table)
    if audit.file and audit.access_log and audit.file.resolve() == audit.access_log.resolve():
        raise table.entries["access_log"].wrong(
            "is the file that we write; name the one that Envoy writes its requests to"
        )
    return audit
