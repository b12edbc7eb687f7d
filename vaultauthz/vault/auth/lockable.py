"""A login that Vault locks after some wrong ones, tried with care; see tries.py."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final

from vaultauthz.config.auth import Lockout
from vaultauthz.core.events import Operation
from vaultauthz.core.grant import Failure, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault.auth.tries import SHARED, Tries, Turn
from vaultauthz.vault.calls import check_answers
from vaultauthz.vault.errors import Call, VaultError
from vaultauthz.vault.transport import Transport
from vaultauthz.watching import Stamp, stamp_if_any

_NOT_YET: Final = "the login is not tried yet, as wrong tries in a row lock it in Vault"
_ANOTHER: Final = "another login with the same name is under way"
_WORKED: Final = "Vault refused a login that worked before; it is tried again, some minutes apart"
_KEY: Final = os.urandom(32)  # of this process: what is marked with it tells nobody anything
_MOST_MARKS: Final = 100


@dataclass(slots=True)
class Lockable:
    """What is shared by the logins of one stage. ``place``: the Vault, and the namespace."""

    place: str
    tries: Tries = SHARED
    _marks: dict[str, str] = field(default_factory=dict)  # by a digest of what was tried

    @contextlib.contextmanager
    def trying(
        self,
        transport: Transport,
        mount: str,
        lockout: Lockout,
    ) -> Iterator[None]:
        """Around the call that logs in.

        Raises:
            VaultError: LOCKED, with the time after which it may be tried, or without.
        """
        name = f"{self.place}\n{mount}\n{lockout.name}"
        mark = self._mark(lockout.secret, lockout.files)
        with self.tries.alone(name) as mine:
            if not mine:
                raise VaultError(Failure(Verdict.LOCKED, _ANOTHER, again_in=self.tries.bounds.soon))
            if self.tries.silent(name):
                # Vault may be away altogether, and a try for each look would be one too many.
                check_answers(transport)
            turn = self.tries.begin(name, mark)
            if turn.wait > 0:
                raise VaultError(Failure(Verdict.LOCKED, _NOT_YET, again_in=turn.wait))
            transport.call, transport.credential = Call.LOGIN_LOCKABLE, None
            transport.operation = Operation.LOGIN
            try:
                yield
            except VaultError as exc:
                self._failed(turn, exc, lockout)
                raise
            self.tries.worked(turn)

    def _failed(self, turn: Turn, exc: VaultError, lockout: Lockout) -> None:
        """Keep what came of it; raises another error where it may be tried again."""
        if exc.failure.verdict is Verdict.LOCKED:
            wait = self.tries.refused(turn)
            if lockout.again and wait < inf:
                failure = Failure(Verdict.LOCKED, _WORKED, again_in=wait)
                raise exc.meaning(failure) from exc
        elif not (exc.unanswered and lockout.by_others):
            self.tries.spare(turn)
        else:
            self.tries.unanswered(turn)

    def _mark(self, secret: Secret | None, files: Iterable[Path]) -> str:
        """Which secret this is: by its file, for the next start; by itself, in this process."""
        text = secret.reveal() if secret else ""
        digest = hmac.new(_KEY, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        if digest not in self._marks:
            seen = [f"{path} {_shown_stamp(stamp_if_any(path))}" for path in files]
            mark = hashlib.sha256("\n".join(seen or [digest]).encode()).hexdigest()[:32]
            if len(self._marks) >= _MOST_MARKS:
                self._marks.clear()
            self._marks[digest] = mark
        return self._marks[digest]


def _shown_stamp(found: Stamp | None) -> str:
    # By when its content was written: to let somebody else read the file makes no other secret.
    return f"{found.modified} {found.inode} {found.size}" if found else ""
