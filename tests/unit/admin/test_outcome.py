"""What `rotate` and `revoke` say has become of it, by the rows of /leases."""

from __future__ import annotations

from io import StringIO
from typing import Any, cast

import pytest

from vaultauthz.admin import command
from vaultauthz.admin.client import AdminClient
from vaultauthz.admin.command import outcome
from vaultauthz.terminal import Output

HELD = {
    "stage": "prod", "upstream": "pay", "state": "held", "lease_id": "l", "credential_id": "c",
    "failures": 0, "last_error": "", "renew_in": 60.0, "usable": True, "wanted": False, "revoking": 0,
    "revoke_error": "",
}  # fmt: skip
EMPTY = HELD | {"state": "issuing", "lease_id": "", "credential_id": "", "usable": False}
AWAY = {"failures": 2, "last_error": "Vault is away", "renew_in": 3.0}
KEPT = "the present one is used on"


@pytest.mark.parametrize(
    ("action", "rows", "done", "said"),
    [
        ("rotate", [HELD], True, "replaced; the one before is revoked"),
        ("rotate", [HELD | {"lease_id": ""}], True, "read again"),
        ("rotate", [HELD | {"wanted": True}], False, "not replaced yet: no answer yet"),
        (
            "rotate",
            [HELD | AWAY | {"wanted": True}],
            False,
            "Vault is away, asked again in 3s; " + KEPT,
        ),
        # Given up: another try would lock the login, or so.
        ("rotate", [HELD | AWAY], False, "not replaced: Vault is away; " + KEPT),
        ("rotate", [EMPTY | AWAY], False, "there is no other credential yet: Vault is away"),
        ("rotate", [HELD, HELD | {"wanted": True}], False, "not replaced yet"),
        ("rotate", [], True, ""),
        ("revoke", [HELD], True, "revoked at Vault; another"),
        ("revoke", [HELD | {"lease_id": ""}], True, "there is no lease to revoke"),
        ("revoke", [EMPTY], False, "revoked at Vault, but there is no other credential yet"),
        ("revoke", [HELD | {"revoking": 1}], False, "not revoked at Vault yet: no answer yet"),
        (
            "revoke",
            [HELD | {"revoking": 2, "revoke_error": "Vault is sealed"}],
            False,
            "yet: Vault is sealed; no request gets it any more, and Vault is asked again until the 2 leases",
        ),
        # What fails beside it is not what was asked for.
        ("revoke", [HELD | AWAY], True, "revoked at Vault; another"),
        # An earlier server does not tell.
        (
            "revoke",
            [{k: v for k, v in HELD.items() if k not in ("revoking", "wanted")}],
            True,
            "revoked",
        ),
    ],
)
def test_what_has_become_of_it(
    action: str, rows: list[dict[str, Any]], done: bool, said: str
) -> None:
    """Done or not, and what will happen; other stages' leases are not looked at."""
    found = outcome(action, "prod", [*rows, EMPTY | {"stage": "staging", "revoking": 1}])
    assert (found.stage, found.done) == ("prod", done)
    assert said in found.said


class Server:
    """A client of one whose lease is not replaced; ``looks`` counts how often that was asked."""

    def __init__(self) -> None:
        self.looks = 0

    def ask(self, _action: str, _upstream: str, _stage: str | None, _reason: str) -> dict[str, Any]:
        """It takes the wish."""
        return {"stages": ["prod"]}

    def leases(self, _upstream: str = "") -> list[dict[str, Any]]:
        """As it stands."""
        self.looks += 1
        return [HELD | {"wanted": True}]


@pytest.mark.parametrize(
    ("wait", "width", "status", "looks"),
    [(None, None, 0, 0), (None, 80, 1, 1), (True, None, 1, 1), (False, 80, 0, 0)],
)
def test_who_waits(
    wait: bool | None, width: int | None, status: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person at a terminal does, and a script that says so."""
    monkeypatch.setattr(command, "PATIENCE", 0.0)
    server, out = Server(), StringIO()
    client = cast(AdminClient, server)
    assert command.ask(client, "rotate", "pay", None, Output(out, width=width), wait=wait) == status
    assert server.looks == looks
    assert ("prod: not replaced yet" in out.getvalue()) == bool(looks)
