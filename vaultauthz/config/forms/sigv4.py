"""``sigv4``: AWS Signature Version 4, computed for each request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final

from vaultauthz.config import kinds, templates
from vaultauthz.config.keys import Key, Section
from vaultauthz.config.kinds import TEXT, choice
from vaultauthz.config.reader import Value, quoted
from vaultauthz.core.injection import Injection, Mutation, Signature
from vaultauthz.core.secret import Secret
from vaultauthz.core.signing.sigv4 import (
    AUTHORIZATION,
    CONTENT,
    DATE,
    OBJECT_STORES,
    SigV4Signer,
)
from vaultauthz.core.template import Template, header_value, not_blank

_ACCESS_KEY: Final = Template.parse("{access_key}")
_SECRET_KEY: Final = Template.parse("{secret_key}")
TOKEN: Final = "x-amz-security-token"
# Vault before 1.16 and OpenBao call it security_token, Vault since then both.
_TOKEN_FIELDS: Final = ("session_token", "security_token")
_BODIES: Final = ("signed", "unsigned")
_LATTICE: Final = "vpc-lattice-svcs"
# The services of which botocore's descriptions have an operation with an unsigned body.
_TAKE_UNSIGNED: Final = {*OBJECT_STORES, _LATTICE, "ebs", "lex", "mediastore", "omics"}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.\-]*\Z")  # "auto" is a region of S3's imitators


@dataclass(frozen=True, slots=True)
class SigV4(Injection):
    """``body`` is ``signed`` or ``unsigned``; ``host`` is "" where the client's goes on.

    The fields of the keys are by default those of Vault's aws engine. ``session_token`` None:
    whichever of its fields the secret has, and no token where it has none (an IAM user's keys).
    """

    form: ClassVar = "sigv4"
    region: str
    service: str
    access_key: Template = _ACCESS_KEY
    secret_key: Template = _SECRET_KEY
    session_token: Template | None = None
    body: str = "signed"
    host: str = ""

    @property
    def header_names(self) -> tuple[str, ...]:
        return (AUTHORIZATION, DATE, CONTENT, TOKEN)

    @property
    def signature(self) -> Signature:
        return Signature(self.host, needs_body=self.body == "signed")

    @property
    def used_fields(self) -> tuple[str, ...]:
        return (*self.field_names, *_TOKEN_FIELDS)

    @property
    def shown(self) -> str:
        names = ", ".join(f"header {name}" for name in self.header_names)
        return f"AWS signature for {self.service} in {self.region}: {names}"

    def rendered(self, fields: Mapping[str, Secret]) -> Mutation:
        """Only the session token is the same for each request.

        A key that AWS could not have given, with a stray blank or newline, is refused: every
        signature would be wrong.
        """
        token = self._token(fields)
        access_key, secret_key = (
            header_value(key.fill(fields), key.at(f"sigv4 {name}"))
            for name, key in (("access_key", self.access_key), ("secret_key", self.secret_key))
        )
        signer = SigV4Signer(
            (self.region, self.service),
            access_key,
            Secret(secret_key),
            host=self.host,
            unsigned=self.body == "unsigned",
        )
        headers = ((TOKEN, token),) if token else ()
        return Mutation(headers=headers, signer=signer, filled=(AUTHORIZATION, DATE, CONTENT))

    def _token(self, fields: Mapping[str, Secret]) -> str:
        if self.session_token:
            token = self.session_token.fill(fields)
        else:
            found = ((name, fields[name].reveal()) for name in _TOKEN_FIELDS if name in fields)
            token = next((not_blank(token, name) for name, token in found if token), "")
        return header_value(token, "sigv4 session_token")


def _named(value: Value, *, kind: str, such_as: str) -> str:
    text = value.text()
    if not _NAME.match(text):
        raise value.wrong(f"{quoted(text)} is no {kind}; write it as in {such_as}")
    return text


def _usual_body(service: str) -> str:
    """Signed, but for services that carry large ones or want it so."""
    return "unsigned" if service in OBJECT_STORES or service == _LATTICE else "signed"


def _body(value: Value, *, service: str) -> str:
    body = value.choice(_BODIES)
    if body == "signed" and service == _LATTICE:
        raise value.wrong(f"{_LATTICE} takes unsigned bodies only; remove it")
    if body == "unsigned" and service and service not in _TAKE_UNSIGNED:
        value.warn(f"{service} is not known to take unsigned bodies: it answers them 403")
    return body


def _read(value: Value) -> SigV4:
    table = _KEYS.open(value)
    service = _KEYS.get(table, "service")
    usual = {"body": _usual_body(service)}
    return _KEYS.build(table, {"service": service}, usual, body=partial(_body, service=service))


_OF_SECRET: Final = '"{FIELD}" of the secret.'
_KEYS: Final = Section(
    SigV4,
    "AWS Signature Version 4, computed for each request.",
    Key(
        "region",
        TEXT.by(partial(_named, kind="region", such_as="eu-central-1")),
        "As in eu-central-1.",
        "For imitators of S3 the one that they want (`auto`, `us-east-1`).",
        missing="add the region, as in eu-central-1",
    ),
    Key(
        "service",
        TEXT.by(partial(_named, kind="service's name", such_as="execute-api or s3")),
        "The service's name in signatures, as in execute-api or s3.",
        missing="add the service's name in signatures, as in execute-api or s3",
    ),
    Key("access_key", templates.ANY_TEXT, _OF_SECRET, "As Vault's aws engine names it; so below."),
    Key("secret_key", templates.WITH_FIELD, _OF_SECRET),
    Key(
        "session_token",
        templates.WITH_FIELD,
        _OF_SECRET,
        "Vault before 1.16 and OpenBao know the second name only. A secret without one (`iam_user`) "
        "is signed without.",
        otherwise="session_token or security_token, if there is one",
    ),
    Key(
        "body",
        choice(*_BODIES),
        "Whether it is signed.",
        "Not for `s3`, `s3express`, `s3-outposts`, `s3-object-lambda` and `vpc-lattice-svcs` by "
        "default; see below.",
        otherwise="not for S3 and VPC Lattice",
    ),
    kinds.UPSTREAM_HOST,
    secretive=True,
)
FORM: Final = Key(SigV4.form, _KEYS.reader().by(_read))
