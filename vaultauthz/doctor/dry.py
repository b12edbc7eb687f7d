"""Fetching each secret once, to see that it is given, and giving it back."""

from __future__ import annotations

from dataclasses import replace

from vaultauthz.config.values import Config, Upstream
from vaultauthz.core.grant import Grant
from vaultauthz.core.injection import field_names, render, used_fields
from vaultauthz.core.secret import shown_names
from vaultauthz.core.template import InjectionError, MissingFieldError
from vaultauthz.doctor.evidence import Fetched, Trouble
from vaultauthz.doctor.limits import Turns
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.session import Session


class DryFetches:
    """The fetches of one stage, and the leases that they made.

    A lease is given back at once, so that a thousand upstreams are not a thousand
    database users; where the policy does not allow that, at the end.
    """

    def __init__(self, session: Session, login: Grant, turns: Turns) -> None:
        self._session = session
        self._login = login
        self._turns = turns
        self._denied: Trouble | None = None  # why no lease can be revoked by itself
        self.fetched: list[Fetched] = []

    def run(self, config: Config, stage: str) -> None:
        """Fetch the secret of every upstream of ``stage``.

        Raises:
            StoppedError: the user does not want to wait for the rest.
        """
        for upstream in config.upstreams.values():
            if stage not in upstream.secrets:
                continue
            self._turns.take()
            found = self._fetch(upstream, stage)
            self.fetched.append(found)
            if found.lease_id:
                self._revoke(len(self.fetched) - 1)
            if found.trouble and found.trouble.away:
                return  # the others would fare no better

    def revoke_rest(self) -> None:
        """Give back what is still there, as the token stays: each is tried once more."""
        self._denied = None
        for place, fetch in enumerate(self.fetched):
            if fetch.left:
                self._revoke(place, last=True)

    def rest_is_gone(self) -> None:
        """The token was revoked, and Vault ends its leases with it."""
        self.fetched = [replace(fetch, left=None) for fetch in self.fetched]

    def _fetch(self, upstream: Upstream, stage: str) -> Fetched:
        wanted = field_names(upstream.inject)
        source = upstream.secrets[stage]
        try:
            grant = self._session.fetch(self._login.payload, self._login.login, source)
        except VaultError as exc:
            return Fetched(upstream.name, wanted, trouble=Trouble.of(exc))
        unfit, mend = _unfit(upstream, grant)
        used = grant.using(used_fields(upstream.inject))
        return Fetched(
            upstream.name,
            wanted,
            shown_names(grant.payload),
            unfit=unfit,
            unfit_mend=mend,
            ttl=grant.ttl,
            ends_in=used.life if used.enforced else None,
            lease_id=grant.lease_id,
            renewable=grant.renewable,
        )

    def _revoke(self, place: int, *, last: bool = False) -> None:
        fetch, left = self.fetched[place], self._denied
        if left is None:
            try:
                self._session.revoke(self._login.payload, fetch.lease_id)
            except VaultError as exc:
                left = Trouble.of(exc)
                # A policy may allow some leases and not others: in the end each is tried.
                if left.away or (exc.status == 403 and not last):
                    self._denied = left
        self.fetched[place] = replace(fetch, left=left)


def _unfit(upstream: Upstream, grant: Grant) -> tuple[str, str]:
    """Why a value cannot go on a request, and the way out: place and kind, no value."""
    try:
        grant.fitting(used_fields(upstream.inject))
        render(upstream.inject, grant.payload, upstream.strip)
    except InjectionError as exc:
        return str(exc), exc.mend
    except MissingFieldError:
        pass  # told field by field
    return "", ""
