"""HMAC over parts of the request, in the layouts of schemes that are in use."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.hmac import Hmac
from vaultauthz.core.injection import Mutation, field_names, header_names, needs_body, render
from vaultauthz.core.request import Message, Request
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing import SigningError, outgoing
from vaultauthz.core.signing.hmac import PLACEHOLDERS, TIMESTAMPS
from vaultauthz.core.template import InjectionError, MissingFieldError, Template

NOW = 1440938160.789  # 2015-08-30 12:36:00.789 UTC
NONCE = "0123456789abcdef"
KEY = "It's a Secret to Everybody"


def form(*sign: str, key: str = "{key}", **more: Any) -> Hmac:
    """A form that signs these parts; `headers` is text by name."""
    headers = more.pop("headers", {"x-sig": "{signature}"})
    named = tuple((name, Template.parse(text)) for name, text in headers.items())
    return Hmac(Template.parse(key), tuple(map(Template.parse, sign)), named, **more)


def rendered(made: Hmac, key: str = KEY, **fields: str) -> Mutation:
    """The mutation with these fields in the secret."""
    secrets = {name: Secret(value) for name, value in fields.items()}
    return render([made], {"key": Secret(key), **secrets})


def sign(
    mutation: Mutation,
    target: str = "/",
    headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes | None = b"",
    method: str = "GET",
) -> dict[str, str]:
    """What is set on this request, its constant headers included."""
    message = Message(tuple(headers.items()), body)
    request = Request("test", method, "api.test", target, message=lambda: message)
    assert mutation.signer
    sent = outgoing(request, mutation.headers, mutation.remove)
    return dict(mutation.headers) | dict(mutation.signer.sign(sent, NOW, lambda: NONCE))


def mac(key: str | bytes, text: str | bytes, algorithm: str = "sha256") -> bytes:
    """The hash, straight from the standard library."""
    key, text = (part.encode() if isinstance(part, str) else part for part in (key, text))
    return hmac.new(key, text, algorithm).digest()


class TestSchemes:
    def test_github(self) -> None:
        """GitHub's webhooks: the example with which its documentation lets people test."""
        made = form("{body}", headers={"x-hub-signature-256": "sha256={signature}"})
        assert sign(rendered(made), body=b"Hello, World!") == {
            "x-hub-signature-256": (
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
            )
        }

    def test_stripe(self) -> None:
        """Stripe's: time and body with a dot between."""
        headers = {"stripe-signature": "t={timestamp},v1={signature}"}
        made = form("{timestamp}", "{body}", separator=".", headers=headers)
        wanted = mac(KEY, '1440938160.{"a": 1}').hex()
        assert sign(rendered(made), body=b'{"a": 1}') == {
            "stripe-signature": f"t=1440938160,v1={wanted}"
        }

    def test_standard_webhooks(self) -> None:
        """Standard Webhooks: id, time and body, and a key in base64."""
        headers = {
            "webhook-id": "msg_{nonce}",
            "webhook-timestamp": "{timestamp}",
            "webhook-signature": "v1,{signature}",
        }
        made = form(
            *("{header.webhook-id}", "{timestamp}", "{body}"),
            separator=".",
            key_encoding="base64",
            encoding="base64",
            headers=headers,
        )
        found = sign(rendered(made, base64.b64encode(b"key").decode()), body=b"{}")
        assert found == {
            "webhook-id": f"msg_{NONCE}",
            "webhook-timestamp": "1440938160",
            "webhook-signature": (
                "v1," + base64.b64encode(mac(b"key", f"msg_{NONCE}.1440938160.{{}}")).decode()
            ),
        }

    def test_azure(self) -> None:
        """Azure App Configuration and Communication Services."""
        headers = {
            "x-ms-date": "{timestamp}",
            "x-ms-content-sha256": "{body_sha256_base64}",
            "authorization": (
                "HMAC-SHA256 Credential={id}"
                "&SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
            ),
        }
        made = form(
            *("{method}", "{target}", "{timestamp};{host};{body_sha256_base64}"),
            key_encoding="base64",
            encoding="base64",
            timestamp="http",
            headers=headers,
        )
        found = sign(rendered(made, "a2V5", id="app"), "/kv?fields=*", method="PUT", body=b"{}")
        content = base64.b64encode(hashlib.sha256(b"{}").digest()).decode()
        day = "Sun, 30 Aug 2015 12:36:00 GMT"
        text = f"PUT\n/kv?fields=*\n{day};api.test;{content}"
        assert found["x-ms-date"] == day
        assert found["x-ms-content-sha256"] == content
        assert found["authorization"].endswith(
            "&Signature=" + base64.b64encode(mac(b"key", text)).decode()
        )

    def test_kong(self) -> None:
        """Kong's hmac-auth, which is draft-cavage with a target of its own."""
        headers = {
            "date": "{timestamp}",
            "digest": "SHA-256={body_sha256_base64}",
            "authorization": (
                'hmac username="{user}", algorithm="hmac-sha256", '
                'headers="date @request-target digest", signature="{signature}"'
            ),
        }
        made = form(
            "date: {timestamp}",
            "@request-target: {method_lower} {target}",
            "digest: {header.digest}",
            encoding="base64",
            timestamp="http",
            headers=headers,
        )
        found = sign(rendered(made, user="alice"), "/v1?a=1", method="POST", body=b"hello")
        text = "\n".join(
            (
                f"date: {found['date']}",
                "@request-target: post /v1?a=1",
                f"digest: {found['digest']}",
            )
        )
        wanted = base64.b64encode(mac(KEY, text)).decode()
        assert found["authorization"].endswith(f'signature="{wanted}"')

    def test_an_exchange(self) -> None:
        """Time, method, target and body without anything between, beside a header of the key's id."""
        made = form(
            "{timestamp}{method}{target}{body}",
            timestamp="rfc3339_ms",
            encoding="base64",
            headers={"ok-access-sign": "{signature}", "ok-access-timestamp": "{timestamp}"},
        )
        mutation = render(
            [made, Header("ok-access-key", Template.parse("{id}"))],
            {"key": Secret(KEY), "id": Secret("me")},
        )
        found = sign(mutation, "/api?x=1", body=b"{}", method="POST")
        text = "2015-08-30T12:36:00.789ZPOST/api?x=1{}"
        assert found == {
            "ok-access-key": "me",
            "ok-access-sign": base64.b64encode(mac(KEY, text)).decode(),
            "ok-access-timestamp": "2015-08-30T12:36:00.789Z",
        }


@pytest.mark.parametrize(
    ("style", "wanted"),
    [
        ("unix", "1440938160"),
        ("unix_ms", "1440938160789"),
        ("rfc3339", "2015-08-30T12:36:00Z"),
        ("rfc3339_ms", "2015-08-30T12:36:00.789Z"),
        ("http", "Sun, 30 Aug 2015 12:36:00 GMT"),
    ],
)
def test_timestamps(style: str, wanted: str) -> None:
    """A moment in each style."""
    assert TIMESTAMPS[style](NOW) == wanted


@given(st.floats(0, 4e9))
def test_the_time_is_the_same_in_every_style(now: float) -> None:
    """Seconds and milliseconds come from the same moment."""
    assert TIMESTAMPS["unix_ms"](now)[:-3] in (TIMESTAMPS["unix"](now), "")
    assert TIMESTAMPS["rfc3339_ms"](now)[:19] == TIMESTAMPS["rfc3339"](now)[:19]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", "sha1"])
@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
def test_algorithms_and_encodings(algorithm: str, encoding: str) -> None:
    """Each hash in each encoding."""
    digest = mac(KEY, "GET", algorithm)
    wanted = {
        "hex": digest.hex(),
        "base64": base64.b64encode(digest).decode(),
        "base64url": base64.urlsafe_b64encode(digest).decode().rstrip("="),
    }
    made = form("{method}", algorithm=algorithm, encoding=encoding)
    assert sign(rendered(made)) == {"x-sig": wanted[encoding]}


@given(st.binary(min_size=1))
def test_keys(key: bytes) -> None:
    """A key in base64, with or without its end and in either alphabet, or in hex."""
    spelled = [
        ("base64", base64.b64encode(key).decode()),
        ("base64", base64.urlsafe_b64encode(key).decode().rstrip("=")),
        ("hex", key.hex()),
        ("hex", key.hex().upper()),
    ]
    for encoding, text in spelled:
        found = sign(rendered(form("{method}", key_encoding=encoding), text))
        assert found == {"x-sig": mac(key, "GET").hex()}


@pytest.mark.parametrize(
    ("encoding", "key"), [("base64", "k3y5q"), ("base64", "k3 y="), ("hex", "xyzzy")]
)
def test_a_key_that_is_none(encoding: str, key: str) -> None:
    """It is told when the secret is fetched, without its value."""
    with pytest.raises(InjectionError, match="the value for hmac key is") as raised:
        rendered(form("{method}", key_encoding=encoding), key)
    assert key not in str(raised.value)


class TestWords:
    def test_each(self) -> None:
        """What each word stands for."""
        words = " ".join(
            f"{word}={{{word}}}" for word in sorted(PLACEHOLDERS) if not word.startswith("body_")
        )
        made = form(words)
        text = (
            "body=b host=api.test method=GeT method_lower=get nonce=0123456789abcdef "
            "path=/a%20b query=c=d&e target=/a%20b?c=d&e timestamp=1440938160"
        )
        found = sign(rendered(made), "/a%20b?c=d&e", body=b"b", method="GeT")
        assert found == {"x-sig": mac(KEY, text).hex()}

    def test_headers(self) -> None:
        """A header's values are joined; one that is not there is empty; ours win."""
        made = form(
            "{header.x-a}|{header.x-none}|{header.x-ours}|{header.x-time}",
            headers={
                "x-time": "{timestamp}",
                "x-sig": "{signature}",
            },
        )
        mutation = render(
            [made, Header("x-ours", Template.parse("{id}"))],
            {"key": Secret(KEY), "id": Secret("ours")},
            ["x-none"],
        )
        message = Message(
            (("x-a", "1"), ("x-ours", "mine"), ("x-none", "mine"), ("x-a", "2"), ("x-time", "0")),
            b"",
        )
        request = Request("test", message=lambda: message)
        sent = outgoing(request, mutation.headers, mutation.remove)
        assert mutation.signer
        found = dict(mutation.signer.sign(sent, NOW, lambda: NONCE))
        assert found["x-sig"] == mac(KEY, "1, 2||ours|1440938160").hex()

    def test_the_host_of_the_upstream(self) -> None:
        """It is the configured one, where there is one."""
        assert sign(rendered(form("{host}", host="b.test"))) == {"x-sig": mac(KEY, "b.test").hex()}

    def test_one_nonce(self) -> None:
        """The nonce that is signed is the one that is sent, and the next request has another."""
        numbers: Iterator[int] = iter(range(9))
        made = form("{nonce}", "{nonce}", headers={"x-n": "{nonce}", "x-sig": "{signature}"})
        mutation = rendered(made)
        sent = outgoing(Request("test", message=lambda: Message((), b"")), (), ())
        assert mutation.signer
        for wanted in ("0", "1"):
            found = dict(mutation.signer.sign(sent, NOW, lambda: str(next(numbers))))
            assert found == {"x-n": wanted, "x-sig": mac(KEY, f"{wanted}\n{wanted}").hex()}

    def test_bytes(self) -> None:
        """Bytes that are no text are signed as they came."""
        made = form("{header.x-a}", "{body}")
        found = sign(rendered(made), headers={"x-a": "caf\udce9"}, body=b"\xff\x00")
        assert found == {"x-sig": mac(KEY, b"caf\xe9\n\xff\x00").hex()}

    @pytest.mark.parametrize("word", ["body", "body_sha256", "body_sha256_base64"])
    def test_an_unknown_body(self, word: str) -> None:
        """A body that has to be signed and is not known is refused."""
        with pytest.raises(SigningError, match="whole body"):
            sign(rendered(form(f"{{{word}}}")), body=None)

    def test_a_body_that_nobody_wants(self) -> None:
        """It need not be known."""
        assert sign(rendered(form("{method}")), body=None)


def test_the_field_of_the_secret() -> None:
    """A name that is no word is a field, in a part as in a header; its braces are never parsed."""
    made = form("{id}", headers={"x-sig": "{id} {signature}"})
    found = sign(rendered(made, id="{method}"))
    assert found == {"x-sig": "{method} " + mac(KEY, "{method}").hex()}


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (("{method}", "{body_id}"), False),
        (("{method}", "{body}"), True),
        (("{body_sha256_base64}",), True),
    ],
)
def test_who_needs_the_body(parts: tuple[str, ...], wanted: bool) -> None:
    """A gateway has to send bodies for a word that is made of one, in a part or in a header."""
    assert needs_body([form(*parts)]) is wanted
    assert needs_body([form("{method}", headers={"x": "{body_sha256}"})])
    assert not needs_body([Header("x", Template.parse("{body}"))])


def test_slots_and_fields() -> None:
    """Its headers are slots of the client's, its fields are told, its words are not."""
    made = form("{method}", "{id}", headers={"x-sig": "{signature}", "x-k": "{kid}"})
    assert header_names([made]) == ("x-sig", "x-k")
    assert field_names([made]) == ("key", "id", "kid")
    assert rendered(made, id="a", kid="b").remove == ("x_sig", "x_k")


def test_a_secret_that_does_not_fit() -> None:
    """A missing field and a line break in a header are told when the secret is fetched."""
    with pytest.raises(MissingFieldError, match="'id'"):
        rendered(form("{id}{method}"))
    with pytest.raises(InjectionError, match="hmac header x-sig"):
        rendered(form("{method}", headers={"x-sig": "{id}{signature}"}), id="a\r\nx-evil: b")


def test_nothing_shows_the_key() -> None:
    """Neither the signer nor the mutation shows it."""
    mutation = rendered(form("{method}"))
    assert KEY not in repr(mutation)
    assert KEY not in repr(mutation.signer)
