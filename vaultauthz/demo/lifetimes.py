"""The steps about time: a lease that ends, a key that changes, a vault that is away."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from vaultauthz.demo.client import OK, Client, Reply
from vaultauthz.demo.parts import shorten, wait_for
from vaultauthz.demo.stage import KEY_PATH, LEASE_MAX_TTL, LEASE_TTL, Stage
from vaultauthz.demo.tell import Teller
from vaultauthz.demo.traffic import Traffic

UNAVAILABLE = 503
# A rotation comes within max_ttl; twice that is a failure.
ROTATION_SECONDS = 24
KEY_SECONDS = 8
LEASE_END_SECONDS = 15
RETURN_SECONDS = 25
ASK_EVERY_SECONDS = 0.1


def rotation(stage: Stage, tell: Teller) -> None:
    """Under constant traffic the database user changes, and no request notices."""
    tell.step(
        "A lease of a few seconds, under constant traffic",
        f"The login's lease lasts {LEASE_TTL}. vaultauthz renews it in time. Vault allows "
        f"{LEASE_MAX_TTL} in all: before that, vaultauthz gets a new login, swaps it in, lets the "
        "requests in flight finish with the old one, and then has Vault revoke what is left of it. "
        "This is rotation.",
    )
    lines_before, begin = len(stage.audit()), time.monotonic()
    with Traffic(stage.dashboard) as traffic:
        wait_for(lambda: len(traffic.users) > 1, ROTATION_SECONDS)
        # A little longer: what goes wrong after a swap, goes wrong now.
        time.sleep(1.5)
    tell.fact("sent", f"{traffic.answered} requests in {time.monotonic() - begin:.1f} s")
    tell.fact("users", *traffic.users)
    events = Counter(
        str(line["event"])
        for line in stage.audit()[lines_before:]
        if line.get("upstream") == "reports"
    )
    did = ("lease.renewed", "lease.issued", "lease.rotated", "lease.revoked")
    tell.fact("our log", ", ".join(f"{name} {events[name]}x" for name in did if events[name]))
    tell.hold(len(traffic.users) > 1, "The database user changed.")
    failures = "; ".join(f"{count}x {what}" for what, count in Counter(traffic.failures).items())
    tell.hold(
        traffic.answered > 0 and not failures,
        f"Not one request failed.{failures and f' Failed: {failures}'}",
    )


def new_key(stage: Stage, tell: Teller) -> None:
    """A new key written to KV arrives without a restart."""
    tell.step(
        "A new key in Vault's key-value store",
        f"The geocoder's key has no lease: it is a secret at {KEY_PATH}, and vaultauthz reads it again every second. "
        "Now somebody writes a new one.",
    )
    client = stage.client("geocoder.demo")
    client.get()
    old = shorten(" ".join(stage.geocoder.last.all("x-api-key")))
    pid, begin = stage.serve.pid, time.monotonic()
    key = stage.new_key()
    statuses: set[int] = set()

    def arrived() -> bool:
        statuses.add(client.get().status)
        return stage.geocoder.last.all("x-api-key") == [key]

    held = wait_for(arrived, KEY_SECONDS)
    tell.fact(
        "seen",
        f"X-Api-Key: {old} before",
        f"X-Api-Key: {shorten(key)} after {time.monotonic() - begin:.1f} s",
    )
    stage.retire_keys_but(key)
    statuses.add(client.get().status)
    tell.hold(held and stage.serve.pid == pid, "The new key arrived, without a restart.")
    tell.hold(statuses == {OK}, "Every request on the way was answered 200.")


def vault_outage(stage: Stage, tell: Teller) -> None:
    """Without Vault requests go on until the lease ends, then 503; Vault comes back and so do the answers."""
    tell.step(
        "Vault is stopped",
        "A login that is leased stays good until its lease ends, with or without Vault. After that its password is "
        "worth nothing, and vaultauthz answers 503 itself rather than send it.",
    )
    client = stage.dashboard()
    # Right after a renewal the lease has enough left to watch.
    wait_for(lambda: _just_renewed(stage), LEASE_END_SECONDS)
    stage.bao.stop()
    stopped = time.monotonic()
    good, last = _ask_while(client, OK, LEASE_END_SECONDS)
    tell.fact(
        "answered",
        f"{good} times 200 in the {time.monotonic() - stopped:.1f} s after Vault had stopped",
    )
    tell.fact("then", f"{last.status} {last.error}")
    tell.hold(good > 0, "Requests went on while the lease lasted.")
    tell.hold(
        (last.status, last.error) == (UNAVAILABLE, "no_credential"),
        "Then the answer was 503 no_credential.",
    )
    tell.say("Now Vault is started again and unsealed.")
    stage.bao.start()
    started = time.monotonic()
    _, last = _ask_while(client, UNAVAILABLE, RETURN_SECONDS)
    tell.fact("answered", f"{last.status}, {time.monotonic() - started:.1f} s after Vault was back")
    tell.fact("", f"current_user is {last.body.get('current_user')}")
    tell.hold(last.status == OK, "Vault returned, and so did the answers.")


def _just_renewed(stage: Stage) -> bool:
    """Whether the lease was issued, renewed or replaced in the last second."""
    names = ("lease.issued", "lease.renewed", "lease.rotated")
    times = [
        str(line["time"])
        for line in stage.audit()
        if line["event"] in names and line["upstream"] == "reports"
    ]
    return bool(times) and datetime.now(UTC) - datetime.fromisoformat(times[-1]) < timedelta(
        seconds=1
    )


def _ask_while(client: Client, status: int, seconds: float) -> tuple[int, Reply]:
    """Ask until the answer has another status or the time is over; how many had it, and the last answer."""
    end, count = time.monotonic() + seconds, 0
    while (reply := client.get()).status == status and time.monotonic() < end:
        count += 1
        time.sleep(ASK_EVERY_SECONDS)
    return count, reply
