"""`audit join`: what the two logs say together, and what only one of them knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.audit.logs import call, file, happened, told, used, vaults, written
from vaultauthz.audit import command
from vaultauthz.audit.command import Asked
from vaultauthz.audit.files import LogError
from vaultauthz.audit.wanted import Wanted
from vaultauthz.core import events

LEASE = "database/creds/shop/abc"
LOGGED_IN = happened(1, events.LOGIN, vault_request_id="v1", lease_id="accessor-1")
ISSUED = happened(
    2, events.ISSUED, upstream="db", credential_id="c1", lease_id=LEASE, vault_request_id="v2"
)
USED = used(3, "c1", caller="shop", request_id="r1", status=200)
REVOKED = happened(60, events.REVOKED, upstream="db", credential_id="c1", lease_id=LEASE)
TOKEN_REVOKED = happened(90, events.TOKEN_REVOKED, lease_id="accessor-1")
OURS = (happened(0, events.RELOADED), LOGGED_IN, ISSUED, USED, REVOKED, TOKEN_REVOKED)
VAULTS = (
    call(-5, "before"),
    call(1, "v1", login=True, path="auth/approle/login"),
    call(2, "v2", lease=LEASE),
    call(200, "after"),
)


def joined(folder: Path, ours: bytes, vault: bytes, **wanted: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON for these logs."""
    out, text = told(as_json=True)
    asked = Asked([file(folder / "ours", ours)], Wanted(**wanted))  # type: ignore[arg-type]
    status = command.join(asked, [file(folder / "vault", vault)], out)
    return status, json.loads(text.getvalue())


def findings(folder: Path, ours: tuple[Any, ...], vault: tuple[Any, ...]) -> list[str]:
    """What is found; with something, status 1."""
    status, found = joined(folder, written(*ours), vaults(*vault))
    assert status == bool(found["findings"])
    made: list[str] = found["findings"]
    return made


def test_a_credential_from_both_sides(tmp_path: Path) -> None:
    """Who used it, when it was issued, by which call, to whom, and when it ended."""
    status, found = joined(tmp_path, written(*OURS), vaults(*VAULTS))
    assert (status, found["findings"], found["matched"]) == (0, [], 2)
    (one,) = found["credentials"]
    assert (one["credential_id"], one["lease_id"], one["uses"]) == ("c1", LEASE, 1)
    assert (one["callers"], one["end"]) == (["shop"], "lease.revoked")
    theirs = one["vault"]
    assert (theirs["path"], theirs["remote_address"]) == ("database/creds/shop", "10.0.0.7")
    assert (theirs["role"], theirs["policies"]) == ("shop", ["shop"])


def test_it_ends_with_its_token(tmp_path: Path) -> None:
    """Vault ends the leases of a token with it; our log has one line for all."""
    ours = tuple(line for line in OURS if line is not REVOKED)
    (one,) = joined(tmp_path, written(*ours), vaults(*VAULTS))[1]["credentials"]
    assert one["end"] == "token.revoked"


def test_a_use_after_the_end(tmp_path: Path) -> None:
    """Of the lease or of its token; not in the seconds around it, in which clocks may differ."""
    late = used(65, "c1", caller="shop")
    assert findings(tmp_path, (*OURS, used(61, "c1")), VAULTS) == []
    (text,) = findings(tmp_path, (*OURS, late), VAULTS)
    assert "credential c1 of db, stage production, was used 1 times after its end" in text
    ours = tuple(line for line in OURS if line is not REVOKED)
    (text,) = findings(tmp_path, (*ours, used(95, "c1")), VAULTS)
    assert "token.revoked" in text


def test_a_secret_that_comes_back(tmp_path: Path) -> None:
    """A static one that was lost and read again is used rightly."""
    lost = happened(4, events.LOST, upstream="db", credential_id="c1")
    again = happened(20, events.ISSUED, upstream="db", credential_id="c1", vault_request_id="v3")
    vault = (*VAULTS[:3], call(20, "v3"), VAULTS[3])
    assert findings(tmp_path, (*OURS[:4], lost, again, used(30, "c1")), vault) == []


def test_a_call_that_vault_does_not_have(tmp_path: Path) -> None:
    """Its line was taken out, or the file is another node's."""
    (text,) = findings(tmp_path, OURS, (VAULTS[0], VAULTS[1], VAULTS[3]))
    assert text.startswith("Vault's log has no request v2, by which ours has lease.issued of db")


def test_a_time_that_vaults_log_does_not_cover(tmp_path: Path) -> None:
    """Nothing can be said of it; it is counted."""
    status, found = joined(tmp_path, written(*OURS), vaults(*VAULTS[1:3]))
    assert (status, found["findings"]) == (0, [])
    status, found = joined(tmp_path, written(*OURS), vaults(VAULTS[0]))
    assert (status, found["matched"], found["outside"]) == (0, 0, 2)


def test_a_lease_that_we_do_not_have(tmp_path: Path) -> None:
    """By a token of ours; other tokens' leases, and renewals, are none of our business."""
    theirs = (
        call(30, "x1", lease="database/creds/shop/stolen"),
        call(31, "x2", lease="database/creds/other/1", token="hmac-2"),
        call(32, "x3", lease=LEASE, path="sys/leases/renew"),
    )
    (text,) = findings(tmp_path, OURS, (*VAULTS[:3], *theirs, VAULTS[3]))
    assert text.startswith("Vault issued lease database/creds/shop/stolen to a token of ours")
    assert "10.0.0.7" in text
    status, found = joined(tmp_path, written(*OURS), vaults(*VAULTS, *theirs), upstream="db")
    assert (status, found["findings"]) == (0, [])  # the others may not be asked for


def test_one_request_whole(tmp_path: Path) -> None:
    """For people, from the client to Vault's call."""
    out, text = told()
    asked = Asked([file(tmp_path / "ours", written(*OURS))], Wanted(request="r1"))
    assert command.join(asked, [file(tmp_path / "vault", vaults(*VAULTS))], out) == 0
    assert text.getvalue().splitlines() == [
        "2026-11-22T08:00:03.000000Z  GET db.test/rows",
        "  caller      shop, by envoy",
        "  allowed     upstream db, stage production, answered 200",
        f"  credential  c1, lease {LEASE}",
        "  issued      2026-11-22T08:00:02.000000Z by Vault's request v2",
        "  Vault       read database/creds/shop, from 10.0.0.7",
        "  to          approle shop, policies shop, entity e-1",
        "  ended       2026-11-22T08:01:00.000000Z (lease.revoked)",
        "",
        "2 calls to Vault are in both logs, and neither lacks what the other has",
    ]


def test_on_a_narrow_terminal(tmp_path: Path) -> None:
    """The last columns go."""
    out, text = told(width=80)
    asked = Asked([file(tmp_path / "ours", written(*OURS))])
    assert command.join(asked, [file(tmp_path / "vault", vaults(*VAULTS))], out) == 0
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["CREDENTIAL", "UPSTREAM", "USED", "ISSUED", "TO"]


def test_the_two_are_not_mixed_up(tmp_path: Path) -> None:
    """Each is told from the other."""
    vault, ours = vaults(*VAULTS), written(*OURS)
    with pytest.raises(
        LogError, match="this is our audit log, not Vault's; name it before --vault"
    ):
        joined(tmp_path, ours, vault + ours)
    with pytest.raises(LogError, match="no line of a vaultauthz audit log"):
        joined(tmp_path, vault, vault)


@pytest.mark.parametrize("vault", [b"", b"{}\n", b'{"type":"response"}\n'])
def test_no_log_of_vault(tmp_path: Path, vault: bytes) -> None:
    """The error says which file is wanted."""
    with pytest.raises(LogError, match="--vault wants the file of a `file` audit device"):
        joined(tmp_path, written(*OURS), vault)


@pytest.mark.parametrize("strange", [5, None, [], "x", {"a": 1}])
def test_entries_of_another_shape(tmp_path: Path, strange: object) -> None:
    """Nothing in either log makes it fall over."""
    entry = call(2, "v2", lease=LEASE)
    odd = [
        {**entry, "auth": strange},
        {**entry, "response": strange},
        {**entry, "request": {"id": strange, "path": strange}},
        {**entry, "time": strange},
        strange,
    ]
    vault = b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in odd)
    line = json.loads(written(ISSUED))
    ours = b"".join(
        json.dumps({**line, key: strange}).encode() + b"\n"
        for key in ("event", "time", "credential_id", "vault_request_id", "stage")
    )
    status, _ = joined(tmp_path, written(*OURS) + ours, vault + vaults(*VAULTS))
    assert status in (0, 1)
