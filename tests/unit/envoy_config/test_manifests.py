"""The Kubernetes manifests in docs/: against the published schemas, and against what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.envoy_config.printing import ROOT, Document, bootstrap, filter_of
from vaultauthz.config import load
from vaultauthz.envoy_config.bootstrap import ext_authz
from vaultauthz.envoy_config.plan import Plan

SCHEMAS: Document = yaml.safe_load((ROOT / "tests" / "data" / "manifest_schemas.yaml").read_text())
GATEWAY = ROOT / "docs" / "envoy-gateway" / "vaultauthz.yaml"
ISTIO = ROOT / "docs" / "istio" / "vaultauthz.yaml"
MESH = ROOT / "docs" / "istio" / "mesh.yaml"
UNCHECKED = {"BackendTLSPolicy", "EnvoyProxy", "AuthorizationPolicy", "DestinationRule"}


def manifests(file: Path) -> dict[str, Document]:
    """The documents of a file by their kinds."""
    return {document["kind"]: document for document in yaml.safe_load_all(file.read_text())}


@pytest.mark.parametrize("file", [GATEWAY, ISTIO], ids=lambda file: file.parent.name)
def test_they_fit_the_schemas(file: Path) -> None:
    """Every kind whose schema is kept here is as it says; the others are named."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    for kind, document in manifests(file).items():
        assert document["metadata"].keys() == {"name", "namespace"}
        if kind not in UNCHECKED:
            jsonschema.validate(document["spec"], SCHEMAS[kind])


def test_the_mesh_configuration_fits() -> None:
    """The provider's keys are those of Istio's mesh configuration, with the line for bodies, too."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    text = MESH.read_text()
    body = text.replace("# includeRequestBodyInCheck", "includeRequestBodyInCheck")
    for one in (text, body):
        jsonschema.validate(yaml.safe_load(one), SCHEMAS["mesh"])
    assert "packAsBytes: true" in body


def test_a_misspelt_key_is_found() -> None:
    """The schemas are closed."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    spec = manifests(GATEWAY)["SecurityPolicy"]["spec"]
    spec["extAuth"]["failopen"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, SCHEMAS["SecurityPolicy"])


def patched() -> Document:
    """What the patches of Envoy Gateway and of Istio make of the filter."""
    found: Document = {}
    for patch in manifests(GATEWAY)["EnvoyPatchPolicy"]["spec"]["jsonPatches"]:
        operation = patch["operation"]
        found[operation["path"].removeprefix("/")] = operation["value"]
    return found


def test_they_say_what_is_printed() -> None:
    """The values that the patches set are those of the printed filter."""
    config = load(ROOT / "envoy" / "vaultauthz.yaml", {})
    printed = filter_of(bootstrap(ext_authz("c", Plan.of(config), snippet=False)))
    here = patched()
    assert here.pop("timeout") == printed["grpc_service"]["timeout"]
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
