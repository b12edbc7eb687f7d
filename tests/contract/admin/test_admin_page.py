"""The page: its files and the policy they come with, what it is told, and that it shows all of it."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from importlib.resources import files
from itertools import product

import pytest

from tests.contract.admin.conftest import FakeView, Reply, ask
from vaultauthz.admin import Admin, LeaseRow

POLICY = {
    "default-src": "'none'",
    "connect-src": "'self'",
    "img-src": "data:",
    "script-src": "'self'",
    "style-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
ROW = LeaseRow("production", "payments", "held", "lease-1", "c_1", 900.0, 600.0, held_for=30.0)


def text(name: str) -> str:
    """One of the page's files."""
    return files("vaultauthz.admin").joinpath(name).read_text("utf-8")


def told(admin: Admin, query: str = "") -> Reply:
    """What the page is told."""
    reply = ask(admin, f"/overview{query and '?' + query}")
    assert reply.status == 200, reply.body
    return reply


def test_page_runs_only_its_own_files(admin: Admin) -> None:
    """The policy lets the page load its two files and ask this server, and nothing else at all."""
    reply = ask(admin, "/")
    policy = reply.headers["Content-Security-Policy"]
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == POLICY
    loaded = re.findall(r'(?:src|href)="([^"#]*)"', reply.body.decode())
    assert sorted(loaded) == ["data:,", "page.css", "page.js"]
    kinds = {"/page.js": "text/javascript", "/page.css": "text/css"}
    for target, kind in kinds.items():
        found = ask(admin, target)
        assert found.headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert found.body.decode() == text(target[1:])


def test_nothing_in_the_page_needs_more_than_that() -> None:
    """No script, style or handler stands in it, no address of elsewhere, and no text becomes markup."""
    html, script, style = text("page.html"), text("page.js"), text("page.css")
    assert not re.findall(r"<style|<script(?![^>]* src=)|\bon\w+=|style=", html)
    assert not re.findall(r"https?:|//[a-z]", html + style)
    assert re.findall(r"https?://[^\"']*", script) == ["http://www.w3.org/2000/svg"]  # a name
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|Function\("
    assert not re.findall(unsafe, script)
    assert not re.findall(r"@import|url\(", style)


def test_every_node_that_the_script_names_is_in_the_page() -> None:
    """What it looks up by id is there, once."""
    ids = re.findall(r'\bid="([\w-]+)"', text("page.html"))
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\bat\("([\w-]+)"\)', text("page.js"))) <= set(ids)


def test_what_stays_is_not_moved_by_what_goes() -> None:
    """A node that is moved loses the focus: the lists of the page let go first, and put in place then."""
    (keeping,) = re.findall(r"^function kept\(.*?^}", text("page.js"), re.DOTALL | re.MULTILINE)
    assert 0 < keeping.index(".remove()") < keeping.index(".insertBefore(")


def test_a_reader_without_eyes_or_mouse_finds_the_way() -> None:
    """Landmarks with names, a label for each field, headers for columns and rows, states that are said."""
    html, script = text("page.html"), text("page.js")
    sections = re.findall(r"<section[^>]*>", html)
    assert len(sections) == 7
    ids = set(re.findall(r'\bid="([\w-]+)"', html))
    for section in sections:
        (title,) = re.findall(r'aria-labelledby="([\w-]+)"', section)
        assert title in ids
    for field in re.findall(r"<input[^>]*>", html):
        (name,) = re.findall(r'id="(\w+)"', field)
        assert (
            "aria-label=" in field
            or f'<label for="{name}"' in html
            or f'<label class="check">{field}' in html
        )
    assert html.count("<th ") == html.count('scope="col"') == 5
    assert 'name.scope = "row"' in script
    assert len(re.findall(r'role="status"', html)) == 3
    assert '<a class="skip" href="#failing">' in html
    assert "<main" in html
    assert "showModal()" in script  # the browser keeps the focus inside, and Escape closes


def test_the_page_shows_every_part_of_a_row(admin: Admin, view: FakeView) -> None:
    """One row type from the lease to the page: none of it is lost on the way."""
    view.rows = [ROW]
    (row,) = told(admin).json["leases"]
    moments = {
        "seconds_left": "ends_at",
        "renew_in": "next_at",
        "held_for": "began_at",
        "refused_for": "refused_at",
    }
    names = {moments.get(field.name, field.name) for field in fields(LeaseRow)}
    assert row.keys() == names | {"tone", "troubles", "marks"}
    assert set(re.findall(r"\brow\.(\w+)", text("page.js"))) == row.keys()


def test_what_it_is_told_is_all_shown(admin: Admin) -> None:
    """Each part of the answer, and of the server's facts, is read by the script."""
    found = told(admin).json
    script = text("page.js")
    assert {
        name for name in found if f"told.{name}" not in script and f"?.{name}" not in script
    } == set()
    assert {name for name in found["server"] if f"server.{name}" not in script} == set()


def test_times_are_moments_that_stay(admin: Admin, view: FakeView) -> None:
    """Seconds since 1970: of a quiet server the answer is the same, and its time is in a header."""
    view.rows = [ROW]
    reply = told(admin)
    (row,) = reply.json["leases"]
    assert reply.headers["X-Vaultauthz-Now"] == "1700000100.000"
    assert (row["ends_at"], row["next_at"], row["began_at"]) == (1700001000, 1700000700, 1700000070)
    assert row["refused_at"] is None


def test_what_has_not_changed_is_not_sent_again(admin: Admin, view: FakeView) -> None:
    """The ETag says whether it has; 304 has the time, no body and no word about one."""
    view.rows = [ROW]
    tag = told(admin).headers["ETag"]
    again = ask(admin, "/overview", headers={"If-None-Match": tag})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    assert again.headers["X-Vaultauthz-Now"] == "1700000100.000"
    assert "Content-Length" not in again.headers
    assert "Content-Type" not in again.headers
    view.rows = [replace(ROW, state="renewing")]
    changed = ask(admin, "/overview", headers={"If-None-Match": tag})
    assert (changed.status, changed.json["leases"][0]["state"]) == (200, "renewing")


def test_of_a_thousand_some_are_sent(admin: Admin, view: FakeView) -> None:
    """What fails first, then by name; all are counted, and looked through for a text."""
    view.rows = [
        replace(ROW, upstream=f"u{number:04}", lease_id=f"lease/{number:04}")
        for number in range(1000)
    ]
    view.rows[777] = replace(
        view.rows[777], usable=False, failures=2, last_error="Vault is sealed", lease_id=""
    )
    found = told(admin).json
    assert [row["upstream"] for row in found["leases"]][:3] == ["u0777", "u0000", "u0001"]
    assert (len(found["leases"]), found["found"], found["total"]) == (50, 1000, 1000)
    assert found["failing_leases"] == 1
    few = told(admin, "find=LEASE/099&most=5").json
    assert [row["upstream"] for row in few["leases"]] == [f"u099{n}" for n in range(5)]
    assert (few["found"], few["total"]) == (10, 1000)
    only = told(admin, "failing=1").json
    assert [row["upstream"] for row in only["leases"]] == ["u0777"]
    assert only["failing"][0]["places"] == [
        {"stage": "production", "upstream": "u0777", "caller": ""}
    ]


@pytest.mark.parametrize(
    "query",
    ["x=1", "most=0", "most=501", "most=many", "failing=2", "after=x", "find", "find=" + "a" * 201],
)
def test_query_that_makes_no_sense(admin: Admin, query: str) -> None:
    """A mistyped parameter is no answer to another question."""
    reply = ask(admin, f"/overview?{query}")
    assert (reply.status, reply.json) == (400, {"error": "bad_query"})


def _light_and_dark() -> dict[str, dict[str, str]]:
    colour = re.compile(r"--([\w-]+): (#[0-9a-f]{6})\b")
    first, second = re.findall(r":root \{(.*?)\}", text("page.css"), re.DOTALL)
    light = dict(colour.findall(first))
    return {"light": light, "dark": light | dict(colour.findall(second))}


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """By WCAG 2.2, from 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


TEXTS = [
    *product(("ink", "soft"), ("ground", "sheet")),
    *product(("good", "warn", "bad", "accent"), ("sheet", "ground")),
    *((name, f"{name}-tint") for name in ("good", "warn", "bad")),
    *product(("ink", "soft"), ("good-tint", "warn-tint", "bad-tint")),
    ("on-accent", "accent"), ("sheet", "bad"), ("soft", "line"), ("ground", "ink"),
    ("accent", "bad-tint"), ("accent", "warn-tint"),
]  # fmt: skip
SHAPES = [
    *product(("edge",), ("sheet", "ground")),
    *product(("accent", "ink", "bad", "warn"), ("line", "sheet")),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    """Texts have 4.5 to 1, what one has to see to use it 3 to 1 (WCAG 2.2 AA), light and dark."""
    colours = _light_and_dark()[scheme]
    low = {pair: contrast(*(colours[name] for name in pair)) for pair in TEXTS}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
    shapes = {pair: contrast(*(colours[name] for name in pair)) for pair in SHAPES}
    assert {pair: ratio for pair, ratio in shapes.items() if ratio < 3.0} == {}
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
