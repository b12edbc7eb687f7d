"""From a request to its answer: which paths there are, and who may ask for which.

By the bearer token, and by what keeps a browser's other pages out. A page from elsewhere, open in
an operator's browser, can send requests to the loopback address. It cannot set X-Vaultauthz on them
without a preflight, which is never granted; and when its own name resolves to 127.0.0.1 (DNS
rebinding), the Host header still carries that name. What a browser says of itself where it asks for
something to be done (Sec-Fetch-Site) is looked at besides.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from threading import BoundedSemaphore
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, unquote

from vaultauthz.admin.access import NOBODY, Guard, Peer, reason_of
from vaultauthz.admin.overview import MOST, Asked
from vaultauthz.admin.view import AdminView, EndingCertificate, LeaseRow
from vaultauthz.core import redaction
from vaultauthz.core.events import AskedBy

MARK: Final = "X-Vaultauthz"
_AT_ONCE: Final = 8  # long answers being made; of ten thousand upstreams each takes a while
_SECONDS: Final = ("seconds_left", "renew_in", "refused_for", "ttl", "held_for")  # of a row
_UPSTREAM_PATH_PARTS: Final = 4  # "", "upstreams", NAME, "rotate"
_STARTED: Final = "started"  # the query by which probes ask
JSON: Final = "application/json"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_MOST_LEASES: Final = 500  # of one answer for the page
_LONGEST_FIND: Final = 200  # characters
_FROM_HERE: Final = ("", "same-origin")  # Sec-Fetch-Site of the page, and of what is no browser

_Act = Callable[[str, str | None, AskedBy], tuple[str, ...]]

# What a browser is told of everything but the page: nothing in it is to be run.
BARE_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
# … and of the page: its own two files are, nothing that stands in it, and text is never made markup.
PAGE_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src data:; script-src 'self'; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_PAGE: Final = {
    "/": ("page.html", "text/html; charset=utf-8", PAGE_POLICY),
    "/page.css": ("page.css", "text/css; charset=utf-8", BARE_POLICY),
    "/page.js": ("page.js", "text/javascript; charset=utf-8", BARE_POLICY),
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` come beside those that every answer has; ``policy`` is the CSP.

    ``refused``: why it is a refusal, a word of ours; "" where it is none.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    policy: str = BARE_POLICY
    refused: str = ""


def as_json(status: int, value: Any, *headers: tuple[str, str]) -> Answer:
    """``value`` as JSON, non-ASCII escaped."""
    body = json.dumps(value, allow_nan=False).encode() + b"\n"
    refused = (
        value.get("error", "")
        if isinstance(value, dict) and status >= HTTPStatus.BAD_REQUEST
        else ""
    )
    return Answer(status, body, headers=headers, refused=refused)


def error(status: int, reason: str, *headers: tuple[str, str]) -> Answer:
    """``{"error": reason}``; the reason is a word of ours, never the client's text."""
    return as_json(status, {"error": reason}, *headers)


def seconds(value: float | None) -> float | None:
    """A duration for JSON, which has no infinity: None for a time that never comes."""
    return round(value, 1) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class AdminCall:
    """What of an HTTP request matters here; absent headers are ""."""

    method: str
    path: str
    query: str = ""
    host: str = ""
    authorization: str = ""
    mark: str = ""  # of X-Vaultauthz
    site: str = ""  # Sec-Fetch-Site
    known: str = ""  # If-None-Match
    body: bytes = b""
    peer: Peer = NOBODY


class AdminRoutes:
    """Answers calls; any thread may ask."""

    def __init__(self, view: AdminView, guard: Guard) -> None:
        self._view = view
        self._guard = guard
        self._turns = BoundedSemaphore(_AT_ONCE)
        self._open: dict[str, Callable[[AdminCall], Answer]] = {
            **dict.fromkeys(_PAGE, lambda call: _page(call.path)),
            "/healthz": lambda _: as_json(200, {"alive": True}),
            "/readyz": self._readyz,
        }
        self._guarded: dict[str, Callable[[AdminCall], Answer]] = {
            "/leases": self._leases,
            "/certificates": lambda _: as_json(200, self._certificates()),
            "/overview": self._overview,
            "/metrics": lambda _: Answer(200, self._view.metrics().encode(), METRICS),
        }

    def answer(self, call: AdminCall) -> Answer:
        """The answer to any request whatever; a HEAD's has the body that a GET's would."""
        if not self._guard.knows_host(call.host):
            return error(421, "wrong_host")
        try:
            return self._routed(call)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the server goes on
            # Only its type: the text of a foreign exception is not ours to show.
            _log.error("admin: %r failed: %s", call.path, type(exc).__name__)
            return error(500, "internal")

    def _routed(self, call: AdminCall) -> Answer:
        action = self._action(call.path)
        if action:
            return self._post(call, *action)
        if call.path not in self._open and call.path not in self._guarded:
            return error(404, "not_found")
        if call.method not in ("GET", "HEAD"):
            return error(405, "method_not_allowed", ("Allow", "GET, HEAD"))
        if call.path in self._open:
            return self._open[call.path](call)
        if not self._guard.admits(call.authorization):
            return _unauthorized()
        return self._long(lambda: self._guarded[call.path](call))

    def _long(self, answer: Callable[[], Answer]) -> Answer:
        if not self._turns.acquire(blocking=False):  # probes need the time of this process, too
            return error(503, "busy", ("Retry-After", "1"))
        try:
            return answer()
        finally:
            self._turns.release()

    def _action(self, path: str) -> tuple[_Act, str] | None:
        parts = path.split("/")
        if len(parts) != _UPSTREAM_PATH_PARTS or parts[1] != "upstreams":
            return None
        actions = {"rotate": self._view.rotate, "revoke": self._view.revoke}
        action = actions.get(parts[3])
        return (action, unquote(parts[2])) if action else None

    def _post(self, call: AdminCall, action: _Act, upstream: str) -> Answer:
        if call.method != "POST":
            return error(405, "method_not_allowed", ("Allow", "POST"))
        if not self._guard.admits(call.authorization):
            return _unauthorized()
        if refusal := _from_elsewhere(call):
            return refusal
        return self._act(call, action, upstream)

    def _act(self, call: AdminCall, action: _Act, upstream: str) -> Answer:
        try:
            stage = _stage(call.query)
        except ValueError:
            return error(400, "bad_query")
        try:
            reason = redaction.written(reason_of(call.body))
        except ValueError:
            hint = f'send {{"reason": "…"}}, {AskedBy.longest} printable characters at most'
            return as_json(400, {"error": "bad_body", "hint": hint})
        who = call.peer.name(token=self._guard.by_token)
        stages = action(upstream, stage, AskedBy(who, reason))
        if not stages:
            return error(404, "unknown_upstream")
        name = call.path.rpartition("/")[2]
        return as_json(202, {"asked": name, "upstream": upstream, "stages": stages})

    def _leases(self, call: AdminCall) -> Answer:
        """All of them, or those of the ``upstream`` in the query."""
        wanted = parse_qs(call.query).get("upstream")
        found = self._view.leases()
        return as_json(200, [_row(row) for row in found if not wanted or row.upstream in wanted])

    def _certificates(self) -> list[dict[str, object]]:
        now = time.time()
        return [_certificate(one, now) for one in self._view.certificates()]

    def _overview(self, call: AdminCall) -> Answer:
        """For the page; 304 where that is as it was. Its time is in a header, as that is another each time."""
        try:
            asked = _asked(call.query)
        except ValueError:
            return error(400, "bad_query")
        found = self._view.overview(asked)
        answer = as_json(200, found.told)
        tag = f'"{sha256(answer.body).hexdigest()[:32]}"'
        headers = (("ETag", tag), (f"{MARK}-Now", f"{found.now:.3f}"))
        if call.known == tag:
            return Answer(304, b"", headers=headers)
        return replace(answer, headers=headers)

    def _readyz(self, call: AdminCall) -> Answer:
        if call.query not in ("", _STARTED):
            return as_json(
                400, {"error": "bad_query", "hint": f"ask /readyz or /readyz?{_STARTED}"}
            )
        readiness = self._view.ready()
        shown: dict[str, object] = {"ready": readiness.ready, "started": readiness.started}
        if not readiness.recorded:
            shown["audit"] = "cannot be written"
        shown |= readiness.besides
        # Probes carry no token; then the names of upstreams stay inside.
        if readiness.waiting and self._guard.admits(call.authorization):
            shown["waiting"] = [asdict(waiting) for waiting in readiness.waiting]
        met = readiness.started if call.query else readiness.ready
        return as_json(200 if met else 503, shown)


def _from_elsewhere(call: AdminCall) -> Answer | None:
    """The refusal of what another page in a browser may have sent."""
    if not call.mark:
        return as_json(403, {"error": "mark_missing", "hint": f"send the header {MARK}: 1"})
    return None if call.site in _FROM_HERE else error(403, "cross_site")


def _stage(query: str) -> str | None:
    fields = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=2)
    values = fields.pop("stage", [])
    if fields or len(values) > 1:
        raise ValueError(query)
    return values[0] if values else None


def _asked(query: str) -> Asked:
    fields = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    find, most = fields.pop("find", ""), int(fields.pop("most", MOST))
    after, failing = int(fields.pop("after", 0)), fields.pop("failing", "")
    if (
        fields
        or len(find) > _LONGEST_FIND
        or not 0 < most <= _MOST_LEASES
        or failing not in ("", "1")
    ):
        raise ValueError(query)
    return Asked(find, most, bool(failing), after)


def _row(row: LeaseRow) -> dict[str, object]:
    shown = asdict(row)
    return shown | {key: seconds(shown[key]) for key in _SECONDS}


def _certificate(one: EndingCertificate, now: float) -> dict[str, object]:
    """Times in seconds since 1970, and left; None for one that does not say when it ends."""
    left = one.seconds_left(now)
    whole = {
        key: seconds(value)
        for key, value in (("not_after", one.not_after), ("not_before", one.not_before))
    }
    return {"name": one.name, **asdict(one), **whole, "seconds_left": seconds(left)}


def _unauthorized() -> Answer:
    return error(401, "token_needed", ("WWW-Authenticate", 'Bearer realm="vaultauthz"'))


@cache
def _page(path: str) -> Answer:
    """The page, or one of the two files that it loads: nothing else in the world is."""
    name, content_type, policy = _PAGE[path]
    body = files("vaultauthz.admin").joinpath(name).read_bytes()
    return Answer(200, body, content_type, policy=policy)
