"""Names in Vault that URLs have to escape: what is read is what Vault has under that very name.

By the API itself, with each character escaped as RFC 3986 has it, and not by a client.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.integration.test_vault_session import failure_of
from tests.patience import PATIENCE
from vaultauthz.config import parse
from vaultauthz.config.auth import AuthMethod
from vaultauthz.config.auth.approle import AppRole
from vaultauthz.config.auth.userpass import UserPass
from vaultauthz.config.values import KvSecret, PathSecret, SecretSource, Vault
from vaultauthz.core.grant import Grant
from vaultauthz.core.secret import Secret
from vaultauthz.demo.parts import OpenBao, binaries, wait_for
from vaultauthz.leases.clock import boottime
from vaultauthz.vault.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_ANY = (
    *("partner api", "save-50%25off", "save-50%off", "100%", "a%2Fb", "what?", "no#1", "ü-é", "😀"),
    *(
        "a+b",
        "back\\slash",
        "x;y=z",
        'say "hi"',
        "a..b",
        "...",
        "*",
        "{x}",
        "a&b=c",
        "~tilde",
        "a:b@c",
    ),
)
# HashiCorp's keeps no secret whose name has two dots in a row: 500, "path cannot contain …".
NAMES = tuple(name for name in _ANY if ".." not in name or not binaries.vault().hashicorps)
MOUNTS = ("m", "my kv", "50%25", "where?", "ü")
KINDS = {"kv": "1", "kv2": "2"}


def call(bao: OpenBao, method: str, *segments: str, **body: Any) -> dict[str, Any]:
    url = "/".join((bao.address, "v1", *(quote(segment, safe="") for segment in segments)))
    headers = {"X-Vault-Token": bao.root_token}
    answer = requests.request(method, url, json=body or None, headers=headers, timeout=60)
    answer.raise_for_status()
    return dict(answer.json()) if answer.content else {}


@pytest.fixture(scope="module")
def bao(bao: OpenBao) -> OpenBao:
    """With engines at each mount, and a secret of its own at each name."""
    for mount in MOUNTS:
        for kind, version in KINDS.items():
            where = f"{mount} {kind}"
            call(bao, "POST", "sys", "mounts", where, type="kv", options={"version": version})
            assert wait_for(partial(answers, bao, where), PATIENCE)
            for name in NAMES:
                data = {"key": f"{where}: {name}"}
                if version == "2":
                    call(bao, "POST", where, "data", "deep", name, data=data)
                else:
                    call(bao, "POST", where, "deep", name, **data)
    return bao


def answers(bao: OpenBao, where: str) -> bool:
    try:
        call(bao, "GET", where, "config" if where.endswith("kv2") else "deep?list=true")
    except requests.HTTPError as exc:
        return exc.response.status_code == 404
    return True


class Reader:
    """A session of a role that may read everything."""

    def __init__(self, bao: OpenBao, auth: AuthMethod | None = None) -> None:
        if auth is None:
            role_id, secret_id = bao.enable_approle(
                "paths", 'path "*" { capabilities = ["read", "update"] }'
            )
            auth = AppRole(role_id, Secret(secret_id))
        self.session = Session(Vault(bao.address), auth, boottime)
        self.grant = self.session.login()

    def fetch(self, source: SecretSource) -> Grant:
        return self.session.fetch(self.grant.payload, self.grant.login, source)


@pytest.mark.parametrize("mount", MOUNTS)
def test_kv_and_path(bao: OpenBao, mount: str) -> None:
    """Either version by `kv`, version 1 by `path`: never another secret's."""
    reader = Reader(bao)
    for name in NAMES:
        for kind in KINDS:
            path = f"{mount} {kind}/deep/{name}"
            found = reader.fetch(KvSecret(path)).payload["key"].reveal()
            assert found == f"{mount} {kind}: {name}"
        path = f"{mount} kv/deep/{name}"
        assert reader.fetch(PathSecret(path)).payload["key"].reveal() == f"{mount} kv: {name}"


def test_a_name_that_ends_with_a_space(bao: OpenBao) -> None:
    """`kv` reads it, as `vault kv get` does, and not what is there without the space."""
    reader = Reader(bao)
    for end in ("", " "):
        call(bao, "POST", "m kv2", "data", f"spaced{end}", data={"key": f"<{end}>"})
    for end in ("", " "):
        assert reader.fetch(KvSecret(f"m kv2/spaced{end}")).payload["key"].reveal() == f"<{end}>"


def test_a_configuration_names_them(bao: OpenBao, tmp_path: Path) -> None:
    """In quotes, with braces doubled; a quote of its own twice."""
    (tmp_path / "secret_id").write_text("x")
    wanted = [f"{mount} kv2/deep/{name}" for mount in MOUNTS for name in NAMES]
    lines = [
        "vault: {address: http://127.0.0.1:8200}",
        "stages: {s: {auth: {method: approle, role_id: a, secret_id_file: secret_id}}}",
        "upstreams:",
    ]
    for number, path in enumerate(wanted):
        text = path.replace("'", "''").replace("{", "{{").replace("}", "}}")
        lines.append(
            f"  u{number}: {{secret: {{kv: '{text}'}}, callers: any, inject: [{{bearer: x}}]}}"
        )
    config = parse("\n".join(lines), "c.yaml", tmp_path, {})
    sources = [upstream.secrets["s"] for upstream in config.upstreams.values()]
    assert [source.path for source in sources] == wanted


@pytest.mark.parametrize(
    ("mount", "name"),
    [("my totp", "key-1"), ("50%25 totp", "key-1"), ("t?", "key.1")],
)
def test_codes(bao: OpenBao, mount: str, name: str) -> None:
    """A TOTP code, and where its key is described."""
    call(bao, "POST", "sys", "mounts", mount, type="totp")
    call(bao, "POST", mount, "keys", name, generate=True, issuer="x", account_name="y")
    assert Reader(bao).fetch(PathSecret(f"{mount}/code/{name}")).payload["code"].reveal().isdigit()


def test_writes(bao: OpenBao) -> None:
    """`method: write`, as for transit and ssh."""
    call(bao, "POST", "sys", "mounts", "my transit%41", type="transit")
    call(bao, "POST", "my transit%41", "keys", "k")
    source = PathSecret("my transit%41/hmac/k", write=True, params=(("input", "YQ=="),))
    assert Reader(bao).fetch(source).payload["hmac"].reveal().startswith("vault:v1:")


@pytest.mark.parametrize("mount", ["my approle", "50%25", "where?", "team/ü"])
def test_approle(bao: OpenBao, mount: str) -> None:
    """A method that is mounted under such a name."""
    call(bao, "POST", "sys", "auth", *mount.split("/"), type="approle")
    at = ("auth", *mount.split("/"), "role", "gw")
    call(bao, "POST", *at, token_policies=["default"])
    role_id = call(bao, "GET", *at, "role-id")["data"]["role_id"]
    secret_id = call(bao, "POST", *at, "secret-id")["data"]["secret_id"]
    assert Reader(bao, AppRole(role_id, Secret(secret_id), mount=mount)).grant.ttl > 0


@pytest.mark.parametrize("mount", ["our users", "u%41", "who?"])
def test_users(bao: OpenBao, tmp_path: Path, mount: str) -> None:
    """`annab`, wherever users are mounted; and nobody by the name `anna%62`."""
    call(bao, "POST", "sys", "auth", mount, type="userpass")
    call(bao, "POST", "auth", mount, "users", "annab", password="pass of annab")
    (tmp_path / "password").write_text("pass of annab")
    assert Reader(bao, UserPass("annab", tmp_path / "password", mount)).grant.ttl > 0
    failure_of(lambda: Reader(bao, UserPass("anna%62", tmp_path / "password", mount)))


def test_data_twice_is_told(bao: OpenBao) -> None:
    """`kv: secret/data/name` is the HTTP API's path; one that is really called so is read."""
    reader = Reader(bao)
    error = failure_of(lambda: reader.fetch(KvSecret("m kv2/data/deep/ü-é")))
    assert "leave out data/ after the mount" in error.failure.reason
    call(bao, "POST", "m kv2", "data", "data", "deep", data={"key": "really"})
    assert reader.fetch(KvSecret("m kv2/data/deep")).payload["key"].reveal() == "really"
