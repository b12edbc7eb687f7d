"""benchmarks/results/latest.json and the table that is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ABOUT = {"time": "2030-01-01T00:00:00Z", "command": "make bench", "machine": {"cores": 2}}
NAMES = ("plain", "native", "native_unix", "ext_authz", "grpcio", "sds", "sds_als", "sds_file")


@pytest.fixture(autouse=True, scope="module")
def _on_path() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import compare
        import compared.bootstraps
        import compared.table  # noqa: F401

        del compare


def gateway_rounds() -> dict[str, list[dict[str, float]]]:
    rates = dict(zip(NAMES, (10_000, 5_000, 5_300, 4_750, 3_000, 9_900, 9_800, 9_850), strict=True))
    row = {"p50_us": 123_456.0, "p99_us": 9_876_543.0, "cpu_gateway_us": 9_999.0}
    return {
        name: [{**row, "rps": rate * pace, "cpu_asked_us": 9_999.0} for pace in (1.0, 0.5, 2.0)]
        for name, rate in rates.items()
    }


def server_rounds() -> dict[str, list[dict[str, float]]]:
    cpu = {"ours": 40.0, "native": 25.0, "grpcio": 200.0}
    return {
        name: [{"cpu_us": used, "rps": 999_999.0, "p50_us": 4_000.0, "p99_us": 9_000.0}] * 3
        for name, used in cpu.items()
    }


def whole() -> dict[str, Any]:
    from compared import results

    found = results.of_gateway(gateway_rounds())
    spread = found.pop("spread")
    for more in (
        results.of_server(server_rounds()),
        results.of_million([(1, 10), (2, 20), (3, 20)]),
    ):
        spread |= more.pop("spread")
        found |= more
    return results.merged({}, {**found, "spread": spread}, ABOUT)


def test_keys_that_readers_count_on() -> None:
    """Each ratio by its name, p50 and p99 of the server, the machine; null for what was not measured."""
    found = whole()
    assert found["ext_authz_vs_native"] == pytest.approx(0.95)
    assert found["ext_authz_vs_plain"] == pytest.approx(0.475)
    assert found["sds_vs_plain"] == pytest.approx(0.98)
    assert found["sds_without_als_vs_plain"] == pytest.approx(0.99)
    assert found["cpu_vs_trivial_same_transport"] == pytest.approx(1.6)
    assert found["cpu_vs_trivial_grpcio"] == pytest.approx(0.2)
    assert (found["p50_us"], found["p99_us"], found["p99_vs_p50"]) == (4_000, 9_000, 2.25)
    assert found["kong_vs_stock"] is None
    assert found["machine"] == {"cores": 2}
    assert found["command"] == "make bench"


def test_raw_numbers_are_kept() -> None:
    """Each round of each variant is there, so that somebody else can judge them."""
    found = whole()
    assert found["gateway"]["rounds"] == gateway_rounds()
    assert found["server"]["rounds"] == server_rounds()


def test_parts_keep_what_others_wrote() -> None:
    """A part that measures its own leaves the others' figures, and their time, as they are."""
    from compared import results

    kong = {"kong_vs_stock": 0.97, "kong": {"rounds": {}}, "spread": {"kong_vs_stock": [0.9, 1.0]}}
    later = results.merged(whole(), kong, {**ABOUT, "time": "2030-02-02T00:00:00Z"})
    assert later["kong_vs_stock"] == 0.97
    assert later["ext_authz_vs_native"] == pytest.approx(0.95)
    assert set(later["spread"]) > {"kong_vs_stock", "ext_authz_vs_native"}
    assert later["measured"]["kong"]["time"] == "2030-02-02T00:00:00Z"
    assert later["measured"]["gateway"]["time"] == "2030-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("key", "value", "met"),
    [
        ("ext_authz_vs_native", 0.90, True),
        ("ext_authz_vs_native", 0.89, False),
        ("sds_vs_plain", 0.96, False),
        ("cpu_vs_trivial_same_transport", 2.0, True),
        ("cpu_vs_trivial_same_transport", 2.1, False),
        ("cpu_vs_trivial_grpcio", 0.31, False),
        ("p99_vs_p50", 3.1, False),
    ],
)
def test_goals(key: str, value: float, met: bool) -> None:
    """Throughput must reach its bound, costs must stay within theirs; what was not measured has no verdict."""
    from compared.results import verdicts

    assert verdicts({key: value, "kong_vs_stock": None}) == {key: met}


def test_file_is_written_and_read_again(tmp_path: Path) -> None:
    """What is written is JSON that is merged into next time; a broken file is replaced."""
    from compared import results

    path = tmp_path / "results" / "latest.json"
    path.parent.mkdir()
    path.write_text("{broken")
    results.write({"kong_vs_stock": 0.123456, "spread": {}}, ABOUT, path)
    results.write({"p50_us": 10.0, "spread": {}}, ABOUT, path)
    found = json.loads(path.read_text())
    assert (found["kong_vs_stock"], found["p50_us"]) == (0.1235, 10)


def test_table_fits_eighty_columns() -> None:
    """Also with figures that are larger than any machine's, and with all variants and goals."""
    from compared import gateway, server, table

    found = whole()
    says = {name: variant.says for name, variant in gateway.VARIANTS.items()}
    lines = [
        *table.gateway(found, says),
        *table.server(found, server.NAMES),
        *table.goals(found, list(found)),
    ]
    assert len(lines) == 2 + len(NAMES) + 2 + 3 + 6
    assert max(map(len, lines)) <= table.WIDTH


def test_without_its_programs_it_says_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and the names of Debian's packages, when it may not install them."""
    import compare
    from compared import tools

    monkeypatch.setattr(tools, "absent", list)
    monkeypatch.setattr(tools, "_rights", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert compare.main(["--rounds", "1"]) == 2
    assert "apt-get install wrk nginx nghttp2-client" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--variants", "plain,fast"], ["--rounds", "0"]])
def test_nonsense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown variant or no rounds is wrong usage."""
    import compare

    with pytest.raises(SystemExit) as ended:
        compare.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err
