"""What has to be asked of Kong about a request before it can be decided.

Always its id, its first line, its host and its consumer, for the audit log; the rest only where
a rule of the upstream, or its signature, wants it. All questions go out together, so that a request
waits for Kong once, however many there are.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from typing import Any, Final

from vaultauthz.broker import Binding
from vaultauthz.config.values import Upstream
from vaultauthz.core.callers import Callers
from vaultauthz.core.credential import Slot
from vaultauthz.core.injection import header_names, needs_body
from vaultauthz.core.readings import Sent, among, has_no_body, long_names
from vaultauthz.core.request import REQUEST_ID_LIMIT, Message, Request
from vaultauthz.core.signing import SigningError
from vaultauthz.kong import calls
from vaultauthz.kong.calls import Batch, PdkCall

# The line of a request is on its way to the log before the request goes on, and says who asked
# for what. Kong tells the same in its log phase, but many more lines would then wait for that, and
# be missing after a crash.
_BASE: Final = (calls.REQUEST_ID, calls.REQUEST_LINE, calls.HOST, calls.CONSUMER)
# "http://host/path": a proxy's form, which servers must accept (RFC 9112, 3.2.2).
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")

Results = dict[PdkCall, Any]


def of_route(*, named: bool) -> tuple[PdkCall, ...]:
    """What finds the upstream: nothing where the plugin's configuration names it."""
    return _BASE if named else (*_BASE, calls.PATH)


def of_binding(binding: Binding, upstream: Upstream | None) -> tuple[PdkCall, ...]:
    """What the rules and the signature of this upstream want to know."""
    return (
        *_of_rules(binding),
        *_of_scope(upstream),
        *_of_slots(binding, upstream),
        *_of_signature(binding, upstream),
    )


def _of_rules(binding: Binding) -> tuple[PdkCall, ...]:
    wanted: list[PdkCall] = []
    former = binding.former.callers if binding.former else ()
    for rule in (*binding.callers.rules, *(r for callers in former for r in callers.rules)):
        # key-auth's `anonymous` is a consumer, too, of nobody's credential. Who is
        # named in full is meant; a pattern means those who have been authenticated.
        if rule.consumer is not None and "*" in rule.consumer.text:
            wanted.append(calls.CREDENTIAL)
        if rule.group is not None:
            wanted += [calls.SHARED_GROUPS, calls.CTX_GROUPS]
        if rule.path_prefix is not None:
            wanted.append(calls.PATH)
        if rule.methods is not None:
            wanted.append(calls.HEADERS)  # they may name another method
    return tuple(wanted)


def _of_scope(upstream: Upstream | None) -> tuple[PdkCall, ...]:
    if upstream is not None and upstream.per == "caller":
        return (calls.CREDENTIAL,)
    return ()


def _of_slots(binding: Binding, upstream: Upstream | None) -> tuple[PdkCall, ...]:
    """The client's headers, where the aliases of one to drop are too many to be listed."""
    slot = binding.source
    held = slot.credential if isinstance(slot, Slot) else None
    names = (*header_names(upstream.inject), *upstream.strip) if upstream else ()
    return (calls.HEADERS,) if long_names(names) or (held and held.mutation.long) else ()


def _of_signature(binding: Binding, upstream: Upstream | None) -> tuple[PdkCall, ...]:
    # By the credential as well: after a reload it may be another form's for a while.
    slot = binding.source
    held = slot.credential if isinstance(slot, Slot) else None
    forms = upstream.inject if upstream else ()
    by_slot = held is not None and held.mutation.signer is not None
    if not by_slot and not any(form.signature for form in forms):
        return ()
    body = (calls.BODY,) if by_slot or needs_body(forms) else ()
    return (calls.HEADERS, calls.UPSTREAM_PATH, calls.RAW_QUERY, *body)


def batch(wanted: tuple[PdkCall, ...]) -> Batch:
    """These, each once."""
    return Batch(dict.fromkeys(wanted))


def fill(request: Request, known: Results) -> None:
    """Put Kong's answers into the request."""
    request.request_id = known[calls.REQUEST_ID][:REQUEST_ID_LIMIT]
    method, target = _parsed(known[calls.REQUEST_LINE])
    request.method = method
    request.path = known.get(calls.PATH) or target
    request.host = known[calls.HOST]
    request.consumer = known[calls.CONSUMER]
    request.groups = known.get(calls.SHARED_GROUPS) or known.get(calls.CTX_GROUPS, ())
    if calls.HEADERS in known:
        request.headers = partial(_sent, known)
    if calls.UPSTREAM_PATH in known:
        request.message = partial(_message, method, known)


def disown(request: Request, known: Results, callers: Callers) -> None:
    """Make nobody of a consumer that was asked for a credential and has none.

    Not where a rule denies that consumer by name: it stays who it is, and is denied.
    """
    if known.get(calls.CREDENTIAL, True):
        return
    denied = [rule.consumer for rule in callers.deny if rule.consumer is not None]
    if not any(pattern.matches(request.consumer) for pattern in denied):
        request.consumer = ""


def _parsed(line: str) -> tuple[str, str]:
    """Method and target of a request line; the target begins with a slash."""
    method, _, rest = line.partition(" ")
    target = rest.partition(" ")[0]
    if target.startswith("/"):
        return method, target
    absolute = _ABSOLUTE.match(target)
    if absolute:
        target = target[absolute.end() :]
    return method, target if target.startswith("/") else f"/{target}"


def _sent(known: Results, names: Collection[str]) -> Sent:
    headers = known[calls.HEADERS]
    if len(headers) >= calls.MOST_HEADERS:
        return None  # there may be more than Kong tells
    return among(((name.lower(), value) for name, value in headers), names)


def _message(method: str, known: Results) -> Message:
    headers = known[calls.HEADERS]
    if len(headers) >= calls.MOST_HEADERS:
        raise SigningError("there are more headers than Kong tells")
    said = dict(headers)
    body = known.get(calls.BODY)
    length = said.get("content-length", "")
    if body is not None and length not in ("", str(len(body))):
        body = None
    if not body and "transfer-encoding" not in said and has_no_body(method, length):
        body = b""
    # What is signed has to be what the upstream receives.
    path, query = known[calls.UPSTREAM_PATH], known[calls.RAW_QUERY]
    return Message(tuple(headers), body, f"{path}?{query}" if path and query else path)
