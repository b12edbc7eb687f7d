"""`sigv4` and `hmac` through a real Envoy: the signature fits what the upstream received.

Who says so is botocore, moto's IAM and openssl, none of which we sign with.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import h2.config
import h2.connection
import h2.events
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.integration.gateway_bed import LISTENERS, GatewayBed, Route
from tests.integration.served import Login, Served
from tests.integration.signed_upstream import (
    TIMEOUT,
    Received,
    Wire,
    by_botocore,
    by_openssl,
    signature_of,
)
from vaultauthz.demo.parts import OpenBao, Process, free_port

pytestmark = pytest.mark.integration

POLICY = 'path "signing/*" { capabilities = ["read"] }'
ACCESS, KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "the+session/token=="
HMAC_KEY = b"\x00a key of \xff bytes"
FULL, PARTIAL = 1 << 20, 1 << 14  # bytes of a body that Envoy sends along, whole or cut
FRAME = 16_384  # bytes that HTTP/2 sends at once
UPSTREAMS = """
upstreams:
  api:
    secret: {kv: signing/session}
    inject: [{sigv4: {region: eu-central-1, service: execute-api, host: api.aws.test}}]
    callers: any
  user:
    secret: {kv: signing/user}
    inject:
      - {sigv4: {region: eu-central-1, service: dynamodb}}
      - {header: {name: X-Amz-Target, value: "{target}"}}
      - {cookie: {name: a, value: "{target}"}}
    strip: [X-Amz-Meta-Gone]
    callers: any
  store:
    secret: {kv: signing/session}
    inject: [{sigv4: {region: us-east-1, service: s3}}]
    callers: any
  moto:
    secret: {kv: signing/moto}
    inject: [{sigv4: {region: us-east-1, service: s3}}]
    callers: any
  thief:
    secret: {kv: signing/thief}
    inject: [{sigv4: {region: us-east-1, service: s3}}]
    callers: any
  azure:
    secret: {kv: signing/hmac}
    inject:
      - hmac:
          key: "{key}"
          key_encoding: base64
          sign: ["{method}", "{target}", "{timestamp};{host};{body_sha256_base64}"]
          encoding: base64
          timestamp: http
          headers:
            X-Ms-Date: "{timestamp}"
            X-Ms-Content-Sha256: "{body_sha256_base64}"
            Authorization: "HMAC-SHA256 Credential={id}&SignedHeaders=x-ms-date;host;x-ms-content-sha256\\
              &Signature={signature}"
    callers: any
  hook:
    secret: {kv: signing/hmac}
    inject:
      - hmac:
          key: "{key}"
          key_encoding: base64
          algorithm: sha512
          separator: "."
          sign: ["{nonce}", "{timestamp}", "{header.content-type}", "{body}"]
          headers: {X-Nonce: "{nonce}", X-Time: "{timestamp}", X-Sig: "v1={signature}"}
    callers: any
"""
NAMES = ("api", "user", "store", "thief", "azure", "hook")


@dataclass(frozen=True)
class Moto:
    """moto's server, which checks each signature against IAM; the keys of a user that may do anything."""

    port: int
    access_key: str
    secret_key: str


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """It checks every request but the three that make its user."""
    port = free_port()
    folder = tmp_path_factory.mktemp("moto")
    argv: list[str | Path] = [sys.executable, "-m", "moto.server", "-p", str(port)]
    process = Process(
        ["/usr/bin/env", "INITIAL_NO_AUTH_ACTION_COUNT=3", *argv], folder / "moto.log"
    )
    process.start()
    try:
        process.wait_until(lambda: _open(port))
        iam = client("iam", f"http://127.0.0.1:{port}", "any", "any")
        iam.create_user(UserName="u")
        made = iam.create_access_key(UserName="u")["AccessKey"]
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="u", PolicyName="all", PolicyDocument=policy)
        yield Moto(port, made["AccessKeyId"], made["SecretAccessKey"])
    finally:
        process.kill()


def _open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def client(service: str, url: str, access_key: str, secret_key: str) -> Any:
    """An SDK's client of a service at this address."""
    return botocore.session.Session().create_client(
        service,
        "us-east-1",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}
        ),
    )


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """The service that keeps what it gets."""
    made = Wire()
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(bao: OpenBao, moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an upstream for each kind of signature."""
    keys = {"access_key": ACCESS, "secret_key": KEY}
    key = base64.b64encode(HMAC_KEY).decode()
    bao.put_kv("signing/session", keys | {"security_token": TOKEN})
    bao.put_kv("signing/user", keys | {"target": "Tables.List"})
    bao.put_kv("signing/moto", {"access_key": moto.access_key, "secret_key": moto.secret_key})
    bao.put_kv("signing/thief", {"access_key": moto.access_key, "secret_key": KEY})
    bao.put_kv("signing/hmac", {"key": key, "id": "app"})
    login = Login(bao.address, *bao.enable_approle("signing", POLICY))
    with Served(tmp_path_factory.mktemp("signing"), login, UPSTREAMS) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def bed(
    served: Served, moto: Moto, wire: Wire, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayBed]:
    """The gateway: `strict` sends whole bodies along, `raw` cuts them, `careless` sends none."""
    routes = [Route(f"{name}.test", name, service="wire") for name in NAMES]
    routes += [
        Route("127.0.0.1", "moto", service="moto"),
        Route("localhost", "thief", service="moto"),
    ]
    more = {"wire": wire.port, "moto": moto.port}
    made = GatewayBed(tmp_path_factory.mktemp("bed"), served.socket, routes, more)
    for name, listener in zip(
        LISTENERS, made.bootstrap["static_resources"]["listeners"], strict=True
    ):
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        (api,) = [h for h in manager["route_config"]["virtual_hosts"] if h["name"] == "api.test"]
        api["routes"][0]["route"]["host_rewrite_literal"] = "api.aws.test"
        asking = manager["http_filters"][0]["typed_config"]
        # As `vaultauthz envoy` has it where something is signed.
        asking |= {"encode_raw_headers": True}
        asking.pop("allowed_headers", None)
        cut = name == "raw"
        if name != "careless":
            asking["with_request_body"] = {
                "max_request_bytes": PARTIAL if cut else FULL,
                "allow_partial_message": cut,
                "pack_as_bytes": True,
            }
    with made:
        yield made


Headers = list[tuple[str, str]]
Send = Callable[..., Received]


def http1(
    bed: GatewayBed, host: str, target: str, *, headers: Headers, body: list[bytes], by: str
) -> int:
    """A POST, or a GET without a body, as it is written here; several parts go in chunks."""
    lines = [f"{'POST' if body else 'GET'} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    chunked = len(body) > 1
    if body:
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body[0])}")
    with socket.create_connection(("127.0.0.1", bed.ports[by]), TIMEOUT) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        for part in body:
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        connection.sendall(b"0\r\n\r\n" if chunked else b"")
        response = http.client.HTTPResponse(connection)
        response.begin()
        response.read()
        return response.status


def http2(
    bed: GatewayBed, host: str, target: str, *, headers: Headers, body: list[bytes], by: str
) -> int:
    """The same over HTTP/2 in clear; the body's length is not told."""
    protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    protocol.initiate_connection()
    number = protocol.get_next_available_stream_id()
    sent = [(":method", "POST" if body else "GET"), (":scheme", "http"), (":authority", host)]
    sent += [(":path", target), *((name.lower(), value) for name, value in headers)]
    protocol.send_headers(number, sent, end_stream=not body)
    for part in body:
        for at in range(0, len(part), FRAME):
            protocol.send_data(number, part[at : at + FRAME])
    if body:
        protocol.end_stream(number)
    status = 0
    with socket.create_connection(("127.0.0.1", bed.ports[by]), TIMEOUT) as connection:
        while True:
            connection.sendall(protocol.data_to_send())
            for event in protocol.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    got = {str(name): str(value) for name, value in event.headers or ()}
                    status = int(got[":status"])
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return status


@pytest.fixture(params=["1.1", "2"])
def send(request: pytest.FixtureRequest, bed: GatewayBed, wire: Wire) -> Send:
    """Sends a request over either version; what the service received of it."""
    over = http1 if request.param == "1.1" else http2

    def send(
        host: str,
        target: str = "/",
        headers: Headers | None = None,
        body: list[bytes] | None = None,
        by: str = "strict",
    ) -> Received:
        before = len(wire.received)
        status = over(bed, host, target, headers=headers or [], body=body or [], by=by)
        assert status == 200
        assert len(wire.received) == before + 1
        return wire.received[-1]

    return send


def assert_signed(received: Received) -> None:
    """Botocore signs what was received in the same way."""
    assert signature_of(received) == by_botocore(received, KEY)


TARGETS = [
    "/",
    "/v1/charges",
    "/with%20space/%C3%BC/%E2%82%AC/~a-b_c.d",
    "/a%25b/%2520",
    "/?b=2&a=1&a=0&a=",
    "/p?empty=&q=a%20b%26c%3Dd&%C3%BC=%2F%2B",
    "/trailing/",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("host", ["api.test", "store.test"])
def test_targets(send: Send, host: str, target: str) -> None:
    """Paths and queries are signed as the service gets them, also beside a rewritten host."""
    received = send(host, target)
    assert received.target == target
    assert received.one("x-amz-security-token") == TOKEN
    assert received.one("host") == host.replace("api.test", "api.aws.test")
    assert_signed(received)


@pytest.mark.parametrize("target", ["//double//slash/", "/a/./b/../c?x"])
def test_paths_that_nobody_tidied(send: Send, target: str) -> None:
    """A gateway that leaves a path alone hands S3 what its client sent, and signs it so."""
    received = send("store.test", target, by="careless")
    assert received.target == target
    assert_signed(received)


def test_a_flag_in_the_query(send: Send) -> None:
    """A parameter without a value is signed with an empty one."""
    assert_signed(send("store.test", "/bucket?list-type=2&acl"))


def test_the_clients_copies(send: Send) -> None:
    """What the client claims is replaced, and an IAM user's signature takes no token of hers."""
    mine = [
        (name, "mine")
        for name in (
            "Authorization",
            "X-Amz-Date",
            "X-Amz-Security-Token",
            "X-Amz-Content-Sha256",
            "X-Amz-Target",
            "X-Amz-Meta-Gone",
        )
    ]
    for headers in (mine, mine + mine):
        received = send("user.test", "/", [*headers, ("Cookie", "b=c")])
        assert "mine" not in [value for _, value in received.headers]
        assert received.all("x-amz-security-token") == []
        assert received.one("x-amz-target") == "Tables.List"
        assert received.one("cookie") == "b=c; a=Tables.List"
        assert_signed(received)


@pytest.mark.parametrize("by", ["strict", "raw"])
def test_headers_that_are_signed(send: Send, by: str) -> None:
    """What the client says in x-amz-* and of the body's type is signed: spaces, several values, UTF-8."""
    headers = [
        ("X-Amz-Acl", "public  read"),
        ("X-Amz-Meta-A", "one"),
        ("X-Amz-Meta-A", "two"),
        ("X-Amz-Meta-B", "münchen"),
        ("Content-Type", "text/plain;  charset=utf-8"),
        ("User-Agent", "anything"),
    ]
    received = send("user.test", "/", headers, [b"body"], by=by)
    assert received.one("content-type") == "text/plain;  charset=utf-8"
    (signed,) = [p for p in received.one("authorization").split(", ") if "SignedHeaders" in p]
    assert "content-type;host;x-amz-acl;" in signed
    assert ";x-amz-meta-a;x-amz-meta-b;" in signed
    assert "user-agent" not in signed
    if by == "raw":  # as text, Envoy replaces what it holds not to be UTF-8
        assert_signed(_as_utf8(received))


def _as_utf8(received: Received) -> Received:
    headers = tuple((n, v.encode("latin-1").decode()) for n, v in received.headers)
    return Received(received.method, received.target, headers, received.body)


BODIES = [
    [b"{}"],
    [b"\x00\xff binary \xc3\x28"],
    [b"chunk one, ", b"chunk two"],
    [b"x" * 50_000],
]


@pytest.mark.parametrize("body", BODIES, ids=["json", "binary", "chunks", "large"])
@pytest.mark.parametrize("host", ["api.test", "user.test"])
def test_signed_bodies(send: Send, host: str, body: list[bytes]) -> None:
    """The body that arrives is the one that was signed, byte for byte, in chunks as well."""
    received = send(host, "/", [("Content-Type", "application/x")], body)
    assert received.body == b"".join(body)
    assert received.one("x-amz-content-sha256") == hashlib.sha256(received.body).hexdigest()
    assert_signed(received)


def test_a_body_up_to_the_limit(bed: GatewayBed, wire: Wire) -> None:
    """The largest that Envoy sends along is signed; a larger one Envoy itself refuses."""
    assert http1(bed, "api.test", "/", headers=[], body=[b"y" * FULL], by="strict") == 200
    assert len(wire.received[-1].body) == FULL
    assert_signed(wire.received[-1])
    before = len(wire.received)
    assert http1(bed, "api.test", "/", headers=[], body=[b"y" * (FULL + 1)], by="strict") == 413
    assert len(wire.received) == before


@pytest.mark.parametrize("host", ["api.test", "azure.test"])
def test_a_body_that_is_not_known(bed: GatewayBed, wire: Wire, served: Served, host: str) -> None:
    """Cut short or not sent to us at all, it is refused, and the log says why."""
    before = len(wire.received)
    assert http1(bed, host, "/", headers=[], body=[b"y" * (PARTIAL + 1)], by="raw") == 400
    assert http1(bed, host, "/", headers=[], body=[b"y"], by="careless") == 400
    assert http1(bed, host, "/", headers=[], body=[b"y", b"z"], by="careless") == 400
    assert len(wire.received) == before
    name = host.removesuffix(".test")
    why = "a request is denied: the gateway did not send us its whole body"
    assert served.stderr.count(f"upstream {name}, stage production: {why}") == 1
    denied = served.audited("request.denied", upstream=name)
    assert denied["reason"] == "bad_request"


def test_requests_without_a_body_need_none(send: Send) -> None:
    """A gateway that sends no bodies along still has its GETs signed."""
    assert_signed(send("api.test", "/", by="careless"))


def test_unsigned_bodies(send: Send) -> None:
    """S3's are not signed, so they need not be sent to us, however large."""
    for by in ("careless", "raw"):
        received = send("store.test", "/big", [], [b"z" * 60_000], by=by)
        assert received.one("x-amz-content-sha256") == "UNSIGNED-PAYLOAD"
        assert_signed(received)


@pytest.fixture
def s3(bed: GatewayBed) -> Any:
    """An SDK that knows the gateway and no credential of AWS's."""
    return client("s3", f"http://127.0.0.1:{bed.ports['careless']}", "nobody", "nothing")


def test_s3_with_an_sdk(s3: Any) -> None:
    """An SDK without credentials works through the gateway; moto's IAM accepts each signature."""
    s3.create_bucket(Bucket="bucket")
    keys = ["plain", "with space/ü+&=?.txt", "a//b/~c(1)'*!"]
    for key in keys:
        body = f"content of {key}".encode()
        s3.put_object(Bucket="bucket", Key=key, Body=body, Metadata={"name": "a  b"})
        found = s3.get_object(Bucket="bucket", Key=key)
        assert found["Body"].read() == body
    listed = s3.list_objects_v2(Bucket="bucket", Prefix="", EncodingType="url")
    assert listed["KeyCount"] == len(keys)


def test_s3_with_another_key(bed: GatewayBed) -> None:
    """Moto does look: a signature with a wrong secret key is refused."""
    stranger = client("s3", f"http://localhost:{bed.ports['careless']}", "nobody", "nothing")
    with pytest.raises(ClientError) as raised:
        stranger.list_buckets()
    assert raised.value.response["Error"]["Code"] == "SignatureDoesNotMatch"


@pytest.mark.parametrize("body", [[], [b'{"a": 1}'], [b"one ", b"two \xff"]])
def test_hmac(send: Send, body: list[bytes]) -> None:
    """Azure's layout: openssl makes the same hash of what was received."""
    received = send("azure.test", "/kv/%C3%BC?label=*&a", [("Authorization", "mine")], body)
    content = base64.b64encode(hashlib.sha256(received.body).digest()).decode()
    assert received.one("x-ms-content-sha256") == content
    text = (
        f"{received.method}\n{received.target}\n"
        f"{received.one('x-ms-date')};{received.one('host')};{content}"
    )
    wanted = base64.b64encode(by_openssl(HMAC_KEY, text.encode())).decode()
    assert signature_of(received) == wanted
    assert received.one("authorization").startswith("HMAC-SHA256 Credential=app&SignedHeaders=")


def test_hmac_of_the_body_itself(send: Send) -> None:
    """A webhook's layout, with a nonce that is another each time."""
    nonces = set()
    for _ in range(2):
        received = send(
            "hook.test", "/", [("Content-Type", "a/b"), ("X-Sig", "mine")], [b"\x00\xff"]
        )
        before = f"{received.one('x-nonce')}.{received.one('x-time')}.a/b."
        wanted = by_openssl(HMAC_KEY, before.encode() + received.body, "sha512").hex()
        assert received.one("x-sig") == f"v1={wanted}"
        nonces.add(received.one("x-nonce"))
    assert len(nonces) == 2


def test_what_is_told(bed: GatewayBed, served: Served, send: Send) -> None:
    """No secret key, session token or signature is in a log, ours or Envoy's."""
    received = send("api.test", "/told")
    assert bed.logged("/told")
    told = [bed.envoy.log.read_text(), bed.envoy.config_dump(), served.stdout, served.stderr]
    key = base64.b64encode(HMAC_KEY).decode()
    for secret in (KEY, TOKEN, key, signature_of(received)):
        assert not [text for text in told if secret in text]
