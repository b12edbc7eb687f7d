"""Looks at the admin page in a real browser, tries it, and makes the pictures of it in this folder.

Wants Debian's chromium and Playwright, which nothing else here needs:

    apt-get install chromium fonts-liberation
    .venv/bin/pip install playwright pillow
    .venv/bin/python docs/screenshots.py

The server is ours over a situation that is made up, so that there is something to see. Status 1: the page
did not do what is asked of it here.
"""

# ruff: noqa: INP001, T201 - a script that prints and asserts, not a package

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from vaultauthz.admin import Admin, LeaseRow, Readiness
from vaultauthz.admin.overview import (
    Asked,
    ConnectedGateway,
    Overview,
    ReloadOutcome,
    ServerFacts,
    Sources,
    overview,
)
from vaultauthz.config.values import Listen
from vaultauthz.core import events
from vaultauthz.core.certificate import EndingCertificate
from vaultauthz.core.events import AskedBy, Event
from vaultauthz.core.grant import NodeState
from vaultauthz.core.history import History, Tone
from vaultauthz.core.lease_row import StageFacts

DOCS: Final = Path(__file__).parent
WIDTHS: Final = (380, 800, 1600)
CHROMIUM: Final = "/usr/bin/chromium"
_PUT: Final = "database/creds/payments/"


class MadeUp:
    """A server with so many upstreams, some of which fail if ``failing``; ``asked`` is what was done."""

    def __init__(self, upstreams: int, *, failing: bool) -> None:
        self.began = time.time() - 3 * 86400
        self.history = History()
        self.asked: list[tuple[str, str, str | None, str]] = []
        self.failing = failing
        self.rows = [
            self._login("production"),
            *(self._lease(number) for number in range(upstreams)),
        ]
        if failing:
            self._break()

    def _at(self, ago: float) -> float:
        return time.time() - ago

    def _tell(
        self, name: str, row: LeaseRow, ago: float, text: str = "", tone: Tone = Tone.NONE
    ) -> None:
        names = (row.stage, row.upstream, row.lease_id, row.credential_id)
        reason = text.rpartition(": ")[2] if tone is not Tone.NONE else ""
        event = Event(name, *names, reason=reason)
        label = f"upstream {row.upstream}, stage {row.stage}: " if row.upstream else "login: "
        self.history.take(event, self._at(ago), text and label + text, tone if text else None)

    def _login(self, stage: str) -> LeaseRow:
        row = LeaseRow(
            stage, "", "held", "hmac-3tUqXcDk2RwVnB7o", "", 2400.0, 1500.0, held_for=4 * 3600.0, ttl=3600.0,
            policies=("vaultauthz-production", "default"),
        )  # fmt: skip
        self._tell(events.LOGIN, row, 4 * 3600.0, "logged in")
        for ago in (9000.0, 6600.0, 4000.0, 1200.0):
            self._tell(events.TOKEN_RENEWED, row, ago)
        return row

    def _lease(self, number: int) -> LeaseRow:
        name = NAMES[number] if number < len(NAMES) else f"service-{number:04}"
        turn = (number * 37 % 100) / 100
        row = LeaseRow(
            "production", name, "held", f"{_PUT}{number:03}xR7", f"{number * 0x9E3779B97F4A7C15 & (1 << 64) - 1:016x}",
            900.0 + 2400.0 * turn, 300.0 + 1500.0 * turn, held_for=7200.0 * (1 - turn) + 900.0, ttl=3600.0,
        )  # fmt: skip
        held = row.held_for or 0.0
        self._tell(events.ISSUED if number % 2 else events.ROTATED, row, held, "has its credential")
        for ago in (held * 0.66, held * 0.33):
            self._tell(events.RENEWED, row, ago)
        return row

    def _change(self, name: str, **changes: Any) -> LeaseRow:
        at = next(at for at, row in enumerate(self.rows) if row.upstream == name)
        self.rows[at] = replace(self.rows[at], **changes)
        return self.rows[at]

    def _break(self) -> None:
        gone = {
            "state": "empty", "usable": False, "seconds_left": None, "held_for": None, "renew_in": 21.0,
            "lease_id": "", "credential_id": "", "failures": 9, "last_error": "permission denied by Vault",
        }  # fmt: skip
        before = next(row for row in self.rows if row.upstream == "payments")
        for ago in (900.0, 600.0, 300.0, 120.0):
            self._tell(
                events.FAILED,
                before,
                ago,
                "x: permission denied by Vault" if ago == 900.0 else "",
                Tone.WARN,
            )
        ended = "its credential has ended (its time is over); requests are answered 503 until there is another"
        self._tell(events.EXPIRED, before, 740.0, ended, Tone.BAD)
        self._change("payments", **gone)
        if len(self.rows) < 6:
            return
        self._change("geocoder", refused=14, refused_for=95.0)
        refused = next(row for row in self.rows if row.upstream == "geocoder")
        self._tell(
            events.REJECTED, refused, 95.0, "the upstream answered 401 to its credential", Tone.WARN
        )
        for name in ("invoices", "ledger", "search"):
            row = self._change(name, failures=3, last_error="Vault gave no answer in time")
            self._tell(events.FAILED, row, 210.0)
        self._change("mailer", revoking=1, revoke_error="permission denied by Vault", wanted=True)

    def ready(self) -> Readiness:
        """Not while something that is required is missing."""
        return Readiness(started=True, ready=not self.failing)

    def leases(self) -> list[LeaseRow]:
        """As they stand."""
        return self.rows

    def certificates(self) -> list[Any]:
        """None."""
        return []

    def metrics(self) -> str:
        """None."""
        return ""

    def overview(self, asked: Asked) -> Overview:
        """As a server makes it."""
        facts = ServerFacts(
            "0.2.0", self.began, DOCS.parent / "README.md", self.began,
            ReloadOutcome(self.began + 86400, taken=True, text="1 upstream added"),
        )  # fmt: skip
        nodes = (
            NodeState(
                "https://vault-1.internal:8200",
                not self.failing,
                self._at(215.0),
                "connection refused",
            ),
            NodeState("https://vault-2.internal:8200", True),
        )
        stages = [StageFacts("production", "approle", "approle", "team-payments", nodes)]
        gateways = [
            ConnectedGateway("envoy-edge-1", "SDS", 1, 12, self._at(86000.0)),
            ConnectedGateway("envoy-edge-1", "access log", 1, None, self._at(86000.0)),
        ]
        certificates = [
            EndingCertificate("grpc", time.time() + 61 * 86400, file="/etc/vaultauthz/tls/tls.crt"),
            EndingCertificate("upstream", time.time() + 5400, "production", "ledger"),
        ]
        sources = Sources(
            time.time, time.time, lambda: facts,
            lambda leases: ([self.history.past(*lease) for lease in leases], self.history.news()),
            lambda: stages, lambda: gateways, lambda: certificates,
        )  # fmt: skip
        found = overview(time.time(), self.rows, (), sources, asked)
        found.told["ready"], found.told["started"] = not self.failing, True
        return found

    def rotate(self, upstream: str, stage: str | None, by: AskedBy) -> tuple[str, ...]:
        """Remember it."""
        self.asked.append(("rotate", upstream, stage, by.reason))
        return (stage or "production",)

    def revoke(self, upstream: str, stage: str | None, by: AskedBy) -> tuple[str, ...]:
        """Remember it."""
        self.asked.append(("revoke", upstream, stage, by.reason))
        return (stage or "production",)


NAMES: Final = (
    "payments",
    "geocoder",
    "invoices",
    "ledger",
    "search",
    "mailer",
    "reports",
    "warehouse",
)


@contextmanager
def served(view: MadeUp, token: Path | None = None) -> Iterator[str]:
    """The page's address."""
    admin = Admin(Listen(admin="127.0.0.1:0", admin_token_file=token), view)
    admin.start()
    try:
        yield f"http://{admin.address}/"
    finally:
        admin.stop()


@contextmanager
def opened(
    browser: Browser, address: str, width: int, scheme: Any = "light", *, there: str = "#rows tr"
) -> Iterator[Page]:
    """The page, once ``there`` is; nothing on it may have gone against its policy, or wrong."""
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.on(
        "console",
        lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.wait_for_selector(there, state="attached")
    yield page
    # A browser tells of a 401 and of a server that is gone by itself.
    assert not [text for text in wrong if "Failed to load resource" not in text], wrong
    context.close()


def shot(page: Page, name: str, height: int) -> None:
    """A small picture of it, from the top."""
    width = page.viewport_size["width"] if page.viewport_size else 0
    page.set_viewport_size({"width": width, "height": height})
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(64)
    image.save(DOCS / name, optimize=True)
    size = (DOCS / name).stat().st_size
    print(f"{name}: {image.width} x {image.height}, {size / 1024:.0f} kB")
    assert size < 150 * 1024


def no_scrolling_aside(page: Page) -> None:
    """Nothing is wider than the window."""
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 0, f"{wide} px too wide at {page.viewport_size}"


def rotated_by_keys(page: Page, view: MadeUp) -> None:
    """By the keyboard alone: the question keeps the focus, wants a reason, and gives the focus back."""
    button = page.get_by_role("button", name="Revoke payments in production")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    for _ in range(8):
        page.keyboard.press("Tab")
        inside = (
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
        assert page.evaluate(inside)
    page.keyboard.press("Escape")
    assert (
        page.evaluate("document.activeElement.getAttribute('aria-label')")
        == "Revoke payments in production"
    )
    assert not view.asked
    page.keyboard.press("Enter")
    page.get_by_label("Reason").press("Enter")  # without one
    assert not view.asked
    page.get_by_label("Reason").fill("the password was in a ticket")
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_hidden()
    assert view.asked == [("revoke", "payments", "production", "the password was in a ticket")]
    page.wait_for_selector("#said:has-text('asked for')")


def looked_through(page: Page) -> None:
    """A thousand: some are drawn, the filter finds the others, and no frame takes long."""
    assert page.locator("#rows tr").count() == 50
    page.keyboard.press("/")
    page.keyboard.type("service-0777")
    expect(page.locator("#rows tr")).to_have_count(1)
    assert page.locator("#rows tr th").inner_text().startswith("service-0777")
    page.locator("#find").fill("")
    expect(page.locator("#rows tr")).to_have_count(50)
    page.locator("#more").click()
    expect(page.locator("#rows tr")).to_have_count(100)
    # As long as the page's own work keeps a frame from being drawn, while times go on and answers come.
    longest = page.evaluate(
        """() => new Promise(done => {
            let last = performance.now(), longest = 0, frames = 0;
            requestAnimationFrame(function next(now) {
                longest = Math.max(longest, now - last);
                last = now;
                if (++frames < 300) requestAnimationFrame(next); else done(longest);
            });
        })"""
    )
    print(
        f"a thousand upstreams, a hundred rows drawn: the longest of 300 frames took {longest:.0f} ms"
    )


def hostile(browser: Browser) -> None:
    """Names that would be markup stay text, whoever has chosen them."""
    view = MadeUp(1, failing=False)
    markup = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
    view.rows.append(
        replace(view.rows[1], upstream=markup, caller=markup, last_error=markup, failures=1)
    )
    with served(view) as address, opened(browser, address, 1280) as page:
        expect(page.locator("#rows tr")).to_have_count(2)
        expect(page.locator("#rows")).to_contain_text(markup)
        assert page.locator("main img, main script").count() == 0
        assert page.title() != "taken"


def locked(browser: Browser) -> None:
    """Nothing is shown without the token; it is in no place that outlives the page. Then the server goes."""
    view = MadeUp(1, failing=False)
    with TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text("open-sesame")
        with ExitStack() as server:
            address = server.enter_context(served(view, token))
            with opened(browser, address, 800, there="#login:not([hidden])") as page:
                expect(page.locator("main")).to_be_hidden()
                for text in ("wrong", "open-sesame"):
                    page.get_by_label("This server wants the admin token").fill(text)
                    page.keyboard.press("Enter")
                    expect(page.locator("#lost" if text == "wrong" else "#rows tr")).to_be_visible()
                kept = page.evaluate(
                    "[document.cookie, localStorage.length, sessionStorage.length, location.href]"
                )
                assert kept == ["", 0, 0, address]
                server.close()
                expect(page.locator("#lost")).to_contain_text("does not answer", timeout=15_000)


def tried(browser: Browser) -> None:
    """Everything that is asked of it."""
    hostile(browser)
    locked(browser)
    for upstreams, failing in ((1, False), (1, True), (8, True), (1000, True)):
        view = MadeUp(upstreams, failing=failing)
        with served(view) as address:
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    with opened(browser, address, width, scheme) as page:
                        no_scrolling_aside(page)
            with opened(browser, address, 1280) as page:
                if failing:
                    rotated_by_keys(page, view)
                if upstreams == 1000:
                    looked_through(page)


def pictured(browser: Browser) -> None:
    """What the documentation shows."""
    view = MadeUp(8, failing=True)
    with served(view) as address:
        with opened(browser, address, 1280) as page:
            shot(page, "page-light.png", 1180)
            page.get_by_role("button", name="Revoke payments in production").click()
            page.get_by_label("Reason").fill("the password was in a ticket")
            shot(page, "page-revoke.png", 900)
        with opened(browser, address, 1280, "dark") as page:
            shot(page, "page-dark.png", 1180)
        with opened(browser, address, 380) as page:
            shot(page, "page-narrow.png", 1500)


def main() -> int:
    """Try it, and make the pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            tried(browser)
            pictured(browser)
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
