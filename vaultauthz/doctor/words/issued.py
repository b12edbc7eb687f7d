"""Tokens that another system has signed: JWT and Kubernetes.

``path_login.go`` of vault-plugin-auth-jwt 0.25 (with ``claims.go``) and of
vault-plugin-auth-kubernetes 0.23, hashicorp/cap's ``jwt.go``, which checks for both, and
OpenBao 2.7's answers. Of what a TokenReview came to, Kubernetes' method tells nothing.
"""

from __future__ import annotations

from typing import Final

from vaultauthz.doctor.words.said import BOTH, CONFIG, ROLES, Said

_NO_ROLE: Final = "there is no such role"
_WRITE_ROLE: Final = "correct role, or write it in Vault"
_EXPIRED: Final = ("token is expired", "invalid expiration time")
_EARLY: Final = ("token not yet valid", "issued in the future")

JWT: Final = (
    Said(("role … could not be found", "missing role"), _NO_ROLE, _WRITE_ROLE, ROLES),
    Said(
        ("oidc role_type",),
        "the role is one of OIDC, for people with a browser, which is what role_type is without a word",
        "write the role with role_type=jwt",
    ),
    Said(
        ("no audiences bound",),
        "the token has an audience (aud), and the role has no bound_audiences",
        "write the token's audience into bound_audiences",
    ),
    Said(
        ("audience (aud)", "aud claim does not match"),
        "the token's audience (aud) is not among the role's bound_audiences",
        "add it to bound_audiences, or have the token issued for one of those",
    ),
    Said(
        ("subject (sub)", "sub claim does not match"),
        "the token's subject (sub) is not the role's bound_subject",
        "correct bound_subject, letter by letter",
    ),
    Said(
        ("issuer (iss)",),
        "the token's issuer (iss) is not the method's bound_issuer",
        "correct bound_issuer, letter by letter (also a slash at its end)",
        CONFIG,
    ),
    Said(
        ("claim … is missing", "associated bound claim", "claim is not a"),
        "a claim of the token is not as bound_claims of the role wants it",
        "compare bound_claims (and bound_claims_type) with the token's claims",
    ),
    Said(
        ("claim … not found in token", "could not be converted to string"),
        "the token has not the claim that the role's user_claim (or groups_claim) names",
        "write a claim that it has into user_claim, such as sub",
    ),
    Said(
        _EXPIRED,
        "the token has expired, or Vault's clock is ahead",
        "have whatever issues the token put a fresh one there, and set the clocks (NTP)",
        (),
    ),
    Said(
        _EARLY,
        "the token is not yet valid for Vault: the issuer's clock is ahead of Vault's",
        "set the clocks (NTP); clock_skew_leeway and not_before_leeway of the role allow for more "
        "than a minute",
    ),
    Said(
        ("no issued at (iat)",),
        "the token has neither iat, nbf nor exp",
        "have it issued with an end (exp)",
        (),
    ),
    Said(
        ("three parts", "compact jws", "token must be signed", "unexpected algorithm"),
        "what the file or the command gives is no JWT that is signed as Vault wants it",
        "look what is written there (one JWT and nothing else); jwt_supported_algs names the algorithms",
        CONFIG,
    ),
    Said(
        ("fetching keys", "get keys failed"),
        "Vault could not fetch the issuer's keys",
        "let Vault out to jwks_url or oidc_discovery_url, with jwks_ca_pem or oidc_discovery_ca_pem",
        CONFIG,
    ),
    Said(
        ("no known key", "verifying token signature"),
        "none of the method's keys signed the token: another issuer's, or keys that were changed",
        "compare jwks_url, oidc_discovery_url or jwt_validation_pubkeys with the issuer's keys",
        CONFIG,
    ),
    Said(
        ("could not load configuration", "configuring token validator", "keyset configuration"),
        "the method has no keys, or cannot fetch them from the issuer",
        "write oidc_discovery_url, jwks_url or jwt_validation_pubkeys; Vault has to reach the first two",
        CONFIG,
    ),
)

KUBERNETES: Final = (
    Said(("invalid role name", "missing role"), _NO_ROLE, _WRITE_ROLE, ROLES),
    Said(
        ("service account name not authorized",),
        "bound_service_account_names of the role does not have this pod's service account",
        "add it, or correct serviceAccountName of the pod",
    ),
    Said(
        ("namespace not authorized … err=",),
        "Vault could not read the labels of the pod's namespace, which the role selects by",
        "let Vault's reviewer get namespaces (a cluster role), or bind by "
        "bound_service_account_namespaces",
    ),
    Said(
        ("namespace not authorized",),
        "bound_service_account_namespaces of the role does not have this pod's namespace",
        "add it, or correct the pod's namespace",
    ),
    Said(
        ("audience (aud)",),
        "the role's audience is not among the token's",
        "have the token projected for that audience (serviceAccountToken.audience of the pod), and "
        "name it in token_file; or correct audience of the role",
    ),
    Said(
        ("issuer (iss)",),
        "the token's issuer (iss) is not the method's issuer",
        "set disable_iss_validation=true, as a new mount has it, or correct issuer",
        CONFIG,
    ),
    Said(
        _EXPIRED,
        "the token has expired, or Vault's clock is ahead",
        "look whether token_file is the one that the kubelet renews, and set the clocks (NTP)",
        (),
    ),
    Said(_EARLY, "the cluster's clock is ahead of Vault's", "set the clocks (NTP)", ()),
    Said(
        ("could not load backend configuration",),
        "the method is not configured",
        "write kubernetes_host, kubernetes_ca_cert and token_reviewer_jwt",
        (("write", "{config} kubernetes_host=…"),),
    ),
    Said(
        ("parse uid from claims",),
        "the token is no service account's",
        "use the token that Kubernetes mounts or projects into the pod",
        BOTH,
    ),
)
