"""When a secret says that it ends: every form in the field, and nothing that is no form."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from math import inf, isnan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault import ends
from vaultauthz.vault.ends import Now
from vaultauthz.vault.errors import VaultError

# 2026-11-30T10:00:00Z
T = 1796032800.0
NOW = Now(T, T)
AHEAD = Now(T, T + 300.0)  # ours is five minutes ahead of Vault's


def left(data: dict[str, Any], now: Now = NOW, *, leased: bool = False) -> float:
    """Seconds until the end that an engine's answer says."""
    return ends.of_engine(data, now, leased=leased).left


def jwt(claims: object, header: object = {"alg": "RS256", "typ": "JWT"}) -> str:
    """A token with these parts."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims)}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ({"ttl": 12}, 12.0),  # identity/oidc/token
        ({"ttl": 12.5}, 12.5),
        ({"ttl": "12"}, 12.0),
        ({"ttl": "12.25"}, 12.25),
        ({"ttl": "1h30m"}, 5400.0),
        ({"ttl": "1m0.5s"}, 60.5),
        ({"expires_in": 3600}, 3600.0),
        ({"expiresIn": 3600}, 3600.0),
        ({"token_expires_in": 60}, 60.0),
        ({"accessTokenExpiresAt": T + 60}, 60.0),
        ({"api_key_expiration": "2026-11-30T10:01:00Z"}, 60.0),
        ({"session_token_expiration": int(T + 60) * 1000}, 60.0),
        ({"refresh_token_expires_in": 60}, inf),  # which goes on no request
        ({"token_ttl": 59, "expires_at_seconds": T + 59}, 59.0),  # gcp
        ({"token_ttl": "59m59s"}, 3599.0),
        ({"ttl": T + 30}, 30.0),  # a moment under a duration's name
        ({"ttl": "2026-11-30T10:00:30Z"}, 30.0),
        ({"expiration": int(T) + 60}, 60.0),  # pki
        ({"expiration": f"{int(T) + 60}"}, 60.0),
        ({"Expiration": "2026-11-30T10:01:00Z"}, 60.0),  # aws
        ({"expires_at": "2026-11-30T12:01:00+02:00"}, 60.0),  # GitHub's plugin
        ({"expires_at": "2026-11-30T04:31:00-05:30"}, 60.0),
        ({"expires_at": "2026-11-30t10:01:00.5z"}, 60.5),
        ({"expires_at": "2026-11-30 10:01:00.123456789Z"}, 60.123456789),
        ({"expires_at": "2026-11-30T10:00:60Z"}, 60.0),  # a leap second
        ({"expires_at": (T + 60) * 1e3}, 60.0),
        ({"expires_at": int(T + 60) * 10**6}, 60.0),
        ({"expires_at": int(T + 60) * 10**9}, 60.0),
        ({"expires_at": f"{int(T + 60) * 1000}"}, 60.0),
        ({"expire_time": "2026-11-30T10:01:00Z"}, 60.0),
        ({"ttl": 90, "expires_at": T + 60}, 60.0),  # the earlier of two
        ({"ttl": 60, "expires_at": T + 90}, 60.0),
        ({"expires_at": T - 1}, -1.0),
        ({"expires_at": 0}, -T),
        ({"expires_at": "1999-12-31T23:59:59Z"}, 946684799.0 - T),
        ({"ttl": 0}, 0.0),
        ({"ttl": -5}, -5.0),
        ({"expires_in": "0"}, 0.0),
        # not told
        ({"token": "x", "expired": True, "ttl_seconds_max": 5}, inf),
        ({"ttl": None, "expires_at": ""}, inf),
        ({"expires_at": "0001-01-01T00:00:00Z"}, inf),  # Go's time that was never set
    ],
)
def test_what_an_engine_says(data: dict[str, Any], seconds: float) -> None:
    """Durations and moments, as numbers and as texts, and the earliest of several."""
    assert left(data) == pytest.approx(seconds, abs=1e-6)


UNREADABLE = [
    True, False, "soon", "12 parsecs", "1e3", "0x10", "١٢", [60], {"seconds": 60}, 1e300, -1e300,
    inf, -inf, float("nan"), 10**400, "9" * 5000, "2026-13-30T10:00:00Z", "2026-11-30T10:00:00",
    "2026-11-30", "2026-11-30T10:00:61Z", "2026-11-30T25:00:00Z",
]  # fmt: skip


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("name", ["ttl", "expires_at"])
def test_an_end_that_cannot_be_read_is_refused(name: str, value: object) -> None:
    """Without a lease nobody may guess; beside one, the lease says it."""
    with pytest.raises(VaultError) as caught:
        left({name: value})
    assert caught.value.failure.verdict is Verdict.REFUSED
    assert f"({name})" in caught.value.failure.reason  # as it can be searched for
    assert left({name: value}, leased=True) == inf


def test_a_lease_and_what_is_said_beside_it() -> None:
    """A credential may end before its lease; a duration of 0 is no end there."""
    assert left({"ttl": 60}, leased=True) == 60.0
    assert left({"expiration": T + 60}, leased=True) == 60.0
    assert left({"expires_in": 0}, leased=True) == inf
    for never in (0, "0", -62135596800):  # Go's time that was never set, in seconds since 1970
        assert left({"expires_at": never}, leased=True) == inf
    assert left({"expires_at": T - 60}, leased=True) == -60.0


def test_the_later_clock_decides_about_a_moment() -> None:
    """Ours may be wrong, or Vault's: what has ended by one of them is not used."""
    assert left({"expires_at": T + 60}, AHEAD) == -240.0


def test_a_duration_does_not_ask_our_clock() -> None:
    """Where Vault says both, both are by its own clock."""
    assert left({"ttl": 60, "expires_at": T + 59}, AHEAD) == 59.0
    assert left({"expires_at": T + 60}, AHEAD, leased=True) == 60.0


@pytest.mark.parametrize(
    ("wall", "date", "now"),
    [
        (T, None, Now(T, T)),
        (T + 0.9, T, Now(T + 0.9, T + 0.9)),  # they agree: the header has whole seconds
        (T, T + 1, Now(T + 2, T + 2)),  # ours is behind, or was set back
        (T - 3600, T, Now(T + 1, T + 1)),
        (T + 300, T, Now(T + 1, T + 300)),  # ours is ahead
    ],
)
def test_whose_clock(wall: float, date: float | None, now: Now) -> None:
    """The server's by its Date header, which is up to a second old."""
    assert Now.of(wall, date) == now


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_neither_clock_is_ever_ahead_of_the_late_one(wall: float, date: float) -> None:
    """A clock that is set back cannot prolong anything that the other one ends."""
    now = Now.of(wall, float(int(date)))
    assert now.late >= wall
    assert now.late >= int(date)


@given(
    st.datetimes(datetime(2001, 9, 10), datetime(2600, 1, 1)),  # noqa: DTZ001  zones come below
    st.integers(-14 * 60, 14 * 60),
)
def test_rfc_3339_with_any_offset(naive: datetime, minutes: int) -> None:
    """A moment is the same, whatever zone it is written in."""
    zone = timezone(timedelta(minutes=minutes))
    at = naive.replace(tzinfo=UTC)
    text = at.astimezone(zone).isoformat()
    assert left({"expires_at": text}) == pytest.approx(at.timestamp() - T, abs=1e-4)
    assert left({"expires_at": at.timestamp()}) == pytest.approx(at.timestamp() - T, abs=1e-4)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -(10**400), 1e400, "9" * 5000, "NaN", "1" * 25, "0" * 30])
    | st.lists(st.integers(), max_size=2)
)
NAMES = st.sampled_from(
    ["ttl", "token_ttl", "expires_in", "expires_at", "expiration", "expires_at_seconds", "x", ""]
)


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.booleans())
def test_any_json_is_an_end_or_refused(data: dict[str, Any], leased: bool) -> None:
    """No value kills a worker, and none gives a number that is none."""
    try:
        found = ends.of_engine(data, NOW, leased=leased)
    except VaultError:
        assert not leased
        return
    assert not isnan(found.duration)
    assert not isnan(found.moment)
    assert not isnan(ends.of_kv(data, NOW))


# --- JSON Web Tokens ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (jwt({"exp": T + 60}), 60.0),
        (jwt({"exp": T - 60}), -60.0),
        (jwt({"exp": T + 60.5}), 60.5),
        (jwt({"exp": (T + 60) * 1000}), 60.0),
        (f"Bearer {jwt({'exp': T + 60})}", 60.0),
        (f'{{"auth": "{jwt({"exp": T + 60})}", "b": "{jwt({"exp": T + 30})}"}}', 30.0),
        (jwt({"exp": T + 60}).rpartition(".")[0] + ".", 60.0),  # unsigned
        (jwt({"exp": 0}), -T),
        (jwt({"exp": "never"}), -inf),  # it says an end that nobody can read
        (jwt({"exp": True}), -inf),
        (jwt({"exp": 10**400}), -inf),
    ],
)
def test_a_token_says_its_end(text: str, seconds: float) -> None:
    """Wherever in the field it stands, and the earliest of several."""
    assert ends.of_tokens({"token": Secret(text)}, T) == {"token": pytest.approx(seconds, abs=1e-6)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b.c",
        "s.k-live-1234.5678",
        jwt({}),
        jwt({"exp": None}),
        jwt(["exp"]),
        jwt({"exp": T}, header={"kid": "no alg"}),
        "x" + jwt({"exp": T + 60})[1:],
        "e" * 100_000,
        "eyJ.eyJ." * 5000,
        ".".join(["eyJhbGciOiJub25lIn0"] * 9),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_token_has_no_end(text: str) -> None:
    """Dots alone make no token, and one without exp does not end."""
    assert ends.of_tokens({"key": Secret(text)}, T) == {}


@given(st.dictionaries(st.text(), st.text(), max_size=4))
def test_any_text_can_be_looked_at(fields: dict[str, str]) -> None:
    """No field of a secret raises."""
    ends.of_tokens({name: Secret(value) for name, value in fields.items()}, T)


# --- KV ---


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ({"expires_at": "2026-11-30T10:01:00Z"}, 60.0),
        ({"expires_at": T - 60}, -60.0),
        ({"expiration": str(int(T + 60) * 1000)}, 60.0),
        # its writer's own, and no moment
        ({"ttl": 12}, inf),
        ({"expires_in": "12s"}, inf),
        ({"expires_at": "next spring"}, inf),
        ({"expiration": 3600}, inf),
        ({"expires": True}, inf),
        ({"expires_at": ""}, inf),
    ],
)
def test_what_a_stored_secret_says(data: dict[str, Any], seconds: float) -> None:
    """A moment counts; a duration has no beginning, and a text may be any text."""
    assert ends.of_kv(data, NOW) == pytest.approx(seconds, abs=1e-6)
