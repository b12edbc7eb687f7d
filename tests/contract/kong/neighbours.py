"""The other plugins on a route: the guard's two functions and an authentication plugin."""

from __future__ import annotations

from tests.contract.kong.exchange import Exchange
from tests.contract.kong.pdk_core import CONSUMER, CREDENTIAL
from tests.contract.kong.pdk_request import arguments_of
from tests.contract.kong.routes import Consumer, Guard


def clear(exchange: Exchange, guard: Guard | None) -> None:
    """The guard's pre-function, which runs before every other plugin."""
    if guard is not None:
        for name in (*guard.headers, *guard.marks):
            exchange.set_header(name, [])
        parts = [p for p in exchange.args.split("&") if p.partition("=")[0] not in guard.arguments]
        exchange.args = "&".join(parts)


def missing(exchange: Exchange, guard: Guard | None) -> bool:
    """Whether the guard's post-function, which runs after every other plugin, finds an empty slot."""
    if guard is None:
        return False
    arguments = arguments_of(exchange.args)
    marks = {name: exchange.named(name) for name in guard.marks}
    for name in marks:
        exchange.set_header(name, [])
    if any(marks[name] != [value] for name, value in guard.marks.items()):
        return True
    return not all(exchange.named(name) for name in guard.headers) or not all(
        name in arguments for name in guard.arguments
    )


def authenticate(exchange: Exchange, consumer: Consumer | None) -> None:
    """As key-auth does it. Without a consumer there is no such plugin, and a client's headers stay."""
    if consumer is None:
        return
    entity, credential = consumer.entity(), consumer.credential()
    exchange.ctx |= {CONSUMER: entity, CREDENTIAL: credential}
    told = {
        "X-Consumer-ID": entity["id"],
        "X-Consumer-Custom-ID": entity.get("custom_id"),
        "X-Consumer-Username": entity.get("username"),
        "X-Credential-Identifier": credential["id"],
        "X-Anonymous-Consumer": None,
    }
    for name, value in told.items():
        exchange.set_header(name, [value] if value else [])
    if consumer.groups:
        exchange.ctx["authenticated_groups"] = list(consumer.groups)
        exchange.shared["authenticated_groups"] = list(consumer.groups)
        exchange.set_header("X-Authenticated-Groups", [", ".join(consumer.groups)])
