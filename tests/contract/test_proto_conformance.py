"""Our trimmed protos against envoy-data-plane's full ones: the same bytes, field by field.

The fields come from the descriptors, so one that is added later is covered without a word here.
"""

import dataclasses
import datetime as dt
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import betterproto2
import pytest
from google.protobuf import any_pb2, struct_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultauthz._pb import discovery_pb2, ext_authz_pb2, health_pb2

with warnings.catch_warnings():
    # It is written for an older pydantic, which it tells everybody on import.
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
    from envoy_data_plane.envoy.service.auth import v3 as auth
    from envoy_data_plane.envoy.service.discovery import v3 as discovery
    from envoy_data_plane.envoy.type import v3 as types
    from envoy_data_plane.google import rpc

# We set `append` on purpose (see envoy/response.py), and the full definition warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:HeaderValueOption.append:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
# Ours → Envoy's, by the name that the comment above each message gives too.
AUTH: dict[str, Any] = {
    "CheckRequest": auth.CheckRequest,
    "AttributeContext": auth.AttributeContext,
    "AttributeContext.Peer": auth.AttributeContextPeer,
    "AttributeContext.HttpRequest": auth.AttributeContextHttpRequest,
    "AttributeContext.Request": auth.AttributeContextRequest,
    "Metadata": core.Metadata,
    "HeaderMap": core.HeaderMap,
    "HeaderValue": core.HeaderValue,
    "HeaderValueOption": core.HeaderValueOption,
    "QueryParameter": core.QueryParameter,
    "HttpStatus": types.HttpStatus,
    "Status": rpc.Status,
    "DeniedHttpResponse": auth.DeniedHttpResponse,
    "OkHttpResponse": auth.OkHttpResponse,
    "CheckResponse": auth.CheckResponse,
}
DISCOVERY: dict[str, Any] = {
    "Node": core.Node,
    "Status": rpc.Status,
    "DiscoveryRequest": discovery.DiscoveryRequest,
    "DiscoveryResponse": discovery.DiscoveryResponse,
    "DeltaDiscoveryRequest": discovery.DeltaDiscoveryRequest,
    "DeltaDiscoveryResponse": discovery.DeltaDiscoveryResponse,
    "Resource": discovery.Resource,
    "Secret": tls.Secret,
    "GenericSecret": tls.GenericSecret,
    "TlsCertificate": tls.TlsCertificate,
    "DataSource": core.DataSource,
}
ENVOYS = {
    f"{package}.{name}": kind
    for package, kinds in (("auth.v3", AUTH), ("discovery.v3", DISCOVERY))
    for name, kind in kinds.items()
}
# Types that Envoy's definition and ours may give to one field: they share a wire type.
SAME_ON_THE_WIRE = [{"string", "bytes"}, {"enum", "int32"}]
KINDS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_MESSAGE: "message",
}


def messages(*tops: Descriptor) -> list[Descriptor]:
    """These messages and those within them, without the entries of maps."""
    found = []
    for top in tops:
        if not top.GetOptions().map_entry:
            found += [top, *messages(*top.nested_types)]
    return found


OURS = [
    message
    for module in (ext_authz_pb2, discovery_pb2)
    for message in messages(*module.DESCRIPTOR.message_types_by_name.values())
]


def owner(field: FieldDescriptor) -> Descriptor:
    """The message that a field is of."""
    assert field.containing_type is not None
    return field.containing_type


def name_of(message: Descriptor) -> str:
    """Its name with what tells its package from the others."""
    return message.full_name.removeprefix("vaultauthz.envoy.")


def text() -> st.SearchStrategy[str]:
    """Any text that protobuf can carry."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values for one scalar field that Envoy's field of that number can carry too."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return text()
    if field.type == FieldDescriptor.TYPE_BYTES:
        # Where Envoy has `string`, only UTF-8 comes over the wire.
        return st.binary(max_size=20) if field.name == "raw_value" else text().map(str.encode)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        assert field.enum_type is not None
        return st.sampled_from([value.number for value in field.enum_type.values])
    if owner(field).name == "HttpStatus":
        return st.sampled_from([int(code) for code in types.StatusCode])
    assert field.type == FieldDescriptor.TYPE_INT32
    return st.integers(-(2**31), 2**31 - 1)


def well_known(message: Descriptor) -> st.SearchStrategy[Any]:
    """Values of google.protobuf's own types."""
    if message.name == "Struct":
        leaves = st.none() | st.booleans() | st.floats(allow_nan=False) | text()
        values = st.recursive(
            leaves,
            lambda v: st.lists(v, max_size=3) | st.dictionaries(text(), v, max_size=3),
            max_leaves=5,
        )
        return st.dictionaries(text(), values, max_size=3).map(struct)
    if message.name == "BoolValue":
        return st.booleans().map(lambda value: wrappers_pb2.BoolValue(value=value))
    assert message.name == "Any"
    packed = text().map(lambda value: wrappers_pb2.StringValue(value=value))
    return packed.map(lambda value: any_pb2.Any(type_url="t/x", value=value.SerializeToString()))


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    """A Struct of these values."""
    made = struct_pb2.Struct()
    made.update(values)
    return made


def value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values for one element of a field."""
    if field.message_type is None:
        return scalar(field)
    if field.message_type.file.package == "google.protobuf":
        return well_known(field.message_type)
    return filled(field.message_type)


@st.composite
def filled(draw: st.DrawFn, message: Descriptor) -> Message:
    """A message of ours with some of its fields set, at most one of each oneof."""
    made = GetMessageClass(message)()
    for field in message.fields:
        if draw(st.booleans()):
            fill(draw, made, field)
    return made


def fill(
    draw: Callable[[st.SearchStrategy[Any]], Any], made: Message, field: FieldDescriptor
) -> None:
    """Set one field to drawn values; always at least one."""
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, held = entry.fields
        pairs = draw(st.dictionaries(scalar(key), value(held), min_size=1, max_size=3))
        for name, item in pairs.items():
            if held.message_type is None:
                getattr(made, field.name)[name] = item
            else:
                getattr(made, field.name)[name].CopyFrom(item)
    elif field.is_repeated:
        getattr(made, field.name).extend(draw(st.lists(value(field), min_size=1, max_size=3)))
    elif field.message_type is not None:
        getattr(made, field.name).CopyFrom(draw(value(field)))
    else:
        setattr(made, field.name, draw(value(field)))


def theirs(message: Descriptor) -> dict[int, Any]:
    """Envoy's fields of a message by number."""
    fields = dataclasses.fields(ENVOYS[name_of(message)])
    return {f.metadata["betterproto"].number: f for f in fields}


FIELDS = [pytest.param(f, id=f"{name_of(m)}.{f.name}") for m in OURS for f in m.fields]


def test_every_message_has_its_counterpart() -> None:
    """A message that is added to the proto must be added to the table here."""
    assert {name_of(message) for message in OURS} == set(ENVOYS)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_envoys(field: FieldDescriptor) -> None:
    """Number, name, repetition and wire type are those of Envoy's definition."""
    counterpart = theirs(owner(field))[field.number]
    meta = counterpart.metadata["betterproto"]
    assert counterpart.name == field.name
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        assert meta.proto_type == "map"
        key, held = entry.fields
        assert compatible(KINDS[key.type], meta.map_meta[0].proto_type)
        assert compatible(KINDS[held.type], meta.map_meta[1].proto_type)
    else:
        assert meta.repeated == field.is_repeated
        assert compatible(KINDS[field.type], meta.proto_type)
        oneof = field.containing_oneof
        assert meta.group == (oneof.name if oneof else None)


def compatible(ours: str, envoys: str) -> bool:
    """Whether the two types mean the same bytes."""
    return ours == envoys or {ours, envoys} in SAME_ON_THE_WIRE


@pytest.mark.parametrize("field", FIELDS)
@settings(max_examples=25)
@given(data=st.data())
def test_each_reads_what_the_other_writes(field: FieldDescriptor, data: st.DataObject) -> None:
    """A field set by us reaches Envoy's message, and its bytes read back as the same message."""
    ours = GetMessageClass(owner(field))()
    fill(data.draw, ours, field)
    envoys = ENVOYS[name_of(owner(field))].parse(ours.SerializeToString())
    assert_only_known(envoys)
    back = type(ours).FromString(bytes(envoys))
    assert back == ours


def assert_only_known(message: Any) -> None:
    """Nothing of it, however deep, was unknown to Envoy's definition."""
    assert not message._unknown_fields
    for field in dataclasses.fields(message):
        held = getattr(message, field.name)
        items = (
            held.values() if isinstance(held, dict) else held if isinstance(held, list) else [held]
        )
        for item in items:
            if isinstance(item, betterproto2.Message):
                assert_only_known(item)


@pytest.mark.parametrize("message", [pytest.param(m, id=name_of(m)) for m in OURS])
@settings(max_examples=25)
@given(data=st.data())
def test_whole_messages_agree(message: Descriptor, data: st.DataObject) -> None:
    """Messages with any of our fields set survive the way through Envoy's definition."""
    ours = data.draw(filled(message))
    envoys = ENVOYS[name_of(message)].parse(ours.SerializeToString())
    assert type(ours).FromString(bytes(envoys)) == ours


def test_fields_that_we_left_out_are_passed_over() -> None:
    """A CheckRequest with everything that Envoy can send reads the same as without it."""
    http = auth.AttributeContextHttpRequest(
        id="1", method="POST", path="/p", host="h", scheme="https", query="q", fragment="f",
        size=-1, protocol="HTTP/2", body="body", raw_body=b"\xff\x00", headers={"a": "b"},
    )  # fmt: skip
    now = dt.datetime.now(dt.UTC)
    request = auth.CheckRequest(
        attributes=auth.AttributeContext(
            source=auth.AttributeContextPeer(
                address=core.Address(
                    socket_address=core.SocketAddress(address="10.0.0.1", port_value=1)
                ),
                service="s", principal="p", labels={"k": "v"}, certificate="PEM",
            ),
            destination=auth.AttributeContextPeer(principal="d"),
            request=auth.AttributeContextRequest(time=now, http=http),
            context_extensions={"upstream": "u"},
            tls_session=auth.AttributeContextTlsSession(sni="sni"),
            route_metadata_context=core.Metadata(),
        )
    )  # fmt: skip
    attributes = ext_authz_pb2.CheckRequest.FromString(bytes(request)).attributes
    assert attributes.source.principal == "p"
    assert dict(attributes.context_extensions) == {"upstream": "u"}
    read = attributes.request.http
    assert (read.id, read.method, read.path, read.host) == ("1", b"POST", b"/p", b"h")
    assert dict(read.headers) == {"a": b"b"}


@given(junk=st.binary(max_size=60), number=st.integers(100, 2**20))
def test_fields_of_the_future_are_ignored(junk: bytes, number: int) -> None:
    """A field with a number that nobody knows yet changes nothing of what is read."""
    known = ext_authz_pb2.QueryParameter(key="k", value="v")
    tag = varint(number << 3 | 2)
    read = ext_authz_pb2.QueryParameter.FromString(
        tag + varint(len(junk)) + junk + known.SerializeToString()
    )
    assert (read.key, read.value) == ("k", "v")


def varint(number: int) -> bytes:
    """Protobuf's encoding of a number that is not negative."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@given(value=st.binary(max_size=40))
def test_a_header_that_is_not_utf8_does_not_spoil_the_request(value: bytes) -> None:
    """Any bytes in a header's value, the path or the host are read as they are."""
    http = ext_authz_pb2.AttributeContext.HttpRequest(headers={"x": value}, path=value, host=value)
    read = ext_authz_pb2.AttributeContext.HttpRequest.FromString(http.SerializeToString())
    assert (read.headers["x"], read.path, read.host) == (value, value, value)


def test_the_append_actions_are_envoys() -> None:
    """The enum has Envoy's names and numbers."""
    ours = dict(ext_authz_pb2.HeaderValueOption.HeaderAppendAction.items())
    assert ours == {a.name: a.value for a in core.HeaderValueOptionHeaderAppendAction}


def test_health_is_the_standards() -> None:
    """The bytes of grpc.health.v1, spelled out: field 1 is the service, and the status."""
    assert health_pb2.HealthCheckRequest(service="ab").SerializeToString() == b"\x0a\x02ab"
    statuses = dict(health_pb2.HealthCheckResponse.ServingStatus.items())
    assert statuses == {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}
    assert health_pb2.HealthCheckResponse(status="SERVING").SerializeToString() == b"\x08\x01"


@pytest.mark.parametrize("module", [ext_authz_pb2, discovery_pb2, health_pb2])
def test_names_cannot_clash_with_envoys(module: Any) -> None:
    """Files and packages are our own, so Envoy's real code can be imported beside ours."""
    assert module.DESCRIPTOR.name.startswith("vaultauthz/")
    assert module.DESCRIPTOR.package.startswith("vaultauthz.")


def test_the_generated_code_is_what_the_sources_give() -> None:
    """proto/build.py --check finds no difference."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "proto" / "build.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", [ext_authz_pb2, discovery_pb2])
def test_each_message_says_whose_it_is(module: Any) -> None:
    """The comment above each message of the proto names Envoy's message."""
    source = (ROOT / "proto" / "vaultauthz" / Path(module.DESCRIPTOR.name).name).read_text()
    named = re.findall(
        r"//[^\n]*(?:envoy|google)\.[\w.]+(?:[^\n]*\n\s*//)*[^\n]*\n\s*message (\w+)", source
    )
    ours = {message.name for message in OURS if message.file.name == module.DESCRIPTOR.name}
    assert set(named) == ours


def test_a_secret_is_what_envoy_reads() -> None:
    """An empty generic secret is one that is set, not none at all: that is how we withdraw."""
    data = discovery_pb2.DataSource(inline_bytes=b"")
    ours = discovery_pb2.Secret(name="s", generic_secret=discovery_pb2.GenericSecret(secret=data))
    read = tls.Secret.parse(ours.SerializeToString())
    assert read.generic_secret
    assert read.generic_secret.secret
    assert read.generic_secret.secret.inline_bytes == b""
