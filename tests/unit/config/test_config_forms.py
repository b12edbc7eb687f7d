"""Each file of ``config.forms`` says all of its form, and what it says is what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaultauthz.config import forms
from vaultauthz.config.inject import FORMS
from vaultauthz.config.keys import Reader
from vaultauthz.core.injection import Injection, header_names, render
from vaultauthz.core.secret import Secret

from .conftest import Folder, edited

CERT = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----"
# One of each, as it is written; the fields that it names hold "hush-…".
WRITTEN = {
    "header": '{name: X-Api-Key, value: "Key {a}"}',
    "bearer": '"{a}"',
    "basic": '{username: "{a}", password: "{b}"}',
    "query": '{name: key, value: "{a}"}',
    "cookie": '{name: sid, value: "{a}"}',
    "sigv4": "{region: eu-central-1, service: execute-api}",
    "hmac": '{key: "{a}", sign: ["{body}"], headers: {X-Sig: "{signature}", X-Id: "{b}"}}',
    "tls": "{}",
}
FIELDS = {
    **{name: Secret(f"hush-{name}") for name in ("a", "b", "access_key", "secret_key")},
    "session_token": Secret("hush-t"),
    "certificate": Secret(CERT),
    "private_key": Secret(KEY),
}


def read(folder: Folder, name: str) -> Injection:
    """The form as a configuration has it."""
    text = edited('{header: {name: X-Api-Key, value: "{key}"}}', f"{{{name}: {WRITTEN[name]}}}")
    (one,) = folder.parse(text).upstreams["geo"].inject
    return one


def test_every_file_is_found() -> None:
    """A new form needs no other line than its file's; and a test of its own here."""
    files = {path.stem for path in Path(forms.__path__[0]).glob("[a-z]*.py")}
    assert files == set(FORMS) == set(WRITTEN)


@pytest.mark.parametrize("name", FORMS)
def test_it_is_named_as_its_key(folder: Folder, name: str) -> None:
    """What refusals and doors call it is what stands in the configuration."""
    assert read(folder, name).form == name
    reader: Reader[Any] = FORMS[name].reader
    assert reader.schema or reader.section


@pytest.mark.parametrize("name", FORMS)
def test_it_sets_what_it_says(folder: Folder, name: str) -> None:
    """Of every kind: headers, parameters, cookies, the certificate, and what is signed."""
    form = read(folder, name)
    made = render([form], FIELDS)
    assert set(made.filled) == set(header_names([form]))
    assert {name for name, _ in made.headers} <= set(form.header_names)
    assert tuple(name for name, _ in made.query) == form.parameter_names
    assert tuple(name for name, _ in made.cookies) == form.cookie_names
    assert bool(made.tls) == form.is_certificate
    assert bool(made.signer) == bool(form.signature)


@pytest.mark.parametrize("name", FORMS)
def test_it_wants_the_fields_that_it_says(folder: Folder, name: str) -> None:
    """With these alone it is rendered, and without any one of them it is not."""
    form = read(folder, name)
    wanted = form.field_names
    assert wanted
    assert set(wanted) <= set(form.used_fields)
    needed = {field: FIELDS[field] for field in wanted}
    render([form], needed)
    for missing in wanted:
        with pytest.raises(LookupError, match=repr(missing)):
            render([form], {field: needed[field] for field in needed if field != missing})


@pytest.mark.parametrize("name", FORMS)
def test_what_is_shown_holds_no_text(folder: Folder, name: str) -> None:
    """``explain`` names fields, and no text around them, which may be a secret."""
    shown = read(folder, name).shown
    assert shown
    assert "Key " not in shown
