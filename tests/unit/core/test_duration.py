"""Durations as Vault writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.duration import length_of

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("768h", 2_764_800),  # Vault's default for the longest lease
        ("1d", 86_400),
        ("30d", 2_592_000),
        ("1h30m", 5_400),
        ("1h0m0s", 3_600),  # as Go prints it
        ("1m30.5s", 90.5),
        ("1.5h", 5_400),
        (".5h", 1_800),
        ("5.s", 5),
        ("1d12h", 129_600),
        ("500ms", 0.5),
        ("100\u00b5s", 0.0001),
        ("100\u03bcs", 0.0001),
        ("0s", 0),
    ],
)
def test_what_vault_takes(text: str, wanted: float) -> None:
    """Each form of Vault's documentation (Duration string format) that has its unit."""
    assert length_of(text) == pytest.approx(wanted)


@given(st.integers(0, 10**5), st.integers(0, 9), st.sampled_from("dhm"))
def test_a_fraction_is_exact(whole: int, tenths: int, unit: str) -> None:
    """2.3h are 8280 seconds; Vault is told whole ones, and a double cut off may be one less."""
    assert length_of(f"{whole}.{tenths}{unit}") == (10 * whole + tenths) * UNITS[unit] // 10


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "1.5",
        "h",
        ".h",
        "1H",
        "1w",
        "1h30",
        "-5s",
        "+5s",
        "1 h",
        "1h ",
        "1h\n",
        "٣h",
        "1hm",
    ],
)
def test_what_is_none(text: str) -> None:
    """No unit, a unit of somebody else's, a sign, a blank."""
    assert length_of(text) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS))), min_size=1, max_size=9
    )
)
def test_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    """Whatever is written one after the other counts together, in any order."""
    wanted = sum(count * UNITS[unit] for count, unit in parts)
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert length_of(text) == pytest.approx(wanted)


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """It is a length, or none; never anything else."""
    found = length_of(text)
    assert found is None or found >= 0
