"""Envoy's CheckRequest → the core's Request; and how an Envoy calls itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from vaultauthz._pb.ext_authz_pb2 import AttributeContext, CheckRequest
from vaultauthz.core.readings import Sent, among, folded_header, has_no_body
from vaultauthz.core.request import REQUEST_ID_LIMIT, Message, Request

# Where Envoy's jwt_authn filter puts the claims of the tokens that it has verified. It
# arrives only if the ext_authz filter lists it in `metadata_context_namespaces`.
JWT_NAMESPACE: Final = "envoy.filters.http.jwt_authn"
# Characters of a certificate's name: it is compared with each rule, remembered and logged.
PRINCIPAL_LIMIT: Final = 8192
_NAME_LIMIT: Final = 200  # characters of an Envoy's name
_LENGTHS: Final = frozenset((len("x-request-id"), len("cookie")))
# Envoy's word, in the check only, on whether the body that it sends along is all of it.
PARTIAL_BODY: Final = "x-envoy-auth-partial-body"


_parsed: Final = CheckRequest.FromString


class UnreadableError(ValueError):
    """The bytes are not the CheckRequest of an HTTP request."""


def read(data: bytes) -> Request:
    """The request that Envoy asks about.

    Raises:
        UnreadableError: ``data`` does not parse, or describes no HTTP request. The latter
            matters for bytes that happen to parse (an empty message does), which
            ``unmatched: pass`` would otherwise let through.
    """
    try:
        attributes = _parsed(data).attributes
    except DecodeError:
        raise UnreadableError("not a CheckRequest") from None
    http = attributes.request.http
    method = http.method
    if not method:
        raise UnreadableError("not an HTTP request")
    principal = attributes.source.principal
    if len(principal) > PRINCIPAL_LIMIT:
        raise UnreadableError("a principal too long to be one")
    extensions = attributes.context_extensions
    request = Request(
        "envoy",
        # U+FFFD for what is not UTF-8: no route or rule can match by accident.
        method.decode("utf-8", "replace"),
        http.host.decode("utf-8", "replace"),
        http.path.decode("utf-8", "replace"),
        extensions.get("upstream", ""),
        extensions.get("stage", ""),
        principal,
    )
    if attributes.HasField("metadata_context"):
        request.claims = _claims(attributes.metadata_context.filter_metadata)
    _take_headers(http, request)
    request.message = partial(_message, http)
    request.headers = partial(_sent, http)
    return request


def _take_headers(http: AttributeContext.HttpRequest, request: Request) -> None:
    """Fill in the two headers that are read: the request's id and the cookies."""
    request_id, cookies = b"", []
    # Present under `encode_raw_headers`; there one header may have several entries.
    raw = http.header_map.headers[:]  # a list is read faster
    for entry in raw:
        key = entry.key
        if len(key) not in _LENGTHS:
            continue  # quicker than comparing, for some dozen headers of each request
        name = key.lower()
        if name == "x-request-id":
            request_id = entry.raw_value or entry.value
        elif name == "cookie":
            cookies.append(entry.raw_value or entry.value)
    if not raw:
        headers = http.headers
        request_id = headers.get("x-request-id", b"")
        if "cookie" in headers:
            cookies.append(headers["cookie"])
    request.request_id = (request_id.decode("utf-8", "replace") or http.id)[:REQUEST_ID_LIMIT]
    if cookies:
        request.cookie = b"; ".join(cookies).decode("utf-8", "replace")


def _message(http: AttributeContext.HttpRequest) -> Message:
    headers = tuple(_headers(http))
    said = dict(headers)
    partial_body, length = said.get(PARTIAL_BODY), said.get("content-length", "")
    body = None
    if partial_body == "false":
        # Held against the length as well, as what is signed must be what is sent.
        fits = length in ("", str(len(http.raw_body)))
        body = http.raw_body if fits and not http.body else None
    elif partial_body is None and has_no_body(http.method.decode("latin-1"), length):
        # Others have to say if there is none: Envoy (1.40) hides `transfer-encoding` from its
        # filters, and HTTP/2 has none.
        body = b""
    return Message(tuple(pair for pair in headers if pair[0] != PARTIAL_BODY), body)


def _sent(http: AttributeContext.HttpRequest, names: Collection[str]) -> Sent:
    lengths = {len(name) for name in names}  # as in _take_headers: most are of another
    raw = http.header_map.headers[:]
    keys = [key for key in ([e.key for e in raw] or http.headers) if len(key) in lengths]
    folds = {folded_header(name) for name in names} if keys else ()
    if not any(folded_header(key) in folds for key in keys):
        return ()
    return among(_headers(http), names)


def _headers(http: AttributeContext.HttpRequest) -> Iterator[tuple[str, str]]:
    """Every header but pseudo headers, as ``Message`` has them."""
    raw = [(e.key.lower(), e.raw_value or e.value) for e in http.header_map.headers]
    for name, value in raw or http.headers.items():
        if not name.startswith(":"):
            yield name, value.decode("utf-8", "surrogateescape")


def _claims(namespaces: Mapping[str, Struct]) -> tuple[Mapping[str, Any], ...]:
    """The claims of each verified token: one struct under each name the filter was given."""
    if JWT_NAMESPACE not in namespaces:
        return ()
    tokens = namespaces[JWT_NAMESPACE].fields.values()
    return tuple(_mapping(t.struct_value) for t in tokens if t.WhichOneof("kind") == "struct_value")


def _mapping(struct: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    """A Struct's value in Python's own types; every number is a float, as JSON has it."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return _mapping(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
    return None


class EnvoyNode(Protocol):
    """envoy.config.core.v3.Node, as any of our protos has it."""

    id: str
    cluster: str


def name_of(node: EnvoyNode) -> str:
    """CLUSTER/ID, fit for a log; "" for a node that does not say."""
    name = f"{node.cluster}/{node.id}" if node.cluster else node.id
    return re.sub(r"[^\x21-\x7e]", "?", name)[:_NAME_LIMIT]
