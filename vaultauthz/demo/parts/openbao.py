"""OpenBao with what the demo and the tests want laid out in it."""

from typing import Any

from hvac.exceptions import InvalidRequest

from vaultauthz.demo.parts.bao_server import BaoServer
from vaultauthz.demo.parts.pki import Pki
from vaultauthz.demo.parts.postgres import DATABASE, Postgres
from vaultauthz.demo.parts.process import wait_for

CREATE_LOGIN = """
CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
GRANT SELECT ON reports TO "{{name}}";
"""
# The open sessions first: PostgreSQL lets a session live on after its role is gone.
DROP_LOGIN = """
ALTER ROLE "{{name}}" NOLOGIN;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
REASSIGN OWNED BY "{{name}}" TO postgres;
DROP OWNED BY "{{name}}";
DROP ROLE "{{name}}";
"""
CONNECTION = "postgres"
KV2, KV_SECONDS = "kv-v2", 10


class OpenBao(BaoServer):
    """An OpenBao server whose methods enable an engine when it is first needed; TTLs are Vault durations (`20s`)."""

    def enable_approle(
        self,
        stage: str,
        policy_hcl: str,
        *,
        token_ttl: str = "1h",  # noqa: S107  # a duration
        token_max_ttl: str = "24h",  # noqa: S107  # a duration
    ) -> tuple[str, str]:
        """A policy and an AppRole, both named after the stage; its role_id and a secret_id that lasts."""
        client = self.client()
        self._enable_auth("approle")
        client.sys.create_or_update_policy(stage, policy_hcl)
        client.auth.approle.create_or_update_approle(
            stage, token_policies=[stage], token_ttl=token_ttl, token_max_ttl=token_max_ttl
        )
        role_id = client.auth.approle.read_role_id(stage)["data"]["role_id"]
        secret_id = client.auth.approle.generate_secret_id(stage)["data"]["secret_id"]
        return str(role_id), str(secret_id)

    def put_kv(self, path: str, fields: dict[str, Any]) -> int:
        """Write a new version to KV v2; `path` begins with the mount (`secret/geocoder`). The version's number."""
        mount, _, name = path.partition("/")
        self.enable_engine(mount, KV2)
        written = self.client().secrets.kv.v2.create_or_update_secret(
            name, fields, mount_point=mount
        )
        return int(written["data"]["version"])

    def database(
        self, postgres: Postgres, role_name: str, *, default_ttl: str, max_ttl: str
    ) -> str:
        """A role of the database engine whose logins may read `reports`; the path that issues one."""
        self.enable_engine("database", "database")
        database = self.client().secrets.database
        database.configure(
            CONNECTION,
            "postgresql-database-plugin",
            allowed_roles=["*"],
            connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.address}/{DATABASE}?sslmode=disable",
            username=postgres.superuser,
            password=postgres.password,
        )
        database.create_role(
            role_name,
            CONNECTION,
            creation_statements=[CREATE_LOGIN],
            revocation_statements=[DROP_LOGIN],
            default_ttl=default_ttl,
            max_ttl=max_ttl,
        )
        return f"database/creds/{role_name}"

    def pki(self, mount: str = "pki") -> Pki:
        """A certificate authority of its own, made when the mount is new."""
        if self.enable_engine(mount, "pki"):
            return Pki.create(self.client(), mount)
        return Pki(self.client(), mount)

    def enable_engine(self, mount: str, engine: str) -> bool:
        """Enable a secrets engine at the mount (`kv-v2` is KV version 2); False if the mount is there already."""
        client = self.client()
        if f"{mount}/" in client.sys.list_mounted_secrets_engines()["data"]:
            return False
        kind, _, version = engine.partition("-v")
        client.sys.enable_secrets_engine(
            kind, path=mount, options={"version": version} if version else None
        )
        if engine == KV2:
            wait_for(lambda: self._kv_answers(mount), KV_SECONDS)
        return True

    def _kv_answers(self, mount: str) -> bool:
        # A new KV v2 upgrades itself first, and answers 400 to everything until it has.
        try:
            self.client().secrets.kv.v2.read_configuration(mount_point=mount)
        except InvalidRequest:
            return False
        return True

    def _enable_auth(self, method: str) -> None:
        client = self.client()
        if f"{method}/" not in client.sys.list_auth_methods()["data"]:
            client.sys.enable_auth_method(method)
