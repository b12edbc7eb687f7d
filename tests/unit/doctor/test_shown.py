"""What is printed: it fits 80 columns, commands stay whole, nothing moves the cursor."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from math import inf

from tests.unit.doctor import examples as ex
from vaultauthz.doctor.evidence import Evidence, ExaminedStage, Trouble
from vaultauthz.doctor.finding import some, span
from vaultauthz.doctor.rules import judge
from vaultauthz.doctor.show import as_json, as_text
from vaultauthz.terminal import Output


def _facts(*stages: ExaminedStage) -> Evidence:
    return Evidence((ex.server(ex.NODE),), stages, fetched=True)


def _text(facts: Evidence, width: int | None = 80) -> str:
    out = io.StringIO()
    as_text(facts, judge(facts), Output(out, width=width))
    return out.getvalue()


def test_what_is_good_is_said_in_one_line() -> None:
    """After the tables, and counted."""
    assert _text(_facts(ex.stage())).splitlines()[-1] == "all good: 1 stage, 2 credentials"


def test_sentences_are_broken_and_commands_are_not() -> None:
    """A command in two lines could not be pasted."""
    shown = _text(
        _facts(
            ex.stage(uses=3, name="a" * 90), replace(ex.token(policies=("default",)), name="p" * 40)
        )
    )
    commands = [line for line in shown.splitlines() if line.startswith("      ")]
    assert "      bao write auth/approle/role/gw token_num_uses=0" in commands
    assert max(map(len, commands)) > 80
    sentences = [line for line in shown.splitlines() if line.startswith(("   w", "   m", "1."))]
    assert max(map(len, sentences)) <= 80


def test_vaults_words_do_not_move_the_cursor() -> None:
    """What comes from elsewhere is shown with its control characters replaced."""
    nasty = ex.stage(login=Trouble("refused", "\x1b[2J\x07", 400))
    assert "\x1b" not in _text(_facts(nasty))
    assert "\x07" not in _text(_facts(nasty))


def test_of_many_credentials_those_with_a_finding_are_shown() -> None:
    """A fleet's table stays readable."""
    places = tuple(replace(ex.GEO, upstream=f"u{n}") for n in range(41))
    lacking = replace(ex.access(ex.GEO, "read"), need=replace(ex.access(ex.GEO).need, path="p"))
    bad = replace(places[7], path="p")
    denied = replace(lacking, need=replace(lacking.need, upstreams=("u7",)), found=("deny",))
    stage = ex.stage(
        places=(*places[:7], bad, *places[8:]),
        accesses=(ex.access(ex.GEO, "read"), denied),
        fetched=(),
    )
    shown = _text(_facts(stage))
    assert "u7 " in shown
    assert "u8 " not in shown
    assert "(40 more, without a finding)" in shown


def test_a_finding_of_many_upstreams_names_some() -> None:
    """All of them are in the JSON."""
    need = replace(ex.access(ex.PAY).need, upstreams=tuple("abcdefgh"))
    facts = _facts(ex.stage(accesses=(replace(ex.access(ex.PAY), need=need),)))
    assert "a, b, c and 5 more of prod" in _text(facts)
    assert as_json(facts, judge(facts))["findings"][0]["upstreams"] == tuple("abcdefgh")


def test_json_is_json_even_of_a_token_without_an_end() -> None:
    """Infinity is null, and what there is not is null or empty."""
    facts = _facts(ex.token(ttl=inf), ex.stage(name="b", token=None, login=Trouble("no")))
    whole = json.loads(json.dumps(as_json(facts, judge(facts)), allow_nan=False))
    assert whole["good"] is False
    assert [one["login"] for one in whole["stages"]] == ["done", "failed"]
    assert whole["stages"][0]["token"]["ttl"] is None
    assert whole["stages"][1]["token"] is None
    assert whole["vault"][0]["state"] == "active"


def test_spans_and_lists_are_short() -> None:
    """Two units, three names."""
    assert [span(s) for s in (0.2, 59.6, 3600, 90_061, inf)] == ["0s", "1m", "1h", "1d1h", "no end"]
    assert [some("ab"), some("abcd")] == ["a, b", "a, b, c and 1 more"]
