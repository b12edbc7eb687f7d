"""Reading a login's secret from a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vaultauthz.core.grant import Verdict
from vaultauthz.vault.auth.here import read_secret
from vaultauthz.vault.errors import VaultError


def detail_of(path: Path) -> str:
    """Why it cannot be read, which is worth another try."""
    with pytest.raises(VaultError) as caught:
        read_secret(path, "password")
    failure = caught.value.failure
    assert (failure.verdict, failure.away) == (Verdict.RETRY, False)
    assert failure.reason == "the password file cannot be read"
    return caught.value.detail


def test_the_text_is_taken_without_what_is_around_it(tmp_path: Path) -> None:
    """An editor's newline is no part of a password; a space inside is."""
    path = tmp_path / "password"
    path.write_text("\n  two wörds \r\n")
    assert read_secret(path, "password").reveal() == "two wörds"
    path.write_bytes(b"\xef\xbb\xbf" + "two wörds\r\n".encode())
    assert read_secret(path, "password").reveal() == "two wörds", "nor is a byte order mark"


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    """As Kubernetes mounts a secret, which it replaces by turning the link."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "password").write_text(name)
    link, turned = tmp_path / "now", tmp_path / "then"
    link.symlink_to("first")
    assert read_secret(link / "password", "password").reveal() == "first"
    turned.symlink_to("second")
    turned.rename(link)
    assert read_secret(link / "password", "password").reveal() == "second"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"s3cr3t\xff", "is not text"),
        ("s3cr3t\r\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("s3cr3t".encode("utf-16-be"), "holds NUL bytes; save it as text in UTF-8"),
        ("s3cr3t".encode("utf-32"), "is UTF-16; save it as UTF-8"),
        (b"s" * (64 * 1024 + 1), "is larger than 64 KiB"),
    ],
)
def test_what_is_no_secret_is_said_without_it(tmp_path: Path, content: bytes, told: str) -> None:
    """The path and what is wrong, never what is in it."""
    path = tmp_path / "password"
    path.write_bytes(content)
    assert told in detail_of(path)
    assert str(path) in detail_of(path)
    assert "s3cr3t" not in detail_of(path)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    """Nothing there, a folder, or a name below a file."""
    assert "No such file" in detail_of(tmp_path / "password")
    assert "Is a directory" in detail_of(tmp_path)
    (tmp_path / "file").touch()
    assert "Not a directory" in detail_of(tmp_path / "file" / "password")


def test_a_pipe_without_a_writer_is_not_waited_for(tmp_path: Path) -> None:
    """It is empty now; the login goes on to try again."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "is empty" in detail_of(path)
