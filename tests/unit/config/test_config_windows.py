"""Files as editors and shells of Windows write them: byte order marks, UTF-16, CR LF."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from tests.unit.config.conftest import SECRET, VALID, Folder, edited
from vaultauthz.config import load

UTF_16 = [SECRET.encode("utf-16"), codecs.BOM_UTF16_BE + SECRET.encode("utf-16-be")]
AUTH = "method: approle, role_id: gateway, secret_id_file: secret_id"
TLS = "https://vault.test:8200\n  tls: "


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_configuration_itself(folder: Folder, mark: str, newline: str) -> None:
    """A mark and CR LF change nothing."""
    path = folder.path / "c.yaml"
    path.write_bytes((mark + VALID.replace("\n", newline)).encode())
    path.chmod(0o600)
    assert load(path, {}) == folder.parse(VALID)


@pytest.mark.parametrize("data", UTF_16)
@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (AUTH, AUTH, "stages.prod.auth.secret_id_file"),
        (AUTH, "method: approle, role_id_file: secret_id", "stages.prod.auth.role_id_file"),
        (
            AUTH,
            "method: ldap, username: a, password_file: secret_id",
            "stages.prod.auth.password_file",
        ),
        ("https://vault.test:8200", TLS + "{ca_cert: secret_id}", "vault.tls.ca_cert"),
        (
            "https://vault.test:8200",
            TLS + "{client_cert: cert.pem, client_key: secret_id}",
            "vault.tls.client_key",
        ),
    ],
)
def test_utf_16_is_told(folder: Folder, data: bytes, old: str, new: str, key: str) -> None:
    """With the key, the file and the way out, before a login fails by it."""
    (folder.path / "secret_id").write_bytes(data)
    problems = folder.problems(edited(old, new))
    told = [line for line in problems if f": {key}: " in line]
    assert told
    assert told[0].endswith("DIR/secret_id is UTF-16; save it as UTF-8")


def test_what_something_else_writes_is_warned_of(folder: Folder) -> None:
    """It may be written anew, and well, before the first login."""
    (folder.path / "token").write_bytes(UTF_16[0])
    (told,) = folder.warnings(VALID)
    assert told.endswith("stages.test.auth.path: DIR/token is UTF-16; save it as UTF-8")


def test_a_certificate_in_der(folder: Folder) -> None:
    """It is no text either; PEM is."""
    (folder.path / "ca.pem").write_bytes(b"0\x82\x01\x00\x00")
    (told,) = folder.problems(edited("https://vault.test:8200", TLS + "{ca_cert: ca.pem}"))
    assert told.endswith(
        "DIR/ca.pem holds NUL bytes; save it as text in UTF-8 (a certificate as PEM)"
    )


def test_a_mark_alone_is_nothing(folder: Folder, tmp_path: Path) -> None:
    """A file with a mark and a line's end is empty."""
    (tmp_path / "secret_id").write_bytes(codecs.BOM_UTF8 + b"\r\n")
    (told,) = folder.problems(VALID)
    assert told.endswith("secret_id is empty; write the secret into it")


def test_a_mark_before_a_secret(folder: Folder) -> None:
    """It is no part of it, and no reason to say anything."""
    (folder.path / "secret_id").write_bytes(codecs.BOM_UTF8 + SECRET.encode() + os.linesep.encode())
    assert folder.problems(VALID) == ()
    assert folder.warnings(VALID) == ()
