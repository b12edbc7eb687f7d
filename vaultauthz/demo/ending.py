"""The last steps: vaultauthz is stopped, and the logs tell what happened."""

import base64
import json
from typing import Any

from vaultauthz.demo.parts import wait_for
from vaultauthz.demo.stage import DemoStage
from vaultauthz.demo.tell import Teller

GONE_SECONDS = 5
OURS = (
    "time",
    "event",
    "upstream",
    "credential_id",
    "lease_id",
    "caller",
    "method",
    "host",
    "path",
    "vault_request_id",
)
JOINED = "vault_request_id"


def stop_and_look(stage: DemoStage, tell: Teller) -> None:
    """On stop the database users are gone from PostgreSQL."""
    tell.step(
        "vaultauthz is stopped",
        "On SIGTERM vaultauthz revokes its token, and Vault takes every lease of that token back: "
        "it drops the login from PostgreSQL.",
    )
    tell.fact("before", *(stage.postgres.users() or ["no user that Vault made"]))
    status = stage.serve.terminate()
    gone = wait_for(lambda: not stage.postgres.users(), GONE_SECONDS)
    tell.fact("after", *(stage.postgres.users() or ["no user that Vault made"]))
    tell.hold(status == 0, f"vaultauthz ended with status {status}.")
    tell.hold(gone, "The database users are gone from PostgreSQL.")


def audit_lines(stage: DemoStage, tell: Teller) -> None:
    """Three lines of our audit log, the line of Vault's that belongs to them, and no secret in any log."""
    tell.step(
        "Who used what, and when",
        "Three lines of vaultauthz's audit log about one credential, some fields of each. The credential_id is a "
        "fingerprint; the password is in no log.",
    )
    lines = stage.audit()
    three = _about_one_credential(lines)
    for line in three:
        tell.fact("ours", _shown({name: line[name] for name in OURS if line.get(name)}))
    tell.hold(
        len(three) == 3, "The log says when a login was issued, who used it, and when it ended."
    )
    issued = three[0] if three else {}
    theirs = _vaults_line(stage, str(issued.get(JOINED, "")))
    tell.say(
        f"And the line of Vault's own audit log whose request.id is our {JOINED} "
        "(`vaultauthz audit join` does it for whole logs):"
    )
    tell.fact("Vault's", _shown(theirs))
    same = bool(theirs) and theirs["response"]["secret"]["lease_id"] == issued.get("lease_id")
    tell.hold(same, "Vault's line names the same lease.")
    passwords = _passwords_seen(stage)
    found = [
        name
        for name, text in _logs(stage).items()
        if any(form in text for form in _forms(passwords))
    ]
    words = (
        f"The {len(passwords)} passwords and keys that the services saw stand in none of the logs"
    )
    tell.hold(
        bool(passwords) and not found,
        f"{words}{': found in ' + ', '.join(found) if found else ''}.",
    )


def _about_one_credential(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The issue, the first use and the end of the first login that has all three."""
    ends = ("lease.revoked", "lease.expired")
    for issued in lines:
        if issued["event"] != "lease.issued" or issued.get("upstream") != "reports":
            continue
        same = [line for line in lines if line.get("credential_id") == issued["credential_id"]]
        used = [line for line in same if line["event"] == "request.allowed"]
        ended = [line for line in same if line["event"] in ends]
        if used and ended:
            return [issued, used[0], ended[0]]
    return []


def _vaults_line(stage: DemoStage, request_id: str) -> dict[str, Any]:
    """What of Vault's response entry the reader needs: who asked, for what, and which lease came of it."""
    for entry in stage.bao.audit_entries():
        if entry["type"] == "response" and entry["request"].get("id") == request_id:
            request, secret = entry["request"], entry.get("response", {}).get("secret", {})
            return {
                "time": entry["time"],
                "request": {
                    "id": request["id"],
                    "operation": request["operation"],
                    "path": request["path"],
                },
                "auth": {
                    "display_name": entry["auth"]["display_name"],
                    "policies": entry["auth"]["policies"],
                },
                "response": {"secret": {"lease_id": secret.get("lease_id")}},
            }
    return {}


def _passwords_seen(stage: DemoStage) -> dict[str, str]:
    """Every password and key that reached a service, with the user it came with (none for a key)."""
    keys = {key: "" for seen in stage.geocoder.seen for key in seen.all("x-api-key")}
    return keys | {login[1]: login[0] for seen in stage.reports.seen if (login := seen.basic())}


def _forms(passwords: dict[str, str]) -> set[str]:
    """The passwords as they are and as Basic encodes them."""
    return {
        *passwords,
        *(base64.b64encode(f"{user}:{word}".encode()).decode() for word, user in passwords.items()),
    }


def _logs(stage: DemoStage) -> dict[str, str]:
    files = (stage.serve.log, stage.folder / "audit.jsonl", stage.envoy.log, stage.bao.audit_path)
    return {f"{file.parent.name}/{file.name}": file.read_text() for file in files if file.exists()}


def _shown(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False)
