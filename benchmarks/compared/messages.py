"""The check that servers are asked, and the fixed answer of the trivial ones."""

from __future__ import annotations

from vaultauthz._pb import ext_authz_pb2 as pb
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import Allowed
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import Request
from vaultauthz.envoy.response import Answers

HOST, PATH = "pay.example.com", "/v1/charges?limit=10"
# Of an upstream that any caller may use, as SDS can give out no other by itself.
ANY_HOST = "api-0.example.com"
HEADER = "x-api-key"
# What a client sends, an X-Api-Key of its own too: each way to put ours there has to replace it.
CLIENT = {
    "user-agent": "curl/8.9.1",
    "accept": "application/json",
    "authorization": "Bearer something-of-the-client",
    "cookie": "session=0123456789abcdef; theme=dark",
}


def check_request() -> bytes:
    """A CheckRequest as Envoy sends it when it is set up as `vaultauthz envoy` prints.

    Of the headers only what is read goes along (`allowed_headers`). The route names no upstream, so
    that the server has to look the host and path up in its `routes`.
    """
    headers = {"x-request-id": "7d7c9a00-7c2c-4c2c-8a2e-7d7c9a007c2c"}
    entries = [pb.HeaderValue(key=key, raw_value=text.encode()) for key, text in headers.items()]
    http = pb.AttributeContext.HttpRequest(
        id="1234567890123456789",
        method=b"GET",
        host=HOST.encode(),
        path=PATH.encode(),
        header_map=pb.HeaderMap(headers=entries),
    )
    attributes = pb.AttributeContext(
        source=pb.AttributeContext.Peer(principal="spiffe://corp/checkout/7"),
        request=pb.AttributeContext.Request(http=http),
    )
    return pb.CheckRequest(attributes=attributes).SerializeToString()


def check_response(key: str) -> bytes:
    """What our server answers for ``key``: the trivial servers say the same, ready made."""
    credential = Credential(Mutation(headers=((HEADER, key),)), "c-1", "lease/1", 9e9)
    request = Request("envoy", "GET", HOST, PATH)
    return Answers().encode(request, Allowed("payments", "production", credential))
