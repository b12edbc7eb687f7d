"""What a reload is told to do, for each kind of difference and for any two configurations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vaultauthz.config import Config, parse
from vaultauthz.config.changes import compare

Settings = dict[str, Any]

BASE: Settings = {
    "vault": {"address": "https://vault.test:8200"},
    "stages": {
        "live": {"auth": {"method": "approle", "role_id": "r", "secret_id": "s"}},
        "test": {"auth": {"method": "approle", "role_id": "r", "secret_id": "s"}},
    },
    "upstreams": {
        "pay": {
            "secret": {"path": "database/creds/pay-{stage}"},
            "inject": [{"basic": {"username": "{username}", "password": "{password}"}}],
            "callers": "any",
        },
        "geo": {
            "stages": ["live"],
            "secret": {"kv": "secret/geo", "refresh": "5m"},
            "inject": [{"header": {"name": "X-Api-Key", "value": "{key}"}}],
            "callers": [{"principal": "spiffe://corp/*", "claims": {"scope": "geo"}}],
        },
    },
    "routes": [{"host": "geo.test", "upstream": "geo", "stage": "live"}],
    "listen": {"grpc": "127.0.0.1:9000"},
}
MAIL: Settings = {**BASE["upstreams"]["geo"], "secret": {"kv": "secret/mail"}}
BOTH = {("live", "pay"), ("test", "pay")}


def configured(document: Settings) -> Config:
    """The configuration as it would be read from a file."""
    return parse(yaml.safe_dump(document), "c.yaml", Path("/nowhere"), {})


def changed(change: Callable[[Settings], Any]) -> Config:
    """The base after ``change``."""
    document = copy.deepcopy(BASE)
    change(document)
    return configured(document)


def pay(**values: Any) -> Callable[[Settings], Any]:
    """A change of the upstream ``pay``."""
    return lambda document: document["upstreams"]["pay"].update(values)


def geo(**values: Any) -> Callable[[Settings], Any]:
    """A change of the upstream ``geo``."""
    return lambda document: document["upstreams"]["geo"].update(values)


def test_no_difference() -> None:
    """The same text read twice is falsy and has no work in it."""
    changes = compare(configured(BASE), configured(BASE))
    assert not changes
    assert str(changes) == ""
    assert set(changes.kept) == {*BOTH, ("live", "geo")}
    work = (changes.added, changes.changed, changes.dropped, changes.replaced, changes.at_restart)
    assert not any(work)
    stages = (changes.stages_added, changes.stages_changed, changes.stages_dropped)
    assert not any(stages)
    assert not changes.stages_moved
    assert not changes.stages_adjusted


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["upstreams"].update(pay=d["upstreams"].pop("pay")),
        lambda d: d["stages"].update(live=d["stages"].pop("live")),
        pay(stages=["live", "test"]),
        pay(optional=False, per="instance"),
        geo(secret={"kv": "secret/geo"}),  # 5m is the default
        geo(callers=[{"claims": {"scope": "geo"}, "principal": "spiffe://corp/*"}]),
        lambda d: d["vault"].update(timeout="5s"),
        lambda d: d.update(unmatched="deny"),
    ],
    ids=[
        "upstreams in another order", "stages in another order", "all stages named",
        "defaults written out", "a default left out", "keys in another order", "timeout", "unmatched",
    ],
)  # fmt: skip
def test_another_spelling_is_no_difference(change: Callable[[Settings], Any]) -> None:
    """What means the same costs nothing."""
    assert not compare(configured(BASE), changed(change))


@pytest.mark.parametrize(
    ("change", "places"),
    [
        (pay(secret={"path": "database/creds/other-{stage}"}), BOTH),
        (pay(secret={"path": "database/creds/pay-live"}), {("test", "pay")}),
        (pay(inject=[{"bearer": "{password}"}]), BOTH),
        (pay(strip=["X-Debug"]), BOTH),
        (geo(secret={"kv": "secret/mail", "refresh": "5m"}), {("live", "geo")}),
        (geo(secret={"kv": "secret/geo", "refresh": "1m"}), {("live", "geo")}),
        (geo(secret={"kv": "secret/geo", "max_stale": "2h"}), {("live", "geo")}),
    ],
)
def test_what_the_credential_is_made_from(
    change: Callable[[Settings], Any], places: set[tuple[str, str]]
) -> None:
    """It is fetched anew where it differs, and only there."""
    changes = compare(configured(BASE), changed(change))
    assert changes.changed == places
    assert set(changes.kept) == {*BOTH, ("live", "geo")}
    assert str(changes) == f"{len(places)}x upstream changed"
    assert not changes.rules


@pytest.mark.parametrize(
    "change",
    [
        pay(callers=[{"methods": ["GET"]}]),
        pay(deny=[{"path_prefix": "/admin"}]),
        pay(optional=True),
        geo(callers=[{"principal": "spiffe://corp/*", "claims": {"scope": "other"}}]),
        lambda d: d["routes"][0].update(host="maps.test"),
        lambda d: d.pop("routes"),
        lambda d: d.update(unmatched="pass"),
    ],
    ids=["callers", "deny", "optional", "claims", "host", "no routes", "unmatched"],
)
def test_rules(change: Callable[[Settings], Any]) -> None:
    """They need no credential."""
    changes = compare(configured(BASE), changed(change))
    assert str(changes) == "rules changed"
    assert (changes.changed, changes.added, changes.dropped) == (frozenset(), (), ())


def test_upstreams_come_and_go() -> None:
    """Each in each of its stages; taken out of a stage is gone from there."""
    old, new = configured(BASE), changed(lambda d: d["upstreams"].update(mail=MAIL))
    assert compare(old, new).added == (("live", "mail"),)
    assert compare(new, old).dropped == (("live", "mail"),)
    fewer = changed(pay(stages=["test"]))
    assert compare(old, fewer).dropped == (("live", "pay"),)
    assert compare(fewer, old).added == (("live", "pay"),)


def test_stages_come_and_go() -> None:
    """With the upstreams that are in them."""
    old = configured(BASE)
    new = changed(lambda d: d["stages"].pop("test"))
    changes = compare(old, new)
    assert (changes.stages_dropped, changes.dropped) == (("test",), (("test", "pay"),))
    changes = compare(new, old)
    assert (changes.stages_added, changes.added) == (("test",), (("test", "pay"),))
    assert changes.stages_changed == ()


@pytest.mark.parametrize("change", [{"role_id": "other"}, {"secret_id": "x"}, {"mount": "apps"}])
def test_another_login(change: Settings) -> None:
    """Only the stage that differs logs in anew; its upstreams stay."""
    changes = compare(
        configured(BASE), changed(lambda d: d["stages"]["live"]["auth"].update(change))
    )
    assert (changes.stages_changed, changes.stages_moved) == (("live",), ())
    assert changes.stages_adjusted == ()
    assert str(changes) == "1x stage with another login"
    assert not changes.changed


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({"address": "https://other.test:8200"}, True),
        ({"namespace": "platform"}, True),
        ({"timeout": "9s"}, False),
        ({"tls": {"server_name": "vault"}}, False),
    ],
)
def test_another_way_to_vault(change: Settings, other: bool) -> None:
    """Every stage logs in anew at another Vault; the same one is only reached in another way."""
    changes = compare(configured(BASE), changed(lambda d: d["vault"].update(change)))
    both = ("live", "test")
    assert changes.stages_changed == changes.stages_moved == (both if other else ())
    assert changes.stages_adjusted == (() if other else both)
    kind = "another login" if other else "another way to Vault"
    assert str(changes) == f"2x stage with {kind}"


def test_a_stage_moves_to_another_namespace_alone() -> None:
    """What is stored there has nothing to do with what was stored here."""
    old = configured(BASE)
    stages = {**old.stages, "live": replace(old.stages["live"], namespace="team")}
    changes = compare(old, replace(old, stages=stages))
    assert (changes.stages_changed, changes.stages_moved) == (("live",), ("live",))


def test_another_node_of_the_same_cluster_is_no_other_vault() -> None:
    """As long as one address is in both."""
    old = configured(BASE)
    more = replace(old, vault=replace(old.vault, fallbacks=("https://two.test",)))
    swapped = replace(
        old, vault=replace(old.vault, address="https://two.test", fallbacks=(old.vault.address,))
    )
    for new in (more, swapped):
        assert compare(old, new).stages_adjusted == ("live", "test")
        assert compare(new, old).stages_changed == ()


def test_another_kind_of_lease_replaces_the_upstream() -> None:
    """Leases of each caller's own are given back, and begun anew."""
    old, per_caller = configured(BASE), changed(pay(per="caller"))
    assert set(compare(old, per_caller).replaced) == BOTH
    assert set(compare(per_caller, old).replaced) == BOTH
    assert not compare(per_caller, changed(pay(per="caller")))
    rules = compare(per_caller, changed(pay(per="caller", callers=[{"methods": ["GET"]}])))
    assert (rules.replaced, str(rules)) == ((), "rules changed")
    longer = compare(per_caller, changed(pay(per="caller", idle="20m")))
    assert (longer.replaced, str(longer)) == ((), "rules changed")  # its leases stay


def test_who_enforces_the_rules_is_a_rule() -> None:
    """SDS hands out or takes back what it says."""
    changes = compare(configured(BASE), changed(pay(callers_enforced_by="envoy")))
    assert (str(changes), changes.changed) == ("rules changed", frozenset())


def test_what_is_read_at_start_only() -> None:
    """It is named, and is no work."""
    new = changed(lambda d: d.update(listen={"grpc": "127.0.0.1:9001"}, audit={"file": "/a"}))
    changes = compare(configured(BASE), new)
    assert changes.at_restart == ("listen", "audit")
    assert not changes


NAMES = ("a", "b", "c")
UPSTREAM = st.fixed_dictionaries(
    {
        "secret": st.sampled_from(
            [{"path": "database/creds/{stage}"}, {"path": "x/y"}, {"kv": "secret/x"}]
        ),
        "inject": st.sampled_from([[{"bearer": "{token}"}], [{"query": {"name": "k", "value": "{token}"}}]]),
        "callers": st.sampled_from(["any", [{"methods": ["GET"]}]]),
        "optional": st.booleans(),
        "per": st.sampled_from(["instance", "caller", "request"]),
        "wanted": st.sets(st.sampled_from(NAMES)),
    }
)  # fmt: skip
AUTH = st.sampled_from(["r1", "r2"]).map(
    lambda role: {"auth": {"method": "approle", "role_id": role, "secret_id": "s"}}
)


def assembled(address: str, stages: Settings, upstreams: dict[str, Settings]) -> Config:
    """A valid configuration: an upstream is in the stages that it wants, as far as there are any."""
    document: Settings = {"vault": {"address": address}, "stages": stages, "upstreams": {}}
    for name, drawn in upstreams.items():
        values = dict(drawn)
        wanted = sorted(set(values.pop("wanted")) & stages.keys()) or list(stages)
        if "kv" in values["secret"]:
            values["per"] = "instance"
        document["upstreams"][name] = {**values, "stages": wanted}
    return configured(document)


CONFIGS = st.builds(
    assembled,
    st.sampled_from(["https://one.test", "https://two.test"]),
    st.dictionaries(st.sampled_from(NAMES), AUTH, min_size=1),
    st.dictionaries(st.sampled_from(NAMES), UPSTREAM, min_size=1),
)


def places(config: Config) -> set[tuple[str, str]]:
    """Every upstream in each of its stages."""
    return {(stage, u.name) for u in config.upstreams.values() for stage in u.stages}


@given(CONFIGS, CONFIGS)
def test_every_place_and_stage_has_one_fate(old: Config, new: Config) -> None:
    """Each place is in one of added, kept, replaced and dropped; each stage likewise."""
    changes = compare(old, new)
    fates = [*changes.added, *changes.kept, *changes.replaced, *changes.dropped]
    assert len(fates) == len(set(fates))
    assert {*changes.added, *changes.kept, *changes.replaced} == places(new)
    assert {*changes.dropped, *changes.kept, *changes.replaced} == places(old)
    assert changes.changed <= set(changes.kept)
    assert {*changes.stages_added} == new.stages.keys() - old.stages.keys()
    assert {*changes.stages_dropped} == old.stages.keys() - new.stages.keys()
    assert {*changes.stages_changed} <= old.stages.keys() & new.stages.keys()
    assert {stage for stage, _ in changes.added} <= new.stages.keys()


LOGIN: Settings = {"auth": {"method": "approle", "role_id": "r1", "secret_id": "s"}}
PLAIN: Settings = {
    "secret": {"path": "x/y"},
    "inject": [{"bearer": "{token}"}],
    "callers": "any",
    "per": "instance",
}


def in_stages(order: str, wanted: str, per: str = "instance") -> Config:
    """One upstream, and stages that are named in this order."""
    stages = dict.fromkeys(order, LOGIN)
    upstream = {**PLAIN, "per": per, "wanted": set(wanted)}
    return assembled("https://one.test", stages, {"a": upstream})


def looked_at(config: Config) -> object:
    """All that a reload looks at: in which order a file names stages and upstreams means nothing."""
    upstreams = {
        name: replace(upstream, stages=tuple(sorted(upstream.stages)))
        for name, upstream in config.upstreams.items()
    }
    return config.vault, dict(config.stages), upstreams


# Stages in another order; all of them named, against none, which means all.
@example(in_stages("ab", ""), in_stages("ba", ""))
@example(in_stages("ba", "ab"), in_stages("ba", ""))
@example(in_stages("ba", "ab", "caller"), in_stages("ba", "", "caller"))
@example(in_stages("ab", "a"), in_stages("ab", "b"))
@given(CONFIGS, CONFIGS)
def test_a_comparison_is_falsy_only_if_nothing_is_to_be_done(old: Config, new: Config) -> None:
    """With itself always; with another, only when all that a reload looks at is the same."""
    assert not compare(new, new)
    assert bool(compare(old, new)) is (looked_at(old) != looked_at(new))
