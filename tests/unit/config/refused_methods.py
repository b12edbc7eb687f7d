"""Mistakes in the auth methods that came after the first ones, and in lifetimes.

Each: what is replaced in the valid configuration, by what, and the problems then told.
"""

from __future__ import annotations

from .conftest import SECRET
from .refused_auth import AUTH

PLACE = "5: stages.prod.auth"
ROLE = "is missing; add the name of the role in Vault"
ONLY_READABLE = "cannot be read: no such file or directory; check the path and its rights"


def auth(keys: str, *problems: str) -> tuple[str, str, tuple[str, ...]]:
    """An ``auth`` of these keys, and what is then said about it, or a key of it."""
    return AUTH, f"{{{keys}}}", tuple(f"{PLACE}{problem}" for problem in problems)


JWT = [
    auth("method: jwt, token_file: token", f".role: {ROLE}"),
    auth(
        "method: jwt, role: a",
        ".token_file: is missing; add token_file: FILE, or token_command: [PROGRAM, WORD]",
    ),
    auth(
        "method: jwt, role: a, token_file: token, token_command: [cat, token]",
        ": has both token_file and token_command; keep one",
    ),
    auth(
        f"method: jwt, role: a, token_command: print {SECRET}",
        ".token_command: wants a list, as no shell reads it; write [PROGRAM, WORD, WORD]",
    ),
    auth(
        "method: jwt, role: a, token_command: {cat: token}",
        ".token_command: wants a list, found a mapping; write it as [a, b] or with -",
    ),
    auth(
        "method: jwt, role: a, token_command: []",
        ".token_command: is an empty list; name the program that prints the token",
    ),
    *(
        auth(
            f"method: jwt, role: a, token_command: [{word}, x]",
            (
                ".token_command[0]: is no program that can be run here; "
                "write its path, and chmod +x it"
            ),
        )
        for word in ("no-such-program", "/no/such/program", "./token", "/", f"cat {SECRET}")
    ),
    auth(
        "method: jwt, role: a, token_command: [[cat], yes, x]",
        ".token_command[0]: wants text, found a list",
        ".token_command[1]: wants text, found a boolean; put it in quotes to mean the word",
    ),
    auth(
        "method: jwt, role: a, token_file: .", ".token_file: DIR is a folder; name the file in it"
    ),
]

CERT = [
    auth(
        "method: cert",
        ": cert has no certificate; add client_cert and client_key here, or to vault.tls",
    ),
    auth(
        "method: cert, client_cert: cert.pem",
        ".client_key: is missing; client_cert needs it",
    ),
    auth(
        "method: cert, client_key: key.pem",
        ".client_cert: is missing; client_key needs it",
    ),
    auth(
        "method: cert, client_cert: no.pem, client_key: key.pem",
        f".client_cert: DIR/no.pem {ONLY_READABLE}",
    ),
    auth(
        "method: cert, client_cert: cert.pem, client_key: blank",
        ".client_key: DIR/blank is empty; write the secret into it",
    ),
]

PASSWORDS = [
    problem
    for method in ("userpass", "ldap")
    for problem in (
        auth(
            f"method: {method}",
            ".username: is missing; add the user's name",
            ".password_file: is missing; add the file that holds the password",
        ),
        auth(
            f"method: {method}, username: a, password: {SECRET}",
            ".password: does not belong in this file; use password_file",
        ),
        auth(
            f"method: {method}, username: a, password_file: token, password: {SECRET}",
            ".password: does not belong in this file; use password_file",
        ),
        auth(
            f"method: {method}, username: a, password: ab,{SECRET}",
            ".password: does not belong in this file; use password_file",
            (
                ": an unknown key (a secret with a comma needs quotes); "
                "known here: method, mount, password_file, username"
            ),
        ),
        auth(
            f"method: {method}, username: a, password: ab,Password1",
            ".password: does not belong in this file; use password_file",
            (
                ": an unknown key (a secret with a comma needs quotes); "
                "known here: method, mount, password_file, username"
            ),
        ),
        auth(
            f"method: {method}, username: a, password_file: none",
            f".password_file: DIR/none {ONLY_READABLE}",
        ),
        *(
            auth(
                f"method: {method}, username: {name}, password_file: token",
                ".username: has no place in a path of Vault; leave out /",
            )
            for name in ("a/b", "..")
        ),
    )
]

CLOUDS = [
    *(auth(f"method: {method}", f".role: {ROLE}") for method in ("aws", "gcp", "azure")),
    *(
        auth(
            f"method: aws, role: a, region: {region}",
            f".region: '{region}' is no region; write it as in eu-central-1",
        )
        for region in ("eu", "EU-central-1", "evil.test/eu-west-1", "eu-west-1.evil.test")
    ),
    auth(
        "method: aws, role: a, server_id: vault·test",
        ".server_id: is sent as a header; write it in ASCII, as Vault has it configured",
    ),
    auth(
        f"method: aws, role: a, secret_key: {SECRET}",
        ".secret_key: unknown key; known here: method, mount, region, role, server_id",
    ),
    auth(
        "method: gcp, role: a, type: gke, service_account: a@b.test",
        ".type: 'gke' is unknown; use gce or iam",
    ),
    auth(
        "method: gcp, role: a, type: iam",
        ".service_account: is missing; add its e-mail address, or credentials_file: FILE",
    ),
    auth(
        "method: gcp, role: a, service_account: a@b.test, credentials_file: token",
        ".credentials_file: is for type: iam; remove it, or set type",
        ".service_account: is for type: iam; remove it, or set type",
    ),
    auth(
        "method: gcp, role: a, type: iam, service_account: a@b/../c.test",
        ".service_account: 'a@b/../c.test' is no service account; write its e-mail address",
    ),
    auth(
        "method: gcp, role: a, type: iam, credentials_file: none",
        f".credentials_file: DIR/none {ONLY_READABLE}",
    ),
    auth(
        "method: azure, role: a, client_secret: b",
        (
            ".client_secret: unknown key; did you mean client_id? "
            "Known here: client_id, method, mount, resource, role"
        ),
    ),
]

STAGE = f"    auth: {AUTH}"
SOURCE = "{kv: secret/geo}"
SECRET_KEY = "15: upstreams.geo.secret"
LIFETIMES = [
    (
        STAGE,
        f"{STAGE}\n    namespace: a//b",
        (
            "6: stages.prod.namespace: is no namespace; write its path, as in platform/team, or root",
        ),
    ),
    *(
        (
            STAGE,
            f"{STAGE}\n    {key}: {duration}",
            (f"6: stages.prod.{key}: {duration} is out of bounds; use 1s to 87600h",),
        )
        for key in ("ttl", "increment")
        for duration in ("999ms", "87601h", "3651d")
    ),
    *(
        (SOURCE, f"{{{form}: a/b, {key}: 1h}}", (f"{SECRET_KEY}.{key}: goes with {forms} only",))
        for form, key, forms in (
            ("kv", "ttl", "path or pki"),
            ("static_role", "ttl", "path or pki"),
            ("kv", "increment", "path"),
            ("static_role", "increment", "path"),
            ("pki", "increment", "path"),
        )
    ),
    *(
        (
            SOURCE,
            f"{{path: a/b, {key}: 0s}}",
            (f"{SECRET_KEY}.{key}: 0s is out of bounds; use 1s to 87600h",),
        )
        for key in ("ttl", "increment")
    ),
    *(
        (
            SOURCE,
            f"{{{form}, params: {{ttl: 1h}}, ttl: 2h}}",
            (f"{SECRET_KEY}.ttl: is there, and params.ttl too; keep one of them",),
        )
        for form in ("pki: pki/issue/a", "path: a/b, method: write")
    ),
    *(
        (
            "    stages: [prod]",
            f"    {key}: 1h",
            (f"14: upstreams.geo.{key}: belongs in secret, or in a stage",),
        )
        for key in ("ttl", "increment")
    ),
]

METHODS = [*JWT, *CERT, *PASSWORDS, *CLOUDS, *LIFETIMES]
