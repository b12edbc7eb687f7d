from __future__ import annotations

from math import inf

from vaultauthz.core.calls import LATELY, LONGEST, SHORTEST, STRIKES, Flow


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
