"""What the comparison makes of its measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = st.lists(st.floats(0, 1e9), min_size=1, max_size=50)


@pytest.fixture(autouse=True, scope="module")
def _on_path() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import compared.figures
        import compared.loads  # noqa: F401


def test_each_variant_takes_each_place_once() -> None:
    """In as many rounds as there are variants, each has run first, second and so on exactly once."""
    from compared.figures import rotated

    names = ["a", "b", "c"]
    orders = [rotated(names, number) for number in range(3)]
    assert all(sorted(order) == names for order in orders)
    assert all(sorted(column) == names for column in zip(*orders, strict=True))


def test_ratio_is_taken_within_rounds() -> None:
    """A round in which the whole machine was slow does not change the ratio."""
    from compared.figures import Ratio, ratio

    ours = [{"rps": 90.0}, {"rps": 9.0}, {"rps": 95.0}]
    theirs = [{"rps": 100.0}, {"rps": 10.0}, {"rps": 100.0}]
    found = ratio({"ours": ours, "theirs": theirs}, "ours", "theirs", "rps")
    assert found == Ratio(0.9, 0.9, 0.95)


def test_ratio_with_what_was_not_measured() -> None:
    """There is no ratio with a variant that was left out, or with one that has no rounds."""
    from compared.figures import ratio

    assert ratio({"ours": [{"rps": 1.0}]}, "ours", "theirs", "rps") is None
    assert ratio({"ours": [], "theirs": []}, "ours", "theirs", "rps") is None


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1), (0.0, 1)]
)
def test_percentiles_of_a_hundred(share: float, wanted: int) -> None:
    """The nearest rank, whatever the order of the values."""
    from compared.figures import percentile

    assert percentile([float(n) for n in range(100, 0, -1)], share) == wanted


@given(values=SIZES, share=st.floats(0, 1))
def test_percentile_is_one_of_the_values(values: list[float], share: float) -> None:
    """It was measured, and at least that share of all values does not exceed it."""
    from compared.figures import percentile

    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_percentile_of_nothing() -> None:
    """No values is an error, not a zero that looks fast."""
    from compared.figures import percentile

    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_growth_is_bytes_for_each_check() -> None:
    """A leak of 3 bytes a check is found, and one late page among flat samples is none."""
    from compared.figures import growth

    assert growth([(n * 1000, 5_000_000 + n * 3000) for n in range(1, 10)]) == pytest.approx(3)
    late_page = [(n * 100_000, 5_000_000 + (4096 if n > 5 else 0)) for n in range(1, 10)]
    assert growth(late_page) < 0.1


WRK = 'Running 1s test\nJSON {"requests": %d, "seconds": 2.0, "p50_us": 700, "p99_us": 900, "errors": %d}\n'


def test_wrk_is_read() -> None:
    """Requests, rate and percentiles of a run without errors."""
    from compared.loads import Run, read_wrk

    run = read_wrk(WRK % (1000, 0))
    assert run == Run(1000, 2.0, 700, 900)
    assert run.rate == 500


@pytest.mark.parametrize("text", [WRK % (1000, 1), WRK % (0, 0), "unable to connect"])
def test_wrk_with_errors_has_no_figures(text: str) -> None:
    """One answer that was no 2xx fails the run, and so does a run without an answer."""
    from compared.loads import LoadError, read_wrk

    with pytest.raises(LoadError):
        read_wrk(text)


H2LOAD = """\
finished in %s, 1234.5 req/s, 1.00MB/s
requests: 500 total, 500 started, 500 done, 500 succeeded, 0 failed, 0 errored, 0 timeout
status codes: %d 2xx, %d 3xx, 0 4xx, 0 5xx
"""


@pytest.mark.parametrize(("took", "seconds"), [("1.50s", 1.5), ("250.00ms", 0.25), ("900us", 9e-4)])
def test_h2load_is_read(took: str, seconds: float) -> None:
    """The number of calls and how long they took, in whatever unit it says so."""
    from compared.loads import read_h2load

    run = read_h2load(H2LOAD % (took, 500, 0), 500)
    assert run.requests == 500
    assert run.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(("good", "other"), [(499, 0), (499, 1)])
def test_h2load_with_failed_calls_has_no_figures(good: int, other: int) -> None:
    """A call that is missing or was answered otherwise fails the run."""
    from compared.loads import LoadError, read_h2load

    with pytest.raises(LoadError):
        read_h2load(H2LOAD % ("1.00s", good, other), 500)


def test_log_of_h2load() -> None:
    """The third column is the duration in microseconds."""
    from compared.loads import read_log

    assert read_log("1700000000000000\t200\t150\n1700000000000001\t200\t90\n") == [150, 90]


def test_grpc_frame() -> None:
    """No compression, four bytes of length, the message."""
    from compared.loads import frame

    assert frame(b"abc") == b"\x00\x00\x00\x00\x03abc"
