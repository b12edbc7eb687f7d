"""Whether Vault answers at all: a question that needs no token and changes nothing."""

from __future__ import annotations

from typing import Final

from vaultauthz.vault.errors import Call, Node, VaultError
from vaultauthz.vault.transport import Transport

# Every state answers 200, so that the state can be read instead of guessed from a status.
PARAMS: Final = {
    **dict.fromkeys(("standbyok", "perfstandbyok"), "true"),
    **dict.fromkeys(("sealedcode", "uninitcode", "standbycode"), "200"),
    **dict.fromkeys(("performancestandbycode", "drsecondarycode", "haunhealthycode"), "200"),
}
PATH: Final = "/v1/sys/health"


def answers(transport: Transport) -> None:
    """Ask; whatever Vault says is good enough.

    Raises:
        VaultError: nothing did, or what stands before it has no answer of it.
    """
    transport.call, transport.credential = Call.OTHER, None
    try:
        transport.get(PATH, params=PARAMS)
    except VaultError as exc:
        if exc.status == 0 or exc.node is not Node.FINE:
            raise
