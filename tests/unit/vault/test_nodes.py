"""Which address comes first: by example, and for any run of good and bad luck."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.core.grant import NodeState
from vaultauthz.vault.nodes import Nodes

ABC = ("a", "b", "c")
LUCK = st.lists(st.tuples(st.sampled_from(ABC), st.booleans(), st.floats(0, 200)))


def test_the_first_that_works_is_asked_first() -> None:
    """In the order of the configuration, as long as nothing is known against them."""
    nodes = Nodes(ABC)
    assert nodes.order(0.0) == ABC
    nodes.worked("b")
    assert nodes.order(1.0) == ABC


def test_what_failed_comes_last_and_longest_ago_first() -> None:
    """Also when all have failed, none is left out."""
    nodes = Nodes(ABC)
    nodes.failed("a", 0.0)
    assert nodes.order(1.0) == ("b", "c", "a")
    nodes.failed("b", 2.0)
    assert nodes.order(3.0) == ("c", "a", "b")
    nodes.failed("c", 4.0)
    assert nodes.order(5.0) == ("a", "b", "c")


def test_one_call_tries_it_again_after_a_while() -> None:
    """The others stay with what works until that call has told how it went."""
    nodes = Nodes(ABC, pause=60.0)
    nodes.failed("a", 0.0)
    assert nodes.order(59.0)[0] == "b"
    assert nodes.order(60.0)[0] == "a"
    assert nodes.order(60.0)[0] == "b"
    nodes.worked("a")
    assert nodes.order(60.0)[0] == "a"


def test_what_is_known_of_each_is_told() -> None:
    """Nothing until it was asked; since when it does not serve, and why the last time; that it does."""
    nodes = Nodes(ABC)
    assert nodes.states(0.0) == tuple(NodeState(name) for name in ABC)
    nodes.failed("a", 5.0, "connection refused")
    nodes.failed("a", 9.0, "Vault is sealed")
    nodes.worked("b")
    down, up = NodeState("a", False, 5.0, "Vault is sealed"), NodeState("b", True)
    assert nodes.states(9.0) == (down, up, NodeState("c"))
    nodes.worked("a")
    nodes.failed("a", 20.0, "connection refused")
    assert nodes.states(20.0)[0].since == 20.0


def test_what_failed_once_and_is_not_asked_again_is_not_told_for_ever() -> None:
    """The first has come back and takes all calls: of the second nothing is known any more."""
    nodes = Nodes(ABC[:2], pause=60.0)
    nodes.failed("a", 0.0)
    nodes.failed("b", 0.0, "connection refused")
    assert [one.works for one in nodes.states(1000.0)] == [False, False]  # nobody serves
    nodes.worked("a")
    assert [one.works for one in nodes.states(59.0)] == [True, False]
    assert nodes.order(60.0)[0] == "a"
    assert nodes.states(60.0) == (
        NodeState("a", True),
        NodeState("b", None, 0.0, "connection refused"),
    )


def test_one_slow_engine_is_not_vault() -> None:
    """Calls that are not answered are told of Vault when nothing was for ten seconds; the order minds each."""
    nodes = Nodes(("a", "b"))
    nodes.worked("a")
    nodes.failed("a", 100.0, "no answer", sure=False)
    nodes.failed("a", 109.0, "no answer", sure=False)
    assert nodes.order(109.0) == ("b", "a")
    assert nodes.states(109.0)[0].works
    nodes.failed("a", 110.0, "no answer", sure=False)
    assert nodes.states(110.0)[0] == NodeState("a", False, 100.0, "no answer")
    nodes.worked("a")
    nodes.failed("a", 120.0, "no answer", sure=False)
    assert nodes.states(120.0)[0].works
    nodes.failed("a", 121.0, "connection refused")
    assert nodes.states(121.0)[0].works is False


def test_what_never_answered_is_told_at_once() -> None:
    """Nothing speaks for it."""
    nodes = Nodes(ABC)
    nodes.failed("a", 5.0, "no answer", sure=False)
    assert nodes.states(5.0)[0] == NodeState("a", False, 5.0, "no answer")


@given(LUCK)
def test_each_address_is_there_once_whatever_happened(luck: list[tuple[str, bool, float]]) -> None:
    """An order is a permutation, and what works comes before what is passed over."""
    nodes, now, bad = Nodes(ABC, pause=60.0), 0.0, dict[str, float]()
    for address, good, pause in luck:
        now += pause
        if good:
            nodes.worked(address)
            bad.pop(address, None)
        else:
            nodes.failed(address, now)
            bad[address] = now + 60.0
        order = nodes.order(now)
        assert sorted(order) == list(ABC)
        if order[0] in bad:
            bad[order[0]] = now + 60.0  # this call is the one that tries it
            order = order[1:]
        passed_over = [bad.get(name, 0.0) > now for name in order]
        assert passed_over == sorted(passed_over)


@given(st.lists(st.floats(0, 1000), min_size=1).map(sorted))
def test_a_dead_first_address_costs_one_call_a_pause(times: list[float]) -> None:
    """However often Vault is called, the dead one is tried once in each 60 s."""
    nodes, tried = Nodes(("dead", "good"), pause=60.0), list[float]()
    for now in times:
        if nodes.order(now)[0] == "dead":
            tried.append(now)
            nodes.failed("dead", now)
    assert all(later - sooner >= 60.0 for sooner, later in itertools.pairwise(tried))
