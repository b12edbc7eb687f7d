"""Vault's answers as values: any JSON gives a value or a VaultError, never anything else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from math import inf, isnan
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vaultauthz.config.values import KvSecret
from vaultauthz.core.credential import NO_LOGIN, Login
from vaultauthz.core.grant import Grant, Renewal, Verdict
from vaultauthz.core.secret import Secret
from vaultauthz.vault import grants
from vaultauthz.vault.ends import Now
from vaultauthz.vault.errors import VaultError

LOGIN = Login()
NOW = Now(0.0, 0.0)
SOURCE = KvSecret("secret/geo", refresh=60.0, max_stale=600.0)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())  # surrogates too: JSON can say them
    | st.sampled_from([10**400, -1, 1e400, "3600", "", "hvs.x"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
# The names that Vault uses, so that the search gets past the first look.
NAMES = (
    *("auth", "data", "metadata", "client_token", "accessor", "request_id"),
    *("lease_id", "lease_duration", "renewable"),
    *("version", "created_time", "deletion_time", "destroyed", "policies", "identity_policies"),
    *("ttl", "expiration", "expires_at", "last_vault_rotation"),
)


def named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of Vault's names, and ``inner`` or anything below them."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, inner | SCALARS | JSON))


def whole(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with all of these, or whatever else there may be."""
    return st.fixed_dictionaries(parts) | named(named(SCALARS)) | st.dictionaries(st.text(), JSON)


TTL = {"lease_duration": SCALARS, "renewable": SCALARS}
AUTH = whole(client_token=SCALARS, accessor=SCALARS, num_uses=SCALARS, policies=JSON, **TTL)
TOKENS = whole(auth=AUTH, request_id=SCALARS)
RENEWALS = whole(**TTL) | whole(auth=whole(**TTL))
ENDS = st.sampled_from(["9" * 5000, "2026-01-01T00:00:00Z", 10**400]) | SCALARS
DATA = named(ENDS) | st.dictionaries(st.text(), JSON)
SECRETS = whole(data=DATA, lease_id=SCALARS, **TTL)
EDITION = whole(version=SCALARS, created_time=SCALARS, deletion_time=SCALARS)
KV = whole(data=whole(data=st.dictionaries(st.text(), JSON), metadata=EDITION))


def check(read: Callable[[], Grant | Renewal]) -> Grant | Renewal | None:
    """The value if there is one; every exception but VaultError fails the test."""
    with contextlib.suppress(VaultError):
        value = read()
        assert value.ttl >= 0.0
        assert not isnan(value.ttl)
        return value
    return None


@given(TOKENS)
def test_any_json_is_a_token_or_an_error(answer: dict[str, Any]) -> None:
    """A token's payload is text that fits a header, its end lies after it was asked for."""
    grant = check(lambda: grants.token(answer, 100.0))
    if grant is not None:
        assert isinstance(grant, Grant)
        assert grant.payload.reveal().isascii()
        assert grant.payload.reveal().isprintable()
        assert grant.login.ends_at == 100.0 + grant.ttl
        assert grant.lease_id
        assert (type(grant.uses), grant.uses >= 0) == (int, True)


@pytest.mark.parametrize(
    ("said", "uses"), [(3, 3), (0, 0), (-1, 0), (None, 0), ("3", 0), (True, 0), (2.5, 0)]
)
def test_how_many_requests_a_token_is_good_for(said: object, uses: int) -> None:
    """Zero is any number; what is no number ends no login."""
    auth = {"client_token": "hvs.x", "accessor": "a", "lease_duration": 60, "num_uses": said}
    assert grants.token({"auth": auth}, 0.0).uses == uses


@given(RENEWALS)
def test_any_json_is_a_renewal_or_an_error(answer: dict[str, Any]) -> None:
    """A renewal's TTL is a number, and never one that Vault did not say."""
    renewal = check(lambda: grants.renewal(answer))
    if renewal is not None:
        assert isinstance(renewal, Renewal)
        assert renewal.ttl < inf


@given(SECRETS, st.booleans())
@example({"data": {"last_vault_rotation": "9" * 5000, "ttl": 5}}, False)
@example({"data": {"last_vault_rotation": "1", "ttl": 10**400}}, False)
@example({"data": {"expiration": 10**400}}, True)
@example({"data": {"expiration": "9" * 5000}}, True)
@example({"data": {"a": 1e400, "b": float("nan")}}, False)
@example({"data": {"a": None, "b": {"c": 1}, "d": [1], "e": 1.5, "f": True, "g": "\ud800"}}, False)
def test_any_json_is_a_secret_or_an_error(answer: dict[str, Any], static: bool) -> None:
    """Its fields are secrets that a request can carry as UTF-8, and its end is a number."""
    grant = check(lambda: grants.path_secret(answer, LOGIN, NOW, static=static))
    if grant is not None:
        assert isinstance(grant, Grant)
        assert grant.life < inf
        assert not isnan(grant.ends_in)
        for field in grant.payload.values():
            field.reveal().encode()
        assert (grant.login is LOGIN) is bool(grant.lease_id)


@given(KV, st.sampled_from([1, 2]))
def test_any_json_is_a_kv_secret_or_an_error(answer: dict[str, Any], version: int) -> None:
    """Both versions of the engine; it hangs on no login and lives for max_stale."""
    grant = check(lambda: grants.kv(answer, SOURCE, version, NOW))
    if grant is not None:
        assert isinstance(grant, Grant)
        assert (grant.ttl, grant.read_again, grant.login) == (600.0, 60.0, NO_LOGIN)


def test_text_and_numbers_become_fields_and_nothing_else() -> None:
    """Numbers and booleans as JSON has them, texts of a list as lines, objects by dotted names."""
    data = {"s": "x", "i": 8080, "f": 1.5, "b": True, "none": None}
    data |= {"map": {"a": 1, "b": {"c": "deep"}}}
    data |= {"chain": ["one", "two"], "empty": [], "mixed": ["a", 1], "odd": ["\ud800"]}
    grant = grants.path_secret({"data": data, "lease_id": "l", "lease_duration": 60}, LOGIN, NOW)
    found = {name: field.reveal() for name, field in grant.payload.items()}
    nested = {"map.a": "1", "map.b.c": "deep"}
    assert found == {"s": "x", "i": "8080", "f": "1.5", "b": "true", "chain": "one\ntwo"} | nested


def test_a_leased_secret_without_a_duration_is_refused() -> None:
    """Nobody may guess how long a lease lives."""
    with pytest.raises(VaultError):
        grants.path_secret({"data": {"a": "b"}, "lease_id": "l"}, LOGIN, NOW)


@pytest.mark.parametrize(
    "duration", [None, True, False, "3600", -1, float("nan"), inf, -inf, 1e11, 10**400, [1]]
)
def test_a_duration_that_is_none_is_refused(duration: object) -> None:
    """Of a lease, of its renewal, of a token, of a static role."""
    part = {"lease_duration": duration, "renewable": True}
    for read in (
        lambda: grants.path_secret({"data": {"a": "b"}, "lease_id": "l", **part}, LOGIN, NOW),
        lambda: grants.renewal(part),
        lambda: grants.token({"auth": {"client_token": "hvs.x", **part}}, 0.0),
        lambda: grants.path_secret(
            {"data": {"last_vault_rotation": "2026-01-01T00:00:00Z", "ttl": duration}}, LOGIN, NOW
        ),
    ):
        with pytest.raises(VaultError):
            read()


def test_an_identity_token_ends_at_the_earlier_of_ttl_and_exp() -> None:
    """No lease, a ttl, and a token that says its own end."""
    token = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjEwMDB9.c2ln"  # exp: 1000
    answer = {"data": {"token": token, "ttl": 12, "client_id": "c"}}
    grant = grants.path_secret(answer, LOGIN, Now(900.0, 5000.0))
    assert (grant.ttl, grant.read_again) == (12.0, None)
    assert grant.field_ends == {"token": 100.0}, "by Vault's clock, as it tells a duration, too"


def test_a_certificate_and_a_static_credential_have_the_same_field() -> None:
    """One ends at its expiration; the other is rotated then, a little late."""
    answer = {"data": {"access_key": "AKIA", "expiration": "1970-01-01T00:16:40Z"}}
    certificate = grants.path_secret(answer, LOGIN, NOW)
    assert (certificate.ends_in, certificate.rotates_in) == (1000.0, None)
    static = grants.path_secret(answer, LOGIN, NOW, static=True)
    assert static.rotates_in == 1000.0
    assert static.life > 1000.0


def test_a_static_credential_whose_rotation_is_due_is_the_present_one() -> None:
    """Vault has not done it yet, and is asked again until it has."""
    answer = {"data": {"access_key": "AKIA", "expiration": "1970-01-01T00:16:40Z"}}
    grant = grants.path_secret(answer, LOGIN, Now(1005.0, 1005.0), static=True)
    assert grant.rotates_in == 0.0
    assert 0.0 < grant.life <= 10.0


def test_a_stored_token_ends_by_itself() -> None:
    """KV has no lease, and the token in it does not care."""
    token = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjEwMDB9.c2ln"  # exp: 1000
    grant = grants.kv(kv2({"key": token, "other": "x"}), SOURCE, 2, Now(0.0, 400.0))
    assert (grant.ttl, grant.read_again) == (600.0, 60.0)
    assert grant.using(["key"]).life == 600.0
    assert grants.kv(kv2({"key": token}), SOURCE, 2, Now(0.0, 990.0)).using(["key"]).life == 10.0


def test_a_version_that_vault_will_delete_ends_then() -> None:
    """delete_version_after says when; what is still given lives, whatever the clocks say."""
    answer = kv2({"key": "x"}, deletion_time="1970-01-01T00:16:40Z")
    assert grants.kv(answer, SOURCE, 2, Now(900.0, 900.0)).ends_in == 100.0
    assert grants.kv(answer, SOURCE, 2, Now(2000.0, 2000.0)).ends_in == 1.0


def test_a_path_without_a_lease_is_read_again() -> None:
    """It is static: read on a schedule, and it outlives the token that read it."""
    grant = grants.path_secret({"data": {"a": "b"}, "lease_id": ""}, LOGIN, NOW)
    assert grant.read_again is not None
    assert grant.login is NO_LOGIN


def kv2(data: object, **metadata: object) -> dict[str, Any]:
    known = {"version": 3, "created_time": "2026-01-01T00:00:00.5Z", **metadata}
    return {"data": {"data": data, "metadata": known}}


@pytest.mark.parametrize(
    "metadata", [{"deletion_time": "2026-01-01T00:00:01Z"}, {"destroyed": True}]
)
def test_a_version_without_data_is_gone(metadata: dict[str, object]) -> None:
    """Deleted and destroyed versions have metadata and no data."""
    with pytest.raises(VaultError) as caught:
        grants.kv(kv2(None, **metadata), SOURCE, 2, NOW)
    assert caught.value.failure.verdict is Verdict.SECRET_GONE


def test_a_version_that_will_be_deleted_is_not_yet_gone() -> None:
    """delete_version_after sets the deletion_time of a version that still lives."""
    grant = grants.kv(kv2({"key": "x"}, deletion_time="2099-01-01T00:00:00Z"), SOURCE, 2, NOW)
    assert grant.payload == {"key": Secret("x")}


@pytest.mark.parametrize(
    ("told", "policies"),
    [
        ({}, ()),
        ({"policies": ["default", "pay"]}, ("default", "pay")),
        ({"policies": ["pay"], "identity_policies": ["team", "pay"]}, ("pay", "team")),
        ({"policies": None, "identity_policies": "team"}, ()),
        ({"policies": [1, None, "pay", {}]}, ("pay",)),
        ({"policies": ["p" * 500]}, ("p" * 128,)),
        ({"policies": ["pay\x1b[2J\nteam\u202e"]}, ("pay?[2J team?",)),
        ({"policies": ["hvs.CAESIJ1ZJzUW3Qk9xT0aBcDeFgHiJkLm"]}, ("<hidden>",)),
        (
            {"policies": ["team-payments/production_read-only"]},
            ("team-payments/production_read-only",),
        ),
    ],
)
def test_a_logins_policies_are_only_shown(told: dict[str, Any], policies: tuple[str, ...]) -> None:
    """Whatever stands there, the login is one."""
    auth = {"client_token": "hvs.x", "accessor": "a", "lease_duration": 60, **told}
    assert grants.token({"auth": auth}, 0.0).policies == policies
    many = {**auth, "policies": [str(number) for number in range(1000)]}
    assert len(grants.token({"auth": many}, 0.0).policies) == 64


@pytest.mark.parametrize("number", [True, None, "3", 3.0, [3]])
def test_a_version_that_is_no_whole_number_is_refused(number: object) -> None:
    """Without it, nobody knows which of two answers is the newer."""
    with pytest.raises(VaultError):
        grants.kv(kv2({"key": "x"}, version=number), SOURCE, 2, NOW)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("00Z", "00.1Z"), ("00.1Z", "00.12Z"), ("00.099999999Z", "00.1Z"), ("00.9Z", "01Z")],
)
def test_created_times_sort_as_text(earlier: str, later: str) -> None:
    """Go leaves trailing zeros out; an older version is told by its time all the same."""

    def edition(number: int, seconds: str) -> Grant:
        answer = kv2({"k": "x"}, version=number, created_time=f"2026-01-01T00:00:{seconds}")
        return grants.kv(answer, SOURCE, 2, NOW)

    first, second = edition(1, earlier).version, edition(2, later).version
    assert first.created < second.created
    assert first.older_than(second)
    assert not second.older_than(first)


@given(JSON)
def test_what_json_says_is_what_we_are_given(value: Any) -> None:
    """The strategies above only make what a JSON text can bring."""
    with contextlib.suppress(ValueError):  # a number that is too long for Python to write
        json.loads(json.dumps(value))
