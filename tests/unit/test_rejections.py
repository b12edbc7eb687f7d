"""A flood of 401s comes to the keeper as a trickle."""

from __future__ import annotations

from vaultauthz.service import _MOST, Rejections


class Told:
    """Whoever is told, and the time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.now = 0.0
        self.rejections = Rejections(self.reject, lambda: self.now)

    def reject(self, *call: str) -> bool:
        """Write it down; `old` is not in use any more."""
        self.calls.append((call[0], call[1], call[2]))
        return call[2] != "old"


def test_a_flood_is_passed_on_once_a_second() -> None:
    """A thousand 401s of one credential within a second are one call, and the next second brings one more."""
    told = Told()
    assert told.rejections.tell("payments", "production", "c_1")
    assert not any(told.rejections.tell("payments", "production", "c_1") for _ in range(1000))
    told.now = 1.0
    assert told.rejections.tell("payments", "production", "c_1")
    assert told.calls == [("payments", "production", "c_1")] * 2


def test_others_are_not_held_up() -> None:
    """Another upstream, stage or credential is passed on at once."""
    told = Told()
    for call in (("a", "x", "c"), ("b", "x", "c"), ("a", "y", "c"), ("a", "x", "d")):
        assert told.rejections.tell(*call)
    assert len(told.calls) == 4


def test_one_out_of_use_is_not_counted() -> None:
    """What the other side says of it is passed back."""
    assert not Told().rejections.tell("payments", "production", "old")


def test_made_up_credentials_are_bounded() -> None:
    """Ids made up by the thousand neither fill the memory nor reach the keeper's lock without end."""
    told = Told()
    for number in range(3 * _MOST):
        told.rejections.tell("payments", "production", str(number))
    assert len(told.calls) == len(told.rejections._passed_on) == _MOST
    told.now = 1.0
    assert told.rejections.tell("payments", "production", "c_1")
    assert len(told.rejections._passed_on) == _MOST
