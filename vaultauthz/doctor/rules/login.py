"""Logging in: what a refused login means, and what Vault's audit log shows of one.

Where Vault says which setting it is about, the auth method has it (``vaultauthz.config.auth``);
else it says little on purpose, and what is told here are the causes that are left. Sources:
Vault's documentation of each auth method, and what OpenBao 2.7 answered in our tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Final

from vaultauthz.config.auth import READ_ROLE, AuthMethod, Refusal, RefusedLogin
from vaultauthz.core.grant import Verdict
from vaultauthz.doctor.evidence import ExaminedStage, Trouble
from vaultauthz.doctor.finding import Finding, error, warning

_NOTHING = "nothing of this stage is fetched; its requests are answered 503"
_NO_ROUTE: Final = ("no handler", "unsupported path", "unsupported operation")
_HEADER: Final = "sys/config/auditing/request-headers/X-Correlation-Id"


def crashed(stage: ExaminedStage) -> Iterator[Finding]:
    """Not the user's fault, and not to be taken for good health."""
    if stage.crash:
        yield error(
            f"doctor itself failed in this stage: {stage.crash.splitlines()[0]}",
            "what it would have found is not known",
            "report it, with these lines",
            *stage.crash.splitlines()[1:],
        )


def gone(stage: ExaminedStage) -> Iterator[Finding]:
    """It answered the login, and then no more."""
    if stage.gone:
        yield error(
            f"Vault went away in the middle: {stage.gone}",
            "the rest of this stage is not known",
            "ask again when it is well",
            stage.command("status", ""),
        )


def refused(stage: ExaminedStage) -> Iterator[Finding]:
    """The login did not work."""
    if stage.login is None or stage.wrapped or any(file.mode is None for file in stage.files):
        return
    if stage.same_as:
        yield error(
            f"the login is the one that failed in {stage.same_as}, and was not tried again",
            "some wrong tries lock the role or the user for everyone who uses it",
            f"mend it for {stage.same_as} first",
        )
        return
    how = stage.auth
    where = f" at {how.at}" if how.mount else ""
    found = _meaning(_FailedLogin(how, stage.login, stage.mounted))
    yield error(
        f"the login by {how.name}{where} failed: {stage.login}",
        f"{found.means}; {_NOTHING}",
        found.mend,
        *(stage.command(verb, rest) for verb, rest in _commands(how, found)),
    )


def wrapping(stage: ExaminedStage) -> Iterator[Finding]:
    """A wrapping token that is used: by us at a start, or by somebody on the way."""
    if stage.wrapped and stage.login and not any(file.mode is None for file in stage.files):
        role = stage.auth.role_path()
        yield error(
            f"the wrapping token of the secret_id cannot be used: {stage.login}",
            "it has expired, or it was unwrapped already: by a vaultauthz that runs, or by "
            "somebody who took the secret_id on its way; the next start has no login",
            "look in Vault's audit log for sys/wrapping/unwrap; if it was not ours, revoke that "
            "secret_id. Then deliver a new one (ROLE is the role's name)",
            stage.command("write", f"-wrap-ttl=10m -f {quote(role)}/secret-id"),
        )


def audit_header(stage: ExaminedStage) -> Iterator[Finding]:
    """Vault's audit log does not show which call of ours an entry is of."""
    if stage.audit_header in ("absent", "hashed"):
        state = "does not show" if stage.audit_header == "absent" else "hides (hmac)"
        yield warning(
            f"Vault's audit log {state} X-Correlation-Id",
            "where Vault gives no request_id (errors, renewals), `vaultauthz audit join` cannot "
            "put its entries beside ours",
            "have it written in clear",
            stage.command("write", f"{_HEADER} hmac=false"),
        )


# --- what a refusal means: the first of these that says something ---


@dataclass(frozen=True, slots=True)
class _FailedLogin:
    how: AuthMethod
    trouble: Trouble
    mounted: bool | None  # whether the method is there

    def unexplained(self) -> Refusal:
        return self.how.unexplained(
            RefusedLogin(self.trouble.status, self.trouble.reason, self.mounted)
        )


def _meaning(login: _FailedLogin) -> Refusal:
    """What to tell the user about it."""
    found = (rule(login) for rule in _IN_TURN)
    return next((refusal for refusal in found if refusal is not None), login.unexplained())


def _commands(how: AuthMethod, refusal: Refusal) -> Iterator[tuple[str, str]]:
    paths = {"role": how.role_path(), "roles": how.roles_path, "config": how.config_path}
    return ((verb, rest.format(**paths)) for verb, rest in refusal.commands)


def _over_quota(login: _FailedLogin) -> Refusal | None:
    if login.trouble.status != 429:
        return None
    return Refusal(
        (),
        "a quota of Vault's own lets no more logins in for the moment",
        "wait, or raise the quota that holds for this mount",
        (("list", "sys/quotas/rate-limit"),),
    )


def _away(login: _FailedLogin) -> Refusal | None:
    if not login.trouble.away:
        return None
    return Refusal((), "Vault stopped answering", "try again when it is well", (("status", ""),))


def _another_programs(login: _FailedLogin) -> Refusal | None:
    """A login that is none: whatever is wrong is the token's."""
    if login.how.owns_token:
        return None
    return login.unexplained()


def _not_tried(login: _FailedLogin) -> Refusal | None:
    if login.trouble.status or login.trouble.verdict is not Verdict.LOCKED:
        return None
    return Refusal(
        (),
        "this name has had wrong or unanswered logins lately, from here or from a vaultauthz that "
        "runs on this machine; five in a row lock it for 15 minutes, so no more is risked now",
        "mend what they were refused for, and try again in 17 minutes at the latest",
        (),
    )


def _not_sent(login: _FailedLogin) -> Refusal | None:
    if login.trouble.status:
        return None
    return Refusal((), "it did not get as far as Vault", "mend what is named there", ())


def _in_vaults_words(login: _FailedLogin) -> Refusal | None:
    rows = login.how.refusals
    return next(
        (row for row in rows if any(text in login.trouble.says for text in row.texts)), None
    )


def _says_nothing_else_by_403(how: AuthMethod) -> bool:
    """Whether a 403 is only the mount's, or that of the addresses a token is bound to."""
    return how.locked_name is None and not how.denies


def _bound(login: _FailedLogin) -> Refusal | None:
    """A denial of a method that is there, before it has looked at what it was given."""
    if login.trouble.status != 403 or not login.mounted or not _says_nothing_else_by_403(login.how):
        return None
    return Refusal(
        (),
        f"the method at {login.how.at} is there and lets no login in from this address: "
        "token_bound_cidrs of the role (or of the whole method) name others",
        "compare token_bound_cidrs with the address that Vault sees us come from, which may be a "
        "proxy's or a gateway's (NAT)",
        READ_ROLE,
    )


def _not_mounted(login: _FailedLogin) -> Refusal | None:
    how = login.how
    may_be = login.mounted is False or _says_nothing_else_by_403(how)
    denied = login.trouble.status == 403 and may_be
    if not (
        denied or login.trouble.status == 404 or any(t in login.trouble.detail for t in _NO_ROUTE)
    ):
        return None
    return Refusal(
        (),
        f"no auth method answers at {how.at}",
        "enable it, or correct mount (and namespace)",
        (("auth list", ""), ("auth enable", f"-path={how.mount} {how.name}")),
    )


def _locked(login: _FailedLogin) -> Refusal | None:
    if login.trouble.status != 403 or login.how.locked_name is None:
        return None
    causes = ["Vault has locked this login, as five wrong tries do for 15 minutes"]
    if login.how.bound_at_login or not login.mounted:  # whose token it is that is bound
        causes.append(
            "token_bound_cidrs (of a user, a role or the method) name other addresses than ours"
        )
    if not login.mounted:
        causes.append("no auth method is mounted there")
    means = f"either {', or '.join(causes)}" if len(causes) > 1 else causes[0]
    return Refusal(
        (),
        means,
        "see which it is; ACCESSOR and ALIAS are in what the second command prints",
        (
            ("auth list", ""),
            ("read", "sys/locked-users"),
            ("write", "-f sys/locked-users/ACCESSOR/unlock/ALIAS"),
        ),
    )


_IN_TURN: Final = (
    _over_quota,  # which is an answer, though no node would serve us now
    _away,
    _another_programs,
    _not_tried,
    _not_sent,
    _in_vaults_words,
    _bound,
    _not_mounted,
    _locked,
)
