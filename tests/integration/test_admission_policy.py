"""docs/envoy-gateway/admission.yaml: its CEL, evaluated by a real Envoy, over the policies of tests/data.

Envoy's CEL has no macros (`all`, `exists`); they are written out here, as CEL defines them: one term for each
element. Kubernetes' CEL has seen the same policies once; tests/data/envoy_gateway/admission.yaml says how.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import requests
import yaml

from tests.envoy_gateway import DATA, Document, manifests
from tests.integration.gateway_bed import TIMEOUT
from vaultauthz.demo.parts import Envoy, free_port

pytestmark = pytest.mark.integration

POLICY: Final[Document] = manifests("admission.yaml")["ValidatingAdmissionPolicy"]["spec"]
CASES: Final[list[Document]] = yaml.safe_load((DATA / "admission.yaml").read_text())
_OBJECT: Final = "xds.route_metadata.filter_metadata['object']"
_MACRO: Final = re.compile(r"(?P<list>variables\.\w+)\.(?P<macro>all|exists)\((?P<name>\w), ")


def _lengths(spec: Document) -> dict[str, int]:
    """How many elements the policy's lists have for this object."""
    return {
        "refs": len(spec.get("targetRefs", [])),
        "old": int("targetRef" in spec),
        "selectors": len(spec.get("targetSelectors", [])),
    }


def _written_out(expression: str, spec: Document) -> str:
    """CEL without macros and variables, for this object."""
    while found := _MACRO.search(expression):
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(expression[end], 0)
            end += 1
        body, every = expression[found.end() : end - 1], found["macro"] == "all"
        length = _lengths(spec)[found["list"].removeprefix("variables.")]
        terms = [
            "(" + re.sub(rf"\b{found['name']}\.", f"{found['list']}[{n}].", body) + ")"
            for n in range(length)
        ]
        whole = (" && " if every else " || ").join(terms) or str(every).lower()
        expression = f"{expression[: found.start()]}({whole}){expression[end:]}"
    for variable in reversed(POLICY["variables"]):
        name = re.compile(rf"variables\.{variable['name']}\b")
        if name.search(expression):
            return _written_out(f"({variable['expression']})".join(name.split(expression)), spec)
    return re.sub(r"\bobject\.", f"{_OBJECT}.", expression)


def _route(number: int, case: Document) -> Document:
    """A route whose metadata is the object, and whose answer has a header for each expression."""
    spec = case["object"]["spec"]
    rules = [*POLICY["matchConditions"], *POLICY["validations"]]
    headers = [
        {
            "header": {
                "key": f"x-rule-{n}",
                "value": f"%CEL({_written_out(rule['expression'], spec)})%",
            }
        }
        for n, rule in enumerate(rules)
    ]
    return {
        "match": {"path": f"/{number}"},
        "metadata": {"filter_metadata": {"object": case["object"]}},
        "direct_response": {"status": 200},
        "response_headers_to_add": headers,
    }


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An Envoy with one route for each case; its address."""
    port = free_port()
    routes = [_route(*pair) for pair in enumerate(CASES)]
    kinds = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "cel",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kinds}.http.router.v3.Router"},
            }
        ],
    }
    name = "envoy.filters.network.http_connection_manager"
    listener = {
        "name": "cel",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": name, "typed_config": manager}]}],
    }
    folder: Path = tmp_path_factory.mktemp("cel")
    with Envoy({"static_resources": {"listeners": [listener]}}, folder):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["case"] for case in CASES])
def test_what_is_refused(verdicts: str, number: int) -> None:
    """Each case is refused with the messages that it should be refused with, and no other."""
    headers = requests.get(f"{verdicts}/{number}", timeout=TIMEOUT).headers
    found = [headers[f"x-rule-{n}"] for n in range(1 + len(POLICY["validations"]))]
    assert set(found) <= {"true", "false"}
    ours, *allowed = found
    assert ours == "true"  # none of the cases is the policy that is shipped
    messages = [
        rule["message"]
        for rule, verdict in zip(POLICY["validations"], allowed, strict=True)
        if verdict == "false"
    ]
    assert len(messages) == len(CASES[number]["refused"])
    assert all(
        word in message for word, message in zip(CASES[number]["refused"], messages, strict=True)
    )


def test_the_shipped_policy_is_left_alone() -> None:
    """The one exception is the SecurityPolicy of vaultauthz.yaml, by its name."""
    ours = manifests("vaultauthz.yaml")["SecurityPolicy"]["metadata"]
    (condition,) = POLICY["matchConditions"]
    assert f"namespace == '{ours['namespace']}'" in condition["expression"]
    assert f"name == '{ours['name']}'" in condition["expression"]
    (target,) = manifests("vaultauthz.yaml")["SecurityPolicy"]["spec"]["targetRefs"]
    assert f"t.name != '{target['name']}'" in POLICY["validations"][-1]["expression"]


def test_the_binding_denies() -> None:
    """The policy is bound, and denies; it is not only a warning."""
    both = manifests("admission.yaml")
    policy, binding = both["ValidatingAdmissionPolicy"], both["ValidatingAdmissionPolicyBinding"]
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert policy["spec"]["failurePolicy"] == "Fail"
