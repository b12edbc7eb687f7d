"""Kong, as a plugin server sees it: `Kong.request` is one client's request from beginning to end."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tests.contract.kong import schema
from tests.contract.kong.answer import Answer, Trace
from tests.contract.kong.exchange import Line
from tests.contract.kong.lua import text
from tests.contract.kong.process import (
    Master,
    StartFailed,
    Supervisor,
    listening,
    query,
    wait_until,
)
from tests.contract.kong.proxy import NO_ROUTE, Client, Proxy
from tests.contract.kong.routes import Consumer, Route, Server, Settings
from tests.contract.kong.upstream import pairs
from tests.contract.kong.worker import Worker


class Kong:
    """A running Kong. As a context manager it starts on entry, and on exit ends the server it started.

    `counts` has the verdicts by their values, and "pdk calls", "round trips", "retries", "passed over",
    "log events" and "log events failed". `workers[i].pool` and `.instances` show each worker's own.

    Raises:
        StartFailed: what the server's `query_cmd` printed is no plugin, or a route's config does not fit its schema.
    """

    def __init__(
        self,
        server: Server,
        routes: Sequence[Route],
        *,
        workers: int = 2,
        settings: Settings | None = None,
    ) -> None:
        self.server = server
        self.routes = {route.name: route for route in routes}
        self.settings = settings or Settings()
        self.lines: list[Line] = []  # Kong's error log, the servers' own output in it
        self.counts: Counter[str] = Counter()
        self.plugin = query(server)
        self._size = workers
        self._lock = threading.Lock()
        self._turn = itertools.count()
        self._old: list[threading.Thread] = []
        self._running: Master | None = None
        for route in routes:
            self._check(route)
        self.workers, self.supervisor = self._generation()

    def __enter__(self) -> Self:
        self.supervisor.start()
        if self.server.start_cmd is not None:
            try:
                self.wait_for_server()
            except AssertionError:
                self.close()
                raise StartFailed("\n".join(line.message for line in self.lines)) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def request(
        self,
        method: str = "GET",
        path: str | bytes = "/",
        *,
        headers: Iterable[tuple[bytes | str, bytes | str]] = (),
        body: bytes = b"",
        host: str = "api.test",
        consumer: Consumer | str | None = None,
        worker: int | None = None,
    ) -> Answer:
        """Send a request, its query in `path`, and wait for the answer; the log phase may still run then.

        `worker` picks one by its place; without it they take turns. `consumer` is who an authentication
        plugin found. Any number of threads may call this.
        """
        who = Consumer(consumer) if isinstance(consumer, str) else consumer
        client = Client(method, text(path), pairs(headers), body, host, who)
        workers = self.workers
        chosen = workers[next(self._turn) % len(workers) if worker is None else worker]
        route = self._route(client.uri)
        answer = (
            NO_ROUTE
            if route is None
            else Proxy(self.settings, chosen, self._count_log).handle(route, client)
        )
        self._count(answer)
        return answer

    def configure(self, name: str, config: Mapping[str, Any] | None) -> None:
        """Give a route another config: each worker starts a new instance and closes the old one."""
        route = self.routes[name]
        before, route.config = route.config, config
        try:
            self._check(route)
        except StartFailed:
            route.config = before
            raise
        route.seq += 1

    def reload(self, *, overlap: float = 8.0) -> None:
        """New workers, whose worker 0 runs `start_cmd`; returns when its server listens.

        The old worker 0 ends what it has started once it has nothing under way, after `overlap` seconds
        at the latest. So both run for a while, and what serves may be the one or the other.
        """
        workers, supervisor = self.workers, self.supervisor
        before = listening(self.server)
        self.workers, self.supervisor = self._generation()
        self.supervisor.start()
        retiring = threading.Thread(
            target=_retire, args=(workers, supervisor, overlap), daemon=True
        )
        retiring.start()
        self._old.append(retiring)
        if self.server.start_cmd is None:
            return
        if self.server.process is not None:
            wait_until(lambda: self.supervisor.pid, "a new supervisor runs")
            self.wait_for_server()
        else:
            wait_until(lambda: listening(self.server) not in {None, before}, "a new server listens")

    @property
    def master(self) -> Master:
        """The process that all of Kong's are below."""
        if self._running is None:
            self._running = Master()
        return self._running

    def kill_server(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server at once; it is started again. Returns when it is dead."""
        process = self.server.process
        if process is None:
            self.supervisor.kill(number)
            return
        pid = 0
        while not pid:
            wait_until(process, "a server is there")
            pid = process()
            assert pid > 1, pid
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # it gave way to another one just then
                pid = 0
        wait_until(lambda: process() != pid, "the server has ended")

    def wait_for_server(self) -> None:
        """Wait until the server accepts connections."""
        wait_until(lambda: listening(self.server), f"a server on {self.server.socket}")

    def logged(self, words: str) -> list[str]:
        """The lines of Kong's error log that hold these words."""
        with self._lock:
            return [line.message for line in self.lines if words in line.message]

    def stop(self) -> None:
        """`kong stop`, whatever is under way; returns when Kong's processes have ended."""
        if self._running is not None:
            self._running.stop()

    def close(self) -> None:
        """Wait for what is under way, end every server that was started, close every connection."""
        _retire(self.workers, self.supervisor, overlap=5)
        for thread in self._old:
            thread.join()
        if self._running is not None:
            self._running.stop()
            if (process := self.server.process) is not None:
                wait_until(lambda: not process(), "the server has ended after Kong")

    def _check(self, route: Route) -> None:
        if route.config is not None:
            try:
                route.config = schema.checked(self.plugin.schema, route.config)
            except schema.SchemaViolation as error:
                raise StartFailed(f"{route.name}: {error}") from error

    def _generation(self) -> tuple[list[Worker], Supervisor]:
        workers: list[Worker] = []

        def announce() -> None:
            due = time.monotonic() + self.settings.event_delay
            for worker in workers:
                worker.instances.hear(due)

        for _ in range(self._size):
            one = Worker(self.plugin, self.server.socket, self.settings, self._log, announce)
            workers.append(one)
        return workers, Supervisor(self.server, self.settings, self._log, lambda: self.master)

    def _route(self, uri: str) -> Route | None:
        fitting = [route for route in self.routes.values() if uri.startswith(route.path)]
        return max(fitting, key=lambda route: len(route.path), default=None)

    def _count(self, answer: Answer) -> None:
        with self._lock:
            self.lines += answer.access.lines
            self.counts[answer.verdict.value] += 1
            self.counts["pdk calls"] += len(answer.pdk_calls)
            self.counts["round trips"] += answer.access.round_trips
            self.counts["retries"] += answer.access.retries
            self.counts["passed over"] += answer.error is not None and answer.received is not None

    def _count_log(self, trace: Trace) -> None:
        with self._lock:
            self.lines += trace.lines
            self.counts["log events"] += 1
            self.counts["log events failed"] += trace.error is not None

    def _log(self, level: str, message: str) -> None:
        with self._lock:
            self.lines.append(Line(level, message))


def _retire(workers: list[Worker], supervisor: Supervisor, overlap: float) -> None:
    end = time.monotonic() + overlap
    workers[0].drained(overlap)
    supervisor.stop()  # whatever the others have under way
    for worker in workers[1:]:
        worker.drained(max(0.0, end - time.monotonic()))
    for worker in workers:  # what was still under way has lost its server by now
        worker.drained(5)
        worker.pool.close()
