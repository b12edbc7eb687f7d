# ruff: noqa: INP001  a script, no package
"""Prepares the demo of docker-compose.yml; both commands may be repeated at any time.

`setup.py passwords`, before PostgreSQL starts: makes its superuser's password.
`setup.py layout`, when OpenBao and PostgreSQL run: initializes and unseals OpenBao and lays out what vaultauthz wants.

Secrets are made here at random, each written to a volume of its own, for those who need it. None is in the repository.
That the unseal key and the root token lie in a volume is for a demo: elsewhere they belong to people.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hvac
import requests
from hvac.exceptions import InvalidPath, InvalidRequest

from vaultauthz.demo.parts.openbao import CREATE_LOGIN, DROP_LOGIN
from vaultauthz.demo.parts.postgres import DATABASE, SUPERUSER
from vaultauthz.demo.stage import POLICY

# As in deploy/compose/vaultauthz.yaml.
STAGE = ROLE_ID = "demo"
# Short enough to watch: renewed about every 40 s, replaced within five minutes.
LEASE_TTL, LEASE_MAX_TTL = "1m", "5m"
PATIENCE_SECONDS = 60
# https://openbao.org/api-docs/system/health
ACTIVE, NOT_INITIALIZED, SEALED = 200, 501, 503


def main(command: str) -> None:
    """Run one of the two commands."""
    {"passwords": passwords, "layout": layout}[command]()


def passwords() -> None:
    """Make the password of PostgreSQL's superuser, once."""
    _made_once(_file("POSTGRES_PASSWORD_FILE"))
    _say("PostgreSQL's password is there")


def layout() -> None:
    """Open OpenBao and lay out: logins for `reports`, a key for `geocoder`, vaultauthz's own login."""
    fresh, token = open_openbao()
    # Without redirects: the token would go along.
    client = hvac.Client(os.environ["VAULT_ADDR"], token=token, timeout=10, allow_redirects=False)
    # In clear in OpenBao's audit log, so that it and ours can be joined.
    client.write_data("sys/config/auditing/request-headers/X-Correlation-Id", data={"hmac": False})
    lay_out_database(client)
    lay_out_key(client)
    lay_out_login(client, fresh=fresh)
    _say("done")


def open_openbao() -> tuple[bool, str]:
    """Initialize it if it is new, unseal it if it is sealed; whether it was new, and the root token."""
    address, keys_file = os.environ["VAULT_ADDR"], _file("OPENBAO_KEYS_FILE")
    client = hvac.Client(address, timeout=10, allow_redirects=False)
    _wait("OpenBao answers", lambda: _health(address) in (ACTIVE, NOT_INITIALIZED, SEALED))
    fresh = _health(address) == NOT_INITIALIZED
    if fresh:
        _write_private(
            keys_file, json.dumps(client.sys.initialize(secret_shares=1, secret_threshold=1))
        )
        _say("OpenBao is initialized")
    if not keys_file.exists():
        sys.exit(
            f"setup: OpenBao is initialized, but its keys are not in {keys_file}, and nobody can make them again; "
            "begin anew: docker compose down --volumes"
        )
    keys = json.loads(keys_file.read_text())
    if _health(address) == SEALED:
        client.sys.submit_unseal_key(keys["keys"][0])
    _wait("OpenBao is active", lambda: _health(address) == ACTIVE)
    return fresh, str(keys["root_token"])


def lay_out_database(client: Any) -> None:
    """The engine that makes logins which may read the table `reports`.

    Written each time: nobody can read back which password is there, and PostgreSQL's volume may be a new one.
    """
    _enable_engine(client, "database", "database")
    address = os.environ["POSTGRES_ADDRESS"]
    client.secrets.database.configure(
        "postgres",
        "postgresql-database-plugin",
        allowed_roles=[f"reports-{STAGE}"],
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{address}/{DATABASE}?sslmode=disable",
        username=SUPERUSER,
        password=_file("POSTGRES_PASSWORD_FILE").read_text(),
    )
    client.secrets.database.create_role(
        f"reports-{STAGE}",
        "postgres",
        creation_statements=[CREATE_LOGIN],
        revocation_statements=[DROP_LOGIN],
        default_ttl=LEASE_TTL,
        max_ttl=LEASE_MAX_TTL,
    )
    _say("OpenBao makes logins for PostgreSQL")


def lay_out_key(client: Any) -> None:
    """The geocoder's key: in KV for vaultauthz, in a file for the geocoder."""
    _enable_engine(client, "secret", "kv", {"version": "2"})
    _wait("the key-value store answers", lambda: _kv_answers(client))
    fields = {"api_key": _made_once(_file("API_KEY_FILE"))}
    # KV keeps versions: to write what is there would make another, and in time push out the older ones.
    if _in_kv(client, "geocoder") != fields:
        client.secrets.kv.v2.create_or_update_secret("geocoder", fields, mount_point="secret")
    _say("the geocoder's key is in OpenBao")


def lay_out_login(client: Any, *, fresh: bool) -> None:
    """Policy and AppRole of vaultauthz's stage, and its secret_id."""
    if "approle/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method("approle")
    client.sys.create_or_update_policy(STAGE, POLICY)
    client.auth.approle.create_or_update_approle(
        STAGE,
        token_policies=[STAGE],
        token_ttl="1h",  # noqa: S106  a duration
        token_max_ttl="24h",  # noqa: S106  a duration
    )
    client.auth.approle.update_role_id(STAGE, ROLE_ID)
    secret_id_file = _file("SECRET_ID_FILE")
    if fresh or not secret_id_file.exists():
        answer = client.auth.approle.generate_secret_id(STAGE)
        _write_private(secret_id_file, answer["data"]["secret_id"])
    _say("vaultauthz can log in")


def _enable_engine(
    client: Any, mount: str, kind: str, options: dict[str, str] | None = None
) -> None:
    if f"{mount}/" not in client.sys.list_mounted_secrets_engines()["data"]:
        client.sys.enable_secrets_engine(kind, path=mount, options=options)


def _kv_answers(client: Any) -> bool:
    # A new KV v2 upgrades itself first, and answers 400 to everything until it has.
    try:
        client.secrets.kv.v2.read_configuration(mount_point="secret")
    except InvalidRequest:
        return False
    return True


def _in_kv(client: Any, path: str) -> dict[str, Any] | None:
    """The newest version, None if there is none or it is deleted."""
    try:
        found = client.secrets.kv.v2.read_secret_version(
            path, mount_point="secret", raise_on_deleted_version=True
        )
    except InvalidPath:
        return None
    fields: dict[str, Any] = found["data"]["data"]
    return fields


def _health(address: str) -> int | None:
    try:
        return requests.get(
            f"{address}/v1/sys/health", timeout=2, allow_redirects=False
        ).status_code
    except requests.RequestException:
        return None


def _wait(what: str, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"setup: gave up after {PATIENCE_SECONDS} s of waiting until {what}")
        time.sleep(0.2)


def _file(variable: str) -> Path:
    return Path(os.environ[variable])


def _made_once(path: Path) -> str:
    """The secret in the file, made at random if there is none yet."""
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(24))
    return path.read_text()


def _write_private(path: Path, text: str) -> None:
    """Write the file whole or not at all, readable by its owner only."""
    half = path.with_name(f".{path.name}")
    half.unlink(missing_ok=True)
    half.touch(mode=0o600)
    half.write_text(text)
    half.replace(path)


def _say(what: str) -> None:
    sys.stdout.write(f"setup: {what}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
