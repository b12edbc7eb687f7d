"""The command line as a shell sees it: arguments in; exit status and two streams out."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.certificates import Authority
from tests.patience import PATIENCE
from tests.unit.audit.logs import used, written
from vaultauthz import __version__

SECRET = "s3cr3t-0f-the-role"
VALID = """\
vault:
  address: http://127.0.0.1:1
stages:
  prod:
    auth: {method: approle, role_id: gateway, secret_id_file: secret_id}
  test:
    auth: {method: approle, role_id: gateway, secret_id_file: secret_id}
upstreams:
  pay:
    secret: {path: "database/creds/pay-{stage}"}
    inject: [{basic: {username: "{username}", password: "{password}"}}]
    callers: any
  geo:
    stages: [prod]
    secret: {kv: secret/geo, refresh: 5m}
    inject: [{header: {name: X-Api-Key, value: "{key}"}}]
    callers: [{principal: spiffe://corp/shop}]
routes:
  - {host: pay.test, path_prefix: /v1, upstream: pay, stage: prod}
listen:
  grpc: unix://FOLDER/grpc.sock
audit:
  file: audit.jsonl
"""
ROUTE = "  - {host: pay.test, path_prefix: /v1, upstream: pay, stage: prod}\n"

# What issue 2 names: the mistake, where it is told, and a word of what is told.
REFUSED = {
    "unknown key": ("stages: [prod]", "stage: [prod]", 14, "upstreams.geo.stage", "mean stages?"),
    "wrong type": ("{kv: secret/geo, refresh: 5m}", "[5]", 15, "upstreams.geo.secret", "a mapping"),
    "no callers": ("    callers: any\n", "", 9, "upstreams.pay.callers", "is missing"),
    "unknown upstream": ("upstream: pay,", "upstream: pya,", 19, "routes[0].upstream", "'pya'"),
    "unknown stage": ("[prod]", "[live]", 14, "upstreams.geo.stages[0]", "'live'"),
    "bad duration": ("refresh: 5m", "refresh: 5 min", 15, "upstreams.geo.secret.refresh", "5 min"),
    "http:// elsewhere": ("127.0.0.1:1", "vault.test:8200", 2, "vault.address", "clear text"),
    "same routes": (ROUTE, ROUTE + ROUTE, 20, "routes[1]", "line 19"),
}
COMMANDS = [
    (),
    ("init",),
    ("serve",),
    ("demo",),
    ("config",),
    ("config", "check"),
    ("config", "schema"),
    ("doctor",),
    ("policy",),
    ("explain",),
    ("envoy",),
    ("kong",),
    ("kong", "config"),
    ("kong", "serve"),
    ("kong", "dump"),
    ("leases",),
    ("rotate",),
    ("revoke",),
    ("audit",),
    ("audit", "verify"),
    ("audit", "report"),
    ("audit", "join"),
    ("help",),
    ("completion",),
]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    def refuses(self) -> str:
        """The one line for which it ended with status 2, before anything was printed."""
        assert (self.status, self.out) == (2, "")
        assert "Traceback" not in self.err
        assert SECRET not in self.err
        said = r"(warning: | WARNING )"
        port = re.compile(rf"{said}c\.yaml:\d+: listen\.grpc: every user of this machine")
        (line,) = [each for each in self.err.splitlines() if not port.search(each)]
        return line


@dataclass(frozen=True)
class Shell:
    """Runs `vaultauthz` in a folder with a configuration."""

    folder: Path

    def configure(self, old: str = "", new: str = "") -> Path:
        """Write the valid configuration with ``old`` replaced, which it holds once."""
        assert not old or VALID.count(old) == 1, old
        text = VALID.replace(old, new) if old else VALID
        path = self.folder / "c.yaml"
        path.write_text(text.replace("FOLDER", str(self.folder)))
        return path

    def run(self, *arguments: str, **environment: str) -> Done:
        """The command's end; one that does not end in 20 s fails."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VAULT")}
        done = subprocess.run(
            [sys.executable, "-m", "vaultauthz", *arguments],
            cwd=self.folder,
            env={**kept, "COLUMNS": "100", **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def check(self) -> Done:
        """`config check` of what ``configure`` wrote."""
        return self.run("config", "check", "-c", "c.yaml")

    def serve(self) -> Done:
        """`serve` of it, as on a terminal, which must not get as far as serving."""
        return self.run("serve", "-c", "c.yaml", "--log-format", "text")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder of its own for each test, with the files that the configuration names."""
    path = tmp_path / "secret_id"
    path.touch(0o600)
    path.write_text(SECRET)
    made = Shell(tmp_path)
    made.configure()
    return made


class TestUsage:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_help(self, shell: Shell, command: tuple[str, ...]) -> None:
        """Each command says on standard output what it does, and ends well."""
        done = shell.run(*command, "--help")
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(" ".join(("usage: vaultauthz", *command)))
        assert re.match(r"[A-Z]", done.out.split("\n\n")[1]), "no description"

    def test_help_names_every_command(self, shell: Shell) -> None:
        """The first page lists them."""
        listed = re.findall(r"^    (\w+) +\w", shell.run("--help").out, re.MULTILINE)
        wanted = "init serve demo config doctor policy explain envoy kong leases rotate revoke audit help completion"
        assert listed == wanted.split()

    def test_version(self, shell: Shell) -> None:
        """--version is the package's."""
        assert shell.run("--version") == Done(0, f"vaultauthz {__version__}\n", "")

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("fly",),
            ("config",),
            ("config", "fly"),
            ("serve", "-c"),
            ("serve", "--fly"),
            ("serve", "c.yaml"),
            ("serve", "--log-level", "loud"),
        ],
        ids=" ".join,
    )
    def test_wrong_usage(self, shell: Shell, arguments: tuple[str, ...]) -> None:
        """Status 2 and the usage on standard error."""
        done = shell.run(*arguments)
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith("usage: vaultauthz")
        assert "Traceback" not in done.err

    def test_a_reader_that_left(self, shell: Shell) -> None:
        """`vaultauthz config check | head -0` ends without a traceback."""
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "vaultauthz", "config", "check", "-c", "c.yaml"],
            cwd=shell.folder,
            # As in a terminal: with it set, the pipe breaks while the command still runs.
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, b"")


class TestConfigCheck:
    def test_good(self, shell: Shell) -> None:
        """A good configuration is counted."""
        assert shell.check() == Done(0, "c.yaml: good: 2 stages, 2 upstreams, 1 route\n", "")

    def test_the_file_may_come_from_the_environment(self, shell: Shell) -> None:
        """$VAULTAUTHZ_CONFIG names the file, and -c wins over it."""
        assert shell.run("config", "check", VAULTAUTHZ_CONFIG="c.yaml").status == 0
        done = shell.run("config", "check", "-c", "c.yaml", VAULTAUTHZ_CONFIG="nowhere")
        assert done.status == 0

    def test_the_usual_name(self, shell: Shell) -> None:
        """With neither, it is vaultauthz.yaml in the working directory."""
        assert shell.run("config", "check").refuses().startswith("vaultauthz.yaml: cannot be read")
        (shell.folder / "c.yaml").rename(shell.folder / "vaultauthz.yaml")
        assert shell.run("config", "check").status == 0

    @pytest.mark.parametrize("mistake", REFUSED)
    def test_refused(self, shell: Shell, mistake: str) -> None:
        """Each mistake is one line with the file, the line in it and the key."""
        old, new, line, key, word = REFUSED[mistake]
        shell.configure(old, new)
        told = shell.check().refuses()
        assert told.startswith(f"c.yaml:{line}: {key}: ")
        assert word in told

    @pytest.mark.parametrize(
        ("content", "wanted"),
        [
            (b"", "c.yaml:1: the file is empty"),
            (b"vault: [\n", "c.yaml:2: "),
            (b"\x7fELF\x02\x01\x01\x00", "c.yaml:1: "),
            (b"#" * 50_000_000, "c.yaml: is larger than 5 MB"),
        ],
        ids=["empty", "no YAML", "a program", "50 MB"],
    )
    def test_a_file_that_is_none(self, shell: Shell, content: bytes, wanted: str) -> None:
        """What cannot be a configuration is told in one line, too."""
        (shell.folder / "c.yaml").write_bytes(content)
        assert shell.check().refuses().startswith(wanted)

    def test_no_file(self, shell: Shell) -> None:
        """A file that is not there is named."""
        done = shell.run("config", "check", "-c", "/no/such.yaml")
        assert done.refuses().startswith("/no/such.yaml: cannot be read: no such file")

    def test_all_mistakes_at_once(self, shell: Shell) -> None:
        """Several are told in one go, in the file's order."""
        path = shell.configure("callers: any", "calers: any")
        path.write_text(path.read_text().replace("refresh: 5m", "refresh: soon"))
        done = shell.check()
        places = [line.split(": ")[0] for line in done.err.splitlines()]
        assert (done.status, places) == (2, ["c.yaml:9", "c.yaml:12", "c.yaml:15"])

    def test_a_warning(self, shell: Shell) -> None:
        """A secret_id that everybody can read is a finding: status 1, told on standard error."""
        (shell.folder / "secret_id").chmod(0o644)
        done = shell.check()
        assert (done.status, done.out) == (1, "c.yaml: good: 2 stages, 2 upstreams, 1 route\n")
        first, second = done.err.splitlines()
        assert first.startswith("warning: c.yaml:5: stages.prod.auth.secret_id_file: everybody")
        assert second.startswith("warning: c.yaml:7: stages.test.auth.secret_id_file: everybody")
        assert SECRET not in done.err

    def test_a_secret_that_is_not_here(self, shell: Shell) -> None:
        """It is told of, and no finding, as a build's machine has none; who logs in refuses it."""
        shell.configure("secret_id_file: secret_id}\n  test", "secret_id_file: nowhere}\n  test")
        done = shell.check()
        assert (done.status, done.out) == (0, "c.yaml: good: 2 stages, 2 upstreams, 1 route\n")
        place = "c.yaml:5: stages.prod.auth.secret_id_file: "
        (told,) = done.err.splitlines()
        assert told.startswith(f"warning: {place}{shell.folder}/nowhere cannot be read: no such")
        assert told.endswith("; the machine that serves will need it")
        for done in (shell.serve(), shell.run("doctor", "-c", "c.yaml")):
            assert done.refuses().startswith(place)

    def test_a_rule_that_envoy_cannot_enforce(self, shell: Shell) -> None:
        """Where Envoy is to: SDS would leave the upstream out. Where vaultauthz asks, it is as good as any."""
        rule = "callers: [{path_prefix: /a;b}]"
        shell.configure("callers: any", rule)
        assert shell.check() == Done(0, "c.yaml: good: 2 stages, 2 upstreams, 1 route\n", "")
        shell.configure("callers: any", f"{rule}\n    callers_enforced_by: envoy")
        done = shell.check()
        assert done.status == 1
        assert done.err.startswith(
            "warning: not for SDS: upstreams.pay.callers: the upstream has a rule"
        )
        assert "callers[0]: its path_prefix holds a" in done.err

    def test_a_secret_that_is_here_and_wrong(self, shell: Shell) -> None:
        """That is a finding: nobody would fill an empty file."""
        (shell.folder / "secret_id").write_text("")
        done = shell.check()
        assert done.status == 1
        assert done.err.count("is empty; write the secret into it") == 2

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("http://127.0.0.1:1", f"https://admin:{SECRET}@vault.test"),
            ("secret_id_file: secret_id}\n  test", f"secret_id: {SECRET}}}\n  test"),
            ("path_prefix: /v1", f"password: {SECRET}"),
            ('password: "{password}"', f"password: '{SECRET}'"),
            ('value: "{key}"', f"value: '{SECRET}{{'"),
            ('value: "{key}"', f"value: {{key: {SECRET}}}"),
            ("method: approle, role_id: gateway, secret_id_file: secret_id}\n  test",
             f"method: token, token: {SECRET}}}\n  test"),
        ],
    )  # fmt: skip
    def test_secrets_are_not_shown(self, shell: Shell, old: str, new: str) -> None:
        """A secret that somebody wrote into the file is not in what is said about it."""
        shell.configure(old, new)
        done = shell.check()
        assert done.status in (1, 2)
        assert done.err
        assert SECRET not in done.out + done.err


class TestConfigSchema:
    def test_it_is_json(self, shell: Shell) -> None:
        """It is printed as JSON, and needs no configuration to be there."""
        (shell.folder / "c.yaml").unlink()
        done = shell.run("config", "schema")
        assert (done.status, done.err) == (0, "")
        told = json.loads(done.out)
        assert told["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert set(told["required"]) == {"stages", "upstreams"}


class TestServe:
    def test_a_bad_configuration(self, shell: Shell) -> None:
        """It is refused as by `config check`, before anything is opened."""
        shell.configure("callers: any", "calers: any")
        done = shell.serve()
        assert done == shell.check()
        assert done.status == 2
        assert not (shell.folder / "audit.jsonl").exists()

    @pytest.mark.parametrize(
        ("place", "why"),
        [
            ("unix:///no/such/grpc.sock", "/no/such does not exist"),
            ("unix://FOLDER/secret_id", "not a socket"),
            ("localhost.invalid:7000", "can be reached from other machines"),
        ],
    )
    def test_an_address_that_is_not_to_be_had(self, shell: Shell, place: str, why: str) -> None:
        """The line names the key, the address and why; no traceback."""
        shell.configure("unix://FOLDER/grpc.sock", place)
        told = shell.serve().refuses()
        assert "listen.grpc: " + place.replace("FOLDER", str(shell.folder)) in told
        assert why in told

    @pytest.mark.parametrize("transport", ["native", "grpcio"])
    def test_a_port_in_use(self, shell: Shell, transport: str) -> None:
        """A port that somebody listens on is named."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            place = f"127.0.0.1:{taken.getsockname()[1]}"
            shell.configure("unix://FOLDER/grpc.sock", f"{place}\n  transport: {transport}")
            assert f"listen.grpc: {place}: Address already in use" in shell.serve().refuses()

    def test_a_live_socket(self, shell: Shell) -> None:
        """A socket on which somebody answers is left alone."""
        path = shell.folder / "grpc.sock"
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(str(path))
            live.listen()
            told = shell.serve().refuses()
            assert f"listen.grpc: unix://{path}: another server answers on it" in told
        assert path.is_socket()

    def test_the_admin_address(self, shell: Shell) -> None:
        """An admin address that is not to be had closes the other door again."""
        shell.configure("grpc.sock", "grpc.sock\n  admin: unix:///no/such/admin.sock")
        told = shell.serve().refuses()
        assert (
            told
            == "vaultauthz: listen.admin: unix:///no/such/admin.sock: No such file or directory"
        )
        assert not (shell.folder / "grpc.sock").exists()

    @pytest.mark.parametrize(
        ("file", "why"),
        [
            ("/no/such/audit.jsonl", "No such file or directory"),
            ("c.yaml", "no audit records"),
            ("audit.jsonl", "another process writes"),
        ],
        ids=["no folder", "not a log", "in use"],
    )
    def test_an_audit_log_that_cannot_be_written(self, shell: Shell, file: str, why: str) -> None:
        """The line names the key and the file; what is in the file stays."""
        config = shell.configure("file: audit.jsonl", f"file: {file}")
        before = config.read_text()
        with (shell.folder / "audit.jsonl").open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            told = shell.serve().refuses()
        assert told.startswith("vaultauthz: audit.file: ")
        assert file in told
        assert why in told
        assert config.read_text() == before

    def test_a_key_that_does_not_fit(self, shell: Shell) -> None:
        """TLS files that are no certificates are named with the address."""
        (shell.folder / "cert.pem").write_text("no certificate")
        tls = "{cert: cert.pem, key: secret_id}"
        shell.configure("unix://FOLDER/grpc.sock", f"127.0.0.1:0\n  grpc_tls: {tls}")
        done = shell.serve()
        assert done.status == 2
        assert "vaultauthz: listen.grpc: 127.0.0.1:0" in done.err
        assert "Traceback" not in done.err
        assert SECRET not in done.err


class TestCertificates:
    def test_what_ends_soon(self, shell: Shell) -> None:
        """`config check` warns of what is in its last tenth, and of what has ended; status 1."""
        authority = Authority(shell.folder, hours=9_000)
        far, near = authority.issue("far", hours=24), authority.issue("near", hours=0.1)
        over = authority.issue("over", hours=-0.5)
        found = {}
        for pair in (far, near, over):
            pair.key.chmod(0o600)
            tls = f"{{cert: {pair.cert}, key: {pair.key}, client_ca: {authority.ca}, client_names: [g]}}"
            shell.configure("unix://FOLDER/grpc.sock", f"127.0.0.1:0\n  grpc_tls: {tls}")
            done = shell.check()
            found[pair.cert.stem] = (done.status, done.err)
            assert ": good: " in done.out
        assert found["far"] == (0, "")
        assert found["near"][0] == found["over"][0] == 1
        assert f"warning: listen.grpc_tls: {near.cert} ends in 6 minutes (" in found["near"][1]
        assert f"warning: listen.grpc_tls: {over.cert} has ended (" in found["over"][1]
        assert "nobody new can connect" in found["over"][1]


class TestServeInJson:
    """Whoever takes in the log as JSON, as a container's, sees why nothing was started."""

    def not_started(self, shell: Shell, *more: str) -> str:
        """The message of its last line; all are objects."""
        done = shell.run("serve", "-c", "c.yaml", *more)
        assert (done.status, done.out) == (2, "")
        line = [json.loads(each) for each in done.err.splitlines()][-1]
        assert (line["level"], line["logger"]) == ("error", "vaultauthz.cli.server")
        return str(line["message"])

    @pytest.mark.parametrize("more", [(), ("--log-format", "json")])
    def test_a_bad_configuration(self, shell: Shell, more: tuple[str, ...]) -> None:
        """All that is wrong with it in one line; a level keeps it in."""
        shell.configure("    callers: any\n", "")
        assert re.fullmatch(
            r"not started: c\.yaml:9: upstreams\.pay\.callers: is missing.*",
            self.not_started(shell, *more, "--log-level", "error"),
        )

    def test_what_cannot_be_had(self, shell: Shell) -> None:
        """The key and why."""
        shell.configure("file: audit.jsonl", "file: nowhere/audit.jsonl")
        told = self.not_started(shell)
        assert told.startswith(("not started: audit.file: ", "not started: c.yaml:"))
        assert "nowhere" in told


class TestElsewhere:
    """What only prints or asks the running server wants none of the login's files."""

    @pytest.mark.parametrize(
        "command",
        [
            ("explain", "https://pay.test/v1"),
            ("envoy",),
            ("kong", "config"),
            ("kong", "config", "--stock"),
            ("kong", "config", "--format", "helm"),
            ("audit", "report"),
            ("leases",),
        ],
        ids=" ".join,
    )
    def test_the_secret_is_another_machines_or_users(
        self, shell: Shell, command: tuple[str, ...]
    ) -> None:
        """The same is printed without it; of what has to do with it, a warning says that it lacks."""
        (shell.folder / "audit.jsonl").write_bytes(written(used(1, "c1", caller="shop")))
        here = shell.run(*command, "-c", "c.yaml")
        (shell.folder / "secret_id").unlink()
        there = shell.run(*command, "-c", "c.yaml")
        assert (there.status, there.out) == (here.status, here.out)
        more = [line for line in there.err.splitlines() if line not in here.err.splitlines()]
        if command[0] in ("audit", "leases"):
            assert more == []
        else:
            assert [".secret_id_file: " in line for line in more] == [True, True]  # each stage's
            assert all(line.endswith("; the machine that serves will need it") for line in more)


class TestAudit:
    """Which log is read, and what is wrong when none can be."""

    LOG = written(used(1, "c1", caller="shop"), used(2, "c1", caller="shop"))

    def test_the_configured_log(self, shell: Shell) -> None:
        """Without a file it is `audit.file`, beside the configuration; by a pipe it is what comes."""
        (shell.folder / "audit.jsonl").write_bytes(self.LOG)
        done = shell.run("audit", "report", "-c", "c.yaml", "--json")
        assert (done.status, done.err) == (0, "")
        assert json.loads(done.out)["requests"] == 2
        assert shell.run("audit", "verify", "-c", "c.yaml").status == 0
        (shell.folder / "audit.jsonl").write_bytes(self.LOG.replace(b"/rows", b"/cows", 1))
        done = shell.run("audit", "verify", "-c", "c.yaml")
        assert done.status == 1
        assert "The chain does not hold" in done.out

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("report", "-c", "c.yaml"), "audit.jsonl: no such file or directory"),
            (("report", "-c", "none.yaml"), "audit.file is not set"),
            (("verify", "c.yaml"), "c.yaml: no line of a vaultauthz audit log"),
            (("verify", "c.yaml", "--seal", "5"), "'5' is no seal: it is NUMBER:SHA256"),
            (("report", "c.yaml", "--since", "soon"), "'soon' is no time: write 24h"),
            (("join", "log", "--vault", "none"), "none: no such file or directory"),
            (("join", "log", "--vault", "log"), "log: this is our audit log, not Vault's"),
        ],
    )
    def test_what_cannot_be_told(self, shell: Shell, arguments: tuple[str, ...], told: str) -> None:
        """Status 2 and one line."""
        text = shell.configure().read_text()
        (shell.folder / "none.yaml").write_text(text.partition("audit:")[0])
        (shell.folder / "log").write_bytes(self.LOG)
        assert told in shell.run("audit", *arguments).refuses()
