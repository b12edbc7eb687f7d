"""The way of one request through a worker: guard, authentication, plugin, service, log phase."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.kong import neighbours
from tests.contract.kong.answer import Answer, Trace, Verdict
from tests.contract.kong.exchange import Exchange, Headers, Line, Saved
from tests.contract.kong.lua import Endless, Exited, LuaError
from tests.contract.kong.pdk_response import UNEXPECTED, put, rendered
from tests.contract.kong.routes import Consumer, Route, Settings
from tests.contract.kong.serialize import serialized
from tests.contract.kong.upstream import Received
from tests.contract.kong.worker import Worker

NO_TRACE = Trace((), 0, 0, (), None)
NO_ROUTE = Answer(
    Verdict.NO_ROUTE,
    404,
    (),
    b'{"message":"no Route matched with those values"}',
    None,
    NO_TRACE,
    -1,
)


@dataclass(frozen=True)
class Client:
    """What a client sends, and who an authentication plugin takes it for."""

    method: str
    uri: str
    headers: Headers
    body: bytes
    host: str
    consumer: Consumer | None


class Proxy:
    """Handles requests in one worker."""

    def __init__(self, settings: Settings, worker: Worker, count: Callable[[Trace], None]) -> None:
        self._settings = settings
        self._worker = worker
        self._count = count

    def handle(self, route: Route, client: Client) -> Answer:
        """From the client's request to its answer; the log phase goes on in a thread of its own."""
        exchange = self._exchange(route, client)
        self._worker.begin()
        try:
            verdict, error, received, body = self._access(exchange)
            self._worker.begin()  # the log phase, before somebody sees nothing under way
            answer = self._answer(exchange, verdict, error, received, body)
        finally:
            self._worker.end()
        saved = self._saved(exchange, answer)
        threading.Thread(target=self._log, args=(exchange, answer, saved), daemon=True).start()
        return answer

    def _exchange(self, route: Route, client: Client) -> Exchange:
        path, _, args = client.uri.partition("?")
        exchange = Exchange(
            route=route,
            method=client.method,
            uri=client.uri,
            headers=[("Host", client.host), *client.headers],
            body=client.body,
            host=client.host,
            args=args,
            path=route.upstream_path(path),
            upstream_host=f"{route.name}.service",
            body_buffer=self._settings.body_buffer,
        )
        neighbours.clear(exchange, route.guard)
        neighbours.authenticate(exchange, client.consumer)
        return exchange

    def _access(self, exchange: Exchange) -> tuple[Verdict, str | None, Received | None, bytes]:
        try:
            error = self._worker.run(exchange)
        except Exited as exited:
            verdict = Verdict.FAILED if exited.failed else Verdict.ANSWERED
            why = exchange.lines[-1].message if exited.failed else None
            return verdict, why, None, _exit(exchange, exited)
        except LuaError as raised:
            exchange.log("error", str(raised))
            body = _exit(exchange, Exited(500, {"message": UNEXPECTED}), source="error")
            return Verdict.FAILED, str(raised), None, body
        except Endless as endless:
            exchange.status = 499  # the client has given up
            return Verdict.ENDLESS, str(endless), None, b""
        if neighbours.missing(exchange, exchange.route.guard):
            return (
                Verdict.GUARDED,
                error,
                None,
                _exit(exchange, Exited(503, {"message": "guarded"})),
            )
        received, body = _serve(exchange)
        return Verdict.PROXIED, error, received, body

    def _answer(
        self,
        exchange: Exchange,
        verdict: Verdict,
        error: str | None,
        received: Received | None,
        body: bytes,
    ) -> Answer:
        trace = Trace.of(exchange, error)
        headers = tuple(exchange.response_headers)
        return Answer(verdict, exchange.status, headers, body, received, trace, self._worker.number)

    def _saved(self, exchange: Exchange, answer: Answer) -> Saved | LuaError:
        try:
            answer.log.serialized = serialized(exchange)
            return Saved(answer.log.serialized, exchange.status)
        except LuaError as raised:
            return raised

    def _log(self, exchange: Exchange, answer: Answer, saved: Saved | LuaError) -> None:
        def work() -> Trace:
            if isinstance(saved, LuaError):
                return Trace((), 0, 0, (Line("error", str(saved)),), str(saved))
            if answer.verdict is Verdict.ENDLESS:  # never gets there
                return NO_TRACE
            logged = exchange.for_log(saved)
            try:
                return Trace.of(logged, self._worker.run(logged))
            except (LuaError, Endless) as raised:
                logged.log("error", str(raised))
                return Trace.of(logged, str(raised))

        try:
            answer.log.run(work, self._count)
        finally:
            self._worker.end()


def _exit(exchange: Exchange, exited: Exited, source: str = "exit") -> bytes:
    body, headers = rendered(exited)
    for name in dict.fromkeys(name for name, _ in headers):
        put(exchange.response_headers, name, [v for k, v in headers if k == name])
    exchange.status, exchange.source = exited.status, source
    return body


def _serve(exchange: Exchange) -> tuple[Received, bytes]:
    """Proxy the request: the service gets the headers as they are now."""
    set_by_nginx = {"host": exchange.upstream_host, "x-kong-request-id": exchange.request_id}
    headers = [pair for pair in exchange.headers if pair[0].lower() not in set_by_nginx]
    headers += [("Host", exchange.upstream_host), ("X-Kong-Request-Id", exchange.request_id)]
    received = Received(
        exchange.method, exchange.path, exchange.args, tuple(headers), exchange.body
    )
    status, headers, body = exchange.route.service.serve(received)
    exchange.response_headers = headers + exchange.response_headers
    exchange.status = exchange.upstream_status = status
    exchange.source = "service"
    return received, body
