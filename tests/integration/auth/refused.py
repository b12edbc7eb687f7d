"""What doctor says of a login that Vault refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vaultauthz.config import parse
from vaultauthz.doctor import DoctorOptions, run
from vaultauthz.terminal import Output

from .auth_bao import AuthBao

_TEXT: Final = """\
vault: {address: "ADDRESS", tls: {ca_cert: "CA"}, timeout: 30s}
stages: {production: {auth: AUTH}}
upstreams:
  geocoder:
    secret: {kv: secret/geocoder}
    inject: [{header: {name: X-Api-Key, value: "{api_key}"}}]
    callers: any
"""


def reason(vault: AuthBao, auth: Mapping[str, Any]) -> str:
    """Why, what to do, and the commands, of the finding about the login with these keys."""
    text = _TEXT.replace("ADDRESS", vault.tls_address).replace("CA", str(vault._authority.ca))
    config = parse(text.replace("AUTH", json.dumps(auth, default=str)), "c.yaml", Path("/"), {})
    out = io.StringIO()
    assert (
        run(
            config,
            DoctorOptions("production", fetch=False),
            Output(out, as_json=True),
            io.StringIO(),
        )
        == 1
    )
    found = json.loads(out.getvalue())["findings"]
    (finding,) = [each for each in found if each["what"].startswith("the login by")]
    return "\n".join((finding["why"], finding["mend"], *finding["lines"]))
