"""Our server once more, following the access log that Envoy writes to a file."""

from __future__ import annotations

from pathlib import Path

import yaml

from compared.servers import Ours


def access_log(server: Ours) -> Path:
    """The log that it follows, if it follows one."""
    return server.folder / "access.jsonl"


def following(ours: Ours, folder: Path) -> Ours:
    """Another one in ``folder`` that is else the same: with a login and an audit log of its own."""
    said = yaml.safe_load(ours.config.read_text())
    auth = said["stages"]["production"]["auth"]
    login = (auth["role_id"], Path(auth["secret_id_file"]).read_text())
    made = Ours(folder, said["vault"]["address"], login, ours.key)
    text = yaml.safe_load(made.config.read_text())
    text["audit"]["access_log"] = str(access_log(made))
    made.config.write_text(yaml.safe_dump(text, sort_keys=False))
    return made
