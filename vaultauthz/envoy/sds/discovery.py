"""The discovery services: their streams, who is connected, and who is to be told of a change."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from vaultauthz._pb.discovery_pb2 import DiscoveryResponse
from vaultauthz.admin.overview import ConnectedGateway
from vaultauthz.core import events
from vaultauthz.core.credential import Credential
from vaultauthz.core.events import Event
from vaultauthz.core.routing import StageUpstream
from vaultauthz.envoy.request import name_of
from vaultauthz.envoy.rpc import (
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    Inbox,
    RpcError,
    StreamEndedError,
    StreamMethod,
)
from vaultauthz.envoy.sds.secrets import Secrets, SharedCredentials, secret_texts
from vaultauthz.envoy.sds.subscription import (
    MOST_NAMES,
    SECRET_TYPE,
    Delta,
    RefusedSecret,
    ServedSecret,
    StateOfTheWorld,
    Subscription,
    TooManyError,
    upstream_of,
)

_SECRETS: Final = "/envoy.service.secret.v3.SecretDiscoveryService"
_AGGREGATED: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
# An Envoy whose stream broke is back within its backoff, and until then goes on with what
# it has.
_COMES_BACK: Final = 60.0  # seconds
# The clock counts through sleep and a wait may not: it is looked at this often, in seconds.
_LOOK: Final = 10.0
_MOST_SHOWN: Final = 300  # characters of Envoy's words about a secret
# A piece of a secret so long gives it away. Envoy is not known to quote secrets; should one
# ever do, its words are not worth it.
_PIECE: Final = 6
_PUBLIC: Final = re.compile(rb"-----(BEGIN|END) [A-Z ]+-----|Bearer |Basic ")

log = logging.getLogger(__name__)


class Discovery:
    """Serves ``streams``; ``changed`` and ``reloaded`` have the connected Envoys told.

    ``announce`` hears of each credential that an Envoy has taken or refused; ``clock`` is
    the keeper's.
    """

    def __init__(
        self,
        shared: SharedCredentials,
        clock: Callable[[], float],
        announce: Callable[[Event], None],
    ) -> None:
        self._secrets = Secrets(shared, clock)
        self._clock = clock
        self._announce = announce
        self._lock = threading.Lock()
        self._open: set[SecretStream] = set()
        self._left: dict[StageUpstream, float] = {}  # when an Envoy that held it went
        self.streams: dict[str, StreamMethod] = {
            f"{_SECRETS}/StreamSecrets": self._stream(StateOfTheWorld),
            f"{_SECRETS}/DeltaSecrets": self._stream(Delta),
            f"{_SECRETS}/FetchSecrets": StreamMethod(self._fetch),
            f"{_AGGREGATED}/StreamAggregatedResources": self._stream(
                StateOfTheWorld, aggregated=True
            ),
            f"{_AGGREGATED}/DeltaAggregatedResources": self._stream(Delta, aggregated=True),
        }

    def changed(self, stage: str, upstream: str) -> None:
        """A credential came, changed or went; a Watcher of the keeper."""
        self._secrets.seen(stage, upstream)
        for stream in self._connected():
            stream.changed((stage, upstream))

    def reloaded(self) -> None:
        """The configuration is another: who may have what is looked at anew."""
        self._secrets.reloaded()
        for stream in self._connected():
            stream.reloaded()

    def in_use(self) -> frozenset[StageUpstream]:
        """The upstreams whose credential an Envoy has now, or had when it was last here."""
        held = {upstream for stream in self._connected() for upstream in stream.in_use()}
        with self._lock:
            now = time.monotonic()
            return frozenset(held | {u for u, at in self._left.items() if now - at < _COMES_BACK})

    @property
    def connected(self) -> list[ConnectedGateway]:
        """The Envoys with a stream, as each names itself."""
        return [stream.gateway for stream in self._connected()]

    def _connected(self) -> tuple[SecretStream, ...]:
        with self._lock:
            return tuple(self._open)

    def _stream(
        self, form: type[StateOfTheWorld | Delta], *, aggregated: bool = False
    ) -> StreamMethod:
        def answers(inbox: Inbox) -> Iterator[bytes]:
            subscription = form(self._secrets.lookup)
            stream = self._secret_stream(subscription, inbox, aggregated=aggregated)
            with self._lock:
                self._open.add(stream)
            try:
                yield from stream.answers()
            finally:
                self._gone(stream)

        return StreamMethod(answers)

    def _secret_stream(
        self, subscription: StateOfTheWorld | Delta, inbox: Inbox, *, aggregated: bool = False
    ) -> SecretStream:
        return SecretStream(subscription, inbox, self._clock, self._announce, aggregated=aggregated)

    def _gone(self, stream: SecretStream) -> None:
        with self._lock:
            self._open.discard(stream)
            self._left.update(dict.fromkeys(stream.in_use(), time.monotonic()))

    def _fetch(self, inbox: Inbox) -> Iterator[bytes]:
        """``FetchSecrets``: all that is to be had, once."""
        subscription = StateOfTheWorld(self._secrets.lookup, MOST_NAMES)
        stream = self._secret_stream(subscription, inbox)
        for message in inbox:
            inbox.end()
            answer = next(stream.heard(message), None)
            stream.fetched()
            yield answer or DiscoveryResponse(type_url=SECRET_TYPE).SerializeToString()


class SecretStream:
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
        self._since = clock()
        self._delivered: dict[str, Credential] = {}  # what Envoy has said that it has
        self._lock = threading.Lock()
        self._changed: set[StageUpstream] = set()
        self._all = False  # look at all names anew

    def changed(self, upstream: StageUpstream) -> None:
        """The upstream's credential came, changed or went."""
        if upstream in self._subscription.names:
            with self._lock:
                self._changed.add(upstream)
            self._inbox.ring()

    def reloaded(self) -> None:
        """What any name stands for may be another."""
        with self._lock:
            self._all = True
        self._inbox.ring()

    def in_use(self) -> set[StageUpstream]:
        """The upstreams whose credential this Envoy has, or is being sent."""
        return {upstream_of(served.name) for served in self._subscription.held}

    @property
    def gateway(self) -> ConnectedGateway:
        """Who it is, and how many secrets it holds."""
        held = len(tuple(self._subscription.held))
        return ConnectedGateway(self._node, "SDS", secrets=held, since=self._since)

    def answers(self) -> Iterator[bytes]:
        """What to send, until the inbox has ended.

        Raises:
            RpcError: a request is malformed, or asks for too much.
        """
        while True:
            try:
                message = self._inbox.take(self._patience())
            except StreamEndedError:
                return
            if message is not None:
                yield from self.heard(message)
            yield from _encoded(self._subscription.push(self._due()))

    def _patience(self) -> float:
        return min(_LOOK, max(0.0, self._subscription.ends_at - self._clock()))

    def _due(self) -> Iterable[str]:
        """The names to look at."""
        names = self._subscription.names
        with self._lock:
            changed, self._changed = self._changed, set()
            everything, self._all = self._all, False
        if everything:
            changed = set(names)
        # Not when the machine that runs the lease says so, but in time for the last request.
        ended = self._subscription.ended(self._clock())
        return [*(name for upstream in changed for name in names.get(upstream, ())), *ended]

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
            self._warn_of_type(request.type_url)
            return
        try:
            answers = self._subscription.request(request)
        except TooManyError:
            raise RpcError(RESOURCE_EXHAUSTED, "too many names, or one too long") from None
        self._report()
        yield from _encoded(answers)

    def _warn_of_type(self, type_url: str) -> None:
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

    def _took(self, served: ServedSecret) -> None:
        before = self._delivered.pop(served.name, None)
        if served.credential:
            self._delivered[served.name] = served.credential
            self._say(events.SDS_DELIVERED, served.name, served.credential)
        elif before:
            self._say(events.SDS_WITHDRAWN, served.name, before)

    def _refused(self, refusal: RefusedSecret) -> None:
        served = refusal.served
        why = printable(refusal.message, *secret_texts(served))
        log.warning("sds: %s refuses %s: %s", self._node, served.name, why)
        if served.credential:
            self._say(events.SDS_REFUSED, served.name, served.credential, "Envoy refuses it")

    def _say(self, event: str, name: str, credential: Credential, reason: str = "") -> None:
        stage, upstream = upstream_of(name)
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


def printable(text: bytes, *secrets: bytes) -> str:
    """Envoy's words about a secret, fit for a log: on one line, cut, none if they quote it."""
    shown = re.sub(rb"[^\x21-\x7e]+", b" ", text).decode("ascii").strip()[:_MOST_SHOWN]
    if any(_quotes(shown, secret) for secret in secrets):
        return "(its words are left out, since they quote the secret)"
    return shown


def _quotes(text: str, secret: bytes) -> bool:
    for part in _PUBLIC.sub(b" ", secret).split():
        plain = part.decode("utf-8", "replace")
        last = max(1, len(plain) - _PIECE + 1)
        if any(plain[start : start + _PIECE] in text for start in range(last)):
            return True
    return False
