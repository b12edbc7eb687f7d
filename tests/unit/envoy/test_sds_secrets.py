"""What a secret's name stands for, and what is kept from SDS."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.envoy.sds_world import ANY, KEY, RULES, STAGE, World
from vaultauthz._pb.discovery_pb2 import Secret
from vaultauthz.broker import Former
from vaultauthz.config.forms.basic import Basic
from vaultauthz.config.forms.bearer import Bearer
from vaultauthz.config.forms.cookie import Cookie
from vaultauthz.config.forms.header import Header
from vaultauthz.config.forms.query import Query
from vaultauthz.config.forms.tls import ClientCertificate
from vaultauthz.config.sds_slots import slots
from vaultauthz.core.callers import Callers, Rule
from vaultauthz.core.template import Template
from vaultauthz.envoy.sds.secrets import Secrets, secret_texts
from vaultauthz.envoy.sds.subscription import ABSENT, WITHDRAWN, ServedSecret

T = Template.parse
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
PRIVATE = "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----"
GEO = f"{STAGE}/geo"


@pytest.fixture
def world() -> World:
    """With one upstream that has no credential yet."""
    made = World()
    made.add("geo")
    return made


@pytest.fixture
def secrets(world: World) -> Secrets:
    """The lookup under test."""
    return Secrets(world, world.clock)


def shown(served: ServedSecret | None) -> str:
    """The header's value that Envoy would set."""
    assert served
    assert served.value is not None
    secret = Secret.FromString(served.value)
    assert secret.name == served.name
    assert secret.WhichOneof("type") == "generic_secret"
    return secret.generic_secret.secret.inline_bytes.decode()


def is_empty(served: ServedSecret | None) -> bool:
    """Whether Envoy would refuse the requests that want it."""
    return shown(served) == "" and served is not None and served.version == WITHDRAWN


def test_the_whole_header_value_is_the_secret(world: World, secrets: Secrets) -> None:
    """As a check would set it, with the scheme before it."""
    world.add("pay", [Basic(T("{key}"), T("{password}"))])
    world.add("api", [Bearer(T("{key}"))])
    for name in ("pay", "api", "geo"):
        world.give(name, "käse", password="pass")
    assert shown(secrets.lookup(GEO)) == "käse"
    assert shown(secrets.lookup(f"{STAGE}/api")) == "Bearer käse"
    assert shown(secrets.lookup(f"{STAGE}/pay")) == "Basic a8Okc2U6cGFzcw=="


def test_before_the_first_credential_there_is_nothing_to_say(
    world: World, secrets: Secrets
) -> None:
    """An Envoy that comes back after our restart keeps what it has until we have better."""
    assert secrets.lookup(GEO) is None
    world.give("geo", "k1")
    assert shown(secrets.lookup(GEO)) == "k1"


def test_withdrawn_is_empty(world: World, secrets: Secrets) -> None:
    """Also when nobody had asked while there was one."""
    world.give("geo", "k1")
    secrets.seen(STAGE, "geo")
    world.withdraw("geo")
    assert is_empty(secrets.lookup(GEO))


@pytest.mark.parametrize("over", ["lease", "login"])
def test_what_is_over_is_withdrawn(world: World, secrets: Secrets, over: str) -> None:
    """By the time alone: nobody needs to have noticed it yet."""
    world.give("geo", "k1", lasts=50.0 if over == "lease" else 5000.0)
    if over == "login":
        world.login.ends_at = 50.0
    assert shown(secrets.lookup(GEO)) == "k1"
    world.now = 50.0
    assert is_empty(secrets.lookup(GEO))


def test_a_version_is_the_credentials(world: World, secrets: Secrets) -> None:
    """A renewal is no new version, another credential is, and so is another way to write it."""
    world.give("geo", "k1")
    first = secrets.lookup(GEO)
    world.renew("geo", 500.0)
    renewed = secrets.lookup(GEO)
    assert first
    assert renewed
    assert (first.version, first.value) == (renewed.version, renewed.value)
    assert (first.ends_at, renewed.ends_at) == (100.0, 500.0)
    credential = world.give("geo", "k1")
    second = secrets.lookup(GEO)
    assert second
    assert second.version != first.version
    world.reload("geo", inject=(Header("x-api-key", T("Key {key}")),))
    secrets.reloaded()
    world.give("geo", "k1")
    slot = world.shared(STAGE, "geo")
    assert slot
    assert slot[1].credential
    slot[1].credential = replace(slot[1].credential, credential_id=credential.credential_id)
    third = secrets.lookup(GEO)
    assert third
    assert third.version != second.version
    assert shown(third) == "Key k1"


def test_two_processes_have_other_versions(world: World) -> None:
    """So that what one has sent is not taken for what another has."""
    world.give("geo", "k1")
    versions = {Secrets(world, world.clock).lookup(GEO) for _ in range(2)}
    assert len({served.version for served in versions if served}) == 2


def test_several_slots_are_several_secrets(
    world: World, secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has a name of its own, in any letter case; the short name is refused."""
    world.add("two", [KEY, Bearer(T("{key}"))])
    world.give("two", "k1")
    assert shown(secrets.lookup(f"{STAGE}/two/x-api-key")) == "k1"
    assert shown(secrets.lookup(f"{STAGE}/two/Authorization")) == "Bearer k1"
    for name in (f"{STAGE}/two", f"{STAGE}/two/x-other"):
        assert is_empty(secrets.lookup(name))
    assert "must name one of its slots: x-api-key, authorization" in caplog.text
    assert "names no slot of it; slots: x-api-key, authorization" in caplog.text


def test_a_slot_may_be_named_where_there_is_one(world: World, secrets: Secrets) -> None:
    """The long name means the same."""
    world.give("geo", "k1")
    assert shown(secrets.lookup(f"{GEO}/x-api-key")) == "k1"


@pytest.mark.parametrize("inject", [Query("key", T("{key}")), Cookie("key", T("{key}"))])
def test_what_sds_cannot_carry_is_not_carried_in_part(
    world: World, secrets: Secrets, inject: Query | Cookie, caplog: pytest.LogCaptureFixture
) -> None:
    """A header without the query parameter beside it would be half a credential."""
    world.add("half", [KEY, inject])
    world.give("half", "k1")
    assert is_empty(secrets.lookup(f"{STAGE}/half/x-api-key"))
    assert f"injects by {type(inject).__name__.lower()}, which SDS cannot" in caplog.text


@pytest.mark.parametrize(
    "callers", [RULES, Callers(()), Callers(None, deny=(Rule(methods=frozenset({"PUT"})),))]
)
def test_callers_are_not_passed_over(world: World, secrets: Secrets, callers: Callers) -> None:
    """With rules, or a deny list, it is withheld unless Envoy enforces them."""
    world.add("guarded", callers=callers)
    world.give("guarded", "k1")
    assert is_empty(secrets.lookup(f"{STAGE}/guarded"))
    world.reload("guarded", callers_enforced_by="envoy")
    assert shown(secrets.lookup(f"{STAGE}/guarded")) == "k1"


def test_withheld_after_a_reload_is_taken_back(world: World, secrets: Secrets) -> None:
    """What was handed out under ``any`` is empty as soon as there are rules."""
    world.give("geo", "k1")
    assert shown(secrets.lookup(GEO)) == "k1"
    world.reload("geo", callers=RULES)
    assert is_empty(secrets.lookup(GEO))
    world.reload("geo", callers=ANY)
    world.drop("geo")
    assert is_empty(secrets.lookup(GEO))


def test_the_old_secret_is_not_handed_out_under_new_rules(world: World, secrets: Secrets) -> None:
    """A reload may bring another secret and let everybody in: the old one is not for them."""
    old = world.give("geo", "old")
    world.formers[STAGE, "geo"] = Former(old.credential_id, (RULES,))
    assert secrets.lookup(GEO) is None
    world.give("geo", "new")
    assert shown(secrets.lookup(GEO)) == "new"


def test_unchanged_rules_keep_nothing_back(world: World, secrets: Secrets) -> None:
    """Where the rules before were the same, or none, the old secret is handed out meanwhile."""
    old = world.give("geo", "old")
    for before in (ANY, RULES):
        world.formers[STAGE, "geo"] = Former(old.credential_id, (before,))
        world.reload("geo", callers=before, callers_enforced_by="envoy")
        assert shown(secrets.lookup(GEO)) == "old"


def test_another_header_is_waited_for(world: World, secrets: Secrets) -> None:
    """Between a reload that names another header and its first credential, nothing is said."""
    world.give("geo", "k1")
    assert secrets.lookup(GEO)
    world.reload("geo", inject=(Header("x-other", T("{key}")),))
    assert secrets.lookup(GEO) is None
    world.give("geo", "k2")
    assert shown(secrets.lookup(GEO)) == "k2"


def test_a_certificate(world: World, secrets: Secrets) -> None:
    """It comes as a TLS secret, under ``tls`` where there is a header too, and has no empty form."""
    world.add("partner", [ClientCertificate()])
    world.give("partner", "", certificate=PEM, private_key=PRIVATE, ca_chain=PEM)
    served = secrets.lookup(f"{STAGE}/partner")
    assert served
    assert served.value
    tls = Secret.FromString(served.value).tls_certificate
    assert tls.certificate_chain.inline_bytes.decode() == f"{PEM}\n{PEM}\n"
    assert tls.private_key.inline_bytes.decode() == f"{PRIVATE}\n"
    assert secret_texts(served) == (f"{PRIVATE}\n".encode(),)
    world.withdraw("partner")
    assert secrets.lookup(f"{STAGE}/partner/tls") == ServedSecret(
        f"{STAGE}/partner/tls", ABSENT, None
    )
    world.add("both", [KEY, ClientCertificate()])
    world.give("both", "k1", certificate=PEM, private_key=PRIVATE)
    assert shown(secrets.lookup(f"{STAGE}/both/x-api-key")) == "k1"
    assert secrets.lookup(f"{STAGE}/both/tls") != ServedSecret(f"{STAGE}/both/tls", ABSENT, None)


def test_a_header_called_tls_is_not_mistaken_for_a_certificate(world: World) -> None:
    """That name is taken."""
    world.add("odd", [Header("tls", T("{key}"))])
    found = world.shared(STAGE, "odd")
    assert found
    assert slots(found[0]) == ()


def test_each_name_is_told_about_once(secrets: Secrets, caplog: pytest.LogCaptureFixture) -> None:
    """And again after a reload; a client that makes names up cannot fill the log."""
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            secrets.lookup(f"{STAGE}/nobody")
        assert len(caplog.records) == 1
        secrets.reloaded()
        for number in range(2000):
            secrets.lookup(f"{STAGE}/{number}")
        assert len(caplog.records) == 1001


@given(st.text() | st.from_regex(re.compile(r"[a-z/]{0,12}"), fullmatch=True))
def test_any_name_is_empty_or_absent(text: str) -> None:
    """Nobody learns from a name what there is, and none is an error."""
    world = World()
    served = Secrets(world, world.clock).lookup(text)
    assert served
    assert served.name == text
    assert served.credential is None
    assert served.version in (ABSENT, WITHDRAWN)
