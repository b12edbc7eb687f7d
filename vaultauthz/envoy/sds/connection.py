"""One open stream: requests and changes in, secrets out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from vaultauthz.core import events
from vaultauthz.core.credential import Credential
from vaultauthz.core.events import Event
from vaultauthz.envoy.inbox import EndedError, Inbox
from vaultauthz.envoy.node import name_of
from vaultauthz.envoy.rpc import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, RpcError
from vaultauthz.envoy.sds.secrets import texts
from vaultauthz.envoy.sds.served import Place, Served, place_of
from vaultauthz.envoy.sds.subscription import (
    SECRET_TYPE,
    Refusal,
    Subscription,
    TooManyError,
)
from vaultauthz.envoy.sds.words import cleaned

log = logging.getLogger(__name__)

# The clock counts through sleep and a wait may not: it is looked at this often, in seconds.
_LOOK: Final = 10.0


class Connection:
    """Answers one stream in its thread; ``changed``, ``reloaded`` and ``in_use`` are for others."""

    def __init__(
        self,
        subscription: Subscription[Any, Any],
        inbox: Inbox,
        clock: Callable[[], float],
        announce: Callable[[Event], None],
        *,
        aggregated: bool = False,
    ) -> None:
        self._subscription = subscription
        self._inbox = inbox
        self._clock = clock
        self._announce = announce
        self._types = {SECRET_TYPE} if aggregated else {SECRET_TYPE, ""}
        self._warned = False  # of a type that it asked for and we do not have
        self._node = ""
        self._delivered: dict[str, Credential] = {}  # what Envoy has said that it has
        self._lock = threading.Lock()
        self._changed: set[Place] = set()
        self._all = False  # look at all names anew

    def changed(self, place: Place) -> None:
        """The upstream's credential came, changed or went."""
        if place in self._subscription.places:
            with self._lock:
                self._changed.add(place)
            self._inbox.ring()

    def reloaded(self) -> None:
        """What any name stands for may be another."""
        with self._lock:
            self._all = True
        self._inbox.ring()

    def in_use(self) -> set[Place]:
        """The upstreams whose credential this Envoy has, or is being sent."""
        return {place_of(served.name) for served in self._subscription.held}

    def answers(self) -> Iterator[bytes]:
        """What to send, until the inbox has ended.

        Raises:
            RpcError: a request is malformed, or asks for too much.
        """
        while True:
            try:
                message = self._inbox.take(self._patience())
            except EndedError:
                return
            if message is not None:
                yield from self.heard(message)
            yield from _encoded(self._subscription.push(self._due()))

    def _patience(self) -> float:
        return min(_LOOK, max(0.0, self._subscription.ends_at - self._clock()))

    def _due(self) -> Iterable[str]:
        """The names to look at."""
        places = self._subscription.places
        with self._lock:
            changed, self._changed = self._changed, set()
            everything, self._all = self._all, False
        if everything:
            changed = set(places)
        # Not when the machine that runs the lease says so, but in time for the last request.
        ended = self._subscription.ended(self._clock())
        return [*(name for place in changed for name in places.get(place, ())), *ended]

    def fetched(self) -> None:
        """What was sent is taken: ``FetchSecrets`` has no acknowledgement."""
        for served in self._subscription.held:
            self._took(served)

    def heard(self, message: bytes) -> Iterator[bytes]:
        """The answers to a request.

        Raises:
            RpcError: it is malformed, or asks for too much.
        """
        try:
            request = self._subscription.parse(message)
        except DecodeError:
            raise RpcError(INVALID_ARGUMENT, "not a discovery request") from None
        if not self._node:  # said in the first request of a stream only
            self._node = name_of(request.node)
        if request.type_url not in self._types:
            self._tell_strange(request.type_url)
            return
        try:
            answers = self._subscription.request(request)
        except TooManyError:
            raise RpcError(RESOURCE_EXHAUSTED, "too many names, or one too long") from None
        self._report()
        yield from _encoded(answers)

    def _tell_strange(self, type_url: str) -> None:
        if not self._warned:
            log.warning("sds: %s asks for %r; only secrets are served", self._node, type_url[:200])
        self._warned = True

    def _report(self) -> None:
        """Say what Envoy has taken and refused."""
        taken, self._subscription.taken = self._subscription.taken, []
        refused, self._subscription.refused = self._subscription.refused, []
        for served in taken:
            self._took(served)
        for refusal in refused:
            self._refused(refusal)

    def _took(self, served: Served) -> None:
        before = self._delivered.pop(served.name, None)
        if served.credential:
            self._delivered[served.name] = served.credential
            self._say(events.SDS_DELIVERED, served.name, served.credential)
        elif before:
            self._say(events.SDS_WITHDRAWN, served.name, before)

    def _refused(self, refusal: Refusal) -> None:
        served = refusal.served
        words = cleaned(refusal.text, *texts(served))
        log.warning("sds: %s refuses %s: %s", self._node, served.name, words)
        if served.credential:
            self._say(events.SDS_REFUSED, served.name, served.credential, "Envoy refuses it")

    def _say(self, event: str, name: str, credential: Credential, reason: str = "") -> None:
        stage, upstream = place_of(name)
        self._announce(
            Event(
                event,
                stage,
                upstream,
                credential.lease_id,
                credential.credential_id,
                reason=reason,
                caller=self._node,
            )
        )


def _encoded(answers: Iterator[Message]) -> Iterator[bytes]:
    return (answer.SerializeToString() for answer in answers)
