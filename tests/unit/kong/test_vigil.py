"""When a server that Kong has started ends, and how long a failed start is not tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.kong.door import ALONE, LINGER, Vigil
from vaultauthz.kong.supervise import pause


def looked(*looks: tuple[float, str]) -> list[bool]:
    """What it says at each of these moments; ``s`` is a supervisor, ``m`` Kong's master, ``c`` a connection."""
    vigil = Vigil()
    return [
        vigil.over(
            now, supervised="s" in there, master_gone="m" not in there, connected="c" in there
        )
        for now, there in looks
    ]


def test_a_supervisor_is_enough() -> None:
    """Also one whose master has been killed: nginx's workers go on without it."""
    assert looked((0, "sm"), (100, "s"), (200, "sc")) == [False] * 3


def test_without_kong_it_ends_at_once() -> None:
    """Whatever is connected: the sooner everything is revoked."""
    assert looked((0, "sm"), (0.2, "c")) == [False, True]
    assert looked((0, "")) == [True]


def test_between_two_supervisors() -> None:
    """It waits for the next one, which a reload brings, and begins anew to wait when that has gone."""
    assert (
        looked((0, "sm"), (LINGER - 0.1, "m"), (LINGER, "sm"), (2 * LINGER - 0.1, "m"))
        == [False] * 4
    )


def test_nobody_comes() -> None:
    """A reload has taken the plugin out: it ends when Kong's old workers have let go, too."""
    assert looked((0, "sm"), (LINGER, "m")) == [False, True]
    assert looked((0, "sm"), (LINGER, "mc"), (LINGER + ALONE - 0.1, "m")) == [False] * 3
    assert looked((0, "sm"), (LINGER, "mc"), (LINGER + ALONE, "m")) == [False, False, True]


@given(st.lists(st.tuples(st.floats(0.01, 5), st.sampled_from(["sm", "s", "smc", "sc"]))))
def test_it_never_leaves_a_supervisor(steps: list[tuple[float, str]]) -> None:
    """Whatever else there is."""
    now, looks = 0.0, []
    for step, there in steps:
        now += step
        looks.append((now, there))
    assert not any(looked(*looks))


@given(st.integers(-1, 10_000))
def test_pauses_grow_and_have_a_bound(failures: int) -> None:
    """The first start is at once, the second a second later; none is more than half a minute away."""
    assert 0 <= pause(failures) <= pause(failures + 1) <= 30
    assert (pause(0), pause(1)) == (0, 1)
