"""Secrets without a lease that end, on the real OpenBao: identity tokens, TOTP codes, stored JWTs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from vaultauthz.config import parse
from vaultauthz.core.decision import Allowed
from vaultauthz.core.request import Request
from vaultauthz.demo.parts import OpenBao, binaries, wait_for
from vaultauthz.engine import Engine

pytestmark = pytest.mark.integration

_POLICY = """
path "identity/oidc/token/gateway" { capabilities = ["read"] }
path "ends-totp/code/partner"      { capabilities = ["read"] }
path "ends-totp/keys/partner"      { capabilities = ["read"] }
path "ends/*"                      { capabilities = ["read"] }
"""


@pytest.fixture
def login(bao: OpenBao, secret_id: Path) -> str:
    """The configuration's beginning."""
    role_id, secret = bao.enable_approle("ends", _POLICY)
    secret_id.write_text(secret)
    auth = f"{{method: approle, role_id: {role_id}, secret_id_file: {secret_id}}}"
    return f"vault: {{address: '{bao.address}'}}\nstages: {{ends: {{auth: {auth}}}}}\nupstreams:\n"


@contextmanager
def _engine(login: str, secret: str, value: str) -> Iterator[Engine]:
    inject = f'inject: [{{header: {{name: X-Key, value: "{value}"}}}}]'
    text = f"{login} u:\n  secret: {secret}\n  {inject}\n  callers: any\n"
    with Engine(parse(text, "test", Path(), {})) as engine:
        yield engine


def _sent(engine: Engine) -> str:
    """What a request would carry now; "" where it is denied."""
    decision = engine.check(Request("test", upstream="u"))
    if not isinstance(decision, Allowed):
        return ""
    assert decision.credential
    return dict(decision.credential.mutation.headers)["x-key"]


def _error(engine: Engine) -> str:
    return next(row.last_error for row in engine.keeper.rows() if row.upstream == "u")


def _exp(token: str) -> float:
    middle = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(middle + "==="))["exp"])


def test_an_identity_token_is_never_used_after_its_end(bao: OpenBao, login: str) -> None:
    """It has no lease but a ttl; three in a row, each replaced before its exp."""
    client = bao.client()
    client.write("identity/oidc/key/ends", allowed_client_ids="*", verification_ttl="1h")
    client.write("identity/oidc/role/gateway", key="ends", ttl="5s")
    seen: set[str] = set()
    with _engine(login, "{path: identity/oidc/token/gateway}", "{token}") as engine:

        def three() -> bool:
            before, token = time.time(), _sent(engine)
            if token:
                assert before < _exp(token)
                seen.add(token)
            return len(seen) == 3

        assert wait_for(three, 90)
        left = next(row.seconds_left for row in engine.keeper.rows() if row.upstream == "u")
        assert left is None or left <= 5.0


def _code(secret: str, step: int) -> str:
    """RFC 4226, 5.3: HMAC-SHA-1 and six digits."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", step), hashlib.sha1)
    start = digest[-1] & 15
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**6:06}"


def test_a_totp_code_is_that_of_its_time_step(bao: OpenBao, login: str) -> None:
    """Three steps in a row; OpenBao says with each code when it ends, Vault at the key."""
    bao.enable_engine("ends-totp", "totp")
    made = bao.client().write(
        "ends-totp/keys/partner", generate=True, issuer="us", account_name="partner", period="4s"
    )
    (secret,) = parse_qs(urlsplit(made["data"]["url"]).query)["secret"]
    # Vault does not say which step a code is of: in a step's first second it may be the last one's.
    late = 1 if binaries.vault().hashicorps else 0
    seen: set[str] = set()
    with _engine(login, "{path: ends-totp/code/partner}", "{code}") as engine:

        def three() -> bool:
            before = time.time() // 4
            code, after = _sent(engine), time.time() // 4
            if code:
                assert code in {_code(secret, int(step)) for step in (before - late, before, after)}
                seen.add(code)
            return len(seen) == 3

        assert wait_for(three, 90)


def _jwt(exp: float) -> str:
    parts = ({"alg": "RS256", "typ": "JWT"}, {"exp": int(exp), "sub": "gateway"})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return ".".join([*(text.decode() for text in texts), "c2lnbmF0dXJl"])


def test_a_stored_token_is_used_to_its_end_and_no_longer(bao: OpenBao, login: str) -> None:
    """KV knows nothing of it; whoever wrote it has to write the next."""
    end = time.time() + 6.0
    bao.put_kv("ends/partner", {"token": _jwt(end)})
    with _engine(login, "{kv: ends/partner, refresh: 1h}", "Bearer {token}") as engine:
        assert wait_for(lambda: bool(_sent(engine)) or time.time() > end, 60)

        def refused() -> bool:
            before, sent = time.time(), _sent(engine)
            assert not sent or before < end
            return "exp has passed" in _error(engine)

        assert wait_for(refused, 90)
        bao.put_kv("ends/partner", {"token": _jwt(time.time() + 3600)})
        assert wait_for(lambda: _sent(engine).startswith("Bearer ey"), 90)


def test_fields_of_a_stored_secret_that_are_no_end(bao: OpenBao, login: str) -> None:
    """`ttl` in KV is its writer's own."""
    bao.put_kv("ends/own", {"key": "k", "ttl": 1, "expires_in": "1s", "expiration": "never"})
    with _engine(login, "{kv: ends/own, refresh: 1s}", "{key}") as engine:
        assert wait_for(lambda: _sent(engine) == "k", 60)
        time.sleep(2.5)
        assert _sent(engine) == "k"
