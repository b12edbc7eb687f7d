"""What one check costs in Python: decode, a decision that is ready, encode.

    python benchmarks/check_micro.py

Prints microseconds for each step, the median of several rounds. The budget for a whole
check is 25 µs (docs/architecture.md); the decision itself is measured with a broker elsewhere.
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable

from vaultauthz._pb import ext_authz_pb2 as pb
from vaultauthz.core.credential import Credential
from vaultauthz.core.decision import Allowed, Denied, Reason
from vaultauthz.core.injection import Mutation
from vaultauthz.envoy.ext_authz import Check
from vaultauthz.envoy.request import JWT_NAMESPACE, read
from vaultauthz.envoy.response import Answers

ROUNDS, CALLS = 7, 5000


def check_request(*, claims: bool = False) -> bytes:
    """A CheckRequest as Envoy sends it for a plain GET of a curl-like client."""
    headers = {
        ":authority": b"pay.example.com",
        ":method": b"GET",
        ":path": b"/v1/charges?limit=10",
        ":scheme": b"https",
        "accept": b"*/*",
        "authorization": b"Bearer something-of-the-client",
        "cookie": b"session=0123456789abcdef; theme=dark",
        "user-agent": b"curl/8.9.1",
        "x-forwarded-for": b"10.0.0.7",
        "x-forwarded-proto": b"https",
        "x-request-id": b"7d7c9a00-7c2c-4c2c-8a2e-7d7c9a007c2c",
    }
    http = pb.AttributeContext.HttpRequest(
        id="1234567890",
        method=b"GET",
        host=b"pay.example.com",
        path=b"/v1/charges?limit=10",
        headers=headers,
    )
    attributes = pb.AttributeContext(
        source=pb.AttributeContext.Peer(principal="spiffe://corp/checkout/7"),
        request=pb.AttributeContext.Request(http=http),
        context_extensions={"upstream": "payments", "stage": "production"},
    )
    if claims:
        token = attributes.metadata_context.filter_metadata[JWT_NAMESPACE]
        token.update({"corp": {"sub": "alice", "scope": "pay", "aud": ["a", "b"], "exp": 2e9}})
    return pb.CheckRequest(attributes=attributes).SerializeToString()


def microseconds(call: Callable[[], object]) -> float:
    """The median time of one ``call``."""
    rounds = timeit.repeat(call, number=CALLS, repeat=ROUNDS)
    return statistics.median(rounds) / CALLS * 1e6


def main() -> None:
    """Measure and print."""
    plain, tokened = check_request(), check_request(claims=True)
    request, answers = read(plain), Answers()
    basic = Mutation(headers=(("authorization", "Basic cGF5bWVudHM6c2VjcmV0LXNlY3JldA=="),))
    wide = Mutation(query=(("key", "k"),), cookies=(("session", "ours"),))
    allowed, merged = (
        Allowed("payments", "production", Credential(m, "c-1", "database/creds/x/1", 9e9))
        for m in (basic, wide)
    )
    denied = Denied(Reason.NO_CREDENTIAL, "payments", "production", 5)
    check = Check(lambda _: allowed)
    steps: dict[str, Callable[[], object]] = {
        f"decode ({len(plain)} bytes)": lambda: read(plain),
        f"decode with claims ({len(tokened)} bytes)": lambda: read(tokened),
        "encode allowed, header": lambda: answers.encode(request, allowed),
        "encode allowed, cookie and query": lambda: answers.encode(request, merged),
        "encode denied": lambda: answers.encode(request, denied),
        "whole answer, header": lambda: check.answer(plain),
        "refuse (overloaded)": lambda: check.refuse(plain),
    }
    for name, call in steps.items():
        print(f"{name:38} {microseconds(call):6.2f} µs")


if __name__ == "__main__":
    main()
