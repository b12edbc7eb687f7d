"""One HTTP exchange with Vault: bounded in time and size, never redirected.

hvac's own adapter follows redirects with the token, waits 30 s for each read,
reads any amount, and gives exceptions without a status; this one stands in for it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import requests
import urllib3
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from vaultauthz.config.values import Vault
from vaultauthz.core.secret import Secret
from vaultauthz.vault import errors
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.unix import UnixAdapter

_LIMIT = 1 << 20  # bytes of one answer
_DETAIL = 300  # characters of Vault's text that an operator's log gets

Answer = dict[str, Any]


class Transport(RawAdapter):  # type: ignore[misc]  # hvac has no types
    """hvac's adapter interface over one requests session; for one thread.

    ``call`` says what is being asked, for the meaning of a failure; ``token`` is
    what goes along. Both are set by ``session.py`` before each exchange.
    """

    def __init__(self, vault: Vault, clock: Callable[[], float]) -> None:
        unix = vault.address.startswith("unix://")
        super().__init__(
            base_uri="http://localhost" if unix else vault.address,
            session=_session(vault),
            namespace=vault.namespace or None,
            timeout=vault.timeout,
            allow_redirects=False,
        )
        self.call = Call.OTHER
        self.credential: Secret | None = None
        self._clock = clock
        self._timeout = vault.timeout

    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        raise_exception: bool = True,  # noqa: FBT001, FBT002  hvac's signature
        **kwargs: Any,
    ) -> Answer:
        """Send it and return the answer's JSON object; {} for an empty 204.

        Raises:
            VaultError: whatever else happened.
        """
        # For hvac, whose login() would keep the token: ours travels per exchange.
        token = self.credential.reveal() if self.credential else ""
        sent = self._headers(headers or {}, token)
        until = self._clock() + self._timeout
        limit: Any = urllib3.Timeout(total=self._timeout)  # connecting and the first byte together
        try:
            with self.session.request(
                method=method,
                url=self.urljoin(self.base_uri, quote(url, safe="/%-._~:@!$&'()*+,;=")),
                headers=sent,
                allow_redirects=False,
                timeout=limit,
                stream=True,
                json=kwargs.get("json"),
                params=kwargs.get("params"),
            ) as response:
                return self._answer(response, self._body(response, until), token)
        # requests' own are OSErrors, as is a file of `tls` that is gone; urllib3's come while the
        # body is read; a ValueError is a text that HTTP cannot carry.
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as exc:
            raise VaultError(errors.of_exception(exc), detail=type(exc).__name__) from exc

    def _headers(self, given: dict[str, str], token: str) -> dict[str, str]:
        headers = {**given, "X-Vault-Request": "true", "X-Correlation-Id": uuid.uuid4().hex}
        if token:
            headers["X-Vault-Token"] = token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        return headers

    def _body(self, response: requests.Response, until: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := response.raw.read1(65536):
            chunks.append(chunk)
            size += len(chunk)
            if size > _LIMIT:
                raise VaultError(errors.TOO_LARGE, response.status_code)
            if self._clock() > until:
                raise VaultError(errors.TOO_SLOW, response.status_code)
        return b"".join(chunks)

    def _answer(self, response: requests.Response, body: bytes, token: str) -> Answer:
        try:
            answer = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            answer = None
        status = response.status_code
        if status in (200, 202, 204):
            if isinstance(answer, dict):
                return answer
            raise VaultError(errors.NOT_VAULT, status)
        texts = _texts(answer)
        failure = errors.of_status(self.call, status, texts, _retry_after(response))
        raise VaultError(failure, status, _clean(" ".join(texts), token))


def _session(vault: Vault) -> requests.Session:
    session = requests.Session()
    # Nothing from the environment: ~/.netrc would add an Authorization header, and
    # a proxy would see the token.
    session.trust_env = False
    session.headers["Accept-Encoding"] = "identity"
    session.verify = str(vault.tls.ca_cert) if vault.tls.ca_cert else True
    if vault.tls.client_cert:
        session.cert = (
            str(vault.tls.client_cert),
            str(vault.tls.client_key or vault.tls.client_cert),
        )
    if vault.address.startswith("unix://"):
        session.mount("http://", UnixAdapter(vault.address.removeprefix("unix://")))
    elif vault.tls.server_name:
        session.mount("https://", _NamedAdapter(vault.tls.server_name))
    return session


class _NamedAdapter(HTTPAdapter):
    """Asks for, and checks, another server name than the address has."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(server_hostname=self._name, assert_hostname=self._name)
        super().init_poolmanager(*args, **kwargs)


def _texts(answer: object) -> list[str]:
    found = answer.get("errors") if isinstance(answer, dict) else None
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _retry_after(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d{1,6}", value) else 0.0


def _clean(text: str, token: str) -> str:
    if token:
        text = text.replace(token, "<token>")
    return re.sub(r"\s+", " ", re.sub(r"[^\x20-\x7e\s]", "?", text)).strip()[:_DETAIL]
