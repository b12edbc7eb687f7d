"""Our trimmed definitions of Kong's pluginsocket.proto against the field numbers and types that Kong uses."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor

from vaultauthz._pb import kong_pb2 as pb

# Kong's own, of the fields that we have: name, number, type ("*" is repeated).
KONGS = {
    "CmdStartInstance": "name 1 string, config 2 bytes",
    "CmdCloseInstance": "instance_id 1 int32",
    "CmdHandleEvent": "instance_id 1 int32, event_name 2 string",
    "RpcCall": "sequence 1 int64, cmd_start_instance 33 CmdStartInstance, "
    "cmd_close_instance 35 CmdCloseInstance, cmd_handle_event 36 CmdHandleEvent",
    "InstanceStatus": "name 1 string, instance_id 2 int32, config 3 Value, started_at 4 int64",
    "RpcReturn": "sequence 1 int64, instance_status 33 InstanceStatus",
    "KV": "k 1 string, v 2 Value",
    "Bool": "v 1 bool",
    "Int": "v 1 int32",
    "Number": "v 1 double",
    "String": "v 1 string",
    "ByteString": "v 1 bytes",
    "ExitArgs": "status 1 int32, body 2 bytes, headers 3 Struct",
    "RawBodyResult": "content 1 bytes, body_filepath 2 string, error 3 string",
    "Consumer": "id 1 string, created_at 2 int64, username 3 string, custom_id 4 string, tags 5 string*",
    "AuthenticatedCredential": "id 1 string, consumer_id 2 string",
}
TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BOOL: "bool",
}
GOOGLES = {"Struct", "ListValue", "Value"}


def described(field: FieldDescriptor) -> str:
    kind = field.message_type.name if field.message_type else TYPES[field.type]
    return f"{field.name} {field.number} {kind}{'*' if field.is_repeated else ''}"


@pytest.mark.parametrize("name", sorted(KONGS))
def test_fields_are_kongs(name: str) -> None:
    """Numbers and wire types are Kong's; a `string` of Kong's may be `bytes` here."""
    ours = [described(f) for f in pb.DESCRIPTOR.message_types_by_name[name].fields]
    kongs = KONGS[name].split(", ")
    assert [o.replace("bytes", "string") for o in ours] == [
        k.replace("bytes", "string") for k in kongs
    ]


def test_nothing_else_is_defined() -> None:
    """Every message is held by this file."""
    assert set(pb.DESCRIPTOR.message_types_by_name) == set(KONGS) | GOOGLES


def test_values_are_googles() -> None:
    """A google.protobuf.Struct and ours read each other's bytes."""
    theirs = struct_pb2.Struct()
    theirs.update({"text": "é", "number": 1.5, "yes": True, "list": ["a", {"b": "c"}]})
    ours = pb.Struct.FromString(theirs.SerializeToString())
    assert struct_pb2.Struct.FromString(ours.SerializeToString()) == theirs
    held = {entry.key: entry.value for entry in ours.fields}
    assert held[b"text"].string_value == "é".encode()
    assert held[b"list"].list_value.values[1].struct_value.fields[0].key == b"b"


def test_text_may_be_any_bytes() -> None:
    """What is not UTF-8 does not make a message unreadable."""
    assert pb.String.FromString(b"\x0a\x01\xff").v == b"\xff"
    headers = pb.Struct(fields=[pb.Struct.Entry(key=b"\xfe", value=pb.Value(string_value=b"\xff"))])
    assert pb.Struct.FromString(headers.SerializeToString()) == headers
