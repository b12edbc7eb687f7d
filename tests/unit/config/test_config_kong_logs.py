"""What Kong's own logs would show of a credential, and who may accept it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config import ConfigError, fit_for_kong, kong_logs
from vaultauthz.config.forms.basic import Basic
from vaultauthz.config.forms.bearer import Bearer
from vaultauthz.config.forms.cookie import Cookie
from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.hmac import Hmac
from vaultauthz.config.forms.query import Query
from vaultauthz.config.forms.sigv4 import SigV4
from vaultauthz.config.forms.tls import ClientCertificate
from vaultauthz.config.inject import FORMS as KNOWN
from vaultauthz.core.injection import Injection
from vaultauthz.core.template import Template

from .conftest import Folder, edited

HEADER = '{header: {name: X-Api-Key, value: "{key}"}}'
QUERY = '{query: {name: key, value: "{key}"}}'
HMAC = '{hmac: {key: "{key}", sign: ["{method}"], headers: {User-Agent: "{signature}"}}}'
ERROR_LOG = 'would be in Kong\'s error.log: nginx appends upstream: "http://host/path?query"'
USER = "would be in Kong's access.log: its $remote_user is the user name"
ACCESS_LOG = "would be in Kong's access.log, which has the header"

UNFIT = [
    (QUERY, ERROR_LOG),
    ('{query: {name: key, value: "in-clear"}}', ERROR_LOG),
    ('{basic: {username: "{key}", password: "x-oauth-basic"}}', USER),
    ('{basic: {username: "{key}", password: "{key}"}}', USER),
    ('{basic: {username: "{id}-{key}", password: "{key}"}}', USER),
    ('{header: {name: Authorization, value: "Basic {pair}"}}', USER),
    ('{header: {name: authorization, value: "basic {pair}"}}', USER),
    ('{header: {name: authorization, value: "bASIC  x{key}"}}', USER),
    (HMAC.replace("User-Agent", "Authorization").replace("{sig", "Basic {sig"), USER),
    ('{header: {name: Referer, value: "{key}"}}', f"{ACCESS_LOG} referer"),
    ('{header: {name: User-Agent, value: "app/{key}"}}', f"{ACCESS_LOG} user-agent"),
    (HMAC, f"{ACCESS_LOG} user-agent"),
]
FIT = [
    HEADER,
    '{bearer: "{key}"}',
    '{cookie: {name: a, value: "{key}"}}',
    '{basic: {username: "{username}", password: "{password}"}}',
    '{basic: {username: me, password: "{password}"}}',
    '{header: {name: Authorization, value: "Token {key}"}}',
    '{header: {name: X-Authorization, value: "Basic {pair}"}}',
    "{header: {name: User-Agent, value: app}}",
    HMAC.replace("User-Agent", "X-Signature"),
    "{header: {name: Authorization, value: Basic bWU6}}",
]


def with_form(form: str, *keys: str) -> str:
    """The valid configuration, in which `geo` has this form and these keys."""
    text = edited(
        "    stages: [prod]",
        "".join(f"    {key}: accepted\n" for key in keys) + "    stages: [prod]",
    )
    return text.replace(HEADER, form)


@pytest.mark.parametrize(("form", "why"), UNFIT)
def test_unfit(folder: Folder, form: str, why: str) -> None:
    """Told with file, line and key; with Envoy it is a good configuration all the same."""
    config = folder.parse(with_form(form))
    (line,) = config.unfit_for_kong
    assert line.startswith(f"c.yaml:17: upstreams.geo.inject[0]: {why}")
    assert not [w for w in config.warnings if "Kong" in w]
    with pytest.raises(ConfigError) as told:
        fit_for_kong(config)
    assert str(told.value) == line


@pytest.mark.parametrize("form", FIT)
def test_fit(folder: Folder, form: str) -> None:
    """What nginx writes into none of its logs."""
    config = folder.parse(with_form(form))
    assert fit_for_kong(config) is config


@pytest.mark.parametrize(("form", "why"), UNFIT)
def test_accepted(folder: Folder, form: str, why: str) -> None:
    """Each key for its own form, at its own upstream; a header that is logged has none."""
    wanted = {ERROR_LOG: "kong_query_in_logs", USER: "kong_username_in_logs"}.get(why)
    if wanted is not None:
        assert folder.parse(with_form(form, wanted)).unfit_for_kong == ()
        assert f"say {wanted}: accepted" in folder.parse(with_form(form)).unfit_for_kong[0]
        other = with_form(form).replace(
            "  geo:",
            f"  two:\n    secret: {{kv: a/b}}\n    callers: any\n    {wanted}: accepted\n    inject: [{form}]\n  geo:",
        )
        assert len(folder.parse(other).unfit_for_kong) == 1


def test_all_are_told_at_once(folder: Folder) -> None:
    """In the order of the file."""
    forms = QUERY + '\n      - {header: {name: Referer, value: "{key}"}}'
    assert [line.split(": ")[0] for line in folder.parse(with_form(forms)).unfit_for_kong] == [
        "c.yaml:17",
        "c.yaml:18",
    ]


FIELD = Template.parse("{key}")
FORMS: tuple[Injection, ...] = (
    Header("x-api-key", FIELD),
    Bearer(FIELD),
    Basic(Template.parse("{username}"), FIELD),
    Query("key", FIELD),
    Cookie("a", FIELD),
    SigV4("eu-central-1", "s3", FIELD, FIELD),
    Hmac(FIELD, (FIELD,), (("x-signature", FIELD),)),
    ClientCertificate(),
)


def test_every_form_has_been_thought_of() -> None:
    """A form that is new has to be looked at: does it change what nginx logs?"""
    assert [form.form for form in FORMS] == list(KNOWN)
    logged = [type(form) for form in FORMS if any(is_it(form) for is_it in kong_logs.KEYS.values())]
    assert logged == [Query]


@given(st.lists(st.sampled_from(FORMS), min_size=1), st.sets(st.sampled_from(list(kong_logs.KEYS))))
def test_a_key_is_for_a_form(inject: list[Injection], accepted: set[str]) -> None:
    """It is needless exactly where no form of the upstream is the one that it accepts."""
    needless = {key for key, _ in kong_logs.needless(accepted, inject)}
    assert needless == {
        key
        for key in accepted
        if key != kong_logs.QUERY or not any(isinstance(i, Query) for i in inject)
    }
