"""What fails, in plain words: which words, how bad, since when, and many that fail alike as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vaultauthz.core.history import Past, Tone
from vaultauthz.core.lease_row import LeaseRow, ShownTrouble, grouped, troubles

NOW = 1000.0
ROW = LeaseRow("prod", "pay", "held", "lease-1", "c_1", seconds_left=900.0, renew_in=600.0)
NONE = replace(ROW, state="empty", lease_id="", credential_id="", seconds_left=None, usable=False)
WHY = "permission denied by Vault"


def told(row: LeaseRow, **past: Any) -> list[tuple[Tone, str, str, float | None]]:
    """Its troubles, without where they are."""
    found = troubles(row, Past(**past), NOW)
    assert {trouble.place for trouble in found} <= {(row.stage, row.upstream, row.caller)}
    return [trouble[:4] for trouble in found]


def test_what_is_well_has_none() -> None:
    """Also what has no end, what is being replaced, and a lease of a caller's that is on its way."""
    well = (ROW, replace(ROW, seconds_left=None), replace(ROW, state="replacing", wanted=True))
    on_its_way = replace(NONE, state="issuing", shared=False, caller="alice")
    assert [told(row) for row in (*well, on_its_way)] == [[]] * 4


def test_no_credential() -> None:
    """Why Vault gives none, and since when there is none."""
    row = replace(NONE, failures=3, last_error=WHY)
    what = "No credential: requests are answered 503"
    assert told(row, failing_since=900.0, out_since=950.0) == [(Tone.BAD, what, WHY, 950.0)]
    assert told(row, failing_since=900.0) == [(Tone.BAD, what, WHY, 900.0)]
    assert told(replace(row, optional=True)) == [(Tone.WARN, what, WHY, None)]
    assert told(replace(row, shared=False, caller="alice"))[0][0] is Tone.WARN


def test_the_first_is_on_its_way() -> None:
    """At the start that is to be expected; once there was one it is not."""
    what, why = "No credential: requests are answered 503", "it is on its way"
    assert told(NONE) == [(Tone.WARN, what, why, None)]
    assert told(NONE, out_since=999.0) == [(Tone.BAD, what, why, 999.0)]


def test_no_login() -> None:
    """A login is named as one."""
    row = replace(NONE, upstream="", failures=1, last_error="Vault is sealed")
    assert told(row, failing_since=1.0) == [(Tone.BAD, "No login to Vault", "Vault is sealed", 1.0)]


@pytest.mark.parametrize(
    ("left", "tone"), [(900.0, Tone.WARN), (None, Tone.WARN), (59.0, Tone.BAD)]
)
def test_what_is_not_renewed_is_bad_when_it_is_about_to_end(left: float | None, tone: Tone) -> None:
    """Until then somebody has time."""
    row = replace(ROW, failures=2, last_error="Vault gave no answer", seconds_left=left)
    what = "Calls to Vault for it fail; it is used until it ends"
    assert told(row, failing_since=800.0) == [(tone, what, "Vault gave no answer", 800.0)]


def test_refused_by_its_service() -> None:
    """Vault is well, requests are not."""
    (found,) = told(replace(ROW, refused=7, refused_for=30.0))
    assert (found[0], found[1], found[3]) == (Tone.BAD, "Its service answers 401", 970.0)


def test_several_at_once_the_worst_first() -> None:
    """A lease that could not be revoked comes after what requests feel."""
    row = replace(ROW, refused=1, refused_for=1.0, revoking=1, revoke_error=WHY)
    assert [tone for tone, *_ in told(row)] == [Tone.BAD, Tone.WARN]


def test_many_that_fail_alike_are_one() -> None:
    """With the earliest time; the server's own first, then what most have, after what is worse."""
    sealed = [
        ShownTrouble(Tone.BAD, "none", "sealed", float(at), ("prod", f"u{at}", ""))
        for at in (5, 3, 4)
    ]
    own = ShownTrouble(Tone.BAD, "audit", "")
    denied = ShownTrouble(Tone.BAD, "none", "denied", None, ("prod", "pay", ""))
    late = ShownTrouble(Tone.WARN, "config", "refused", 1.0)
    groups = grouped([late, denied, *sealed, own])
    assert [(g.trouble.why or g.trouble.what, len(g.places), g.since) for g in groups] == [
        ("audit", 0, None), ("sealed", 3, 3.0), ("denied", 1, None), ("refused", 0, 1.0),
    ]  # fmt: skip
