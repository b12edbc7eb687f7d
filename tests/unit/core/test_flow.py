from __future__ import annotations

from math import inf

from vaultauthz.core.flow import LONGEST, SHORTEST, Flow


def flow_of(rate: float) -> Flow:
    return Flow(rate, 0.0, 0.0)


def test_calls_are_a_pace_apart() -> None:
    """Two calls a second: the next may go half a second after the last."""
    flow = flow_of(2.0)
    flow.sent(10.0)
    assert flow.ready_at() == 10.5


def test_silent_vault_is_tried_by_one_call_at_a_time() -> None:
    """After three calls without an answer, tries are apart, more each time, up to 5 s."""
    flow, now = flow_of(inf), 0.0
    for _ in range(12):
        now = max(now, flow.ready_at())
        flow.sent(now)
        flow.answered(now, now, 1.0, pushback=True)
    assert flow.ready_at() - now == LONGEST == 5.0
    flow.sent(flow.ready_at())
    assert flow.ready_at() == inf


def test_calls_out_together_widen_the_gap_once() -> None:
    """Four answers to one moment's trouble are one piece of news."""
    flow = flow_of(inf)
    for _ in range(4):
        flow.sent(0.0)
    for _ in range(4):
        flow.answered(0.0, 5.0, 1.0, pushback=True)
    assert flow.ready_at() == 5.0 + SHORTEST


def test_quick_answers_bring_the_pace_back() -> None:
    """From the longest gap to none takes a handful of answers."""
    flow, now = flow_of(inf), 0.0
    for _ in range(12):
        flow.sent(now)
        flow.answered(now, now, 1.0, pushback=True)
        now = flow.ready_at()
    for _ in range(6):
        flow.sent(now)
        flow.answered(now, now, 1.0, pushback=False)
        now = flow.ready_at()
    flow.sent(now)
    assert flow.ready_at() == now


def test_slow_answer_holds_back_no_longer_than_it_took() -> None:
    """An engine that is slow and well is asked one call at a time, not less."""
    flow, now = flow_of(inf), 0.0
    for _ in range(10):
        flow.sent(now)
        flow.answered(now, now + 2.0, 1.0, pushback=False)
        now = max(now + 2.0, flow.ready_at())
    flow.sent(now)
    assert flow.ready_at() == now + 2.0
