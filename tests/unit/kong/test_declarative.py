"""kong.yml where the configuration says where services are: Kong takes what our routes say."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fast_yaml
from tests.contract.certificates import Authority
from vaultauthz.config import Config, parse
from vaultauthz.core.routing import Routes
from vaultauthz.kong_config import SetupOptions, declarative, run

HEAD = """
vault: {address: "http://127.0.0.1:8200"}
audit: {file: audit.jsonl}
stages:
  production: {auth: {method: token_file, path: token, allow_long_lived: true}}
  staging: {auth: {method: token_file, path: token, allow_long_lived: true}}
"""
KEYED = 'secret: {kv: secret/a}, inject: [{header: {name: X-Api-Key, value: "{k}"}}], callers: any'
ONE = f"{{{KEYED}, stages: [production], to: {{}}}}"
GATEWAY = "gateway: {address: '0.0.0.0:8443', tls: {cert: /tls/g.pem, key: /tls/g.key}}\n"


def config_of(text: str, folder: Path = Path("/nowhere")) -> Config:
    """The configuration; its files need not be there."""
    return parse(HEAD + text, "test", folder, {}, elsewhere=True)


def upstream(to: str) -> str:
    """The upstream `a` in production."""
    return f"upstreams: {{a: {{{KEYED}, stages: [production], to: {to}}}}}\n"


def document_of(config: Config, *, stock: bool = False) -> dict[str, Any]:
    """kong.yml, read."""
    found: dict[str, Any] = fast_yaml.load("\n".join(declarative.lines(config, stock=stock)))
    return found


def said(config: Config, *, part: str = "") -> tuple[int, str, str]:
    """Status, output and errors of the command."""
    out, err = io.StringIO(), io.StringIO()
    options = SetupOptions(Path("/run/k.sock"), outside=True, dump=Path("/run/d"), part=part)
    status = run(config, Path("/etc/vaultauthz/c.yaml"), options, out, err)
    return status, out.getvalue(), err.getvalue()


class TestServices:
    def test_by_a_public_authority(self) -> None:
        """Its certificate is verified, by whom nginx is told to trust."""
        config = config_of(upstream("https://a.test:8443"))
        (service,) = document_of(config)["services"]
        assert (service["url"], service["tls_verify"]) == ("https://a.test:8443/", True)
        assert "ca_certificates" not in service
        text = said(config)[1]
        wanted = "nginx_proxy_proxy_ssl_trusted_certificate = /etc/ssl/certs/ca-certificates.crt"
        assert wanted in text.splitlines()

    def test_by_an_authority_of_ones_own(self, tmp_path: Path) -> None:
        """Each certificate in the file is an entity, which its services name; the same whenever it is printed."""
        one, other = Authority(tmp_path, "one"), Authority(tmp_path, "other")
        both = tmp_path / "both.pem"
        both.write_text(one.ca.read_text() + "of another:\n" + other.ca.read_text())
        config = config_of(upstream(f"{{address: https://a.test, ca_cert: {both}}}"))
        document = document_of(config)
        assert document == document_of(config)
        found = {entry["id"]: entry["cert"].strip() for entry in document["ca_certificates"]}
        assert list(found.values()) == [one.ca.read_text().strip(), other.ca.read_text().strip()]
        assert document["services"][0]["ca_certificates"] == list(found)
        assert "trusted_certificate" not in said(config)[1]

    def test_an_authority_that_cannot_be_read(self) -> None:
        """Kong refuses what is printed, and trusts nobody else in its place."""
        config = config_of(upstream("{address: https://a.test, ca_cert: none.pem}"))
        (service,) = document_of(config)["services"]
        assert service["ca_certificates"] == ["REPLACE"]
        status, _, err = said(config)
        assert (status, "upstreams.a.to.ca_cert" in err) == (1, True)

    def test_without_tls(self) -> None:
        """Nothing is there to verify."""
        (service,) = document_of(config_of(upstream("http://127.0.0.1:80")))["services"]
        assert (service["url"], set(service)) == ("http://127.0.0.1:80/", {"name", "url", "routes"})

    def test_each_stage_has_its_own(self) -> None:
        """`{stage}` is its name."""
        text = f"upstreams: {{a: {{{KEYED}, to: 'https://a-{{stage}}.test'}}}}\n"
        urls = {s["name"]: s["url"] for s in document_of(config_of(text))["services"]}
        assert urls == {
            "a-production": "https://a-production.test/",
            "a-staging": "https://a-staging.test/",
        }

    def test_what_kong_cannot_do(self) -> None:
        """It is told, with status 1."""
        to = "{address: https://a.test, server_name: b.test, preserve_host: true, health: /up}"
        status, _, err = said(config_of(upstream(to)))
        assert status == 1
        for key in ("server_name", "preserve_host", "health"):
            assert f"upstreams.a.to.{key}: " in err


ROUTES = """
routes:
  - {host: a.test, upstream: a, stage: production}
  - {host: a.test, path_prefix: /v1, upstream: a, stage: staging}
  - {host: a.test, path_prefix: /v1/pay/, upstream: b, stage: production}
  - {path_prefix: /v1/pay.x, upstream: b, stage: production}
  - {host: b.test, path_prefix: '/a+b (c)', upstream: b, stage: production}
"""
BOTH = f"upstreams:\n  a: {{{KEYED}, to: https://a.test}}\n  b: {{{KEYED}, to: https://b.test, stages: [production]}}\n"
CONFIG = config_of(BOTH + ROUTES)
SEGMENTS = st.lists(st.sampled_from(["v1", "v10", "pay", "pay.x", "payyx", "", "x"]), max_size=4)


def of_kong(document: dict[str, Any], host: str, path: str) -> tuple[str, str] | None:
    """Upstream and stage of the route that Kong takes: more of a match first, then `regex_priority`."""
    fits = []
    for service in document["services"]:
        for route in service["routes"]:
            (regex,) = route["paths"]
            assert regex.startswith("~")
            named = route.get("hosts", [host])
            if host in named and re.match(regex[1:], path):
                (plugin,) = route["plugins"]
                where = plugin["config"]["upstream"], plugin["config"]["stage"]
                fits.append((("hosts" in route, route["regex_priority"]), where))
    assert len({rank for rank, _ in fits}) == len(fits), "nothing says which goes first"
    return max(fits)[1] if fits else None


class TestRoutes:
    @given(host=st.sampled_from(["a.test", "b.test", "c.test"]), segments=SEGMENTS)
    def test_kong_takes_what_we_would(self, host: str, segments: list[str]) -> None:
        """For any host and path, the route that `routes` would choose."""
        path = "/" + "/".join(segments)
        chosen = Routes.of(CONFIG.routes).find(host, path)
        ours = (chosen.upstream, chosen.stage) if chosen else None
        assert of_kong(document_of(CONFIG), host, path) == ours

    def test_a_path_as_kong_sees_it(self) -> None:
        """Letters that a path cannot have are written by their numbers; none is an operator."""
        assert of_kong(document_of(CONFIG), "b.test", "/a+b%20(c)/d") == ("b", "production")
        assert of_kong(document_of(CONFIG), "b.test", "/aab%20c") is None

    def test_the_path_goes_on_whole(self) -> None:
        """As with Envoy; and the service is asked for by its own name."""
        for service in document_of(CONFIG)["services"]:
            for route in service["routes"]:
                assert (route["strip_path"], route["preserve_host"]) == (False, False)

    @pytest.mark.parametrize("stock", [False, True])
    def test_each_has_its_plugin(self, stock: bool) -> None:
        """And with Kong's own server its guard."""
        for service in document_of(CONFIG, stock=stock)["services"]:
            for route in service["routes"]:
                names = [plugin["name"] for plugin in route["plugins"]]
                guarded = ["pre-function", "vault-authz", "post-function"]
                assert names == (guarded if stock else ["vault-authz"])


class TestGateway:
    def test_where_clients_come_in(self) -> None:
        """Kong listens there alone, with its certificate."""
        status, text, err = said(config_of(BOTH + ROUTES + GATEWAY))
        assert (status, err) == (0, "")
        assert "REPLACE" not in text
        for line in (
            "proxy_listen = 0.0.0.0:8443 http2 ssl",
            "ssl_cert = /tls/g.pem",
            "ssl_cert_key = /tls/g.key",
        ):
            assert line in text.splitlines()

    def test_without_tls(self) -> None:
        """Nothing is said of certificates."""
        text = said(config_of(BOTH + ROUTES + "gateway: {address: '[::1]:8000'}"))[1]
        assert "proxy_listen = [::1]:8000" in text.splitlines()
        assert "ssl_cert" not in text

    def test_where_no_route_leads(self) -> None:
        """It is left out, and told: no path is made up for it."""
        text = upstream("https://a.test")
        assert "REPLACE" in said(config_of(text))[1]
        status, printed, err = said(config_of(text + GATEWAY))
        assert (status, "add one to routes" in err) == (1, True)
        assert "a.test" not in printed

    def test_one_of_the_two_files(self) -> None:
        """Each by itself is what both have."""
        config = config_of(BOTH + ROUTES + GATEWAY)
        conf, yml = (said(config, part=part)[1] for part in ("conf", "yml"))
        assert said(config)[1] == f"{conf}\n{yml}"
        assert fast_yaml.load(yml) == document_of(config)
