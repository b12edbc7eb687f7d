"""The files in envoy/ are what is printed for the configurations that they go with."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from tests.unit.envoy_config.printing import (
    ROOT,
    Document,
    bootstrap,
    cluster,
    filter_of,
    manager_of,
)
from vaultauthz.config import Config, load, parse
from vaultauthz.demo.stage import config_text
from vaultauthz.envoy_config import EnvoyOptions, run
from vaultauthz.envoy_config.bootstrap import ext_authz
from vaultauthz.envoy_config.plan import Plan

HOW_REQUESTS_ARE_TAKEN = (
    *("use_remote_address", "forward_client_cert_details", "normalize_path", "merge_slashes"),
    *("path_with_escaped_slashes_action", "strip_any_host_port", "strip_trailing_host_dot"),
    "request_headers_timeout",
)


@pytest.mark.parametrize("mode", ["ext_authz", "sds"])
def test_printed_anew_it_is_the_same(mode: str) -> None:
    """envoy/MODE.yaml is to the byte what is printed for envoy/vaultauthz.yaml; the command is in it."""
    file = ROOT / "envoy" / "vaultauthz.yaml"
    out, err = io.StringIO(), io.StringIO()
    assert run(load(file, {}), file, EnvoyOptions(mode), out, err) == 0
    assert err.getvalue() == ""
    assert out.getvalue() == (ROOT / "envoy" / f"{mode}.yaml").read_text()


@pytest.mark.parametrize("name", ["demo", "compose"])
def test_demonstrations_have_the_same_filter(name: str, tmp_path: Path) -> None:
    """Filter, cluster and the taking in of requests are the printed ones, for their configurations."""
    file: Document = yaml.safe_load((ROOT / "envoy" / f"{name}.yaml").read_text())
    config = {"demo": _demo, "compose": _compose}[name](tmp_path)
    made = bootstrap(ext_authz(name, Plan.of(config), snippet=False))
    assert filter_of(file) == filter_of(made)
    ours, printed = cluster(file, "vaultauthz"), cluster(made, "vaultauthz")
    for one in (ours, printed):
        endpoint = one["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        assert endpoint.pop("address").keys() == {"pipe"}
    assert ours == printed
    for key in HOW_REQUESTS_ARE_TAKEN:
        assert manager_of(file)[key] == manager_of(made)[key], key
    underscores = manager_of(file)["common_http_protocol_options"]
    assert underscores["headers_with_underscores_action"] == "REJECT_REQUEST"


def _demo(folder: Path) -> Config:
    (folder / "secret_id").touch(0o600)
    (folder / "secret_id").write_text("x")
    text = config_text(
        vault="http://127.0.0.1:8200",
        role_id="demo",
        folder=folder,
        dashboard="spiffe://demo/dashboard",
        key_path="secret/geocoder",
    )
    return parse(text, "demo", folder, {})


def _compose(folder: Path) -> Config:
    (folder / "secret_id").touch(0o600)
    (folder / "secret_id").write_text("x")
    text = (ROOT / "deploy" / "compose" / "vaultauthz.yaml").read_text()
    return parse(text.replace("/run/approle/", f"{folder}/"), "compose", folder, {})
