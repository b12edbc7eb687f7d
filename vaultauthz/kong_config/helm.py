"""Values for Kong's Helm chart (kong/kong), with vaultauthz as a container in Kong's pod.

The chart turns ``env`` into KONG_ variables; its lists replace those of other values files, so
that a user's own volumes and containers have to be put in by hand. Its migration jobs take the
init containers and volumes as well, and so find the file that Kong's query_cmd prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from vaultauthz.config.addresses import UNIX
from vaultauthz.config.values import Config
from vaultauthz.version import __version__

_CONFIG: Final = Path("/etc/vaultauthz")
_HEALTH: Final = "/opt/vaultauthz/healthcheck.py"
# The chart's `kong quit --wait=15` in Kong's preStop: it may go on for 15 s, and then for 10 more.
_KONG_GOES_ON: Final = 26  # seconds
_WHOLE: Final = _KONG_GOES_ON + 14  # … and what our own end takes


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is in it: the socket and the file for query_cmd, their group, and our configuration.

    ``group`` is a number; ``folder`` is where the configuration is now, whose relative paths
    are those of ``_CONFIG`` there.
    """

    socket: Path
    dump: Path
    group: str
    folder: Path

    def inside(self, path: Path) -> Path:
        """Where a file of the configuration's is looked for in the container."""
        if path.is_relative_to(self.folder):
            return _CONFIG / path.relative_to(self.folder)
        return path


def values(config: Config, sidecar: Sidecar, settings: Mapping[str, str]) -> list[str]:
    """The lines of values.yaml; ``settings`` are Kong's."""
    return [
        "# --- values.yaml of Kong's Helm chart; lists replace yours: merge them ---",
        "# kubectl create configmap vaultauthz --from-file=vaultauthz.yaml=YOUR-CONFIGURATION",
        "env:",
        *(f"  {name}: {json.dumps(value)}" for name, value in settings.items()),
        "deployment:",
        *_indented(_deployment(config, sidecar)),
        "# Kong gets the group of the socket, which is for its owner and its group alone.",
        f"securityContext: {{supplementalGroups: [{sidecar.group}]}}",
        "# The chart's 30 s are Kong's own; vaultauthz ends after it.",
        f"terminationGracePeriodSeconds: {_WHOLE}",
    ]


def routes(lines: Iterable[str], *, finished: bool) -> list[str]:
    """Kong's configuration, for a chart without ingress controller."""
    replace = "" if finished else "REPLACE url and paths. "
    return [
        f"# {replace}With the ingress controller (the chart's default) instead, for each upstream:",
        "#   apiVersion: configuration.konghq.com/v1",
        "#   kind: KongPlugin",
        "#   metadata: {name: NAME}     # and konghq.com/plugins: NAME on its HTTPRoute, Ingress or Service",
        "#   plugin: vault-authz",
        "#   config: {upstream: UPSTREAM, stage: STAGE}",
        "dblessConfig:",
        "  config: |",
        *(f"    {line}" for line in lines),
    ]


def _deployment(config: Config, sidecar: Sidecar) -> list[str]:
    mounts = list(_mounts(config, sidecar))
    written = [(name, folder) for name, folder in mounts if name != "vaultauthz-config"]
    shared = [(name, folder) for name, folder in written if name != "vaultauthz-admin"]
    return [
        "initContainers:",
        "  # Kong asks at its start what the plugin is, and its image has no Python: /bin/cat of this tells it.",
        "  - name: vaultauthz-dump",
        *_indented(_container(["dump", "--file", str(sidecar.dump)], sidecar), 2),
        *_indented(_list("volumeMounts", shared), 2),
        "sidecarContainers:",
        "  - name: vaultauthz",
        *_indented(_server(config, sidecar), 2),
        *_indented(_list("volumeMounts", mounts, read_only=["vaultauthz-config"]), 2),
        "userDefinedVolumes:",
        *(f"  - {{name: {name}, emptyDir: {{}}}}" for name, _ in written),
        "  - {name: vaultauthz-config, configMap: {name: vaultauthz}}",
        *_list("userDefinedVolumeMounts", shared, read_only=[name for name, _ in shared]),
    ]


def _mounts(config: Config, sidecar: Sidecar) -> Iterator[tuple[str, str]]:
    """What vaultauthz sees: volumes by name, and where; no folder twice."""
    folders = {str(sidecar.socket.parent): "vaultauthz-socket"}
    folders.setdefault(str(sidecar.dump.parent), "vaultauthz-dump")
    if config.listen.admin.startswith(UNIX):
        folders.setdefault(str(Path(_admin(config)).parent), "vaultauthz-admin")
    yield from ((name, folder) for folder, name in folders.items())
    yield "vaultauthz-config", str(_CONFIG)


def _admin(config: Config) -> str:
    return config.listen.admin.removeprefix(UNIX)


def _server(config: Config, sidecar: Sidecar) -> list[str]:
    words = ["serve", "-c", f"{_CONFIG}/vaultauthz.yaml", "--socket", str(sidecar.socket)]
    return [
        *_container([*words, "--group", sidecar.group], sidecar),
        *_probes(config),
        "# Kong goes on for so long after the pod's end has begun, and needs us until then.",
        f'lifecycle: {{preStop: {{exec: {{command: [sleep, "{_KONG_GOES_ON}"]}}}}}}',
        *_about_files(config, sidecar),
    ]


def _container(words: Iterable[str], sidecar: Sidecar) -> list[str]:
    command = ["vaultauthz", "kong", *words]
    return [
        f"image: REPLACE/vaultauthz:{__version__}  # deploy/Dockerfile",
        f"command: {json.dumps(command)}",
        "securityContext:",
        "  runAsUser: 10001",
        f"  runAsGroup: {sidecar.group}",
        "  runAsNonRoot: true",
        "  readOnlyRootFilesystem: true",
        "  allowPrivilegeEscalation: false",
        "  capabilities: {drop: [ALL]}",
        "  seccompProfile: {type: RuntimeDefault}",
    ]


def _probes(config: Config) -> list[str]:
    if not config.listen.admin.startswith(UNIX):
        return ["# Probes: set listen.admin to a unix socket, and print this again."]
    ask = f'exec: {{command: [python, {_HEALTH}, {json.dumps(_admin(config))}, "%s"]}}'
    # What is frozen hears no SIGTERM: there is nobody to wait for.
    live = "periodSeconds: 10, timeoutSeconds: 3, terminationGracePeriodSeconds: 5"
    return [
        "# No request before every upstream has had its credential; one that loses it later does not stop the",
        "# others. A server that is frozen is started again.",
        f"readinessProbe: {{{ask % '/readyz?started'}, periodSeconds: 5, timeoutSeconds: 3}}",
        f"livenessProbe: {{{ask % '/healthz'}, {live}}}",
    ]


def _about_files(config: Config, sidecar: Sidecar) -> Iterator[str]:
    named = set(_paths((config.vault, config.stages, config.listen)))
    files = sorted(str(sidecar.inside(path)) for path in named)
    if files:
        yield "# The configuration names these files: mount them, each as a Secret or a projected volume. The chart"
        yield "# mounts no service account's token."
        yield from (f"#   {file}" for file in files)
    if config.audit.file is not None:
        yield f"# And a volume that outlives the pod for {sidecar.inside(config.audit.file)}; without audit.file it is"
        yield "# standard output, this container's log."


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _paths(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _paths(getattr(value, field.name))


def _list(name: str, mounts: Iterable[tuple[str, str]], read_only: Iterable[str] = ()) -> list[str]:
    lines = [f"{name}:"]
    for volume, folder in mounts:
        only = ", readOnly: true" if volume in read_only else ""
        lines.append(f"  - {{name: {volume}, mountPath: {json.dumps(folder)}{only}}}")
    return lines


def _indented(lines: Iterable[str], times: int = 1) -> Iterator[str]:
    return (f"{'  ' * times}{line}" for line in lines)
