"""A response-wrapped secret_id: looked at, and not unwrapped, as that can be done once."""

from __future__ import annotations

from vaultauthz.config.methods import AppRole
from vaultauthz.core.grant import Verdict
from vaultauthz.core.redaction import shown
from vaultauthz.core.secret import Secret
from vaultauthz.doctor.facts import Trouble
from vaultauthz.vault.auth.files import read_secret
from vaultauthz.vault.auth.wrapping import LOOKUP, origin
from vaultauthz.vault.errors import VaultError
from vaultauthz.vault.probe import Probe


def look_at_wrapping(probe: Probe, auth: AppRole) -> Trouble | None:
    """Why the wrapping token in the file is of no use; None when it waits to be used."""
    assert auth.secret_id_file
    try:
        token = read_secret(auth.secret_id_file, "secret_id")
        answer = probe.write(Secret(""), LOOKUP, {"token": token.reveal()})
        other = origin(answer, auth.mount)
    except VaultError as exc:
        return Trouble.of(exc)
    if other is None:
        return None
    reason = f"it was not made by auth/{auth.mount}/role/…/secret-id"
    return Trouble(reason, shown(other, [token.reveal()]), verdict=Verdict.LOCKED)
