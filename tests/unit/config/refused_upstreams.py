"""Mistakes in ``upstreams``.

Each: what is replaced in the valid configuration, by what, and the problems then told.
"""

from __future__ import annotations

from .conftest import SECRET

HEADER = '{header: {name: X-Api-Key, value: "{key}"}}'
FORMS = "header, bearer, basic, query, cookie, sigv4, hmac or tls"

SECRETS = [
    (
        "{kv: secret/geo}",
        "{}",
        ("15: upstreams.geo.secret: names no secret; add kv, path, pki or static_role",),
    ),
    (
        "{kv: secret/geo}",
        "{kv: a/b, path: a/b}",
        ("15: upstreams.geo.secret: has both kv and path; keep one",),
    ),
    (
        "{kv: secret/geo}",
        "{static_role: a/b, params: {c: d}}",
        ("15: upstreams.geo.secret.params: goes with path or pki only",),
    ),
    (
        "{kv: secret/geo}",
        "{path: a/b, params: {c: d}}",
        ("15: upstreams.geo.secret.params: goes with method: write",),
    ),
    (
        "{kv: secret/geo}",
        "{path: a/b, method: post}",
        ("15: upstreams.geo.secret.method: 'post' is unknown; use read or write",),
    ),
    (
        "{kv: secret/geo}",
        "{pki: pki/issue/geo, params: {common_name: '{host}'}}",
        (
            (
                "15: upstreams.geo.secret.params.common_name: {host} is unknown here; "
                "{stage} is the only placeholder"
            ),
        ),
    ),
    (
        "{kv: secret/geo}",
        "{kv: secret/geo, version: newest}",
        (
            (
                "15: upstreams.geo.secret.version: wants a whole number from 1 to 999999999, "
                "found 'newest'"
            ),
        ),
    ),
    (
        "{kv: secret/geo}",
        "{path: a/b, refresh: 5m}",
        ("15: upstreams.geo.secret.refresh: goes with kv only",),
    ),
    (
        "{kv: secret/geo}",
        "{kv: secret}",
        (
            (
                "15: upstreams.geo.secret.kv: has no name after its mount; "
                "write MOUNT/NAME, as in secret/geocoder"
            ),
        ),
    ),
    (
        "{kv: secret/geo}",
        "{kv: secret/geo, refresh: 500ms}",
        ("15: upstreams.geo.secret.refresh: 500ms is out of bounds; use 1s to 24h",),
    ),
    (
        "{kv: secret/geo}",
        "{kv: secret/geo, max_stale: 1m}",
        ("15: upstreams.geo.secret.max_stale: 1m is out of bounds; use 5m to 768h",),
    ),
    (
        "{kv: secret/geo}",
        "{path: '/a/b'}",
        (
            (
                "15: upstreams.geo.secret.path: is no path in Vault; "
                "write mount/name, without / at its ends"
            ),
        ),
    ),
    *(
        (
            "{kv: secret/geo}",
            f"{{{form}: '{path}'}}",
            (
                (
                    f"15: upstreams.geo.secret.{form}: has white space at its ends, "
                    "which vault read leaves out; remove it"
                ),
            ),
        )
        for form, path in (("path", "a/b "), ("path", " a/b"), ("static_role", "a/static-creds/b "))
    ),
    (
        "{kv: secret/geo}",
        "{path: a/../b}",
        (
            (
                "15: upstreams.geo.secret.path: is no path in Vault; "
                "write mount/name, without / at its ends"
            ),
        ),
    ),
    (
        "{kv: secret/geo}",
        "{path: v1/a/b}",
        ("15: upstreams.geo.secret.path: begins with v1/, which is of the HTTP API; leave it out",),
    ),
    (
        "{kv: secret/geo}",
        "{kv: /v1/secret/data/b}",
        ("15: upstreams.geo.secret.kv: begins with v1/, which is of the HTTP API; leave it out",),
    ),
    (
        "{kv: secret/geo}",
        "{kv: 'secret/b?version=2'}",
        (
            "15: upstreams.geo.secret.kv: has a query, which is of the HTTP API; use version or params",
        ),
    ),
    (
        "{kv: secret/geo}",
        '{kv: "secret/a\u00a0b"}',
        (
            "15: upstreams.geo.secret.kv: holds a character that Vault refuses, as it cannot be printed",
        ),
    ),
    (
        "{kv: secret/geo}",
        '{static_role: "a/b/ /./c"}',
        (
            (
                "15: upstreams.geo.secret.static_role: is no path in Vault; "
                "write mount/name, without / at its ends"
            ),
        ),
    ),
    (
        "{kv: secret/geo}",
        "{path: 'a/{env}'}",
        (
            (
                "15: upstreams.geo.secret.path: {env} is unknown here; "
                "{stage} is the only placeholder"
            ),
        ),
    ),
    (
        "{kv: secret/geo}",
        "{path: 'a/{stage'}",
        ("15: upstreams.geo.secret.path: has a stray { or }; {stage} is the only placeholder",),
    ),
]

BRACES = "has a { or } that encloses no field's name; write {{ and }} for the characters"
INJECT = [
    (
        HEADER,
        "{header: {name: a, value: 'Key {k} '}}",
        (
            (
                "17: upstreams.geo.inject[0].header.value: ends with a blank, "
                "which a header cannot carry there; remove it"
            ),
        ),
    ),
    (
        HEADER,
        "{bearer: ' {t}'}",
        (
            (
                "17: upstreams.geo.inject[0].bearer: begins with a blank, "
                "which a header cannot carry there; remove it"
            ),
        ),
    ),
    (
        HEADER,
        "{}",
        (f"17: upstreams.geo.inject[0]: is empty; add {FORMS}",),
    ),
    (
        HEADER,
        "{baerer: '{t}'}",
        (
            (
                "17: upstreams.geo.inject[0].baerer: unknown key; did you mean bearer? "
                "Known here: header, bearer, basic, query, cookie, sigv4, hmac, tls"
            ),
        ),
    ),
    (
        HEADER,
        "{bearer: '{t}', query: {name: a, value: '{t}'}}",
        (
            (
                "17: upstreams.geo.inject[0]: has bearer and query in one entry; "
                "begin each with its own -"
            ),
        ),
    ),
    (
        HEADER,
        "{bearer: {token}}",
        (
            (
                "17: upstreams.geo.inject[0].bearer: wants text, found a mapping; "
                'put it in quotes: "{FIELD}"'
            ),
        ),
    ),
    (
        HEADER,
        "{basic: {username: {u}, password: '{p}'}}",
        (
            (
                "17: upstreams.geo.inject[0].basic.username: wants text, found a mapping; "
                'put it in quotes: "{FIELD}"'
            ),
        ),
    ),
    (
        HEADER,
        "{basic: {username: '{u}'}}",
        (
            (
                "17: upstreams.geo.inject[0].basic.password: is missing; "
                'add "{FIELD}", a field of the secret'
            ),
        ),
    ),
    (HEADER, f"{{bearer: '{SECRET}{{'}}", (f"17: upstreams.geo.inject[0].bearer: {BRACES}",)),
    (HEADER, f"{{bearer: '{{{SECRET} }}'}}", (f"17: upstreams.geo.inject[0].bearer: {BRACES}",)),
    (
        HEADER,
        "{header: {value: '{t}'}}",
        ("17: upstreams.geo.inject[0].header.name: is missing; add the header's name",),
    ),
    (
        HEADER,
        "{header: {name: ':path', value: '{t}'}}",
        (
            (
                "17: upstreams.geo.inject[0].header.name: ':path' is a pseudo header, "
                "which cannot be set; name another"
            ),
        ),
    ),
    (
        HEADER,
        "{header: {name: Host, value: '{t}'}}",
        (
            (
                "17: upstreams.geo.inject[0].header.name: host says where a request goes "
                "and cannot be set; name another header"
            ),
        ),
    ),
    *(
        (
            HEADER,
            f"{{header: {{name: {name}, value: '{{t}}'}}}}",
            (
                (
                    f"17: upstreams.geo.inject[0].header.name: {name.lower()} belongs to one "
                    "connection "
                    "and cannot be set; name another"
                ),
            ),
        )
        for name in (
            "Connection",
            "Transfer-Encoding",
            "content-length",
            "TE",
            "Upgrade",
            "Keep-Alive",
            "Trailer",
            "Proxy-Connection",
        )
    ),
    (
        HEADER,
        "{header: {name: 'X Y', value: '{t}'}}",
        (
            (
                "17: upstreams.geo.inject[0].header.name: holds a character that HTTP keeps out "
                "of names; "
                "use letters and '-'"
            ),
        ),
    ),
    (
        HEADER,
        "{header: {name: Cookie, value: '{t}'}}",
        (
            (
                "17: upstreams.geo.inject[0].header.name: cookie as a header would drop the "
                "client's "
                "other cookies; use the cookie form"
            ),
        ),
    ),
    (
        HEADER,
        "{cookie: {name: 'a;b', value: '{t}'}}",
        (
            (
                "17: upstreams.geo.inject[0].cookie.name: holds a character that HTTP keeps out "
                "of names; "
                "use letters and '-'"
            ),
        ),
    ),
    (
        HEADER,
        "{bearer: '{t}'}\n      - {basic: {username: '{u}', password: '{p}'}}",
        (
            (
                "18: upstreams.geo.inject[1]: sets the header authorization, as line 17 "
                "(upstreams.geo.inject[0]) does; keep one of them"
            ),
        ),
    ),
    (
        HEADER,
        f"{HEADER}\n      - {{header: {{name: x-api-KEY, value: '{{b}}'}}}}",
        (
            (
                "18: upstreams.geo.inject[1]: sets the header x-api-key, as line 17 "
                "(upstreams.geo.inject[0]) does; keep one of them"
            ),
        ),
    ),
    (
        HEADER,
        "{query: {name: a, value: '{t}'}}\n      - {query: {name: a, value: '{t}'}}",
        (
            (
                "18: upstreams.geo.inject[1]: sets the query parameter a, as line 17 "
                "(upstreams.geo.inject[0]) does; keep one of them"
            ),
        ),
    ),
    (
        HEADER,
        "{cookie: {name: a, value: '{t}'}}\n      - {cookie: {name: a, value: '{t}'}}",
        (
            (
                "18: upstreams.geo.inject[1]: sets the cookie a, as line 17 "
                "(upstreams.geo.inject[0]) does; keep one of them"
            ),
        ),
    ),
    (
        f"\n      - {HEADER}",
        " []",
        (f"16: upstreams.geo.inject: sets nothing; add {FORMS}",),
    ),
    (
        "    stages: [prod]",
        "    strip: [X-API-Key, a b]",
        (
            (
                "14: upstreams.geo.strip[0]: x-api-key is set by inject, which drops the "
                "client's already; "
                "remove it"
            ),
            (
                "14: upstreams.geo.strip[1]: holds a character that HTTP keeps out of names; "
                "use letters and '-'"
            ),
        ),
    ),
]

WHO = "say who may use this credential: callers: any, or a list of rules"
RULE = "{principal: spiffe://corp/shop}"
CALLERS = [
    ("    callers: any\n", "", (f"9: upstreams.pay.callers: is missing; {WHO}",)),
    (
        "callers: any",
        "callers: all",
        (f"12: upstreams.pay.callers: wants any or a list of rules, found other text; {WHO}",),
    ),
    (
        "callers: any",
        "callers:",
        (f"12: upstreams.pay.callers: wants any or a list of rules, found nothing; {WHO}",),
    ),
    (
        "callers: any",
        "callers: {group: a}",
        (f"12: upstreams.pay.callers: wants any or a list of rules, found a mapping; {WHO}",),
    ),
    (
        "callers: any",
        "callers: []",
        (f"12: upstreams.pay.callers: is an empty list, so that nobody may; {WHO}",),
    ),
    (
        RULE,
        "{}",
        (
            (
                "19: upstreams.geo.callers[0]: is empty and would match everybody; "
                "add one of claims, consumer, group, methods, path_prefix, principal"
            ),
        ),
    ),
    (
        RULE,
        "{principle: a}",
        (
            (
                "19: upstreams.geo.callers[0].principle: unknown key; did you mean principal? "
                "Known here: claims, consumer, group, methods, path_prefix, principal"
            ),
        ),
    ),
    (
        RULE,
        "shop",
        ("19: upstreams.geo.callers[0]: wants a mapping, found text; write it as key: value",),
    ),
    (
        RULE,
        "{methods: GET}",
        (
            (
                "19: upstreams.geo.callers[0].methods: wants a list, found text; "
                "write it as [a, b] or with -"
            ),
        ),
    ),
    (
        RULE,
        "{methods: []}",
        (
            (
                "19: upstreams.geo.callers[0].methods: is an empty list, so that nothing matches; "
                "name a method or remove it"
            ),
        ),
    ),
    (
        RULE,
        "{path_prefix: v1}",
        ("19: upstreams.geo.callers[0].path_prefix: does not begin with /; add it",),
    ),
    (
        RULE,
        "{path_prefix: /a/../b}",
        (
            (
                "19: upstreams.geo.callers[0].path_prefix: is no plain path; "
                "leave out ?, #, \\ and the segments . and .."
            ),
        ),
    ),
    (
        RULE,
        "{claims: {}}",
        ("19: upstreams.geo.callers[0].claims: is empty; add NAME: VALUE, or remove it",),
    ),
    (
        RULE,
        "{claims: {kubernetes.io: {namespace: b}}}",
        (
            (
                "19: upstreams.geo.callers[0].claims.kubernetes.io: wants a value, found a mapping; "
                "write nested names with dots, as in realm.roles"
            ),
        ),
    ),
    (
        RULE,
        "{claims: {a: [b]}}",
        ("19: upstreams.geo.callers[0].claims.a: wants text, found a list",),
    ),
    (
        RULE,
        "{claims: {a: yes}}",
        (
            (
                "19: upstreams.geo.callers[0].claims.a: may be a word or a boolean; "
                "write true or false, or put it in quotes"
            ),
        ),
    ),
    *(
        (
            RULE,
            f"{{claims: {{a: {number}}}}}",
            (
                (
                    "19: upstreams.geo.callers[0].claims.a: is no plain whole number; "
                    "put it in quotes to mean the text"
                ),
            ),
        )
        for number in ("1.5", "010", "0x1f", "12:30:00", "1_000", ".inf")
    ),
    (
        RULE,
        "{group: a}\n    deny: [{}]",
        (
            (
                "20: upstreams.geo.deny[0]: is empty and would match everybody; "
                "add one of claims, consumer, group, methods, path_prefix, principal"
            ),
        ),
    ),
]

UPSTREAMS = [
    (
        "    stages: [prod]",
        "    stages: [prod, live]",
        ("14: upstreams.geo.stages[1]: 'live' is no stage; stages: prod, test",),
    ),
    (
        "    stages: [prod]",
        "    stages: []",
        ("14: upstreams.geo.stages: is an empty list; name a stage, or remove it for every stage",),
    ),
    (
        "    stages: [prod]",
        "    per: person",
        ("14: upstreams.geo.per: 'person' is unknown; use instance, caller or request",),
    ),
    *(
        (
            "    stages: [prod]",
            f"    {key}: 1",
            (f"14: upstreams.geo.{key}: is for per: {per}; remove it, or set per",),
        )
        for key, per in (("hold", "request"), ("max_callers", "caller"), ("idle", "caller"))
    ),
    *(
        (
            "    stages: [prod]",
            f"    {key}: accepted",
            (f"14: upstreams.geo.{key}: is for inject: {form}; remove it",),
        )
        for key, form in (
            ("kong_query_in_logs", "query"),
            (
                "kong_username_in_logs",
                "basic, with the credential as its user name, or encoded by somebody else",
            ),
        )
    ),
    (
        "    stages: [prod]",
        "    kong_query_in_logs: true",
        (
            "14: upstreams.geo.kong_query_in_logs: wants text, found a boolean; put it in quotes to mean the word",
        ),
    ),
    (
        "    stages: [prod]",
        "    kong_query_in_logs: ok",
        ("14: upstreams.geo.kong_query_in_logs: 'ok' is unknown; use accepted",),
    ),
    (
        "    stages: [prod]",
        "    per: caller\n    max_callers: none",
        ("15: upstreams.geo.max_callers: wants a whole number from 1 to 100000, found 'none'",),
    ),
    (
        "    stages: [prod]",
        "    per: request\n    hold: 2h",
        ("15: upstreams.geo.hold: 2h is out of bounds; use 1s to 1h",),
    ),
]
