"""MsgPack:1's bytes as lua-MessagePack writes and reads them."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped] # ships no types

from tests.contract.kong.lua import Lua, LuaError, text
from tests.contract.kong.pool import Connection, Lost


class Objects:
    """Reads MessagePack objects as lua-MessagePack does: what came after the wanted one is dropped."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unpacker = msgpack.Unpacker(
            raw=False, unicode_errors="surrogateescape", strict_map_key=False
        )
        self._fed = 0

    def next(self) -> list[Lua]:
        """The next object. Raises Lost before its first byte, LuaError after it or for one that is no list."""
        begin = self._unpacker.tell()
        while True:
            try:
                return _list(_lua(self._unpacker.unpack()))
            except msgpack.OutOfData:
                self._more(begin)
            except (ValueError, msgpack.UnpackException) as error:
                raise LuaError(f"unpack: {error}") from error

    def _more(self, begin: int) -> None:
        try:
            chunk = self._connection.receive_any()
        except Lost as lost:
            if self._fed > begin:
                raise LuaError("missing bytes") from lost
            raise
        self._fed += len(chunk)
        self._unpacker.feed(chunk)


def _list(value: Lua) -> list[Lua]:
    if not isinstance(value, list):
        raise LuaError(
            f"attempt to index {value!r}, or RPC response expected from Go plugin server"
        )
    return value


class MultiMap(dict[str, Any]):
    """A table that stays a map when it is empty; each value is a list, `true` an empty one."""

    def __init__(self, table: dict[str, Lua]) -> None:
        lists = {
            k: [] if v is True else v if isinstance(v, list) else [v] for k, v in table.items()
        }
        super().__init__(lists)


def packed(message: list[Lua]) -> bytes:
    """A message's bytes. Strings that are not UTF-8 go as they are, `bytes` as binary."""
    data: bytes = msgpack.packb(
        _plain(message), use_bin_type=True, unicode_errors="surrogateescape"
    )
    return data


def _plain(value: Lua) -> Lua:
    """As lua-MessagePack packs it: whole numbers are integers, an empty table is an array."""
    if isinstance(value, dict):
        kept = {key: _plain(one) for key, one in value.items() if one is not None}
        return kept if kept or isinstance(value, MultiMap) else []
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lua(value: Any) -> Lua:
    """Strings and binaries are one type in Lua."""
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, list):
        return [_lua(one) for one in value]
    if isinstance(value, dict):
        return {_lua(key): _lua(one) for key, one in value.items()}
    return value
