"""The core's Decision → the PDK calls that carry it out.

What is the same for every request that gets a credential is encoded once for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus

from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import ANSWERS, Allowed, Denied, denial_body
from vaultauthz.core.injection import Mutation, merge_cookies
from vaultauthz.core.readings import folded_parameter, is_parameter
from vaultauthz.kong import calls
from vaultauthz.kong.calls import Batch, PdkCall

# What Kong's logs hide by themselves.
_HIDDEN: Final = frozenset(("authorization", "proxy-authorization"))
_HEADERS: Final = "request.headers"
_ARGUMENTS: Final = "request.querystring"

NOTHING: Final = Batch()


@dataclass(slots=True)
class CredentialCalls:
    """One credential's calls. ``questions`` are asked first; then ``rest`` makes the others."""

    credential: Credential
    constant: Batch
    questions: Batch


class EncodedCalls:
    """Keeps the encoded calls of each upstream's current credential. Safe for threads."""

    def __init__(self) -> None:
        # One entry for each upstream and stage. The entry holds the credential itself: `is`
        # then means that nothing at all has changed.
        self._ready: dict[tuple[str, str], CredentialCalls] = {}

    def of(self, allowed: Allowed, credential: Credential) -> CredentialCalls:
        """What is to be asked and done for this credential."""
        key = (allowed.upstream, allowed.stage)
        ready = self._ready.get(key)
        if ready is None or ready.credential is not credential:
            mutation = credential.mutation
            ready = CredentialCalls(credential, _constant(mutation), _questions(mutation))
            self._ready[key] = ready
        return ready


def _constant(mutation: Mutation) -> Batch:
    made = [calls.clear_header(name) for name in mutation.remove]
    made += map(calls.hide, _to_hide(mutation))
    if mutation.headers:
        made.append(calls.set_headers(mutation.headers))
    return Batch(made)


def _to_hide(mutation: Mutation) -> Iterable[str]:
    """The places in Kong's logs where a credential would be read."""
    names = [name for name, _ in mutation.headers if name not in _HIDDEN]
    if mutation.cookies:
        names.append("cookie")
    arguments = [unquote_plus(name) for name, _ in mutation.query]
    keys = [*_keys(_HEADERS, names), *_keys(_ARGUMENTS, arguments)]
    return dict.fromkeys([*keys, *(["upstream_uri"] if arguments else [])])


def _keys(table: str, names: Iterable[str]) -> Iterable[str]:
    # Kong takes a dot for the way into another table: such a name is hidden with its table.
    return (table if "." in name else f"{table}.{name}" for name in names)


def _questions(mutation: Mutation) -> Batch:
    wanted = [calls.COOKIE] if mutation.cookies else []
    return Batch([*wanted, *([calls.RAW_QUERY] if mutation.query else [])])


def particular(allowed: Allowed, mutation: Mutation, known: dict[PdkCall, str]) -> Batch:
    """The calls that differ from request to request; ``known`` are the questions' answers."""
    headers = list(allowed.signed)
    hidden = [name for name, _ in headers if name not in _HIDDEN]
    made = [calls.clear_header(name) for name in allowed.dropped]
    made += [calls.hide(key) for key in _keys(_HEADERS, hidden)]
    if mutation.query:
        made.append(calls.set_raw_query(merge_query(known[calls.RAW_QUERY], mutation.query)))
    if mutation.cookies:
        headers.append(("cookie", merge_cookies(known[calls.COOKIE], mutation.cookies)))
    return Batch([*made, *([calls.set_headers(headers)] if headers else [])])


def merge_query(sent: str, ours: Iterable[tuple[str, str]]) -> str:
    """The client's query with ours put in, and without what may be read as them."""
    ours = tuple(ours)
    folds = {folded_parameter(name) for name, _ in ours}
    kept = [pair for pair in sent.split("&") if pair and not is_parameter(pair, folds)]
    return "&".join([*kept, *(f"{name}={value}" for name, value in ours)])


def denial(denied: Denied, request_id: str) -> Batch:
    """The one call that answers the client."""
    headers = {"Content-Type": "application/json"}
    if denied.retry_after:
        headers["Retry-After"] = str(denied.retry_after)
    body = denial_body(denied, request_id)
    return Batch([calls.leave(ANSWERS[denied.reason].http, body, headers)])
