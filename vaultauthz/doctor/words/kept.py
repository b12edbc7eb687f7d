"""What is kept on the machine: AppRole, certificates, LDAP.

``path_login.go`` of ``builtin/credential/approle`` and ``/cert``, ``ldap/backend.go`` of
Vault 1.21.4, and OpenBao 2.7's answers. AppRole says one thing of a wrong, an expired and
a used secret_id, on purpose.
"""

from __future__ import annotations

from typing import Final

from vaultauthz.doctor.words.said import CONFIG, ROLE, Said

_CERTS: Final = (("list", "{roles}"), *ROLE)
_OPEN: Final = (("write", "{role} secret_id_bound_cidrs=…"),)

APPROLE: Final = (
    Said(
        ("cidr restrictions on the secret id",),
        "the secret_id was issued for other addresses (cidr_list) than Vault sees us come from",
        "issue one for this address, which may be a proxy's or a gateway's (NAT); ROLE is the role's "
        "name",
        (("write", "-f {role}/secret-id"),),
    ),
    Said(
        ("cidr restrictions on the role",),
        "secret_id_bound_cidrs of the role are others than the address that Vault sees us come from",
        "add this address, which may be a proxy's or a gateway's (NAT); ROLE is the role's name",
        (*ROLE, *_OPEN),
    ),
    Said(
        ("subset relationship",),
        "secret_id_bound_cidrs of the role were changed, and the secret_id was issued for addresses "
        "(cidr_list) beyond them",
        "issue a new secret_id; ROLE is the role's name",
        (("write", "-f {role}/secret-id"),),
    ),
)

CERT: Final = (
    Said(
        ("no client certificate found", "client certificate must be", "tls connection"),
        "Vault has seen no client certificate: a proxy or a load balancer before it ends TLS, or its "
        "listener has tls_disable_client_certs",
        "let TLS pass through to Vault; or have the proxy hand the certificate on, and Vault trust it "
        "(x_forwarded_for_client_cert_header of its listener)",
        (),
    ),
    Said(
        ("no certificate was matched",),
        "no role by this name trusts a certificate",
        "correct role, or write it in Vault",
        _CERTS,
    ),
    Said(
        ("revoked", "ocsp"),
        "the certificate is revoked, or OCSP could not be asked",
        "present another certificate; look at the role's ocsp_* and at the method's crls",
        _CERTS,
    ),
    Said(
        ("has expired", "not yet valid"),
        "the certificate (or its CA's) has ended, or is not valid yet",
        "put a new pair into client_cert and client_key, and set the clocks (NTP)",
        _CERTS,
    ),
    Said(
        ("unknown authority",),
        "certificate of the role is not the CA that has signed ours",
        "write the CA's certificate into certificate of the role, with those between in client_cert",
        _CERTS,
    ),
    Said(
        ("failed to match all constraints", "certificate mismatch"),
        "the names of our certificate are not as allowed_common_names, allowed_dns_sans, "
        "allowed_uri_sans, allowed_names or required_extensions of the role want them, or its CA is "
        "not the role's certificate",
        "compare the role with what we present",
        _CERTS,
    ),
)

LDAP: Final = (
    Said(
        ("not configured",),
        "the method has no directory",
        "write url, userdn and userattr",
        CONFIG,
    ),
    Said(
        ("failed to connect", "error connecting to host", "network error"),
        "Vault cannot reach the directory",
        "look at url, certificate and the network between Vault and the directory",
        CONFIG,
    ),
    Said(
        ("failed to bind as user", "invalid credentials", "result code 49"),
        "user name or password is not as the directory has it; Vault says the same when its own bind "
        "account (binddn, bindpass) is refused and when the directory hangs",
        "try the password at the directory before it is written anew; some more wrong tries lock the "
        "user. If it is right, look at binddn and bindpass",
        CONFIG,
    ),
    Said(
        ("result code 32", "no such object", "invalid dn"),
        "the directory has no userdn (or groupdn) as Vault's",
        "correct userdn and userattr",
        CONFIG,
    ),
)
