"""What Vault gave: which edition it is, when it ends, and whether it is the same as before."""

from __future__ import annotations

from math import inf

import pytest

from vaultauthz.core.grant import EndedSecretError, Grant, Version


@pytest.mark.parametrize(
    ("mine", "its", "older"),
    [
        (Version(1, "2026-01-01T00:00:00Z"), Version(2, "2026-01-02T00:00:00Z"), True),
        (Version(2, "2026-01-02T00:00:00Z"), Version(1, "2026-01-01T00:00:00Z"), False),
        # Written anew after it was deleted: the numbers begin again.
        (Version(1, "2026-01-03T00:00:00Z"), Version(7, "2026-01-02T00:00:00Z"), False),
        (Version(7, "2026-01-02T00:00:00Z"), Version(1, "2026-01-03T00:00:00Z"), False),
        (Version(1, "2026-01-01T00:00:00Z"), Version(1, "2026-01-01T00:00:00Z"), False),
        (Version(1, "2026-01-01T00:00:00Z"), Version(1, "2026-01-01T00:00:00.5Z"), True),
        (Version(1, "2026-01-01T00:00:00.5Z"), Version(1, "2026-01-01T00:00:00Z"), False),
        (Version(1, "2026-01-01T00:00:00.1Z"), Version(1, "2026-01-01T00:00:00.12Z"), True),
        (Version(1), Version(2), True),
        (Version(), Version(), False),
    ],
)
def test_which_edition_came_before(mine: Version, its: Version, older: bool) -> None:
    """By number and time of writing, which both have to say so."""
    assert mine.older_than(its) is older


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Grant("a", lease_id="l1"), Grant("b", lease_id="l1"), True),
        (Grant("a", lease_id="l1"), Grant("a", lease_id="l2"), False),
        (Grant("a", lease_id="l1"), Grant("a"), False),
        (Grant("a"), Grant("a", lease_id="l1"), False),
        (Grant("a", version=Version(1)), Grant("a", version=Version(1)), True),
        (Grant("a", version=Version(1)), Grant("a", version=Version(2)), False),
        (Grant("a"), Grant("b"), False),
    ],
)
def test_what_is_the_same(one: Grant, other: Grant, same: bool) -> None:
    """A lease by its id; what has none by its version and what is in it."""
    assert one.same_as(other) is same


ENDS = Grant("a", 600.0, field_ends={"token": 60.0, "cert": 30.0, "old": -1.0})


def test_it_ends_with_the_first_of_the_fields_that_are_used() -> None:
    """The others say nothing; and the ends of fields are not asked for again."""
    assert ENDS.using(["token", "cert", "name"]).ends_in == 30.0
    assert ENDS.using(["token"]).life == 60.0
    assert ENDS.using([]).ends_in == inf
    assert Grant("a", ends_in=10.0, field_ends={"t": 60.0}).using(["t"]).ends_in == 10.0
    assert ENDS.fitting(["token"]).ends_in == 60.0
    assert dict(ENDS.using(["token"]).field_ends) == {}
    assert ENDS.using(["token"]).ttl == 600.0


@pytest.mark.parametrize(
    ("grant", "fields", "why"),
    [
        (
            ENDS,
            ["token", "old"],
            "the field old holds a JSON Web Token whose exp has passed, or a certificate whose notAfter has",
        ),
        (Grant("a", field_ends={"old": 0.0}), ["old"], "the field old holds"),
        (Grant("a", ends_in=0.0), [], "the secret says that it has ended"),
        (Grant("a", ends_in=0.0, lease_id="l"), [], "the secret says that it has ended"),
        (Grant("a", 0.0), [], "the secret says that it has ended"),
    ],
)
def test_what_has_ended_is_not_used(grant: Grant, fields: list[str], why: str) -> None:
    """The field has its name in the message, and not its value."""
    with pytest.raises(EndedSecretError) as refused:
        grant.fitting(fields)
    assert str(refused.value).startswith(why)


def test_what_has_time_left_is_used() -> None:
    """Be it half a second; a lease of no time is the lease machine's matter."""
    assert Grant("a", 0.5).fitting([]).ttl == 0.5
    assert Grant("a", ends_in=0.5).fitting([]).ends_in == 0.5
    assert Grant("a", field_ends={"t": 0.5}).fitting(["t"]).ends_in == 0.5
    assert Grant("a", 0.0, lease_id="l").fitting(["t"]).lease_id == "l"


@pytest.mark.parametrize(
    ("grant", "enforced"),
    [
        (Grant("a", 60.0, lease_id="l"), True),
        (Grant("a", 60.0), True),
        (Grant("a", 60.0, read_again=5.0), False),
        (Grant("a", 60.0, rotates_in=5.0), False),
        (Grant("a", 60.0, read_again=5.0, ends_in=50.0), True),
        (Grant("a", 60.0, read_again=5.0, ends_in=60.0), False),
        (Grant("a", 60.0, lease_id="l", read_again=5.0), True),
    ],
)
def test_whose_end_others_hold_it_to(grant: Grant, enforced: bool) -> None:
    """A lease's, an engine's word, what a secret says of itself; `max_stale` and a rotation are not."""
    assert grant.enforced is enforced


@pytest.mark.parametrize(
    ("grant", "shown"),
    [
        (Grant("s3cr3t", lease_id="l", credential_id="c"), "<Grant c>"),
        (Grant("s3cr3t", lease_id="l"), "<Grant l>"),
        (Grant("s3cr3t"), "<Grant static>"),
    ],
)
def test_it_shows_nothing_of_what_is_in_it(grant: Grant, shown: str) -> None:
    """Its ids are enough for people."""
    assert repr(grant) == shown
