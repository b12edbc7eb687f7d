"""The story, step by step. Each step says what it does, does it with real parts, and checks what came of it."""

import base64
from collections.abc import Callable

from vaultauthz.demo.client import OK, Reply
from vaultauthz.demo.ending import audit_lines, stop_and_look
from vaultauthz.demo.lifetimes import new_key, rotation, vault_outage
from vaultauthz.demo.parts import Seen, shorten
from vaultauthz.demo.stage import DASHBOARD, INTRUDER, Stage
from vaultauthz.demo.tell import Teller

FORBIDDEN = 403
Step = Callable[[Stage, Teller], None]


def no_credential_sent(stage: Stage, tell: Teller) -> None:
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


def client_headers_dropped(stage: Stage, tell: Teller) -> None:
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


def refused(stage: Stage, tell: Teller) -> None:
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


def answer(reply: Reply) -> str:
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


STEPS: tuple[Step, ...] = (
    no_credential_sent,
    client_headers_dropped,
    refused,
    rotation,
    new_key,
    vault_outage,
)
ENDING: tuple[Step, ...] = (stop_and_look, audit_lines)
