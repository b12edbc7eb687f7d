"""The configuration of a run, and the changes that are made to it and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.chaos.bounds import EXT_AUTHZ
from tests.chaos.plan import STAGES, Place, places

CALLERS: Final = tuple(f"spiffe://chaos/caller-{letter}" for letter in "abc")
TOKEN_TTL, TOKEN_MAX_TTL = 24, 75  # seconds
CALL: Final = 2  # of one call to Vault, at most
_STRIPPED: Final = ["x-older", "x-oldest"]
CHANGES: Final = ("strip", "optional", "extra", "callers")
POLICY: Final = """
path "database/creds/*" { capabilities = ["read"] }
path "secret/data/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
"""

Document = dict[str, Any]


def document(folder: Path, vault: str, roles: dict[str, str], mode: str, audit: Path) -> Document:
    """The configuration; ``roles`` are role_ids by stage. For the printed gateway ``printed`` it."""
    found = places(mode)
    upstreams = {place.upstream: _upstream(place, found) for place in found}
    return {
        "vault": {"address": vault, "timeout": f"{CALL}s"},
        "stages": {
            stage: {
                "auth": {
                    "method": "approle",
                    "role_id": roles[stage],
                    "secret_id_file": f"{folder}/secret_id_{stage}",
                }
            }
            for stage in STAGES
        },
        "upstreams": upstreams,
        "routes": [
            {"host": f"{p.name}.test", "upstream": p.upstream, "stage": p.stage} for p in found
        ],
        "listen": {
            "grpc": f"unix://{folder}/grpc.sock",
            "admin": f"unix://{folder}/admin.sock",
        },
        "audit": {"file": str(audit)},
    }


def _upstream(place: Place, found: tuple[Place, ...]) -> Document:
    made: Document = {
        "stages": [other.stage for other in found if other.upstream == place.upstream],
        "callers": [{"principal": "spiffe://chaos/*"}],
    }
    if place.kv:
        secret = {"kv": f"secret/{place.upstream}-{{stage}}"}
        made["secret"] = secret | {"refresh": f"{place.ttl:g}s", "max_stale": f"{place.most:g}s"}
        made["inject"] = [{"header": {"name": "X-Api-Key", "value": "{api_key}"}}]
    else:
        made["secret"] = {"path": f"database/creds/{place.upstream}-{{stage}}"}
        made["inject"] = [{"basic": {"username": "{username}", "password": "{password}"}}]
        made["strip"] = _STRIPPED[:1]
    if place.per_caller:
        made["per"] = "caller"
    else:
        made["callers_enforced_by"] = "envoy"
    if place.optional:
        made["optional"] = True
    return made


def printed(config: Document) -> Document:
    """What the gateway is printed for: it allows all that a change of the run may set."""
    upstreams = {
        name: one | ({"strip": _STRIPPED} if "strip" in one else {})
        for name, one in config["upstreams"].items()
    }
    return config | {"upstreams": upstreams}


def changed(config: Document, upstream: str, change: str, mode: str) -> Document:
    """One of CHANGES, made to an upstream; none of them is about the gateway's own configuration."""
    one = dict(config["upstreams"][upstream])
    if change == "strip" and "strip" in one:
        one["strip"] = _STRIPPED
    elif change == "callers" and mode == EXT_AUTHZ:
        one["callers"] = [*one["callers"], {"principal": "spiffe://elsewhere/*"}]
    elif change == "extra":
        extra = {name: value for name, value in one.items() if name != "strip"}
        return config | {"upstreams": config["upstreams"] | {"extra": extra}}
    else:
        one["optional"] = not one.get("optional", False)
    return config | {"upstreams": config["upstreams"] | {upstream: one}}


def mistaken(config: Document, detail: float) -> str:
    """One of several texts that are no configuration."""
    texts = (
        "upstreams: [",
        "vault: {}\n",
        f"{config!r}\nnope: {{",
        "stages: {blue: {auth: nonsense}}\n",
    )
    return texts[int(detail * len(texts))]
