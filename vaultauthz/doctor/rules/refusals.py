"""What a refused login means, method by method, and where to look.

Where Vault says which setting it is about, ``vaultauthz.doctor.words`` has it; else it says
little on purpose, and what is told here are the causes that are left. Sources: Vault's
documentation of each auth method, and what OpenBao 2.7 answered in our tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vaultauthz.config.methods import AppRole, TokenFile
from vaultauthz.core.grant import Verdict
from vaultauthz.doctor.facts import Stage, Trouble
from vaultauthz.doctor.methods import Method, method
from vaultauthz.doctor.words import said

_LOCKING: Final = ("approle", "userpass", "ldap")
_NO_ROUTE: Final = ("no handler", "unsupported path", "unsupported operation")
_COMPARE_CIDRS: Final = (
    "compare token_bound_cidrs with the address that Vault sees us come from, which may be a "
    "proxy's or a gateway's (NAT)"
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """``commands`` are verbs of Vault's command line, each with what it is about."""

    means: str
    mend: str
    commands: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The login that did not work."""

    stage: Stage
    trouble: Trouble
    how: Method


def meaning(stage: Stage, trouble: Trouble) -> Meaning:
    """What to tell the user about it."""
    refusal = Refusal(stage, trouble, method(stage.auth))
    return next(found for rule in _IN_TURN if (found := rule(refusal)) is not None)


def _away(refusal: Refusal) -> Meaning | None:
    if not refusal.trouble.away:
        return None
    return Meaning("Vault stopped answering", "try again when it is well", (("status", ""),))


def _dead_token(refusal: Refusal) -> Meaning | None:
    if not isinstance(refusal.stage.auth, TokenFile):
        return None
    if refusal.trouble.status == 403:
        means = (
            "the token in the file has expired or was revoked, or its policies lack "
            "auth/token/lookup-self"
        )
    elif "never expires" in refusal.trouble.reason:
        means = "whoever reads the file has this token, perhaps the root token, for good"
    else:
        means = "the token in the file cannot be used"
    mend = "have whatever writes the file log in again (of Vault Agent: look at its log)"
    return Meaning(means, mend, ())


def _not_tried(refusal: Refusal) -> Meaning | None:
    if refusal.trouble.status or refusal.trouble.verdict is not Verdict.LOCKED:
        return None
    return Meaning(
        "this name has had wrong or unanswered logins lately, from here or from a vaultauthz that "
        "runs on this machine; five in a row lock it for 15 minutes, so no more is risked now",
        "mend what they were refused for, and try again in 17 minutes at the latest",
        (),
    )


def _not_sent(refusal: Refusal) -> Meaning | None:
    if refusal.trouble.status:
        return None
    return Meaning("it did not get as far as Vault", "mend what is named there", ())


def _said(refusal: Refusal) -> Meaning | None:
    """What Vault's own words name."""
    row = said(refusal.how.name, refusal.trouble.says)
    if row is None:
        return None
    how = refusal.how
    paths = {"role": how.role, "roles": how.roles, "config": how.config}
    commands = tuple((verb, rest.format(**paths)) for verb, rest in row.commands)
    return Meaning(row.means, row.mend, commands)


def _over_quota(refusal: Refusal) -> Meaning | None:
    if refusal.trouble.status != 429:
        return None
    return Meaning(
        "a quota of Vault's own lets no more logins in for the moment",
        "wait, or raise the quota that holds for this mount",
        (("list", "sys/quotas/rate-limit"),),
    )


def _bound(refusal: Refusal) -> Meaning | None:
    """A denial of a method that is there, before it has looked at what it was given."""
    if refusal.trouble.status != 403 or not refusal.stage.mounted:
        return None
    if refusal.how.name in (*_LOCKING, "kubernetes"):
        return None
    return Meaning(
        f"the method at auth/{refusal.how.mount} is there and lets no login in from this address: "
        "token_bound_cidrs of the role (or of the whole method) name others",
        _COMPARE_CIDRS,
        (("read", refusal.how.role),),
    )


def _not_mounted(refusal: Refusal) -> Meaning | None:
    trouble, how, mounted = refusal.trouble, refusal.how, refusal.stage.mounted
    may_be = mounted is False or how.name not in (*_LOCKING, "kubernetes")
    denied = trouble.status == 403 and may_be
    if not (denied or trouble.status == 404 or any(t in trouble.detail for t in _NO_ROUTE)):
        return None
    return Meaning(
        f"no auth method answers at auth/{how.mount}",
        "enable it, or correct mount (and namespace)",
        (("auth list", ""), ("auth enable", f"-path={how.mount} {how.name}")),
    )


def _locked(refusal: Refusal) -> Meaning | None:
    if refusal.trouble.status != 403 or refusal.how.name not in _LOCKING:
        return None
    causes = ["Vault has locked this login, as five wrong tries do for 15 minutes"]
    if (
        refusal.how.name != "approle" or not refusal.stage.mounted
    ):  # whose token it is that is bound
        causes.append(
            "token_bound_cidrs (of a user, a role or the method) name other addresses than ours"
        )
    if not refusal.stage.mounted:
        causes.append("no auth method is mounted there")
    means = f"either {', or '.join(causes)}" if len(causes) > 1 else causes[0]
    return Meaning(
        means,
        "see which it is; ACCESSOR and ALIAS are in what the second command prints",
        (
            ("auth list", ""),
            ("read", "sys/locked-users"),
            ("write", "-f sys/locked-users/ACCESSOR/unlock/ALIAS"),
        ),
    )


def _by_method(refusal: Refusal) -> Meaning | None:
    return _OF_METHOD[refusal.how.name](refusal)


_IN_TURN: Final = (
    _over_quota,  # which is an answer, though no node would serve us now
    _away,
    _dead_token,
    _not_tried,
    _not_sent,
    _said,
    _bound,
    _not_mounted,
    _locked,
    _by_method,
)


def _approle(refusal: Refusal) -> Meaning:
    auth, role = refusal.stage.auth, refusal.how.role
    assert isinstance(auth, AppRole)
    return Meaning(
        "role_id is unknown, or secret_id is wrong, expired, used up, or bound to other "
        "addresses (CIDR)",
        f"put a new secret_id into {auth.secret_id_file or 'the configuration'}, and compare "
        "role_id (ROLE: the role's name)",
        (("write", f"-f {role}/secret-id"), ("read", f"{role}/role-id")),
    )


def _kubernetes(refusal: Refusal) -> Meaning:
    if refusal.trouble.status >= 500:
        return Meaning(
            "Vault could not ask Kubernetes about the service account",
            "look at kubernetes_host, the CA and token_reviewer_jwt in Vault",
            (("read", refusal.how.config),),
        )
    # Vault says no more than that, whatever came of its TokenReview.
    left = "" if refusal.stage.mounted else ", or the method is not mounted there"
    return Meaning(
        "the account's name, namespace and audience are not what Vault complains of, so its "
        "TokenReview failed: its reviewer may not create one or its token (token_reviewer_jwt) has "
        "ended, the API server is not at kubernetes_host or not of its CA, the token is another "
        f"cluster's, deleted or for an audience that the API server denies; or token_bound_cidrs of "
        f"the role name other addresses{left}",
        "give Vault's reviewer the cluster role system:auth-delegator (kubectl auth can-i create "
        "tokenreviews.authentication.k8s.io --as=system:serviceaccount:NAMESPACE:REVIEWER) and a "
        "token that lives; Vault's own log says which it is (log_level=debug, `login unauthorized`)",
        (("read", refusal.how.config), ("auth list", "")),
    )


def _jwt(refusal: Refusal) -> Meaning:
    return Meaning(
        "the role's bound audience, subject or claims are not the token's",
        "compare bound_audiences, bound_subject and bound_claims of the role with the token's "
        f"claims, and its issuer and keys with {refusal.how.config}",
        (("read", refusal.how.role),),
    )


def _cert(refusal: Refusal) -> Meaning:
    return Meaning(
        "no role trusts this client certificate, its names are not among the allowed, or "
        "something on the way ends TLS",
        "compare certificate and allowed_* of the role with what we present",
        (("list", refusal.how.roles), ("read", refusal.how.role)),
    )


def _password(refusal: Refusal) -> Meaning:
    where = "Vault" if refusal.how.name == "userpass" else "the directory"
    return Meaning(
        f"user name or password is not as {where} has it",
        "put the right password into password_file; some more wrong tries lock the user",
        (("read", refusal.how.role),),
    )


def _cloud(refusal: Refusal) -> Meaning:
    return Meaning(
        "the role does not name this identity, there is no such role, or Vault cannot check it "
        "with the cloud (a wrong clock counts as well)",
        f"compare what the role is bound to with this machine's identity, and {refusal.how.config}",
        (("read", refusal.how.role),),
    )


_OF_METHOD: Final[dict[str, Callable[[Refusal], Meaning]]] = {
    "approle": _approle,
    "kubernetes": _kubernetes,
    "jwt": _jwt,
    "cert": _cert,
    "userpass": _password,
    "ldap": _password,
    "aws": _cloud,
    "gcp": _cloud,
    "azure": _cloud,
}
