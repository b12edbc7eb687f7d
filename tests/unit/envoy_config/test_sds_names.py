"""The names of secrets that are printed for an Envoy are those that the server answers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fast_yaml
from tests.unit.envoy.sds_world import STAGE, World
from tests.unit.envoy_config.printing import config_of
from vaultauthz._pb.discovery_pb2 import Secret
from vaultauthz.config import Config
from vaultauthz.config.forms.tls import ClientCertificate
from vaultauthz.config.sds_slots import secret_name, slots
from vaultauthz.core.injection import header_names
from vaultauthz.envoy.sds.secrets import Secrets
from vaultauthz.envoy_config import EnvoyOptions, run

FORMS = {
    "header": '{header: {name: X-Api-Key, value: "{key}"}}',
    "header tls": '{header: {name: ClientCertificate, value: "{key}"}}',
    "bearer": '{bearer: "{key}"}',
    "basic": '{basic: {username: u, password: "{key}"}}',
    "query": '{query: {name: k, value: "{key}"}}',
    "cookie": '{cookie: {name: k, value: "{key}"}}',
    "sigv4": '{sigv4: {region: r, service: es, access_key: "{key}", secret_key: "{key}"}}',
    "hmac": '{hmac: {key: "{key}", sign: ["{method}"], headers: {X-S: "{signature}"}}}',
    "tls": "{tls: {}}",
}
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
PRIVATE = "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----"
WHEN_REQUESTS_COME = "its leases are made when requests come, and SDS has one for all"
RULES = ("any", "[{methods: [GET]}]", "any, deny: [{methods: [PUT]}]")


def config_with(
    forms: tuple[str, ...], per: str = "instance", callers: str = "any", enforcer: str = ""
) -> Config:
    """One upstream `a` that injects these."""
    inject = ", ".join(FORMS[form] for form in forms)
    enforced = f", callers_enforced_by: {enforcer}" if enforcer else ""
    return config_of(
        f'upstreams: {{a: {{secret: {{kv: "secret/a"}}, inject: [{inject}], per: {per}, '
        f"callers: {callers}{enforced}}}}}"
    )


def printed(config: Config, mode: str) -> tuple[set[str], str]:
    """The names of the secrets that Envoy will ask for, and what was told beside."""
    out, err = io.StringIO(), io.StringIO()
    status = run(config, Path("c.yaml"), EnvoyOptions(mode), out, err)
    assert status == (1 if err.getvalue() else 0)
    document = fast_yaml.load(out.getvalue()) if out.getvalue() else {}
    return set(_secrets(document)), err.getvalue()


def _secrets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "sds_config" in node:
            yield node["name"]
        for child in node.values():
            yield from _secrets(child)
    elif isinstance(node, list):
        for child in node:
            yield from _secrets(child)


def answered(config: Config) -> dict[str, bytes]:
    """Every name that the server gives a credential for, with what is in it."""
    upstream = config.upstreams["a"]
    world = World()
    world.add("a", upstream.inject, upstream.callers)
    world.reload("a", per=upstream.per, callers_enforced_by=upstream.callers_enforced_by)
    world.give("a", "k1", certificate=PEM, private_key=PRIVATE)
    secrets = Secrets(world, world.clock)
    places = ("", *(f"/{slot}" for slot in (*header_names(upstream.inject), "tls", "query", "k")))
    found = {}
    for name in (f"{STAGE}/a{place}" for place in places):
        served = secrets.lookup(name)
        if served and served.credential:
            secret = Secret.FromString(served.value or b"")
            assert secret.name == name
            secret.ClearField("name")
            found[name] = secret.SerializeToString()
    return found


def wants_certificate(config: Config) -> bool:
    """Whether it has `inject: tls`."""
    return any(
        isinstance(injection, ClientCertificate) for injection in config.upstreams["a"].inject
    )


def warnings(config: Config) -> list[str]:
    """What `config check` says of the upstream."""
    lines = (line.partition(": ")[2] for line in config.warnings)
    return [line for line in lines if line.startswith("upstreams.")]


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any upstream that the configuration takes."""
    authorized = draw(st.sampled_from(("", "bearer", "basic", "sigv4", "hmac")))
    others = {"header", "header tls", "cookie", "tls"}
    if authorized not in ("sigv4", "hmac"):
        others.add("query")  # a signed one may not be changed
    beside = draw(st.lists(st.sampled_from(sorted(others)), unique=True, min_size=not authorized))
    return config_with(
        (*((authorized,) if authorized else ()), *beside),
        draw(st.sampled_from(("instance", "caller", "request"))),
        draw(st.sampled_from(RULES)),
        draw(st.sampled_from(("", "vaultauthz", "envoy"))),
    )


@given(configs())
def test_printed_is_what_is_answered(config: Config) -> None:
    """No name in either file waits for ever without a word about it, and none that is answered is left out."""
    known = answered(config)
    by_sds, _ = printed(config, "sds")
    beside_checks, told = printed(config, "ext_authz")
    assert by_sds <= known.keys()
    if told:  # the certificate does not come: Envoy refuses the requests, and was told of
        assert not known
        assert "upstreams.a." in told
        beside_checks = set()
    assert bool(beside_checks) == (wants_certificate(config) and not told)
    assert beside_checks <= known.keys()
    assert {known[name] for name in by_sds | beside_checks} == set(known.values())


@given(configs())
def test_warned_of_is_what_is_never_answered(config: Config) -> None:
    """`config check` tells where a certificate, or who enforces callers, counts on SDS in vain."""
    by_envoy = config.upstreams["a"].callers_enforced_by == "envoy"
    counts_on_it = by_envoy or wants_certificate(config)
    assert bool(warnings(config)) == (counts_on_it and not answered(config))


@pytest.mark.parametrize("beside", ["cookie", "query", "hmac", "sigv4"])
def test_a_certificate_beside_what_a_check_sets(beside: str) -> None:
    """It is asked for by the name that is answered; by SDS alone the upstream cannot be had."""
    config = config_with(("tls", beside))
    assert warnings(config) == []
    assert printed(config, "ext_authz") == ({f"{STAGE}/a"}, "")
    assert answered(config).keys() == {f"{STAGE}/a", f"{STAGE}/a/tls"}  # as it was once printed
    names, told = printed(config, "sds")
    assert names == set()
    assert told.splitlines()[0] == (
        f"vaultauthz: a is left out: upstreams.a.inject: it injects {beside}, where Envoy by "
        "itself sets headers and certificates only; --mode ext_authz has it"
    )


def test_a_header_beside_a_cookie_is_no_secret_of_its_own() -> None:
    """Half a credential is none, also where the certificate comes by SDS."""
    config = config_with(("tls", "bearer", "cookie"))
    assert answered(config).keys() == {f"{STAGE}/a", f"{STAGE}/a/tls"}


def test_several_slots_have_long_names() -> None:
    """And one has the short one."""
    upstream = config_with(("tls", "bearer")).upstreams["a"]
    names = [secret_name("s", upstream, slot) for slot in slots(upstream)]
    assert names == ["s/a/authorization", "s/a/tls"]
    upstream = config_with(("bearer",)).upstreams["a"]
    assert [secret_name("s", upstream, slot) for slot in slots(upstream)] == ["s/a"]


@pytest.mark.parametrize(
    ("config", "key", "why"),
    [
        (
            config_with(("tls",), per="caller"),
            "per",
            f"has per: caller: {WHEN_REQUESTS_COME}; say per: instance",
        ),
        (
            config_with(("tls", "bearer"), callers="[{methods: [GET]}]"),
            "callers",
            "has callers, which SDS asks nobody about; say callers_enforced_by: envoy",
        ),
        (
            config_with(("tls",), callers="any, deny: [{methods: [GET]}]"),
            "deny",
            "has deny, which SDS asks nobody about; say callers_enforced_by: envoy",
        ),
        (
            config_with(("bearer", "cookie"), enforcer="envoy"),
            "callers_enforced_by",
            "injects cookie, which SDS cannot carry; put it in a header, or remove this key",
        ),
    ],
)
def test_the_warning(config: Config, key: str, why: str) -> None:
    """It names the key, and the way out."""
    assert warnings(config) == [f"upstreams.a.{key}: SDS hands nothing out: the upstream {why}"]


def test_the_file_says_where_no_certificate_comes() -> None:
    """Beside the reference to it, as on standard error."""
    out, err = io.StringIO(), io.StringIO()
    assert run(config_with(("tls",), per="caller"), Path("c"), EnvoyOptions(), out, err) == 1
    assert (
        "vaultauthz: a gets no client certificate: upstreams.a.per: it has per:" in err.getvalue()
    )
    above = out.getvalue().partition("tls_certificate_sds_secret_configs")[0]
    assert "# NONE COMES, and requests are answered 503: a has per: caller:" in above
