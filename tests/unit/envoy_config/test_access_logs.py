"""What Envoy is to tell of requests, over gRPC and into a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from tests import fast_yaml
from tests.unit.envoy.access_lines import LINE
from tests.unit.envoy_config.printing import Document, bootstrap, config_of, manager_of
from vaultauthz.envoy.access_logs.finished import read_line
from vaultauthz.envoy_config import EnvoyOptions, run

FILE = "envoy.access_loggers.file"
GRPC = "envoy.access_loggers.http_grpc"
ONE = """
upstreams:
  pay:
    secret: {kv: secret/a}
    inject: [{header: {name: X-Api-Key, value: "{k}"}}]
    callers: %s
    callers_enforced_by: envoy
"""
PATH = "/var/log/envoy/it's: #1.jsonl"
AUDIT = f'audit: {{access_log: "{PATH}"}}\n'


def printed(callers: str = "any", audit: str = AUDIT, **options: Any) -> Document:
    """What is printed for one upstream."""
    out = io.StringIO()
    asked = EnvoyOptions(**({"mode": "sds"} | options))
    assert run(config_of(ONE % callers + audit), Path("c.yaml"), asked, out, io.StringIO()) == 0
    return bootstrap(out.getvalue())


def logs(document: Document) -> dict[str, Document]:
    """The access logs by name."""
    found = document if "access_log" in document else manager_of(document)
    return {log["name"]: log for log in found["access_log"]}


def format_of(document: Document) -> Document:
    """What stands in a line of the file."""
    made: Document = logs(document)[FILE]["typed_config"]["log_format"]["json_format"]
    return made


@pytest.mark.parametrize("audit", ["", AUDIT])
def test_no_stream_is_tried_again(audit: str) -> None:
    """With a retry policy Envoy 1.40 sometimes reports nothing any more after a restart of ours."""
    common = logs(printed(audit=audit))[GRPC]["typed_config"]["common_config"]
    assert "grpc_stream_retry_policy" not in common


def test_the_file_has_every_request() -> None:
    """And the log over gRPC the 401s alone, with the same tags as before."""
    document = printed()
    file, grpc = logs(document)[FILE], logs(document)[GRPC]
    assert file["typed_config"]["path"] == PATH
    assert file["filter"] == {"log_type_filter": {"types": ["DownstreamEnd"]}}
    assert grpc["filter"]["status_code_filter"]["comparison"]["value"]["default_value"] == 401
    (before,) = [log for name, log in logs(printed(audit="")).items() if name == GRPC]
    assert "filter" not in before
    tags = [log["typed_config"]["common_config"]["custom_tags"] for log in (grpc, before)]
    assert tags[0] == tags[1]


def test_without_the_key_there_is_no_file() -> None:
    """Nor when Envoy asks about each request."""
    assert FILE not in logs(printed(audit=""))
    assert logs(printed(mode="ext_authz")) == logs(printed(mode="ext_authz", audit=""))


def test_the_line_is_read_as_it_is_printed() -> None:
    """Each key is one that is read: without it, or with another value, something else is told."""
    keys = format_of(printed('[{principal: "*", claims: {scope: pay}}]'))
    assert set(LINE) <= set(keys)
    whole = dict(LINE)
    for key in keys.keys() - LINE.keys():
        assert read_line(whole | {key: "other"}, 0.0) != read_line(whole, 0.0), key


@pytest.mark.parametrize(
    ("callers", "snippet", "wanted"),
    [
        ("any", False, set()),
        ("any", True, {"caller"}),
        ('[{principal: "*"}]', False, {"caller"}),
        ("[{claims: {scope: pay}}]", False, {"sub"}),
        ("[{claims: {scope: pay}}]", True, {"caller", "sub"}),
    ],
)
def test_who_is_asked_for_where_one_can_know(
    callers: str,
    snippet: bool,
    wanted: set[str],
) -> None:
    """Certificates where there may be some, tokens where they are verified."""
    assert {"caller", "sub"} & set(format_of(printed(callers, snippet=snippet))) == wanted


def test_nothing_secret_is_written() -> None:
    """No query and no header but the request's id, host and method."""
    formats = " ".join(format_of(printed('[{principal: "*", claims: {scope: pay}}]')).values())
    headers = {part.split("(")[1].split(")")[0] for part in formats.split("%") if "REQ(" in part}
    assert headers == {"X-REQUEST-ID", ":METHOD", ":AUTHORITY"}
    assert "%PATH(NQ:PATH):1100%" in formats


def test_the_node_is_the_printed_one() -> None:
    """As SDS tells it: CLUSTER/ID."""
    for snippet in (False, True):
        document = printed(snippet=snippet)
        node = document["node"]
        assert format_of(document)["node"] == f"{node['cluster']}/{node['id']}"


def test_it_is_said_what_to_start_envoy_with() -> None:
    """Else a line comes ten seconds late."""
    out = io.StringIO()
    run(config_of(ONE % "any" + AUDIT), Path("c.yaml"), EnvoyOptions("sds"), out, io.StringIO())
    assert "--file-flush-interval-msec" in out.getvalue()
    assert fast_yaml.load(out.getvalue())
