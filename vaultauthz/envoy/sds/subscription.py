"""One Envoy's subscription to secrets: a machine without I/O, for both forms of the protocol.

Theory of operation. Whoever drives it hands in each request of the stream, and calls
``push`` with the names whose secrets may have changed; both give the answers to send, and
each answer is made when it is asked for, so that a slow stream is sent what is true then.

- An answer is sent for names that Envoy has not been told of, or whose version differs
  from the last one sent. A request that only acknowledges leads to nothing, and one that
  refuses (``error_detail``) leads to nothing either until the secret changes: what Envoy
  refused once it would refuse again, in a busy loop.
- Several secrets go into one answer, since Envoy names all of them in each
  state-of-the-world request: a thousand answers would be acknowledged by a million names.
  Envoy refuses an answer as a whole, though, so the secrets of a refused one are each
  sent again by itself.
- Each answer has a nonce of its own, by which Envoy says what it takes or refuses. What it
  says of an answer that another has overtaken is heard too, and leads to nothing.

Source: Envoy's "xDS REST and gRPC protocol".
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final, Generic, TypeVar

from google.protobuf.any_pb2 import Any as Packed

from vaultauthz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
    Status,
)
from vaultauthz.core.credential import Credential
from vaultauthz.core.routing import StageUpstream

SECRET_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
MOST_NAMES: Final = 10_000  # of one stream
LONGEST_NAME: Final = 512  # characters
TOGETHER: Final = 32  # secrets in one answer
# Answers that Envoy may have yet to acknowledge; one before them is forgotten.
MOST_UNANSWERED: Final = 256

Request = TypeVar("Request", DiscoveryRequest, DeltaDiscoveryRequest)
Response = TypeVar("Response", DiscoveryResponse, DeltaDiscoveryResponse)


@dataclass(frozen=True, slots=True)
class RefusedSecret:
    """Envoy did not take a secret; ``message`` is its own, as it came."""

    served: ServedSecret
    message: bytes


class TooManyError(Exception):
    """The stream asks for more, or longer, names than one may."""


class Subscription(ABC, Generic[Request, Response]):
    """What one stream wants, and what it was sent. Not safe for threads.

    ``taken`` and ``refused`` are for the driver, who empties them.
    """

    def __init__(self, lookup: Lookup, together: int = TOGETHER) -> None:
        self._lookup = lookup
        self._together = together
        self._numbers = itertools.count(1)
        self._sent: dict[str, str] = {}  # name → version last sent; every wanted name
        # With a credential, as Envoy has it or will have it.
        self._held: dict[str, ServedSecret] = {}
        self._unanswered: dict[str, tuple[ServedSecret, ...]] = {}  # nonce → that answer
        self._alone: set[str] = set()  # to be sent by themselves
        self.names: dict[StageUpstream, set[str]] = {}  # that are wanted
        self.taken: list[ServedSecret] = []
        self.refused: list[RefusedSecret] = []

    @staticmethod
    @abstractmethod
    def parse(data: bytes) -> Request:
        """A request's bytes, read. Raises DecodeError."""

    @abstractmethod
    def request(self, request: Request) -> Iterator[Response]:
        """Take a request in.

        Raises:
            TooManyError: with it, the stream asks for more than one may.
        """

    @property
    def held(self) -> tuple[ServedSecret, ...]:
        """The credentials that Envoy has, or is being sent. Safe for threads."""
        return tuple(self._held.values())

    @property
    def ends_at(self) -> float:
        """When the first of them is over; infinity for none."""
        return min((served.ends_at for served in self._held.values()), default=inf)

    def ended(self, now: float) -> list[str]:
        """The names whose credential is over, each once."""
        over = [name for name, served in self._held.items() if served.ends_at <= now]
        for name in over:
            del self._held[name]
        return over

    def push(self, names: Iterable[str]) -> Iterator[Response]:
        """What Envoy has not been sent yet of these names."""
        together: list[ServedSecret] = []
        for name in names:
            served = self._news(name)
            if served is None:
                continue
            if name in self._alone:
                self._alone.discard(name)
                yield self._answer([served])
                continue
            together.append(served)
            if len(together) >= self._together:
                yield self._answer(together)
                together = []
        if together:
            yield self._answer(together)

    def _news(self, name: str) -> ServedSecret | None:
        """The secret of a wanted name, when it is not the one last sent."""
        before = self._sent.get(name)
        served = None if before is None else self._lookup(name)
        if served is None:
            return None
        if served.credential:
            self._held[name] = served
        else:
            self._held.pop(name, None)
        if served.version == before or not self._can_say(served):
            return None
        self._sent[name] = served.version
        return served

    def _answer(self, together: list[ServedSecret]) -> Response:
        nonce = str(next(self._numbers))
        self._unanswered[nonce] = tuple(together)
        if len(self._unanswered) > MOST_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]
        return self._encoded(together, nonce)

    @abstractmethod
    def _can_say(self, served: ServedSecret) -> bool:
        """Whether this form of the protocol has words for it."""

    @abstractmethod
    def _encoded(self, together: list[ServedSecret], nonce: str) -> Response:
        """The answer."""

    def _want(self, names: Iterable[str]) -> None:
        for name in names:
            if len(name) > LONGEST_NAME:
                raise TooManyError
            self._sent.setdefault(name, "")
            self.names.setdefault(upstream_of(name), set()).add(name)
        if len(self._sent) > MOST_NAMES:
            raise TooManyError

    def _forget(self, name: str) -> None:
        if self._sent.pop(name, None) is None:
            return
        self._held.pop(name, None)
        self._alone.discard(name)
        upstream = upstream_of(name)
        self.names[upstream].discard(name)
        if not self.names[upstream]:
            del self.names[upstream]

    def _heard_back(self, nonce: str, error: Status | None) -> list[str]:
        """Envoy took or refused the answer with this nonce; returns what to send again."""
        answer = self._unanswered.pop(nonce, ())
        if error is None:
            self.taken += answer
            return []
        if len(answer) <= 1:
            self.refused += [RefusedSecret(served, error.message) for served in answer]
            return []
        again = [s.name for s in answer if self._sent.get(s.name) == s.version]
        self._sent.update(dict.fromkeys(again, ""))
        self._alone.update(again)
        return again


class StateOfTheWorld(Subscription[DiscoveryRequest, DiscoveryResponse]):
    """``StreamSecrets``, ``FetchSecrets`` and ``StreamAggregatedResources``."""

    @staticmethod
    def parse(data: bytes) -> DiscoveryRequest:
        return DiscoveryRequest.FromString(data)

    def request(self, request: DiscoveryRequest) -> Iterator[DiscoveryResponse]:
        again: list[str] = []
        if request.response_nonce:
            error = request.error_detail if request.HasField("error_detail") else None
            again = self._heard_back(request.response_nonce, error)
        wanted = dict.fromkeys(request.resource_names)
        for name in self._sent.keys() - wanted.keys():
            self._forget(name)
        new = [name for name in wanted if name not in self._sent]
        self._want(new)
        return self.push([*again, *new])

    def _can_say(self, served: ServedSecret) -> bool:
        return served.value is not None

    def _encoded(self, together: list[ServedSecret], nonce: str) -> DiscoveryResponse:
        return DiscoveryResponse(
            # One version stands for all secrets of the answer.
            version_info=together[0].version if len(together) == 1 else nonce,
            resources=[_packed(served) for served in together],
            type_url=SECRET_TYPE,
            nonce=nonce,
        )


class Delta(Subscription[DeltaDiscoveryRequest, DeltaDiscoveryResponse]):
    """``DeltaSecrets`` and ``DeltaAggregatedResources``."""

    @staticmethod
    def parse(data: bytes) -> DeltaDiscoveryRequest:
        return DeltaDiscoveryRequest.FromString(data)

    def request(self, request: DeltaDiscoveryRequest) -> Iterator[DeltaDiscoveryResponse]:
        again: list[str] = []
        if request.response_nonce:
            error = request.error_detail if request.HasField("error_detail") else None
            again = self._heard_back(request.response_nonce, error)
        for name in request.resource_names_unsubscribe:
            self._forget(name)
        names = dict.fromkeys(request.resource_names_subscribe)
        self._want(names)
        for name in names:
            # Envoy may ask again for what it has forgotten. One that reconnects says what it has.
            self._sent[name] = request.initial_resource_versions.get(name, "")
        return self.push(dict.fromkeys([*again, *names]))

    def _can_say(self, served: ServedSecret) -> bool:
        return True

    def _encoded(self, together: list[ServedSecret], nonce: str) -> DeltaDiscoveryResponse:
        there = [served for served in together if served.value is not None]
        return DeltaDiscoveryResponse(
            resources=[
                Resource(name=served.name, version=served.version, resource=_packed(served))
                for served in there
            ],
            removed_resources=[served.name for served in together if served.value is None],
            type_url=SECRET_TYPE,
            nonce=nonce,
        )


def _packed(served: ServedSecret) -> Packed:
    return Packed(type_url=SECRET_TYPE, value=served.value or b"")


# Versions that stand for no credential. Those of credentials have a dash in them.
WITHDRAWN: Final = "withdrawn"  # an empty secret: Envoy refuses the requests that want it
ABSENT: Final = "absent"  # there is no such secret


@dataclass(frozen=True, slots=True, repr=False)
class ServedSecret:
    """What a name stands for: ``value`` is the encoded Secret, in clear; None when ABSENT."""

    name: str
    version: str
    value: bytes | None
    credential: Credential | None = None

    def __repr__(self) -> str:
        return f"<Served {self.name} {self.version}>"

    @property
    def ends_at(self) -> float:
        """Until when its credential is good, by the keeper's clock; it may move."""
        credential = self.credential
        return credential.last_at if credential else 0.0


# The secret of a name as it is now. None: there is nothing to say yet, and Envoy keeps
# what it may have.
Lookup = Callable[[str], ServedSecret | None]


def upstream_of(name: str) -> StageUpstream:
    """The stage and the upstream in a secret's name."""
    stage, _, rest = name.partition("/")
    return stage, rest.partition("/")[0]
