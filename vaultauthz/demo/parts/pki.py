"""Certificates issued by Vault's PKI engine, as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

LIFETIME = "24h"
# A certificate that ends after its issuer is refused.
ROOT_LIFETIME = "48h"
SERVER_ROLE, CLIENT_ROLE = "server", "client"


@dataclass(frozen=True)
class Certificate:
    """Two PEM files: the certificate (followed by its issuer) and its key (mode 600)."""

    cert: Path
    key: Path


class Pki:
    """A certificate authority in Vault, reached by an `hvac.Client`.

    It certifies servers by name and clients by SPIFFE id, for a day.
    """

    def __init__(self, client: Any, mount: str) -> None:
        self._client = client
        self._mount = mount

    @classmethod
    def create(cls, client: Any, mount: str) -> Self:
        """Make the root certificate and the two roles in a PKI engine that is enabled already."""
        client.sys.tune_mount_configuration(mount, max_lease_ttl=ROOT_LIFETIME)
        pki = client.secrets.pki
        pki.generate_root(
            "internal", "demo CA", {"ttl": ROOT_LIFETIME, "key_type": "ec"}, mount_point=mount
        )
        shape = {"key_type": "ec", "key_bits": 256, "ttl": LIFETIME}
        server = {**shape, "allow_any_name": True, "allow_ip_sans": True, "client_flag": False}
        client_only = {
            **shape,
            "allow_any_name": True,
            "enforce_hostnames": False,
            "allowed_uri_sans": ["spiffe://*"],
            "server_flag": False,
        }
        pki.create_or_update_role(SERVER_ROLE, server, mount_point=mount)
        pki.create_or_update_role(CLIENT_ROLE, client_only, mount_point=mount)
        return cls(client, mount)

    def ca(self, folder: Path) -> Path:
        """Write the root certificate to `folder/ca.pem`."""
        path = folder / "ca.pem"
        path.write_text(
            self._client.secrets.pki.read_ca_certificate(mount_point=self._mount) + "\n"
        )
        return path

    def issue_server(self, folder: Path, name: str, *more_names: str) -> Certificate:
        """A server certificate for these host names and for 127.0.0.1, in `folder/NAME.pem` and `.key`."""
        params = {"alt_names": ",".join(more_names), "ip_sans": "127.0.0.1"}
        return self._issue(SERVER_ROLE, folder, name, name, params)

    def issue_client(self, folder: Path, spiffe_id: str) -> Certificate:
        """A client certificate whose only identity is the URI `spiffe://…`; the files have its last word as name."""
        name = spiffe_id.rsplit("/", 1)[-1]
        params = {"uri_sans": spiffe_id, "exclude_cn_from_sans": True}
        return self._issue(CLIENT_ROLE, folder, name, name, params)

    def _issue(
        self, role: str, folder: Path, file_name: str, common_name: str, params: dict[str, Any]
    ) -> Certificate:
        issued = self._client.secrets.pki.generate_certificate(
            role, common_name, params, mount_point=self._mount
        )["data"]
        files = Certificate(folder / f"{file_name}.pem", folder / f"{file_name}.key")
        files.cert.write_text(f"{issued['certificate']}\n{issued['issuing_ca']}\n")
        files.key.touch(mode=0o600)
        files.key.write_text(f"{issued['private_key']}\n")
        return files
