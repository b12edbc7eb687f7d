"""The configuration file as a JSON Schema, for editors and for checks before a deployment.

Its keys and words come from the tables that the readers use, and ``forms.closed``
refuses a description that does not fit them: the two cannot drift apart. It says less
than the readers do: bounds of durations, files and what one key means for another
far away are known to `vaultauthz config check` alone.
"""

from __future__ import annotations

from vaultauthz.config.load import KEYS, UNMATCHED
from vaultauthz.config.schema import doors, logins, services
from vaultauthz.config.schema.forms import Schema, choice, closed
from vaultauthz.config.vault import VAULT


def schema() -> Schema:
    """The whole file, in draft 2020-12."""
    whole = closed(
        KEYS,
        {
            "vault": VAULT.schema(),
            "stages": logins.stages(),
            "upstreams": services.upstreams(),
            "routes": doors.routes(),
            "listen": doors.listen(),
            "audit": doors.audit(),
            "unmatched": choice(
                UNMATCHED, "What a request gets that no upstream claims.", usual="deny"
            ),
        },
        "Short-lived upstream credentials from Vault or OpenBao, put on the request.",
        required=("stages", "upstreams"),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vaultauthz configuration",
        **whole,
    }
