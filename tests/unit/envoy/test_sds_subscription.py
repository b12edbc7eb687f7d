"""The subscription machine: what is sent when, in both forms of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DiscoveryRequest,
    Status,
)
from vaultauthz.core.credential import Credential, Login
from vaultauthz.core.injection import Mutation
from vaultauthz.envoy.sds.subscription import (
    ABSENT,
    LONGEST_NAME,
    MOST_NAMES,
    MOST_UNANSWERED,
    SECRET_TYPE,
    TOGETHER,
    WITHDRAWN,
    Delta,
    ServedSecret,
    StateOfTheWorld,
    Subscription,
    TooManyError,
    upstream_of,
)

NAMES = [f"production/u{number}" for number in range(6)]
LOGIN = Login(1000.0)


class Envoy:
    """The other side of a subscription: takes what it is sent unless it is in ``dislikes``."""

    def __init__(self, kind: type[StateOfTheWorld | Delta], *names: str) -> None:
        self.world: dict[str, ServedSecret] = {}
        self.machine: Subscription[Any, Any] = kind(self.world.get)
        self.has: dict[str, str] = {}  # name → version
        self.removed: list[str] = []
        self.dislikes: set[str] = set()  # versions
        self.wanted: list[str] = []
        self.answers: list[list[str]] = []  # the names in each
        self.want(*names)

    def give(self, name: str, version: str, lasts: float = 100.0) -> None:
        """The name stands for another credential from now on."""
        credential = Credential(Mutation(), version, "lease", lasts, LOGIN)
        self.world[name] = ServedSecret(name, version, version.encode(), credential)

    def withdraw(self, name: str) -> None:
        """The name stands for no credential any more."""
        self.world[name] = ServedSecret(name, WITHDRAWN, b"")

    def want(self, *names: str) -> None:
        """Ask for these names, and for no others."""
        gone = [name for name in self.wanted if name not in names]
        new = [name for name in names if name not in self.wanted]
        self.wanted = list(names)
        for name in gone:
            self.has.pop(name, None)
        self._hear(self._ask(new, gone, {}))

    def push(self, *names: str) -> None:
        """These names may have changed."""
        self._hear(self.machine.push(names or NAMES))

    def _ask(self, new: Iterable[str], gone: Iterable[str], heard: dict[str, Any]) -> Iterator[Any]:
        if isinstance(self.machine, Delta):
            request = DeltaDiscoveryRequest(
                resource_names_subscribe=new, resource_names_unsubscribe=gone, **heard
            )
            return self.machine.request(request)
        return self.machine.request(DiscoveryRequest(resource_names=self.wanted, **heard))

    def _hear(self, answers: Iterable[Any]) -> None:
        for answer in answers:
            assert answer.type_url == SECRET_TYPE
            found = dict(_resources(answer))
            removed = list(getattr(answer, "removed_resources", ()))
            self.answers.append([*found, *removed])
            assert len(self.answers) < 500, "it goes on for ever"
            heard: dict[str, Any] = {"response_nonce": answer.nonce}
            if self.dislikes & set(found.values()):
                heard["error_detail"] = Status(code=13, message=b"no")
            else:
                self.has.update((n, v) for n, v in found.items() if n in self.wanted)
                self.removed += removed
            self._hear(self._ask((), (), heard))


def _resources(answer: Any) -> Iterator[tuple[str, str]]:
    """Names and versions; the version is the value too, as ``give`` has it."""
    for resource in answer.resources:
        if hasattr(resource, "name"):
            assert resource.resource.value in (resource.version.encode(), b"")
            yield resource.name, resource.version
        else:
            value = resource.value.decode()
            yield (value.split("@")[0] if "@" in value else ""), value


@pytest.fixture(params=[StateOfTheWorld, Delta])
def envoy(request: pytest.FixtureRequest) -> Envoy:
    """One that wants nothing yet."""
    return Envoy(request.param)


def at(name: str, number: int) -> str:
    """A version that tells its name, as the state of the world does not."""
    return f"{name}@{number}"


A, B = NAMES[:2]


class TestBoth:
    """What holds for both forms."""

    def test_what_is_there_is_sent_at_once(self, envoy: Envoy) -> None:
        """One answer brings all of a request's names; the acknowledgement leads to nothing."""
        envoy.give(A, at(A, 1))
        envoy.give(B, at(B, 1))
        envoy.want(A, B)
        assert envoy.has == {A: at(A, 1), B: at(B, 1)}
        assert envoy.answers == [[A, B]]
        assert [served.name for served in envoy.machine.taken] == [A, B]

    def test_what_comes_later_is_pushed(self, envoy: Envoy) -> None:
        """A name that there is nothing to say about yet is answered when there is, and only then."""
        envoy.want(A)
        assert envoy.answers == []
        envoy.give(A, at(A, 1))
        envoy.push(A)
        envoy.push(A)
        assert envoy.answers == [[A]]
        assert envoy.has == {A: at(A, 1)}

    def test_only_what_has_changed_is_pushed(self, envoy: Envoy) -> None:
        """Names that were not said to have changed are not even looked up."""
        for name in NAMES:
            envoy.give(name, at(name, 1))
        envoy.want(*NAMES)
        for name in NAMES:
            envoy.give(name, at(name, 2))
        envoy.push(A, "production/unwanted")
        assert envoy.answers[1:] == [[A]]

    def test_what_was_refused_is_not_sent_again(self, envoy: Envoy) -> None:
        """One refusal, one line for the operator, until the secret changes."""
        envoy.give(A, at(A, 1))
        envoy.dislikes = {at(A, 1)}
        envoy.want(A)
        envoy.push(A)
        assert (envoy.answers, envoy.has, envoy.machine.taken) == ([[A]], {}, [])
        (refusal,) = envoy.machine.refused
        assert (refusal.served.name, refusal.message) == (A, b"no")
        envoy.give(A, at(A, 2))
        envoy.push(A)
        assert envoy.has == {A: at(A, 2)}

    def test_one_bad_secret_does_not_keep_the_others(self, envoy: Envoy) -> None:
        """An answer that was refused for one of its secrets is sent again, each by itself."""
        for name in NAMES:
            envoy.give(name, at(name, 1))
        envoy.dislikes = {at(B, 1)}
        envoy.want(*NAMES)
        assert envoy.has == {name: at(name, 1) for name in NAMES if name != B}
        assert envoy.answers == [NAMES, *([name] for name in NAMES)]
        assert [refusal.served.name for refusal in envoy.machine.refused] == [B]

    def test_many_names_come_in_few_answers(self, envoy: Envoy) -> None:
        """A thousand names are some thirty answers, not a thousand."""
        names = [f"production/n{number}" for number in range(1000)]
        for name in names:
            envoy.give(name, at(name, 1))
        envoy.want(*names)
        assert len(envoy.has) == 1000
        assert max(map(len, envoy.answers)) == TOGETHER
        assert len(envoy.answers) == -(-1000 // TOGETHER)

    def test_withdrawn_and_back(self, envoy: Envoy) -> None:
        """An empty secret is a version like others, sent once."""
        envoy.give(A, at(A, 1))
        envoy.want(A)
        envoy.withdraw(A)
        envoy.push(A)
        envoy.push(A)
        assert len(envoy.answers) == 2
        assert envoy.machine.held == ()
        envoy.give(A, at(A, 1))
        envoy.push(A)
        assert envoy.has == {A: at(A, 1)}
        assert len(envoy.answers) == 3

    def test_answers_nobody_speaks_of_are_forgotten(self, envoy: Envoy) -> None:
        """A client that never acknowledges costs a bounded memory."""
        envoy.want(A)
        for number in range(2 * MOST_UNANSWERED):
            envoy.give(A, at(A, number))
            list(envoy.machine.push([A]))
        assert len(envoy.machine._unanswered) == MOST_UNANSWERED

    def test_an_unwanted_name_is_forgotten(self, envoy: Envoy) -> None:
        """Nothing is kept of it, and wanted again it is sent again."""
        envoy.give(A, at(A, 1))
        envoy.want(A)
        envoy.want()
        machine = envoy.machine
        kept = (machine._sent, machine._held, machine._unanswered, machine.names)
        assert kept == ({}, {}, {}, {})
        envoy.want(A)
        assert envoy.answers == [[A], [A]]

    def test_the_first_end_is_known(self, envoy: Envoy) -> None:
        """It is the earliest of leases and logins, and a renewal moves it without an answer."""
        for number, name in enumerate(NAMES, 1):
            envoy.give(name, at(name, 1), 100.0 * number)
        envoy.want(*NAMES)
        assert envoy.machine.ends_at == 100.0
        envoy.give(A, at(A, 1), 5000.0)
        envoy.push(A)
        assert envoy.machine.ends_at == 200.0
        assert envoy.machine.ended(300.0) == [NAMES[1], NAMES[2]]
        assert envoy.machine.ended(300.0) == []
        assert len(envoy.answers) == 1

    def test_too_many_names(self, envoy: Envoy) -> None:
        """More than a stream may have, or one too long, is an error."""
        with pytest.raises(TooManyError):
            envoy.want(*(f"production/{number}" for number in range(MOST_NAMES + 1)))
        with pytest.raises(TooManyError):
            envoy.want("production/" + "x" * LONGEST_NAME)

    def test_a_slow_stream_is_sent_what_is_true_then(self, envoy: Envoy) -> None:
        """An answer is made when it is asked for, not when the change came."""
        for name in (names := [f"production/n{number}" for number in range(TOGETHER + 1)]):
            envoy.give(name, at(name, 1))
        envoy.wanted = names
        answers = envoy._ask(names, (), {})
        next(answers)
        envoy.give(names[-1], at(names[-1], 2))
        assert list(dict(_resources(next(answers))).values()) == [at(names[-1], 2)]


class TestStateOfTheWorld:
    """What is its own."""

    def test_one_secret_has_its_own_version(self) -> None:
        """So that Envoy's statistics name it; several in one answer have another."""
        envoy = Envoy(StateOfTheWorld)
        envoy.give(A, "v1")
        (answer,) = envoy.machine.request(DiscoveryRequest(resource_names=[A]))
        assert answer.version_info == "v1"

    def test_answers_that_were_overtaken_count(self) -> None:
        """Envoy had the first for a moment, or refused it; nothing is sent for that."""
        envoy = Envoy(StateOfTheWorld)
        envoy.give(A, "v1")
        nonces = [a.nonce for a in envoy.machine.request(DiscoveryRequest(resource_names=[A]))]
        for version in ("v2", "v3"):
            envoy.give(A, version)
            nonces += [answer.nonce for answer in envoy.machine.push([A])]
        for nonce, words in zip(nonces, (None, Status(message=b"no"), None), strict=True):
            request = DiscoveryRequest(resource_names=[A], response_nonce=nonce, error_detail=words)
            assert list(envoy.machine.request(request)) == []
        assert [served.version for served in envoy.machine.taken] == ["v1", "v3"]
        assert [refusal.served.version for refusal in envoy.machine.refused] == ["v2"]

    def test_a_nonce_counts_once(self) -> None:
        """And one that was never given does not count."""
        envoy = Envoy(StateOfTheWorld)
        envoy.give(A, "v1")
        envoy.want(A)
        for nonce in ("1", "1", "77"):
            list(envoy.machine.request(DiscoveryRequest(resource_names=[A], response_nonce=nonce)))
        assert len(envoy.machine.taken) == 1

    def test_what_does_not_exist_is_not_spoken_of(self) -> None:
        """It has no word for that."""
        envoy = Envoy(StateOfTheWorld)
        envoy.world[A] = ServedSecret(A, ABSENT, None)
        envoy.want(A)
        assert envoy.answers == []


class TestDelta:
    """What is its own."""

    def test_what_does_not_exist_is_removed_once(self) -> None:
        """Envoy need not wait for it."""
        envoy = Envoy(Delta)
        envoy.world[A] = ServedSecret(A, ABSENT, None)
        envoy.want(A)
        envoy.push(A)
        assert (envoy.removed, envoy.answers) == ([A], [[A]])

    def test_what_envoy_has_is_not_sent_again(self) -> None:
        """One that reconnects says what it has; it counts as sent, and as in use."""
        envoy = Envoy(Delta)
        envoy.give(A, "v1")
        envoy.give(B, "v2")
        request = DeltaDiscoveryRequest(
            resource_names_subscribe=[A, B], initial_resource_versions={A: "v1", B: "old"}
        )
        (answer,) = envoy.machine.request(request)
        assert [resource.name for resource in answer.resources] == [B]
        assert {served.name for served in envoy.machine.held} == {A, B}

    def test_asked_again_it_is_sent_again(self) -> None:
        """Envoy may subscribe to what it has forgotten, without unsubscribing before."""
        envoy = Envoy(Delta)
        envoy.give(A, "v1")
        envoy.want(A)
        (answer,) = envoy.machine.request(DeltaDiscoveryRequest(resource_names_subscribe=[A]))
        assert [resource.name for resource in answer.resources] == [A]

    def test_unsubscribing_from_the_unknown(self) -> None:
        """It is nothing."""
        envoy = Envoy(Delta)
        request = DeltaDiscoveryRequest(resource_names_unsubscribe=["*", A])
        assert list(envoy.machine.request(request)) == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["give", "withdraw", "want", "unwant", "dislike", "like"]),
        st.sampled_from(NAMES),
    ),
    max_size=40,
)


@given(kind=st.sampled_from([StateOfTheWorld, Delta]), steps=STEPS)
def test_any_story_ends_with_envoy_having_what_is(
    kind: type[StateOfTheWorld | Delta], steps: list[tuple[str, str]]
) -> None:
    """Whatever changes in whatever order: what Envoy wants and does not refuse, it has."""
    envoy = Envoy(kind)
    for number, (step, name) in enumerate(steps):
        if step == "give":
            envoy.give(name, at(name, number))
            envoy.push(name)
        elif step == "withdraw":
            envoy.world[name] = ServedSecret(
                name, at(name, 0), b"" if kind is Delta else at(name, 0).encode()
            )
            envoy.push(name)
        elif step == "want":
            envoy.want(*dict.fromkeys([*envoy.wanted, name]))
        elif step == "unwant":
            envoy.want(*(n for n in envoy.wanted if n != name))
        elif step == "dislike":
            envoy.dislikes.update(at(name, any_of) for any_of in range(len(steps)))
        else:
            envoy.dislikes.clear()
    there = {n: served.version for n, served in envoy.world.items() if n in envoy.wanted}
    refused = {r.served.name for r in envoy.machine.refused}
    assert {n: v for n, v in there.items() if n not in refused} == {
        n: v for n, v in envoy.has.items() if n not in refused
    }
    wanted = {name for names in envoy.machine.names.values() for name in names}
    assert wanted == set(envoy.wanted)
    held = {n for n, served in envoy.world.items() if n in envoy.wanted and served.credential}
    assert {served.name for served in envoy.machine.held} == held


@given(st.text(max_size=30))
def test_any_name_has_a_place(name: str) -> None:
    """Only the first two parts count, and no name is an error."""
    stage, upstream = upstream_of(name)
    assert name.split("/", maxsplit=1)[0] == stage
    assert "/" not in upstream


def test_a_served_secret_does_not_show_itself() -> None:
    """Its repr is its name and version; a copy with another credential is no different."""
    served = ServedSecret(A, "v1", b"hush", None)
    assert "hush" not in repr(replace(served, version="v2"))
