from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultauthz.config.forms.basic import Basic
from vaultauthz.config.forms.cookie import Cookie
from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.query import Query
from vaultauthz.core.credential import Credential, Slot
from vaultauthz.core.decision import Allowed
from vaultauthz.core.grant import Grant
from vaultauthz.core.injection import render
from vaultauthz.core.lease import LeaseMachine
from vaultauthz.core.lease_messages import Issued, Publish, Tick
from vaultauthz.core.secret import HIDDEN, Secret
from vaultauthz.core.template import Template

VALUE = "hvs.CAESIJ-correct-horse"
SECRET = Secret(VALUE)

SHOWN: dict[str, Callable[[], str]] = {
    "repr": lambda: repr(SECRET),
    "str": lambda: str(SECRET),
    "ascii": lambda: ascii(SECRET),
    "format": lambda: format(SECRET, ">40"),
    "f-string": lambda: f"{SECRET} {SECRET!r} {SECRET!s:>30} {SECRET=}",
    "str.format": lambda: "{0} {0!r} {0:x}".format(SECRET),  # noqa: UP032  the way is meant
    "percent": lambda: "%s %r" % (SECRET, SECRET),  # noqa: UP031  the way is meant
    "list": lambda: str([SECRET, (SECRET,), {"a": SECRET}]),
    "pprint": lambda: pprint.pformat({"password": SECRET}),
    "json": lambda: json.dumps({"password": SECRET}, default=str),
}


@pytest.mark.parametrize("how", SHOWN)
def test_secret_is_hidden(how: str) -> None:
    """No way of turning a secret into text shows it."""
    text = SHOWN[how]()
    assert HIDDEN in text
    assert VALUE not in text


@given(st.text(min_size=8))
def test_secret_of_any_value_is_hidden(value: str) -> None:
    """What a secret looks like does not hang on what it is."""
    assert repr(Secret(value)) == str(Secret(value)) == format(Secret(value), "s") == HIDDEN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_secret_is_not_pickled(protocol: int) -> None:
    """No pickle can hold a secret, not even one that is deep inside something."""
    with pytest.raises(TypeError) as caught:
        pickle.dumps({"fields": [SECRET]}, protocol)
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_secret_is_not_copied(duplicate: Callable[[Secret], Secret]) -> None:
    """A secret stays the one object that it is."""
    with pytest.raises(TypeError):
        duplicate(SECRET)


def test_secret_is_not_json() -> None:
    """JSON refuses a secret, and its complaint does not name it."""
    with pytest.raises(TypeError) as caught:
        json.dumps({"password": SECRET})
    assert VALUE not in str(caught.value)


def test_secret_is_hidden_in_tracebacks() -> None:
    """A traceback with its local variables, as crash reporters make them, shows no secret."""

    def fail(password: Secret) -> None:
        raise ValueError(password)

    with pytest.raises(ValueError, match=HIDDEN) as caught:
        fail(SECRET)
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert VALUE not in "".join(report.format())


def test_secret_is_hidden_in_logs() -> None:
    """A secret handed to the log as an argument is not written."""
    out = io.StringIO()
    logger = logging.getLogger("vaultauthz.test_secret")
    logger.handlers, logger.propagate = [logging.StreamHandler(out)], False
    logger.warning("login with %s and %r", SECRET, {"secret_id": SECRET})
    assert out.getvalue() == f"login with {HIDDEN} and {{'secret_id': {HIDDEN}}}\n"


def test_secret_has_no_other_way_in() -> None:
    """No dictionary, no iteration, no length, no hash: only ``reveal`` gives the value."""
    assert not hasattr(SECRET, "__dict__")
    ways: tuple[Callable[[Any], object], ...] = (vars, iter, len, hash, bytes)
    for way in ways:
        with pytest.raises(TypeError):
            way(SECRET)
    assert SECRET.reveal() == VALUE


@given(st.text(), st.text())
def test_secrets_compare_by_value(a: str, b: str) -> None:
    """Two secrets are equal when their values are, lone surrogates from JSON included."""
    assert (Secret(a) == Secret(b)) is (a == b)
    assert Secret(a) == Secret(a)


def test_secrets_with_surrogates_compare() -> None:
    """A value that no encoding takes is compared, not crashed on."""
    assert Secret("\ud800") == Secret("\ud800")
    assert Secret("\ud800") != Secret("\udfff")


def test_secret_is_not_its_text() -> None:
    """A secret does not equal its plain text, so that no comparison can be used to guess it."""
    assert SECRET != VALUE


def test_credential_and_its_like_hide_it() -> None:
    """Everything on the way from Vault to the request has a repr without the credential."""
    field = Template.parse("{password}")
    forms = (
        Header("x-key", field),
        Basic(Template.parse("user"), field),
        Query("key", field),
        Cookie("sid", field),
    )
    mutation = render(forms, {"password": SECRET})
    grant = Grant(mutation, 60.0, "database/creds/x/1", renewable=True, credential_id="c1")
    credential = Credential(mutation, "c1", "database/creds/x/1", 60.0)
    slot = Slot()
    slot.credential = credential
    machine = LeaseMachine()
    machine.handle(Tick(), 0.0, 0.0)
    machine.handle(Issued(grant, 0.0), 0.0, 0.0)
    things = (
        mutation,
        grant,
        replace(grant, payload=SECRET),
        replace(grant, payload={"password": VALUE}),
        credential,
        slot,
        Allowed("pay", "prod", credential),
        Issued(grant, 0.0),
        Publish(grant, 60.0),
        machine.held,
    )
    basic = dict(mutation.headers)["authorization"].removeprefix("Basic ")
    for thing in things:
        assert VALUE not in repr(thing)
        assert VALUE not in str(thing)
        assert basic not in repr(thing)
