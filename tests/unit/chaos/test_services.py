"""What PostgreSQL's words say of a login."""

from __future__ import annotations

import pytest

from tests.chaos.services import CUT, _refusal

_AT = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (f'{_AT}FATAL:  password authentication failed for user "v-a"', False),
        (f'{_AT}FATAL:  role "v-a" does not exist', False),
        (f"{_AT}FATAL:  terminating connection due to administrator command", False),
        (f"{_AT}server closed the connection unexpectedly\n\tbefore or while processing", False),
        (f"{_AT}Connection refused\n\tIs the server running on that host?", None),
        (f"{_AT}FATAL:  the database system is starting up", None),
        ("connection timeout expired", None),
    ],
)
def test_only_what_is_about_the_login_refuses_it(text: str, good: bool | None) -> None:
    assert _refusal(text)[0] is good


def test_a_session_that_was_ended_says_so() -> None:
    assert CUT in _refusal(f"{_AT}server closed the connection unexpectedly\n\tbefore")[1]
