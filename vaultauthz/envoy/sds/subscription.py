"""One Envoy's subscription to secrets: a machine without I/O, for both forms of the protocol.

Theory of operation. Whoever drives it hands in each request of the stream, and calls
``push`` when secrets may have changed; both return the answers to send. ``lookup`` gives
the secret of a name as it is now, or None for one that is not to be had: for that no
answer is sent (state of the world) or its removal is (delta).

- An answer is sent for names that Envoy has not been told of, or whose version differs
  from the last one sent. A request that only acknowledges leads to nothing, and one that
  refuses (``error_detail``) leads to nothing either until the secret changes: what Envoy
  refused once it would refuse again, in a busy loop.
- Each answer has a nonce of its own. A request that names an older nonce was sent before
  Envoy saw the last answer; only its names count.
- Envoy names all resources in each state-of-the-world request, and an SDS subscription
  of Envoy's expects one resource in an answer: names are answered one by one.

Source: Envoy's "xDS REST and gRPC protocol".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any as Packed

from vaultauthz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)

SECRET_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
MOST_NAMES: Final = 10_000  # of one stream


@dataclass(frozen=True, slots=True, repr=False)
class Served:
    """A secret as it goes to Envoy: ``value`` is the encoded Secret, in clear."""

    name: str
    version: str
    value: bytes

    def __repr__(self) -> str:
        return f"<Served {self.name} {self.version}>"


Lookup = Callable[[str], Served | None]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Envoy did not take a secret; ``text`` is its own words."""

    name: str
    version: str
    text: str


class TooManyError(Exception):
    """The stream asks for more names than one may."""


class Subscription:
    """What one stream wants, and what it was sent. Not safe for threads."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._numbers = itertools.count(1)
        self._sent: dict[str, str] = {}  # name → version last sent; every wanted name
        self._told: dict[str, tuple[str, str]] = {}  # nonce → name and version of that answer
        self.accepted: dict[str, str] = {}  # name → version that Envoy has acknowledged
        self.refusals: list[Refusal] = []  # since the driver last took them out

    @property
    def names(self) -> tuple[str, ...]:
        """What the stream wants now."""
        return tuple(self._sent)

    def _want(self, names: Iterator[str]) -> None:
        for name in names:
            self._sent.setdefault(name, "")
        if len(self._sent) > MOST_NAMES:
            raise TooManyError

    def _forget(self, name: str) -> None:
        self._sent.pop(name, None)
        self.accepted.pop(name, None)

    def _heard_back(self, nonce: str, error: str | None) -> None:
        """An acknowledgement, or with ``error`` a refusal, of the answer with this nonce."""
        name, version = self._told.pop(nonce, ("", ""))
        if not name:
            return
        if error is None:
            self.accepted[name] = version
        else:
            self.refusals.append(Refusal(name, version, error))

    def _changed(self) -> Iterator[tuple[str, Served | None]]:
        """Each wanted name whose secret is not the one last sent, with what it is now."""
        for name, sent in tuple(self._sent.items()):
            served = self._lookup(name)
            version = served.version if served else ""
            if version != sent:
                self._sent[name] = version
                yield name, served

    def _nonce(self, name: str, version: str) -> str:
        nonce = str(next(self._numbers))
        # An answer that Envoy never comes back to must not be kept for ever.
        for old in [n for n, told in self._told.items() if told[0] == name]:
            del self._told[old]
        self._told[nonce] = (name, version)
        return nonce


class StateOfTheWorld(Subscription):
    """``StreamSecrets``, ``FetchSecrets`` and ``StreamAggregatedResources``."""

    def request(self, request: DiscoveryRequest) -> list[DiscoveryResponse]:
        """Take a request in.

        Raises:
            TooManyError: it names more than ``MOST_NAMES``.
        """
        if request.response_nonce:
            refused = request.HasField("error_detail")
            error = request.error_detail.message if refused else None
            self._heard_back(request.response_nonce, error)
        wanted = set(request.resource_names)
        for name in self._sent.keys() - wanted:
            self._forget(name)
        self._want(iter(request.resource_names))
        return self.push()

    def push(self) -> list[DiscoveryResponse]:
        """What Envoy has not been sent yet."""
        return [
            DiscoveryResponse(
                version_info=served.version,
                resources=[_packed(served)],
                type_url=SECRET_TYPE,
                nonce=self._nonce(name, served.version),
            )
            for name, served in self._changed()
            if served
        ]


class Delta(Subscription):
    """``DeltaSecrets`` and ``DeltaAggregatedResources``."""

    def request(self, request: DeltaDiscoveryRequest) -> list[DeltaDiscoveryResponse]:
        """Take a request in.

        Raises:
            TooManyError: with it, the stream asks for more than ``MOST_NAMES``.
        """
        if request.response_nonce:
            refused = request.HasField("error_detail")
            self._heard_back(
                request.response_nonce, request.error_detail.message if refused else None
            )
        for name in request.resource_names_unsubscribe:
            self._forget(name)
        unknown = [name for name in request.resource_names_subscribe if name not in self._sent]
        self._want(iter(unknown))
        for name in unknown:  # an Envoy that reconnects says what it has
            self._sent[name] = request.initial_resource_versions.get(name, "")
        return [*self._removed(unknown), *self.push()]

    def push(self) -> list[DeltaDiscoveryResponse]:
        """What Envoy has not been sent yet, and what is gone."""
        return [self._answer(name, served) for name, served in self._changed()]

    def _removed(self, names: list[str]) -> list[DeltaDiscoveryResponse]:
        """Envoy waits for an answer about each name, also one that is not to be had."""
        gone = [n for n in names if self._sent[n] == "" and self._lookup(n) is None]
        return [self._answer(name, None) for name in gone]

    def _answer(self, name: str, served: Served | None) -> DeltaDiscoveryResponse:
        version = served.version if served else ""
        answer = DeltaDiscoveryResponse(type_url=SECRET_TYPE, nonce=self._nonce(name, version))
        if served:
            resource = Resource(name=name, version=version, resource=_packed(served))
            answer.resources.append(resource)
        else:
            answer.removed_resources.append(name)
        return answer


def _packed(served: Served) -> Packed:
    return Packed(type_url=SECRET_TYPE, value=served.value)
