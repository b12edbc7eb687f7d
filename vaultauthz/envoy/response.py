"""The core's Decision → Envoy's CheckResponse.

Most of an answer is the same for every request that gets the credential (or the denial),
so it is encoded once. What differs (the request's id, merged cookies, a signature) is encoded as a second
CheckResponse and its bytes appended: protobuf defines that reading two messages one after
the other merges them, fields within fields, lists one behind the other.
https://protobuf.dev/programming-guides/encoding/#last-one-wins
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.wrappers_pb2 import BoolValue

from vaultauthz._pb.ext_authz_pb2 import (
    CheckResponse,
    DeniedHttpResponse,
    HeaderValue,
    HeaderValueOption,
    HttpStatus,
    OkHttpResponse,
    QueryParameter,
    Status,
)
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import ANSWERS, Allowed, Decision, Denied, Reason, denial_body
from vaultauthz.core.injection import Mutation, merge_cookies
from vaultauthz.core.readings import folded_parameter, is_parameter
from vaultauthz.core.request import REQUEST_ID_LIMIT, Request

_NOTHING: Final = Mutation()


class Answers:
    """Encodes decisions; keeps the encoded part of each upstream's current credential.

    Safe for threads: two that miss at once both encode, and either result is right.
    """

    def __init__(self) -> None:
        # One entry for each upstream and stage, so it cannot grow with requests. The entry
        # holds the credential itself: `is` then means that nothing at all has changed.
        self._encoded: dict[tuple[str, str], tuple[Credential | None, bytes]] = {}

    def encode(self, request: Request, decision: Decision) -> bytes:
        """The CheckResponse for ``request``."""
        if isinstance(decision, Denied):
            return _denied(request, decision)
        return self._common(decision) + _particular(request, decision)

    def _common(self, allowed: Allowed) -> bytes:
        key = (allowed.upstream, allowed.stage)
        known = self._encoded.get(key)
        if known is None or known[0] is not allowed.credential:
            known = (allowed.credential, _allowed(allowed))
            self._encoded[key] = known
        return known[1]


def _allowed(allowed: Allowed) -> bytes:
    credential = allowed.credential
    noted = {"upstream": allowed.upstream, "stage": allowed.stage}
    ok = OkHttpResponse()
    if credential is not None:
        noted |= {"credential_id": credential.credential_id, "lease_id": credential.lease_id}
        ok = _mutated(credential.mutation)
    answer = CheckResponse(status=Status(), ok_response=ok, dynamic_metadata=_metadata(noted))
    return answer.SerializeToString()


def _mutated(mutation: Mutation) -> OkHttpResponse:
    # Envoy removes after it has set, so a name in both would lose the credential.
    ours = {name for name, _ in mutation.headers} | ({"cookie"} if mutation.cookies else set())
    return OkHttpResponse(
        headers=[_set(name, value) for name, value in mutation.headers],
        headers_to_remove=[name for name in mutation.remove if name not in ours],
        query_parameters_to_set=[QueryParameter(key=k, value=v) for k, v in mutation.query],
    )


def _particular(request: Request, allowed: Allowed) -> bytes:
    mutation = allowed.credential.mutation if allowed.credential else _NOTHING
    if not (allowed.signed or allowed.dropped or mutation.cookies or mutation.query):
        return _noted(request.request_id)
    ok = OkHttpResponse(
        headers=[_set(name, value) for name, value in allowed.signed],
        headers_to_remove=allowed.dropped,
    )
    if mutation.cookies:
        merged = merge_cookies(request.cookie, mutation.cookies)
        ok.headers.append(_set("cookie", merged))
    if mutation.query:
        copies = _disguised(request.path, [name for name, _ in mutation.query])
        ok.query_parameters_to_remove.extend(copies)
    return _noted(request.request_id) + CheckResponse(ok_response=ok).SerializeToString()


def _noted(request_id: str) -> bytes:
    """A CheckResponse with nothing but the request's id in its metadata."""
    text = request_id.encode()
    return _before_id(len(text)) + text


@lru_cache(maxsize=4 * REQUEST_ID_LIMIT + 1)  # all the lengths that there are, in bytes
def _before_id(length: int) -> bytes:
    # The id comes last, and what stands before it depends on its length alone.
    whole = CheckResponse(dynamic_metadata=_metadata({"request_id": "x" * length}))
    encoded = whole.SerializeToString()
    return encoded[: len(encoded) - length]


def _disguised(path: str, ours: Iterable[str]) -> list[str]:
    """Names in the client's query that an upstream may read as one of ours.

    Envoy compares names as they are written, so `%6bey` would survive beside `key`, and the
    upstream reads both as the same parameter.
    """
    encoded = frozenset(ours)
    folds = {folded_parameter(name) for name in encoded}
    pairs = path.partition("?")[2].split("&")
    sent = {pair.partition("=")[0] for pair in pairs if is_parameter(pair, folds)}
    return sorted(sent - encoded)


def _denied(request: Request, denied: Denied) -> bytes:
    common = _denial(denied.reason, denied.upstream, denied.stage, denied.retry_after)
    body = denial_body(denied, request.request_id)
    said = CheckResponse(denied_response=DeniedHttpResponse(body=body))
    return common + _noted(request.request_id) + said.SerializeToString()


@lru_cache(maxsize=1024)  # of names from the gateway's configuration, for a flood of denials
def _denial(reason: Reason, upstream: str, stage: str, retry_after: int) -> bytes:
    status = ANSWERS[reason]
    headers = [_set("content-type", "application/json")]
    if retry_after:
        headers.append(_set("retry-after", str(retry_after)))
    return CheckResponse(
        status=Status(code=status.grpc),
        denied_response=DeniedHttpResponse(status=HttpStatus(code=status.http), headers=headers),
        dynamic_metadata=_metadata({"upstream": upstream, "stage": stage, "reason": reason.value}),
    ).SerializeToString()


def _set(name: str, value: str) -> HeaderValueOption:
    """Overwrite, said twice.

    Left unset, `append` means one thing in some versions of Envoy and another in others;
    once it is set, it wins over `append_action`.
    """
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value.encode()),
        append=BoolValue(value=False),
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _metadata(noted: dict[str, str]) -> Struct:
    """What Envoy's access log can show: `%DYNAMIC_METADATA(envoy.filters.http.ext_authz:stage)%`.

    That namespace is Envoy's choice (1.40), whatever the filter is called in its configuration.
    """
    return Struct(fields={name: Value(string_value=text) for name, text in noted.items()})
