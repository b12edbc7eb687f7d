"""What loads, and is worth a word."""

from __future__ import annotations

import pytest

from .conftest import VALID, Folder, edited

TLS = "{cert: cert.pem, key: key.pem}"
NO_FIELD = 'has no "{FIELD}" of the secret in it: is a secret in the configuration?'


@pytest.mark.parametrize(
    ("name", "old", "new", "place"),
    [
        ("secret_id", "x", "x", "5: stages.prod.auth.secret_id_file"),
        ("token", "x", "x", "7: stages.test.auth.path"),
        ("ops", "listen:", "listen:\n  admin_token_file: ops", "23: listen.admin_token_file"),
        ("key.pem", "listen:", f"listen:\n  grpc_tls: {TLS}", "23: listen.grpc_tls.key"),
        (
            "key.pem",
            "stages:\n",
            "  tls: {client_cert: cert.pem, client_key: key.pem}\nstages:\n",
            "3: vault.tls.client_key",
        ),
    ],
)
def test_world_readable(folder: Folder, name: str, old: str, new: str, place: str) -> None:
    """A file with a secret that everybody can read is a warning, with the command that mends it."""
    folder.write(name, "anything", 0o644)
    text = VALID if old == new else VALID.replace(old, new)
    assert folder.warnings(text) == (
        f"c.yaml:{place}: everybody on this machine can read it (mode 0644); chmod 600 DIR/{name}",
    )


def test_group_readable_is_fine(folder: Folder) -> None:
    """A group may well share a secret."""
    folder.write("secret_id", "anything", 0o640)
    assert folder.warnings(VALID) == ()


def test_token_file_may_come_later(folder: Folder) -> None:
    """Vault Agent may write the token after we have started."""
    assert folder.warnings(edited("path: token", "path: later/token")) == (
        "c.yaml:7: stages.test.auth.path: DIR/later/token is not there yet; no login before it is",
    )


def test_kubernetes_token_may_come_later(folder: Folder) -> None:
    """A configuration for a cluster can be checked outside of it."""
    text = edited("{method: token_file, path: token}", "{method: kubernetes, role: r}")
    named = text.replace("role: r", "role: r, token_file: none")
    end = "is not there yet; no login before it is"
    assert folder.warnings(text) == (
        (
            "c.yaml:7: stages.test.auth.token_file (by default): "
            f"/var/run/secrets/kubernetes.io/serviceaccount/token {end}"
        ),
    )
    assert folder.warnings(named) == (f"c.yaml:7: stages.test.auth.token_file: DIR/none {end}",)


def test_clear_text(folder: Folder) -> None:
    """Insecure is allowed, and told each time."""
    text = edited("https://vault.test:8200", "http://vault.test:8200\n  insecure: true")
    assert folder.warnings(text) == (
        (
            "c.yaml:2: vault.address: 'http://vault.test:8200' sends logins and secrets in "
            "clear text; "
            "use https://"
        ),
    )


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ("bearer: hunter2", "bearer"),
        ("basic: {username: me, password: hunter2}", "basic.password"),
        ("header: {name: a, value: hunter2}", "header.value"),
        ("query: {name: a, value: hunter2}", "query.value"),
    ],
)
def test_literal_credential(folder: Folder, form: str, place: str) -> None:
    """A credential without a field of the secret is most likely a secret itself."""
    warnings = folder.warnings(edited('header: {name: X-Api-Key, value: "{key}"}', form))
    assert warnings == (f"c.yaml:17: upstreams.geo.inject[0].{place}: {NO_FIELD}",)
