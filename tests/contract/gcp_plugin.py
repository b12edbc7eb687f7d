"""Vault's gcp auth method as a client sees it, after ``path_login.go`` of vault-plugin-auth-gcp."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tests.contract.auth_plugin import AuthPlugin, PluginError
from tests.contract.signed_tokens import Issuer, TokenError, verified


class GcpPlugin(AuthPlugin):
    """``google`` signs instance tokens; ``accounts`` maps service accounts to their keys.

    ``roles`` maps a role to its type and to the instance or service account it is bound to.
    """

    mount = "gcp"
    max_jwt_exp = 15 * 60  # seconds, a role's default

    def __init__(
        self, google: Issuer, accounts: Mapping[str, Issuer], roles: Mapping[str, tuple[str, str]]
    ) -> None:
        super().__init__()
        self._google = google
        self._accounts = accounts
        self._roles = roles

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, str]:
        """As ``pathLogin``."""
        if set(fields) != {"role", "jwt"}:
            raise PluginError("request contains invalid fields", status=422)
        role = fields["role"]
        if role not in self._roles:
            raise PluginError(f'role "{role}" not found')
        kind, bound = self._roles[role]
        claims = self._claims(str(fields["jwt"]), kind)
        self._check_base(claims, role)
        return self._gce(claims, bound) if kind == "gce" else self._iam(claims, bound)

    def _claims(self, jwt: str, kind: str) -> dict[str, Any]:
        issuers = [self._google, *(self._accounts.values() if kind == "iam" else ())]
        for issuer in issuers:
            try:
                return verified(jwt, issuer.public, issuer.kid)
            except TokenError:
                continue
        raise PluginError("unable to get public key for signed JWT")

    def _check_base(self, claims: dict[str, Any], role: str) -> None:
        if claims["exp"] > time.time() + 3600 + 60:
            raise PluginError("JWT must expire in 60 minutes")
        if not claims.get("sub"):
            raise PluginError("expected JWT to have 'sub' claim")
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if not all(audience.endswith(f"vault/{role}") for audience in audiences):
            raise PluginError(f"at least one of the JWT claim 'aud' must end in \"vault/{role}\"")

    def _gce(self, claims: dict[str, Any], bound: str) -> Mapping[str, str]:
        compute = claims.get("google", {}).get("compute_engine", {})
        if not compute.get("instance_id"):
            raise PluginError("expected JWT to have claims with GCE metadata")
        if compute["instance_name"] != bound:
            raise PluginError("instance is not authorized for role")
        return {"instance_name": compute["instance_name"]}

    def _iam(self, claims: dict[str, Any], bound: str) -> Mapping[str, str]:
        if claims["exp"] > time.time() + self.max_jwt_exp:
            raise PluginError("role requires that service account JWTs expire within 900 seconds")
        email = claims["sub"]
        issuer = self._accounts.get(email)
        if issuer is None:
            raise PluginError(f"service account {email} is not known")
        if email != bound:
            raise PluginError(f"service account {email} is not authorized for role")
        return {"service_account_email": email}
