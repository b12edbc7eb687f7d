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
from vaultauthz.vault import answers
from vaultauthz.vault.errors import VaultError

LOGIN = Login()
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
    *("version", "created_time", "deletion_time", "destroyed"),
)


def named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of Vault's names, and ``inner`` or anything below them."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, inner | SCALARS | JSON))


def whole(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with all of these, or whatever else there may be."""
    return st.fixed_dictionaries(parts) | named(named(SCALARS)) | st.dictionaries(st.text(), JSON)


TTL = {"lease_duration": SCALARS, "renewable": SCALARS}
AUTH = whole(client_token=SCALARS, accessor=SCALARS, num_uses=SCALARS, **TTL)
TOKENS = whole(auth=AUTH, request_id=SCALARS)
RENEWALS = whole(**TTL) | whole(auth=whole(**TTL))
SECRETS = whole(data=st.dictionaries(st.text(), JSON), lease_id=SCALARS, **TTL)
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
    grant = check(lambda: answers.token(answer, 100.0))
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
    assert answers.token({"auth": auth}, 0.0).uses == uses


@given(RENEWALS)
def test_any_json_is_a_renewal_or_an_error(answer: dict[str, Any]) -> None:
    """A renewal's TTL is a number, and never one that Vault did not say."""
    renewal = check(lambda: answers.renewal(answer))
    if renewal is not None:
        assert isinstance(renewal, Renewal)
        assert renewal.ttl < inf


@given(SECRETS)
@example({"data": {"a": None, "b": {"c": 1}, "d": [1], "e": 1.5, "f": True, "g": "\ud800"}})
def test_any_json_is_a_secret_or_an_error(answer: dict[str, Any]) -> None:
    """Its fields are secrets that a request can carry as UTF-8."""
    grant = check(lambda: answers.path_secret(answer, LOGIN, 0.0))
    if grant is not None:
        assert isinstance(grant, Grant)
        for field in grant.payload.values():
            field.reveal().encode()
        assert (grant.login is LOGIN) is bool(grant.lease_id)


@given(KV, st.sampled_from([1, 2]))
def test_any_json_is_a_kv_secret_or_an_error(answer: dict[str, Any], version: int) -> None:
    """Both versions of the engine; it hangs on no login and lives for max_stale."""
    grant = check(lambda: answers.kv(answer, SOURCE, version))
    if grant is not None:
        assert isinstance(grant, Grant)
        assert (grant.ttl, grant.read_again, grant.login) == (600.0, 60.0, NO_LOGIN)


def test_text_and_numbers_become_fields_and_nothing_else() -> None:
    """Numbers and booleans as JSON has them, texts of a list as lines; what else there is, not."""
    data = {"s": "x", "i": 8080, "f": 1.5, "b": True, "none": None, "map": {"a": 1}}
    data |= {"chain": ["one", "two"], "empty": [], "mixed": ["a", 1], "odd": ["\ud800"]}
    grant = answers.path_secret({"data": data, "lease_id": "l", "lease_duration": 60}, LOGIN, 0.0)
    found = {name: field.reveal() for name, field in grant.payload.items()}
    assert found == {"s": "x", "i": "8080", "f": "1.5", "b": "true", "chain": "one\ntwo"}


def test_a_leased_secret_without_a_duration_is_refused() -> None:
    """Nobody may guess how long a lease lives."""
    with pytest.raises(VaultError):
        answers.path_secret({"data": {"a": "b"}, "lease_id": "l"}, LOGIN, 0.0)


def test_a_path_without_a_lease_is_read_again() -> None:
    """It is static: read on a schedule, and it outlives the token that read it."""
    grant = answers.path_secret({"data": {"a": "b"}, "lease_id": ""}, LOGIN, 0.0)
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
        answers.kv(kv2(None, **metadata), SOURCE, 2)
    assert caught.value.failure.verdict is Verdict.SECRET_GONE


def test_a_version_that_will_be_deleted_is_not_yet_gone() -> None:
    """delete_version_after sets the deletion_time of a version that still lives."""
    grant = answers.kv(kv2({"key": "x"}, deletion_time="2099-01-01T00:00:00Z"), SOURCE, 2)
    assert grant.payload == {"key": Secret("x")}


@pytest.mark.parametrize("number", [True, None, "3", 3.0, [3]])
def test_a_version_that_is_no_whole_number_is_refused(number: object) -> None:
    """Without it, nobody knows which of two answers is the newer."""
    with pytest.raises(VaultError):
        answers.kv(kv2({"key": "x"}, version=number), SOURCE, 2)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("00Z", "00.1Z"), ("00.1Z", "00.12Z"), ("00.099999999Z", "00.1Z"), ("00.9Z", "01Z")],
)
def test_created_times_sort_as_text(earlier: str, later: str) -> None:
    """Go leaves trailing zeros out; an older version is told by its time all the same."""

    def edition(number: int, seconds: str) -> Grant:
        answer = kv2({"k": "x"}, version=number, created_time=f"2026-01-01T00:00:{seconds}")
        return answers.kv(answer, SOURCE, 2)

    first, second = edition(1, earlier).version, edition(2, later).version
    assert first.created < second.created
    assert first.older_than(second)
    assert not second.older_than(first)


@given(JSON)
def test_what_json_says_is_what_we_are_given(value: Any) -> None:
    """The strategies above only make what a JSON text can bring."""
    with contextlib.suppress(ValueError):  # a number that is too long for Python to write
        json.loads(json.dumps(value))
