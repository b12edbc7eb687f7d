"""Who may see it, and what keeps other pages in a browser out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.admin.conftest import (
    BEARER,
    MARKED,
    TOKEN,
    FakeView,
    ask,
)
from vaultauthz.admin import Admin, Readiness, WaitingUpstream
from vaultauthz.config.values import Listen
from vaultauthz.listening import ListenError


def test_token(guarded: Admin, view: FakeView) -> None:
    """Leases, metrics and actions want the token."""
    post = "/upstreams/pay%20ments/rotate"
    for target, method in (
        ("/leases", "GET"),
        ("/certificates", "GET"),
        ("/overview", "GET"),
        ("/metrics", "HEAD"),
        (post, "POST"),
    ):
        for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {TOKEN}"}):
            reply = ask(guarded, target, method, MARKED | wrong)
            assert reply.status == 401
            assert reply.headers["WWW-Authenticate"] == 'Bearer realm="vaultauthz"'
        assert not view.asked
        assert ask(guarded, target, method, MARKED | BEARER).status in (200, 202)


def test_probes_need_no_token_and_see_no_names(guarded: Admin, view: FakeView) -> None:
    """Without the token the probes answer, but don't say which upstreams there are."""
    view.readiness = Readiness(
        started=False,
        ready=False,
        waiting=(WaitingUpstream("staging", "payments", "Vault is sealed"),),
    )
    assert ask(guarded, "/healthz").status == 200
    assert ask(guarded, "/").status == 200
    reply = ask(guarded, "/readyz")
    assert (reply.status, reply.json) == (503, {"ready": False, "started": False})
    assert "waiting" in ask(guarded, "/readyz", headers=BEARER).json


def test_new_token(guarded: Admin, token_file: Path) -> None:
    """A replaced token file counts from the next request on."""
    fresh = token_file.with_name("fresh")
    fresh.write_text("another")
    fresh.rename(token_file)
    assert ask(guarded, "/leases", headers=BEARER).status == 401
    assert ask(guarded, "/leases", headers={"Authorization": "bearer another"}).status == 200


def test_lost_or_emptied_token_locks_out(guarded: Admin, token_file: Path) -> None:
    """Without a token nobody gets in, with an empty one neither."""
    token_file.write_text("")
    for given in ("Bearer ", "Bearer", f"Bearer {TOKEN}", ""):
        assert ask(guarded, "/leases", headers={"Authorization": given}).status == 401
    token_file.unlink()
    assert ask(guarded, "/leases", headers=BEARER).status == 401
    token_file.write_text(TOKEN)
    assert ask(guarded, "/leases", headers=BEARER).status == 200


def test_unusable_token_file(view: FakeView, tmp_path: Path) -> None:
    """A missing or empty token file stops the start, with its name."""
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for file in (tmp_path / "missing", empty):
        admin = Admin(Listen(admin="127.0.0.1:0", admin_token_file=file), view)
        with pytest.raises(ListenError, match=str(file)):
            admin.start()


def test_no_token_off_loopback(view: FakeView) -> None:
    """An address that others reach is refused without a token."""
    with pytest.raises(ListenError, match="needs admin_token_file"):
        Admin(Listen(admin="0.0.0.0:0"), view).start()


def test_post_needs_the_header(admin: Admin, view: FakeView) -> None:
    """A form on another page cannot set X-Vaultauthz, so without it nothing is done."""
    form = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    reply = ask(admin, "/upstreams/pay%20ments/rotate", "POST", form)
    assert (reply.status, view.asked) == (403, [])
    assert reply.json["hint"] == "send the header X-Vaultauthz: 1"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "nonsense"])
def test_post_of_another_site(admin: Admin, view: FakeView, site: str) -> None:
    """A browser says where a request comes from: from elsewhere nothing is done, whatever else it has."""
    reply = ask(admin, "/upstreams/pay%20ments/revoke", "POST", MARKED | {"Sec-Fetch-Site": site})
    assert (reply.status, reply.json, view.asked) == (403, {"error": "cross_site"}, [])
    ours = MARKED | {"Sec-Fetch-Site": "same-origin"}
    assert ask(admin, "/upstreams/pay%20ments/revoke", "POST", ours).status == 202


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80"])
@pytest.mark.parametrize("target", ["/", "/leases", "/upstreams/x/rotate"])
def test_rebound_name(admin: Admin, host: str, target: str) -> None:
    """A name of somebody else's that resolves to loopback gets nothing."""
    for method in ("GET", "POST"):
        reply = ask(admin, target, method, {"Host": host, **MARKED})
        assert (reply.status, reply.json) == (421, {"error": "wrong_host"})


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9999", "127.0.0.1", "[::1]:1", "LOCALHOST."]
)
def test_own_names(admin: Admin, host: str) -> None:
    """Loopback's names are known, at whatever port a tunnel gives them."""
    assert ask(admin, "/healthz", headers={"Host": host}).status == 200
