"""The story, step by step. Each step says what it does, does it with real parts, and checks what came of it.

The later ones are about time: a lease that ends, a key that changes, a vault that is away.
"""

import base64
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from vaultauthz.demo.client import OK, GatewayClient, GatewayReply, Traffic
from vaultauthz.demo.ending import audit_lines, stop_and_look
from vaultauthz.demo.parts import Seen, shorten, wait_for
from vaultauthz.demo.stage import DASHBOARD, INTRUDER, KEY_PATH, LEASE_MAX_TTL, LEASE_TTL, DemoStage
from vaultauthz.demo.tell import Teller

FORBIDDEN = 403
Step = Callable[[DemoStage, Teller], None]
UNAVAILABLE = 503
# A rotation comes within max_ttl; twice that is a failure.
ROTATION_SECONDS = 24
KEY_SECONDS = 8
LEASE_END_SECONDS = 15
RETURN_SECONDS = 25
ASK_EVERY_SECONDS = 0.1


def no_credential_sent(stage: DemoStage, tell: Teller) -> None:
    """A request without any credential is answered, by a login that Vault made."""
    tell.step(
        "A request without any credential",
        "The dashboard asks for the reports. The service accepts only a PostgreSQL login. The dashboard has none, and "
        "Envoy's configuration has none. vaultauthz holds a lease on a login that Vault made, and adds it on the way.",
    )
    reply = stage.dashboard().get()
    seen = stage.reports.last
    user, password = seen.basic() or ("", "")
    tell.fact(
        "sent",
        f"GET https://reports.demo/ with the certificate of {DASHBOARD}, no Authorization header",
    )
    tell.fact("seen", f"reports got Authorization: Basic {user}:{shorten(password)}")
    tell.fact("answered", answer(reply), f"current_user is {reply.body.get('current_user')}")
    tell.hold(reply.status == OK, "The answer is 200, with rows from the database.")
    made = (
        user.startswith("v-")
        and reply.body.get("current_user") == user
        and user in stage.postgres.users()
    )
    tell.hold(made, "The database user is one that Vault made.")
    hidden = bool(password) and password not in stage.envoy.config_dump() + stage.config.read_text()
    tell.hold(hidden, "Its password stands neither in Envoy's configuration nor in ours.")


def client_headers_dropped(stage: DemoStage, tell: Teller) -> None:
    """A client's own credentials reach no upstream, however it writes them."""
    tell.step(
        "A client that brings its own credentials",
        "A client sends Authorization and X-Api-Key itself: twice, and in other letter case. "
        "None of them may reach a service.",
    )
    forged = base64.b64encode(b"postgres:guess").decode()
    headers = [
        ("Authorization", f"Basic {forged}"),
        ("AUTHORIZATION", "Bearer forged-token"),
        ("X-Api-Key", "forged-key-1"),
        ("x-api-KEY", "forged-key-2"),
    ]
    for name, value in headers:
        tell.fact("sent", f"{name}: {value}")
    first = stage.dashboard().get(headers=headers)
    second = stage.client("geocoder.demo").get(headers=headers)
    to_reports, to_geocoder = stage.reports.last, stage.geocoder.last
    tell.fact(
        "seen", f"reports got {credentials(to_reports)}", f"geocoder got {credentials(to_geocoder)}"
    )
    login = to_reports.basic() or ("", "")
    clean = login[0].startswith("v-") and not to_reports.all("x-api-key")
    tell.hold(
        first.status == OK and clean, "reports got one Authorization, Vault's, and no X-Api-Key."
    )
    clean = set(to_geocoder.all("x-api-key")) == stage.valid_keys and not to_geocoder.all(
        "authorization"
    )
    tell.hold(
        second.status == OK and clean,
        "geocoder got one X-Api-Key, the one in Vault, and no Authorization.",
    )
    values = " ".join(value for seen in (to_reports, to_geocoder) for _, value in seen.headers)
    tell.hold(
        "forged" not in values and forged not in values, "Nothing that the client sent got through."
    )


def refused(stage: DemoStage, tell: Teller) -> None:
    """A caller that the configuration does not allow gets 403; so does a host that nobody configured."""
    tell.step(
        "A caller that is not allowed, and a host that nobody knows",
        f"Only {DASHBOARD} may use the reports login. Who the caller is, Envoy has learned from the certificate.",
    )
    requests_before = len(stage.reports.seen) + len(stage.geocoder.seen)
    intruder = stage.client("reports.demo", stage.intruder_certificate).get()
    tell.fact("sent", f"GET https://reports.demo/ as {INTRUDER}")
    tell.fact("answered", answer(intruder))
    nobody = stage.client("reports.demo").get()
    tell.fact("sent", "GET https://reports.demo/ without a certificate")
    tell.fact("answered", answer(nobody))
    denied = all(
        (reply.status, reply.error) == (FORBIDDEN, "caller_denied") for reply in (intruder, nobody)
    )
    tell.hold(denied, "Both get 403 with the reason caller_denied.")
    unknown = stage.client("unknown.demo", stage.dashboard_certificate).get()
    tell.fact("sent", "GET https://unknown.demo/")
    tell.fact("answered", answer(unknown))
    tell.hold(
        (unknown.status, unknown.error) == (FORBIDDEN, "no_upstream"),
        "An unknown host gets 403 no_upstream.",
    )
    untouched = requests_before == len(stage.reports.seen) + len(stage.geocoder.seen)
    tell.hold(untouched, "None of the three reached a service.")


def answer(reply: GatewayReply) -> str:
    """Status and reason, or the number of rows, in a few words."""
    if reply.error:
        return f"{reply.status} {reply.error}"
    return (
        f"{reply.status}, {len(reply.body['rows'])} rows"
        if "rows" in reply.body
        else str(reply.status)
    )


def credentials(seen: Seen) -> str:
    """The credentials in a request, shortened."""
    login = seen.basic()
    words = [f"Authorization: Basic {login[0]}:{shorten(login[1])}"] if login else []
    words += [f"X-Api-Key: {shorten(key)}" for key in seen.all("x-api-key")]
    return " and ".join(words) or "no credential"


def rotation(stage: DemoStage, tell: Teller) -> None:
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


def new_key(stage: DemoStage, tell: Teller) -> None:
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


def vault_outage(stage: DemoStage, tell: Teller) -> None:
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


def _just_renewed(stage: DemoStage) -> bool:
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


def _ask_while(client: GatewayClient, status: int, seconds: float) -> tuple[int, GatewayReply]:
    """Ask until the answer has another status or the time is over; how many had it, and the last answer."""
    end, count = time.monotonic() + seconds, 0
    while (reply := client.get()).status == status and time.monotonic() < end:
        count += 1
        time.sleep(ASK_EVERY_SECONDS)
    return count, reply


STEPS: tuple[Step, ...] = (
    no_credential_sent,
    client_headers_dropped,
    refused,
    rotation,
    new_key,
    vault_outage,
)
ENDING: tuple[Step, ...] = (stop_and_look, audit_lines)
