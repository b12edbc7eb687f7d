"""Every way to log in, and to where."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config import ConfigError, parse
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.aws import Aws
from vaultauthz.config.auth.azure import Azure
from vaultauthz.config.auth.cert import Cert
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.config.auth.jwt import Jwt
from vaultauthz.config.auth.ldap import Ldap
from vaultauthz.config.auth.methods import METHODS
from vaultauthz.config.auth.userpass import UserPass

from .conftest import EVERY, SECRET, VALID, Folder, edited
from .refused_auth import AUTH
from .test_config_any import SHARED

TOKEN = Path("token")
KEY = Path("key.pem")
LOGINS = [
    ("approle, role_id: a, mount: b/c", AppRole("a", mount="b/c")),
    ("approle, role_id: a, mount: /auth/b/c/", AppRole("a", mount="b/c")),
    ("approle, role_id: a, mount: auth/auth/b", AppRole("a", mount="auth/b")),
    ("approle, role_id: a, mount: author", AppRole("a", mount="author")),
    ("approle, role_id: a, mount: 'our%20 ü?'", AppRole("a", mount="our%20 ü?")),
    ("approle, role_id_file: token", AppRole(role_id_file=TOKEN)),
    (
        "approle, role_id: a, secret_id_file: token, secret_id_wrapped: true",
        AppRole("a", secret_id_file=TOKEN, secret_id_wrapped=True),
    ),
    (
        "approle, role_id: a, secret_id_file: token, secret_id_wrapped: false",
        AppRole("a", secret_id_file=TOKEN),
    ),
    ("jwt, role: a, token_file: token", Jwt("a", TOKEN)),
    ("jwt, role: a, token_file: token, mount: ci", Jwt("a", TOKEN, mount="ci")),
    ("jwt, role: a, token_command: [./run, 12, -x]", Jwt("a", None, ("run", "12", "-x"))),
    ("cert, client_cert: cert.pem, client_key: key.pem", Cert(Path("cert.pem"), KEY)),
    (
        "cert, client_cert: cert.pem, client_key: key.pem, role: a, mount: b",
        Cert(Path("cert.pem"), KEY, "a", "b"),
    ),
    ("userpass, username: a, password_file: token", UserPass("a", TOKEN)),
    ("userpass, username: a, password_file: token, mount: b", UserPass("a", TOKEN, "b")),
    ("ldap, username: 'CORP\\a', password_file: token", Ldap("CORP\\a", TOKEN)),
    ("ldap, username: a b, password_file: token, mount: b", Ldap("a b", TOKEN, "b")),
    ("aws, role: a", Aws("a")),
    (
        "aws, role: a, region: us-gov-west-1, server_id: v.test, mount: b",
        Aws("a", "us-gov-west-1", "v.test", "b"),
    ),
    ("gcp, role: a", Gcp("a")),
    ("gcp, role: a, type: gce, mount: b", Gcp("a", mount="b")),
    (
        "gcp, role: a, type: iam, service_account: x@y.iam.gserviceaccount.com",
        Gcp("a", "iam", "x@y.iam.gserviceaccount.com"),
    ),
    (
        "gcp, role: a, type: iam, credentials_file: token",
        Gcp("a", "iam", credentials_file=TOKEN),
    ),
    (
        "gcp, role: a, type: iam, service_account: x@y.test, credentials_file: token",
        Gcp("a", "iam", "x@y.test", TOKEN),
    ),
    ("azure, role: a", Azure("a")),
    ("azure, role: a, resource: 'api://b', client_id: 12, mount: b", Azure("a", "api://b", "12", "b")),
]  # fmt: skip


def login(folder: Folder, keys: str) -> AuthMethod:
    """The first stage's ``auth``, of a method and its keys."""
    return folder.parse(edited(AUTH, f"{{method: {keys}}}")).stages["prod"].auth


@pytest.mark.parametrize(("keys", "wanted"), LOGINS)
def test_logins(folder: Folder, keys: str, wanted: AuthMethod) -> None:
    """Every method is read with all of its keys, without a warning."""
    folder.write("run", "#!/bin/sh\n", 0o700)
    found = login(folder, keys)
    assert repr(found).replace(f"{folder.path}/", "") == repr(wanted)
    assert folder.warnings(edited(AUTH, f"{{method: {keys}}}")) == ()


def test_every_method_is_tried_above() -> None:
    """No method is without an example, besides those in the configurations of other tests."""
    tried = {keys.split(",")[0] for keys, _ in LOGINS}
    assert tried | {"kubernetes", "token_file"} == set(METHODS)


def test_program_on_path(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a slash is looked up on $PATH once, and not again at each login."""
    program = folder.write("show-jwt", "#!/bin/sh\n", 0o700)
    monkeypatch.setenv("PATH", str(folder.path))
    assert login(folder, "jwt, role: a, token_command: [show-jwt]") == Jwt(
        "a", None, (str(program),)
    )
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ValueError, match="no program"):
        login(folder, "jwt, role: a, token_command: [show-jwt]")


def test_program_by_its_path(folder: Folder) -> None:
    """An absolute path is taken as it is."""
    found = login(folder, f"jwt, role: a, token_command: [{sys.executable}, -V]")
    assert found == Jwt("a", None, (sys.executable, "-V"))


TLS = "\n  tls: {client_cert: cert.pem, client_key: key.pem}"


def test_cert_of_vault(folder: Folder) -> None:
    """Without a certificate of its own a stage logs in with that of `vault.tls`."""
    text = edited("https://vault.test:8200", f"https://vault.test:8200{TLS}")
    config = folder.parse(text.replace(AUTH, "{method: cert, role: a}"))
    wanted = Cert(folder.path / "cert.pem", folder.path / "key.pem", "a")
    assert config.stages["prod"].auth == wanted


def test_cert_of_its_own(folder: Folder) -> None:
    """Its own certificate wins over that of `vault.tls`, wherever `vault` stands."""
    own = "{method: cert, client_cert: ca.pem, client_key: token}"
    vault, rest = VALID.split("stages:\n  prod")
    text = f"stages:\n  prod{rest}{vault}".replace("8200", f"8200{TLS}").replace(AUTH, own)
    wanted = Cert(folder.path / "ca.pem", folder.path / "token")
    config = folder.parse(text)
    assert config.stages["prod"].auth == wanted
    assert config.vault_of("prod").tls.client_cert == wanted.client_cert
    assert config.vault_of("test").tls.client_cert == folder.path / "cert.pem"


@pytest.mark.parametrize(
    ("address", "what", "which"),
    [
        ("http://127.0.0.1:8200", "http://", "http://127.0.0.1:8200"),
        ("unix:///run/v.sock", "a unix socket", "unix:///run/v.sock"),
        ("[https://a, unix:///run/v.sock]", "a unix socket", "unix:///run/v.sock"),
    ],
)
def test_cert_wants_tls(folder: Folder, address: str, what: str, which: str) -> None:
    """A login by certificate needs TLS to every address."""
    own = "{method: cert, client_cert: cert.pem, client_key: key.pem}"
    text = edited("https://vault.test:8200", address).replace(AUTH, own)
    assert folder.problems(text) == (
        (
            f"c.yaml:5: stages.prod.auth: cert needs TLS, and {what} has none; "
            f"use https:// in place of '{which}', or another method"
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("https://vault.test:8200", f"vault.test{TLS}", "2: vault.address"),
        ("https://vault.test:8200", f"[https://a, b]{TLS}", "2: vault.address[1]"),
        ("8200", f"8200{TLS.replace('cert.pem', 'no.pem')}", "3: vault.tls.client_cert"),
        ("8200", f"8200{TLS.replace(', client_key: key.pem', '')}", "3: vault.tls.client_key"),
        ("8200", "8200\n  tls: 5", "3: vault.tls"),
        ("  address: https://vault.test:8200", "  - a", "1: vault"),
    ],
)
def test_cert_and_a_mistake_in_vault(folder: Folder, old: str, new: str, place: str) -> None:
    """What is wrong in `vault` is told once, and not again at the stage that relies on it."""
    (problem,) = folder.problems(edited(old, new).replace(AUTH, "{method: cert}"))
    assert problem.startswith(f"c.yaml:{place}: ")


def test_a_wrapped_secret_id_may_come_later(folder: Folder) -> None:
    """Who wraps a secret_id delivers it at each start; a plain one has to be there."""
    text = edited("secret_id_file: secret_id", "secret_id_file: late, secret_id_wrapped: true")
    assert folder.warnings(text) == (
        (
            "c.yaml:5: stages.prod.auth.secret_id_file: "
            "DIR/late is not there yet; no login before it is"
        ),
    )


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("approle, role_id: a, secret_id_wrapped: true, secret_id_file: open", "secret_id_file"),
        ("jwt, role: a, token_file: open", "token_file"),
        ("cert, client_cert: open, client_key: open", "client_key"),
        ("userpass, username: a, password_file: open", "password_file"),
        ("ldap, username: a, password_file: open", "password_file"),
        ("gcp, role: a, type: iam, credentials_file: open", "credentials_file"),
    ],
)
def test_open_files(folder: Folder, keys: str, name: str) -> None:
    """A file of a login that everybody can read is a warning, where it holds a secret."""
    folder.write("open", SECRET, 0o644)
    assert folder.warnings(edited(AUTH, f"{{method: {keys}}}")) == (
        (
            f"c.yaml:5: stages.prod.auth.{name}: everybody on this machine can read it "
            "(mode 0644); chmod 600 DIR/open"
        ),
    )


def test_namespaces(folder: Folder) -> None:
    """A stage's own namespace wins over that of `vault`."""
    text = edited("https://vault.test:8200", "https://vault.test:8200\n  namespace: corp")
    config = folder.parse(
        text.replace(f"    auth: {AUTH}", f"    auth: {AUTH}\n    namespace: a/b/")
    )
    assert [config.vault_of(stage).namespace for stage in config.stages] == ["a/b", "corp"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[https://a]", ("https://a",)),
        ("[https://a/, 'https://b:8200']", ("https://a", "https://b:8200")),
        ("[unix:///run/v.sock, https://a]", ("unix:///run/v.sock", "https://a")),
        ("\n  - https://a\n  - https://a:8200", ("https://a", "https://a:8200")),
        (f"[{', '.join(f'https://v{n}' for n in range(8))}]", tuple(f"https://v{n}" for n in range(8))),
    ],
)  # fmt: skip
def test_addresses(folder: Folder, text: str, wanted: tuple[str, ...]) -> None:
    """Several addresses are kept in order; the environment does not add to them."""
    config = folder.parse(edited("https://vault.test:8200", text), {"VAULT_ADDR": "https://env"})
    assert config.vault.addresses == wanted


def test_the_environment_has_one_address(folder: Folder) -> None:
    """$VAULT_ADDR is one address, as for every other program that reads it."""
    text = VALID.split("\n", 2)[2]
    assert folder.problems(text, {"VAULT_ADDR": "https://a,https://b"})


@SHARED
@given(st.text(), st.sampled_from(sorted(METHODS)), st.data())
def test_a_secret_in_a_wrong_key_is_not_shown(
    folder: Folder, noise: str, method: str, data: st.DataObject
) -> None:
    """Whatever key of whatever method it is written to, a password is not repeated."""
    wrong = sorted(
        {"password", "token", "jwt", "secret", "secret_key"} - set(METHODS[method].keys.names)
    )
    key = data.draw(st.sampled_from(wrong))
    value = "".join(sign for sign in noise if sign.isalnum() or sign in " ,:{}[]'\"")
    text = edited(AUTH, f"{{method: {method}, {key}: {value}{SECRET}}}")
    problems = folder.problems(text)
    assert problems
    assert SECRET not in "\n".join(problems)


def test_every_key_is_documented() -> None:
    """docs/configuration.md has each method, and each of its keys below it."""
    text = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    sections = re.split(
        r"^((?:\*\*\w+\*\*(?:, )?)+)", text.split("\n## upstreams")[0], flags=re.MULTILINE
    )
    told = {
        name: body
        for heading, body in zip(sections[1::2], sections[2::2], strict=True)
        for name in re.findall(r"\w+", heading)
    }
    assert list(told) == list(METHODS)
    for method, how in METHODS.items():
        for key in set(how.keys.names) - {"method", "mount"}:
            assert f"`{key}`" in told[method], f"{method}: {key}"


def test_the_address_is_in_the_variable_of_either_server(folder: Folder) -> None:
    """HashiCorp's wins where both are set."""
    text = edited("  address: https://vault.test:8200\n", "  timeout: 5s\n")
    assert folder.parse(text, {"BAO_ADDR": "https://bao"}).vault.address == "https://bao"
    both = {"BAO_ADDR": "https://bao", "VAULT_ADDR": "https://vault"}
    assert folder.parse(text, both).vault.address == "https://vault"


def test_what_is_elsewhere_need_not_be_here(folder: Folder) -> None:
    """Every file that a login or TLS names: a warning each, and the rest is as it would be."""
    there = folder.parse(EVERY)
    for name in ("cert.pem", "key.pem", "token"):
        (folder.path / name).unlink()
    assert folder.problems(EVERY)
    here = parse(EVERY, "c.yaml", folder.path, {}, elsewhere=True)
    assert replace(here, warnings=(), absent=()) == replace(there, warnings=(), absent=())
    assert set(here.warnings) - set(here.absent) == set(there.warnings) - set(there.absent)
    told = "\n".join(here.warnings)
    for key in ("tls.client_cert", "tls.client_key", "role_id_file", "password_file"):
        assert re.search(rf"\.{key}: .*; the machine that serves will need it", told), key


@pytest.mark.parametrize("program", ["./nowhere", "no-such-program-of-ours"])
def test_a_program_need_not_be_here_either(folder: Folder, program: str) -> None:
    """The words are as they are written, and the warning shows none of them."""
    text = edited(AUTH, f"{{method: jwt, role: r, token_command: [{program}, --audience, vault]}}")
    assert folder.problems(text)
    there = parse(text, "c.yaml", folder.path, {}, elsewhere=True)
    (warning,) = there.warnings
    assert "token_command[0]: is no program" in warning
    assert warning.endswith("; the machine that serves will need it")
    auth = there.stages["prod"].auth
    assert isinstance(auth, Jwt)
    name = str(folder.path / program) if "/" in program else program
    assert auth.token_command == (name, "--audience", "vault")


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("jwt, role: r, token_command: [/nowhere/program]", "token_command"),
        ("jwt, role: r, token_file: token/below-a-file", "token_file"),
        ("kubernetes, role: r, token_file: token/below-a-file", "token_file"),
        ("token_file, path: token/below-a-file", "path"),
    ],
)
def test_what_cannot_be_looked_at_here(folder: Folder, method: str, key: str) -> None:
    """A program of the gateway's, and a file that only its user can see."""
    text = edited(
        "method: approle, role_id: gateway, secret_id_file: secret_id", f"method: {method}"
    )
    assert any(key in line for line in folder.problems(text))
    (warning,) = parse(text, "c.yaml", folder.path, {}, elsewhere=True).warnings
    assert key in warning
    assert "the machine that serves will need it" in warning


def test_what_is_wrong_by_itself_is_wrong_elsewhere_too(folder: Folder) -> None:
    """Only the files are another machine's."""
    text = edited("method: approle", "method: nonesuch")
    with pytest.raises(ConfigError, match="nonesuch"):
        parse(text, "c.yaml", folder.path, {}, elsewhere=True)
