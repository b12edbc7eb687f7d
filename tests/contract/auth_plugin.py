"""The login endpoint of a Vault that has one of the clouds' auth plugins, over a real socket.

A plugin says in ``check`` what it makes of a login's fields; this is Vault around it.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

from tests.contract.cloud_http import Asked, CloudService, Told


class PluginError(Exception):
    """The login is refused; ``status`` is what Vault answers, 400 for most reasons."""

    def __init__(self, text: str, status: int = 400) -> None:
        self.status = status
        super().__init__(text)


class AuthPlugin(CloudService, abc.ABC):
    """Started as a context manager; ``logins`` are the metadata of the logins that were good."""

    mount = ""

    def __init__(self) -> None:
        super().__init__(self._login)
        self.logins: list[Mapping[str, str]] = []
        self.refused: list[str] = []

    @abc.abstractmethod
    def check(self, fields: Mapping[str, Any]) -> Mapping[str, str]:
        """What the token is to know of who logged in.

        Raises:
            PluginError: it is not let in.
        """

    def _login(self, asked: Asked) -> Told:
        if (asked.method, asked.path) != ("POST", f"/v1/auth/{self.mount}/login"):
            return Told(404, {"errors": ["no handler for route"]})
        try:
            known = self.check(asked.fields)
        except PluginError as exc:
            self.refused.append(str(exc))
            return Told(exc.status, {"errors": [str(exc)]})
        self.logins.append(known)
        auth = {
            "client_token": "hvs.cl0ud",
            "accessor": "acc-1",
            "lease_duration": 3600,
            "renewable": True,
            "metadata": known,
        }
        return Told(200, {"request_id": "r-1", "auth": auth})
