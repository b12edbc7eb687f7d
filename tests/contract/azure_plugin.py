"""Vault's azure auth method as a client sees it, after vault-plugin-auth-azure's ``path_login.go``.

What its verifier and its checks of a role find wrong comes back as a 500, as there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from tests.contract.auth_plugin import AuthPlugin, PluginError
from tests.contract.signed_tokens import Issuer, TokenError, verified

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GROUP = re.compile(r"[\-_.()\w]*[\-_()\w]")
_NAME = re.compile(r"[a-zA-Z]|[a-zA-Z][a-zA-Z0-9.\-_]*[a-zA-Z0-9_]")
_SHAPES = {
    "subscription_id": _GUID,
    "resource_group_name": _GROUP,
    "vm_name": _NAME,
    "vmss_name": _NAME,
}
_KNOWN = {"role", "jwt", "resource_id", *_SHAPES}


class AzurePlugin(AuthPlugin):
    """``resource`` is what ``config`` says; ``role`` is bound to a group when ``bound`` is set.

    ``machines`` maps what can be looked up (a machine's, a scale set's or a resource's
    name) to the object ids of its identities.
    """

    mount = "azure"

    def __init__(self, microsoft: Issuer, resource: str, machines: Mapping[str, str]) -> None:
        super().__init__()
        self._microsoft = microsoft
        self._resource = resource
        self._machines = machines
        self.bound_group = ""

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, str]:
        """As ``pathLogin``."""
        assert set(fields) <= _KNOWN
        if not fields.get("jwt"):
            raise PluginError("jwt is required")
        if fields.get("role") != "gateway":
            raise PluginError(f'invalid role name "{fields.get("role")}"')
        for name, shape in _SHAPES.items():
            if fields.get(name) and not shape.fullmatch(fields[name]):
                raise PluginError(f"invalid {name}")
        claims = self._claims(str(fields["jwt"]))
        if self.bound_group:
            self._check_place(fields, claims)
        return {name: fields[name] for name in fields if name not in ("jwt", "role")}

    def _claims(self, jwt: str) -> dict[str, Any]:
        try:
            claims = verified(jwt, self._microsoft.public, self._microsoft.kid)
        except TokenError as exc:
            raise PluginError("failed to verify signature", status=500) from exc
        if claims["aud"] != self._resource:
            text = f'oidc: expected audience "{self._resource}" got ["{claims["aud"]}"]'
            raise PluginError(text, status=500)
        if claims["nbf"] > time.time():
            raise PluginError("token is not yet valid", status=500)
        return claims

    def _check_place(self, fields: Mapping[str, Any], claims: dict[str, Any]) -> None:
        if not (fields.get("subscription_id") and fields.get("resource_group_name")):
            raise PluginError("subscription_id and resource_group_name are required", status=500)
        names = (fields.get(name) for name in ("vmss_name", "vm_name", "resource_id"))
        looked_up = next((name for name in names if name), None)
        if looked_up is None or looked_up not in self._machines:
            raise PluginError("resource_id is required", status=500)
        if self._machines[looked_up] != claims["oid"]:
            raise PluginError("token object id does not match expected identities", status=500)
        if fields["resource_group_name"] != self.bound_group:
            raise PluginError("resource group not authorized", status=500)
