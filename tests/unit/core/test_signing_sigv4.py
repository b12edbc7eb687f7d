"""AWS Signature Version 4, against AWS's own test suite and against botocore."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.forms.sigv4 import SigV4
from vaultauthz.core.injection import Mutation, render
from vaultauthz.core.request import Message, Request
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import Outgoing, SigningError, outgoing
from vaultauthz.core.signing.sigv4 import SigV4Signer, canonical_path, canonical_query
from vaultauthz.core.template import InjectionError, MissingFieldError, Template

EMPTY = hashlib.sha256(b"").hexdigest()
NOW = 1440938160.0  # 2015-08-30 12:36:00 UTC, of the test suite
ACCESS, KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
FIELDS = {"access_key": Secret(ACCESS), "secret_key": Secret(KEY)}
HOST = "example.amazonaws.com"


def form(service: str = "service", **more: Any) -> SigV4:
    """The form with the usual names of fields."""
    keys = Template.parse("{access_key}"), Template.parse("{secret_key}")
    return SigV4("us-east-1", service, *keys, **more)


def nonce() -> str:
    """Not used by this signature."""
    raise AssertionError


# Signatures of awslabs/aws-c-auth, tests/aws-signing-test-suite/v4, its header-signed-request
# files: the target, headers beside host and x-amz-date, and whether the path is normalized.
SUITE = [
    ("/", {}, True, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    (
        "/example1/example2/../..",
        {},
        True,
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "/./example",
        {},
        True,
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
    ),
    (
        "//example//",
        {},
        True,
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    (
        "//example//",
        {},
        False,
        "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
    ),
    (
        "/example space/",
        {},
        True,
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    (
        "/ሴ",
        {},
        True,
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    (
        "/?ሴ=bar",
        {},
        True,
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    (
        "/?Param2=value2&Param1=value1",
        {},
        True,
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        {},
        True,
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    (
        (
            "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz="
            "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        ),
        {},
        True,
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    (
        "/",
        {"my-header1": [" value1"], "my-header2": [' "a   b   c"']},
        True,
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "/",
        {"my-header1": ["value2", "value2", "value1"]},
        True,
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    (
        "/",
        {
            "x-amz-security-token": [
                "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
            ]
        },
        True,
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
    ),
]


@pytest.mark.parametrize(("target", "headers", "normalized", "signature"), SUITE)
def test_the_suite_of_aws(
    target: str, headers: dict[str, list[str]], normalized: bool, signature: str
) -> None:
    """The signature is AWS's own for the request that it publishes."""
    signer = SigV4Signer(("us-east-1", "service"), ACCESS, Secret(KEY))
    signer._object_store = not normalized
    path, _, query = target.partition("?")
    sent = Outgoing("GET", HOST, path, query, {}, b"")
    stamp = "20150830T123600Z"
    all_headers = headers | {"host": [HOST], "x-amz-date": [stamp]}
    names = ";".join(sorted(all_headers))
    assert signer.authorization(sent, all_headers, EMPTY, stamp) == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def test_a_post_of_the_suite() -> None:
    """Also with a body, whose length and type are signed."""
    body = b"Param1=value1"
    content = hashlib.sha256(body).hexdigest()
    headers = {
        "content-type": ["application/x-www-form-urlencoded; charset=utf-8"],
        "content-length": ["13"],
        "host": [HOST],
        "x-amz-content-sha256": [content],
        "x-amz-date": ["20150830T123600Z"],
    }
    sent = Outgoing("POST", HOST, "/", "", {}, body)
    signer = SigV4Signer(("us-east-1", "service"), ACCESS, Secret(KEY))
    made = signer.authorization(sent, headers, content, "20150830T123600Z")
    assert made.endswith("=328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422")


# Text of every kind; a client that is built on an SDK encodes it in the one right way.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
encoded = texts.map(lambda text: quote(text, safe="~"))
segments = encoded.filter(lambda s: s not in (".", ".."))
paths = st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts))
queries = st.lists(st.tuples(encoded.filter(bool), encoded), max_size=4)
# botocore takes a no-break space for a space, which HTTP does not.
letters = st.characters(codec="latin-1", exclude_categories=["Cc"], exclude_characters="\xa0")
values = st.text(letters, min_size=1, max_size=9)
names = st.sampled_from(["content-type", "x-amz-acl", "x-amz-meta-a", "x-amz-target"])
headers_of_clients = st.dictionaries(names, values.filter(lambda v: v.strip()), max_size=3)


@dataclass
class Sdk:
    """A request as an SDK sends it to a service."""

    service: str
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes
    token: str

    @property
    def target(self) -> str:
        """Path and query."""
        return self.path + ("?" + "&".join(f"{k}={v}" for k, v in self.query) if self.query else "")

    @property
    def content(self) -> str:
        """The hash of the body."""
        return hashlib.sha256(self.body).hexdigest()


sdks = st.builds(
    Sdk,
    st.sampled_from(["execute-api", "s3"]),
    st.sampled_from(["GET", "put", "POST"]),
    paths,
    queries,
    headers_of_clients,
    st.binary(max_size=20),
    st.sampled_from(["", "token/with+signs=="]),
)


def by_botocore(sdk: Sdk) -> str:
    """The value of Authorization as botocore makes it, for these headers and no others."""
    kind = S3SigV4Auth if sdk.service == "s3" else SigV4Auth
    auth = kind(Credentials(ACCESS, KEY, sdk.token or None), sdk.service, "us-east-1")
    sent = AWSRequest(sdk.method, f"https://{HOST}{sdk.target}", sdk.headers)
    sent.headers["X-Amz-Content-SHA256"] = sdk.content
    if sdk.token:
        sent.headers["X-Amz-Security-Token"] = sdk.token
    sent.headers["X-Amz-Date"] = sent.context["timestamp"] = "20150830T123600Z"
    canonical_request = auth.canonical_request(sent)
    signature = auth.signature(auth.string_to_sign(sent, canonical_request), sent)
    auth._inject_signature_to_request(sent, signature)
    return str(sent.headers["Authorization"])


@given(sdks)
def test_as_botocore(sdk: Sdk) -> None:
    """What an SDK sends is signed exactly as botocore signs it."""
    fields = FIELDS | ({"security_token": Secret(sdk.token)} if sdk.token else {})
    mutation = render([form(sdk.service, body="signed")], fields)
    made = sign(mutation, sdk.target, sdk.headers, sdk.body, method=sdk.method)
    assert dict(made) == {
        "authorization": by_botocore(sdk),
        "x-amz-date": "20150830T123600Z",
        "x-amz-content-sha256": sdk.content,
    }


def sign(
    mutation: Mutation,
    target: str = "/",
    headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes | None = b"",
    *,
    method: str = "GET",
    now: float = NOW,
) -> tuple[tuple[str, str], ...]:
    """What the mutation's signer sets on this request."""
    message = Message(tuple(headers.items()), body)
    request = Request("test", method, HOST, target, message=lambda: message)
    assert mutation.signer
    sent = outgoing(request, mutation.headers, mutation.remove)
    return mutation.signer.sign(sent, now, nonce)


# What clients send that are not built on an SDK, and what the service makes of it: from
# aws/aws-sdk-js issue 853 and envoyproxy/envoy issue 35023, where people asked AWS.
@pytest.mark.parametrize(
    ("sent", "by_s3", "by_others"),
    [
        ("/%3Fa=b%20c", "/%3Fa%3Db%20c", "/%253Fa%3Db%2520c"),
        ("/test%20file", "/test%20file", "/test%2520file"),
        ("/a:b@c", "/a%3Ab%40c", "/a%3Ab%40c"),
        ("/*/*", "/%2A/%2A", "/%2A/%2A"),
        ("/caf%c3%a9", "/caf%C3%A9", "/caf%25c3%25a9"),
        ("/a%2Fb", "/a%2Fb", "/a%252Fb"),
        ("/a+b", "/a%20b", "/a%2Bb"),
        ("/a//b/", "/a//b/", "/a/b/"),
        ("/a/./b/../c", "/a/./b/../c", "/a/c"),
        ("", "/", "/"),
        ("/", "/", "/"),
        ("/..", "/..", "/"),
    ],
)
def test_paths(sent: str, by_s3: str, by_others: str) -> None:
    """S3 decodes a path and keeps its segments; the others encode it as it came, straightened."""
    assert canonical_path(sent, object_store=True) == by_s3
    assert canonical_path(sent, object_store=False) == by_others


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1&a=", "a=&a=1&a=2"),
        ("flag", "flag="),
        ("a=b=c", "a=b%3Dc"),
        ("a=b/c:d", "a=b%2Fc%3Ad"),
        ("q=x+y&p=x%2By&o=x%20y", "o=x%20y&p=x%2By&q=x%20y"),
        ("%6bey=%c3%bc", "key=%C3%BC"),
        ("&&a=1&", "a=1"),
        ("a=100%", "a=100%25"),
        ("", ""),
    ],
)
def test_queries(sent: str, wanted: str) -> None:
    """A query is decoded, encoded in AWS's way and sorted."""
    assert canonical_query(sent) == wanted


def test_only_what_no_proxy_changes_is_signed() -> None:
    """Host, type and x-amz-* are signed, whatever else is sent, and the client's own are replaced."""
    client = {
        "authorization": "AWS4-HMAC-SHA256 Credential=MINE",
        "content-type": "text/plain",
        "user-agent": "x",
        "x-forwarded-for": "10.0.0.1",
        "x-amz-acl": "private",
        "x-amz-date": "20000101T000000Z",
        "x-amz-security-token": "mine",
        "x-amzn-trace-id": "y",
    }
    signed = dict(sign(render([form()], FIELDS), headers=client))
    (found,) = re.findall("SignedHeaders=([^,]*),", signed["authorization"])
    assert found == "content-type;host;x-amz-acl;x-amz-content-sha256;x-amz-date"
    assert sorted(signed) == ["authorization", "x-amz-content-sha256", "x-amz-date"]


def test_the_host_of_the_upstream() -> None:
    """It is the configured one that is signed, where the gateway rewrites the client's."""
    mine, other = (
        dict(sign(render([form(host=host)], FIELDS)))["authorization"] for host in ("", "b.test")
    )
    assert mine != other
    assert mine == dict(sign(render([form(host=HOST)], FIELDS)))["authorization"]


@pytest.mark.parametrize("names", [("session_token",), ("security_token",)])
def test_session_tokens(names: tuple[str, ...]) -> None:
    """Vault's older and newer name of the token are both found; it is sent and signed."""
    mutation = render([form()], FIELDS | {name: Secret("token") for name in names})
    assert mutation.headers == (("x-amz-security-token", "token"),)
    assert "x-amz-security-token" not in mutation.remove
    authorization = dict(sign(mutation))["authorization"]
    assert ";x-amz-security-token," in authorization


@pytest.mark.parametrize("empty", [{}, {"security_token": Secret("")}])
def test_no_session_token(empty: dict[str, Secret]) -> None:
    """An IAM user has none: the client's is dropped, and not signed."""
    mutation = render([form()], FIELDS | empty)
    assert mutation.headers == ()
    assert "x-amz-security-token" in mutation.remove
    signed = dict(sign(mutation, headers={"x-amz-security-token": "mine"}))
    assert "security-token" not in signed["authorization"]


def test_slots_are_never_removed() -> None:
    """What is set for each request is not in the list of what is removed, or Envoy would drop it."""
    mutation = render([form()], FIELDS, ["x-debug"])
    dates = ("x_amz_date", "x_amz-date", "x-amz_date")
    slots = (*dates, "x_amz_security_token", "x_amz_content_sha256")
    assert set(mutation.remove) == {"x-debug", "x_debug", "x-amz-security-token", *slots}
    assert {"x-amz-content-sha256", "x-amz-security-token"} == set(mutation.long)


class TestBody:
    def test_unsigned(self) -> None:
        """An unsigned body need not be known."""
        signed = dict(sign(render([form("s3", body="unsigned")], FIELDS), body=None))
        assert signed["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"

    def test_signed_and_not_there(self) -> None:
        """A body that has to be signed and is not known is refused."""
        with pytest.raises(SigningError, match="whole body"):
            sign(render([form()], FIELDS), body=None)

    def test_the_hash_that_a_client_knows(self) -> None:
        """An SDK's own hash of the body is signed where the body is not known."""
        content = hashlib.sha256(b"body").hexdigest()
        signed = dict(
            sign(render([form()], FIELDS), headers={"x-amz-content-sha256": content}, body=None)
        )
        assert signed["x-amz-content-sha256"] == content

    @pytest.mark.parametrize("claim", ["", "UNSIGNED-PAYLOAD", "0" * 63, "G" * 64, "0" * 64 + "\n"])
    def test_what_is_no_hash(self, claim: str) -> None:
        """Nothing else that a client says of its body is believed."""
        with pytest.raises(SigningError):
            sign(render([form()], FIELDS), headers={"x-amz-content-sha256": claim}, body=None)

    def test_a_hash_does_not_stand_for_a_known_body(self) -> None:
        """The body itself counts, where it is known."""
        signed = dict(
            sign(render([form()], FIELDS), headers={"x-amz-content-sha256": "0" * 64}, body=b"b")
        )
        assert signed["x-amz-content-sha256"] == hashlib.sha256(b"b").hexdigest()

    def test_unsigned_chunks(self) -> None:
        """The upload of an SDK with a checksum at its end stays one."""
        claim = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        mutation = render([form("s3", body="unsigned")], FIELDS)
        signed = dict(sign(mutation, headers={"x-amz-content-sha256": claim}, body=None))
        assert signed["x-amz-content-sha256"] == claim

    @pytest.mark.parametrize("body", ["signed", "unsigned"])
    def test_signed_chunks(self, body: str) -> None:
        """Chunks that a client has signed with a key of its own are refused."""
        claim = {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}
        with pytest.raises(SigningError, match="its own key"):
            sign(render([form("s3", body=body)], FIELDS), headers=claim, body=b"")


def test_the_key_of_the_day() -> None:
    """A signer that lives past midnight (UTC) signs with the next day's key."""
    mutation = render([form()], FIELDS)
    days = [dict(sign(mutation, now=NOW + n * 86400.0))["authorization"] for n in (0, 1, 0)]
    fresh = dict(sign(render([form()], FIELDS), now=NOW + 86400.0))["authorization"]
    assert days == [days[0], fresh, days[0]]
    assert days[0] != days[1]


def test_nothing_shows_the_keys() -> None:
    """No representation of the signer or the mutation holds a key."""
    mutation = render([form()], FIELDS | {"security_token": Secret("the-token")})
    sign(mutation)
    for thing in (mutation, mutation.signer):
        assert KEY not in repr(thing)
        assert "the-token" not in repr(thing)
    assert isinstance(mutation.signer, SigV4Signer)


def test_a_secret_that_does_not_fit() -> None:
    """A missing field and a stray newline are told when the secret is fetched."""
    with pytest.raises(MissingFieldError, match="secret_key"):
        render([form()], {"access_key": Secret("a")})
    for name in ("access_key", "session_token"):
        with pytest.raises(InjectionError, match=f"sigv4 {name}"):
            render([form()], FIELDS | {name: Secret("a\n")})


def test_a_gateway_that_tells_no_headers() -> None:
    """Without the client's x-amz-* headers there is no signature."""
    with pytest.raises(SigningError, match="headers"):
        outgoing(Request("test"), (), ())
