"""`audit report`: each request is counted once, in the row that it belongs to."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.audit.logs import START, at, file, happened, told, used, vaults, written
from tests.unit.audit.logs import call as vault_call
from vaultauthz import audit
from vaultauthz.audit import SelectedLines
from vaultauthz.audit.files import Log, LogError, Selection, by_chain
from vaultauthz.audit.usage import BY, count_usage
from vaultauthz.core import events

LOG = written(
    happened(0, events.LOGIN, vault_request_id="v0", lease_id="accessor"),
    happened(1, events.ISSUED, upstream="db", credential_id="c1", vault_request_id="v1"),
    used(2, "c1", caller="shop"),
    used(3, "c1", caller="shop"),
    used(4, "c1", caller="billing"),
    used(5, allowed=False, reason="caller_denied", caller="guest"),
    happened(6, events.ROTATED, upstream="db", credential_id="c2", vault_request_id="v2"),
    used(7, "c2"),
    used(8, "g1", upstream="geo", caller="shop"),
    used(9, upstream="", allowed=False, reason="no_upstream"),
)


def printed(path: Path, by: str = "upstream", width: int | None = None, **wanted: str) -> list[str]:
    """The lines that are printed."""
    out, text = told(width=width)
    assert audit.report(SelectedLines([file(path, LOG)], Selection(**wanted)), by, out) == 0  # type: ignore[arg-type]
    return text.getvalue().splitlines()


def test_by_upstream(tmp_path: Path) -> None:
    """The busiest first, with its callers, its credentials and how many were issued."""
    assert printed(tmp_path / "a") == [
        "UPSTREAM  ALLOWED  DENIED  LAST USED             STAGE       FIRST USED            CALLERS  CREDENTIALS  ISSUED",  # noqa: E501
        "db        4        1       2026-11-22 08:00:07Z  production  2026-11-22 08:00:02Z  3        2            2",
        "-         0        1       2026-11-22 08:00:09Z  production  2026-11-22 08:00:09Z  0        0            0",
        "geo       1        0       2026-11-22 08:00:08Z  production  2026-11-22 08:00:08Z  1        1            0",
        "",
        "7 requests",
    ]


def test_by_caller_and_reason(tmp_path: Path) -> None:
    """Who used which upstream; and what was denied, without what was not."""
    lines = printed(tmp_path / "a", "caller")
    assert [line.split()[:3] for line in lines[1:7]] == [
        ["shop", "2", "0"],
        ["-", "0", "1"],
        ["-", "1", "0"],
        ["billing", "1", "0"],
        ["guest", "0", "1"],
        ["shop", "1", "0"],
    ]
    assert [line.split()[0] for line in printed(tmp_path / "a", "reason")[1:3]] == [
        "caller_denied",
        "no_upstream",
    ]


def test_on_a_narrow_terminal(tmp_path: Path) -> None:
    """The last columns go; no line is longer."""
    for by in BY:
        lines = printed(tmp_path / "a", by, width=80)
        assert max(map(len, lines)) <= 80
        assert "LAST USED" in lines[0]


def test_what_is_asked_for(tmp_path: Path) -> None:
    """Other requests are not counted."""
    assert printed(tmp_path / "a", caller="shop")[-1] == "3 requests"
    assert printed(tmp_path / "a", credential="c2")[-1] == "1 request"
    assert printed(tmp_path / "a", upstream="none") == ["no request in there that fits"]
    since = Selection(since=START + timedelta(seconds=5), until=START + timedelta(seconds=8))
    assert count_usage(Log([file(tmp_path / "a", LOG)], by_chain), "upstream", since).requests == 2


def test_as_json(tmp_path: Path) -> None:
    """With every caller and credential by name, and damaged lines counted."""
    path = file(tmp_path / "a", LOG + b'{"half')
    out, text = told(as_json=True)
    assert audit.report(SelectedLines([path]), "upstream", out) == 0
    found = json.loads(text.getvalue())
    assert (found["requests"], found["unreadable"]) == (7, 1)
    assert found["upstreams"][0] == {
        "upstream": "db",
        "stage": "production",
        "allowed": 4,
        "denied": 1,
        "issued": 2,
        "first": at(2),
        "last": at(7),
        "callers": ["billing", "guest", "shop"],
        "credentials": ["c1", "c2"],
    }


REQUESTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["", "x", "y"]), st.sampled_from(["", "c"])),
    min_size=1,
)


@pytest.mark.parametrize("by", [one for one in BY if one != "reason"])
@given(requests=REQUESTS)
def test_each_request_is_in_one_row(
    tmp_path_factory: pytest.TempPathFactory, by: str, requests: list[tuple[str, str, str]]
) -> None:
    """Whatever the rows are about."""
    log = written(
        *(
            used(n, credential, upstream=upstream, caller=caller, allowed=bool(credential))
            for n, (upstream, caller, credential) in enumerate(requests)
        )
    )
    found = count_usage(
        Log([file(tmp_path_factory.getbasetemp() / by, log)], by_chain), by, Selection()
    )
    assert found.requests == sum(row.allowed + row.denied for row in found.rows) == len(requests)
    allowed = Counter(upstream for upstream, _, credential in requests if credential)
    where = BY[by].index("upstream")
    for upstream, count in allowed.items():
        assert sum(row.allowed for row in found.rows if row.keys[where] == upstream) == count


@pytest.mark.parametrize("data", [b"", b"{}\n", vaults(vault_call(1, "a"))])
def test_no_log_of_ours(tmp_path: Path, data: bytes) -> None:
    """It is an error, not a report of nothing."""
    with pytest.raises(LogError, match="no line of a vaultauthz audit log"):
        count_usage(Log([file(tmp_path / "a", data)], by_chain), "upstream", Selection())


def test_two_instances_at_once(tmp_path: Path) -> None:
    """Each has a log of its own, at the same time: their files are counted together, in any order."""
    one = file(tmp_path / "one", written(*(used(second, "c1") for second in (1, 3, 5))))
    two = file(tmp_path / "two", written(*(used(second, "c2") for second in (2, 4))))
    for files in ([one, two], [two, one]):
        out, text = told()
        assert audit.report(SelectedLines(files, Selection()), "credential", out) == 0
        rows = [line.split()[:2] for line in text.getvalue().splitlines()[1:3]]
        assert rows == [["c1", "3"], ["c2", "2"]]
        out, text = told()
        assert audit.verify(files, "", out) == 0
        assert "Each of the 2 chains holds" in text.getvalue()
