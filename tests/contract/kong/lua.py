"""What Lua's values become in Python, and the two ways in which a plugin's coroutine ends early.

nil, booleans, numbers and tables are None, bool, int or float, and list or dict. A Lua string is bytes;
here it is a `str` in UTF-8 with surrogate escapes, so that a client's odd bytes pass through unchanged.
"""

from __future__ import annotations

import json
from typing import Any

Lua = Any  # one of the above


class LuaError(Exception):
    """`error(...)` that nothing in Kong catches: the plugin's coroutine dies and the client gets 500."""


class Exited(Exception):  # noqa: N818 - the end of a coroutine, not an error
    """`kong.response.exit`: the plugin's coroutine never goes on. `failed` when Kong itself answers."""

    def __init__(
        self, status: int, body: Lua = None, headers: Lua = None, *, failed: bool = False
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers: dict[str, Lua] = headers if isinstance(headers, dict) else {}
        self.failed = failed


class Endless(Exception):  # noqa: N818 - a verdict
    """Kong would try again for ever; the stand-in stopped after `Settings.max_retries`."""


class NotEmulated(AssertionError):  # noqa: N818 - fails the test that got here
    """Kong can do this and the stand-in cannot: extend it, do not trust its answer."""


def text(data: bytes | str) -> str:
    """The Lua string of these bytes."""
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


def raw(string: bytes | str) -> bytes:
    """The bytes of a Lua string."""
    return string if isinstance(string, bytes) else string.encode("utf-8", "surrogateescape")


def type_of(value: Lua) -> str:
    """What Lua's `type` says."""
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "table"


def tostring(value: Lua) -> str:
    """What Lua's `tostring` makes of a value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nil"}[value]
    if isinstance(value, int | float):
        return f"{value:.14g}"
    return "table"


def unpack(arguments: Lua) -> list[Lua]:
    """`unpack(t)` of a list that came over the wire: it ends before the first nil.

    So `exit(403, nil, headers)` reaches `exit` as `exit(403)`.
    """
    if not isinstance(arguments, list):
        return [arguments]
    return arguments[: arguments.index(None)] if None in arguments else arguments


def to_json(value: Lua) -> str:
    """As cjson encodes: bytes that are not UTF-8 stay as they are and "/" is escaped."""
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return encoded.replace("/", "\\/")
