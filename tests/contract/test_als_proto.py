"""The access log's trimmed proto against envoy-data-plane's full one, field by field."""

from __future__ import annotations

import dataclasses
import datetime as dt
import warnings
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.struct_pb2 import Struct

from vaultauthz._pb import accesslog_pb2
from vaultauthz.envoy.access_logs import finished as read

with warnings.catch_warnings():
    # It is written for an older pydantic, which it tells everybody on import.
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.data.accesslog import v3 as data
    from envoy_data_plane.envoy.service.accesslog import v3 as service
    from envoy_data_plane.google import protobuf

ENVOYS: dict[str, Any] = {
    "StreamAccessLogsMessage": service.StreamAccessLogsMessage,
    "StreamAccessLogsMessage.Identifier": service.StreamAccessLogsMessageIdentifier,
    "StreamAccessLogsMessage.HTTPAccessLogEntries": (
        service.StreamAccessLogsMessageHttpAccessLogEntries
    ),
    "Node": core.Node,
    "HTTPAccessLogEntry": data.HttpAccessLogEntry,
    "AccessLogCommon": data.AccessLogCommon,
    "TLSProperties": data.TlsProperties,
    "TLSProperties.CertificateProperties": data.TlsPropertiesCertificateProperties,
    "TLSProperties.CertificateProperties.SubjectAltName": (
        data.TlsPropertiesCertificatePropertiesSubjectAltName
    ),
    "Metadata": core.Metadata,
    "HTTPRequestProperties": data.HttpRequestProperties,
    "HTTPResponseProperties": data.HttpResponseProperties,
}
KINDS = {
    FieldDescriptor.TYPE_STRING: {"string"},
    # On the wire a text, or a message within a message, is bytes.
    FieldDescriptor.TYPE_BYTES: {"bytes", "string", "message"},
    FieldDescriptor.TYPE_INT32: {"int32", "enum"},
    FieldDescriptor.TYPE_UINT32: {"uint32"},
    FieldDescriptor.TYPE_MESSAGE: {"message"},
}


def messages(*tops: Descriptor) -> list[Descriptor]:
    """These messages and those within them, without the entries of maps."""
    found = []
    for top in tops:
        if not top.GetOptions().map_entry:
            found += [top, *messages(*top.nested_types)]
    return found


def name_of(message: Descriptor) -> str:
    """Its name without the package."""
    return message.full_name.removeprefix(f"{message.file.package}.")


OURS = messages(*accesslog_pb2.DESCRIPTOR.message_types_by_name.values())
FIELDS = [pytest.param(m, f, id=f"{name_of(m)}.{f.name}") for m in OURS for f in m.fields]


def test_every_message_has_its_counterpart() -> None:
    """A message that is added to the proto must be added to the table here."""
    assert {name_of(message) for message in OURS} == set(ENVOYS)


@pytest.mark.parametrize(("message", "field"), FIELDS)
def test_a_field_is_envoys(message: Descriptor, field: FieldDescriptor) -> None:
    """Number, name, repetition and wire type are those of Envoy's definition."""
    fields = dataclasses.fields(ENVOYS[name_of(message)])
    (theirs,) = [f for f in fields if f.metadata["betterproto"].number == field.number]
    meta = theirs.metadata["betterproto"]
    assert theirs.name == field.name
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        assert meta.proto_type == "map"
        for ours, envoys in zip(entry.fields, meta.map_meta, strict=True):
            assert envoys.proto_type in KINDS[ours.type]
    else:
        assert meta.repeated == field.is_repeated
        assert meta.proto_type in KINDS[field.type]


def test_what_envoy_writes_is_read() -> None:
    """A message as Envoy's own definition writes it, with much that we leave out."""
    struct = Struct()
    struct.update({"stage": "production", "upstream": "payments", "credential_id": "c_1"})
    noted = protobuf.Struct.parse(struct.SerializeToString())
    common = data.AccessLogCommon(
        start_time=dt.datetime(2026, 9, 21, 14, 13, 20, tzinfo=dt.UTC),
        time_to_first_upstream_tx_byte=dt.timedelta(milliseconds=250),
        time_to_last_upstream_tx_byte=dt.timedelta(seconds=9),
        upstream_cluster="payments",
        metadata=core.Metadata(filter_metadata={"envoy.filters.http.ext_authz": noted}),
        custom_tags={"vaultauthz.stage": "production", "vaultauthz.upstream": "payments"},
        access_log_type=data.AccessLogType(6),
        stream_id="s",
    )  # fmt: skip
    request = data.HttpRequestProperties(authority="h", path="/p?q=1", user_agent="u")
    response = data.HttpResponseProperties(response_code=401, response_code_details="via_upstream")
    entry = data.HttpAccessLogEntry(common_properties=common, request=request, response=response)
    sent = service.StreamAccessLogsMessage(
        identifier=service.StreamAccessLogsMessageIdentifier(
            node=core.Node(id="gw-1", cluster="edge"), log_name="vaultauthz"
        ),
        http_logs=service.StreamAccessLogsMessageHttpAccessLogEntries(log_entry=[entry]),
    )
    message = accesslog_pb2.StreamAccessLogsMessage.FromString(bytes(sent))
    assert (message.identifier.node.id, message.identifier.node.cluster) == ("gw-1", "edge")
    (raw,) = message.http_logs.log_entry
    back = accesslog_pb2.HTTPAccessLogEntry.FromString(raw)
    now = 1_790_000_010.0
    assert read.ended(back.common_properties)
    assert read.checked(back.common_properties) == ("production", "payments", "c_1")
    assert read.tagged(back.common_properties) == ("production", "payments")
    assert read.span(back.common_properties, now) == pytest.approx((now - 10, now - 9.75))
    assert (read.upstream_status(back), read.access_of(back, "s", "u", now).path) == (401, "/p")
