"""docs/embedding.md, run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vaultauthz.demo.parts import OpenBao

pytestmark = pytest.mark.integration

_DOCUMENT = Path(__file__).parents[2] / "docs" / "embedding.md"

_CONFIG = """
vault: {{address: "{address}"}}
stages: {{production: {{auth: {{method: approle, role_id: {role_id}, secret_id_file: secret_id}}}}}}
upstreams:
  geocoder:
    secret: {{kv: embedding/geocoder}}
    inject: [{{header: {{name: X-Api-Key, value: "{{api_key}}"}}}}]
    callers: any
routes: [{{host: geo.example.com, upstream: geocoder}}]
audit: {{file: audit.jsonl}}
"""


def test_the_documented_example_runs_and_leaves_nothing_behind(
    bao: OpenBao, tmp_path: Path, secret_id: Path
) -> None:
    """The example prints what it set, revokes its token at the end, and never shows the key."""
    bao.put_kv("embedding/geocoder", {"api_key": "kv-key-0123456789"})
    policy = 'path "embedding/*" { capabilities = ["read"] }'
    role_id, secret = bao.enable_approle("embedding", policy)
    secret_id.write_text(secret)
    config = _CONFIG.format(address=bao.address, role_id=role_id)
    (tmp_path / "vaultauthz.yaml").write_text(config)
    example = re.search(r"```python\n(.*?)```", _DOCUMENT.read_text(), re.DOTALL)
    assert example
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example.group(1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "set x-api-key (17 characters)" in done.stdout
    assert "leased for geocoder as " in done.stdout
    assert "['login', 'lease.issued', 'token.revoked']" in done.stdout
    everything = done.stdout + done.stderr + (tmp_path / "audit.jsonl").read_text()
    assert "kv-key-0123456789" not in everything
    assert '"event":"request.allowed"' in everything.replace(": ", ":")
