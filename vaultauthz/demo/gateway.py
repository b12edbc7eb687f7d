"""The gateway's configuration: envoy/demo.yaml with this demo's own ports and files."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from vaultauthz.demo.parts import Certificate, PartError

# A checkout has it in envoy/, an installed package beside this file.
PLACES = (
    Path(str(files("vaultauthz.demo"))) / "envoy.yaml",
    Path(__file__).parents[2] / "envoy" / "demo.yaml",
)


@dataclass(frozen=True)
class Gateway:
    """Where the gateway listens, what it shows and trusts, and where its clusters are."""

    port: int
    certificate: Certificate
    client_ca: Path
    grpc_socket: Path
    upstream_ports: dict[str, int]


def bootstrap(gateway: Gateway) -> dict[str, Any]:
    """Read the demo's Envoy file and put this demo's port, certificates, socket and upstream ports into it."""
    document: dict[str, Any] = yaml.safe_load(template())
    resources = document["static_resources"]
    listener = resources["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = gateway.port
    _place_tls(
        listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"],
        gateway,
    )
    for cluster in resources["clusters"]:
        address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"][
            "address"
        ]
        if "pipe" in address:
            address["pipe"]["path"] = str(gateway.grpc_socket)
        else:
            address["socket_address"]["port_value"] = gateway.upstream_ports[cluster["name"]]
    return document


def template() -> str:
    """The text of envoy/demo.yaml. Raises PartError if the file is nowhere."""
    for place in PLACES:
        if place.is_file():
            return place.read_text()
    raise PartError(
        f"the demo's Envoy file is missing; looked for it at {' and '.join(map(str, PLACES))}"
    )


def _place_tls(context: dict[str, Any], gateway: Gateway) -> None:
    served = context["tls_certificates"][0]
    served["certificate_chain"]["filename"] = str(gateway.certificate.cert)
    served["private_key"]["filename"] = str(gateway.certificate.key)
    context["validation_context"]["trusted_ca"]["filename"] = str(gateway.client_ca)
