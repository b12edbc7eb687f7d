"""Logging in, and what Vault's audit log shows of it."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from vaultauthz.doctor.facts import Stage
from vaultauthz.doctor.finding import Finding, error, warning
from vaultauthz.doctor.methods import method
from vaultauthz.doctor.rules.refusals import meaning

_NOTHING = "nothing of this stage is fetched; its requests are answered 503"
_HEADER: Final = "sys/config/auditing/request-headers/X-Correlation-Id"


def crashed(stage: Stage) -> Iterator[Finding]:
    """Not the user's fault, and not to be taken for good health."""
    if stage.crash:
        yield error(
            f"doctor itself failed in this stage: {stage.crash.splitlines()[0]}",
            "what it would have found is not known",
            "report it, with these lines",
            *stage.crash.splitlines()[1:],
        )


def gone(stage: Stage) -> Iterator[Finding]:
    """It answered the login, and then no more."""
    if stage.gone:
        yield error(
            f"Vault went away in the middle: {stage.gone}",
            "the rest of this stage is not known",
            "ask again when it is well",
            stage.command("status", ""),
        )


def refused(stage: Stage) -> Iterator[Finding]:
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
    how = method(stage.auth)
    where = f" at auth/{how.mount}" if how.mount else ""
    found = meaning(stage, stage.login)
    yield error(
        f"the login by {how.name}{where} failed: {stage.login}",
        f"{found.means}; {_NOTHING}",
        found.mend,
        *(stage.command(verb, rest) for verb, rest in found.commands),
    )


def wrapping(stage: Stage) -> Iterator[Finding]:
    """A wrapping token that is used: by us at a start, or by somebody on the way."""
    if stage.wrapped and stage.login and not any(file.mode is None for file in stage.files):
        how = method(stage.auth)
        yield error(
            f"the wrapping token of the secret_id cannot be used: {stage.login}",
            "it has expired, or it was unwrapped already: by a vaultauthz that runs, or by "
            "somebody who took the secret_id on its way; the next start has no login",
            "look in Vault's audit log for sys/wrapping/unwrap; if it was not ours, revoke that "
            "secret_id. Then deliver a new one (ROLE is the role's name)",
            stage.command("write", f"-wrap-ttl=10m -f {quote(how.role)}/secret-id"),
        )


def audit_header(stage: Stage) -> Iterator[Finding]:
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
