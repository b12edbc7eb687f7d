"""Secrets that end by their own word, or are none, through keeper and session: a fake in engines' place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract.fake_http import Heard, Reply, Wire
from tests.contract.fake_vault import FakeVault
from tests.contract.faults import wait_until
from tests.contract.house import House, upstream
from vaultauthz.config.forms.header import Header
from vaultauthz.config.values import KvSecret, PathSecret
from vaultauthz.core.injection import Injection
from vaultauthz.core.template import Template
from vaultauthz.leases import lease_runner


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with FakeVault() as fake:
        fake.set_approle()
        yield fake


def header(text: str) -> Injection:
    return Header("x-key", Template.parse(text))


def says(vault: FakeVault, path: str, data: Callable[[], dict[str, Any]], **frame: Any) -> None:
    """From now on ``path`` is answered with this data, and no lease unless ``frame`` has one."""

    def answer(heard: Heard, usual: Callable[[], Reply], wire: Wire) -> Reply:
        body = {"request_id": "r", "lease_id": "", "lease_duration": 0, "data": data(), **frame}
        return Reply(200, body)

    vault.fault(answer, path)


class Engine:
    """Makes tokens that live for ``life`` seconds by ``form``, and keeps when each one ends."""

    def __init__(self, life: float, form: Callable[[float], dict[str, Any]]) -> None:
        self.life = life
        self.ends: dict[str, float] = {}
        self._form = form
        self._lock = threading.Lock()

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            token = f"token-{len(self.ends)}"
            self.ends[token] = time.monotonic() + self.life
        return {"token": token, **self._form(self.life)}


def rfc_3339(left: float) -> str:
    at = time.time() + left
    fraction = f"{at % 1:.9f}"[1:]
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + fraction + "Z"


@pytest.mark.parametrize(
    "form",
    [
        lambda left: {"ttl": left},
        lambda left: {"token_ttl": f"{left}s", "expires_at_seconds": time.time() + left},
        lambda left: {"expires_at": rfc_3339(left)},
        lambda left: {"expiration": str(time.time() + left)},
        lambda left: {"expires_at": int((time.time() + left) * 1000)},
    ],
    ids=["ttl", "gcp", "rfc 3339", "text", "milliseconds"],
)
def test_a_token_is_replaced_before_its_end_and_never_used_after_it(
    vault: FakeVault, form: Callable[[float], dict[str, Any]]
) -> None:
    """Four tokens in a row, of which none is handed out when it has ended."""
    engine = Engine(2.0, form)
    says(vault, "engine/token/r", engine)
    with House(vault, [upstream("u", PathSecret("engine/token/r"), inject=header("{token}"))]) as h:
        used: set[str] = set()

        def four() -> bool:
            before, sent = time.monotonic(), h.sent("u")
            if sent is not None:
                assert before < engine.ends[sent]
                used.add(sent)
            return len(used) == 4

        assert wait_until(four, 60)
    assert len(engine.ends) < 20


def test_what_has_no_newer_is_not_hammered_and_not_used(vault: FakeVault) -> None:
    """An engine that answers a cached token to its end, and beyond."""
    end = time.time() + 2.0
    says(vault, "engine/token/r", lambda: {"token": "same", "expires_at": end})
    with House(vault, [upstream("u", PathSecret("engine/token/r"), inject=header("{token}"))]) as h:
        assert wait_until(lambda: h.sent("u") == "same")
        assert wait_until(lambda: h.sent("u") is None, 60)
        assert wait_until(lambda: "has ended" in h.keeper.rows()[1].last_error, 60)
        calls = [heard.at for heard in vault.calls("engine/token/r")]
    assert len(calls) <= 12


def test_a_static_credential_of_another_engine_is_followed_through_its_rotation(
    vault: FakeVault,
) -> None:
    """aws/static-creds tells the next rotation as expiration, and rotates a little late."""
    began = time.time()
    now = {"access_key": "first", "expiration": rfc_3339(1.0)}
    says(vault, "aws/static-creds/r", lambda: dict(now))
    source = PathSecret("aws/static-creds/r")
    with House(vault, [upstream("u", source, inject=header("{access_key}"))]) as h:
        assert wait_until(lambda: h.sent("u") == "first")
        assert wait_until(lambda: len(vault.calls("aws/static-creds")) >= 3, 60)
        assert time.time() > began + 1.0
        assert h.sent("u") == "first", "Vault says that it is the present one"
        now |= {"access_key": "second", "expiration": rfc_3339(3600.0)}
        assert wait_until(lambda: h.sent("u") == "second", 60)


@pytest.mark.parametrize("value", ["", " ", "\t", "\u00a0", "\u200b"])
def test_a_blank_value_is_no_credential(vault: FakeVault, value: str) -> None:
    """Whoever waits for it is told which field it is; what was there before stays in use."""
    vault.put_kv("secret/geo", {"key": "good"})
    geo = upstream("geo", KvSecret("secret/geo", 0.1, 60.0), inject=header("Key {key}"))
    with House(vault, [geo]) as h:
        assert wait_until(lambda: h.sent("geo") == "Key good")
        vault.put_kv("secret/geo", {"key": value})
        assert wait_until(lambda: "field 'key' is" in h.keeper.rows()[1].last_error)
        assert h.sent("geo") == "Key good"


@pytest.mark.parametrize("duration", [None, True, "3600", -1, 10**400, float("nan")])
def test_a_lease_of_unknown_length_is_revoked_and_not_used(
    vault: FakeVault, duration: object
) -> None:
    """Vault has made a login: nobody knows how long it lives, so that it must not stay."""
    data = {"username": "u", "password": "p"}
    says(vault, "database/creds/pay", lambda: data, lease_id="l/1", lease_duration=duration)
    pay = upstream("pay", PathSecret("database/creds/pay"))
    with House(vault, [pay]) as h:
        assert wait_until(lambda: len(vault.calls("sys/leases/revoke")) > 0)
        assert vault.calls("sys/leases/revoke")[0].body == {"lease_id": "l/1"}
        assert h.sent("pay") is None


def test_a_totp_code_of_vault_ends_with_its_step(vault: FakeVault) -> None:
    """Vault says nothing beside the code: the key is asked for its period.

    Which step a code is of is not known in the first second of one, for which it may be used.
    """
    step, unsure = 4, 1
    says(vault, "totp/code/r", lambda: {"code": f"{time.time() // step:.0f}"})
    says(vault, "totp/keys/r", lambda: {"period": step, "digits": 6})
    with House(vault, [upstream("u", PathSecret("totp/code/r"), inject=header("{code}"))]) as h:
        used: set[str] = set()

        def three() -> bool:
            before, sent = (time.time() - unsure) // step, h.sent("u")
            if sent is not None:
                assert int(sent) >= before
                used.add(sent)
            return len(used) == 3

        assert wait_until(three, 60)


def test_a_totp_code_whose_period_may_not_be_read_is_not_used(vault: FakeVault) -> None:
    """The way out is in the error."""
    says(vault, "totp/code/r", lambda: {"code": "123456"})
    vault.deny("totp/keys/r")
    with House(vault, [upstream("u", PathSecret("totp/code/r"), inject=header("{code}"))]) as h:
        wanted = "let the policy allow read on totp/keys/r"
        assert wait_until(lambda: wanted in h.keeper.rows()[1].last_error)
        assert h.sent("u") is None


def test_the_last_second_stays_one_however_often_the_same_is_read(
    vault: FakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading finds less left; the time on the way is not a share of that."""
    monkeypatch.setattr(lease_runner, "on_the_way", lambda life: life * 0.15)  # of a long one, too
    vault.put_kv("secret/key", {"key": "k", "expires_at": f"{time.time() + 600.0}"})
    source = KvSecret("secret/key", refresh=0.1, max_stale=3600.0)
    with House(vault, [upstream("key", source)]) as house:
        assert wait_until(lambda: house.slot("key").credential is not None)
        first = house.slot("key").credential
        reads = len(vault.calls("secret/data"))
        assert wait_until(lambda: len(vault.calls("secret/data")) > reads + 3)
        now = house.slot("key").credential
    assert first
    assert now
    assert now is not first
    assert now.ends_at <= first.ends_at
