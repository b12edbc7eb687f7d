"""Two vaultauthz over mutual TLS behind one Envoy, as `vaultauthz envoy` prints it."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import requests
import yaml
from cryptography import x509

from tests.contract.certificates import Pair
from tests.contract.jwt_issuer import Issuer
from tests.integration.docs_snippets import DOCS, blocks
from tests.integration.faults.traffic import Traffic
from tests.integration.printed_bed import Certificates, PrintedBed, manager_of, printed
from tests.integration.served import Login, Served
from tests.patience import PATIENCE
from vaultauthz.demo.parts import free_port, wait_for

HOST: Final = "one.gateway.example"
GATEWAY: Final = "localhost"  # the name in the certificate that the bed gives Envoy
_TLS: Final = (
    "grpc_tls: {{cert: {0}/tls.crt, key: {0}/tls.key, client_ca: {0}/ca.crt, client_names: [{1}]}}"
)

Document = dict[str, Any]


class Mounted:
    """A folder as Kubernetes mounts a secret: the files are links, and one link is moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        folder.mkdir()

    def put(self, files: Mapping[str, Path]) -> None:
        """Replace all of these, by name, at one moment."""
        here = self.folder / f"..{next(self._numbers)}"
        here.mkdir()
        for name, file in files.items():
            shutil.copyfile(file, here / name)
            (here / name).chmod(0o600)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..new").symlink_to(here.name)
        (self.folder / "..new").replace(self.folder / "..data")

    def write(self, pair: Pair) -> None:
        """Write certificate and key over the old ones, one after the other."""
        (self.folder / "tls.crt").write_bytes(pair.cert.read_bytes())
        (self.folder / "tls.key").write_bytes(pair.key.read_bytes())


class Replica:
    """One server and the files of its certificate."""

    def __init__(
        self, folder: Path, login: Login, upstreams: str, authority: Certificates, more: str = ""
    ) -> None:
        folder.mkdir()
        self._authority = authority
        self._client = authority.issue(GATEWAY)
        self.port = free_port()
        self.files = Mounted(folder / "tls")
        self.renew()
        listen = f"grpc: 127.0.0.1:{self.port}\n  {_TLS.format(self.files.folder, GATEWAY)}{more}"
        self.served = Served(folder, login, upstreams, listen)

    def renew(self, *, hours: float = 1, in_place: bool = False) -> int:
        """Put another certificate there; its serial number."""
        pair = self._authority.issue("127.0.0.1", hours=hours)
        if in_place:
            self.files.write(pair)
        else:
            self.put(pair, self._authority.ca)
        return serial_of(pair.cert)

    def put(self, pair: Pair, ca: Path) -> int:
        """Put these there, at one moment; the certificate's serial number."""
        self.files.put({"tls.crt": pair.cert, "tls.key": pair.key, "ca.crt": ca})
        return serial_of(pair.cert)

    def shown(self) -> int:
        """The serial number of the certificate that a new connection gets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = (
            False,
            ssl.CERT_NONE,
        )  # also one that has ended
        context.load_cert_chain(self._client.cert, self._client.key)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
            context.wrap_socket(plain) as connection,
        ):
            found = connection.getpeercert(binary_form=True)
        assert found
        return x509.load_der_x509_certificate(found).serial_number

    def told_of_its_end(self) -> bool:
        """Whether the log tells of a certificate that has ended."""
        return "has ended" in self.served.stderr

    def wait_shown(self, serial: int) -> None:
        """Wait until new connections get this one."""
        self.served.wait(lambda: self.shown() == serial, "it went on with the old certificate")


def serial_of(cert: Path) -> int:
    """A certificate's serial number."""
    return x509.load_pem_x509_certificate(cert.read_bytes()).serial_number


def replicated(
    document: Document, ports: list[int], per_connection: int = 0, each: str = f"{PATIENCE}s"
) -> Document:
    """Our clusters with an endpoint for each port, and more patience than a product has.

    ``per_connection``: how many calls a connection is used for, so that there are new ones.
    ``each``: the timeout of each time that a check is asked.
    """
    for cluster in document["static_resources"]["clusters"]:
        if not cluster["name"].startswith("vaultauthz"):
            continue
        cluster["connect_timeout"] = f"{PATIENCE}s"
        for check in cluster["health_checks"]:
            check["timeout"] = each  # so long may a replica hang
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": p}}}}
            for p in ports
        ]
        if per_connection:
            (options,) = cluster["typed_extension_protocol_options"].values()
            options["common_http_protocol_options"] = {
                "max_requests_per_connection": per_connection
            }
    for one in manager_of(document)["http_filters"]:
        if "ext_authz" in one["name"]:
            service = one["typed_config"]["grpc_service"]
            service["timeout"] = f"{PATIENCE}s"
            service["retry_policy"]["retry_back_off"]["max_interval"] = each
    return document


class ReplicasBed:
    """Both replicas, Envoy and the traffic through it."""

    def __init__(
        self,
        folder: Path,
        login: Login,
        upstreams: str,
        authority: Certificates,
        issuer: Issuer,
        *,
        mode: str = "ext_authz",
        more: str = "",
        per_connection: int = 0,
        each: str = f"{PATIENCE}s",
    ) -> None:
        self.replicas = [
            Replica(folder / name, login, upstreams, authority, more) for name in ("one", "two")
        ]
        status, text, err = printed(self.replicas[0].served.config, "--mode", mode)
        assert (status, err) == (0, "")
        self.gateway = PrintedBed(text, folder / "gateway", authority, issuer)
        replicated(self.gateway.document, [r.port for r in self.replicas], per_connection, each)
        self.mode = mode
        self.traffic = Traffic(self.gateway.port, HOST)

    def stats(self) -> dict[str, int]:
        """Envoy's counters about the replicas, without their common prefix."""
        prefix = "cluster.vaultauthz."
        found = self.gateway.envoy.stats(prefix.replace(".", "\\."))
        return {name.removeprefix(prefix): value for name, value in found.items()}

    def wait_healthy(self, number: int) -> None:
        """Wait until Envoy holds so many replicas for healthy."""
        found: list[int] = []

        def so_many() -> bool:
            found.append(self.stats()["membership_healthy"])
            return found[-1] == number

        assert wait_for(so_many, PATIENCE), f"{found[-1]} are healthy, not {number}: {self.stats()}"

    def from_files(self, secrets: Path, mounted: Mounted) -> None:
        """Have Envoy take its certificates from ``mounted``, as docs/envoy.md says, by files in ``secrets``."""
        parts = {block.file_name: block.text for block in blocks(DOCS / "envoy.md")}
        texts = {
            name: parts[name]
            .replace("/etc/envoy/vaultauthz", str(mounted.folder))
            .replace("/etc/envoy/secrets", str(secrets))
            .replace(
                "DNS, matcher: {exact: vaultauthz.example}",
                "IP_ADDRESS, matcher: {exact: 127.0.0.1}",
            )
            for name in ("client.yaml", "trust.yaml", "context.yaml")
        }
        for name in ("client.yaml", "trust.yaml"):
            (secrets / name).write_text(texts[name])
        self.gateway.envoy._bootstrap["node"] = {"id": "gateway-1", "cluster": "gateway"}
        for cluster in self.gateway.document["static_resources"]["clusters"]:
            if cluster["name"].startswith("vaultauthz"):
                context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
                del context["tls_certificates"], context["validation_context"]
                context |= yaml.safe_load(texts["context.yaml"])

    def wait_taken(self, cert: Path, number: int = 1) -> None:
        """Wait until Envoy has loaded this certificate, in so many places."""
        wanted = f"{serial_of(cert):x}"
        asked = f"{self.gateway.envoy.admin}/certs"

        def taken() -> bool:
            return requests.get(asked, timeout=PATIENCE).text.count(wanted) >= number

        assert wait_for(taken, PATIENCE), f"Envoy has not taken {cert}"

    def go_on(self, requests: int = 60) -> None:
        """Wait until so many more requests have been answered."""
        before = len(self.traffic.asked())
        assert wait_for(lambda: len(self.traffic.asked()) >= before + requests, PATIENCE)


@contextlib.contextmanager
def replicas(bed: ReplicasBed) -> Iterator[ReplicasBed]:
    """The bed with everything running, traffic too."""
    with contextlib.ExitStack() as parts:
        for replica in bed.replicas:
            parts.enter_context(replica.served)
            replica.served.wait_ready()
        parts.enter_context(bed.gateway)
        bed.wait_healthy(2)
        if bed.mode == "sds":
            assert wait_for(lambda: bed.gateway.secrets() == 1, PATIENCE)
        parts.enter_context(bed.traffic)
        yield bed
