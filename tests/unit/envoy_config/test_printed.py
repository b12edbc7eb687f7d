from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.envoy_config.printing import (
    HEAD,
    STAGING,
    Document,
    bootstrap,
    cluster,
    config_of,
    filter_of,
    manager_of,
)
from vaultauthz.config import Config
from vaultauthz.core.injection import header_names
from vaultauthz.envoy_config import EnvoyOptions, run
from vaultauthz.envoy_config.bootstrap import ext_authz
from vaultauthz.envoy_config.plan import Plan

SECRET = 'secret: {kv: "secret/a"}'
KEYED = 'inject: [{header: {name: X-Api-Key, value: "{k}"}}]'
ANY = f"{{{SECRET}, {KEYED}, callers: any}}"
PER_ROUTE = "envoy.filters.http.ext_authz"


def asked(upstreams: str, head: str = HEAD) -> Document:
    """What is printed for ext_authz."""
    return bootstrap(ext_authz("c.yaml", Plan.of(config_of(upstreams, head)), snippet=False))


def said(config: Config, *options: Any) -> tuple[int, str, str]:
    """Status, output and errors of the command."""
    out, err = io.StringIO(), io.StringIO()
    status = run(config, Path("c.yaml"), EnvoyOptions(*options), out, err)
    return status, out.getvalue(), err.getvalue()


def routes(document: Document) -> dict[str, list[tuple[str, str, dict[str, str]]]]:
    """By domain: match, cluster and what vaultauthz is told."""
    return {
        host["domains"][0]: [
            (
                next(iter(route["match"].values())),
                route.get("route", {}).get("cluster", ""),
                route.get("typed_per_filter_config", {})
                .get(PER_ROUTE, {"check_settings": {}})["check_settings"]
                .get("context_extensions", {}),
            )
            for route in host["routes"]
        ]
        for host in manager_of(document)["route_config"]["virtual_hosts"]
    }


class TestRoutes:
    def test_as_configured(self) -> None:
        """Each host has its routes, the longest prefix first, then those for any host; the rest is unknown."""
        found = routes(
            asked(
                f"upstreams: {{a: {ANY}, b: {ANY}}}\nroutes:\n"
                "  - {host: a.test, upstream: a}\n"
                "  - {host: a.test, path_prefix: /v1, upstream: b}\n"
                "  - {path_prefix: /any/, upstream: b}\n"
            )
        )
        a, b = (({"upstream": name, "stage": "production"}) for name in "ab")
        assert found == {
            "a.test": [("/v1", "b", b), ("/", "a", a), ("/any/", "b", b)],
            "*": [("/any/", "b", b), ("/", "", {})],
        }

    def test_a_prefix_ends_with_its_segment(self) -> None:
        """`/v1` is matched as a whole segment, `/v1/` as it is written."""
        document = asked(
            f"upstreams: {{a: {ANY}}}\nroutes: [{{path_prefix: /v1, upstream: a}}, {{path_prefix: /v2/, upstream: a}}]"
        )
        (host,) = manager_of(document)["route_config"]["virtual_hosts"]
        matches = [route["match"] for route in host["routes"]]
        assert matches == [{"prefix": "/v2/"}, {"path_separated_prefix": "/v1"}, {"prefix": "/"}]

    def test_an_example_for_what_no_route_leads_to(self) -> None:
        """Every upstream in every stage has a host, no two the same."""
        found = routes(asked(f"upstreams: {{Aa: {ANY}, aA: {ANY}}}", HEAD + STAGING))
        assert {route[0][1] for host, route in found.items() if host != "*"} == {
            "production/Aa",
            "staging/Aa",
            "production/aA",
            "staging/aA",
        }
        assert len(found) == 5

    def test_a_name_of_ours(self) -> None:
        """An upstream with the name of one of our clusters does not take its place."""
        document = asked(f"upstreams: {{vaultauthz: {ANY}}}")
        assert cluster(document, "vaultauthz")["health_checks"]
        assert cluster(document, "production/vaultauthz")["transport_socket"]


class TestFilter:
    def test_it_fails_closed(self) -> None:
        """Without vaultauthz nothing goes through."""
        found = filter_of(asked(f"upstreams: {{a: {ANY}}}"))
        assert found["failure_mode_allow"] is False
        assert found["status_on_error"] == {"code": "ServiceUnavailable"}
        assert found["grpc_service"]["timeout"] == "0.5s"
        assert found["validate_mutations"] is True
        assert "metadata_context_namespaces" not in found
        assert "with_request_body" not in found

    def test_a_query(self) -> None:
        """Envoy must not validate what it would refuse."""
        query = f'{{{SECRET}, inject: [{{query: {{name: k, value: "{{k}}"}}}}], callers: any}}'
        assert filter_of(asked(f"upstreams: {{a: {query}}}"))["validate_mutations"] is False

    @pytest.mark.parametrize("per", ["caller", "request"])
    def test_a_lease_of_one_s_own(self, per: str) -> None:
        """A check that has to ask Vault gets the time for it."""
        own = f"{{{SECRET}, {KEYED}, callers: any, per: {per}}}"
        for listen in ("", "\nlisten: {grpc: '127.0.0.1:9000'}"):
            service = filter_of(asked(f"upstreams: {{a: {own}}}{listen}"))["grpc_service"]
            # Envoy's timeout for each try is max_interval.
            each = service["retry_policy"]["retry_back_off"]["max_interval"]
            assert (service["timeout"], each) == ("2s", "2s")

    def test_claims(self) -> None:
        """Tokens are verified first, their claims go along, and the token itself goes no further."""
        ruled = f"{{{SECRET}, {KEYED}, callers: [{{claims: {{scope: pay}}}}]}}"
        document = asked(f"upstreams: {{a: {ruled}}}")
        jwt, asking, _ = manager_of(document)["http_filters"]
        assert asking["typed_config"]["metadata_context_namespaces"] == [jwt["name"]]
        (provider,) = jwt["typed_config"]["providers"].values()
        assert provider["payload_in_metadata"] == "jwt_payload"
        assert provider["forward"] is False
        assert cluster(document, "identity_provider")

    def test_principals(self) -> None:
        """Callers that are known by their certificates are asked for them."""
        ruled = f"{{{SECRET}, {KEYED}, callers: any, deny: [{{principal: x}}]}}"
        for upstream, wants in ((ruled, True), (ANY, False)):
            (listener,) = asked(f"upstreams: {{a: {upstream}}}")["static_resources"]["listeners"]
            assert ("transport_socket" in listener["filter_chains"][0]) == wants

    def test_bodies(self) -> None:
        """Where one upstream signs bodies they are sent along, whole, and for no other."""
        hmac = 'inject: [{hmac: {key: "{k}", sign: ["{body}"], headers: {X-S: "{signature}"}}}]'
        document = asked(f"upstreams: {{a: {{{SECRET}, {hmac}, callers: any}}, b: {ANY}}}")
        body = filter_of(document)["with_request_body"]
        assert (body["allow_partial_message"], body["pack_as_bytes"]) == (False, True)
        settings = [
            host["routes"][0]["typed_per_filter_config"][PER_ROUTE]["check_settings"]
            for host in manager_of(document)["route_config"]["virtual_hosts"]
        ]
        sent = ["disable_request_body_buffering" not in one for one in settings]
        assert sent == [True, False, False]

    @pytest.mark.parametrize(
        "inject",
        [
            '[{header: {name: X-Api-Key, value: "{k}"}}, {bearer: "{k}"}]',
            '[{cookie: {name: a, value: "{k}"}}]',
            "[{sigv4: {region: r, service: s3}}]",
            '[{header: {name: "X.a*b", value: "{k}"}}]',
            '[{query: {name: k, value: "{k}"}}]',
        ],
    )
    def test_what_may_be_changed(self, inject: str) -> None:
        """The headers that are set, their aliases and what is stripped; nothing else."""
        config = config_of(
            f"upstreams: {{a: {{{SECRET}, inject: {inject}, strip: [X-Strip], callers: any}}}}"
        )
        rules = filter_of(bootstrap(ext_authz("c", Plan.of(config), snippet=False)))[
            "decoder_header_mutation_rules"
        ]
        assert rules["disallow_all"] is rules["disallow_is_error"] is True
        allowed = re.compile(rules["allow_expression"]["regex"])
        slots = header_names(config.upstreams["a"].inject)
        for name in (*slots, *(slot.replace("-", "_") for slot in slots), "x-strip"):
            assert allowed.fullmatch(name), name
        for name in ("host", ":path", "x-forwarded-for", "x-other", "xaab", "x-api-key2"):
            assert not allowed.fullmatch(name), name


class TestHost:
    def test_a_signed_host(self) -> None:
        """A host that is signed is what the service gets, and where Envoy goes."""
        sigv4 = "{sigv4: {region: r, service: es, host: es.test:444}}"
        signed = f"{{secret: {{path: aws/sts/a}}, inject: [{sigv4}], callers: any}}"
        document = asked(f"upstreams: {{a: {signed}}}")
        route = manager_of(document)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
        assert route["host_rewrite_literal"] == "es.test:444"
        endpoints = cluster(document, "a")["load_assignment"]["endpoints"]
        address = endpoints[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        assert address == {"address": "es.test", "port_value": 444}

    def test_the_client_s_host_is_signed(self) -> None:
        """Where the client's host is signed it is not rewritten."""
        signed = (
            "{secret: {path: aws/sts/a}, inject: [{sigv4: {region: r, service: es}}], callers: any}"
        )
        document = asked(f"upstreams: {{a: {signed}}}")
        route = manager_of(document)["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
        assert "host_rewrite_literal" not in route


class TestSds:
    @pytest.mark.parametrize(
        ("upstream", "why"),
        [
            (ANY, ""),
            (f"{{{SECRET}, {KEYED}, callers: any, per: caller}}", "per: caller"),
            (
                f"{{{SECRET}, {KEYED}, callers: any, deny: [{{principal: x}}]}}",
                "enforced_by: envoy",
            ),
            (f"{{{SECRET}, {KEYED}, callers: [{{principal: x}}]}}", "enforced_by: envoy"),
            (
                f"{{{SECRET}, {KEYED}, callers: [{{principal: x}}], callers_enforced_by: envoy}}",
                "",
            ),
            (
                f"{{{SECRET}, {KEYED}, callers: [{{path_prefix: /a;b}}], callers_enforced_by: envoy}}",
                "callers[0]: its path_prefix",
            ),
            (
                f'{{{SECRET}, inject: [{{query: {{name: k, value: "{{k}}"}}}}], callers: any}}',
                "query",
            ),
            (
                f'{{{SECRET}, inject: [{{bearer: "{{k}}"}}, {{cookie: {{name: k, value: "{{k}}"}}}}], callers: any}}',
                "cookie",
            ),
            (
                f'{{{SECRET}, inject: [{{header: {{name: Tls, value: "{{k}}"}}}}], callers: any}}',
                "header",
            ),
            (
                f"{{{SECRET}, inject: [{{sigv4: {{region: r, service: es}}}}], callers: any}}",
                "sigv4",
            ),
        ],
    )
    def test_what_is_left_out(self, upstream: str, why: str) -> None:
        """What Envoy cannot do by itself is left out, with the reason in the file and told, and status 1."""
        status, text, err = said(config_of(f"upstreams: {{a: {upstream}, b: {ANY}}}"), "sds")
        assert status == (1 if why else 0)
        assert why in err
        assert ("# - a " in text) == bool(why)
        names = [c["name"] for c in bootstrap(text)["static_resources"]["clusters"]]
        assert ("a" in names) == (not why)
        assert "b" in names

    def test_nothing_is_left(self) -> None:
        """With no upstream there is no file."""
        query = f'{{{SECRET}, inject: [{{query: {{name: k, value: "{{k}}"}}}}], callers: any}}'
        status, text, err = said(config_of(f"upstreams: {{a: {query}}}"), "sds")
        assert (status, text) == (1, "")
        assert "no upstream is left" in err

    def test_filters_stand_with_the_secret(self) -> None:
        """Rules first, then the client's own goes, then ours comes; and the client's never wins."""
        ruled = (
            f"{{{SECRET}, {KEYED}, strip: [X-B], callers: [{{principal: x}}],"
            " deny: [{path_prefix: /x}], callers_enforced_by: envoy}"
        )
        document = bootstrap(said(config_of(f"upstreams: {{a: {ruled}}}"), "sds")[1])
        ((_, options),) = cluster(document, "a")["typed_extension_protocol_options"].items()
        deny, allow, removal, injector, codec = options["http_filters"]
        assert deny["typed_config"]["rules"]["action"] == "DENY"
        assert allow["typed_config"]["rules"]["action"] == "ALLOW"
        removed = removal["typed_config"]["mutations"]["request_mutations"]
        regexes = [one["remove_on_match"]["key_matcher"]["safe_regex"]["regex"] for one in removed]
        assert regexes == ["x[-_]api[-_]key", "x[-_]b"]
        assert injector["typed_config"]["overwrite"] is True
        assert injector["typed_config"]["allow_request_without_credential"] is False
        assert codec["name"] == "envoy.filters.http.upstream_codec"
        assert cluster(document, "a")["metadata"] == {
            "filter_metadata": {"vaultauthz": {"upstream": "a", "stage": "production"}}
        }


def test_a_certificate_that_is_not_handed_out() -> None:
    """A client certificate comes by SDS in both modes, which hands it out where Envoy enforces callers."""
    tls = f"{SECRET}, inject: [{{tls: {{}}}}], callers: [{{methods: [GET]}}]"
    status, text, err = said(config_of(f"upstreams: {{a: {{{tls}}}}}"))
    assert status == 1
    assert "callers_enforced_by: envoy" in err
    assert "tls_certificate_sds_secret_configs" in text
    assert said(config_of(f"upstreams: {{a: {{{tls}, callers_enforced_by: envoy}}}}"))[::2] == (
        0,
        "",
    )


class TestListen:
    @pytest.mark.parametrize(
        ("listen", "kind", "address"),
        [
            ("unix:///run/a b.sock", "STATIC", {"pipe": {"path": "/run/a b.sock"}}),
            (
                "127.0.0.1:9000",
                "STATIC",
                {"socket_address": {"address": "127.0.0.1", "port_value": 9000}},
            ),
            ("[::1]:9", "STATIC", {"socket_address": {"address": "::1", "port_value": 9}}),
            (
                "localhost:9",
                "STRICT_DNS",
                {"socket_address": {"address": "localhost", "port_value": 9}},
            ),
        ],
    )
    def test_where_we_are(self, listen: str, kind: str, address: Document) -> None:
        """Both of our clusters lead to `listen.grpc`."""
        document = asked(f"upstreams: {{a: {ANY}}}\nlisten: {{grpc: '{listen}'}}")
        for name in ("vaultauthz", "vaultauthz_logs"):
            found = cluster(document, name)
            assert found["type"] == kind
            endpoint = found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            assert endpoint["address"] == address
            assert ("upstream_connection_options" in found) == ("pipe" not in address)
            assert "transport_socket" not in found


class TestReplicas:
    """Over TCP there may be several, and one of them may be gone."""

    FAR = "\nlisten: {{grpc: '10.0.0.1:9000', grpc_tls: {}}}"
    PREVIOUS = "envoy.retry_host_predicates.previous_hosts"

    def tls(self, folder: Path, more: str = "") -> str:
        """The files of `grpc_tls`, in YAML; nothing looks into them here."""
        for name in ("cert", "key", "ca"):
            (folder / name).write_text("x")
            (folder / name).chmod(0o600)
        return f"{{cert: {folder}/cert, key: {folder}/key, client_ca: {folder}/ca{more}}}"

    def test_a_check_is_asked_of_another_one(self, tmp_path: Path) -> None:
        """Where Envoy reads it, in less than the timeout, and not of the same replica."""
        head = f"upstreams: {{a: {ANY}}}"
        near, loopback, far = (
            filter_of(asked(head + listen))["grpc_service"]
            for listen in (
                "",
                "\nlisten: {grpc: '127.0.0.1:9000'}",
                self.FAR.format(self.tls(tmp_path)),
            )
        )
        timeouts = [
            (one["timeout"], one["retry_policy"]["retry_back_off"]["max_interval"])
            for one in (near, loopback, far)
        ]
        assert timeouts == [("0.5s", "0.5s"), ("1s", "0.4s"), ("1s", "0.4s")]
        for one in (near, loopback, far):
            assert one["envoy_grpc"] == {"cluster_name": "vaultauthz"}
            policy = one["retry_policy"]
            assert policy["num_retries"] == 2
            assert policy["retry_back_off"]["base_interval"] == "0.025s"
            assert {"reset", "unavailable"} < set(policy["retry_on"].split(","))
            predicates = [found["name"] for found in policy.get("retry_host_predicate", ())]
            assert predicates == ([] if one is near else [self.PREVIOUS])

    @pytest.mark.parametrize("mode", ["ext_authz", "sds"])
    def test_those_that_are_healthy(self, mode: str, tmp_path: Path) -> None:
        """Both clusters look at health, which takes ALPN; a connection that hangs leaves time for another."""
        config = config_of(f"upstreams: {{a: {ANY}}}{self.FAR.format(self.tls(tmp_path))}")
        document = bootstrap(said(config, mode)[1])
        for name in ("vaultauthz", "vaultauthz_logs"):
            found = cluster(document, name)
            assert found["health_checks"][0]["grpc_health_check"] == {}
            assert found["connect_timeout"] == "0.4s"
            assert found["common_lb_config"] == {"healthy_panic_threshold": {"value": 1}}
            assert found["circuit_breakers"]["thresholds"] == [{"max_retries": 1024}]
            context = found["transport_socket"]["typed_config"]["common_tls_context"]
            assert context["alpn_protocols"] == ["h2"]
            # It would be read of a secret alone, which these files are not.
            assert "watched_directory" not in context["tls_certificates"][0]

    def test_a_socket_has_one(self) -> None:
        """Nobody else could be asked."""
        found = cluster(asked(f"upstreams: {{a: {ANY}}}"), "vaultauthz")
        assert not {"common_lb_config", "circuit_breakers", "transport_socket"} & set(found)

    def test_whose_certificate_it_takes(self, tmp_path: Path) -> None:
        """The names that may ask stand where the certificate has to be replaced."""
        open_, named = (
            said(config_of(f"upstreams: {{a: {ANY}}}{self.FAR.format(self.tls(tmp_path, more))}"))[
                1
            ]
            for more in ("", ", client_names: [gateway.internal, 'spiffe://corp/gw']")
        )
        assert "whoever has one is given" in open_
        assert "gateway.internal, spiffe://corp/gw." in named.replace("\n", " ").replace(" # ", " ")
        assert "whoever" not in named


def test_both_snippets_are_yaml() -> None:
    """The parts name the filter, the clusters and a route for each upstream."""
    config = config_of(f"upstreams: {{a: {ANY}, b: {ANY}}}")
    for mode in ("ext_authz", "sds"):
        status, text, err = said(config, mode, True)
        assert (status, err) == (0, "")
        found = bootstrap(text)
        assert {c["name"] for c in found["clusters"]} >= {"vaultauthz", "vaultauthz_logs"}
        if mode == "ext_authz":
            assert len(found["routes"]) == 2


def allowed_headers(upstream: str) -> list[Any]:
    """What the printed filter sends along of the client's headers."""
    config = config_of(f"upstreams: {{a: {{{SECRET}, {upstream}}}}}")
    document = bootstrap(said(config, "ext_authz")[1])
    patterns = filter_of(document)["allowed_headers"]["patterns"]
    return [one for one in patterns if one != {"exact": "x-request-id"}]


def test_headers_that_a_decision_reads_are_sent() -> None:
    """Those that may name another method, and aliases of a name that has too many to list."""
    assert allowed_headers(f"{KEYED}, callers: any") == []
    (overrides,) = allowed_headers(f"{KEYED}, callers: [{{methods: [GET]}}]")
    regex = overrides["safe_regex"]["regex"]
    for name in (
        "x-http-method-override",
        "x_http-method_override",
        "x_method-override",
        "x-http_method",
    ):
        assert re.fullmatch(regex, name)
    assert not re.fullmatch(regex, "x-http-method-overrides")
    long = 'inject: [{header: {name: X-A-Long-Api-Key, value: "{k}"}}]'
    assert allowed_headers(f"{long}, callers: any") == [{"contains": "_"}]
