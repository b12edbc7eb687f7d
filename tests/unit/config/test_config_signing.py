"""``sigv4`` and ``hmac``: what they are read as, and what is refused."""

from __future__ import annotations

import pytest

from vaultauthz.config.forms.hmac import Hmac
from vaultauthz.config.forms.sigv4 import SigV4
from vaultauthz.core.template import Template

from .conftest import Folder, edited

HEADER = '{header: {name: X-Api-Key, value: "{key}"}}'
SIGV4 = "{sigv4: {region: eu-central-1, service: execute-api}}"
HMAC = '{hmac: {key: "{k}", sign: ["{method}"], headers: {X-Sig: "{signature}"}}}'
PLACE = "upstreams.geo.inject[0]"
field = Template.parse


def read(folder: Folder, form: str) -> object:
    """What one entry of `inject` is read as."""
    (found,) = folder.parse(edited(HEADER, form)).upstreams["geo"].inject
    return found


def told(folder: Folder, form: str) -> list[str]:
    """The problems with one entry, without their place."""
    return [line.partition(PLACE)[2] for line in folder.problems(edited(HEADER, form))]


def test_sigv4_by_default(folder: Folder) -> None:
    """Region and service are enough: the fields are those of Vault's aws engine."""
    keys = field("{access_key}"), field("{secret_key}")
    assert read(folder, SIGV4) == SigV4("eu-central-1", "execute-api", *keys)


def test_sigv4_in_full(folder: Folder) -> None:
    """Each key of it is read; the host is in lower case."""
    text = (
        '{sigv4: {region: auto, service: s3, access_key: "{a}", secret_key: "{b}", '
        'session_token: "{c}", body: signed, host: "Store.test:8443"}}'
    )
    wanted = SigV4(
        "auto", "s3", field("{a}"), field("{b}"), field("{c}"), "signed", "store.test:8443"
    )
    assert read(folder, text) == wanted


@pytest.mark.parametrize(
    ("service", "body"),
    [
        ("s3", "unsigned"),
        ("s3express", "unsigned"),
        ("vpc-lattice-svcs", "unsigned"),
        ("execute-api", "signed"),
        ("dynamodb", "signed"),
    ],
)
def test_the_body_by_default(folder: Folder, service: str, body: str) -> None:
    """It is signed but where it may be very large, or must not be."""
    found = read(folder, f"{{sigv4: {{region: eu-central-1, service: {service}}}}}")
    assert isinstance(found, SigV4)
    assert found.body == body


def test_unsigned_for_a_service_that_wants_it_signed(folder: Folder) -> None:
    """It is a warning: AWS adds services faster than we do."""
    form = "{sigv4: {region: eu-central-1, service: sqs, body: unsigned}}"
    assert folder.warnings(edited(HEADER, form)) == (
        (
            f"c.yaml:17: {PLACE}.sigv4.body: sqs is not known to take unsigned bodies: "
            "it answers them 403"
        ),
    )


def test_hmac_by_default(folder: Folder) -> None:
    """Key, parts and headers are enough; header names are in lower case."""
    wanted = Hmac(field("{k}"), (field("{method}"),), (("x-sig", field("{signature}")),))
    assert read(folder, HMAC) == wanted


def test_hmac_in_full(folder: Folder) -> None:
    """Each key of it is read; names of headers in parts are in lower case, too."""
    text = (
        '{hmac: {key: "{k}", key_encoding: base64, algorithm: sha512, encoding: base64url, '
        'timestamp: http, separator: "", host: api.test, sign: ["{header.X-Day}", "{id}."], '
        'headers: {X-Day: "{timestamp}", Authorization: "Mac {id}:{signature}"}}}'
    )
    wanted = Hmac(
        field("{k}"),
        (field("{header.x-day}"), field("{id}.")),
        (("x-day", field("{timestamp}")), ("authorization", field("Mac {id}:{signature}"))),
        algorithm="sha512",
        key_encoding="base64",
        encoding="base64url",
        separator="",
        timestamp="http",
        host="api.test",
    )
    assert read(folder, text) == wanted


def changed(old: str, new: str, text: str = HMAC) -> str:
    """`text` with one part of it replaced."""
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ("{methd}", "{methd} is no part of a request; did you mean {method}?"),
        ("{Body}", "{Body} is no part of a request; did you mean {body}?"),
        ("{method} {signature}", "{signature} cannot sign itself; remove it"),
        (
            "{header.X-SIG}",
            "{header.X-SIG} carries the signature, which cannot sign itself; remove it",
        ),
        *(
            (
                f"{{header.{name}}}",
                f"{{header.{name}}} may reach the upstream as another; for the host there is {{host}}",
            )
            for name in ("cookie", "Connection", "host")
        ),
    ],
)
def test_a_part_that_cannot_be_signed(folder: Folder, part: str, wanted: str) -> None:
    """A mistyped word is no field of the secret, and what a gateway changes is not signed."""
    form = changed('["{method}"]', f'["{{method}}", "{part}"]')
    assert told(folder, form) == [f".hmac.sign[1]: {wanted}"]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (
            'X-Sig: "{signatur}"',
            ".X-Sig: {signatur} is no part of a request; did you mean {signature}?",
        ),
        ('X-Sig: "{nonce}"', ": none of them carries {signature}; add it"),
        (
            'X-Sig: "{signature}", X-Path: "{path}"',
            ".X-Path: {path} can be signed, but not go into a header; remove it",
        ),
        ('X-Sig: "{signature}", x-sig: "a"', ": has 'x-sig' twice, in other letters; keep one"),
        (
            'Host: "{signature}"',
            ".Host: host says where a request goes and cannot be set; name another header",
        ),
    ],
)
def test_a_header_that_cannot_be_set(folder: Folder, header: str, wanted: str) -> None:
    """A header is made of our own words and the secret's fields, and one carries the signature."""
    form = changed('X-Sig: "{signature}"', header)
    assert told(folder, form)[0] == f".hmac.headers{wanted}"


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (
            "{sigv4: {}}",
            [
                ".sigv4.region: is missing; add the region, as in eu-central-1",
                (
                    ".sigv4.service: is missing; "
                    "add the service's name in signatures, as in execute-api or s3"
                ),
            ],
        ),
        (
            "{sigv4: {region: EU, service: S3, host: 'https://a'}}",
            [
                ".sigv4.host: 'https://a' is no host; write it as the upstream gets it, name:port",
                ".sigv4.region: 'EU' is no region; write it as in eu-central-1",
                ".sigv4.service: 'S3' is no service's name; write it as in execute-api or s3",
            ],
        ),
        (
            "{sigv4: {region: eu-west-1, service: vpc-lattice-svcs, body: signed}}",
            [".sigv4.body: vpc-lattice-svcs takes unsigned bodies only; remove it"],
        ),
        (
            "{sigv4: {region: eu-west-1, service: s3, body: auto}}",
            [".sigv4.body: 'auto' is unknown; use signed or unsigned"],
        ),
        (
            changed('key: "{k}"', 'key: "{k}", algorithm: md5, separator: [a]'),
            [
                ".hmac.algorithm: 'md5' is unknown; use sha256, sha384, sha512 or sha1",
                '.hmac.separator: wants up to 16 characters in quotes, as in "\\n", "." or ""',
            ],
        ),
        (
            changed('["{method}"]', '["{k}"]'),
            [".hmac.sign: signs nothing of the request; add {method}, {target} or another part"],
        ),
        (
            changed('["{method}"]', "[]"),
            [".hmac.sign: signs nothing of the request; add {method}, {target} or another part"],
        ),
    ],
)
def test_refused(folder: Folder, form: str, wanted: list[str]) -> None:
    """What is wrong, and the way out."""
    assert sorted(told(folder, form)) == wanted


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        (
            "{bearer: '{t}'}",
            (
                "sets the header authorization, as line 17 (upstreams.geo.inject[0]) does; "
                "keep one of them"
            ),
        ),
        (
            "{header: {name: X-Amz-Security-Token, value: '{t}'}}",
            (
                "sets the header x-amz-security-token, as line 17 (upstreams.geo.inject[0]) does; "
                "keep one of them"
            ),
        ),
        (
            "{query: {name: key, value: '{t}'}}",
            "changes the query, which is signed; put the credential in a header",
        ),
        (HMAC, "signs, as line 17 (upstreams.geo.inject[0]) does; keep one of them"),
    ],
)
def test_beside_a_signature(folder: Folder, other: str, wanted: str) -> None:
    """Nothing fills a slot of the signature or changes what is signed; there is one signature."""
    text = edited(HEADER, f"{SIGV4}\n      - {other}")
    assert folder.problems(text) == (f"c.yaml:18: upstreams.geo.inject[1]: {wanted}",)


def test_headers_beside_a_signature(folder: Folder) -> None:
    """A header or a cookie of its own may go along."""
    text = edited(
        HEADER, f"{SIGV4}\n      - {HEADER}\n      - {{cookie: {{name: a, value: '{{t}}'}}}}"
    )
    assert len(folder.parse(text).upstreams["geo"].inject) == 3


def test_stripping_a_slot(folder: Folder) -> None:
    """A header of the signature's is replaced already."""
    text = edited(HEADER, SIGV4).replace(
        "    stages: [prod]", "    strip: [X-Amz-Date]\n    stages: [prod]"
    )
    (problem,) = folder.problems(text)
    assert "x-amz-date is set by inject, which drops the client's already" in problem
