"""Mistakes in an upstream's ``to`` and in ``gateway``.

Each: what is replaced in the valid configuration, by what, and the problems then told.
"""

from __future__ import annotations

from .conftest import SECRET

ANY = "    callers: any"
LISTEN = "  grpc: unix:///run/vaultauthz/grpc.sock"
FORMS = "write https://HOST:PORT, and leave the credential to inject"
BASIC = '[{basic: {username: "{username}", password: "{password}"}}]'
ZONE = "has a zone; leave out the % and what follows it"
HOST = "has no valid host; use one of its machine's IP addresses, 0.0.0.0 or [::] for all"


def to(text: str) -> str:
    """It in the upstream `pay`, at line 12."""
    return f"    to: {text}\n{ANY}"


SERVICES = [
    *(
        (ANY, to(address), (f"12: upstreams.pay.to: {told}",))
        for address, told in (
            ("pay.test:8443", f"does not begin with https:// or http://; {FORMS}"),
            (f"//pay.test/{SECRET}", f"does not begin with https:// or http://; {FORMS}"),
            ("ftp://pay.test", f"does not begin with https:// or http://; {FORMS}"),
            (f"https://me:{SECRET}@pay.test", f"holds a user name or password; {FORMS}"),
            ("https://pay.test:65536", "has no valid port; use 1 to 65535"),
            ("https://pay.test:0", "has no valid port; use 1 to 65535"),
            ("https://pay.test:http", "has no valid port; use 1 to 65535"),
            ("https://", f"has no valid host; {FORMS}, IPv6 in [ ]"),
            ("https://::1", "has no valid port; use 1 to 65535"),
            ("https://pay_ü.test", f"has no valid host; {FORMS}, IPv6 in [ ]"),
            (
                "'https://pay-{stag}.test'",
                "{stag} is unknown here; {stage} is the only placeholder",
            ),
            *(
                (
                    f"'https://pay.test{more}'",
                    (
                        "goes on after the host; write https://HOST:PORT: the request has the path, and "
                        "routes say which"
                    ),
                )
                for more in (f"/v1?key={SECRET}", "/v1", "?a", "#a")
            ),
        )
    ),
    (
        ANY,
        to("{ca_cert: ca.pem}"),
        ("12: upstreams.pay.to.address: is missing; add https://HOST:PORT",),
    ),
    (
        ANY,
        to("{address: 'http://127.0.0.1:80', ca_cert: ca.pem, server_name: a}"),
        (
            "12: upstreams.pay.to.ca_cert: is for https://; remove it",
            "12: upstreams.pay.to.server_name: is for https://; remove it",
        ),
    ),
    (
        ANY,
        to("{address: 'https://a', health: up, server_name: 'a/b'}"),
        (
            "12: upstreams.pay.to.server_name: 'a/b' is no host; write the name in the certificate",
            "12: upstreams.pay.to.health: 'up' is no path; begin with /, as in /healthz",
        ),
    ),
    (
        f"    inject: {BASIC}\n{ANY}",
        f"    inject: [{{tls: {{}}}}]\n{ANY}\n    to: http://127.0.0.1:80",
        ("13: upstreams.pay.to: inject has a certificate, which wants https://",),
    ),
    (
        f"    inject: {BASIC}\n{ANY}",
        (
            f"    inject: [{{sigv4: {{region: r, service: s, host: a.test}}}}]\n{ANY}\n"
            "    to: {address: 'https://a.test', preserve_host: true}"
        ),
        (
            (
                "13: upstreams.pay.to: preserve_host would send another host than the one that inject "
                "signs; remove one of them"
            ),
        ),
    ),
]

GATEWAYS = [
    (LISTEN, f"{LISTEN}\ngateway: {{{keys}}}", tuple(f"24: gateway.{line}" for line in told))
    for keys, told in (
        ("node: a", ("address: is missing; say where clients come in, as in 0.0.0.0:8443",)),
        (
            "address: '8443'",
            (f"address: '8443' {HOST}",),
        ),
        (
            "address: '0.0.0.0:0'",
            ("address: '0.0.0.0:0' has no valid port; use IP:PORT, as in 0.0.0.0:8443",),
        ),
        ("address: 'localhost:8443'", (f"address: 'localhost:8443' {HOST}",)),
        ("address: '::1:8443'", (f"address: '::1:8443' {HOST}",)),
        ("address: '[::1:8443'", (f"address: '[::1:8443' {HOST}",)),
        ("address: '10.0.0.1]:8443'", (f"address: '10.0.0.1]:8443' {HOST}",)),
        *(
            (f"address: {address}", (f"address: {address} {ZONE}",))
            for address in ("'[fe80::1%eth0]:8443'", "'[fe80::1%x\", y: {a: \"]:8443'")
        ),
        (
            "address: '0.0.0.0:1', tls: {cert: cert.pem}",
            ("tls.key: is missing; add the private key's file",),
        ),
        (
            "address: '0.0.0.0:1', tls: {key: key.pem}",
            ("tls.cert: is missing; add the certificate's file",),
        ),
        (
            "address: '0.0.0.0:1', node: a/b",
            ("node: 'a/b' cannot name an Envoy; use letters, digits, '_', '.' and '-'",),
        ),
        (
            "address: '0.0.0.0:1', jwt: {jwks: 'http://login.test/keys'}",
            (
                "jwt.issuer: is missing; add it",
                "jwt.jwks: would be fetched in clear text, and with it who may ask; use https://",
            ),
        ),
        (
            "address: '0.0.0.0:1', vaultauthz: {client_cert: cert.pem}",
            ("vaultauthz.client_key: is missing; client_cert needs it",),
        ),
        (
            "address: '0.0.0.0:1', vaultauthz: {address: 'unix:///a'}",
            (
                "vaultauthz.address: 'unix:///a' is no HOST:PORT; a unix socket is known by listen.grpc",
            ),
        ),
    )
]
