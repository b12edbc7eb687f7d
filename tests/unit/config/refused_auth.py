"""Mistakes in ``stages`` and their ``auth``.

Each: what is replaced in the valid configuration, by what, and the problems then told.
"""

from __future__ import annotations

from .conftest import SECRET

AUTH = "{method: approle, role_id: gateway, secret_id_file: secret_id}"
METHODS = "approle, kubernetes, jwt, cert, userpass, ldap, aws, gcp, azure or token_file"
APPROLE = "method, mount, role_id, role_id_file, secret_id, secret_id_file, secret_id_wrapped"

STAGES = [
    (
        AUTH,
        "{role_id: a}",
        (f"5: stages.prod.auth: says no method; add method: {METHODS}",),
    ),
    (
        AUTH,
        "{method: approl, role_id: a}",
        (f"5: stages.prod.auth.method: 'approl' is unknown; use {METHODS}",),
    ),
    (
        AUTH,
        "{method: oidc, role: a}",
        ("5: stages.prod.auth.method: oidc wants a person at a browser; use jwt",),
    ),
    (
        AUTH,
        "{method: approle}",
        ("5: stages.prod.auth.role_id: is missing; add the role's id, or role_id_file: FILE",),
    ),
    (
        AUTH,
        "{method: kubernetes}",
        ("5: stages.prod.auth.role: is missing; add the name of the role in Vault",),
    ),
    (AUTH, "{method: token_file}", ("5: stages.prod.auth.path: is missing; add path: FILE",)),
    *(
        (
            AUTH,
            f"{{method: approle, role_id: a, {keys}}}",
            (
                (
                    "5: stages.prod.auth.secret_id_wrapped: is about secret_id_file; "
                    "add that, or remove this"
                ),
            ),
        )
        for keys in (
            "secret_id_wrapped: true",
            "secret_id_wrapped: false",
            f"secret_id: {SECRET}, secret_id_wrapped: true",
        )
    ),
    (
        AUTH,
        "{method: approle, role_id: a, secret_id_file: secret_id, secret_id_wrapped: 1}",
        ("5: stages.prod.auth.secret_id_wrapped: wants true or false, found a number",),
    ),
    (
        AUTH,
        "{method: approle, role_id: a, secret_id_file: ., secret_id_wrapped: true}",
        ("5: stages.prod.auth.secret_id_file: DIR is a folder; name the file in it",),
    ),
    (
        AUTH,
        "{method: approle, role_id: a, role_id_file: token}",
        ("5: stages.prod.auth: has both role_id and role_id_file; keep one",),
    ),
    (
        AUTH,
        "{method: approle, role_id_file: none}",
        (
            (
                "5: stages.prod.auth.role_id_file: DIR/none cannot be read: "
                "no such file or directory; check the path and its rights"
            ),
        ),
    ),
    (
        AUTH,
        f"{{method: approle, role_id: a, secret_id: {SECRET}, secret_id_file: secret_id}}",
        ("5: stages.prod.auth: has both secret_id and secret_id_file; keep the file",),
    ),
    (
        AUTH,
        f"{{method: approle, role_id: a, secret_id: ab,{SECRET}}}",
        (
            (
                "5: stages.prod.auth: an unknown key (a secret with a comma needs quotes); "
                f"known here: {APPROLE}"
            ),
        ),
    ),
    (
        AUTH,
        f"{{method: approle, role_id: a, secret_id: ab,{SECRET},{SECRET}}}",
        (
            "5: stages.prod.auth: a key is there twice, first at line 5; remove one of them",
            (
                "5: stages.prod.auth: an unknown key (a secret with a comma needs quotes); "
                f"known here: {APPROLE}"
            ),
        ),
    ),
    (
        AUTH,
        "{method: approle, role_id: a, token: b}",
        ((f"5: stages.prod.auth.token: unknown key; known here: {APPROLE}"),),
    ),
    (
        AUTH,
        f"{{method: approle, role_id: a, secret_id: [{SECRET}]}}",
        ("5: stages.prod.auth.secret_id: wants text, found a list",),
    ),
    (
        AUTH,
        "{method: approle, role_id: a, mount: /auth//approle/}",
        (
            (
                "5: stages.prod.auth.mount: is no mount of Vault's; "
                "write where it is below auth/, as in approle"
            ),
        ),
    ),
    (
        "secret_id_file: secret_id",
        "secret_id_file: none",
        (
            (
                "5: stages.prod.auth.secret_id_file: DIR/none cannot be read: "
                "no such file or directory; check the path and its rights"
            ),
        ),
    ),
    (
        "secret_id_file: secret_id",
        "secret_id_file: .",
        ("5: stages.prod.auth.secret_id_file: DIR is not a regular file; name one",),
    ),
    (
        "secret_id_file: secret_id",
        "secret_id_file: blank",
        ("5: stages.prod.auth.secret_id_file: DIR/blank is empty; write the secret into it",),
    ),
    (
        "secret_id_file: secret_id",
        "secret_id_file: pipe",
        ("5: stages.prod.auth.secret_id_file: DIR/pipe is not a regular file; name one",),
    ),
    (
        "secret_id_file: secret_id",
        "secret_id_file: token/x",
        (
            (
                "5: stages.prod.auth.secret_id_file: DIR/token/x cannot be read: not a directory; "
                "check the path and its rights"
            ),
        ),
    ),
    ("path: token", "path: .", ("7: stages.test.auth.path: DIR is a folder; name the file in it",)),
    (
        "    auth: {method: token_file, path: token}",
        "    aut: {}",
        (
            "6: stages.test.auth: is missing; add it",
            (
                "7: stages.test.aut: unknown key; did you mean auth? "
                "Known here: auth, increment, namespace, ttl"
            ),
        ),
    ),
]
