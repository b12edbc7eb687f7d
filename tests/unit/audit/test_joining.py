"""`audit join`: what the two logs say together, and what only one of them knows."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.audit.logs import START, call, file, happened, told, used, vaults, written
from vaultauthz import audit
from vaultauthz.audit import SelectedLines
from vaultauthz.audit.files import LogError, Selection
from vaultauthz.audit.usage import BY
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
    asked = SelectedLines([file(folder / "ours", ours)], Selection(**wanted))  # type: ignore[arg-type]
    status = audit.join(asked, [file(folder / "vault", vault)], out)
    return status, json.loads(text.getvalue())


def story(folder: Path, ours: bytes, vault: bytes, request: str) -> list[str]:
    """What is told to people of one request."""
    out, text = told()
    asked = SelectedLines([file(folder / "ours", ours)], Selection(request=request))
    audit.join(asked, [file(folder / "vault", vault)], out)
    return text.getvalue().partition("\n\n")[0].splitlines()


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
    assert "credential c1 of db, stage production: 1 used after its end" in text
    ours = tuple(line for line in OURS if line is not REVOKED)
    (text,) = findings(tmp_path, (*ours, used(95, "c1")), VAULTS)
    assert "token.revoked" in text


def test_a_secret_that_comes_back(tmp_path: Path) -> None:
    """A static one that was lost and read again is used rightly."""
    lost = happened(4, events.LOST, upstream="db", credential_id="c1")
    again = happened(20, events.ISSUED, upstream="db", credential_id="c1", vault_request_id="v3")
    vault = (*VAULTS[:3], call(20, "v3"), VAULTS[3])
    ours = (*OURS[:4], lost, again, used(30, "c1", request_id="r2"))
    assert findings(tmp_path, ours, vault) == []
    # A request is told with what was read before it.
    for request, issue, last in (("r1", "v2", "read again"), ("r2", "v3", "ended")):
        lines = story(tmp_path, written(*ours), vaults(*vault), request)
        assert any(line.endswith(f"by Vault's request {issue}") for line in lines)
        assert lines[-1].startswith(f"  {last}")


def test_a_call_that_vault_does_not_have(tmp_path: Path) -> None:
    """Its line was taken out, or the file is another node's."""
    (text,) = findings(tmp_path, OURS, (VAULTS[0], VAULTS[1], VAULTS[3]))
    assert text.startswith("Vault's log has no request v2, by which ours has lease.issued of db")
    unset = {**call(0, "x"), "time": "0001-01-01T00:00:00Z"}  # what Go writes for no time
    assert findings(tmp_path, OURS, (unset, VAULTS[0], VAULTS[1], VAULTS[3])) == [text]


def test_what_is_on_its_way(tmp_path: Path) -> None:
    """While the logs are copied, or where they begin, one may not have yet what the other has."""
    for vault in (
        (
            call(1.5, "x"),
            VAULTS[1],
            VAULTS[3],
        ),  # v2, half a second later, may be of the file before
        (VAULTS[0], VAULTS[1], call(3, "x")),  # or comes after
        (
            *VAULTS[:3],
            call(89, "x", lease="database/creds/shop/new"),
            VAULTS[3],
        ),  # ours comes after
    ):
        assert findings(tmp_path, OURS, vault) == []


def test_a_time_that_vaults_log_does_not_cover(tmp_path: Path) -> None:
    """Nothing can be said of it; it is counted."""
    status, found = joined(tmp_path, written(*OURS), vaults(*VAULTS[1:3]))
    assert (status, found["findings"]) == (0, [])
    assert (found["matched"], found["outside"], found["whole"]) == (2, 0, True)
    status, found = joined(tmp_path, written(*OURS), vaults(VAULTS[0]))
    assert (status, found["matched"], found["outside"]) == (1, 0, 2)
    assert found["findings"][0].startswith("none of our 2 calls to Vault is in that log")


def test_a_lease_that_we_do_not_have(tmp_path: Path) -> None:
    """By a token of ours; other tokens' leases, and renewals, are none of our business."""
    theirs = (
        call(30, "x1", lease="database/creds/shop/stolen"),
        call(31, "x2", lease="database/creds/other/1", token="hmac-2"),
        call(32, "x3", lease="database/creds/shop/older", path="sys/leases/renew"),
    )
    (text,) = findings(tmp_path, OURS, (*VAULTS[:3], *theirs, VAULTS[3]))
    assert text.startswith("Vault issued lease database/creds/shop/stolen to a token of ours")
    assert "10.0.0.7" in text
    status, found = joined(tmp_path, written(*OURS), vaults(*VAULTS, *theirs), upstream="db")
    assert (status, found["findings"]) == (0, [])  # the others may not be asked for


def test_one_request_whole(tmp_path: Path) -> None:
    """For people, from the client to Vault's call."""
    assert story(tmp_path, written(*OURS), vaults(*VAULTS), "r1") == [
        "2026-11-22T08:00:03.000000Z  GET db.test/rows",
        "  caller      shop, by envoy",
        "  allowed     upstream db, stage production, answered 200",
        f"  credential  c1, lease {LEASE}",
        "  issued      2026-11-22T08:00:02.000000Z by Vault's request v2",
        "  Vault       read database/creds/shop, from 10.0.0.7",
        "  to          approle shop, policies shop, entity e-1",
        "  ended       2026-11-22T08:01:00.000000Z (lease.revoked)",
    ]


@pytest.mark.parametrize(
    ("display", "role", "shown"),
    [
        ("approle", "app", "approle app"),
        ("kubernetes-shop", "shop", "kubernetes-shop"),
        ("root", "", "root"),
    ],
)
def test_the_role_is_told(tmp_path: Path, display: str, role: str, shown: str) -> None:
    """Once; also where its name is part of the method's."""
    entry = call(2, "v2", lease=LEASE)
    entry["auth"] = {**entry["auth"], "display_name": display, "metadata": {"role": role}}
    lines = story(tmp_path, written(*OURS), vaults(VAULTS[1], entry, VAULTS[3]), "r1")
    assert f"  to          {shown}, policies shop, entity e-1" in lines


def test_a_static_secret_outlives_its_token(tmp_path: Path) -> None:
    """It is not a lease: the next token reads on."""
    static = happened(2, events.ISSUED, upstream="db", credential_id="s1", vault_request_id="v2")
    ours = (LOGGED_IN, static, TOKEN_REVOKED, used(95, "s1"), used(100, "s1"))
    status, found = joined(tmp_path, written(*ours), vaults(*VAULTS))
    assert (status, found["findings"]) == (0, [])
    assert found["credentials"][0]["ended"] == ""


def test_of_a_part_of_the_time(tmp_path: Path) -> None:
    """A credential of before is told whole; what is found does not depend on it."""
    ours = tuple(line for line in OURS if line is not REVOKED)
    path = file(tmp_path / "a", written(*ours, used(95, "c1")))
    out, text = told(as_json=True)
    since = Selection(since=START + timedelta(seconds=50))
    assert (
        audit.join(SelectedLines([path], since), [file(tmp_path / "v", vaults(*VAULTS))], out) == 1
    )
    found = json.loads(text.getvalue())
    assert found["credentials"][0]["vault"]["path"] == "database/creds/shop"
    assert len(found["findings"]) == 1
    assert "token.revoked" in found["findings"][0]


def test_a_lease_that_was_no_good(tmp_path: Path) -> None:
    """An answer that cannot be used is given back at once; our log has the lease, without a name."""
    back = happened(30.1, events.REVOKED, upstream="db", lease_id="database/creds/shop/bad")
    vault = (*VAULTS[:3], call(30, "x1", lease="database/creds/shop/bad"), VAULTS[3])
    assert findings(tmp_path, (*OURS, back), vault) == []


def test_one_of_many_callers_reads(tmp_path: Path) -> None:
    """A static secret of each caller has one name; one caller's end is not the others'."""
    lost = happened(4, events.LOST, upstream="db", credential_id="c1", caller="shop")
    static = happened(2, events.ISSUED, upstream="db", credential_id="c1", vault_request_id="v2")
    ours = (LOGGED_IN, static, lost, used(30, "c1", caller="billing"))
    assert findings(tmp_path, ours, VAULTS) == []


def test_a_claim_is_made_only_where_it_was_looked(tmp_path: Path) -> None:
    """With a filter not everything is looked for."""
    for wanted, whole in ((Selection(), True), (Selection(upstream="db"), False)):
        out, text = told()
        asked = SelectedLines([file(tmp_path / "ours", written(*OURS))], wanted)
        assert audit.join(asked, [file(tmp_path / "vault", vaults(*VAULTS))], out) == 0
        assert ("neither lacks what the other has" in text.getvalue()) is whole


def test_only_answers_count(tmp_path: Path) -> None:
    """An entry from before the answer is none, whatever is in its data."""
    asked = {**call(2, "v2"), "type": "request", "data": {"type": "response"}}
    vault = vaults(VAULTS[0], VAULTS[1], VAULTS[3]) + json.dumps(asked).encode() + b"\n"
    assert joined(tmp_path, written(*OURS), vault)[1]["matched"] == 1


@pytest.mark.parametrize(
    ("auth", "shown"),
    [
        ({"token_policies": ["default"], "identity_policies": ["payers"]}, ["payers"]),
        ({"policies": ["a", "b"], "token_policies": ["a"]}, ["a", "b"]),
        ({"policies": 5, "token_policies": [None, "a"]}, ["a"]),
    ],
)
def test_policies(tmp_path: Path, auth: dict[str, Any], shown: list[str]) -> None:
    """Of the token and of its identity; `default` says nothing."""
    entry = call(2, "v2", lease=LEASE)
    entry["auth"] = {"accessor": "hmac-1", **auth}
    vault = vaults(VAULTS[1], entry, VAULTS[3])
    (one,) = joined(tmp_path, written(*OURS), vault)[1]["credentials"]
    assert sorted(one["vault"]["policies"]) == shown


def test_a_client_lays_out_no_line(tmp_path: Path) -> None:
    """What a client sends cannot be taken for a line of ours."""
    name = "x" + " " * 60 + "caller      admin"
    line = happened(0, events.RELOADED), used(3, caller=name, request_id="r1", reason="why not")
    text = written(*line).replace(b"/rows", b"/" + b" " * 60 + b"admin")
    out, shown = told(width=80)
    asked = SelectedLines([file(tmp_path / "ours", text)], Selection(request="r1"))
    audit.join(asked, [file(tmp_path / "vault", vaults(*VAULTS))], out)
    assert "  caller      x caller admin, by envoy\n" in shown.getvalue()
    assert "    admin" not in shown.getvalue()


def test_on_a_narrow_terminal(tmp_path: Path) -> None:
    """The last columns go."""
    out, text = told(width=80)
    asked = SelectedLines([file(tmp_path / "ours", written(*OURS))])
    assert audit.join(asked, [file(tmp_path / "vault", vaults(*VAULTS))], out) == 0
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
        {**entry, "auth": {**entry["auth"], "metadata": strange, "policies": strange}},
        {**entry, "time": "9999-12-31T23:59:59Z"},
        {**entry, "time": "0001-01-01T00:00:00Z"},
        {**entry, "response": strange},
        {**entry, "request": {"id": strange, "path": strange}},
        {**entry, "time": strange},
        strange,
    ]
    vault = b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in odd)
    lines = [json.loads(written(one)) for one in (ISSUED, USED)]
    ours = b"".join(
        json.dumps({**line, key: strange}).encode() + b"\n"
        for line in lines
        for key in (*line, "request_id")
    )
    log = written(*OURS) + ours
    for wanted in ({}, {"request": "r1"}, {"upstream": "db"}):
        status, _ = joined(tmp_path, log, vault + vaults(*VAULTS), **wanted)
        assert status in (0, 1)
        out, _ = told(width=80)
        asked = SelectedLines([file(tmp_path / "ours", log)], Selection(**wanted))  # type: ignore[arg-type]
        audit.join(asked, [file(tmp_path / "vault", vault + vaults(*VAULTS))], out)
    for by in BY:
        audit.report(SelectedLines([tmp_path / "ours"]), by, told()[0])
    audit.verify([tmp_path / "ours"], "", told()[0])
