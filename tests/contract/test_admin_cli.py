"""`vaultauthz leases`, `rotate` and `revoke`: what they print and how they end, at every kind of door."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.admin.conftest import TOKEN, FakeView, serving
from tests.contract.certificates import Authority, stricter
from tests.patience import PATIENCE
from vaultauthz.admin import LeaseRow
from vaultauthz.admin.command import span, table
from vaultauthz.cli import main
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.core.certificate import EndingCertificate

ID = "60303ae22b998861"
LOGIN = LeaseRow("production", "", "held", "accessor-1", "", 3482.2, 2350.0)
PAY = LeaseRow("production", "payments", "held", "database/creds/pay/x", ID, 2530.4, 1865.0)
GEO = LeaseRow("production", "geocoder", "held", "", ID, 192.0, 12.4)
REPORTS = LeaseRow(
    "production", "reports", "empty", failures=3, last_error="permission denied by Vault",
    renew_in=12.2, optional=True,
)  # fmt: skip
CONFIG = """\
vault: {{address: "http://127.0.0.1:1"}}
stages: {{production: {{auth: {{method: approle, role_id: r}}}}}}
upstreams:
  payments: {{secret: {{path: x/y}}, inject: [{{bearer: "{{t}}"}}], callers: any}}
listen: {{grpc: "unix:///g.sock", {admin}}}
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def trouble(self) -> str:
        """The one line for which it ended with status 2, having printed nothing else."""
        assert (self.status, self.out) == (2, ""), self
        (line,) = self.err.splitlines()
        return line


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""
    return Run(capsys)


@dataclass(frozen=True)
class Run:
    """The command line, with both streams caught."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Done:
        status = main([str(argument) for argument in arguments])
        return Done(status, *self.capsys.readouterr())


@pytest.fixture
def view() -> FakeView:
    """An application whose every login and lease is well."""
    made = FakeView()
    made.rows = [PAY, LOGIN, GEO]
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose sockets have short paths."""
    return tmp_path


@pytest.fixture
def config(view: FakeView, folder: Path) -> Iterator[Path]:
    """The configuration of a server that runs."""
    place = f"unix://{folder}/admin.sock"
    with serving(Listen(admin=place), view):
        yield write_config(folder, f'admin: "{place}"')


def write_config(folder: Path, admin: str) -> Path:
    """A configuration with these lines in ``listen``."""
    path = folder / "c.yaml"
    path.write_text(CONFIG.format(admin=admin))
    return path


# --- leases ---


def test_leases_that_are_well(run: Run, config: Path) -> None:
    """A table by stage, the login first, times as people say them; status 0."""
    done = run("leases", "-c", config)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "UPSTREAM  STAGE       STATE  LEFT    NEXT CALL  CREDENTIAL",
        "(login)   production  held   58m02s  in 39m10s",
        f"geocoder  production  held   3m12s   in 12s     {ID}",
        f"payments  production  held   42m10s  in 31m05s  {ID}",
        "",
        "all 3 have their credential",
    ]


def test_something_is_without_a_credential(run: Run, config: Path, view: FakeView) -> None:
    """Status 1; the line says why, how often, and that readiness does not wait for it."""
    view.rows.append(REPORTS)
    done = run("leases", "-c", config)
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[4] == "reports *  production  empty  -       in 12s"
    assert lines[-4:] == [
        "! reports in production: permission denied by Vault (3 times in a row)",
        "",
        "1 of 4 has no credential",
        "* optional: readiness does not wait for it",
    ]


def test_a_login_that_is_missing_is_a_finding(run: Run, config: Path, view: FakeView) -> None:
    """Without it the leases will end; status 1."""
    view.rows[1] = replace(LOGIN, state="issuing", lease_id="", seconds_left=None, failures=1)
    done = run("leases", "-c", config)
    assert done.status == 1
    assert "1 of 3 has no credential" in done.out


def test_what_has_trouble_and_still_its_credential_is_no_finding(
    run: Run, config: Path, view: FakeView
) -> None:
    """It is told, with status 0; a lease without an end says so."""
    view.rows = [replace(PAY, seconds_left=math.inf, failures=1, last_error="Vault is sealed")]
    done = run("leases", "-c", config)
    assert done.status == 0
    assert "no end" in done.out
    assert "! payments in production: Vault is sealed\n" in done.out


def test_leases_as_json(run: Run, config: Path, view: FakeView) -> None:
    """Everything that the server tells, sorted; the same status as the table."""
    view.rows.append(REPORTS)
    done = run("leases", "-c", config, "--json")
    assert (done.status, done.err) == (1, "")
    rows = json.loads(done.out)
    assert [row["upstream"] for row in rows] == ["", "geocoder", "payments", "reports"]
    assert (rows[2]["lease_id"], rows[2]["seconds_left"]) == ("database/creds/pay/x", 2530.4)
    assert (rows[3]["optional"], rows[3]["last_error"]) == (True, "permission denied by Vault")


FAR = 4_102_444_800.0  # 2100
CERTIFICATES = [
    EndingCertificate("grpc", FAR, file="/tls.crt", trouble="/tls.key is not the key of /tls.crt"),
    EndingCertificate("vault", 1_600_000_000.0, "production", file="/c.pem"),
    EndingCertificate("upstream", FAR, "production", "mesh"),
]


def test_certificates(run: Run, config: Path, view: FakeView) -> None:
    """Below the leases, which decide of the status; with --certificates alone, and then they do."""
    view.ending = CERTIFICATES[2:]
    done = run("leases", "-c", config)
    assert (done.status, done.err) == (0, "")
    assert re.search(
        r"\nCERTIFICATE +LEFT +ENDS +FILE\nmesh in production +\d+d\d\dh +2100-01-01T", done.out
    )
    assert done.out.endswith("\n\nall 3 have their credential\n")
    assert run("leases", "-c", config, "--certificates").status == 0
    view.ending = CERTIFICATES
    done = run("leases", "-c", config, "--certificates")
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    assert re.fullmatch(
        r"client certificate for Vault in production +ENDED +2020-09-13T\S+ +/c.pem", lines[2]
    )
    assert lines[-1] == "! listen.grpc_tls: not taken: /tls.key is not the key of /tls.crt"


def test_certificates_as_json(run: Run, config: Path, view: FakeView) -> None:
    """Each with its end as a moment, and in seconds from now."""
    view.ending = [*CERTIFICATES, EndingCertificate("admin")]
    done = run("leases", "-c", config, "--certificates", "--json")
    found = json.loads(done.out)
    assert (done.status, [one["use"] for one in found]) == (
        1,
        ["grpc", "vault", "upstream", "admin"],
    )
    assert (found[1]["not_after"], found[1]["seconds_left"] < 0) == (1_600_000_000, True)
    assert (found[3]["not_after"], found[3]["seconds_left"]) == (None, None)
    assert (found[2]["name"], found[2]["upstream"]) == ("mesh in production", "mesh")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, ""), (-3.0, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (192.0, "3m12s"),
        (3599.0, "59m59s"), (3600.0, "1h00m"), (86399.0, "23h59m"), (90061.0, "1d01h"), (8640000, "100d00h"),
    ],
)  # fmt: skip
def test_times(seconds: float | None, told: str) -> None:
    """The two largest units."""
    assert span(seconds) == told


LONG = "an-upstream-with-a-very-long-name-that-goes-on-and-on"


@pytest.mark.parametrize("name", ["payments", LONG], ids=["short", "long"])
@pytest.mark.parametrize("stage", ["production", "production-in-frankfurt-am-main"])
def test_the_table_fits_the_terminal(name: str, stage: str) -> None:
    """Less matters more: the credential goes first, names are cut last; a pipe gets all."""
    row = {
        "upstream": name, "stage": stage, "state": "replacing", "lease_id": "x", "failures": 0,
        "credential_id": ID, "seconds_left": 90061.0, "renew_in": 3599.0, "last_error": "",
    }  # fmt: skip
    narrow, whole = table([row], 80), table([row], None)
    assert max(map(len, narrow)) <= 80
    assert stage in narrow[1]
    assert "1d01h" in narrow[1]
    assert re.split(r"  +", whole[1]) == [name, stage, "replacing", "1d01h", "in 59m59s", ID]


def test_a_terminal(config: Path, view: FakeView) -> None:
    """On 80 columns nothing is wider, long reasons go on below, and no text is taken for a command."""
    reason = "the secret does not fit: it has: " + "field-\x1b[2J, " * 12
    view.rows += [
        replace(REPORTS, upstream=LONG, stage="production-in-frankfurt", last_error=reason)
    ]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb") as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "vaultauthz", "leases", "-c", config],
            stdout=theirs,
            env={**os.environ, "COLUMNS": "80"},
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # its end
            while data := terminal.read1(4096):
                shown += data
        assert process.wait(PATIENCE) == 1
    lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in shown.decode()
    assert any(line.startswith("    ") for line in lines)
    assert "…" in shown.decode()


def test_a_reader_that_leaves(config: Path, view: FakeView) -> None:
    """`vaultauthz leases | head` is no error."""
    view.rows = [replace(PAY, upstream=f"u{number}") for number in range(5000)]
    done = subprocess.run(
        f"{sys.executable} -m vaultauthz leases -c {config} | head -1",
        shell=True, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("UPSTREAM")
    assert done.stderr == ""


# --- rotate and revoke ---


@pytest.mark.parametrize(("action", "doing"), [("rotate", "rotating"), ("revoke", "revoking")])
def test_an_upstream_is_asked_for(
    run: Run, config: Path, view: FakeView, action: str, doing: str
) -> None:
    """In all its stages or one of them; a name is sent as it is."""
    done = run(action, "pay ments", "-c", config)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"{doing} pay ments in production, staging"
    done = run(action, "pay ments", "--stage", "staging", "-c", config)
    assert done.out.splitlines()[0] == f"{doing} pay ments in staging"
    assert view.asked == [(action, "pay ments", None), (action, "pay ments", "staging")]


def test_asked_as_json(run: Run, config: Path) -> None:
    """What the server answered."""
    done = run("rotate", "pay ments", "--json", "-c", config)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == {
        "asked": "rotate", "upstream": "pay ments", "stages": ["production", "staging"],
    }  # fmt: skip


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_a_reason_goes_along(run: Run, config: Path, view: FakeView, action: str) -> None:
    """In any script; one line of at most 200 characters, or it is wrong usage."""
    done = run(action, "pay ments", "--reason", "Schlüssel im Chat, INC-7", "-c", config)
    assert (done.status, view.operators[0].reason) == (0, "Schlüssel im Chat, INC-7")
    assert re.fullmatch(r"uid \d+( \(\S+\))?", view.operators[0].who)
    for text in ("two\nlines", "\x1b[2J", "x" * 201):
        with pytest.raises(SystemExit, match="2"):
            run(action, "pay ments", "--reason", text, "-c", config)
    assert len(view.asked) == 1


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_an_unknown_upstream(run: Run, config: Path, view: FakeView, action: str) -> None:
    """A finding, with the names that there are; nothing was asked for."""
    done = run(action, "../payments?", "-c", config)
    assert (done.status, done.out) == (1, "")
    assert (
        done.err
        == "vaultauthz: there is no upstream '../payments?'; upstreams: geocoder, payments\n"
    )
    done = run(action, "nobody", "--json", "-c", config)
    assert done.status == 1
    assert json.loads(done.out) == {
        "error": "unknown_upstream",
        "upstream": "nobody",
        "stage": None,
    }
    assert view.asked == []


def test_an_unknown_stage(run: Run, config: Path, view: FakeView) -> None:
    """A finding, with the stages that the upstream has."""
    view.rows.append(replace(PAY, upstream="pay ments"))
    done = run("rotate", "pay ments", "--stage", "test", "-c", config)
    assert (done.status, done.out) == (1, "")
    assert done.err == "vaultauthz: pay ments is not in stage 'test'; its stages: production\n"


# --- getting there ---


@pytest.mark.parametrize(
    "form", ["unix://{folder}/admin.sock", "127.0.0.1:{port}", "localhost:{port}"]
)
def test_an_address(run: Run, view: FakeView, folder: Path, form: str) -> None:
    """--admin needs no configuration; the server may be at a socket or a port."""
    unix = form.startswith("unix")
    listen = Listen(admin=form.format(folder=folder) if unix else "127.0.0.1:0")
    with serving(listen, view) as admin:
        address = (
            admin.address.replace("127.0.0.1", "localhost") if "local" in form else admin.address
        )
        assert run("leases", "--admin", address).status == 0


def test_a_server_for_all_addresses(run: Run, view: FakeView, folder: Path) -> None:
    """One that listens on 0.0.0.0 is found on this machine, with its token."""
    (folder / "token").write_text(TOKEN + "\n")
    listen = Listen(admin="0.0.0.0:0", admin_token_file=folder / "token")
    pair = Authority(folder).issue("elsewhere.test")
    listen = replace(listen, admin_tls=ServerTls(pair.cert, pair.key))
    with serving(listen, view) as admin:
        lines = f'admin: "{admin.address}", admin_token_file: token, '
        lines += f'admin_tls: {{cert: "{pair.cert}", key: "{pair.key}"}}'
        assert run("leases", "-c", write_config(folder, lines)).status == 0


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_as_the_configuration_says(
    run: Run, view: FakeView, folder: Path, mutual: bool
) -> None:
    """The certificate is known from its file, whatever its name; another one is not accepted."""
    authority = Authority(folder)
    ours, other = authority.issue("elsewhere.test"), authority.issue("127.0.0.1")
    ca = authority.ca if mutual else None
    with serving(
        Listen("", None, "127.0.0.1:0", ServerTls(ours.cert, ours.key, ca)), view
    ) as admin:

        def lines(cert: Path, key: Path) -> str:
            client = f', client_ca: "{ca}"' if ca else ""
            tls = f'admin_tls: {{cert: "{cert}", key: "{key}"{client}}}'
            return f'admin: "{admin.address}", admin_insecure: true, {tls}'

        assert run("leases", "-c", write_config(folder, lines(ours.cert, ours.key))).status == 0
        wrong = run("leases", "-c", write_config(folder, lines(other.cert, other.key))).trouble
        assert "another certificate than listen.admin_tls names" in wrong


@pytest.mark.parametrize("plain", [False, True])
def test_tls_at_an_address(
    run: Run, view: FakeView, folder: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    """https:// asks the system's authorities, and for the name; --cert shows who asks.

    A home-made authority (``plain``) does, too, under a Python that is stricter by itself.
    """
    authority = Authority(folder, plain=plain)
    if plain:
        monkeypatch.setattr(ssl, "create_default_context", stricter)
    server, client = authority.issue("127.0.0.1"), authority.issue("operator")
    both = folder / "both.pem"
    both.write_bytes(client.cert.read_bytes() + client.key.read_bytes())
    tls = ServerTls(server.cert, server.key, authority.ca)
    with serving(Listen("", None, "127.0.0.1:0", tls), view) as admin:
        address = f"https://{admin.address}"
        assert "SSL_CERT_FILE" in run("leases", "--admin", address, "--cert", both).trouble
        assert "https://HOST:PORT" in run("leases", "--admin", admin.address).trouble
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        assert run("leases", "--admin", address, "--cert", both).status == 0
        assert "--cert FILE" in run("leases", "--admin", address).trouble
        named = f"https://localhost:{admin.address.rpartition(':')[2]}"
        assert "localhost" in run("leases", "--admin", named, "--cert", both).trouble


def test_a_token(run: Run, view: FakeView, folder: Path) -> None:
    """From the file that the configuration or --token-file names; it is never shown."""
    token, wrong = folder / "token", folder / "wrong"
    token.write_text(TOKEN + "\n")
    wrong.write_text("not-" + TOKEN)
    with serving(Listen(admin="127.0.0.1:0", admin_token_file=token), view) as admin:
        lines = f'admin: "{admin.address}", admin_token_file: "{token}"'
        assert run("leases", "-c", write_config(folder, lines)).status == 0
        address = ("--admin", admin.address)
        assert run("leases", *address, "--token-file", token).status == 0
        for side in (token, folder / "marked"):  # a byte order mark is no part of it
            side.write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
            assert run("leases", *address, "--token-file", side).status == 0
        assert "give --token-file FILE" in run("rotate", "pay ments", *address).trouble
        told = run("rotate", "pay ments", *address, "--token-file", wrong).trouble
        assert "does not take this admin token" in told
        assert TOKEN not in told
        assert view.asked == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such file"),
        ("", "holds no token"),
        ("a\r\nX-Evil: 1", "holds no token"),
        ("a\0b\0", "holds NUL bytes; save it as text in UTF-8"),
    ],
)
def test_a_token_file_that_is_none(run: Run, folder: Path, content: str | None, why: str) -> None:
    """The file is named; nothing is sent."""
    if content is not None:
        (folder / "token").write_text(content)
    told = run("leases", "--admin", "127.0.0.1:1", "--token-file", folder / "token").trouble
    assert f"{folder}/token" in told
    assert why in told


# --- not getting there ---


def test_no_admin_address(run: Run, folder: Path) -> None:
    """The line names the key and what to write there."""
    path = write_config(folder, "transport: auto")
    told = run("leases", "-c", path).trouble
    assert told.startswith(
        f"vaultauthz: {path}: listen.admin is missing; add it, as in admin: unix:"
    )


def test_a_port_that_the_system_chose(run: Run, folder: Path) -> None:
    """It stands in no file; --admin is named."""
    told = run(
        "leases", "-c", write_config(folder, 'admin: "127.0.0.1:0", admin_insecure: true')
    ).trouble
    assert "give --admin HOST:PORT" in told


@pytest.mark.parametrize("place", ["unix://{folder}/nobody.sock", "127.0.0.1:1"])
def test_nobody_there(run: Run, folder: Path, place: str) -> None:
    """It asks whether the server runs."""
    place = place.format(folder=folder)
    assert run("leases", "--admin", place).trouble == (
        f"vaultauthz: {place}: nobody listens there; is vaultauthz serve running, with this address?"
    )


def test_a_socket_left_by_a_server_that_was_killed(run: Run, folder: Path) -> None:
    """As if there were none."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "a.sock"))
    told = run("rotate", "pay ments", "--admin", f"unix://{folder}/a.sock").trouble
    assert "nobody listens there" in told


@pytest.mark.parametrize(
    "address", ["nonsense", "ftp://x:1", "127.0.0.1", "127.0.0.1:99999", "http://x:1"]
)
def test_no_address(run: Run, address: str) -> None:
    """The forms are named."""
    told = run("leases", "--admin", address).trouble
    assert "use unix:///PATH, HOST:PORT or https://HOST:PORT" in told


def test_a_token_does_not_go_in_clear(run: Run, folder: Path) -> None:
    """To another machine it travels in TLS only."""
    (folder / "token").write_text(TOKEN)
    told = run("leases", "--admin", "gateway.test:9901", "--token-file", folder / "token").trouble
    assert told.endswith("the token would go in clear; use https://gateway.test:9901")


def test_options_that_go_with_another(run: Run, config: Path) -> None:
    """A token file beside a configuration that names its own is not quietly left out."""
    told = run("leases", "-c", config, "--token-file", "x").trouble
    assert told == "vaultauthz: --token-file and --cert go with --admin ADDRESS"


def test_a_configuration_that_is_not_valid(run: Run, folder: Path) -> None:
    """It is told as by `config check`."""
    path = write_config(folder, "admn: x")
    assert run("leases", "-c", path).trouble.startswith(f"{path}:5: listen.admn")


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html></html>\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[17]",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n[",
        b"",
    ],
    ids=["ssh", "html", "numbers", "404", "cut", "hangs up"],
)
@pytest.mark.parametrize("command", [("leases",), ("rotate", "pay")])
def test_somebody_else_there(run: Run, command: tuple[str, ...], reply: bytes) -> None:
    """What is no vaultauthz is said to be none; no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        told = run(*command, "--admin", f"127.0.0.1:{server.getsockname()[1]}").trouble
        thread.join()
    assert "is it the right address?" in told or "hung up" in told


def test_a_server_with_an_error(run: Run, config: Path, view: FakeView) -> None:
    """It says where to look."""
    view.error = RuntimeError("a bug")
    assert "had an error of its own; see its log" in run("leases", "-c", config).trouble


def test_a_shell_sees_the_status(config: Path, view: FakeView) -> None:
    """The process itself ends with 0, 1 and 2."""
    view.rows.append(REPORTS)

    def status(*arguments: str) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "vaultauthz", *arguments],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode

    assert status("rotate", "pay ments", "-c", str(config)) == 0
    assert status("leases", "-c", str(config)) == 1
    assert status("revoke", "-c", str(config)) == 2  # argparse's own: no upstream is named
