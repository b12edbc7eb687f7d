"""The metadata services of the clouds: what a machine, a pod or an app asks who it is."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from tests.contract.cloud_http import Asked, CloudService, Told
from tests.contract.signed_tokens import Issuer, TokenError, verified


def aws_answer(keys: Mapping[str, str]) -> dict[str, Any]:
    """Keys as IMDS and the container endpoints give them out."""
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    return {
        "Code": "Success",
        "AccessKeyId": keys["AccessKeyId"],
        "SecretAccessKey": keys["SecretAccessKey"],
        "Token": keys["SessionToken"],
        "Expiration": soon,
        "AccountId": "123456789012",
    }


class Imds(CloudService):
    """EC2's, in version 2 only: nothing without the session's token."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        super().__init__(self._reply)
        self._keys = keys

    def _reply(self, asked: Asked) -> Told:
        if (asked.method, asked.path) == ("PUT", "/latest/api/token"):
            assert asked.headers["x-aws-ec2-metadata-token-ttl-seconds"]
            return Told(200, "imds-session")
        if asked.headers.get("x-aws-ec2-metadata-token") != "imds-session":
            return Told(401)
        roles = "/latest/meta-data/iam/security-credentials"
        if asked.path == f"{roles}/":
            return Told(200, "gateway")
        return Told(200, aws_answer(self._keys)) if asked.path == f"{roles}/gateway" else Told(404)


class PodIdentity(CloudService):
    """The agent on an EKS node, at ``/v1/credentials``; the pod shows its own token."""

    def __init__(self, keys: Mapping[str, str], token: str) -> None:
        super().__init__(self._reply)
        self.keys = keys
        self._token = token

    def _reply(self, asked: Asked) -> Told:
        if asked.headers.get("authorization") != self._token:
            return Told(400, "Access denied")
        return Told(200, aws_answer(self.keys))


class GoogleMetadata(CloudService):
    """Google's: the instance's identity, and access tokens of its service account."""

    def __init__(self, google: Issuer) -> None:
        super().__init__(self._reply)
        self._google = google
        self.status = 200
        self.account = "vm@project.iam.gserviceaccount.com"

    def _reply(self, asked: Asked) -> Told:
        if asked.headers.get("metadata-flavor") != "Google" or self.status != 200:
            return Told(self.status if self.status != 200 else 403, "s3cr3t text")
        path = asked.path.removeprefix("/computeMetadata/v1/")
        answers: dict[str, str | dict[str, Any]] = {
            "/": "computeMetadata/",
            "project/project-id": "project",
            "instance/service-accounts/default/": {"email": self.account, "scopes": []},
            "instance/service-accounts/default/token": {
                "access_token": "ya29.machine",
                "expires_in": 3599,
                "token_type": "Bearer",
            },
        }
        flavor = {"Metadata-Flavor": "Google"}
        if path == "instance/service-accounts/default/identity":
            return Told(200, self._identity(asked.query), flavor)
        return Told(200, answers[path], flavor) if path in answers else Told(404)

    def _identity(self, query: Mapping[str, str]) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": "https://accounts.google.com",
            "aud": query["audience"],
            "sub": "1234567890",
            "iat": now,
            "exp": now + 3600,
        }
        if query.get("format") == "full":
            compute = {"instance_id": "99", "instance_name": "gateway-1", "project_id": "project"}
            claims["google"] = {"compute_engine": compute}
        return self._google.sign(claims)


class GoogleIam(CloudService):
    """Google's token endpoint and ``signJwt``; ``may`` maps an access token to whom it acts for."""

    def __init__(self, accounts: Mapping[str, Issuer], may: Mapping[str, str]) -> None:
        super().__init__(self._reply)
        self._accounts = accounts
        self._may = may
        self.signed = 0

    def _reply(self, asked: Asked) -> Told:
        if asked.path == "/token":
            return self._token(asked)
        email = asked.path.rpartition("/")[2].removesuffix(":signJwt")
        assert asked.path == f"/v1/projects/-/serviceAccounts/{email}:signJwt"
        token = asked.headers["authorization"].removeprefix("Bearer ")
        if self._may.get(token) != email:
            return Told(403, {"error": {"message": "s3cr3t text", "status": "PERMISSION_DENIED"}})
        self.signed += 1
        issuer = self._accounts[email]
        return Told(200, {"keyId": issuer.kid, "signedJwt": issuer.sign(_payload(asked))})

    def _token(self, asked: Asked) -> Told:
        """The JWT bearer grant: an access token for whom the assertion is signed by."""
        assertion = parse_qs(asked.body.decode())["assertion"][0]
        for email, issuer in self._accounts.items():
            claims = _claims_of(assertion, issuer)
            if claims and claims["iss"] == email:
                token = {"access_token": f"ya29.{email}", "expires_in": 3599}
                return Told(200, {**token, "token_type": "Bearer"})
        return Told(400, {"error": "invalid_grant", "error_description": "s3cr3t text"})


def _payload(asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked.fields["payload"])
    return found


def _claims_of(assertion: str, issuer: Issuer) -> dict[str, Any] | None:
    try:
        return verified(assertion, issuer.public, issuer.kid)
    except TokenError:
        return None


class AzureMetadata(CloudService):
    """Azure's IMDS, and an app's identity endpoint at ``/msi/token`` with its ``header``."""

    def __init__(self, microsoft: Issuer, identities: Mapping[str, str]) -> None:
        """``identities`` maps a client id to an object id; "" is the system's own."""
        super().__init__(self._reply)
        self._microsoft = microsoft
        self._identities = identities
        self.compute: dict[str, str] | None = {}
        self.header = "app-s3cr3t"
        self.status = 200
        self.resource = ""  # what tokens are for in place of what was asked

    def _reply(self, asked: Asked) -> Told:
        if self.status != 200:
            return Told(self.status, {"error": "s3cr3t text"})
        if asked.path == "/msi/token":
            good = asked.headers.get("x-identity-header") == self.header
            return self._token(asked, "2019-08-01") if good else Told(401)
        if asked.headers.get("metadata") != "true" or "x-forwarded-for" in asked.headers:
            return Told(400, {"error": "Bad request. Required metadata header not specified"})
        if asked.path == "/metadata/identity/oauth2/token":
            return self._token(asked, "2018-02-01")
        if asked.path == "/metadata/instance" and self.compute is not None:
            assert asked.query == {"api-version": "2018-02-01"}
            return Told(200, {"compute": self.compute, "network": {}})
        return Told(404)

    def _token(self, asked: Asked, version: str) -> Told:
        assert asked.query["api-version"] == version
        identity = self._identities.get(asked.query.get("client_id", ""))
        if identity is None:
            return Told(
                400, {"error": "invalid_request", "error_description": "Identity not found"}
            )
        now = int(time.time())
        claims = {
            "aud": self.resource or asked.query["resource"],
            "iss": "https://sts.windows.net/tenant/",
            "nbf": now - 5,
            "exp": now + 3600,
            "oid": identity,
        }
        return Told(200, {"access_token": self._microsoft.sign(claims), "token_type": "Bearer"})
