"""Vault's aws auth method as a client sees it, and the STS that it asks.

After ``builtin/credential/aws`` of Vault 1.14 and OpenBao's plugin: ``pathLoginUpdateIam``,
``validateLoginIamRequestBody``, ``validateVaultHeaderValue``,
``validateAllowedSTSHeaderValues`` and ``buildHttpRequest``. The signed request goes to
moto's STS, which says who signed but checks no signature; ``Sts`` does that before.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.contract.auth_plugin import AuthPlugin, PluginError
from tests.patience import PATIENCE

SERVER_ID = "X-Vault-AWS-IAM-Server-ID"
_AMZ_ALLOWED = {
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
    "x-amz-user-agent",
}
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/sts/aws4_request, "
    r"SignedHeaders=(?P<signed>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_GLOBAL = "https://sts.amazonaws.com"


@dataclass(frozen=True)
class Key:
    """An access key as AWS knows it; ``token`` is the session token of a temporary one."""

    secret: str
    token: str = ""


class Sts:
    """The endpoint ``endpoint``: checks region and signature, then lets moto name the caller."""

    def __init__(self, endpoint: str, region: str, moto: str, key: Callable[[str], Key]) -> None:
        self.endpoint = endpoint
        self._region = region
        self._moto = moto
        self._key = key

    def ask(self, host: str, body: str, headers: Mapping[str, str]) -> str:
        """The caller's ARN; ``host`` is the Host header that Vault sends."""
        found = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
        if not found:
            raise PluginError("IncompleteSignature")
        if host != urlsplit(self.endpoint).hostname or found["region"] != self._region:
            raise PluginError(
                "SignatureDoesNotMatch: Credential should be scoped to a valid region"
            )
        self._verify(found, host, body, headers)
        answer = requests.post(
            self._moto,
            data=body,
            headers={**headers, "Host": host},
            timeout=PATIENCE,
            allow_redirects=False,
        )
        arn = ET.fromstring(answer.text).findtext(".//{*}Arn")
        assert arn
        return arn

    def _verify(
        self, found: re.Match[str], host: str, body: str, headers: Mapping[str, str]
    ) -> None:
        key = self._key(found["key"])
        if headers.get("X-Amz-Security-Token", "") != key.token:
            raise PluginError("InvalidClientTokenId")
        given = {name.lower(): value for name, value in headers.items()}
        signed = {name: given[name] for name in found["signed"].split(";") if name != "host"}
        request = AWSRequest("POST", f"https://{host}/", headers=signed, data=body)
        request.context["timestamp"] = given["x-amz-date"]
        check = SigV4Auth(Credentials(found["key"], key.secret), "sts", self._region)
        canonical = check.canonical_request(request)
        expected = check.signature(check.string_to_sign(request, canonical), request)
        if expected != found["signature"]:
            raise PluginError("SignatureDoesNotMatch")


class AwsPlugin(AuthPlugin):
    """``roles`` maps a role to the principal it is bound to; ``config/client`` is the rest."""

    mount = "aws"

    def __init__(self, moto: str, key: Callable[[str], Key], roles: Mapping[str, str]) -> None:
        super().__init__()
        self._moto = moto
        self._key = key
        self._roles = roles
        self.server_id = ""  # iam_server_id_header_value
        self.sts_endpoint = ""
        self.sts_region = ""
        self.region_from_client = False  # use_sts_region_from_client

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, str]:
        """As ``pathLoginUpdateIam``."""
        if fields.get("iam_http_request_method") != "POST":
            raise PluginError("invalid iam_http_request_method")
        url = urlsplit(_decoded(fields, "iam_request_url"))
        if url.scheme != "https" or url.query or url.path != "/":
            raise PluginError("error parsing iam_request_url")
        body = _decoded(fields, "iam_request_body")
        if parse_qs(body) != {"Action": ["GetCallerIdentity"], "Version": ["2011-06-15"]}:
            raise PluginError("iam_request_body is not valid")
        headers = _headers(fields)
        self._check_server_id(headers)
        arn = self._sts(headers).ask(url.netloc, body, headers)
        role = str(fields.get("role"))
        if role not in self._roles:
            raise PluginError(f"entry for role {role} not found")
        if _canonical(arn) != self._roles[role]:
            raise PluginError(f'IAM Principal "{arn}" does not belong to the role "{role}"')
        return {"client_arn": arn, "host": url.netloc}

    def _check_server_id(self, headers: Mapping[str, str]) -> None:
        if not self.server_id:
            return
        given = {name.lower(): value for name, value in headers.items()}
        told = f"error validating {SERVER_ID} header:"
        if SERVER_ID.lower() not in given:
            raise PluginError(f'{told} missing header "{SERVER_ID}"')
        got = given[SERVER_ID.lower()]
        if got != self.server_id:
            raise PluginError(f'{told} expected "{self.server_id}" but got "{got}"')
        found = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
        if not found or SERVER_ID.lower() not in found["signed"].split(";"):
            raise PluginError(f"{told} vault header wasn't signed")

    def _sts(self, headers: Mapping[str, str]) -> Sts:
        endpoint, region = self.sts_endpoint or _GLOBAL, self.sts_region or "us-east-1"
        if self.region_from_client:
            found = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
            if not found:
                raise PluginError("region missing from Authorization header")
            region = found["region"]
            endpoint = f"https://sts.{region}.amazonaws.com"
        return Sts(endpoint, region, self._moto, self._key)


def _decoded(fields: Mapping[str, Any], name: str) -> str:
    return base64.b64decode(fields[name], validate=True).decode()


def _headers(fields: Mapping[str, Any]) -> dict[str, str]:
    """Go's http.Header: lists of values, of which each has one here."""
    given = json.loads(_decoded(fields, "iam_request_headers"))
    for name in given:
        if name.lower().startswith("x-amz-") and name.lower() not in _AMZ_ALLOWED:
            raise PluginError(f"invalid request header: {name}")
    return {name: value for name, (value,) in given.items()}


def _canonical(arn: str) -> str:
    """The ARN that roles are bound to: an assumed role's is its role's."""
    start, account, what = arn.rsplit(":", 2)
    partition = start.split(":")[1]
    kind, name = what.split("/")[:2]
    kind = "role" if kind == "assumed-role" else kind
    return f"arn:{partition}:iam::{account}:{kind}/{name}"
