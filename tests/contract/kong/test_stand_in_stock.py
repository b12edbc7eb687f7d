"""The stand-in against the real kong-python-pluginserver: what was seen with the real Kong is seen with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.contract.kong import adversary, sample
from tests.contract.kong.adversary import Intruder
from tests.contract.kong.answer import Verdict
from tests.contract.kong.kong import Kong
from tests.contract.kong.process import StartFailed, wait_until
from tests.contract.kong.routes import Consumer, Guard, Route, Server, Settings
from tests.contract.kong.stock import stock_server
from tests.contract.kong.upstream import Service
from tests.patience import PATIENCE

SHORT = Settings(timeout=2, event_delay=60, respawn=0.2)
INJECTED = "Bearer pay"
Start = Callable[..., AbstractContextManager[Kong]]


def route(
    name: str, act: str = "inject", *, log: str | None = None, guard: Guard | None = None
) -> Route:
    return Route(name, f"/{name}", {"credential": name, "act": act, "log": log}, guard=guard)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return stock_server(tmp_path_factory.mktemp("k"), Path(sample.__file__))


@pytest.fixture
def start(server: Server) -> Start:
    """Start a Kong of one's own with the stock server."""

    def started(*routes: Route, workers: int = 1, settings: Settings = SHORT) -> Kong:
        return Kong(server, routes, workers=workers, settings=settings)

    return started


@pytest.fixture(scope="module")
def kong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kong]:
    """One Kong for the tests that leave the server as it was."""
    acts = ["tell", "copy_header", "unknown_method", "leave_bare", "leave_full"]
    logs = {"serialize": "kong.log.serialize", "path": "kong.request.get_path"}
    routes = [route("pay"), route("geo"), *(route(act, act) for act in acts)]
    routes += [route(f"log_{name}", log=method) for name, method in logs.items()]
    routes += [route("guarded", "copy_header", guard=Guard(headers=("Authorization",)))]
    own = stock_server(tmp_path_factory.mktemp("k"), Path(sample.__file__))
    with Kong(own, routes, settings=Settings(timeout=2)) as running:
        yield running


def threads_of(kong: Kong) -> int:
    status = Path(f"/proc/{kong.supervisor.pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


def test_each_route_gets_its_own_credential(kong: Kong) -> None:
    """A request gets what its route's config says, in n + 1 round trips."""
    for name in ("pay", "geo"):
        answer = kong.request("GET", f"/{name}", headers=[("authorization", "Bearer mine")])
        assert answer.upstream.header("Authorization") == f"Bearer {name}"
        assert answer.pdk_calls == ("kong.service.request.set_header",)
        assert answer.access.round_trips == 2


def test_what_the_pdk_gives(kong: Kong) -> None:
    """A plugin reads the consumer, its credential, its groups, several headers, arguments and Kong's config keys."""
    who = Consumer("shop", groups=("partners", "staff"))
    seen = [("X-Seen", "1"), ("x-seen", "2")]
    told = kong.request("GET", "/tell?a=1&b&a=2", headers=seen, consumer=who).upstream
    assert told.header("X-Name") == "shop"
    assert told.header("X-Key") == "key-of-shop"
    assert told.header("X-Groups") == "(['partners', 'staff'], ['partners', 'staff'])"
    assert told.values("X-Seen") == ["['1', '2']"]
    assert told.header("X-Joined") == "'1, 2'"
    assert told.header("X-Arguments") == "[('a', ['1', '2']), ('b', [])]"
    keys = "['__key__', '__plugin_id', '__seq__', '__ws_id', 'credential', 'route_id']"
    assert told.header("X-Config") == keys


def test_nobody_is_nil(kong: Kong) -> None:
    """Without a consumer the step carries no Data, and Python has None."""
    told = kong.request("GET", "/tell").upstream
    assert told.header("X-Name") == "nobody"
    assert told.header("X-Groups") == "(None, None)"
    assert told.header("X-Seen") == "None"


def test_a_header_that_is_not_utf8_passes_the_plugin_over(kong: Kong) -> None:
    """Bytes that are not UTF-8 break the server's unpacker, and the request goes on without a credential."""
    answer = kong.request("GET", "/copy_header", headers=[("X-Trace", b"\xe9")])
    assert answer.error == "no data"
    assert answer.upstream.header("Authorization") is None
    assert answer.upstream.header_bytes("X-Trace") == b"\xe9"
    assert kong.request("GET", "/copy_header").upstream.header("Authorization") is not None


def test_the_guard_answers_instead(kong: Kong) -> None:
    """With the guard's two functions such a request ends in a 503, and a client's own header never counts."""
    headers = [("X-Trace", b"\xe9"), ("Authorization", b"Bearer mine")]
    answer = kong.request("GET", "/guarded", headers=headers)
    assert (answer.verdict, answer.status) == (Verdict.GUARDED, 503)
    assert answer.received is None
    assert kong.request("GET", "/guarded").verdict is Verdict.PROXIED


def test_exit_without_a_body_loses_its_headers(kong: Kong) -> None:
    """A nil among the arguments cuts off what follows it."""
    bare = kong.request("GET", "/leave_bare")
    assert (bare.verdict, bare.status, bare.body) == (Verdict.ANSWERED, 403, b"")
    assert bare.header("X-Why") is None
    full = kong.request("GET", "/leave_full")
    assert (full.header("X-Why"), full.json()) == ("no", {"error": "caller_denied"})
    assert full.access.round_trips == 1  # no step after exit


def test_an_unknown_method_gives_nil(kong: Kong) -> None:
    """Kong logs it and goes on with the event."""
    answer = kong.request("GET", "/unknown_method")
    assert answer.upstream.header("X-Given") == "None"
    assert "could not find pdk method: kong.no.such_method" in answer.access.lines[0].message


def test_the_log_phase_knows_the_upstreams_status(kong: Kong) -> None:
    """`kong.log.serialize` has the service's status, and hides Authorization alone."""
    kong.routes["log_serialize"].service.status = 401
    answer = kong.request("GET", "/log_serialize", headers=[("X-Api-Key", "k")], consumer="shop")
    trace = answer.log.wait()
    assert '"upstream_status":"401"' in trace.lines[0].message
    request = answer.log.serialized["request"]
    assert request["headers"]["authorization"] == "REDACTED"
    assert request["headers"]["x-api-key"] == "k"
    assert answer.log.serialized["consumer"]["username"] == "shop"


def test_the_request_is_gone_in_the_log_phase(kong: Kong) -> None:
    """What nginx would have to be asked for raises there, and the client has its answer anyway."""
    answer = kong.request("GET", "/log_path")
    assert answer.status == 200
    assert "API disabled" in str(answer.log.wait().error)


@pytest.mark.parametrize("attack", adversary.MSGPACK)
def test_the_stock_server_bears_an_intruder(kong: Kong, attack: str) -> None:
    """Whatever somebody else sends on the socket, Kong's requests are answered."""
    with Intruder(kong.server.socket, adversary.MSGPACK[attack]):
        assert kong.request("GET", "/pay").upstream.header("Authorization") == INJECTED


def test_an_error_before_the_first_call_hangs_and_is_passed_over(start: Start) -> None:
    """The lock stays taken: this request and every other one waits for its timeout, then goes on bare."""
    with start(route("bad", "fail_first"), route("pay")) as kong:
        warm = kong.request("GET", "/pay")
        assert warm.upstream.header("Authorization") == INJECTED
        warm.log.wait()
        answer = kong.request("GET", "/bad")
        assert (answer.verdict, answer.error) == (Verdict.PROXIED, "no data")
        answer.log.wait()
        assert kong.workers[0].pool.idle == 1  # the stuck connection is back
        after = kong.request("GET", "/pay")
        assert (after.error, after.upstream.header("Authorization")) == ("no data", None)
        assert kong.workers[0].pool.opened == 1  # and was handed out again


def test_an_error_after_the_first_call_is_passed_over(start: Start) -> None:
    """What the plugin had done by then stays done; the request waits for its timeout."""
    with start(route("pay", "fail_later")) as kong:
        answer = kong.request("GET", "/pay")
        assert answer.error == "no data"
        assert answer.upstream.header("Authorization") == INJECTED


def test_a_bad_argument_is_a_500_and_a_thread_for_ever(start: Start) -> None:
    """Lua raises, the client gets 500, and the plugin's thread waits for an answer that never comes."""
    with start(route("pay", "bad_argument"), route("warm")) as kong:
        kong.request("GET", "/warm")
        before = threads_of(kong)
        answers = [kong.request("GET", "/pay") for _ in range(5)]
        assert {(a.verdict, a.status) for a in answers} == {(Verdict.FAILED, 500)}
        assert answers[0].json() == {"message": "An unexpected error occurred"}
        assert threads_of(kong) >= before + 5


def test_a_late_answer_closes_the_idle_connection(start: Start) -> None:
    """A connection on which something arrives while it is idle is not handed out again."""
    patient = Settings(timeout=4, event_delay=60)  # half of what it takes; its start is in time
    with start(route("slow", "slow"), route("pay"), settings=patient) as kong:
        pool = kong.workers[0].pool
        answer = kong.request("GET", "/slow")
        assert answer.error == "no data"
        answer.log.wait()
        assert pool.opened == 1
        wait_until(lambda: pool.idle == 0, "the answer that Kong no longer waits for, and its end")
        assert kong.request("GET", "/pay").upstream.header("Authorization") == INJECTED
        assert pool.opened == 2


def test_a_server_that_is_down_is_passed_over(start: Start) -> None:
    """Requests go on bare while it is away; where no instance was started yet they get 500."""
    slow_start = Settings(timeout=2, respawn=6)
    with start(route("pay"), route("geo"), settings=slow_start) as kong:
        kong.request("GET", "/pay")
        kong.kill_server()
        answer = kong.request("GET", "/pay")
        assert (answer.error, answer.upstream.header("Authorization")) == (
            "connection refused",
            None,
        )
        assert kong.request("GET", "/geo").verdict is Verdict.FAILED
        kong.wait_for_server()
        assert kong.request("GET", "/pay").upstream.header("Authorization") == INJECTED
        assert kong.supervisor.starts == 2


def test_old_instance_ids_give_another_routes_credential(start: Start) -> None:
    """Ids begin at 0 again after kill -9; a worker that has not heard of it runs another route's config."""
    with start(route("pay"), route("geo"), workers=2) as kong:
        kong.request("GET", "/pay", worker=0)  # instance 0
        kong.request("GET", "/geo", worker=1)  # instance 1
        kong.kill_server()
        kong.wait_for_server()
        again = kong.request("GET", "/geo", worker=1)  # "no plugin instance #1": started as 0
        assert (again.access.retries, again.upstream.header("Authorization")) == (1, "Bearer geo")
        wrong = kong.request("GET", "/pay", worker=0)
        assert wrong.upstream.header("Authorization") == "Bearer geo"


def test_workers_hear_of_a_reset(start: Start) -> None:
    """Once the event has arrived, the other worker starts its instances anew."""
    soon = Settings(timeout=PATIENCE, event_delay=0, respawn=0.2)
    with start(route("pay"), route("geo"), workers=2, settings=soon) as kong:
        kong.request("GET", "/pay", worker=0)
        kong.request("GET", "/geo", worker=1)
        kong.kill_server()
        kong.wait_for_server()
        kong.request("GET", "/geo", worker=1)
        right = kong.request("GET", "/pay", worker=0)
        assert right.upstream.header("Authorization") == INJECTED


def test_an_instance_that_cannot_start_is_a_500(start: Start) -> None:
    """The constructor's error reaches Kong's log, and the client gets 500."""
    with start(Route("pay", "/pay", {"credential": "unstartable"})) as kong:
        answer = kong.request("GET", "/pay")
        assert (answer.verdict, answer.status) == (Verdict.FAILED, 500)
        assert kong.logged("starting instance: no such credential")


def test_a_new_config_is_a_new_instance(start: Start) -> None:
    """The next request starts an instance with it and closes the one before."""
    with start(route("pay")) as kong:
        kong.request("GET", "/pay")
        kong.configure("pay", {"credential": "new"})
        assert kong.request("GET", "/pay").upstream.header("Authorization") == "Bearer new"
        assert kong.workers[0].instances.starts == 2
        with pytest.raises(StartFailed, match=r"pay: config\.credentials: unknown field"):
            kong.configure("pay", {"credentials": "typo"})


def test_a_reload_brings_new_workers_and_a_new_server(start: Start) -> None:
    """The old server gets SIGTERM when its workers are done; requests under way are not lost."""
    with start(route("slow", "slow"), route("pay"), settings=Settings(timeout=PATIENCE)) as kong:
        kong.request("GET", "/pay")
        old, answers = kong.supervisor, []
        under_way = threading.Thread(target=lambda: answers.append(kong.request("GET", "/slow")))
        under_way.start()
        wait_until(lambda: kong.workers[0].instances.starts == 2, "the slow request is under way")
        kong.reload(overlap=PATIENCE)
        assert kong.supervisor.pid != old.pid
        assert kong.request("GET", "/pay").upstream.header("Authorization") == INJECTED
        under_way.join()
        assert answers[0].error is None
        wait_until(lambda: old.pid is None, "the old server has ended")


def test_only_plugin_info_on_stdout(server: Server) -> None:
    """Anything else among what `query_cmd` prints keeps Kong from starting."""
    for printed in ("oops", "5", "[]", '{"Protocol":"ProtoBuf:2","Plugins":[]}'):
        noisy = Server(server.socket, f"printf %s '{printed}'; {server.query_cmd}")
        with pytest.raises(StartFailed):
            Kong(noisy, [])


def test_a_route_without_the_plugin_is_proxied_as_it_is(start: Start) -> None:
    """No config, no plugin: a client's own header arrives; no route, no service."""
    with start(Route("plain", "/plain", service=Service(status=204))) as kong:
        answer = kong.request("GET", "/plain", headers=[("Authorization", "Bearer mine")])
        assert (answer.status, answer.upstream.header("authorization")) == (204, "Bearer mine")
        assert kong.request("GET", "/elsewhere").verdict is Verdict.NO_ROUTE
