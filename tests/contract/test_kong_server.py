"""Our plugin server under everything that can go wrong: whatever it is, the request is answered or denied."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.faults import wait_until
from tests.contract.kong import Kong, Route, Settings, Verdict, adversary
from tests.contract.kong.adversary import Intruder, event, frame
from tests.contract.kong_inside import Inside, allowed
from tests.patience import PATIENCE
from vaultauthz._pb import kong_pb2 as pb
from vaultauthz.core.decision import Decision, Denied, Reason
from vaultauthz.core.request import Request
from vaultauthz.kong import connection, enforcement, gate, log_phase, questions, server
from vaultauthz.kong.connection import MESSAGE_LIMIT
from vaultauthz.leases.later import Later

SECRET = "s3cr3t"
SHORT = Settings(timeout=PATIENCE, max_retries=3)
ROUTES = [Route("pay", "/pay", {"upstream": "pay"}), Route("geo", "/geo", {"upstream": "geo"})]


def by_name(request: Request) -> Decision:
    """Everybody gets the credential of their upstream."""
    return allowed(request.upstream)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    """A server that lets everything through, and gives others half a second for their turn."""
    with Inside(tmp_path, by_name, stall=2.0) as running:
        yield running


def kong_with(inside: Inside, workers: int = 2) -> Kong:
    return Kong(inside.commands, ROUTES, workers=workers, settings=SHORT)


def right(kong: Kong, name: str = "pay") -> bool:
    """Whether a request gets what is its own."""
    return kong.request("GET", f"/{name}").upstream.header("authorization") == f"Bearer {name}"


def boom(*_: object, **__: object) -> Any:
    """An error of ours, which quotes a secret."""
    raise RuntimeError(SECRET)


class TestErrorsOfOurs:
    STEPS = (
        (questions, "batch"),
        (questions, "fill"),
        (gate.Gate, "_asked"),
        (gate, "denial"),
        (gate, "particular"),
        (enforcement.EncodedCalls, "of"),
        (enforcement, "_constant"),
        (enforcement, "_questions"),
        (log_phase.LogPhase, "note"),
    )

    @pytest.mark.parametrize(("place", "name"), STEPS)
    def test_an_error_at_any_step_is_a_denial(
        self,
        tmp_path: Path,
        place: object,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The client is answered at once, the request goes no further, and no error's text is told."""

        def check(request: Request) -> Decision:
            if name == "denial":
                return Denied(Reason.CALLER_DENIED)
            query = (("key", "k"),) if name == "particular" else ()
            return allowed(request.upstream, query=query)

        with Inside(tmp_path, check) as inside, kong_with(inside) as kong:
            monkeypatch.setattr(place, name, boom)
            answer = kong.request("GET", "/pay")
            assert (answer.verdict, answer.status) == (Verdict.ANSWERED, 500)
            assert answer.json()["error"] == "internal"
            monkeypatch.undo()
            if name != "denial":
                assert right(kong)
        assert SECRET not in caplog.text
        assert "RuntimeError" in caplog.text

    def test_a_check_that_fails(self, tmp_path: Path) -> None:
        """At once, or later in another thread."""
        for check in (boom, lambda _: _failing()):
            with Inside(tmp_path, check) as inside, kong_with(inside) as kong:
                assert kong.request("GET", "/pay").json()["error"] == "internal"

    def test_an_error_in_the_log_phase(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody can be answered any more; the connection stays in order."""
        with kong_with(inside) as kong:
            monkeypatch.setattr(inside.log_phase, "finished", boom)
            kong.request("GET", "/pay").log.wait()
            monkeypatch.undo()
            assert right(kong)

    def test_an_error_where_none_should_be(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also one in the connection's own code ends only that connection."""
        with kong_with(inside) as kong:
            assert right(kong)
            monkeypatch.setattr(connection.Connection, "_take_call", boom)
            assert kong.request("GET", "/pay").verdict in (Verdict.ENDLESS, Verdict.FAILED)
            monkeypatch.undo()
            assert right(kong)


def _failing() -> Later[Decision]:
    later: Later[Decision] = Later()
    threading.Timer(0.05, lambda: later.fail(RuntimeError(SECRET))).start()
    return later


class TestPromises:
    def test_who_waits_holds_nobody_up(self, tmp_path: Path) -> None:
        """A request that waits for Vault is answered when that has answered; the others go on meanwhile."""
        promised: Later[Decision] = Later()

        def check(request: Request) -> Decision | Later[Decision]:
            return promised if request.upstream == "geo" else allowed("pay")

        with Inside(tmp_path, check) as inside, kong_with(inside) as kong:
            got: list[Any] = []
            waiting = threading.Thread(target=lambda: got.append(kong.request("GET", "/geo")))
            waiting.start()
            assert wait_until(lambda: inside.server.busy)
            assert right(kong)
            promised.answer(allowed("geo"))
            waiting.join(PATIENCE)
            assert got[0].upstream.header("authorization") == "Bearer geo"

    def test_who_still_waits_at_the_end_is_denied(self, tmp_path: Path) -> None:
        """When the server ends, the client is told to come again."""
        promised: Later[Decision] = Later()
        got: list[Any] = []
        with Inside(tmp_path, lambda _: promised) as inside, kong_with(inside) as kong:
            waiting = threading.Thread(target=lambda: got.append(kong.request("GET", "/geo")))
            waiting.start()
            assert wait_until(lambda: inside.server.busy)
            inside.server.stop(0.1)
            waiting.join(PATIENCE)
        assert (got[0].status, got[0].json()["error"]) == (503, "overloaded")
        assert got[0].header("retry-after") == "1"

    def test_an_answer_for_somebody_who_has_gone(self, tmp_path: Path) -> None:
        """It is let go, and the next connection, which may have the same number, does not get it."""
        promised: list[Later[Decision]] = []

        def check(request: Request) -> Decision | Later[Decision]:
            if request.upstream == "pay":
                return allowed("pay")
            promised.append(Later())
            return promised[-1]

        with Inside(tmp_path, check) as inside:
            impatient = Settings(timeout=2, max_retries=1)
            with Kong(inside.commands, ROUTES, settings=impatient) as kong:
                assert kong.request("GET", "/geo").verdict is Verdict.FAILED
                assert right(kong)
                promised[0].answer(allowed("geo"))
                assert right(kong)


class TestIntruders:
    @pytest.mark.parametrize("attack", adversary.PROTOBUF)
    def test_it_bears_an_intruder(self, inside: Inside, attack: str) -> None:
        """Whatever else comes over the socket, Kong's requests get their own credential."""
        with kong_with(inside) as kong:
            assert right(kong)
            with Intruder(inside.ownership.path, adversary.PROTOBUF[attack]) as intruder:
                assert right(kong)
                intruder.finish()
                assert intruder.hear() == b""
                assert right(kong, "geo")
            assert all(one is not None for one in kong.workers[0].instances.known.values())

    def test_who_stalls_in_a_frame_is_hung_up_on(self, inside: Inside) -> None:
        """Half a frame, then nothing: others are not kept waiting, and the connection ends."""
        for data in (b"\x10\x00", b"\x10\x00\x00\x00abc"):
            with kong_with(inside) as kong, Intruder(inside.ownership.path, data) as intruder:
                assert right(kong)
                assert intruder.hear() == b""
        assert wait_until(lambda: inside.server.connections == 0)

    def test_who_owes_a_result_is_hung_up_on(self, inside: Inside) -> None:
        """An event whose questions nobody answers."""
        with kong_with(inside) as kong:
            assert right(kong)
            number = next(iter(inside.server._instances._known))
            with Intruder(inside.ownership.path, event(number)) as intruder:
                asked = b""
                while data := intruder.hear():
                    asked += data
                assert b"kong.nginx.get_var" in asked
                assert data == b""

    def test_bytes_one_by_one(self, inside: Inside) -> None:
        """However a frame is cut, it is the same frame."""
        command = pb.CmdStartInstance(name="vault-authz", config=b'{"upstream": "pay"}')
        call = frame(pb.RpcCall(sequence=9, cmd_start_instance=command).SerializeToString())
        with Intruder(inside.ownership.path) as slow:
            for at in range(len(call)):
                slow.send(call[at : at + 1])
            said = slow.hear() or b""
            answer = pb.RpcReturn.FromString(said[4:])
            assert (answer.sequence, answer.instance_status.instance_id > 0) == (9, True)

    def test_a_result_that_is_too_long(self, tmp_path: Path) -> None:
        """Is passed over, and the request denied: to hang up would make Kong ask for ever."""
        query = (("key", "k"),)
        one = allowed("pay", query=query)
        with Inside(tmp_path, lambda _: one) as inside, kong_with(inside) as kong:
            long = "/pay?" + "x" * (MESSAGE_LIMIT + 1)
            assert kong.request("GET", long).json()["error"] == "internal"
            assert kong.request("GET", "/pay?x=1").upstream.query == "x=1&key=k"

    def test_no_more_connections_than_it_may_have(self, tmp_path: Path) -> None:
        """The one that has been idle the longest goes; requests go on."""
        with Inside(tmp_path, by_name, connections=20) as inside, kong_with(inside) as kong:
            intruders = [Intruder(inside.ownership.path) for _ in range(60)]
            try:
                assert all(right(kong) for _ in range(10))
                assert inside.server.connections <= 20
            finally:
                for intruder in intruders:
                    intruder.__exit__(None, None, None)

    def test_a_config_that_is_none(self, inside: Inside) -> None:
        """The instance is not started: Kong answers 500."""
        for config in (b"{", b"[]", b'{"upstream": 5}', b"\xff"):
            command = pb.CmdStartInstance(name="vault-authz", config=config)
            call = pb.RpcCall(sequence=2, cmd_start_instance=command)
            with Intruder(inside.ownership.path, frame(call.SerializeToString())) as intruder:
                assert intruder.hear() == b""


class TestTheEnd:
    """Kong may be about to send a call on any of its connections."""

    def test_an_idle_connection(self, inside: Inside) -> None:
        """Kong reads that there is no more, and what it has sent meanwhile is no error to it: it calls elsewhere."""
        with socket.socket(socket.AF_UNIX) as kong:
            kong.settimeout(PATIENCE)
            kong.connect(str(inside.ownership.path))
            assert wait_until(lambda: inside.server.connections == 1)
            ending = threading.Thread(target=inside.server.stop, args=(PATIENCE,))
            ending.start()
            assert kong.recv(1) == b""
            kong.sendall(frame(b"x" * 10_000))
            assert kong.recv(1) == b""
        ending.join(PATIENCE)
        assert not ending.is_alive()

    def test_those_who_were_not_served_yet(self, tmp_path: Path) -> None:
        """However many wait to be accepted: none of them is reset."""
        with (
            Inside(tmp_path, by_name, ready=lambda: False) as inside,
            contextlib.ExitStack() as all_,
        ):
            kongs = [all_.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(200)]
            for kong in kongs:
                kong.settimeout(PATIENCE)
                kong.connect(str(inside.ownership.path))
            ending = threading.Thread(target=inside.server.stop, args=(PATIENCE,))
            ending.start()
            assert [kong.recv(1) for kong in kongs] == [b""] * len(kongs)
            for kong in kongs:
                kong.close()
            ending.join(PATIENCE)


class TestInstances:
    def test_an_unknown_number_is_hung_up_on(self, inside: Inside) -> None:
        """Kong starts the instance anew, once, and the request gets what is its own."""
        with kong_with(inside) as kong:
            assert right(kong)
            inside.server._instances._known.clear()
            answer = kong.request("GET", "/pay", worker=0)
            assert (answer.access.retries, answer.upstream.header("authorization")) == (
                1,
                "Bearer pay",
            )

    def test_a_new_config(self, inside: Inside) -> None:
        """Another upstream from the next request on; the old instance is closed."""
        with kong_with(inside, workers=1) as kong:
            assert right(kong)
            known = inside.server._instances._known
            before = len(known)  # of earlier tests' Kongs, too, whose last word may not have come
            kong.configure("pay", {"upstream": "geo"})
            try:
                sent = kong.request("GET", "/pay").upstream.header("authorization")
                assert sent == "Bearer geo"
                assert wait_until(lambda: len(known) <= before)
            finally:
                kong.configure("pay", {"upstream": "pay"})


def test_64_connections_at_once(inside: Inside) -> None:
    """Each request gets its own route's credential, from one thread of the server."""
    before = threading.active_count()
    wrong: list[str] = []
    together = threading.Barrier(64)

    def work(name: str, kong: Kong) -> None:
        together.wait()
        wrong.extend(name for _ in range(10) if not right(kong, name))

    with kong_with(inside) as kong:
        names = [("pay", "geo")[number % 2] for number in range(64)]
        threads = [threading.Thread(target=work, args=(name, kong)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert kong.counts["proxied"] == 640
        assert kong.counts["retries"] == 0
    assert wrong == []
    assert wait_until(lambda: threading.active_count() <= before + 2)


def test_denials_leave_nothing_behind(tmp_path: Path) -> None:
    """Kong closes a connection on which it was told to answer: so many denials, no connection left."""
    denied = Denied(Reason.CALLER_DENIED)
    with Inside(tmp_path, lambda _: denied) as inside, kong_with(inside) as kong:
        for _ in range(200):
            assert kong.request("GET", "/pay").status == 403
        assert wait_until(lambda: inside.server.connections <= 4)


def test_requests_wait_for_the_first_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has just started keeps them waiting for a while, instead of denying them."""
    monkeypatch.setattr(server, "HOLD", PATIENCE)
    asked: list[bool] = []

    def check(request: Request) -> Decision:
        asked.append(ready.is_set())
        return by_name(request)

    ready = threading.Event()
    with Inside(tmp_path, check, ready=ready.is_set) as inside, kong_with(inside) as kong:
        threading.Timer(0.3, ready.set).start()
        assert right(kong)
        assert asked == [True]


def test_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Vault is away, they are answered what there is to say."""
    monkeypatch.setattr(server, "HOLD", 0.2)
    denied: Callable[[Request], Decision] = lambda _: Denied(Reason.NO_CREDENTIAL, retry_after=5)  # noqa: E731
    with Inside(tmp_path, denied, ready=lambda: False) as inside, kong_with(inside) as kong:
        answer = kong.request("GET", "/pay")
        assert (answer.status, answer.header("retry-after")) == (503, "5")
