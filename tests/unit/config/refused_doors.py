"""Mistakes in ``routes``, ``listen``, ``audit`` and ``unmatched``.

Each: what is replaced in the valid configuration, by what, and the problems then told.
"""

from __future__ import annotations

ROUTE = "  - {host: pay.test, path_prefix: /v1, upstream: pay, stage: prod}"
PORT = "  grpc: 127.0.0.1:9000"
LISTEN = "  grpc: unix:///run/vaultauthz/grpc.sock"

ROUTES = [
    (
        "upstream: pay,",
        "upstream: pya,",
        ("21: routes[0].upstream: 'pya' is no upstream; upstreams: pay, geo",),
    ),
    (ROUTE, "  - {host: a}", ("21: routes[0].upstream: is missing; name the upstream",)),
    (
        "stage: prod}",
        "stage: live}",
        ("21: routes[0].stage: 'live' is no stage of upstream pay; its stages: prod, test",),
    ),
    (
        ROUTE,
        "  - {host: a, upstream: geo, stage: test}",
        ("21: routes[0].stage: 'test' is no stage of upstream geo; its stages: prod",),
    ),
    (", stage: prod}", "}", ("21: routes[0].stage: is missing; pay is in prod, test: say which",)),
    (
        ROUTE,
        "  - {upstream: geo}",
        ("21: routes[0]: matches everything; add host or path_prefix (path_prefix: / for all)",),
    ),
    (
        ROUTE,
        f"{ROUTE}\n  - {{host: PAY.test, path_prefix: /v1, upstream: geo}}",
        ("22: routes[1]: is for the same requests as line 21; remove one of them",),
    ),
    (
        ROUTE,
        "  - {host: a, upstream: geo}\n\n  - {host: a, path_prefix: /, upstream: geo}",
        ("23: routes[1]: is for the same requests as line 21; remove one of them",),
    ),
    (
        "host: pay.test",
        "host: '*.pay.test'",
        ("21: routes[0].host: '*.pay.test' has a wildcard; name each host, or leave host out",),
    ),
    (
        "host: pay.test",
        "host: 'https://pay.test'",
        (
            (
                "21: routes[0].host: 'https://pay.test' is more than a host; "
                "leave out the scheme and path"
            ),
        ),
    ),
    (
        "host: pay.test",
        "host: 'pay.test:443'",
        (
            (
                "21: routes[0].host: 'pay.test:443' has a port, or is IPv6 without [ ]; "
                "every port matches"
            ),
        ),
    ),
    (
        "host: pay.test",
        "host: zahlung.österreich",
        (
            (
                "21: routes[0].host: 'zahlung.österreich' is not ASCII; "
                "write it as requests have it, xn--…"
            ),
        ),
    ),
    (
        "host: pay.test",
        "host: pay test",
        ("21: routes[0].host: 'pay test' is no host; write a name, as in pay.example.com",),
    ),
    (
        "path_prefix: /v1",
        "path_prefix: v1",
        ("21: routes[0].path_prefix: does not begin with /; add it",),
    ),
    (
        ROUTE,
        "  - {host: '*.a', upstream: geo}\n  - {host: '*.b', upstream: geo}",
        (
            "21: routes[0].host: '*.a' has a wildcard; name each host, or leave host out",
            "22: routes[1].host: '*.b' has a wildcard; name each host, or leave host out",
        ),
    ),
]

TLS = "{cert: cert.pem, key: key.pem}"
OPEN = "can be reached from other machines; add"
CLOSE = "or listen on 127.0.0.1 or a unix socket"
LOOPBACK = "every user of this machine (in a pod: every container) could rotate and revoke here"
TOKEN = "add admin_token_file, or use a unix socket (admin_insecure: true lets them)"
ADMIN_HERE = (f"24: listen.admin: {LOOPBACK}; {TOKEN}",)
LISTENING = [
    (LISTEN, f"{LISTEN}\n  admin: 127.0.0.1:2", ADMIN_HERE),
    (LISTEN, f"{LISTEN}\n  admin: localhost:2\n  admin_insecure: false", ADMIN_HERE),
    (LISTEN, f"{LISTEN}\n  admin: '[::1]:2'\n  admin_tls: {TLS}", ADMIN_HERE),
    (
        LISTEN,
        "  admin: 0.0.0.0:9001\n  admin_insecure: true",
        (f"23: listen.admin: 0.0.0.0:9001 {OPEN} admin_tls and admin_token_file, {CLOSE}",),
    ),
    (LISTEN, "  grpc: 0.0.0.0:9000", (f"23: listen.grpc: 0.0.0.0:9000 {OPEN} grpc_tls, {CLOSE}",)),
    (
        LISTEN,
        "  admin: '[::]:9001'",
        (f"23: listen.admin: [::]:9001 {OPEN} admin_tls and admin_token_file, {CLOSE}",),
    ),
    (
        LISTEN,
        f"  admin: ops.test:9001\n  admin_tls: {TLS}",
        (f"23: listen.admin: ops.test:9001 {OPEN} admin_token_file, {CLOSE}",),
    ),
    (
        LISTEN,
        "  grpc: 127.0.0.1",
        ("23: listen.grpc: '127.0.0.1' is no address to listen on; use HOST:PORT or unix:///PATH",),
    ),
    (
        LISTEN,
        "  grpc: /run/grpc.sock",
        (
            (
                "23: listen.grpc: '/run/grpc.sock' is no address to listen on; "
                "use HOST:PORT or unix:///PATH"
            ),
        ),
    ),
    (
        LISTEN,
        "  grpc: unix://grpc.sock",
        ("23: listen.grpc: 'unix://grpc.sock' names no socket; use unix:///PATH, three slashes",),
    ),
    (
        LISTEN,
        f"  grpc: unix:///{'s' * 107}",
        (
            (
                "23: listen.grpc: the socket's path has 108 bytes, the system takes 107; "
                "use a shorter one"
            ),
        ),
    ),
    (
        LISTEN,
        "  grpc: 127.0.0.1:65536",
        ("23: listen.grpc: '127.0.0.1:65536' has no valid port; use 1 to 65535 (0: any free)",),
    ),
    (
        LISTEN,
        "  grpc: ':9000'",
        ("23: listen.grpc: ':9000' has no valid host; use HOST:PORT or unix:///PATH, IPv6 in [ ]",),
    ),
    (
        LISTEN,
        "  grpc: '::1:9000'",
        (
            (
                "23: listen.grpc: '::1:9000' has no valid host; "
                "use HOST:PORT or unix:///PATH, IPv6 in [ ]"
            ),
        ),
    ),
    (LISTEN, f"  grpc_tls: {TLS}", ("22: listen.grpc: is missing; grpc_tls is for HOST:PORT",)),
    (
        LISTEN,
        f"  grpc: unix:///g\n  grpc_tls: {TLS}",
        ("23: listen.grpc: is a unix socket, which has no TLS; remove grpc_tls",),
    ),
    (
        LISTEN,
        f"{PORT}\n  grpc_tls: {{cert: cert.pem, key: none.pem}}",
        (
            (
                "24: listen.grpc_tls.key: DIR/none.pem cannot be read: no such file or directory; "
                "check the path and its rights"
            ),
        ),
    ),
    (
        LISTEN,
        f"{PORT}\n  grpc_tls: {{key: key.pem}}",
        ("24: listen.grpc_tls.cert: is missing; add the certificate's file",),
    ),
    (
        LISTEN,
        f"{PORT}\n  grpc_tls: {{cert: cert.pem, key: key.pem, client_names: [a.test]}}",
        (
            (
                "24: listen.grpc_tls.client_ca: is missing; client_names are of the certificates "
                "that it signed"
            ),
        ),
    ),
    *(
        (
            LISTEN,
            f"{PORT}\n  grpc_tls: {{cert: cert.pem, key: key.pem, client_ca: ca.pem, client_names: {names}}}",
            (f"24: listen.grpc_tls.client_names{told}",),
        )
        for names, told in (
            ("[]", ": is empty, and nobody could ask; name the gateways' certificates"),
            ("gateway", ": wants a list, found text; write it as [a, b] or with -"),
            ("[a.test, '']", "[1]: is empty; give it a value or leave the key out"),
            (
                "['*.test']",
                "[0]: holds a *; names are compared whole, so write each of them out",
            ),
            *(
                (
                    f"['{name}']",
                    (
                        f"[0]: '{name}' is neither a DNS name nor a URI; write a subject alternative "
                        "name of the gateway's certificate, as in gateway.internal or "
                        "spiffe://corp/gateway"
                    ),
                )
                for name in ("10.0.0.1", "::1", "CN=gateway", "a.test:9000", "a b", ".test")
            ),
        )
    ),
    (
        LISTEN,
        f"{LISTEN}\n  admin_tls: {{cert: cert.pem, key: key.pem, client_names: [a.test]}}",
        (
            "22: listen.admin: is missing; admin_tls is for HOST:PORT",
            (
                "24: listen.admin_tls.client_names: unknown key; did you mean client_ca? "
                "Known here: cert, client_ca, key"
            ),
        ),
    ),
    (
        LISTEN,
        f"{LISTEN}\n  drain: 11m",
        ("24: listen.drain: 11m is out of bounds; use 0s to 10m",),
    ),
    (
        LISTEN,
        "  grpc: 127.0.0.1:9000\n  admin: 127.0.0.1:9000",
        ("24: listen.admin: is the address of grpc; use another",),
    ),
    (
        LISTEN,
        "  transport: fast",
        ("23: listen.transport: 'fast' is unknown; use auto, native or grpcio",),
    ),
    (
        LISTEN,
        f"{PORT}\n  grpc_tls: {TLS}\n  transport: native",
        ("25: listen.transport: native has no TLS; use auto, or remove grpc_tls",),
    ),
    (
        LISTEN,
        f"{LISTEN}\naudit: {{file: .}}",
        ("24: audit.file: DIR is a folder; name a file in it",),
    ),
    (
        LISTEN,
        f"{LISTEN}\naudit: {{access_log: .}}",
        ("24: audit.access_log: DIR is a folder; name a file in it",),
    ),
    (
        LISTEN,
        f"{LISTEN}\naudit:\n  access_log: ./one.jsonl\n  file: one.jsonl",
        (
            (
                "25: audit.access_log: is the file that we write; name the one that Envoy writes its "
                "requests to"
            ),
        ),
    ),
    (
        LISTEN,
        f"{LISTEN}\nunmatched: allow",
        ("24: unmatched: 'allow' is unknown; use deny or pass",),
    ),
]
