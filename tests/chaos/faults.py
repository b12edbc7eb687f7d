"""How each kind of fault is done, and undone: a generator that yields in between."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Generator
from typing import Final

import yaml

from tests.chaos import configuration
from tests.chaos.bed import Bed
from tests.chaos.bounds import Cause
from tests.chaos.plan import Place, Step
from tests.integration.faults import vault_proxy as net

Doing = Generator[None, None, None]
_STATUSES: Final = (
    net.TOO_MANY,
    net.BROKEN,
    net.Reply(502, b"<html>bad gateway</html>", (("Content-Type", "text/html"),)),
    net.UNAVAILABLE,
    net.HTML,
    net.retry_after(net.UNAVAILABLE, 1),
)
_STARTING: Final = 20.0  # seconds, at most, until a process of ours has read its configuration
_moved = itertools.count(1)


def _network(fault: Callable[[Step], net.Fault]) -> Callable[[Bed, Step], Doing]:
    def do(bed: Bed, step: Step) -> Doing:
        bed.ears.misbehave(fault(step))
        try:
            yield
        finally:
            bed.ears.behave()

    return do


def _status(step: Step) -> net.Fault:
    reply = _STATUSES[int(step.detail * len(_STATUSES))]
    return net.answers(reply, every=1 + int(step.detail * 1000) % 2)


def _hole(step: Step) -> net.Fault:
    def fault(forward: net.Forward, closing: object) -> None:
        closing.wait(step.seconds)  # type: ignore[attr-defined]  # an Event

    return fault


def _bao(
    begin: Callable[[Bed], object], end: Callable[[Bed], object]
) -> Callable[[Bed, Step], Doing]:
    def do(bed: Bed, step: Step) -> Doing:
        begin(bed)
        try:
            yield
        finally:
            end(bed)

    return do


def _place(bed: Bed, step: Step) -> Place:
    return bed.places[step.place]


def _role(bed: Bed, step: Step) -> Doing:
    bed.bao.client().secrets.database.delete_role(step.place)
    try:
        yield
    finally:
        bed.write_role(_place(bed, step))


def _lease(bed: Bed, step: Step) -> Doing:
    for lease in bed.leases(_place(bed, step)):
        body = {"lease_id": lease, "sync": True}
        with contextlib.suppress(Exception):  # it may have ended meanwhile
            bed.ledger.revokes(
                [bed.ledger.user_of(lease)],
                Cause.LEASE,
                functools.partial(bed.bao.client().write_data, "sys/leases/revoke", data=body),
            )
    yield


def _prefix(bed: Bed, step: Step) -> Doing:
    users = [bed.ledger.user_of(lease) for lease in bed.leases(_place(bed, step))]
    prefix = f"database/creds/{step.place}"
    bed.ledger.revokes(users, Cause.LEASE, lambda: bed.bao.client().sys.revoke_prefix(prefix))
    yield


def _token(bed: Bed, step: Step) -> Doing:
    for accessor in bed.tokens(_place(bed, step).stage):
        with contextlib.suppress(Exception):
            bed.ledger.revokes_token(
                accessor,
                functools.partial(bed.bao.client().auth.token.revoke_accessor, accessor),
            )
    yield


def _put(bed: Bed, step: Step) -> Doing:
    bed.new_key(_place(bed, step))
    yield


def _delete(bed: Bed, step: Step) -> Doing:
    kv = bed.bao.client().secrets.kv.v2
    bed.ledger.deletes_key(
        step.place, lambda: kv.delete_latest_version_of_secret(step.place, mount_point="secret")
    )
    try:
        yield
    finally:
        bed.new_key(_place(bed, step))


def _drop(bed: Bed, step: Step) -> Doing:
    users = [bed.ledger.user_of(lease) for lease in bed.leases(_place(bed, step))]
    postgres = bed.postgres
    with postgres.connect(postgres.superuser, postgres.password) as session:
        for user in filter(None, users):
            drop = f'DROP ROLE IF EXISTS "{user}"'.encode()
            bed.ledger.revokes([user], Cause.ROLE, functools.partial(session.execute, drop))
    yield


def _freeze_envoy(bed: Bed, step: Step) -> Doing:
    process = bed.envoy._process
    assert process
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def _kill_envoy(bed: Bed, step: Step) -> Doing:
    bed.envoy.kill()
    try:
        yield
    finally:
        bed.envoy.start()


def _freeze_ours(bed: Bed, step: Step) -> Doing:
    bed.serve.suspend()
    try:
        yield
    finally:
        bed.serve.resume()


def _restart(how: str) -> Callable[[Bed, Step], Doing]:
    def do(bed: Bed, step: Step) -> Doing:
        if how == "kill":
            bed.serve.kill()
        else:
            bed.serve.terminate(timeout=15)
        try:
            yield
        finally:
            clock = 3600 + 7 * 86400 * step.detail if how == "clock" else None
            bed.start_serve(clock)

    return do


def _reload(bed: Bed, step: Step) -> Doing:
    change = configuration.CHANGES[int(step.detail * len(configuration.CHANGES))]
    other = configuration.changed(bed.config, _place(bed, step).upstream, change, bed.mode)
    bed.write(yaml.safe_dump(other))
    bed.hang_up()
    try:
        yield
    finally:
        bed.write(yaml.safe_dump(bed.config))
        bed.hang_up()


def _invalid(bed: Bed, step: Step) -> Doing:
    # While it starts it would rightly end, with 2; on a slow machine a restart of before goes on.
    until = time.monotonic() + _STARTING
    while bed.admin("/healthz") != 200 and time.monotonic() < until:
        time.sleep(0.05)
    bed.write(configuration.mistaken(bed.config, step.detail))
    bed.hang_up()
    try:
        yield
    finally:
        bed.write(yaml.safe_dump(bed.config))
        bed.hang_up()


def _hup(bed: Bed, step: Step) -> Doing:
    bed.hang_up()
    yield


def _ask(action: str) -> Callable[[Bed, Step], Doing]:
    def do(bed: Bed, step: Step) -> Doing:
        bed.ask(action, _place(bed, step))
        yield

    return do


def _rename(bed: Bed, step: Step) -> Doing:
    if bed.audit.exists():
        bed.audit.rename(bed.audit.with_name(f"{bed.audit.name}.{next(_moved)}"))
    yield


def _full(bed: Bed, step: Step) -> Doing:
    with bed.disk.full(bed.audit, bed.serve.pid):
        yield


DOES: Final[dict[str, Callable[[Bed, Step], Doing]]] = {
    "net.cut": _network(lambda _step: net.reset_every(1)),
    "net.hole": _network(_hole),
    "net.slow": _network(lambda step: net.late(0.2 + 2.6 * step.detail)),
    "net.torn": _network(lambda _step: net.truncated),
    "net.status": _network(_status),
    "net.lossy": _network(lambda _step: net.reset_every(2)),
    "bao.freeze": _bao(lambda bed: bed.bao.suspend(), lambda bed: bed.bao.resume()),
    "bao.kill": _bao(lambda bed: bed.bao.kill(), lambda bed: bed.bao.start()),
    "bao.stop": _bao(lambda bed: bed.bao.stop(), lambda bed: bed.bao.start()),
    "bao.seal": _bao(lambda bed: bed.bao.seal(), lambda bed: bed.bao.unseal()),
    "bao.role": _role,
    "bao.lease": _lease,
    "bao.prefix": _prefix,
    "bao.token": _token,
    "kv.put": _put,
    "kv.delete": _delete,
    "pg.freeze": _bao(Bed.postgres_suspend, Bed.postgres_resume),
    "pg.kill": _bao(lambda bed: bed.postgres.kill(), lambda bed: bed.postgres.start()),
    "pg.stop": _bao(lambda bed: bed.postgres.stop(), lambda bed: bed.postgres.start()),
    "pg.drop": _drop,
    "envoy.freeze": _freeze_envoy,
    "envoy.kill": _kill_envoy,
    "ours.freeze": _freeze_ours,
    "ours.kill": _restart("kill"),
    "ours.stop": _restart("stop"),
    "ours.clock": _restart("clock"),
    "ours.reload": _reload,
    "ours.invalid": _invalid,
    "ours.hup": _hup,
    "ours.rotate": _ask("rotate"),
    "ours.revoke": _ask("revoke"),
    "audit.rename": _rename,
    "audit.full": _full,
}
