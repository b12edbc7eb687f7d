"""Whether what Vault gave is good for an upstream: what of it is used, and how long that lives."""

from __future__ import annotations

from collections.abc import Iterable

from vaultauthz.core.grant import Grant
from vaultauthz.core.injection import Injection, used_fields
from vaultauthz.core.template import InjectionError


class EndedError(InjectionError):
    """The secret says itself that it has ended. Names the field, never the value."""

    mend = "write the one that is valid now (or have what issues it give a longer life)"


def fitting(injections: Iterable[Injection], grant: Grant) -> Grant:
    """The grant as these injections use it: it ends with the first of their fields.

    Raises:
        EndedError: it has ended by what it says of itself.
    """
    used = used_fields(injections)
    for name in used:
        if grant.field_ends.get(name, 1.0) <= 0.0:
            raise EndedError(
                f"the field {name} holds a JSON Web Token whose exp has passed, "
                "or a certificate whose notAfter has"
            )
    if grant.ends_in <= 0.0 or (not grant.lease_id and grant.ttl <= 0.0):
        raise EndedError("the secret says that it has ended")
    return grant.using(used)
