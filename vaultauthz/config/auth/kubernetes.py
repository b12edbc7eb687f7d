"""Kubernetes: the pod's service account token, which Vault has the cluster review.

Sources: ``path_login.go`` of vault-plugin-auth-kubernetes 0.23, which tells nothing of what a
TokenReview came to, hashicorp/cap's ``jwt.go``, and OpenBao 2.7's answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, cast

from vaultauthz.config import files
from vaultauthz.config.auth import (
    LIST_ROLES,
    READ_BOTH,
    READ_CONFIG,
    ROLE,
    LoginFile,
    LoginRequest,
    Refusal,
    RefusedLogin,
    RoleMethod,
    Surroundings,
    VaultAsConfigured,
    keys_of,
)
from vaultauthz.config.auth.jwt import EARLY, EXPIRED
from vaultauthz.config.keys import Key
from vaultauthz.config.kinds import TEXT
from vaultauthz.config.reader import Table
from vaultauthz.core.grant import Failure, Verdict


@dataclass(frozen=True, slots=True)
class Kubernetes(RoleMethod):
    """The pod's service account token."""

    name: ClassVar[str] = "kubernetes"
    first: ClassVar[str] = "role: gateway"
    denies: ClassVar[bool] = True

    role: str
    token_file: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: str = "kubernetes"

    @classmethod
    def read(cls, table: Table, vault: VaultAsConfigured) -> Self:
        table.supply("token_file", cls.keys.keys["token_file"].written, "by default")
        return cast(Self, cls.keys.build(table))

    def login(self, here: Surroundings) -> LoginRequest:
        """With the token of now."""
        jwt = here.text(self.token_file, "service account token")
        return LoginRequest(f"{self.at}/login", {"role": self.role, "jwt": jwt})

    def denial(self, *, by_policy: bool) -> Failure | None:
        # It may pass, as the API server can lag behind a new pod.
        return Failure(Verdict.RETRY, "Vault refused the service account")

    @property
    def files(self) -> tuple[LoginFile, ...]:
        # Not private: Kubernetes mounts it for everybody in the container.
        return (LoginFile("token_file", self.token_file),)

    refusals: ClassVar = (
        Refusal(
            ("invalid role name", "missing role"),
            "there is no such role",
            "correct role, or write it in Vault",
            LIST_ROLES,
        ),
        Refusal(
            ("service account name not authorized",),
            "bound_service_account_names of the role does not have this pod's service account",
            "add it, or correct serviceAccountName of the pod",
        ),
        Refusal(
            ("namespace not authorized … err=",),
            "Vault could not read the labels of the pod's namespace, which the role selects by",
            "let Vault's reviewer get namespaces (a cluster role), or bind by "
            "bound_service_account_namespaces",
        ),
        Refusal(
            ("namespace not authorized",),
            "bound_service_account_namespaces of the role does not have this pod's namespace",
            "add it, or correct the pod's namespace",
        ),
        Refusal(
            ("audience (aud)",),
            "the role's audience is not among the token's",
            "have the token projected for that audience (serviceAccountToken.audience of the pod), "
            "and name it in token_file; or correct audience of the role",
        ),
        Refusal(
            ("issuer (iss)",),
            "the token's issuer (iss) is not the method's issuer",
            "set disable_iss_validation=true, as a new mount has it, or correct issuer",
            READ_CONFIG,
        ),
        Refusal(
            EXPIRED,
            "the token has expired, or Vault's clock is ahead",
            "look whether token_file is the one that the kubelet renews, and set the clocks (NTP)",
            (),
        ),
        Refusal(EARLY, "the cluster's clock is ahead of Vault's", "set the clocks (NTP)", ()),
        Refusal(
            ("could not load backend configuration",),
            "the method is not configured",
            "write kubernetes_host, kubernetes_ca_cert and token_reviewer_jwt",
            (("write", "{config} kubernetes_host=…"),),
        ),
        Refusal(
            ("parse uid from claims",),
            "the token is no service account's",
            "use the token that Kubernetes mounts or projects into the pod",
            READ_BOTH,
        ),
    )

    def unexplained(self, refused: RefusedLogin) -> Refusal:
        if refused.status >= 500:
            return Refusal(
                (),
                "Vault could not ask Kubernetes about the service account",
                "look at kubernetes_host, the CA and token_reviewer_jwt in Vault",
                READ_CONFIG,
            )
        # Vault says no more than that, whatever came of its TokenReview.
        left = "" if refused.mounted else ", or the method is not mounted there"
        return Refusal(
            (),
            "the account's name, namespace and audience are not what Vault complains of, so its "
            "TokenReview failed: its reviewer may not create one or its token (token_reviewer_jwt) "
            "has ended, the API server is not at kubernetes_host or not of its CA, the token is "
            "another cluster's, deleted or for an audience that the API server denies; or "
            f"token_bound_cidrs of the role name other addresses{left}",
            "give Vault's reviewer the cluster role system:auth-delegator (kubectl auth can-i create "
            "tokenreviews.authentication.k8s.io --as=system:serviceaccount:NAMESPACE:REVIEWER) and "
            "a token that lives; Vault's own log says which it is (log_level=debug, `login "
            "unauthorized`)",
            (*READ_CONFIG, ("auth list", "")),
        )


Kubernetes.keys = keys_of(
    Kubernetes,
    ROLE,
    Key("token_file", TEXT.by(files.awaited), "The service account's token.", "It may come later."),
)
