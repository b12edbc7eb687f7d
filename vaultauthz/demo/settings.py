"""The configuration that the demo writes for vaultauthz, and the Vault policy of its stage."""

from pathlib import Path

# What the stage's login may do, and nothing else.
POLICY = """
path "database/creds/reports-demo" { capabilities = ["read"] }
path "secret/data/geocoder"        { capabilities = ["read"] }
path "sys/leases/revoke"           { capabilities = ["update"] }
"""
_CONFIG = """\
vault:
  address: {vault}

stages:
  demo:
    auth: {{method: approle, role_id: {role_id}, secret_id_file: {folder}/secret_id}}

upstreams:
  reports:
    secret: {{path: "database/creds/reports-{{stage}}"}}
    inject: [{{basic: {{username: "{{username}}", password: "{{password}}"}}}}]
    strip: [X-Api-Key]
    callers: [{{principal: "{dashboard}"}}]
  geocoder:
    secret: {{kv: {key_path}, refresh: 1s}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    strip: [Authorization]
    callers: any

routes:
  - {{host: geocoder.demo, path_prefix: /, upstream: geocoder, stage: demo}}

listen:
  grpc: unix://{folder}/grpc.sock
  admin: unix://{folder}/admin.sock

audit: {{file: {folder}/audit.jsonl}}
"""


def config_text(*, vault: str, role_id: str, folder: Path, dashboard: str, key_path: str) -> str:
    """The YAML: Vault's address, the stage's login, who may use `reports`, where the key is; files are in `folder`."""
    return _CONFIG.format(
        vault=vault, role_id=role_id, folder=folder, dashboard=dashboard, key_path=key_path
    )
