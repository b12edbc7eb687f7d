"""One stage against Vault: it logs in once, asks, fetches when told to, and gives all back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from vaultauthz.config.values import Config, KvSecret, Vault
from vaultauthz.core.grant import Grant, Verdict
from vaultauthz.core.redaction import shown, where
from vaultauthz.core.secret import Secret
from vaultauthz.doctor.dry import DryFetches
from vaultauthz.doctor.evidence import (
    ExaminedStage,
    PathRights,
    Place,
    SecretFile,
    Trouble,
    VaultNode,
)
from vaultauthz.doctor.limits import Locks, StoppedError, Turns
from vaultauthz.policy.needs import LOOKUP, kv_path, needs
from vaultauthz.vault.auth import wrapping
from vaultauthz.vault.auth.here import read_secret
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.mounts import Mount, Mounts
from vaultauthz.vault.probe import Probe
from vaultauthz.vault.session import Session

_HEADER = "X-Correlation-Id"


@dataclass(frozen=True, slots=True)
class Around:
    """What a stage's examination shares with the others', and what was asked for."""

    config: Config
    fetch: bool
    locks: Locks
    say: Callable[[str], None]  # what is being done, for a person who waits


def examine_stage(name: str, node: VaultNode | None, around: Around, turns: Turns) -> ExaminedStage:
    """All that can be found out about the stage at ``node``; never raises."""
    vault = around.config.vault_of(name)
    auth = around.config.stages[name].auth
    seen = ExaminedStage(name, auth, vault.namespace, files=tuple(map(SecretFile.now, auth.files)))
    if node is None or node.health is None:
        return seen
    seen = replace(seen, version=node.health.version)
    vault = replace(vault, address=node.address, fallbacks=())
    examination = _Examination(seen, vault, around, turns)
    try:
        examination.run()
    except StoppedError:
        pass
    except Exception as exc:  # noqa: BLE001  a bug in one stage must not hide the others' facts
        examination.seen = replace(examination.seen, crash=where(exc))
    return examination.seen


class _Examination:
    """``seen`` grows with each step, and holds what there is when a step fails."""

    def __init__(self, seen: ExaminedStage, vault: Vault, around: Around, turns: Turns) -> None:
        self.seen = seen
        self._around = around
        self._turns = turns
        self._session = Session(vault, seen.auth, time.monotonic)
        self._probe = Probe(vault, time.monotonic)
        self._mounts = Mounts()

    def run(self) -> None:
        wrapped_in = self.seen.auth.wrapped_in
        if wrapped_in is not None:
            self._turns.take()
            trouble = self._look_at_wrapping(wrapped_in)
            self.seen = replace(self.seen, tried=True, wrapped=True, login=trouble)
            return
        grant = self._login()
        if grant is None:
            return
        dry = DryFetches(self._session, grant, self._turns)
        try:
            self._ask(grant.payload)
            if self._around.fetch and not self.seen.shut_out:
                self._say("fetching the secrets")
                dry.run(self._around.config, self.seen.name)
        finally:
            self.seen = replace(self.seen, fetched=tuple(dry.fetched))
            self._give_back(grant.payload, dry)

    def _say(self, what: str) -> None:
        self._around.say(f"{self.seen.name}: {what}")

    # --- the login ---

    def _login(self) -> Grant | None:
        """The token; tried once, and not at all where another stage's try was refused."""
        auth = self.seen.auth
        key = auth.locked_name and (self.seen.namespace, auth.mount, auth.locked_name)
        locks = self._around.locks
        with ExitStack() as held:
            if key:
                held.enter_context(locks.of(key))
                before = locks.refused(key)
                if before:
                    self.seen = replace(self.seen, same_as=before[0], login=before[1])
                    return None
            self._turns.take()
            self._say("logging in")
            grant, trouble = self._try_login()
            mounted = self._is_mounted() if trouble and trouble.status == 403 else None
            self.seen = replace(self.seen, tried=True, login=trouble, mounted=mounted)
            if key and trouble and trouble.verdict is Verdict.LOCKED:
                locks.refuse(key, self.seen.name, trouble)
            return grant

    def _try_login(self) -> tuple[Grant | None, Trouble | None]:
        try:
            return self._session.login(), None
        except VaultError as exc:
            return None, Trouble.of(exc)

    def _is_mounted(self) -> bool | None:
        """Whether an auth method answers there, asked with a login that names nobody.

        Where none is mounted Vault says to anybody what it says to those whom
        `token_bound_cidrs` keeps out. None: it cannot be told.
        """
        if not self.seen.auth.mount:
            return None
        nobody = self.seen.auth.of_nobody()
        self._turns.take()
        try:
            if nobody.body is None:
                self._probe.read(Secret(""), nobody.path)
            else:
                self._probe.write(Secret(""), nobody.path, nobody.body)
        except VaultError as exc:
            return None if exc.failure.away else exc.status not in (403, 404)
        return True

    def _look_at_wrapping(self, file: Path) -> Trouble | None:
        """Why the wrapping token is of no use; None when it waits to be used.

        It is not unwrapped, as that can be done once.
        """
        try:
            token = read_secret(file, "secret_id")
            answer = self._probe.write(Secret(""), wrapping.LOOKUP, {"token": token})
            other = wrapping.origin(answer, self.seen.auth.mount)
        except VaultError as exc:
            return Trouble.of(exc)
        if other is None:
            return None
        reason = f"it was not made by {other.wanted}"
        return Trouble(reason, shown(other.path, [token.reveal()]), verdict=Verdict.LOCKED)

    # --- what the token is and may do ---

    def _ask(self, token: Secret) -> None:
        self._say("asking what the token may do")
        self._look_up(token)
        if self.seen.shut_out:
            return  # whatever is asked, the answer is the same
        self._find_places(token)
        self._find_accesses(token)
        self._find_audit_header(token)

    def _look_up(self, token: Secret) -> None:
        self._turns.take()
        try:
            facts = self._probe.token(token)
            self._turns.take()
            more = self._probe.read(token, LOOKUP).get("data")
        except VaultError as exc:
            self.seen = replace(self.seen, lookup=self._trouble(exc))
            return
        assert isinstance(more, dict)  # the probe has just read it
        uses, meta = more.get("num_uses"), more.get("meta")
        role = meta.get("role_name") if isinstance(meta, dict) else None
        self.seen = replace(
            self.seen,
            token=facts,
            uses=uses if isinstance(uses, int) else 0,
            role=role if isinstance(role, str) else "",
        )

    def _find_places(self, token: Secret) -> None:
        """Each upstream's engine: asked for once for each mount, or folder that fails."""
        troubles: dict[str, Trouble] = {}
        places = []
        for upstream in self._around.config.upstreams.values():
            source = upstream.secrets.get(self.seen.name)
            if source is None:
                continue
            folder = source.path.rpartition("/")[0]
            mount = self._mounts.of(source.path)
            if mount is None and folder not in troubles:
                found = self._mount(token, source.path)
                if isinstance(found, Mount):
                    mount = found
                    self._mounts.add(found)
                else:
                    troubles[folder] = found
            trouble = None if mount else troubles[folder]
            kv = isinstance(source, KvSecret)
            path = kv_path(source.path, self._mounts) if kv else source.path
            places.append(Place(upstream.name, source, path, mount, trouble))
        self.seen = replace(self.seen, places=tuple(places))

    def _mount(self, token: Secret, path: str) -> Mount | Trouble:
        self._turns.take()
        try:
            return self._probe.mount(token, path)
        except VaultError as exc:
            return self._trouble(exc)

    def _find_accesses(self, token: Secret) -> None:
        wanted = needs(self._around.config, self.seen.name, self._mounts)
        self._turns.take()
        try:
            found = self._probe.capabilities(token, [need.path for need in wanted])
        except VaultError as exc:
            self.seen = replace(self.seen, asked=self._trouble(exc))
            return
        accesses = tuple(PathRights(need, found[need.path]) for need in wanted)
        self.seen = replace(self.seen, accesses=accesses)

    def _find_audit_header(self, token: Secret) -> None:
        """Hardly any gateway may look at it; where it may, it is worth a word."""
        self._turns.take()
        try:
            answer = self._probe.read(token, f"sys/config/auditing/request-headers/{_HEADER}")
        except VaultError as exc:
            if self._trouble(exc).status == 400 and "Could not find" in exc.detail:
                self.seen = replace(self.seen, audit_header="absent")
            return
        data = answer.get("data")
        entry = data.get(_HEADER) if isinstance(data, dict) else None
        hashed = isinstance(entry, dict) and entry.get("hmac") is True
        self.seen = replace(self.seen, audit_header="hashed" if hashed else "clear")

    def _trouble(self, error: VaultError) -> Trouble:
        """What was answered in place of what was asked.

        Raises:
            StoppedError: nothing was, and to ask on would be to wait again and again.
        """
        trouble = Trouble.of(error)
        if trouble.away:
            self.seen = replace(self.seen, gone=trouble)
            raise StoppedError from error
        return trouble

    # --- giving back ---

    def _give_back(self, token: Secret, dry: DryFetches) -> None:
        """The token, and with it its leases; those of a token that stays, one by one."""
        self._say("revoking what was taken")
        left = None
        if self.seen.own_token:
            left = self._revoke_token(token)
        if left or not self.seen.own_token:
            dry.revoke_rest()
        else:
            dry.rest_is_gone()
        self.seen = replace(self.seen, left=left, fetched=tuple(dry.fetched))

    def _revoke_token(self, token: Secret) -> Trouble | None:
        try:
            self._session.revoke_token(token)
        except VaultError as exc:
            return Trouble.of(exc)
        return None
