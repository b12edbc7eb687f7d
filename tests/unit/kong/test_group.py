"""Which group the socket is given to: by name, or by number as Kubernetes has it."""

from __future__ import annotations

import grp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.kong.group import LAST, group_number

NAMES = {group.gr_name for group in grp.getgrall()}


@pytest.mark.parametrize("group", grp.getgrall(), ids=lambda group: group.gr_name)
def test_a_name(group: grp.struct_group) -> None:
    """As the system has it; the first one where two share it."""
    assert group_number(group.gr_name) == grp.getgrnam(group.gr_name).gr_gid


@given(st.integers(0, LAST).filter(lambda number: str(number) not in NAMES))
def test_a_number(number: int) -> None:
    """Is the group's, whether it has a name here or not."""
    assert group_number(str(number)) == number


@given(
    st.text().filter(lambda text: text not in NAMES and not (text.isascii() and text.isdecimal()))
    | st.integers(min_value=LAST + 1).map(str)
    | st.integers(max_value=-1).map(str)
)
def test_neither(text: str) -> None:
    """Never another group than was said: a number that chown takes for "as it is" is none, either."""
    with pytest.raises(LookupError, match="give its name, or its number"):
        group_number(text)


@pytest.mark.parametrize("text", ["4294967295", "١٢", "1_0", "+5", "0x10", " 5", "5 ", "1e3", "³"])
def test_what_int_would_take(text: str) -> None:
    """Python reads numbers in more ways than the system writes them."""
    with pytest.raises(LookupError):
        group_number(text)
