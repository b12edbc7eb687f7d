"""What loads, and is worth a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vaultauthz.config import load, parse

from .conftest import VALID, Folder, edited

TLS = "{cert: cert.pem, key: key.pem}"
NO_FIELD = 'has no "{FIELD}" of the secret in it: is a secret in the configuration?'


@pytest.mark.parametrize(
    ("name", "old", "new", "place"),
    [
        ("secret_id", "x", "x", "5: stages.prod.auth.secret_id_file"),
        ("token", "x", "x", "7: stages.test.auth.path"),
        ("ops", "listen:", "listen:\n  admin_token_file: ops", "23: listen.admin_token_file"),
        (
            "key.pem",
            "listen:",
            f"listen:\n  admin: a.test:1\n  admin_token_file: token\n  admin_tls: {TLS}",
            "25: listen.admin_tls.key",
        ),
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


LISTEN = "  grpc: unix:///run/vaultauthz/grpc.sock"
HERE = "every user of this machine (in a pod: every container)"
GIVEN = f"c.yaml:23: listen.grpc: {HERE} is given credentials here; use a unix socket, or grpc_tls"


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "localhost:0", "'[::1]:9000'"])
@pytest.mark.parametrize("tls", ["", "\n  grpc_tls: {cert: cert.pem, key: key.pem}"])
def test_a_port_on_loopback_is_every_local_users(folder: Folder, address: str, tls: str) -> None:
    """TLS without client certificates lets them in, too."""
    (line,) = folder.warnings(edited(LISTEN, f"  grpc: {address}{tls}"))
    assert line == f"{GIVEN} with client_ca"


def test_a_port_that_wants_a_certificate_or_a_token_is_not(folder: Folder) -> None:
    """And neither is a unix socket."""
    tls = "{cert: cert.pem, key: key.pem, client_ca: ca.pem, client_names: [gateway]}"
    safe = (
        f"  grpc: 127.0.0.1:1\n  grpc_tls: {tls}\n  admin: 127.0.0.1:2\n  admin_token_file: token"
    )
    assert folder.warnings(edited(LISTEN, safe)) == ()
    assert folder.warnings(edited(LISTEN, f"{LISTEN}\n  admin: unix:///run/a.sock")) == ()
    names = f"{LISTEN}\n  admin: 127.0.0.1:2\n  admin_tls: {{cert: cert.pem, key: key.pem, client_ca: ca.pem}}"
    assert folder.warnings(edited(LISTEN, names)) == ()
    wanted = f"{LISTEN}\n  admin: 127.0.0.1:2\n  admin_insecure: true"
    assert folder.warnings(edited(LISTEN, wanted)) == ()


def test_an_authority_signs_for_more_than_gateways(folder: Folder) -> None:
    """Without names whoever has a certificate of its may ask: on every address that has TLS."""
    tls = "{cert: cert.pem, key: key.pem, client_ca: ca.pem}"
    for address in ("127.0.0.1:1", "0.0.0.0:1"):
        (line,) = folder.warnings(edited(LISTEN, f"  grpc: {address}\n  grpc_tls: {tls}"))
        assert line.startswith(
            "c.yaml:24: listen.grpc_tls: whoever has a certificate that client_ca"
        )
        assert "add client_names" in line


APPROLE = "method: approle, role_id: gateway, secret_id_file: secret_id"
NAMING = {
    "secret_id": ("5: stages.prod.auth.secret_id_file", "", ""),
    "token": ("7: stages.test.auth.path", "", ""),
    "cmd": (
        "5: stages.prod.auth.token_command",
        APPROLE,
        "method: jwt, role: r, token_command: [./cmd]",
    ),
    "script": (
        "5: stages.prod.auth.token_command[1]",
        APPROLE,
        "method: jwt, role: r, token_command: [/bin/sh, DIR/script]",
    ),
    "jwt": (
        "5: stages.prod.auth.token_file",
        APPROLE,
        "method: kubernetes, role: r, token_file: jwt",
    ),
    "role": ("5: stages.prod.auth.role_id_file", "role_id: gateway", "role_id_file: role"),
    "log": ("24: audit.access_log", LISTEN, f"{LISTEN}\naudit: {{access_log: log}}"),
    "audit": ("24: audit.file", LISTEN, f"{LISTEN}\naudit: {{file: audit}}"),
    "ca.pem": ("3: vault.tls.ca_cert", "stages:\n", "  tls: {ca_cert: ca.pem}\nstages:\n"),
    "cert.pem": (
        "26: listen.admin_tls.cert",
        LISTEN,
        f"{LISTEN}\n  admin: a.test:1\n  admin_token_file: token\n  admin_tls: {TLS}",
    ),
}
SECRETS = ("secret_id", "token")


@pytest.mark.parametrize("name", NAMING)
def test_a_file_that_everybody_may_write(folder: Folder, name: str) -> None:
    """By its own mode, or by that of a folder on the way to it; sticky ones are safe."""
    place, old, new = NAMING[name]
    text = VALID.replace(old, new.replace("DIR", str(folder.path))) if old else VALID
    file = folder.write(name, "#!/bin/sh\n", 0o700 if name == "cmd" else 0o600)
    assert folder.warnings(text) == ()
    file.chmod(0o722)
    change = "600" if name in SECRETS else "o-w"
    mended = f"(mode 0722); chmod {change} DIR/{name}"
    key = f"c.yaml:{place}"
    (line,) = folder.warnings(text)
    assert line.startswith(key)
    assert line.endswith(f": everybody on this machine can write it {mended}")
    file.chmod(0o700)
    folder.path.chmod(0o1777)
    assert folder.warnings(text) == ()
    folder.path.chmod(0o777)
    put = "everybody on this machine can put another in its place, as they can write DIR"
    found = [line for line in folder.warnings(text) if line.startswith(key)]
    assert [line.partition("everybody")[2] for line in found] == [
        f"{put.removeprefix('everybody')} (mode 0777); chmod o-w DIR"
    ]
    file.chmod(0o720)  # a group of one's own is the rule
    folder.path.chmod(0o770)
    assert folder.warnings(text) == ()


def test_where_a_link_leads_matters_and_where_it_lies(folder: Folder, tmp_path: Path) -> None:
    """As for a secret that Kubernetes mounts, which is a link to a link."""
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    (tmp_path / "safe").write_text("s")
    (open_folder / "link").symlink_to(tmp_path / "safe")
    text = edited("secret_id_file: secret_id", "secret_id_file: open/link")
    (tmp_path / "safe").chmod(0o602)
    assert "can write it (mode 0602); chmod 600 DIR/open/link" in folder.warnings(text)[0]
    (tmp_path / "safe").chmod(0o600)
    assert folder.warnings(text) == ()
    open_folder.chmod(0o777)
    assert "can write DIR/open (mode 0777)" in folder.warnings(text)[0]
    (tmp_path / "secret_id").unlink()
    (tmp_path / "secret_id").symlink_to("open/link")  # by way of the open folder
    assert "can write DIR/open (mode 0777)" in folder.warnings(VALID)[0]
    (tmp_path / "round").symlink_to("round")
    assert folder.problems(edited("secret_id_file: secret_id", "secret_id_file: round"))


def test_a_socket_in_a_folder_that_everybody_may_write(folder: Folder) -> None:
    """Somebody else's server could stand in for ours."""
    run = folder.path / "run"
    run.mkdir()
    run.chmod(0o777)
    for name, line in (("grpc", 23), ("admin", 24)):
        at = f"{LISTEN}\n  admin: unix://{run}/s" if name == "admin" else f"  grpc: unix://{run}/s"
        (found,) = folder.warnings(edited(LISTEN, at))
        assert found.startswith(f"c.yaml:{line}: listen.{name}: everybody on this machine can put")
    for form, key in ((f"unix://{run}/v", ""), (f"[https://a.test, unix://{run}/v]", "[1]")):
        (found,) = folder.warnings(edited("https://vault.test:8200", form))
        assert found.startswith(f"c.yaml:2: vault.address{key}: everybody on this machine can put")
    run.chmod(0o755)
    assert folder.warnings(edited("https://vault.test:8200", f"unix://{run}/v")) == ()


def test_a_program_that_another_could_be_found_before(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of $PATH that everybody may write, and that comes first."""
    for name in ("last", "its", "before"):
        (folder.path / name).mkdir()
        monkeypatch.setenv("PATH", str(folder.path / name), prepend=os.pathsep)
    folder.write("its/cmd", "#!/bin/sh\n", 0o700)
    text = edited(APPROLE, "method: jwt, role: r, token_command: [cmd]")
    assert folder.warnings(text) == ()
    (folder.path / "last").chmod(0o777)
    assert folder.warnings(text) == ()
    (folder.path / "before").chmod(0o777)
    (found,) = folder.warnings(text)
    assert found.startswith("c.yaml:5: stages.prod.auth.token_command")
    assert "can put another in its place, as they can write DIR/before (mode 0777)" in found


@pytest.mark.parametrize("file", ["/dev/null", "/dev/stdout"])
def test_a_device_is_everybodys(folder: Folder, file: str) -> None:
    """It is no finding, and to take its mode away would break the machine."""
    assert folder.warnings(f"{VALID}audit: {{file: {file}}}\n") == ()


def test_a_configuration_that_everybody_may_write(folder: Folder) -> None:
    """It can name a program to run: it is told first."""
    file = folder.write("c.yaml", VALID, 0o666)
    assert load(file, {}).warnings == (
        f"{file}: everybody on this machine can write it (mode 0666); chmod o-w {file}",
    )
    file.chmod(0o644)
    assert load(file, {}).warnings == ()


OF_THE_GATEWAY = """
gateway:
  address: 0.0.0.0:8443
  tls: {cert: none.pem, key: none.key, client_ca: none.ca}
  vaultauthz: {ca_cert: none.ca, client_cert: none.pem, client_key: none.key}
"""


def test_files_of_the_gateways_are_not_ours(folder: Folder) -> None:
    """Who serves does not look at them; who checks and prints tells of each that is not here."""
    text = VALID + OF_THE_GATEWAY
    text = text.replace(
        "    callers: any", "    callers: any\n    to: {address: https://a, ca_cert: none.ca}"
    )
    served = folder.parse(text)
    assert served.warnings == ()
    checked = parse(text, "c.yaml", folder.path, {}, elsewhere=True)
    assert checked.warnings == checked.absent
    keys = [line.split(": ")[1] for line in checked.absent]
    assert sorted(keys) == sorted(
        [
            "upstreams.pay.to.ca_cert",
            *(f"gateway.tls.{key}" for key in ("cert", "client_ca", "key")),
            *(f"gateway.vaultauthz.{key}" for key in ("ca_cert", "client_cert", "client_key")),
        ]
    )


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://a.test", 1),
        ("https://a.test", 0),
        ("http://127.0.0.1:80", 0),
        ("'http://[::1]'", 0),
    ],
)
def test_a_service_in_clear_text(folder: Folder, address: str, told: int) -> None:
    """A credential that crosses a network without TLS is told of."""
    text = VALID.replace("    callers: any", f"    callers: any\n    to: {address}")
    found = folder.warnings(text)
    assert len(found) == told
    assert all("upstreams.pay.to: sends the credential in clear text" in line for line in found)
