"""One proxied request, as the gateway describes it to us."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vaultauthz.core.readings import Look, Sent

# Characters of a request's id, which goes into each audit line and into the answer. Gateways' own
# are shorter, but a trusted hop in front may send its own.
REQUEST_ID_LIMIT: Final = 128
# Everything that the gateway has authenticated about a caller; () for nobody.
Identity = tuple[str, ...]


@dataclass(slots=True, repr=False)
class Message:
    """The rest of a request, for an upstream that wants each one signed.

    ``headers`` are in the order in which they came, their names in lower case, their values
    as ``os.fsdecode`` makes text of bytes. ``body`` is all of it: b"" where there is none,
    None where there is one that the gateway did not send along, or not whole. ``target`` is the
    path with the query that goes to the upstream, "" where that is the client's.
    """

    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    target: str = ""


@dataclass(slots=True)
class Request:
    """What a decision is made from.

    Everything here comes from the gateway itself: ``upstream`` and ``stage``
    from its route configuration, the identity from its authentication. No
    field is filled from a header that a client can set, ``cookie``, ``message`` and
    ``headers`` apart, which are only ever passed on, signed, dropped or refused.

    Not frozen, though nobody changes it: a frozen dataclass costs a microsecond
    more to make, and one is made for each request.
    """

    gateway: str  # "envoy", "kong", or an embedding program's own name
    method: str = ""
    host: str = ""  # as sent; may carry a port
    path: str = "/"  # as sent, with the query string
    upstream: str = ""  # named by the gateway's route; "" when it names none
    stage: str = ""
    principal: str = ""  # the client certificate's URI or DNS name
    consumer: str = ""  # Kong's authenticated consumer
    groups: tuple[str, ...] = ()
    # One mapping for each verified token; a rule must be met by one of them.
    claims: tuple[Mapping[str, Any], ...] = field(default=())
    cookie: str = ""
    request_id: str = ""
    wait: float = 0.4  # seconds that the gateway waits for the answer, where Vault must be asked
    # Called only for an upstream that signs; None where the gateway cannot tell.
    message: Callable[[], Message] | None = field(default=None, repr=False, compare=False)
    # The client's headers by name: called only where a rule or a long slot asks for some.
    headers: Look | None = field(default=None, repr=False, compare=False)

    def sent(self, names: Collection[str]) -> Sent:
        """The client's headers of these names, which are folded, and their aliases."""
        return self.headers(names) if self.headers is not None else ()

    @property
    def identity(self) -> Identity:
        """Whose lease it is under ``per: caller``; () when nobody was authenticated.

        All of it: two users behind one client certificate are two callers. The order
        of tokens does not matter; one without ``sub`` says nothing here.
        """
        subjects: set[tuple[str, str]] = set()
        for claims in self.claims:
            subject, issuer = claims.get("sub"), claims.get("iss")
            if subject is None or subject == "":
                continue
            if not (isinstance(subject, str) and isinstance(issuer, str | None)):
                return ()  # against RFC 7519, 4.1; as numbers, Envoy's are not even exact
            subjects.add((issuer or "", subject))
        if not (self.principal or self.consumer or subjects):
            return ()
        return (self.principal, self.consumer, *itertools.chain(*sorted(subjects)))

    @property
    def caller(self) -> str:
        """Who sent it, for the audit log; "" when the gateway did not say.

        The certificate or consumer, and whom its tokens speak for: behind one
        certificate there may be many users.
        """
        known = self.principal or self.consumer
        if not self.claims:
            return known
        subjects = [claims.get("sub") for claims in self.claims]
        named = [text for text in subjects if isinstance(text, str) and text]
        return ", ".join(dict.fromkeys(filter(None, (known, *named))))
