"""One call to Vault: bounded in time and size, never redirected, sent at most once.

hvac's own adapter follows redirects with the token, waits 30 s for each read,
reads any amount, and gives exceptions without a status; this one stands in for it.

Which of a cluster's addresses is asked first: ``nodes.py``.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import Any
from urllib.parse import quote, unquote, urlencode

from hvac.adapters import RawAdapter

from vaultauthz.config.values import Vault
from vaultauthz.core import redaction
from vaultauthz.core.events import Operation
from vaultauthz.core.grant import NOT_VAULT, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault import errors
from vaultauthz.vault.errors import Call, NodeFate, VaultError
from vaultauthz.vault.nodes import Nodes
from vaultauthz.vault.trust import Trust
from vaultauthz.vault.wire import LIMIT, Ask, Deadline, Line, Reply

log = logging.getLogger(__name__)

# What we send, but at a login, that is no secret, and that Vault's texts name.
_PUBLIC = frozenset(("paths", "policy", "lease_id", "increment", "ttl", "renewable", "type"))
# What a segment of a path may hold as it is (RFC 3986, 3.3), and the slashes between them.
_AS_IT_IS = "/-._~:@!$&'()*+,;="
_ECHO = 6  # characters; shorter ones are in an identifier by chance
_LONGEST_WAIT = 999_999.0  # seconds of a Retry-After that are believed

Answer = dict[str, Any]
Told = Callable[[Operation, int, float], None]  # of a call: its status, 0 for no answer; seconds


def nobody(_operation: Operation, _status: int, _seconds: float) -> None:
    """Hears of calls where nobody counts them."""


def url(path: str) -> str:
    """Where ``path`` is, which is what ``vault read`` takes: each character stands for itself.

    Vault decodes it once, so that a ``%`` is one, and not the beginning of an escape.
    """
    return "/v1/" + quote(path, safe=_AS_IT_IS)


class Transport(RawAdapter):  # type: ignore[misc]  # hvac has no types
    """hvac's adapter interface over one connection to each node; for one thread.

    ``call`` says what is being asked, for the meaning of a failure, and ``operation`` what for, which
    ``told`` hears of with each exchange; ``credential`` is the token that goes along. They are set by
    ``calls.py`` before each exchange. ``address`` is of the node that was asked last.
    """

    # hvac's own __init__ is left out: it makes a requests session that nobody would use.
    def __init__(
        self,
        vault: Vault,
        clock: Callable[[], float],
        nodes: Nodes,
        trust: Trust,
        told: Told = nobody,
    ) -> None:
        self.namespace = vault.namespace
        self.call = Call.OTHER
        self.operation = Operation.OTHER
        self.credential: Secret | None = None
        self.address = vault.address
        self.date: float | None = None  # of the last answer, by the server's clock
        self.status = 0  # of the same
        self._told = told
        self._clock = clock
        self._timeout = vault.timeout
        self._nodes = nodes
        self._trust = trust
        self._lines = {name: Line(name, vault.tls.server_name) for name in vault.addresses}
        # Threads end without saying so.
        weakref.finalize(self, _close, tuple(self._lines.values()))

    def close(self) -> None:
        """Close the connections; the next call makes new ones."""
        _close(tuple(self._lines.values()))

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
        try:
            sent = self._headers(headers or {}, token)
            ask = _ask(method, url, sent, _revealed(kwargs.get("json")), kwargs.get("params"))
        except ValueError as exc:  # a text that HTTP or JSON cannot carry
            raise VaultError(errors.NOT_SENT, detail=type(exc).__name__) from exc
        given = (kwargs.get("json"), kwargs.get("params"))
        secrets = [token, *_secrets(self.call, given), *kwargs.get("hidden", ())]
        return self._ask_each(ask, secrets)

    def _headers(self, given: dict[str, str], token: str) -> dict[str, str]:
        headers = {
            "User-Agent": "vaultauthz",
            **given,
            "X-Vault-Request": "true",
            "X-Correlation-Id": uuid.uuid4().hex,
        }
        if token:
            headers["X-Vault-Token"] = token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        return headers

    def _ask_each(self, ask: Ask, secrets: list[str]) -> Answer:
        """Go from node to node until one has, or may have, done it."""
        deadline = Deadline(self._clock, self._timeout)
        failed: list[tuple[str, VaultError]] = []
        order = self._nodes.order(self._clock())
        for untried, address in zip(range(len(order), 0, -1), order, strict=True):
            if failed and deadline.passed():
                break  # nothing is known of the others
            self.address, began = address, self._clock()
            try:
                answer = self._ask(self._lines[address], ask, deadline, untried, secrets)
            except VaultError as exc:
                self._tell(ask, began, secrets, exc)
                self._learn(address, exc)
                if exc.node is not NodeFate.OUT:
                    raise
                failed.append((address, exc))
            else:
                self._tell(ask, began, secrets, answer)
                self._nodes.worked(address)
                return answer
        raise _nowhere(failed)

    def _tell(
        self, ask: Ask, began: float, secrets: list[str], outcome: Answer | VaultError
    ) -> None:
        """Count it; at the level debug: the call without its query, and what came of it; no value of either."""
        failed = outcome if isinstance(outcome, VaultError) else None
        status, seconds = failed.status if failed else self.status, self._clock() - began
        self._told(self.operation, status, seconds)
        if not log.isEnabledFor(logging.DEBUG):
            return
        named = "" if isinstance(outcome, VaultError) else outcome.get("request_id")
        request_id = named if isinstance(named, str) else ""
        path = ask.target.partition("?")[0]
        path = redaction.HIDDEN if _holds(unquote(path), secrets) else path
        log.debug(
            "Vault: %s %s: %s in %.1f ms%s%s",
            ask.method,
            path,
            status or "no answer",
            seconds * 1e3,
            f", request {request_id}" if request_id else "",
            f": {failed.failure.reason}" if failed else "",
            extra={
                "fields": {
                    "method": ask.method,
                    "path": path,
                    "status": status or None,
                    "seconds": round(seconds, 6),
                    "vault_request_id": request_id,
                    "address": self.address,
                    "reason": failed.failure.reason if failed else "",
                }
            },
        )

    def _learn(self, address: str, exc: VaultError) -> None:
        if exc.node in (NodeFate.OUT, NodeFate.UNSURE):
            sure = exc.node is NodeFate.OUT
            self._nodes.failed(address, self._clock(), exc.failure.reason, sure=sure)
        elif exc.status:
            self._nodes.worked(address)

    def _ask(
        self, line: Line, ask: Ask, deadline: Deadline, untried: int, secrets: list[str]
    ) -> Answer:
        context = self._trust.context() if line.secured else None
        sent = False
        try:
            line.open(context, deadline.share(untried))
            sent = True
            reply = line.exchange(ask, deadline)
        # A ValueError is a header that HTTP cannot carry, or an answer that it does not know.
        except (OSError, HTTPException, ValueError) as exc:
            raise errors.of_exception(exc, sent=sent) from exc
        return self._answer(reply, secrets)

    def _answer(self, reply: Reply, secrets: list[str]) -> Answer:
        if len(reply.body) > LIMIT:
            raise VaultError(errors.TOO_LARGE, reply.status)
        try:
            answer = json.loads(reply.body) if reply.body else {}
        except (ValueError, RecursionError):
            answer = None
        self.date, self.status = _date(reply.headers.get("Date", "")), reply.status
        if reply.status in (200, 202, 204):
            if isinstance(answer, dict) and not _names_token(answer, secrets):
                return _without_echoes(answer, secrets)
            raise VaultError(NOT_VAULT, reply.status, node=NodeFate.UNSURE)
        texts = _texts(answer)
        said = redaction.shown(" ".join(texts), secrets)
        to = redaction.host(reply.headers.get("Location", "")) if 300 <= reply.status < 400 else ""
        detail = " ".join(filter(None, (said, redaction.shown(to, secrets))))
        wait = _retry_after(reply.headers)
        raise errors.of_status(self.call, reply.status, texts, wait, detail)


def _close(lines: tuple[Line, ...]) -> None:
    for line in lines:
        line.close()


def _ask(method: str, url: str, headers: dict[str, str], content: object, params: Any) -> Ask:
    body = None
    if content is not None:
        body = json.dumps(content, allow_nan=False).encode()
        headers["Content-Type"] = "application/json"
    # What it is made of is escaped already: by hvac, or by `url`.
    path = quote(url.strip("/"), safe=f"%{_AS_IT_IS}")
    given = {name: value for name, value in (params or {}).items() if value is not None}
    query = f"?{urlencode(given, doseq=True)}" if given else ""
    return Ask(method.upper(), f"/{path}{query}", headers, body)


def _nowhere(failed: list[tuple[str, VaultError]]) -> VaultError:
    """No node did it: what passes by itself is told rather than what does not."""
    passing = [exc for _, exc in failed if exc.failure.verdict is Verdict.RETRY]
    chosen = (passing or [exc for _, exc in failed])[0]
    if len(failed) > 1:
        each = (f"{address}: {exc.detail or exc.failure.reason}" for address, exc in failed)
        chosen.detail = "; ".join(each)
    return chosen


def _texts(answer: object) -> list[str]:
    found = answer.get("errors") if isinstance(answer, dict) else None
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _without_echoes(answer: Answer, secrets: list[str]) -> Answer:
    """The answer, whose identifiers go into logs and audit lines, without those that hold a secret."""
    auth = answer.get("auth")
    if isinstance(auth, dict):
        secrets = [*secrets, *_long_texts((auth.get("client_token"),))]
        if _holds(auth.get("accessor"), secrets):
            answer = {**answer, "auth": {**auth, "accessor": ""}}
    if _holds(answer.get("request_id"), [*secrets, *_long_texts((answer.get("data"),))]):
        answer = {**answer, "request_id": ""}
    return answer


def _names_token(answer: Answer, secrets: list[str]) -> bool:
    """Whether the lease is called by the token it was asked with: nothing of Vault's is."""
    return _holds(answer.get("lease_id"), secrets[:1])


def _holds(name: object, secrets: list[str]) -> bool:
    return isinstance(name, str) and any(
        len(secret) >= _ECHO and secret.lower() in name.lower() for secret in secrets
    )


def _long_texts(values: Iterable[object], deep: int = 2) -> Iterator[str]:
    for value in values:
        if isinstance(value, str) and len(value) >= _ECHO:
            yield value
        elif isinstance(value, Mapping) and deep:  # KV has its fields one below
            yield from _long_texts(value.values(), deep - 1)


def _retry_after(headers: HTTPMessage) -> float:
    """Seconds; of a date by the answer's own clock, as ours may be wrong."""
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,6}", value):
        return float(value)
    until, now = _date(value), _date(headers.get("Date", ""))
    if until is None:
        return 0.0
    wait = until - (time.time() if now is None else now)
    return min(max(0.0, wait), _LONGEST_WAIT)


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _revealed(content: object) -> object:
    """What is sent, with each ``Secret`` of it as itself."""
    if not isinstance(content, Mapping):
        return content
    return {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in content.items()
    }


def _secrets(call: Call, content: object, key: str = "") -> Iterator[str]:
    """The texts in what is sent that no answer's text may bring into a log.

    A login says by itself which of them are secret. What an upstream's ``params`` say is from
    the configuration, which holds no secret, and is hidden only where its name says that it is one.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _secrets(call, value, str(name))
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from _secrets(call, value, key)
    elif isinstance(content, Secret):
        yield content.reveal()
    elif isinstance(content, str) and content and _is_secret(call, key):
        yield content


def _is_secret(call: Call, key: str) -> bool:
    if call in (Call.LOGIN, Call.LOGIN_LOCKABLE):
        return False
    if call is Call.READ:
        return (
            re.search("pass|secret|token|key|pin|code|credential|input", key, re.IGNORECASE)
            is not None
        )
    return key not in _PUBLIC
