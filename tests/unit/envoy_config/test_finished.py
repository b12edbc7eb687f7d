"""What is printed where the configuration says where services are and where clients come in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.envoy_config.printing import (
    HEAD,
    STAGING,
    Document,
    bootstrap,
    cluster,
    filter_of,
    manager_of,
)
from vaultauthz.config import ConfigError, parse
from vaultauthz.envoy_config import EnvoyOptions, run

FOLDER = Path("/etc/vaultauthz")
KEYED = 'secret: {kv: secret/a}, inject: [{header: {name: X-Api-Key, value: "{k}"}}]'
ROUTE = "routes: [{host: a.test, upstream: a}]\n"
GATEWAY = "gateway: {address: '0.0.0.0:8443', node: edge-1, tls: {cert: g.pem, key: g.key}}\n"
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
MODES = pytest.mark.parametrize("mode", ["ext_authz", "sds"])


def said(
    text: str, mode: str = "ext_authz", *, head: str = HEAD, snippet: bool = False
) -> tuple[int, str, str]:
    """Status, output and errors of the command; the files need not be there."""
    out, err = io.StringIO(), io.StringIO()
    config = parse(head + text, "c.yaml", FOLDER, {}, elsewhere=True)
    status = run(config, Path("c.yaml"), EnvoyOptions(mode, snippet), out, err)
    return status, out.getvalue(), err.getvalue()


def whole(text: str, mode: str = "ext_authz") -> Document:
    """A bootstrap in which nothing is left to do."""
    status, out, err = said(text, mode)
    assert (status, err) == (0, "")
    assert "REPLACE" not in out
    return bootstrap(out)


def upstream(to: str, callers: str = "any", inject: str = KEYED) -> str:
    """The upstream `a`, which Envoy may enforce the callers of."""
    more = "" if callers == "any" else ", callers_enforced_by: envoy"
    return f"upstreams: {{a: {{{inject}, callers: {callers}, to: {to}{more}}}}}\n"


def service(to: str, mode: str = "ext_authz") -> Document:
    """Its cluster."""
    return cluster(whole(upstream(to) + ROUTE + GATEWAY, mode), "a")


def endpoint(made: Document) -> dict[str, Any]:
    """The one address of a cluster."""
    found = made["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    address: dict[str, Any] = found["socket_address"]
    return address


def verified(made: Document) -> tuple[Any, Any, Any]:
    """By which name it is asked, by whom it is trusted, and what it has to be named."""
    tls = made["transport_socket"]["typed_config"]
    context = tls["common_tls_context"]["validation_context"]
    (name,) = context["match_typed_subject_alt_names"]
    return (
        tls.get("sni"),
        context["trusted_ca"]["filename"],
        (name["san_type"], name["matcher"]["exact"]),
    )


PUBLIC = "/etc/ssl/certs/ca-certificates.crt"


class TestTheService:
    @pytest.mark.parametrize(
        ("to", "kind", "address", "wanted"),
        [
            (
                "https://A.test",
                "LOGICAL_DNS",
                ("a.test", 443),
                ("a.test", PUBLIC, ("DNS", "a.test")),
            ),
            (
                "{address: 'https://10.0.0.1:8443', ca_cert: ca.pem}",
                "STATIC",
                ("10.0.0.1", 8443),
                (None, "/etc/vaultauthz/ca.pem", ("IP_ADDRESS", "10.0.0.1")),
            ),
            (
                "'https://[0:0::1]'",
                "STATIC",
                ("0:0::1", 443),
                (None, PUBLIC, ("IP_ADDRESS", "::1")),
            ),
            (
                "{address: 'https://10.0.0.1', server_name: A.test}",
                "STATIC",
                ("10.0.0.1", 443),
                ("a.test", PUBLIC, ("DNS", "a.test")),
            ),
            (
                "{address: 'https://a.test', health: /up}",
                "STRICT_DNS",
                ("a.test", 443),
                ("a.test", PUBLIC, ("DNS", "a.test")),
            ),
        ],
    )
    @MODES
    def test_is_verified(
        self, mode: str, to: str, kind: str, address: tuple[str, int], wanted: object
    ) -> None:
        """By its own name and authority; HTTP/2 where it takes it."""
        made = service(to, mode)
        assert made["type"] == kind
        found = endpoint(made)
        assert (found["address"], found["port_value"]) == address
        assert verified(made) == wanted
        assert "auto_config" in made["typed_extension_protocol_options"][HTTP]

    @MODES
    def test_in_clear_text(self, mode: str) -> None:
        """No TLS, and HTTP/1.1: nothing would say which it speaks."""
        made = service("http://127.0.0.1", mode)
        assert "transport_socket" not in made
        assert endpoint(made)["port_value"] == 80
        options = made.get("typed_extension_protocol_options", {HTTP: {}})[HTTP]
        assert "auto_config" not in options

    def test_is_asked_whether_it_is_well(self) -> None:
        """By its own name; and what is not well gets no request."""
        made = service("{address: 'https://a.test:8443', health: '/up?deep=1'}")
        (check,) = made["health_checks"]
        assert check["http_health_check"] == {"path": "/up?deep=1", "host": "a.test:8443"}
        assert made["common_lb_config"] == {"healthy_panic_threshold": {"value": 0}}

    def test_shows_no_certificate_but_where_it_is_injected(self) -> None:
        """The one from Vault, which comes by SDS, beside the authorities of `to`."""
        inject = "secret: {kv: secret/a}, inject: [{tls: {}}]"
        text = upstream("{address: 'https://a.test', ca_cert: ca.pem}", inject=inject)
        context = cluster(whole(text + ROUTE + GATEWAY), "a")["transport_socket"]["typed_config"]
        assert "tls_certificate_sds_secret_configs" in context["common_tls_context"]
        assert "validation_context" in context["common_tls_context"]

    def test_of_each_stage(self) -> None:
        """`{stage}` is its name, and each stage has its cluster."""
        routes = (
            "routes: [{host: a.test, upstream: a, stage: production},"
            " {host: b.test, upstream: a, stage: staging}]\n"
        )
        text = upstream("'https://a-{stage}.test'") + routes + GATEWAY
        _, out, _ = said(text, head=HEAD + STAGING)
        for stage in ("production", "staging"):
            made = cluster(bootstrap(out), f"{stage}/a")
            assert endpoint(made)["address"] == f"a-{stage}.test"

    @pytest.mark.parametrize(
        ("to", "inject", "host"),
        [
            ("https://a.test", KEYED, "a.test"),
            ("https://a.test:443", KEYED, "a.test"),
            ("https://a.test:80", KEYED, "a.test:80"),
            ("'https://[::1]:8443'", KEYED, "[::1]:8443"),
            ("{address: 'https://a.test', preserve_host: true}", KEYED, None),
            (
                "https://a.test",
                "secret: {kv: a/b}, inject: [{sigv4: {region: r, service: s, host: b.test}}]",
                "b.test",
            ),
            (
                "https://a.test",
                "secret: {kv: a/b}, inject: [{sigv4: {region: r, service: s}}]",
                None,
            ),
        ],
    )
    def test_is_asked_by_its_own_name(self, to: str, inject: str, host: str | None) -> None:
        """Unless the client's goes on, or another one is signed."""
        document = whole(upstream(to, inject=inject) + ROUTE + GATEWAY)
        (known, _) = manager_of(document)["route_config"]["virtual_hosts"]
        assert known["routes"][0]["route"].get("host_rewrite_literal") == host


RULED = '[{principal: "spiffe://corp/*"}, {claims: {scope: pay}}]'
JWT = (
    "jwt: {issuer: 'https://login.test/', jwks: 'https://login.test:8443/keys', audiences: [a, b]}"
)


class TestTheListener:
    @MODES
    def test_where_clients_come_in(self, mode: str) -> None:
        """The address and the files that `gateway` has; nobody is asked for a certificate."""
        document = whole(upstream("https://a.test") + ROUTE + GATEWAY, mode)
        (listener,) = document["static_resources"]["listeners"]
        address = listener["address"]["socket_address"]
        assert address == {"address": "0.0.0.0", "port_value": 8443}
        tls = listener["filter_chains"][0]["transport_socket"]["typed_config"]
        assert "require_client_certificate" not in tls
        (pair,) = tls["common_tls_context"]["tls_certificates"]
        assert pair["certificate_chain"] == {"filename": "/etc/vaultauthz/g.pem"}
        assert "validation_context" not in tls["common_tls_context"]

    def test_on_a_port_without_tls(self) -> None:
        """Where something before it has the certificate; IPv6, too."""
        document = whole(upstream("https://a.test") + ROUTE + "gateway: {address: '[::1]:80'}")
        (listener,) = document["static_resources"]["listeners"]
        address = listener["address"]["socket_address"]
        assert address == {"address": "::1", "port_value": 80}
        assert "transport_socket" not in listener["filter_chains"][0]

    @given(
        st.sampled_from(("", "[")),
        st.lists(
            st.sampled_from(("::1", "10.0.0.1", "fe80::", "%", "x", '"', ", y: {", "}")), max_size=5
        ),
        st.sampled_from(("", "]")),
    )
    @example("[", ["fe80::1", "%", "x", '"', "}", ", y: {", '"'], "]")
    def test_whatever_address_is_taken_is_one(self, start: str, parts: list[str], end: str) -> None:
        """And nothing else of the file is another; what is none is refused, not printed."""
        text = "".join(parts)
        gateway = f"gateway: {{address: {json.dumps(f'{start}{text}{end}:80')}}}\n"
        configured = upstream("https://a.test") + ROUTE
        try:
            document = whole(configured + gateway)
        except ConfigError:
            return
        (listener,) = document["static_resources"]["listeners"]
        assert listener.pop("address") == {"socket_address": {"address": text, "port_value": 80}}
        other = whole(configured + "gateway: {address: '0.0.0.0:80'}")
        assert other["static_resources"]["listeners"][0].pop("address")
        assert document == other

    @MODES
    def test_who_callers_are(self, mode: str) -> None:
        """Certificates of `client_ca`, and tokens of the issuer, whose keys are fetched inside TLS."""
        gateway = (
            f"gateway: {{address: '0.0.0.0:8443', node: edge-1, {JWT},"
            " tls: {cert: g.pem, key: g.key, client_ca: c.pem}}\n"
        )
        document = whole(upstream("https://a.test", RULED) + ROUTE + gateway, mode)
        (listener,) = document["static_resources"]["listeners"]
        tls = listener["filter_chains"][0]["transport_socket"]["typed_config"]
        context = tls["common_tls_context"]["validation_context"]
        assert context["trusted_ca"] == {"filename": "/etc/vaultauthz/c.pem"}
        assert tls["require_client_certificate"] is False
        provider = filter_of(document, "envoy.filters.http.jwt_authn")["providers"]
        made = provider["identity_provider"]
        assert (made["issuer"], made["audiences"]) == ("https://login.test/", ["a", "b"])
        assert made["remote_jwks"]["http_uri"]["uri"] == "https://login.test:8443/keys"
        keys = cluster(document, "identity_provider")
        assert endpoint(keys)["port_value"] == 8443
        assert verified(keys) == ("login.test", PUBLIC, ("DNS", "login.test"))

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("how", ["callers: any, deny", "callers"])
    @MODES
    def test_a_principal_is_never_left_unknown(self, mode: str, how: str, known: bool) -> None:
        """Without `client_ca` the listener asks for certificates all the same: marked, told, and status 1."""
        rules = f"{how}: [{{principal: spiffe://corp/web}}], callers_enforced_by: envoy"
        text = f"upstreams: {{a: {{{KEYED}, {rules}, to: 'https://a.test'}}}}\n" + ROUTE
        gateway = GATEWAY if known else "gateway: {address: '0.0.0.0:8443', node: edge-1}\n"
        status, out, err = said(text + gateway, mode)
        assert (status, err) == (1, "vaultauthz: marked REPLACE: gateway.tls.client_ca says it\n")
        (listener,) = bootstrap(out)["static_resources"]["listeners"]
        tls = listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
        (pair,) = tls["tls_certificates"]
        own = "/etc/vaultauthz/g.pem" if known else "/etc/envoy/tls/gateway.pem"
        assert pair["certificate_chain"] == {"filename": own}
        authority = "/etc/envoy/tls/clients-ca.pem"
        assert tls["validation_context"] == {"trusted_ca": {"filename": authority}}
        marked = [line.strip() for line in out.splitlines() if "# REPLACE" in line]
        both = "the gateway's certificate, and "
        assert marked == [
            f"# REPLACE: {'' if known else both}the authority of the clients' certificates."
        ]
        assert said(text + gateway, mode, snippet=True)[::2] == (0, "")

    def test_a_rule_that_nobody_can_fit(self) -> None:
        """`config check` says so: the gateway tells of no principal, and of no claims."""
        config = parse(
            HEAD + upstream("https://a.test", RULED) + ROUTE + GATEWAY,
            "c.yaml",
            FOLDER,
            {},
            elsewhere=True,
        )
        told = [line for line in config.warnings if line not in config.absent]
        assert [line.partition("; ")[2] for line in told] == [
            "add tls.client_ca (for Envoy)",
            "add jwt (for Envoy)",
        ]


PORT = (
    "listen: {grpc: '0.0.0.0:9000', grpc_tls: {cert: o.pem, key: o.key, client_ca: c.pem,"
    " client_names: [envoy.test]}}\n"
)
WAY = "{address: 'authz.test:9001', ca_cert: a.pem, client_cert: e.pem, client_key: e.key}"


class TestTheWayToUs:
    @MODES
    def test_by_a_port(self, mode: str) -> None:
        """The name, the authority and the certificate that `gateway.vaultauthz` has, for both clusters."""
        gateway = f"gateway: {{address: '127.0.0.1:80', node: edge-1, vaultauthz: {WAY}}}\n"
        document = whole(upstream("https://a.test") + ROUTE + PORT + gateway, mode)
        for name in ("vaultauthz", "vaultauthz_logs"):
            made = cluster(document, name)
            assert endpoint(made) == {"address": "authz.test", "port_value": 9001}
            assert verified(made) == ("authz.test", "/etc/vaultauthz/a.pem", ("DNS", "authz.test"))
            (pair,) = made["transport_socket"]["typed_config"]["common_tls_context"][
                "tls_certificates"
            ]
            assert pair["private_key"] == {"filename": "/etc/vaultauthz/e.key"}

    def test_which_envoy_it_is(self) -> None:
        """The name that SDS asks with is the one in the access log that we follow."""
        gateway = "gateway: {address: '127.0.0.1:80', node: edge-7}\n"
        text = upstream("https://a.test") + ROUTE + gateway + "audit: {access_log: a.jsonl}\n"
        document = whole(text, "sds")
        assert document["node"]["id"] == "edge-7"
        logs = [log["typed_config"] for log in manager_of(document)["access_log"]]
        nodes = [
            log["log_format"]["json_format"].get("node") for log in logs if "log_format" in log
        ]
        assert nodes == [None, "gateway/edge-7"]


class TestWhatIsLeft:
    @MODES
    def test_keys_that_would_say_it(self, mode: str) -> None:
        """What is still marked is told with its key, and the file is no other than before there."""
        text = f"upstreams: {{a: {{{KEYED}, callers: {RULED}, callers_enforced_by: envoy}}}}\n"
        status, out, err = said(text + ROUTE + PORT + GATEWAY, mode)
        assert (status, "REPLACE" in out) == (1, True)
        assert [line.split(": ")[2].removesuffix(" says it") for line in err.splitlines()] == [
            "upstreams.a.to",
            "gateway.tls.client_ca",
            "gateway.jwt",
            "gateway.vaultauthz.address",
            "gateway.vaultauthz.ca_cert",
            "gateway.vaultauthz.client_cert",
        ]
        assert "a.upstream.example" in out

    @pytest.mark.parametrize(
        ("mode", "inject", "told"),
        [
            ("sds", KEYED, True),
            ("ext_authz", "secret: {kv: secret/a}, inject: [{tls: {}}]", True),
            ("ext_authz", KEYED, False),
        ],
    )
    @pytest.mark.parametrize("snippet", [True, False])
    def test_which_envoy_it_is(self, mode: str, inject: str, told: bool, snippet: bool) -> None:
        """The same id for each of several Envoys would mix up which has which credential."""
        text = upstream("https://a.test", inject=inject) + ROUTE
        log = "audit: {access_log: a.jsonl}\n" if mode == "sds" else ""
        gateway = "gateway: {address: '127.0.0.1:80'}\n"
        status, out, err = said(text + gateway + log, mode, snippet=snippet)
        wanted = "vaultauthz: marked REPLACE: gateway.node says it\n" if told else ""
        assert (status, err) == (0, wanted)
        marked = [line for line in out.splitlines() if "REPLACE" in line and "marked" not in line]
        assert len(marked) == (1 if told else 0) + bool(log)  # the file's log has it, too
        assert ("filled in by hand" in out) == (not told and not snippet)

    def test_where_other_hosts_go(self) -> None:
        """`unmatched: pass` lets them go on, to where no key says."""
        text = upstream("https://a.test") + ROUTE + GATEWAY + "unmatched: pass\n"
        status, out, err = said(text)
        assert (status, "filled in by hand" in out, "# REPLACE: `unmatched: pass`" in out) == (
            0,
            False,
            True,
        )
        assert err == (
            "vaultauthz: marked REPLACE: a cluster for other hosts, which unmatched: pass lets go on\n"
        )
        for mode, snippet in (("ext_authz", True), ("sds", False), ("sds", True)):
            _, out, err = said(text, mode, snippet=snippet)
            assert ("REPLACE" in out, err) == (False, "")

    @MODES
    def test_what_no_route_leads_to(self, mode: str) -> None:
        """It is left out, with status 1: no host is made up for it."""
        text = (
            f"upstreams: {{a: {{{KEYED}, callers: any, to: 'https://a.test'}},"
            f" b: {{{KEYED}, callers: any, to: 'https://b.test'}}}}\n"
        )
        status, out, err = said(text + ROUTE + GATEWAY, mode)
        assert (status, "b.test" in out) == (1, False)
        assert err == (
            "vaultauthz: b is left out in stage production: no route leads to it; add one to routes\n"
        )
        assert "b.gateway.example" in said(text + ROUTE, mode)[1]

    @MODES
    def test_services_without_a_gateway(self, mode: str) -> None:
        """The listener's place is marked as ever; the services are no placeholders."""
        status, out, err = said(upstream("https://a.test") + ROUTE, mode)
        assert (status, err) == (0, "")
        marked = [line for line in out.splitlines() if "REPLACE" in line]
        assert len(marked) == (3 if mode == "sds" else 2)  # the head, the listener, and SDS's node

    @MODES
    def test_in_parts(self, mode: str) -> None:
        """The services' clusters are among the parts, and routes name them."""
        status, out, _ = said(upstream("https://a.test") + ROUTE + GATEWAY, mode, snippet=True)
        assert (status, "REPLACE" in out) == (0, False)
        parts = bootstrap(out)
        assert "a" in [made["name"] for made in parts["clusters"]]
        if mode == "ext_authz":
            assert parts["routes"][0]["route"]["cluster"] == "a"
