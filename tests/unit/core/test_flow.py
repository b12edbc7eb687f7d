from __future__ import annotations

from math import inf

from vaultauthz.core.calls import LATELY, LONGEST, SHORTEST, SLOW, STRIKES, Flow


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


def worked(flow: Flow, now: float) -> None:
    """A call that Vault answered well, at once."""
    flow.sent(now)
    flow.answered(now, now, 1.0, pushback=False)


def unanswered(flow: Flow, now: float) -> None:
    """A call that Vault gave no answer to in time, or a 429."""
    flow.sent(now)
    flow.answered(now, now, 1.0, pushback=True)


def test_what_fails_while_other_calls_work_slows_nothing() -> None:
    """A hundred timeouts, or 429s of one mount's quota, within 10 s of a call that worked."""
    flow = flow_of(inf)
    worked(flow, 0.0)
    for number in range(100):
        unanswered(flow, LATELY * number / 100)
    flow.sent(9.99)
    assert flow.ready_at() == 9.99


def test_what_fails_when_nothing_has_worked_for_ten_seconds_does() -> None:
    """Those before count for nothing: three from then on."""
    flow = flow_of(inf)
    worked(flow, 0.0)
    for number in range(100):
        unanswered(flow, LATELY * number / 100)
    for _ in range(STRIKES - 1):
        unanswered(flow, LATELY)
    assert flow.ready_at() == LATELY
    unanswered(flow, LATELY)
    assert flow.ready_at() == LATELY + SHORTEST


def test_an_engines_failure_does_not_speak_for_vault() -> None:
    """It answered, so that it is no strike; but that others work is not told by it."""
    flow = flow_of(inf)
    worked(flow, 0.0)
    for _ in range(10):
        flow.sent(LATELY)
        flow.answered(LATELY, LATELY, 1.0, pushback=False, failed=True)
    assert flow.ready_at() == LATELY
    for _ in range(STRIKES):
        unanswered(flow, LATELY)
    assert flow.ready_at() == LATELY + SHORTEST


def test_an_engine_that_fails_late_slows_nothing() -> None:
    """As one that has tried the cloud for a while itself: its own credential has a backoff."""
    flow = flow_of(inf)
    for number in range(20):
        flow.sent(number)
        flow.answered(number, number + 5.0, 1.0, pushback=False, failed=True)
    flow.sent(100.0)
    assert flow.ready_at() == 100.0


def test_a_vault_that_was_slowed_down_for_is_tried_until_a_call_works() -> None:
    """From then on each failure is one more; the first that works ends that."""
    flow, now = flow_of(inf), 0.0
    for _ in range(STRIKES + 1):
        now = max(now, flow.ready_at())
        unanswered(flow, now)
    assert flow.ready_at() == now + 2 * SHORTEST
    now = flow.ready_at()
    worked(flow, now)
    unanswered(flow, now)
    unanswered(flow, now)
    flow.sent(now)
    assert flow.ready_at() < inf, "not one at a time any more"


def test_gateways_that_start_together_do_not_keep_step() -> None:
    """The first call waits a part of the pace, by the jitter."""
    assert Flow(2.0, 10.0, 0.0).ready_at() == 10.0
    assert Flow(2.0, 10.0, 0.5).ready_at() == 10.25


def test_from_the_third_strike_on_one_call_tries() -> None:
    """With two, calls do not wait for one another."""
    flow = flow_of(inf)
    for _ in range(STRIKES - 1):
        unanswered(flow, 0.0)
    flow.sent(0.0)
    assert flow.ready_at() == 0.0
    flow.answered(0.0, 0.0, 1.0, pushback=True)
    flow.sent(flow.ready_at())
    assert flow.ready_at() == inf


def slow(flow: Flow, now: float, took: float = 60.0) -> float:
    """A call that Vault answered well, but late; the gap from then on."""
    flow.sent(now)
    flow.answered(now, now + took, 1.0, pushback=False)
    return flow.ready_at() - (now + took)


def test_each_slow_answer_widens_the_gap_by_half() -> None:
    """From the shortest on, which is where a gap begins."""
    flow = flow_of(inf)
    assert [slow(flow, 100.0 * n) for n in range(4)] == [0.5, 0.75, 1.125, 1.6875]


def test_an_answer_within_a_second_is_quick() -> None:
    """It widens nothing, and brings back what was wide; also one that is a no."""
    for failed in (False, True):
        flow = flow_of(inf)
        assert slow(flow, 0.0, SLOW) <= 0.0
        assert slow(flow, 100.0, 2.0) == SHORTEST
        flow.sent(200.0)
        flow.answered(200.0, 200.0 + SLOW, 1.0, pushback=False, failed=failed)
        flow.sent(300.0)
        assert flow.ready_at() == 300.0


def test_each_quick_answer_halves_the_gap() -> None:
    """Down to the shortest, and from there to the pace of the stage."""
    flow, now = flow_of(10.0), 0.0
    for _ in range(STRIKES + 2):
        now = max(now, flow.ready_at())
        unanswered(flow, now)
    gaps = []
    for _ in range(4):
        now = max(now, flow.ready_at())
        worked(flow, now)
        gaps.append(round(flow.ready_at() - now, 3))
    assert gaps == [1.0, 0.5, 0.1, 0.1]


def test_fewer_gateways_come_back_at_the_same_moment() -> None:
    """The wait for Vault is half of the gap to all of it, by the jitter."""
    for jitter, wait in ((0.0, 0.25), (0.5, 0.375), (1.0, 0.5)):
        flow = flow_of(inf)
        for _ in range(STRIKES):
            flow.sent(0.0)
            flow.answered(0.0, 0.0, jitter, pushback=True)
        assert flow.ready_at() == wait


def test_what_was_sent_once_the_gap_was_wide_is_news() -> None:
    """Be it in the same moment."""
    flow = flow_of(inf)
    for _ in range(STRIKES):
        unanswered(flow, 0.0)
    assert flow.ready_at() == SHORTEST
    unanswered(flow, 0.0)
    assert flow.ready_at() == 2 * SHORTEST
