"""A fake Kubernetes API server: the part that Vault asks about service accounts (TokenReview).

Its answers have the form of a real one's, ``authentication.k8s.io/v1``: 201 with a
``status``, a ``Status`` object where it refuses the request itself.
"""

from __future__ import annotations

import ssl
import time
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from tests.contract.fake_http import FakeServer, Heard, Reply, Wire
from tests.contract.jwt_issuer import Issuer

TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
AUDIENCE: Final = "https://kubernetes.default.svc.cluster.local"  # the API server's own


@dataclass(frozen=True)
class Account:
    """A service account of the cluster."""

    namespace: str
    name: str
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def user(self) -> str:
        """Its name among all users."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


class KubeApi:
    """Start it as a context manager; ``address`` is what goes into ``kubernetes_host``.

    ``reviewer`` is the account whose tokens may ask, as Vault's does. ``broken`` is a
    status that it answers to everything from now on; 0 for none.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._server = FakeServer(self._respond, tls=tls)
        self._issuer = Issuer(AUDIENCE)
        self._tokens: dict[str, tuple[Account, str, float]] = {}
        self.reviewer = Account("vault", "reviewer")
        self.broken = 0
        self.reviewed: list[Heard] = []

    @property
    def address(self) -> str:
        """What goes into ``kubernetes_host``."""
        return self._server.address

    def token(self, account: Account, audience: str = AUDIENCE, *, lives: float = 600.0) -> str:
        """A token of the account, as the kubelet puts it into its pods."""
        claim = {
            "namespace": account.namespace,
            "serviceaccount": {"name": account.name, "uid": account.uid},
        }
        more = {"kubernetes.io": claim, "jti": str(uuid.uuid4())}
        token = self._issuer.token(account.user, audience, lives=lives, **more)
        self._tokens[token] = (account, audience, time.time() + lives)
        return token

    def delete(self, account: Account) -> None:
        """Delete the account: its tokens are good no more."""
        gone = [token for token, (owner, _, _) in self._tokens.items() if owner == account]
        for token in gone:
            del self._tokens[token]

    def start(self) -> None:
        """Listen; the second time at the same address."""
        self._server.start()

    def stop(self) -> None:
        """Go away; connecting is refused from now on."""
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _respond(self, heard: Heard, wire: Wire) -> None:
        wire.send(b"".join(self._answer(heard).encoded()))

    def _answer(self, heard: Heard) -> Reply:
        if self.broken:
            return _refusal(self.broken, "InternalError", "an error on the server")
        if (heard.method, heard.path) != ("POST", TOKEN_REVIEWS):
            return _refusal(404, "NotFound", "the server could not find the requested resource")
        asker = self._tokens.get(heard.headers.get("authorization", "").removeprefix("Bearer "))
        if asker is None or asker[2] < time.time():
            return _refusal(401, "Unauthorized", "Unauthorized")
        if asker[0] != self.reviewer:
            reason = f'tokenreviews.authentication.k8s.io is forbidden: User "{asker[0].user}"'
            return _refusal(403, "Forbidden", f"{reason} cannot create resource")
        self.reviewed.append(heard)
        spec = heard.body["spec"]
        status = self._review(spec["token"], spec.get("audiences") or [AUDIENCE])
        frame = {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1"}
        return Reply(201, {**frame, "metadata": {}, "spec": spec, "status": status})

    def _review(self, token: str, audiences: list[str]) -> dict[str, Any]:
        known = self._tokens.get(token)
        if known is None or known[2] < time.time():
            return _unknown("invalid bearer token")
        account, audience, _ = known
        if audience not in audiences:
            wanted = f"is invalid for the target audiences {audiences}"
            return _unknown(f"token audiences [{audience!r}] {wanted}")
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account.namespace}"]
        user = {"username": account.user, "uid": account.uid}
        return {
            "authenticated": True,
            "user": {**user, "groups": [*groups, "system:authenticated"]},
            "audiences": [audience],
        }


def _unknown(why: str) -> dict[str, Any]:
    return {"user": {}, "error": f"[invalid bearer token, {why}]"}


def _refusal(code: int, reason: str, message: str) -> Reply:
    frame = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return Reply(code, {**frame, "message": message, "reason": reason, "code": code})
