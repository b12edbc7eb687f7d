"""What servers may read otherwise than it is written leads past no rule."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.unit.test_broker import broker, held_by
from vaultauthz.broker import Former
from vaultauthz.core.callers import Callers, Rule
from vaultauthz.core.credential import Slot
from vaultauthz.core.decision import Denied, Reason
from vaultauthz.core.readings import among
from vaultauthz.core.request import Request


def named(upstream: str, method: str = "GET", path: str = "/") -> Request:
    """A request whose gateway names the upstream."""
    return Request("envoy", method, "any.test", path, upstream)


def overridden(name: str, value: str, method: str = "POST", path: str = "/") -> Request:
    """A request with a header that may name another method."""
    request = named("pay", method=method, path=path)
    request.headers = partial(among, [(name.lower(), value)])
    return request


class TestOtherReadings:
    ADMIN = Callers(None, (Rule(path_prefix="/admin"),))

    @pytest.mark.parametrize(
        "path",
        [
            *(
                "/admin",
                "/admin/x",
                "/Admin",
                "//admin",
                "/admin;x",
                "/admin.",
                "/admin%20",
                "/a;b/../admin",
            ),
            *(
                "/%61dmin",
                "/%2561dmin",
                "/admin%2Fx",
                "/admin%252Fx",
                "/admin%253Bx",
                "/%252561dmin",
            ),
            *(
                "/x/%252e%252e/admin",
                "/x/..%252fadmin",
                "/x%5c..%5cadmin",
                "/./admin",
                "/%c0%afadmin",
            ),
            *(
                "/%25c0%25afadmin",
                "/%u0061dmin",
                "/%25u0061dmin",
                "/admin%00",
                "/admin%2500",
                "/admin%09/x",
            ),
            *(
                "/\uff41dmin",
                "/%ef%bd%81dmin",
                "/%25ef%25bd%2581dmin",
                "/x%ef%bc%8f..%ef%bc%8fadmin",
            ),
            *(
                "/admin%ef%bc%8fx",
                "/admin%3fx",
                "/admin%23x",
                "/admin?x",
                "/admin%85",
                "/admin%c2%a0",
            ),
            *("admin", "http://pay.test/admin", "", "/%61%64%6d%69%6e", "/.../admin", "/%20/admin"),
        ],
    )
    def test_no_spelling_of_a_denied_path_passes(self, path: str) -> None:
        """Whatever a server may take for it, encoded once, twice or not at all."""
        made = broker(held_by("pay", callers=self.ADMIN))
        assert isinstance(made.check(named("pay", path=path)), Denied)

    @pytest.mark.parametrize(
        "path",
        [
            *(
                "/",
                "/files/100%25",
                "/files/100%2525",
                "/files/a%252Fb",
                "/files/a%2Fb",
                "/a.b/.c",
                "*",
            ),
            *(
                "/files/%e2%82%ac",
                "/files/%ef%bc%a1%ef%bc%a2.pdf",
                "/administrators",
                "/x/admin",
                "/x?/admin",
            ),
            *(
                "/files/a%20b",
                "/files/50%25off",
                "/files/a;v=1/b",
                "/files/a..b",
                "/~a/%7eb",
                "/a%c3%bc",
            ),
        ],
    )
    def test_a_path_that_is_never_below_it_passes(self, path: str) -> None:
        """Percent signs and other characters do no harm where no reading changes the verdict."""
        made = broker(held_by("pay", callers=self.ADMIN))
        assert made.check(named("pay", path=path)).allowed

    @pytest.mark.parametrize("path", ["/v1%252fpay", "/%2576%2531/pay", "/V1;/pay", "/v1./pay"])
    def test_routes_and_callers_allow_only_what_is_clear(self, path: str) -> None:
        """A path that leads below a prefix in one reading alone is allowed in none."""
        callers = Callers((Rule(path_prefix="/v1"),))
        assert isinstance(
            broker(held_by("pay", callers=callers)).check(named("pay", path=path)), Denied
        )

    @pytest.mark.parametrize("path", ["/x#/../admin", "/#/../admin", "/x#", "/x#a?b", "/x#//admin"])
    def test_a_fragment_is_refused_where_the_path_decides(self, path: str) -> None:
        """No target has one, and some servers take `#` for a character like others."""
        made = broker(held_by("pay", callers=self.ADMIN))
        assert made.check(named("pay", path=path)) == Denied(Reason.BAD_REQUEST)
        assert broker(held_by("pay")).check(named("pay", path=path)).allowed
        assert made.check(named("pay", path="/x?a#/../admin")).allowed

    NO_DELETE = Callers(None, (Rule(methods=frozenset(("DELETE",))),))
    POST_ONLY = Callers((Rule(methods=frozenset(("POST", "PATCH"))),))

    @pytest.mark.parametrize("callers", [NO_DELETE, POST_ONLY])
    @pytest.mark.parametrize(
        "method", ["DELETE", "delete", "Delete", " DELETE", "DELETE ", "DEL\u0130TE", "DELETE\t"]
    )
    def test_no_spelling_of_a_denied_method_passes(self, callers: Callers, method: str) -> None:
        """Many servers take `delete` for DELETE."""
        assert isinstance(
            broker(held_by("pay", callers=callers)).check(named("pay", method=method)), Denied
        )

    def test_a_method_in_lower_case_is_not_the_allowed_one(self) -> None:
        """A server may as well take it for none."""
        made = broker(held_by("pay", callers=self.POST_ONLY))
        assert made.check(named("pay", method="POST")).allowed
        assert isinstance(made.check(named("pay", method="post")), Denied)

    def test_copies_of_a_header_are_refused(self) -> None:
        """Servers differ in which of them counts; spelt otherwise it is a copy as well."""
        request = named("pay", "POST")
        request.headers = partial(among, [("x-http-method", "POST"), ("x_http-method", "PATCH")])
        made = broker(held_by("pay", callers=self.POST_ONLY))
        assert made.check(request) == Denied(Reason.BAD_REQUEST)

    def test_where_no_rule_asks_any_method_passes(self) -> None:
        """It changes no verdict."""
        request = overridden("x-http-method", "DELETE", method="delete", path="/?_method=DELETE")
        assert broker(held_by("pay")).check(request).allowed

    @pytest.mark.parametrize("callers", [NO_DELETE, POST_ONLY])
    @pytest.mark.parametrize(
        "name",
        ["x-http-method-override", "X-HTTP-Method", "x_method_override", "x_http-method_override"],
    )
    @pytest.mark.parametrize(
        "value", ["DELETE", "delete", " Delete ", "PATCH, DELETE", '"DELETE"', "DELETE;"]
    )
    def test_no_header_makes_a_denied_method(self, callers: Callers, name: str, value: str) -> None:
        """An allowed POST with a header by which a framework makes a DELETE of it."""
        made = broker(held_by("pay", callers=callers))
        assert isinstance(made.check(overridden(name, value)), Denied)

    @pytest.mark.parametrize("callers", [NO_DELETE, POST_ONLY])
    @pytest.mark.parametrize("value", ["", "  ", "POST", "patch"])
    def test_a_header_that_names_an_allowed_method_passes(
        self, callers: Callers, value: str
    ) -> None:
        """Both readings are allowed."""
        assert (
            broker(held_by("pay", callers=callers))
            .check(overridden("x-http-method", value))
            .allowed
        )

    @pytest.mark.parametrize(
        "query",
        [
            "_method=DELETE",
            "a=1&_METHOD=x",
            "%5fm%65thod=x",
            "a;_method=x",
            "+.method",
            "_method[]=x",
            "_method%00x=x",
        ],
    )
    def test_a_query_that_names_a_method_is_refused(self, query: str) -> None:
        """Where rules ask for the method: Rails, Laravel and Symfony may go by it."""
        made = broker(held_by("pay", callers=self.NO_DELETE))
        assert made.check(named("pay", method="POST", path=f"/?{query}")) == Denied(
            Reason.BAD_REQUEST
        )

    @pytest.mark.parametrize(
        "query", ["_methods=DELETE", "x_method=DELETE", "x=_method=DELETE", "method=x"]
    )
    def test_a_query_that_names_none_passes(self, query: str) -> None:
        """Only the parameter itself counts."""
        made = broker(held_by("pay", callers=self.NO_DELETE))
        assert made.check(named("pay", method="POST", path=f"/?{query}")).allowed

    def test_headers_that_the_gateway_cannot_tell(self) -> None:
        """Kong tells a thousand at most: what the rest would say is not guessed."""
        request = named("pay", method="POST")
        request.headers = lambda _names: None
        assert broker(held_by("pay", callers=self.NO_DELETE)).check(request) == Denied(
            Reason.BAD_REQUEST
        )

    def test_the_rules_before_a_reload_are_not_slipped_past_either(self) -> None:
        """While the credential of before is in use, its rules hold for all readings."""
        bound = held_by("pay")
        assert isinstance(bound.source, Slot)
        credential = bound.source.credential
        assert credential is not None
        for before, path in ((self.ADMIN, "/%2561dmin"), (self.NO_DELETE, "/")):
            former = Former(credential.credential_id, (before,))
            request = overridden("x-http-method", "DELETE", path=path)
            assert isinstance(broker(replace(bound, former=former)).check(request), Denied)
