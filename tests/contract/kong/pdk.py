"""Kong's PDK, as plugin servers reach it: methods by name, their phases, and what works in the log phase.

The log phase runs in a timer: nginx's request is gone, so a method that reads it raises unless Kong
has saved its answer (`timer=True`). The functions are in the modules `pdk_*`; they register themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.contract.kong.exchange import Exchange
from tests.contract.kong.lua import Lua, LuaError, NotEmulated

F = TypeVar("F", bound=Callable[..., Lua])
# In Kong, and answered by no function here.
NOT_EMULATED = frozenset(
    (
        "kong.client.load_consumer",
        "kong.node.get_memory_stats",
        "kong.request.get_body",
        "kong.request.get_uri_captures",
        "kong.service.set_upstream",
        "kong.service.set_target",
        "kong.service.request.set_body",
        "kong.service.request.enable_buffering",
        "kong.service.response.get_body",
        "kong.service.response.get_raw_body",
        "kong.response.get_raw_body",
        "kong.response.set_raw_body",
        "kong.vault.get",
        "kong.vault.is_reference",
        "kong.cluster.get_id",
        "kong.nginx.get_statistics",
    )
)


@dataclass(frozen=True)
class Method:
    """A PDK method. `arity` is None when it takes any number of arguments."""

    function: Callable[..., Lua]
    phases: tuple[str, ...]
    timer: bool
    arity: int | None


METHODS: dict[str, Method] = {}


def method(
    name: str, *, phases: tuple[str, ...] = ("access", "log"), timer: bool = False
) -> Callable[[F], F]:
    """Register a function as the PDK's method of this name."""

    def register(function: F) -> F:
        parameters = list(inspect.signature(function).parameters.values())
        many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        METHODS[name] = Method(function, phases, timer, None if many else len(parameters) - 1)
        return function

    return register


def exists(name: str) -> bool:
    """Whether Kong has such a method.

    Raises:
        NotEmulated: it has, and the stand-in has not.
    """
    if name in NOT_EMULATED:
        raise NotEmulated(name)
    return name in METHODS


def call(exchange: Exchange, name: str, arguments: list[Any]) -> Lua:
    """Call a method that exists, as Lua calls a function: missing arguments are nil, more are dropped.

    Raises:
        LuaError: wrong arguments, or not in this phase.
        Exited: it was `kong.response.exit` or `.error`.
    """
    exchange.pdk_calls.append(name)
    found = METHODS[name]
    if exchange.phase not in found.phases:
        raise LuaError(f"function cannot be called in {exchange.phase} phase: {name}")
    if exchange.phase == "log" and not found.timer:
        raise LuaError(f"API disabled in the current context: {name}")
    if found.arity is not None:
        arguments = (arguments + [None] * found.arity)[: found.arity]
    return found.function(exchange, *arguments)
