"""What the images of docker-compose.yml have, for the boxes: users, folders, variables, files.

Of ours it is read from the Dockerfile; of the others it is written down here, as their Dockerfiles make it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

from tests.contract.test_compose import ROOT, stages

Owned = tuple[int, int, int]  # uid, gid, mode
User = tuple[int, int, str]  # uid, gid, home

OURS: Final[dict[str, User]] = {
    "nobody": (65534, 65534, "/nonexistent"),
    "vaultauthz": (10001, 10001, "/nonexistent"),
}
# Kong's is made by its package, after Ubuntu's own first user.
USERS: Final[dict[str, dict[str, User]]] = {
    "envoy": {"envoy": (101, 101, "/home/envoy")},
    "openbao": {"openbao": (100, 1000, "/home/openbao")},
    "postgres": {"postgres": (70, 70, "/var/lib/postgresql")},
    "kong": {"ubuntu": (1000, 1000, "/home/ubuntu"), "kong": (1001, 1001, "/home/kong")},
}
FOLDERS: Final[dict[str, dict[str, Owned]]] = {
    "envoy": {"/etc/envoy": (0, 0, 0o755), "/run/vaultauthz": (0, 0, 0o755)},
    "openbao": {"/openbao/file": (100, 1000, 0o755), "/openbao/config": (100, 1000, 0o755)},
    "postgres": {"/var/lib/postgresql/data": (70, 70, 0o1777), "/tmp": (0, 0, 0o1777)},
    "kong": {"/etc/kong": (0, 0, 0o755)},
}


def image_folders() -> dict[str, Owned]:
    """What `install -d` makes in our images, with owner, group and mode."""
    (run,) = [rest for name, rest in stages()["base"] if name == "RUN"]
    found: dict[str, Owned] = {}
    for uid, gid, mode, places in re.findall(r"install -d -o (\d+) -g (\d+) -m (\d+) ([^&]+)", run):
        found |= {place: (int(uid), int(gid), int(mode, 8)) for place in places.split()}
    return found


def image_env(stage: str) -> dict[str, str]:
    """The variables of one of our images, but for PATH."""
    found = [rest for of in ("base", stage) for name, rest in stages()[of] if name == "ENV"]
    words = dict(word.split("=", 1) for env in found for word in shlex.split(env))
    return {name: value for name, value in words.items() if name != "PATH"}


def copied_files(stage: str) -> dict[str, str]:
    """The files that a stage copies from the checkout, by their place in the image."""
    found = {}
    for name, rest in stages()[stage]:
        *sources, target = rest.split()
        if name == "COPY" and "--from=" not in rest:
            for source in sources:
                place = f"{target}{Path(source).name}" if target.endswith("/") else target
                found[place] = str(ROOT / source)
    return found
