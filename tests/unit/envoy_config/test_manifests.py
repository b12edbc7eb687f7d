"""The Kubernetes manifests in docs/: against the published schemas, and against what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.envoy_gateway import FEATURES
from tests.envoy_gateway import patched as apply
from tests.unit.envoy_config.printing import ROOT, Document, bootstrap, filter_of
from vaultauthz.config import load
from vaultauthz.envoy_config.bootstrap import ext_authz
from vaultauthz.envoy_config.plan import Plan

SCHEMAS: Document = yaml.safe_load((ROOT / "tests" / "data" / "manifest_schemas.yaml").read_text())
FOLDER = ROOT / "docs" / "envoy-gateway"
GATEWAY = FOLDER / "vaultauthz.yaml"
ISTIO = ROOT / "docs" / "istio" / "vaultauthz.yaml"
MESH = ROOT / "docs" / "istio" / "mesh.yaml"
FILES = [*sorted(file for file in FOLDER.glob("*.yaml") if file.stem != "kustomization"), ISTIO]
VERSIONS = {
    "AuthorizationPolicy": "security.istio.io/v1",
    "BackendTLSPolicy": "gateway.networking.k8s.io/v1",
    "ClientTrafficPolicy": "gateway.envoyproxy.io/v1alpha1",
    "DestinationRule": "networking.istio.io/v1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "EnvoyPatchPolicy": "gateway.envoyproxy.io/v1alpha1",
    "EnvoyProxy": "gateway.envoyproxy.io/v1alpha1",
    "SecurityPolicy": "gateway.envoyproxy.io/v1alpha1",
    "ValidatingAdmissionPolicy": "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicyBinding": "admissionregistration.k8s.io/v1",
}


def manifests(file: Path) -> dict[str, Document]:
    """The documents of a file by their kinds."""
    return {document["kind"]: document for document in yaml.safe_load_all(file.read_text())}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_they_fit_the_schemas(file: Path) -> None:
    """Every document is as the schema of its kind says, and of the version that the schema is of."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    for kind, document in manifests(file).items():
        whole = "Admission" in kind  # of the cluster, not of a namespace
        assert document["metadata"].keys() == {"name"} | (set() if whole else {"namespace"})
        assert document["apiVersion"] == VERSIONS[kind]
        jsonschema.validate(document["spec"], SCHEMAS[kind])


def test_no_manifest_is_left_out() -> None:
    """Every document of these files is looked at: no file has two of a kind."""
    for file in FILES:
        assert len(list(yaml.safe_load_all(file.read_text()))) == len(manifests(file))


def test_the_mesh_configuration_fits() -> None:
    """The provider's keys are those of Istio's mesh configuration, with the line for bodies, too."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    text = MESH.read_text()
    body = text.replace("# includeRequestBodyInCheck", "includeRequestBodyInCheck")
    for one in (text, body):
        jsonschema.validate(yaml.safe_load(one), SCHEMAS["mesh"])
    assert "packAsBytes: true" in body


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("SecurityPolicy", "extAuth failopen", True),
        ("SecurityPolicy", "mergeType", "StrategicMerge"),  # of a Gateway's policy: not from 1.9 on
        ("SecurityPolicy", "extAuth timeout", "0.5s"),  # no fractions there
        ("SecurityPolicy", "extAuth statusOnError", "503"),
        ("EnvoyProxy", "filterOrder 0 after", "envoy.filters.http.cors"),
        ("EnvoyProxy", "filterOrder 0 name", "envoy.filters.http.jwt"),
        ("BackendTLSPolicy", "validation hostName", "x"),
        ("AuthorizationPolicy", "rules 0 when_", []),
        ("DestinationRule", "trafficPolicy tls mode", "MTLS"),
    ],
)
def test_a_mistake_is_found(kind: str, place: str, value: object) -> None:
    """The schemas are closed, and know the words."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    (spec,) = [manifests(f)[kind]["spec"] for f in (GATEWAY, ISTIO) if kind in manifests(f)]
    *way, last = place.split()
    inside = spec
    for step in way:
        inside = inside[int(step) if step.isdigit() else step]
    inside[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, SCHEMAS[kind])


def patched() -> Document:
    """What the patches of Envoy Gateway make of the filter."""
    chain: list[Document] = [{"name": FEATURES["extAuth"], "typed_config": {}}]
    places = apply(chain, manifests(GATEWAY)["EnvoyPatchPolicy"]["spec"]["jsonPatches"])
    found: Document = chain[0]["typed_config"]
    assert places == len(found)
    return found


def test_they_say_what_is_printed() -> None:
    """The values that the patches set are those of the printed filter."""
    config = load(ROOT / "envoy" / "vaultauthz.yaml", {})
    printed = filter_of(bootstrap(ext_authz("c", Plan.of(config), snippet=False)))
    here = patched()
    asks = manifests(GATEWAY)["SecurityPolicy"]["spec"]["extAuth"]
    assert asks["timeout"] == "500ms"
    assert printed["grpc_service"]["timeout"] == "0.5s"
    assert asks["failOpen"] is printed["failure_mode_allow"]
    assert asks["statusOnError"] == 503
    assert printed["status_on_error"] == {"code": "ServiceUnavailable"}
    assert here.pop("metadata_context_namespaces") == ["envoy.filters.http.jwt_authn"]
    printed["decoder_header_mutation_rules"]["allow_expression"]["regex"] = here[
        "decoder_header_mutation_rules"
    ]["allow_expression"]["regex"]
    assert {key: printed[key] for key in here} == here
    (istio, _) = manifests(ISTIO)["EnvoyFilter"]["spec"]["configPatches"]
    merged = istio["patch"]["value"]["typed_config"]
    merged.pop("metadata_context_namespaces")
    assert {key: printed[key] for key in merged} == merged
    (provider,) = yaml.safe_load(MESH.read_text())["extensionProviders"]
    assert provider["envoyExtAuthzGrpc"]["timeout"] == printed["grpc_service"]["timeout"]
    assert provider["envoyExtAuthzGrpc"]["statusOnError"] == "503"
