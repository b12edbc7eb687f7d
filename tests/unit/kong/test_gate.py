"""What the plugin asks of Kong about a request, and who the caller is then: the generator, without a socket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.kong_inside import allowed, nobody
from vaultauthz._pb import kong_pb2 as pb
from vaultauthz.broker import Binding, BindingTable, Broker
from vaultauthz.config.values import Config, KvSecret, Upstream, Vault
from vaultauthz.core.callers import Callers, Pattern, Rule
from vaultauthz.core.credential import Slot
from vaultauthz.core.decision import Decision, Denied, Reason
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Route, Routes
from vaultauthz.kong import calls
from vaultauthz.kong.calls import PdkCall, frame
from vaultauthz.kong.connection import Connection, HangUp
from vaultauthz.kong.gate import End, Gate, Instance, Instances, PluginConfigError, instance_of

NAMED, ROUTED = Instance("pay", "prod"), Instance("", "")
KNOWN = {
    calls.REQUEST_ID: "1",
    calls.REQUEST_LINE: "GET / HTTP/1.1",
    calls.HOST: "h",
    calls.PATH: "/",
    calls.CONSUMER: "shop-anonymous",
    calls.CREDENTIAL: False,
}


class World:
    """One upstream with these callers; ``seen`` are the requests that a decision was made about."""

    def __init__(self, callers: Callers, per: str = "instance") -> None:
        slot = Slot()
        slot.credential = allowed("pay").credential
        upstream = Upstream("pay", ("prod",), {"prod": KvSecret("a/b")}, (), callers, per=per)
        table = BindingTable(
            [Binding("pay", "prod", callers, slot)],
            Routes.of([Route("pay", "prod", path_prefix="/")]),
        )
        config = Config(Vault("http://127.0.0.1:1"), {}, {"pay": upstream})
        self.seen: list[Request] = []
        self.broker = Broker(table, self._record, lambda: 0.0)
        self.gate = Gate(self.broker.check, lambda: self.broker.table, lambda: config, nobody())

    def change(self, callers: Callers) -> None:
        """The same upstream with other callers."""
        bindings = self.broker.table.bindings.values()
        self.broker.table = BindingTable(
            [Binding("pay", "prod", callers, each.source) for each in bindings], Routes()
        )

    def _record(self, request: Request, decision: Decision) -> bool:
        self.seen.append(request)
        return True

    def ask(self, instance: Instance, **known: Any) -> tuple[set[str], End]:
        """The names of what Kong was asked, and how it ended."""
        asked: set[str] = set()
        steps = self.gate.access(Instance(instance.upstream, instance.stage))
        wanted: Any = next(steps)
        try:
            while True:
                asked.update(call.name for call in wanted.calls)
                wanted = steps.send({call: KNOWN[call] for call in wanted.calls})
        except StopIteration as stop:
            return asked, stop.value


def rules(*consumers: str, deny: Iterable[str] = ()) -> Callers:
    """Rules about consumers by pattern."""
    allow, denied = (
        tuple(Rule(consumer=Pattern.parse(text)) for text in texts) for texts in (consumers, deny)
    )
    return Callers(allow or None, denied)


@pytest.mark.parametrize("instance", [NAMED, ROUTED], ids=["named", "routed"])
class TestAnonymous:
    """key-auth's anonymous consumer: one of nobody's credential."""

    @pytest.mark.parametrize(
        ("callers", "consumer", "passes"),
        [
            (rules("shop-*"), "", False),
            (rules("other", "shop-*"), "", False),
            (rules("shop-anonymous"), "shop-anonymous", True),
            (rules(deny=["shop-*"]), "shop-anonymous", False),
            (rules("*", deny=["other*"]), "", False),
        ],
    )
    def test_no_pattern_means_it(
        self, instance: Instance, callers: Callers, consumer: str, passes: bool
    ) -> None:
        """It is let in by its name in full only, and denied by either; whoever decides has the same."""
        world = World(callers)
        _, end = world.ask(instance)
        assert [request.consumer for request in world.seen] == [consumer]
        assert end.answers != passes

    def test_it_has_no_lease_of_its_own(self, instance: Instance) -> None:
        """Under `per: caller` it is nobody, whatever the rules say."""
        world = World(Callers(None), per="caller")
        asked, _ = world.ask(instance)
        assert {calls.CONSUMER.name, calls.CREDENTIAL.name} <= asked
        assert [request.identity for request in world.seen] == [()]

    def test_what_no_rule_wants_is_not_asked(self, instance: Instance) -> None:
        """Each question costs the request something."""
        asked, _ = World(rules("shop-anonymous")).ask(instance)
        assert calls.CONSUMER.name in asked
        assert calls.CREDENTIAL.name not in asked


def answers(asked: Iterable[PdkCall]) -> bytes:
    """Kong's results for these."""
    return b"".join(
        frame(pb.String(v=str(KNOWN[call]).encode()).SerializeToString()) for call in asked
    )


@pytest.mark.parametrize("message", [b"", b"x", pb.RpcCall(sequence=2).SerializeToString()])
def test_a_frame_after_the_client_was_answered(message: bytes) -> None:
    """Kong says no more on that connection: whoever does is hung up on, and gets nothing."""
    sent: list[bytes] = []
    instances = Instances()
    config, table = Config(Vault("http://127.0.0.1:1"), {}, {}), BindingTable([], Routes())
    gate = Gate(lambda _: Denied(Reason.CALLER_DENIED), lambda: table, lambda: config, nobody())
    connection = Connection(gate, instances, sent.append, lambda _: None)
    event = pb.CmdHandleEvent(instance_id=instances.add(Instance("pay", "")), event_name="access")
    begun = frame(pb.RpcCall(sequence=1, cmd_handle_event=event).SerializeToString())
    connection.take(begun)
    known = answers([calls.REQUEST_ID, calls.REQUEST_LINE, calls.HOST])
    connection.take(known + frame(b""))  # … and no consumer
    assert b"kong.response.exit" in sent[-1]
    assert connection.owed  # its hanging up
    said = len(sent)
    for more in (frame(message), begun):
        with pytest.raises(HangUp):
            connection.take(more)
    assert len(sent) == said


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ('{"upstream": "pay", "stage": "prod"}', ("pay", "prod")),
        (b'{"upstream": "pay", "stage": null, "__key__": 1}', ("pay", "")),
        ("{}", ("", "")),
    ],
)
def test_what_an_instance_names(data: str | bytes, names: tuple[str, str]) -> None:
    """Both may be left out."""
    instance = instance_of(data)
    assert (instance.upstream, instance.stage) == names


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("{", "the plugin's configuration is no JSON"),
        (b"\xff", "the plugin's configuration is no JSON"),
        ("[]", "the plugin's configuration is no object"),
        ('{"stage": 1}', "upstream and stage of the plugin's configuration are names"),
        ('{"upstream": []}', "upstream and stage of the plugin's configuration are names"),
    ],
)
def test_what_is_no_configuration(data: str | bytes, why: str) -> None:
    """Kong's log has the reason."""
    with pytest.raises(PluginConfigError) as refused:
        instance_of(data)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    ("upstream", "stage", "told"),
    [("pay", "prod", False), ("pay", "", False), ("", "", False), ("pay", "test", True)],
)
def test_an_upstream_that_there_is_not(
    upstream: str, stage: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The plugin begins, as a reload may bring it; the log says what its requests get."""
    data = f'{{"upstream": "{upstream}", "stage": "{stage}"}}'
    instance = World(Callers(None)).gate.begin(data)
    assert (instance.upstream, instance.stage) == (upstream, stage)
    assert bool(caplog.messages) is told


def test_a_name_without_end_is_cut_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Of both names the log has 200 characters."""
    World(Callers(None)).gate.begin(f'{{"upstream": "{"u" * 201}", "stage": "{"s" * 201}"}}')
    names = f"upstream '{'u' * 200}', stage '{'s' * 200}'"
    (told,) = caplog.messages
    assert told == (
        f"a plugin in Kong names {names}, which the configuration does not have: "
        "its requests are answered 403"
    )


def test_the_log_phase_is_told_what_kong_says_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the one call that it makes there; it answers nobody."""
    told: list[str] = []
    world = World(Callers(None))
    monkeypatch.setattr(world.gate._log_phase, "finished", told.append)
    end = world.gate.log()
    assert (list(end.batch.calls), end.answers) == ([calls.SERIALIZE], False)
    assert end.take is not None
    end.take({calls.SERIALIZE: "{}"})
    assert told == ["{}"]


def test_an_instance_that_kong_has_closed_is_not_known() -> None:
    """Closing it twice does no harm, and no other is lost."""
    instances = Instances()
    first, second = (instances.add(Instance("pay", stage)) for stage in ("prod", "test"))
    for _ in range(2):
        instances.drop(first)
        assert instances.get(first) is None
        assert instances.named == {second: ("pay", "test")}


def test_another_configuration_is_other_questions() -> None:
    """Asked by the rules of now; made once for each."""
    world = World(rules("shop-*"))
    instance = Instance("pay", "prod")
    first = next(world.gate.access(instance))
    assert next(world.gate.access(instance)) is first
    assert calls.CREDENTIAL in first.calls  # type: ignore[union-attr]
    world.change(Callers(None))
    second = next(world.gate.access(instance))
    assert calls.CREDENTIAL not in second.calls  # type: ignore[union-attr]
    assert instance.callers == Callers(None)


@pytest.mark.parametrize("stage", ["prod", "test"])
def test_the_plugin_names_the_upstream_and_its_stage(stage: str) -> None:
    """What our routes would find has no part in it; and a request waits five seconds for Vault."""
    world = World(Callers(None))
    _, end = world.ask(Instance("pay", stage))
    (request,) = world.seen
    assert (request.gateway, request.upstream, request.stage) == ("kong", "pay", stage)
    assert request.wait == 5.0
    assert end.answers == (stage == "test"), "a stage that it has not"


@pytest.mark.parametrize("instance", [NAMED, ROUTED], ids=["named", "routed"])
def test_what_this_request_alone_gets(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature, or what it has to lose, beside what each request with this credential gets."""
    world = World(Callers(None))
    common = allowed("pay")
    for more in ({"signed": (("x-signature", "s"),)}, {"dropped": ("x_a",)}, {}):
        decision = replace(common, **more)
        monkeypatch.setattr(world.gate, "_check", lambda _, decision=decision: decision)
        _, end = world.ask(instance)
        made = [call.frames for call in end.batch.calls]
        assert common.credential
        assert calls.set_headers(common.credential.mutation.headers).frames in made
        signed = calls.set_headers([("x-signature", "s")]).frames
        assert (signed in made) == ("signed" in more)
        assert (calls.clear_header("x_a").frames in made) == ("dropped" in more)


def test_the_oldest_instance_goes_when_there_are_too_many() -> None:
    """Kong does not close what it forgets; a hundred thousand are kept."""
    instances, instance = Instances(), Instance("pay", "prod")
    numbers = [instances.add(instance) for _ in range(100_001)]
    assert [instances.get(number) is None for number in numbers[:3]] == [True, False, False]
    assert len(instances.named) == 100_000
