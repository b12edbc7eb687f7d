"""A JWT that a Google service account signs: by its key file, or by Google for us."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import google.auth
from google.auth import crypt, exceptions, jwt, transport
from google.oauth2 import service_account

from vaultauthz.config.auth import fields_in, token_in
from vaultauthz.config.auth.gcp import Gcp
from vaultauthz.core.grant import Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth import cloud
from vaultauthz.vault.auth.here import read_secret
from vaultauthz.vault.errors import VaultError

_WHO: Final = "Google's IAM"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
# Vault's role allows 15 minutes at most; less leaves room for clocks that differ.
_LIFETIME: Final = 300
_ALTOGETHER: Final = 30.0  # seconds, for all that google-auth asks for one login


def signed(auth: Gcp) -> Secret:
    """A JWT for ``auth.role``, good for five minutes.

    Raises:
        VaultError: the key file is wrong, no credentials were found, or Google
            refused or could not be reached.
    """
    cloud.quiet("google")
    try:
        if auth.credentials_file is None:
            return _by_google(_found(), auth)
        return _by_key(auth, auth.credentials_file)
    except exceptions.DefaultCredentialsError as exc:
        raise cloud.failed("no Google credentials were found") from exc
    except exceptions.GoogleAuthError as exc:
        verdict = Verdict.RETRY if exc.retryable else Verdict.REFUSED
        text = "Google gave no access token for the credentials"
        raise cloud.failed(text, type(exc).__name__, verdict) from exc


def _found() -> Any:
    """The application default credentials: a file's, or the machine's."""
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES, request=_BoundedRequest())
    except VaultError as exc:  # the last thing it looks for is a metadata server
        text = "no Google credentials were found, and no metadata server answers"
        raise cloud.failed(text, exc.failure.reason) from exc
    return credentials


def _by_key(auth: Gcp, path: Path) -> Secret:
    text = read_secret(path, "service account key")
    try:
        key = json.loads(text.reveal())
        email = key["client_email"]
        if auth.service_account not in ("", email):  # another one, which the key may act for
            made = service_account.Credentials.from_service_account_info(key, scopes=_SCOPES)  # type: ignore[no-untyped-call]
            return _by_google(made, auth)
        signer = crypt.RSASigner.from_service_account_info(key)  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, TypeError, exceptions.MalformedError) as exc:
        reason = "the credentials_file is no service account's key"
        raise cloud.failed(reason, str(path), Verdict.REFUSED) from exc
    made_here = jwt.encode(signer, _claims(auth, email))  # type: ignore[no-untyped-call]
    return Secret(made_here.decode())


def _claims(auth: Gcp, email: str) -> dict[str, Any]:
    return {"sub": email, "aud": f"vault/{auth.role}", "exp": int(time.time()) + _LIFETIME}


def _by_google(credentials: Any, auth: Gcp) -> Secret:
    """Let Google sign: ``projects.serviceAccounts.signJwt`` of its IAM credentials API."""
    email = auth.service_account
    credentials.refresh(_BoundedRequest())
    reply = cloud.exchange(
        _WHO,
        f"{_api()}/v1/projects/-/serviceAccounts/{quote(email, safe='@')}:signJwt",
        method="POST",
        headers={
            "Authorization": f"Bearer {credentials.token}",
            "Content-Type": "application/json",
        },
        body=json.dumps({"payload": json.dumps(_claims(auth, email))}).encode(),
    )
    if reply.status in (400, 401, 403, 404):
        text = (
            f"{_WHO} refused to sign for {email} (roles/iam.serviceAccountTokenCreator is needed)"
        )
        raise cloud.failed(text, f"status {reply.status}", Verdict.REFUSED)
    if reply.status != 200:
        raise cloud.failed(f"{_WHO} answered {reply.status}")
    return token_in(_WHO, fields_in(_WHO, reply).get("signedJwt"))


def _api() -> str:
    """The API's address; gcloud honours the same variable, for a private endpoint."""
    override = os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS", "")
    return override.rstrip("/") or "https://iamcredentials.googleapis.com"


class _BoundedRequest(transport.Request):
    """What google-auth asks with, in place of its own 120 s for each attempt.

    Our error passes through its loops of attempts: the login itself is tried again.
    """

    def __init__(self) -> None:
        self._until = time.monotonic() + _ALTOGETHER

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Any:
        left = self._until - time.monotonic()
        if left <= 0.0:
            raise cloud.failed("Google did not answer in time")
        data = body.encode() if isinstance(body, str) else body
        return cloud.exchange(
            "Google", url, method=method, headers=headers, body=data, timeout=min(5.0, left)
        )
