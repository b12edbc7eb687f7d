"""One decision, however it is come by: a check from Envoy's bytes, `explain` from JSON, Envoy's own RBAC."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.envoy_config.rbac_model import Sent, passes
from vaultauthz._pb import ext_authz_pb2 as pb
from vaultauthz.broker import Binding, BindingTable, Broker
from vaultauthz.config import Config, parse
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.injection import Mutation
from vaultauthz.core.routing import Routes
from vaultauthz.envoy.request import JWT_NAMESPACE, read
from vaultauthz.envoy_config.rbac import filters
from vaultauthz.explain import DescribedRequest, UsageError
from vaultauthz.explain.explanation import explain

TEXT = """\
vault: {address: "http://127.0.0.1:1"}
stages: {s: {auth: {method: approle, role_id: a}}}
upstreams:
  u:
    secret: {kv: secret/u}
    inject: [{bearer: "{k}"}]
    callers: %s
    deny: %s
"""
BIGGEST = 2**53 - 1
# As a token's JSON has them; several are the same double.
NUMBERS = (
    *("0", "-0", "-0.0", "1", "1.0", "1e0", "-1", "3", "2.5", "1e308", "5e-324", "1e-400", "0.1"),
    *(str(n) for n in (BIGGEST, BIGGEST + 1, BIGGEST + 2, -BIGGEST, -BIGGEST - 2, 10**30)),
    *(f"{BIGGEST}.0", f"{BIGGEST}.4", "9007199254740990.9"),
)
TEXTS = (
    "",
    "1",
    "1.0",
    "true",
    "null",
    "pay",
    "x pay",
    "x\u00a0pay",
    "Pay",
    "\u00fc",
    "u\u0308",
    "-0",
    "\U0001f511",
)
WORDS = st.sampled_from(TEXTS).map(json.dumps)
ONE = st.sampled_from((*NUMBERS, "true", "false", "null")) | WORDS
LIST = st.lists(ONE, max_size=3).map(lambda items: f"[{', '.join(items)}]")
NESTED = st.dictionaries(st.sampled_from(("b", "scope")), ONE | LIST, max_size=2)


def as_object(named: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in named.items()) + "}"


VALUES = (
    ONE
    | LIST
    | st.lists(LIST, max_size=2).map(lambda x: f"[{', '.join(x)}]")
    | NESTED.map(as_object)
)
TOKENS = st.dictionaries(st.sampled_from(("a", "a.b", "scope", "a.scope")), VALUES, max_size=4).map(
    as_object
)
WANTED = st.sampled_from(
    (
        *(json.dumps(text, ensure_ascii=False) for text in TEXTS[1:]),
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "3",
        str(BIGGEST),
        str(-BIGGEST),
        str(BIGGEST + 1),
        str(-BIGGEST - 2),
        "100000000000000000000",
    )
)
RULE = st.tuples(st.sampled_from(("a", "a.b", "scope", "a.scope")), WANTED).map(
    lambda rule: f'[{{claims: {{"{rule[0]}": {rule[1]}}}}}]'
)


def config_of(callers: str, deny: str) -> Config:
    return parse(TEXT % (callers, deny), "test.yaml", Path("/"), {})


def checked(config: Config, token: str) -> tuple[bool, bool]:
    """What a check says, decoded from what Envoy would send; and what Envoy's own filter says."""
    struct = json_format.Parse(token, Struct())
    attributes = pb.AttributeContext(context_extensions={"upstream": "u"})
    attributes.request.http.method = b"GET"
    attributes.request.http.path = b"/"
    metadata = attributes.metadata_context.filter_metadata[JWT_NAMESPACE]
    metadata.fields["jwt_payload"].struct_value.CopyFrom(struct)
    request = read(pb.CheckRequest(attributes=attributes).SerializeToString())
    slot = Slot()
    slot.credential = Credential(Mutation(), "id", "", ends_at=1.0)
    callers = config.upstreams["u"].callers
    table = BindingTable([Binding("u", "s", callers, slot)], Routes())
    broker = Broker(table, lambda _request, _decision: True, lambda: 0.0)
    (claims,) = request.claims
    return broker.check(request).allowed, passes(filters(callers), Sent(claims=claims))


@settings(max_examples=400)
@given(RULE, TOKENS)
@example(f"[{{claims: {{a: {BIGGEST}}}}}]", f'{{"a": {BIGGEST + 2}}}')
@example("[{claims: {a: 1}}]", '{"a": true}')
@example("[{claims: {a: true}}]", '{"a": [1]}')
@example('[{claims: {a: "1"}}]', '{"a": 1}')
@example("[{claims: {a: 0}}]", '{"a": -0.0}')
@example("[{claims: {scope: pay}}]", '{"scope": "x\\u00a0pay"}')
def test_the_three_agree(rules: str, token: str) -> None:
    """Every kind of value, in a rule that allows and in one that denies."""
    for config in (config_of(rules, "[]"), config_of("any", rules)):
        explained = explain(
            config, DescribedRequest("/", upstream="u", claims=(token,)).request()
        ).allowed
        assert checked(config, token) == (explained, explained)


@pytest.mark.parametrize("key", ["callers", "deny"])
@pytest.mark.parametrize("number", [2**53, 2**53 + 1, -(2**53), 10**25])
def test_a_number_that_a_token_cannot_have_exactly_is_told_and_denies(
    key: str, number: int
) -> None:
    """It stands for its neighbours as well: all doors deny them all, and let none in."""
    rules = f"[{{claims: {{uid: {number}}}}}]"
    config = config_of(*((rules, "[]") if key == "callers" else ("any", rules)))
    (warning,) = config.warnings
    assert re.search(rf"test\.yaml:\d+: upstreams\.u\.{key}\[0\]\.claims\.uid.*quotes", warning)
    for sent in (number, number + 1, number - 1):
        token = f'{{"uid": {sent}}}'
        explained = explain(
            config, DescribedRequest("/", upstream="u", claims=(token,)).request()
        ).allowed
        assert checked(config, token) == (explained, explained)
        denied = key == "callers" or float(sent) == float(number)
        assert explained is not denied


@pytest.mark.parametrize(
    "token",
    ['{"a": 1e400}', '{"a": -1e400}', '{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}', '{"a": "\\ud800"}',
     "[1]", "{", '{"a":' * 5000],
)  # fmt: skip
def test_claims_that_no_token_brings(token: str) -> None:
    """`explain` refuses them, as it could only guess."""
    with pytest.raises(UsageError, match="claims"):
        DescribedRequest("/", claims=(token,)).request()


def test_a_token_s_number_is_read_as_a_double() -> None:
    """And so are those that have no fraction."""
    (claims,) = (
        DescribedRequest("/", claims=(f'{{"a": {BIGGEST + 2}, "b": [1]}}',)).request().claims
    )
    found: Any = claims["a"]
    assert isinstance(found, float)
    assert found == 2.0**53
    assert type(claims["b"][0]) is float
