"""Mistakes in the shape of a file and in ``vault``.

Each: what is replaced in the valid configuration, by what, and the problems then told.
"""

from __future__ import annotations

from .conftest import SECRET

KNOWN = (
    "callers, callers_enforced_by, deny, hold, idle, inject, "
    "kong_query_in_logs, kong_username_in_logs, max_callers, optional, per, secret, stages, strip, to"
)

SHAPE = [
    (
        "  address:",
        "  adress:",
        (
            "1: vault.address: is missing; add https://HOST:PORT, or set $VAULT_ADDR",
            (
                "2: vault.adress: unknown key; did you mean address? "
                "Known here: address, calls_per_second, insecure, namespace, timeout, tls"
            ),
        ),
    ),
    (
        "routes:",
        "proxies:",
        (
            (
                "20: proxies: unknown key; did you mean routes? "
                "Known here: audit, gateway, listen, routes, stages, unmatched, upstreams, vault"
            ),
        ),
    ),
    (
        "    stages: [prod]",
        "    zzz: 1",
        (f"14: upstreams.geo.zzz: unknown key; known here: {KNOWN}",),
    ),
    (
        "  address: https://vault.test:8200",
        "  - a",
        ("1: vault: wants a mapping, found a list; write it as key: value",),
    ),
    (
        "    stages: [prod]",
        "    stages: prod",
        ("14: upstreams.geo.stages: wants a list, found text; write it as [a, b] or with -",),
    ),
    (
        "https://vault.test:8200",
        "",
        ("2: vault.address: is empty; give it a value or leave the key out",),
    ),
    (
        "role_id: gateway",
        "role_id: on",
        (
            (
                "5: stages.prod.auth.role_id: wants text, found a boolean; "
                "put it in quotes to mean the word"
            ),
        ),
    ),
    (
        "role_id: gateway",
        'role_id: "a\\nb"',
        (
            (
                "5: stages.prod.auth.role_id: holds a line break or control character; "
                "write it on one line"
            ),
        ),
    ),
    (
        "    stages: [prod]",
        "    optional: 1",
        ("14: upstreams.geo.optional: wants true or false, found a number",),
    ),
    (
        "    stages: [prod]",
        "    optional: 'yes'",
        ("14: upstreams.geo.optional: wants true or false, found text",),
    ),
    (
        "  pay:",
        "  pay: {}\n  pay:",
        (
            "9: upstreams.pay.inject: is missing; say where the credential goes",
            "9: upstreams.pay.secret: is missing; add it",
            (
                "9: upstreams.pay.callers: is missing; "
                "say who may use this credential: callers: any, or a list of rules"
            ),
            "10: upstreams.pay: the key is there twice, first at line 9; remove one of them",
        ),
    ),
    (
        "    callers: any",
        "    callers: any\n    [a, b]: 1",
        ("13: upstreams.pay: a key is not text; quote a value that begins with {",),
    ),
    (
        "    callers: any",
        "    callers: any\n    <<: {per: instance}",
        ("13: upstreams.pay.'<<': merge keys are not supported; write the keys out",),
    ),
    (
        "  geo:",
        '  "a\\nb c":',
        (
            (
                "13: upstreams.'a\\nb c': 'a\\nb c' cannot name an upstream; "
                "use letters, digits, '_', "
                "'.' and '-', the first a letter or digit, at most 100"
            ),
        ),
    ),
]

VAULT = [
    (
        "https://vault.test:8200",
        "http://vault.test:8200",
        (
            (
                "2: vault.address: 'http://vault.test:8200' would send logins and secrets in "
                "clear text; "
                "use https:// (or set vault.insecure: true, on a network that only you can read)"
            ),
        ),
    ),
    (
        "https://vault.test:8200",
        "http://localhost.evil.test",
        (
            (
                "2: vault.address: 'http://localhost.evil.test' would send logins and secrets in "
                "clear "
                "text; "
                "use https:// (or set vault.insecure: true, on a network that only you can read)"
            ),
        ),
    ),
    (
        "https://vault.test:8200",
        "vault.test:8200",
        ("2: vault.address: 'vault.test:8200' is no address of Vault; use https://HOST:PORT",),
    ),
    (
        "https://vault.test:8200",
        "https://vault.test:82000",
        (
            (
                "2: vault.address: 'https://vault.test:82000' is no address of Vault; "
                "use https://HOST:PORT"
            ),
        ),
    ),
    (
        "https://vault.test:8200",
        "https://:8200",
        ("2: vault.address: 'https://:8200' has no valid host; use https://HOST:PORT",),
    ),
    (
        "https://vault.test:8200",
        "'https://[::1'",
        ("2: vault.address: 'https://[::1' is no address of Vault; use https://HOST:PORT",),
    ),
    (
        "https://vault.test:8200",
        "https://vault.test/v1",
        (
            (
                "2: vault.address: 'https://vault.test/v1' goes on after the host; "
                "use https://HOST:PORT"
            ),
        ),
    ),
    (
        "https://vault.test:8200",
        f"https://me:{SECRET}@vault.test",
        (
            (
                "2: vault.address: holds a user name or password; "
                "leave it out, stages say how to log in"
            ),
        ),
    ),
    (
        "https://vault.test:8200",
        "unix://vault.sock",
        ("2: vault.address: 'unix://vault.sock' names no socket; use unix:///PATH, three slashes",),
    ),
    (
        "https://vault.test:8200",
        "{a: b}",
        ("2: vault.address: wants text, found a mapping",),
    ),
    (
        "https://vault.test:8200",
        "[a, [https://b], http://c.test]",
        (
            "2: vault.address[0]: 'a' is no address of Vault; use https://HOST:PORT",
            "2: vault.address[1]: wants text, found a list",
            (
                "2: vault.address[2]: 'http://c.test' would send logins and secrets in clear text; "
                "use https:// (or set vault.insecure: true, on a network that only you can read)"
            ),
        ),
    ),
    (
        "https://vault.test:8200",
        "[]",
        ("2: vault.address: lists 0 addresses; name 1 to 8 nodes of one cluster",),
    ),
    (
        "https://vault.test:8200",
        f"[{', '.join(f'https://v{n}' for n in range(9))}]",
        ("2: vault.address: lists 9 addresses; name 1 to 8 nodes of one cluster",),
    ),
    (
        "https://vault.test:8200",
        "[https://a:8200, unix:///run/v.sock, https://A:8200/, unix:///run/V.sock]",
        ("2: vault.address[2]: is the address of vault.address[0], too; remove one of them",),
    ),
    (
        "https://vault.test:8200",
        "https://a\n  namespace: a//b",
        ("3: vault.namespace: is no namespace; write its path, as in platform/team, or root",),
    ),
    (
        "https://vault.test:8200",
        "https://a\n  tls: {ca_cert: no.pem}",
        (
            (
                "3: vault.tls.ca_cert: DIR/no.pem cannot be read: no such file or directory; "
                "check the path and its rights"
            ),
        ),
    ),
    (
        "https://vault.test:8200",
        "https://a\n  tls: {client_cert: cert.pem}",
        ("3: vault.tls.client_key: is missing; client_cert needs it",),
    ),
    (
        "https://vault.test:8200",
        "https://a\n  tls: {client_key: key.pem}",
        ("3: vault.tls.client_cert: is missing; client_key needs it",),
    ),
]

FORMS = "write each number with its unit: 500ms, 30s, 5m, 1h30m or 30d"
DURATIONS = [
    ("5", f"'5' has no unit; {FORMS}"),
    ("1.5", f"'1.5' has no unit; {FORMS}"),
    ("5 minutes", f"'5 minutes' is not a duration; {FORMS}"),
    ("1h30", f"'1h30' is not a duration; {FORMS}"),
    ("1H", f"'1H' is not a duration; {FORMS}"),
    ("2w", f"'2w' is not a duration; {FORMS}"),
    ("-5s", f"'-5s' is not a duration; {FORMS}"),
    ("s", f"'s' is not a duration; {FORMS}"),
    (".s", f"'.s' is not a duration; {FORMS}"),
    ("1h30m", "1h30m is out of bounds; use 100ms to 1m"),
    ("2d", "2d is out of bounds; use 100ms to 1m"),
    ("0s", "0s is out of bounds; use 100ms to 1m"),
    ("99ms", "99ms is out of bounds; use 100ms to 1m"),
    ("61s", "61s is out of bounds; use 100ms to 1m"),
    ("[5s]", "wants text, found a list"),
]
