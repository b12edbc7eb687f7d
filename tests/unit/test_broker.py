"""The story of one check, over tables made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf

import pytest

from vaultauthz._pb.ext_authz_pb2 import CheckRequest
from vaultauthz.broker import Binding, BindingTable, Broker, Former
from vaultauthz.core.callers import Callers, Pattern, Rule
from vaultauthz.core.credential import Credential, Login, Slot
from vaultauthz.core.decision import Allowed, Decision, Denied, Reason
from vaultauthz.core.injection import Mutation
from vaultauthz.core.request import Request
from vaultauthz.core.routing import Route, Routes
from vaultauthz.envoy.request import read
from vaultauthz.leases.later import Later

NOW = 1000.0
ANY = Callers(allow=None)
SHOP = Callers(allow=(Rule(principal=Pattern.parse("spiffe://corp/shop")),))
NO_ADMIN = Callers(allow=None, deny=(Rule(path_prefix="/admin"),))
PAY_ROUTE = Route("pay", "prod", host="pay.test")


def credential(
    name: str = "c_1", *, ends_at: float = inf, login: Login | None = None
) -> Credential:
    """A credential that sets one header."""
    mutation = Mutation(headers=(("x-key", name),))
    return Credential(mutation, name, f"lease/{name}", ends_at, login or Login())


def binding(
    upstream: str = "pay",
    stage: str = "prod",
    *,
    callers: Callers = ANY,
    held: Credential | None = None,
    retry_at: float = 0.0,
) -> Binding:
    """An upstream in a stage; without ``held`` it has no credential."""
    slot = Slot()
    slot.credential, slot.retry_at = held, retry_at
    return Binding(upstream, stage, callers, slot)


def held_by(upstream: str = "pay", stage: str = "prod", callers: Callers = ANY) -> Binding:
    """An upstream with a credential that is named after both."""
    return binding(upstream, stage, callers=callers, held=credential(f"{upstream}-{stage}"))


class Recorder:
    """Writes decisions down, until it is told that it cannot."""

    def __init__(self) -> None:
        self.works = True
        self.seen: list[tuple[Request, Decision]] = []

    def __call__(self, request: Request, decision: Decision) -> bool:
        self.seen.append((request, decision))
        return self.works


def broker(
    *bindings: Binding,
    routes: Iterable[Route] = (),
    passes: bool = False,
    record: Callable[[Request, Decision], bool] = lambda *_: True,
) -> Broker:
    """A broker over these bindings at the time ``NOW``."""
    table = BindingTable(bindings, Routes.of(routes), pass_unmatched=passes)
    return Broker(table, record, lambda: NOW)


def named(upstream: str, stage: str = "", path: str = "/", principal: str = "") -> Request:
    """A request whose gateway names the upstream."""
    return Request(
        "envoy", "GET", "any.test", path, upstream=upstream, stage=stage, principal=principal
    )


def sent_to(host: str, path: str = "/") -> Request:
    """A request whose gateway names nothing."""
    return Request("envoy", "GET", host, path)


def credential_of(decision: Decision) -> str:
    """Which credential an allowed request got."""
    assert isinstance(decision, Allowed), decision
    assert decision.credential is not None
    return decision.credential.credential_id


def reason_of(decision: Decision) -> Reason:
    """Why a request was denied."""
    assert isinstance(decision, Denied), decision
    return decision.reason


class TestWhichUpstream:
    def test_the_gateway_names_it(self) -> None:
        """Upstream and stage from the gateway's route choose the credential, whatever the host."""
        made = broker(held_by("pay"), held_by("geo"), routes=[PAY_ROUTE])
        request = named("geo", "prod")
        request.host = "pay.test"
        assert credential_of(made.check(request)) == "geo-prod"

    @pytest.mark.parametrize("path", ["//admin/x", "/./admin", "/x/../admin", "/%61dmin"])
    def test_a_path_that_leads_to_two_of_them(self, path: str) -> None:
        """By one reading to the one and by another to the other: nobody's credential is sent to either."""
        routes = [
            Route("web", "prod", path_prefix="/"),
            Route("admin", "prod", path_prefix="/admin"),
        ]
        made = broker(held_by("web"), held_by("admin"), routes=routes)
        assert made.check(sent_to("any.test", path)) == Denied(Reason.BAD_REQUEST)
        assert credential_of(made.check(sent_to("any.test", "/admin/x"))) == "admin-prod"
        assert credential_of(made.check(sent_to("any.test", "/x"))) == "web-prod"

    def test_each_stage_has_its_own(self) -> None:
        """The same upstream in two stages has two credentials."""
        made = broker(held_by("pay", "prod"), held_by("pay", "test"))
        assert credential_of(made.check(named("pay", "test"))) == "pay-test"
        assert credential_of(made.check(named("pay", "prod"))) == "pay-prod"

    def test_the_only_stage_may_be_left_out(self) -> None:
        """An upstream that lives in one stage is found without it, also beside other stages."""
        made = broker(held_by("pay", "prod"), held_by("geo", "test"))
        assert credential_of(made.check(named("pay"))) == "pay-prod"
        assert credential_of(made.check(named("geo"))) == "geo-test"

    def test_of_two_stages_none_is_guessed(self) -> None:
        """Without a stage, an upstream with two is nobody's."""
        made = broker(held_by("pay", "prod"), held_by("pay", "test"))
        assert made.check(named("pay")) == Denied(Reason.NO_UPSTREAM, "pay", "")

    def test_a_wrong_stage_is_not_mended(self) -> None:
        """A stage that the upstream is not in is denied although it has only one other."""
        made = broker(held_by("pay", "prod"))
        assert made.check(named("pay", "test")) == Denied(Reason.NO_UPSTREAM, "pay", "test")

    def test_a_stage_alone_names_nothing(self) -> None:
        """Without an upstream the stage that the gateway names plays no part."""
        made = broker(held_by("pay", "prod"), held_by("pay", "test"), routes=[PAY_ROUTE])
        request = sent_to("pay.test")
        request.stage = "test"
        assert credential_of(made.check(request)) == "pay-prod"

    def test_our_routes_find_it(self) -> None:
        """Named by nobody, it is looked up by host (with its port) and the longest prefix."""
        routes = [PAY_ROUTE, Route("geo", "prod", host="pay.test", path_prefix="/geo")]
        made = broker(held_by("pay"), held_by("geo"), routes=routes)
        assert credential_of(made.check(sent_to("PAY.test:8443", "/x?to=/geo"))) == "pay-prod"
        assert credential_of(made.check(sent_to("pay.test", "/geo?q=1"))) == "geo-prod"

    @pytest.mark.parametrize(("method", "path"), [("CONNECT", ""), ("OPTIONS", "*")])
    def test_what_has_no_path(self, method: str, path: str) -> None:
        """It is for a route by host alone, also where other routes go by a path."""
        routes = [PAY_ROUTE, Route("geo", "prod", host="geo.test", path_prefix="/geo")]
        made = broker(held_by("pay"), held_by("geo"), routes=routes)
        request = replace(sent_to("pay.test:443", path), method=method)
        assert credential_of(made.check(request)) == "pay-prod"
        request = replace(sent_to("geo.test:443", path), method=method)
        assert made.check(request) == Denied(Reason.NO_UPSTREAM)

    @pytest.mark.parametrize(("method", "path"), [("CONNECT", ""), ("OPTIONS", "*")])
    @pytest.mark.parametrize("by_name", [False, True])
    def test_a_query_has_no_place_there(self, method: str, path: str, by_name: bool) -> None:
        """It would go on without its credential, or not at all: Envoy wants a path for one."""
        held = replace(credential(), mutation=Mutation(query=(("key", "s3cr3t"),)))
        made = broker(binding(held=held), routes=[PAY_ROUTE])
        request = replace(sent_to("pay.test:443", path), method=method)
        request.upstream = "pay" if by_name else ""
        assert made.check(request) == Denied(Reason.BAD_REQUEST, "pay", "prod")
        assert made.check(replace(request, path="/", method="GET")).allowed

    @pytest.mark.parametrize("rule", ["callers", "deny"])
    def test_a_tunnel_past_a_rule_about_paths(self, rule: str) -> None:
        """What goes through it has paths that the rule never sees."""
        rules = (Rule(path_prefix="/admin"),)
        callers = Callers(rules) if rule == "callers" else Callers(None, rules)
        made = broker(held_by("pay", callers=callers), routes=[PAY_ROUTE])
        request = replace(sent_to("pay.test:443", ""), method="CONNECT")
        assert made.check(request) == Denied(Reason.BAD_REQUEST)
        request.upstream = "pay"
        assert made.check(request) == Denied(Reason.BAD_REQUEST)

    def test_no_path_is_one_of_connect_only(self) -> None:
        """Of another method nobody knows what it asks for, where a path decides."""
        routes = [PAY_ROUTE, Route("geo", "prod", host="geo.test", path_prefix="/geo")]
        made = broker(held_by("pay"), held_by("geo"), routes=routes)
        assert made.check(sent_to("pay.test", "")) == Denied(Reason.BAD_REQUEST)

    @pytest.mark.parametrize("passes", [False, True])
    def test_an_unknown_name_is_denied(self, passes: bool) -> None:
        """What the gateway names must exist: neither routes nor `unmatched: pass` make up for it."""
        made = broker(held_by("pay"), routes=[PAY_ROUTE], passes=passes)
        request = named("gone")
        request.host = "pay.test"
        assert made.check(request) == Denied(Reason.NO_UPSTREAM, "gone", "")

    def test_unmatched_is_denied(self) -> None:
        """No name and no route: no_upstream."""
        made = broker(held_by("pay"), routes=[PAY_ROUTE])
        assert made.check(sent_to("other.test")) == Denied(Reason.NO_UPSTREAM)

    def test_unmatched_passes_with_nothing_set(self) -> None:
        """Under `unmatched: pass` such a request goes on, with no credential whatever."""
        made = broker(held_by("pay"), routes=[PAY_ROUTE], passes=True)
        assert made.check(sent_to("other.test")) == Allowed("", "", None)

    def test_headers_choose_nothing(self) -> None:
        """Headers that name an upstream, a stage or a caller are not looked at."""
        sent = CheckRequest()
        http = sent.attributes.request.http
        http.method, http.host, http.path = b"GET", b"other.test", b"/?upstream=pay&stage=prod"
        claims = ("upstream", "stage", "x-vaultauthz-upstream", "x-upstream", "x-stage", "host")
        for name in claims:
            http.headers[name] = b"pay.test" if name == "host" else b"pay"
        http.headers["x-forwarded-host"] = b"pay.test"
        http.headers["cookie"] = b"upstream=pay; stage=prod"
        http.headers["x-forwarded-client-cert"] = b"URI=spiffe://corp/shop"
        made = broker(held_by("pay", callers=SHOP), routes=[PAY_ROUTE])
        request = read(sent.SerializeToString())
        assert reason_of(made.check(request)) is Reason.NO_UPSTREAM
        request.upstream = "pay"  # now the gateway says so, and the caller is still nobody
        assert reason_of(made.check(request)) is Reason.CALLER_DENIED


class TestWho:
    def test_a_caller_without_a_rule_is_denied(self) -> None:
        """caller_denied names the upstream and stage, for the audit log."""
        made = broker(held_by("pay", callers=SHOP))
        stranger = named("pay", principal="spiffe://corp/other")
        assert made.check(stranger) == Denied(Reason.CALLER_DENIED, "pay", "prod")
        assert credential_of(made.check(named("pay", principal="spiffe://corp/shop")))

    def test_the_caller_is_judged_first(self) -> None:
        """A stranger is not told that there is no credential."""
        made = broker(binding("pay", callers=SHOP))
        assert reason_of(made.check(named("pay"))) is Reason.CALLER_DENIED


class TestAmbiguousPaths:
    TRICKS = ("/v1/../admin", "/v1/%2e%2e/admin", "/v1/%2E./admin", "/v1\\..\\admin", "/v1/.")

    @pytest.mark.parametrize("path", TRICKS)
    def test_denied_where_a_route_reads_the_path(self, path: str) -> None:
        """With a path prefix among the routes, such a path is a bad request, matched or not."""
        routes = [Route("pay", "prod", host="pay.test", path_prefix="/v1")]
        made = broker(held_by("pay"), routes=routes, passes=True)
        assert made.check(sent_to("pay.test", path)) == Denied(Reason.BAD_REQUEST)
        assert made.check(sent_to("other.test", path)) == Denied(Reason.BAD_REQUEST)

    @pytest.mark.parametrize("path", TRICKS)
    def test_denied_where_a_rule_reads_the_path(self, path: str) -> None:
        """With a path prefix among the callers it is one too, however the upstream was found."""
        made = broker(held_by("pay", callers=NO_ADMIN), routes=[PAY_ROUTE])
        assert made.check(named("pay", path=path)) == Denied(Reason.BAD_REQUEST)
        assert made.check(sent_to("pay.test", path)) == Denied(Reason.BAD_REQUEST)

    @pytest.mark.parametrize("path", TRICKS)
    def test_allowed_where_the_path_decides_nothing(self, path: str) -> None:
        """Elsewhere the path is the upstream's own business."""
        made = broker(held_by("pay"), held_by("geo", callers=NO_ADMIN), routes=[PAY_ROUTE])
        assert credential_of(made.check(named("pay", path=path))) == "pay-prod"
        assert credential_of(made.check(sent_to("pay.test", path))) == "pay-prod"

    def test_a_route_that_reads_the_path_does_not_matter_to_a_named_upstream(self) -> None:
        """The gateway's own name was not found by any path."""
        routes = [Route("geo", "prod", path_prefix="/v1")]
        made = broker(held_by("pay"), held_by("geo"), routes=routes)
        assert credential_of(made.check(named("pay", path="/a/../b"))) == "pay-prod"

    def test_dots_in_the_query_are_no_segments(self) -> None:
        """Only the path counts, not what follows the question mark."""
        made = broker(held_by("pay", callers=NO_ADMIN))
        assert credential_of(made.check(named("pay", path="/a?b=/../c"))) == "pay-prod"


class TestCredential:
    def test_none_yet(self) -> None:
        """no_credential before the first one arrived, and the next try is a second away."""
        decision = broker(binding("pay")).check(named("pay"))
        assert decision == Denied(Reason.NO_CREDENTIAL, "pay", "prod", retry_after=1)

    @pytest.mark.parametrize(
        "held",
        [
            credential(ends_at=NOW),
            credential(ends_at=NOW - 1),
            credential(login=Login(ends_at=NOW)),
            credential(login=Login(ends_at=-inf)),
        ],
        ids=["ends now", "ended", "its login ends now", "its login died"],
    )
    def test_an_ended_one_is_not_used(self, held: Credential) -> None:
        """At the lease's end, and at its login's, the credential is no more."""
        made = broker(binding("pay", held=held))
        assert reason_of(made.check(named("pay"))) is Reason.NO_CREDENTIAL

    def test_used_until_its_very_end(self) -> None:
        """A moment before the end of lease and login it still is."""
        held = credential(ends_at=NOW + 0.001, login=Login(ends_at=NOW + 0.001))
        assert credential_of(broker(binding("pay", held=held)).check(named("pay"))) == "c_1"

    def test_a_login_that_dies_takes_its_credentials_along(self) -> None:
        """One assignment to the login ends every credential that hangs on it."""
        login = Login()
        made = broker(binding("pay", held=credential(login=login)))
        assert credential_of(made.check(named("pay")))
        login.ends_at = -inf
        assert reason_of(made.check(named("pay"))) is Reason.NO_CREDENTIAL

    @pytest.mark.parametrize(
        ("retry_in", "told"),
        [(-5.0, 1), (0.0, 1), (0.2, 1), (1.0, 1), (1.1, 2), (59.5, 60), (61.0, 60), (inf, 60)],
    )
    def test_retry_after(self, retry_in: float, told: int) -> None:
        """A client is told when Vault is asked next: whole seconds, from 1 to 60."""
        made = broker(binding("pay", retry_at=NOW + retry_in))
        assert made.check(named("pay")) == Denied(
            Reason.NO_CREDENTIAL, "pay", "prod", retry_after=told
        )

    def test_uses_are_counted(self) -> None:
        """Only checks that took the credential count: they order who is fetched first."""
        with_rule = held_by("pay", callers=SHOP)
        made = broker(with_rule)
        made.check(named("pay"))
        for _ in range(3):
            made.check(named("pay", principal="spiffe://corp/shop"))
        assert isinstance(with_rule.source, Slot)
        assert with_rule.source.uses == 3


class FickleSlot(Slot):
    """Loses its credential once it has been read, as under a keeper that withdraws it just then."""

    __slots__ = ("reads",)

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __getattribute__(self, name: str) -> object:
        value: object = super().__getattribute__(name)
        if name == "credential":
            self.reads += 1
            self.credential = None
        return value


class TestOneView:
    def test_the_slot_is_read_once(self) -> None:
        """What was found usable is what goes into the answer."""
        slot = FickleSlot()
        slot.credential = credential()
        made = broker(Binding("pay", "prod", ANY, slot))
        assert credential_of(made.check(named("pay"))) == "c_1"
        assert slot.reads == 1

    def test_the_table_is_read_once(self) -> None:
        """A configuration that changes in the middle of a check does not mix with the old one."""

        class Replaced(BindingTable):
            def routed(self, host: str, path: str) -> Binding | None:
                made.table = BindingTable((), Routes())
                return super().routed(host, path)

        made = broker()
        made.table = Replaced((), Routes(), pass_unmatched=True)
        assert made.check(sent_to("any.test")).allowed
        assert not made.check(sent_to("any.test")).allowed


class TestRecorder:
    def test_told_of_every_check(self) -> None:
        """Allowed or denied, each is recorded once, with the answer that it gets."""
        recorder = Recorder()
        made = broker(held_by("pay"), record=recorder)
        requests = [named("pay"), named("gone"), sent_to("other.test")]
        decisions = [made.check(request) for request in requests]
        assert recorder.seen == list(zip(requests, decisions, strict=True))

    def test_no_record_no_access(self) -> None:
        """An access that cannot be written down does not happen: overloaded, try in a second."""
        recorder = Recorder()
        made = broker(held_by("pay"), record=recorder, passes=True)
        recorder.works = False
        overloaded = Denied(Reason.OVERLOADED, "pay", "prod", retry_after=1)
        assert made.check(named("pay")) == overloaded
        assert made.check(sent_to("other.test")) == Denied(Reason.OVERLOADED, retry_after=1)
        recorder.works = True
        assert credential_of(made.check(named("pay"))) == "pay-prod"

    def test_a_denial_stays_what_it_is(self) -> None:
        """A request that was denied anyway keeps its reason, recorded or not."""
        made = broker(held_by("pay", callers=SHOP), record=lambda *_: False)
        assert reason_of(made.check(named("pay"))) is Reason.CALLER_DENIED


class TestAfterAReload:
    """The credential that was in use is had by the rules that it came with, too."""

    BOTH = "spiffe://corp/shop"

    def made(self, *before: Callers, held: str = "c_1") -> Broker:
        """An upstream that anybody may use now; ``before`` are the rules of the reloads before."""
        now = binding("pay", held=credential(held))
        return broker(replace(now, former=Former("c_1", before)))

    def test_the_new_callers_do_not_get_the_old_one(self) -> None:
        """Who was none before waits for the new credential; who was one goes on."""
        made = self.made(SHOP)
        denied = Denied(Reason.CALLER_DENIED, "pay", "prod")
        assert made.check(named("pay", principal="spiffe://corp/other")) == denied
        assert credential_of(made.check(named("pay", principal=self.BOTH))) == "c_1"

    def test_the_new_one_is_had_by_the_new_rules(self) -> None:
        """From the moment on in which it is there."""
        made = self.made(SHOP, held="c_2")
        assert credential_of(made.check(named("pay", principal="spiffe://corp/other"))) == "c_2"

    def test_after_two_reloads(self) -> None:
        """The rules of both stand, whichever of the two denies."""
        other = Callers((Rule(principal=Pattern.parse("spiffe://corp/o*")),))
        for before in ((SHOP, other), (other, SHOP)):
            for principal in (self.BOTH, "spiffe://corp/other"):
                decision = self.made(*before).check(named("pay", principal=principal))
                assert reason_of(decision) is Reason.CALLER_DENIED
        assert credential_of(self.made(SHOP, SHOP).check(named("pay", principal=self.BOTH)))


class TestAliases:
    """A name with too many spellings to list: what this request has of it is dropped."""

    HELD = replace(
        credential(),
        mutation=Mutation(
            headers=(("x-a-b", "1"),), remove=("x-a_b",), filled=("x-a-b",), long=("xab",)
        ),
    )

    def asked(self, *sent: str, unreadable: bool = False) -> Decision:
        """With these headers."""
        request = named("pay")
        asked: list[object] = []

        def look(names: object) -> tuple[tuple[str, str], ...] | None:
            asked.append(names)
            return None if unreadable else tuple((name, "x") for name in sent)

        request.headers = look
        decision = broker(binding(held=self.HELD)).check(request)
        assert asked == [("xab",)]
        return decision

    def test_what_we_set_or_remove_anyway_is_not_named_again(self) -> None:
        """The others are, each once."""
        decision = self.asked("x-a-b", "x_a-b", "x-a_b", "x_a_b", "x_a-b")
        assert isinstance(decision, Allowed)
        assert decision.dropped == ("x_a-b", "x_a_b")
        assert credential_of(decision) == "c_1"

    def test_none_was_sent(self) -> None:
        """Then the answer is that of every request."""
        decision = self.asked("x-a-b")
        assert isinstance(decision, Allowed)
        assert decision.dropped == ()

    def test_nobody_can_say_what_was_sent(self) -> None:
        """One of them could get through: a bad request, of this upstream."""
        assert self.asked(unreadable=True) == Denied(Reason.BAD_REQUEST, "pay", "prod")


class Promised:
    """A source whose answer comes later."""

    def __init__(self) -> None:
        self.answer: Later[Decision] = Later()
        self.waits: list[float] = []

    def take(self, request: Request, wait: float) -> Later[Decision]:
        self.waits.append(wait)
        return self.answer


class TestLater:
    """An answer that waits for Vault."""

    def asked(self, record: Callable[[Request, Decision], bool]) -> Decision:
        source = Promised()
        bound = Binding("pay", "prod", ANY, source)  # type: ignore[arg-type]  # what is used of one
        request = named("pay")
        request.wait = 2.5
        promised = broker(bound, record=record).start(request)
        assert isinstance(promised, Later)
        assert source.waits == [2.5]
        source.answer.answer(Allowed("pay", "prod", credential()))
        return promised.wait()

    def test_it_is_recorded_when_it_is_there(self) -> None:
        """As any other; what cannot be recorded does not happen."""
        recorder = Recorder()
        assert credential_of(self.asked(recorder)) == "c_1"
        assert [decision.allowed for _, decision in recorder.seen] == [True]
        recorder.works = False
        assert self.asked(recorder) == Denied(Reason.OVERLOADED, "pay", "prod", retry_after=1)

    def test_an_error_in_a_recorder_is_a_denial(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody is left who could make one of it; the log has its type, and not its text."""

        def broken(*_: object) -> bool:
            raise ZeroDivisionError("s3cr3t")

        assert self.asked(broken) == Denied(Reason.INTERNAL, "pay", "prod")
        assert caplog.messages == ["a check could not be recorded: ZeroDivisionError"]
