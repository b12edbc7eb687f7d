"""Whether what Vault gave is good for an upstream: what of it is used, and how long that lives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vaultauthz.core.field_value import InjectionError
from vaultauthz.core.grant import Grant
from vaultauthz.core.injection import Injection, Tls, field_names
from vaultauthz.core.signing import SigV4

# What these forms use where the secret has it.
_BESIDES: Final = {SigV4: ("session_token", "security_token"), Tls: ("ca_chain",)}


class EndedError(InjectionError):
    """The secret says itself that it has ended. Names the field, never the value."""

    mend = "write the one that is valid now (or have what issues it give a longer life)"


def used_fields(injections: Iterable[Injection]) -> tuple[str, ...]:
    """The fields that go on requests, those too that the secret may lack."""
    injections = tuple(injections)
    besides = (name for i in injections for name in _BESIDES.get(type(i), ()))
    return (*field_names(injections), *besides)


def fitting(injections: Iterable[Injection], grant: Grant) -> Grant:
    """The grant as these injections use it: it ends with the first of their fields.

    Raises:
        EndedError: it has ended by what it says of itself.
    """
    used = used_fields(injections)
    for name in used:
        if grant.field_ends.get(name, 1.0) <= 0.0:
            raise EndedError(f"the field {name} holds a JSON Web Token whose exp has passed")
    if grant.ends_in <= 0.0 or (not grant.lease_id and grant.ttl <= 0.0):
        raise EndedError("the secret says that it has ended")
    return grant.using(used)
