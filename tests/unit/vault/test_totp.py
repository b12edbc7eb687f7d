"""A TOTP code ends with the time step that it was made for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.grant import Grant
from vaultauthz.core.secret import Secret
from vaultauthz.vault import ends
from vaultauthz.vault.ends import Now
from vaultauthz.vault.errors import VaultError

CODE = Grant({"code": Secret("123456")}, 3600.0, read_again=300.0, request_id="r")


def bounded(period: Any, now: float) -> Grant:
    return ends.bounded(CODE, {"data": {"period": period}}, Now(now, now + 7200.0))


@given(st.integers(1, 86400), st.floats(0, 4e9))
def test_it_never_outlives_its_step(period: int, now: float) -> None:
    """By the clock of Vault, which made it; ours may be anywhere."""
    grant = bounded(period, now)
    assert 0.0 <= grant.life <= period
    assert now + grant.life <= (now // period + 1) * period + 1e-6
    assert grant.read_again is None


def test_the_next_one_is_asked_for_when_there_can_be_one() -> None:
    """Not before: until the step is over Vault has no other."""
    grant = bounded(30, 3007.0)
    assert (grant.ttl, grant.rotates_in) == (23.0, 23.0)


def test_in_the_first_second_of_a_step_it_may_be_the_last_ones() -> None:
    """The header that tells the time may be from after the code: it is read again."""
    grant = bounded(30, 3000.5)
    assert (grant.ttl, grant.rotates_in) == (1.0, None)


@pytest.mark.parametrize("period", [None, True, 0, -30, "30", 30.0, 10**400, [30]])
def test_a_period_that_is_none(period: object) -> None:
    """Nobody may guess how long a code is good."""
    with pytest.raises(VaultError):
        bounded(period, 3000.0)


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"data": []}])
def test_a_key_that_says_nothing(answer: dict[str, Any]) -> None:
    """The same."""
    with pytest.raises(VaultError):
        ends.bounded(CODE, answer, Now(0.0, 0.0))


@pytest.mark.parametrize(
    ("path", "data", "is_code"),
    [
        ("totp/code/partner", {"code": "123456"}, True),
        (
            "a/b/code/partner",
            {"code": "1", "expire_time": 1, "generated": 0, "period": "30s"},
            True,
        ),
        ("totp/code/partner", {"code": "1", "valid": True}, False),
        ("totp/code/partner", None, False),
        ("oauth/code/x/y", {"code": "1"}, False),
        ("secret/code", {"code": "1"}, False),
    ],
)
def test_what_is_a_code(path: str, data: Any, is_code: bool) -> None:
    """By its path and by what is answered, whatever the mount's name."""
    assert ends.is_code(path, {"data": data}) is is_code


def test_where_the_key_is_described() -> None:
    """Beside the codes, at the same mount."""
    assert ends.key_path("a/b/code/partner") == "a/b/keys/partner"


@pytest.mark.parametrize(
    ("end", "left"), [(3030, 23.0), (3030.5, 23.5), (3000, 0.0), (10**400, 86400.0)]
)
def test_what_openbao_says_beside_the_code(end: float, left: float) -> None:
    """By its own clock; no key need be read."""
    answer = {"data": {"code": "1", "expire_time": end}}
    grant = ends.by_expire_time(CODE, answer, Now(3007.0, 9000.0))
    assert grant is not None
    assert (grant.life, grant.rotates_in) == (left, left)


@pytest.mark.parametrize("end", [None, True, "3030"])
def test_what_vault_does_not_say(end: object) -> None:
    """Then the key is asked about."""
    assert (
        ends.by_expire_time(CODE, {"data": {"code": "1", "expire_time": end}}, Now(0.0, 0.0))
        is None
    )
