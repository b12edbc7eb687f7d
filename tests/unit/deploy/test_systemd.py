"""deploy/systemd: what the units name is there, and systemd's own judgement of them."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from vaultauthz.cli import _parser, main
from vaultauthz.config import load

ROOT: Final = Path(__file__).parents[3]
FOLDER: Final = ROOT / "deploy" / "systemd"
SERVICE: Final = FOLDER / "vaultauthz.service"
SOCKETS: Final = sorted(FOLDER.glob("*.socket"))
UNITS: Final = [SERVICE, *SOCKETS]
EXPOSURE: Final = 2.0
PROGRAM: Final = "/opt/vaultauthz/bin/vaultauthz"


def settings(unit: Path) -> dict[str, list[str]]:
    """A unit's settings, each with its values in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in unit.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def only(unit: Path, key: str) -> str:
    """A setting that stands there once."""
    (value,) = settings(unit)[key]
    return value


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder with a short name that stands for the machine's root, with the credentials as systemd gives them."""
    with tempfile.TemporaryDirectory(prefix="unit") as name:
        folder = Path(name)
        credentials = folder / "run" / "credentials" / SERVICE.name
        credentials.mkdir(parents=True)
        for loaded in settings(SERVICE)["LoadCredential"]:
            file = credentials / loaded.partition(":")[0]
            file.touch(0o400)
        for place in ("run/vaultauthz", "var/log/vaultauthz"):
            (folder / place).mkdir(parents=True, mode=0o750)
        text = (FOLDER / "vaultauthz.yaml").read_text()
        (folder / "vaultauthz.yaml").write_text(
            re.sub(r"(?<=[ /])(/(?:run|var)/)", rf"{folder}\1", text)
        )
        yield folder


class TestService:
    def test_it_starts_what_there_is(self) -> None:
        """Each word of the command is one of our command line's, and the configuration is the installed one."""
        program, *words = shlex.split(only(SERVICE, "ExecStart"))
        assert program == PROGRAM
        assert str(_parser().parse_args(words).config) == "/etc/vaultauthz/vaultauthz.yaml"
        page = (ROOT / "docs" / "deploy.md").read_text()
        assert f"python3 -m venv {Path(PROGRAM).parents[1]}" in page
        assert only(SERVICE, "ExecReload") == "/bin/kill -HUP $MAINPID"

    def test_credentials_are_those_of_the_configuration(
        self, machine: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`config check` has nothing to say of it, and no other file is wanted than those that are loaded."""
        loaded = [value.split(":") for value in settings(SERVICE)["LoadCredential"]]
        kept = {source for _, source in loaded}
        assert kept == {f"/etc/vaultauthz/credentials/{name}" for name, _ in loaded}
        text = (FOLDER / "vaultauthz.yaml").read_text()
        named = re.findall(rf"/run/credentials/{SERVICE.name}/(\w+)", re.sub(r"#.*", "", text))
        assert sorted(named) == sorted(name for name, _ in loaded)
        for name in named:
            file = machine / "run" / "credentials" / SERVICE.name / name
            file.chmod(0o600)
            file.write_text("an-id")
            file.chmod(0o400)
        assert main(["config", "check", "-c", str(machine / "vaultauthz.yaml")]) == 0
        assert capsys.readouterr().err == ""

    def test_what_it_writes_may_be_written(self, machine: Path) -> None:
        """The folders of the sockets and of the audit log; everything else is read-only."""
        for name in ("role_id", "secret_id"):
            file = machine / "run" / "credentials" / SERVICE.name / name
            file.chmod(0o600)
            file.write_text("an-id")
        config = load(machine / "vaultauthz.yaml", {})
        assert config.audit.file is not None
        files = [
            Path(place.removeprefix("unix://"))
            for place in (config.listen.grpc, str(config.listen.admin))
        ]
        folders = {str(file.parent.relative_to(machine)) for file in [*files, config.audit.file]}
        assert folders == {
            f"run/{only(SERVICE, 'RuntimeDirectory')}",
            f"var/log/{only(SERVICE, 'LogsDirectory')}",
        }
        assert only(SERVICE, "ProtectSystem") == "strict"
        assert "ReadWritePaths" not in settings(SERVICE)

    def test_the_process_metrics_stay(self) -> None:
        """Without /proc/stat, which ProcSubset=pid hides, there would be none (prometheus-client's collector)."""
        assert settings(SERVICE).get("ProcSubset", ["all"]) == ["all"]

    def test_it_has_time_to_end(self, machine: Path) -> None:
        """For the drain, the revocations, and some room."""
        text = (FOLDER / "vaultauthz.yaml").read_text()
        drain = re.search(r"^  drain: (\d+)s", text, re.MULTILINE)
        assert int(only(SERVICE, "TimeoutStopSec")) >= (int(drain[1]) if drain else 0) + 5 + 10

    def test_one_that_has_taken_over_is_stopped_in_order(self) -> None:
        """With KillMode=mixed systemd (252) does not wait for a main process that is no child of its own."""
        assert only(SERVICE, "KillMode") == "control-group"

    def test_it_is_told_what_vaultauthz_tells(self) -> None:
        """Ready, alive, and which process it is after another has taken over."""
        assert only(SERVICE, "Type") == "notify"
        assert only(SERVICE, "NotifyAccess") == "all"
        assert 10 <= int(only(SERVICE, "WatchdogSec")) <= 60


class TestSockets:
    @pytest.mark.parametrize("unit", SOCKETS, ids=lambda unit: unit.name)
    def test_it_is_a_key_of_listen(self, unit: Path) -> None:
        """By its name, at the address that stands there, for the service."""
        listen = (FOLDER / "vaultauthz.yaml").read_text().partition("\nlisten:\n")[2]
        key = only(unit, "FileDescriptorName")
        assert f"  {key}: unix://{only(unit, 'ListenStream')}\n" in listen
        assert settings(unit).get("Service", [f"{unit.stem}.service"]) == [SERVICE.name]

    def test_they_outlive_the_service(self) -> None:
        """Its folder stays when it stops, and with it the names that systemd listens under."""
        assert only(SERVICE, "RuntimeDirectoryPreserve") == "yes"
        folder = f"/run/{only(SERVICE, 'RuntimeDirectory')}"
        assert {str(Path(only(unit, "ListenStream")).parent) for unit in SOCKETS} == {folder}
        assert (
            f"d     {folder} " in (FOLDER / "tmpfiles.conf").read_text()
        )  # before the service's first start

    def test_each_has_one(self) -> None:
        """One for the gateway, whose group gets in, and one for operators."""
        modes = {only(u, "FileDescriptorName"): only(u, "SocketMode") for u in SOCKETS}
        assert modes == {"grpc": "0660", "admin": "0600"}


class TestSystemd:
    def test_exposure(self) -> None:
        """`systemd-analyze security` finds little that the service could do beside its work."""
        said = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(SERVICE))
        found = re.search(r"Overall exposure level for vaultauthz.service: ([\d.]+)", said.stdout)
        assert found, said.stdout + said.stderr
        assert float(found[1]) <= EXPOSURE, said.stdout

    def test_it_knows_each_setting(self, tmp_path: Path) -> None:
        """No word is misspelt, none of another section. The program is put in its place: it is not installed here."""
        for unit in UNITS:
            (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
        names = [str(tmp_path / unit.name) for unit in UNITS]
        done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *names)
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_misspelt_setting_is_found(self, tmp_path: Path) -> None:
        """The test before this one can fail."""
        text = SERVICE.read_text().replace(PROGRAM, "/bin/true")
        (tmp_path / SERVICE.name).write_text(text.replace("\nProtectProc=", "\nProtectProcess="))
        done = run("systemd-analyze", "verify", "--man=no", str(tmp_path / SERVICE.name))
        assert "Unknown key 'ProtectProcess'" in done.stderr

    @pytest.mark.skipif(
        os.geteuid() != 0, reason="gives folders to a user of their own: run it as root"
    )
    def test_users_and_folders(self, tmp_path: Path) -> None:
        """The two fragments make the user, and the folders with their owners."""
        (tmp_path / "etc").mkdir()
        roots = {"passwd": "root:x:0:0::/root:/bin/sh\n", "group": "root:x:0:\n"}
        for name in ("passwd", "group", "shadow", "gshadow"):
            (tmp_path / "etc" / name).write_text(roots.get(name, ""))
        root = f"--root={tmp_path}"
        made = run("systemd-sysusers", root, str(FOLDER / "sysusers.conf"))
        assert made.returncode == 0, made.stderr
        user = re.search(
            r"^vaultauthz:x:(\d+):(\d+):", (tmp_path / "etc" / "passwd").read_text(), re.MULTILINE
        )
        assert user
        made = run("systemd-tmpfiles", root, "--create", str(FOLDER / "tmpfiles.conf"))
        assert made.returncode == 0, made.stderr
        found = {
            name: (tmp_path / name).stat()
            for name in ("run/vaultauthz", "etc/vaultauthz/credentials")
        }
        assert {name: (stat.st_mode & 0o777, stat.st_uid) for name, stat in found.items()} == {
            "run/vaultauthz": (0o750, int(user[1])),
            "etc/vaultauthz/credentials": (0o700, 0),
        }


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of systemd's, without a systemd that runs."""
    program, environment = _found(name)
    argv = [program, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


@functools.cache
def _found(name: str) -> tuple[str, dict[str, str]]:
    """Where it is: on PATH, or unpacked from Debian's packages. Else the test is skipped, which CI forbids."""
    environment = {**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_EMOJI": "0"}
    if there := shutil.which(name):
        return there, environment
    unpacked = Path(sys.prefix) / "systemd"
    try:
        if not unpacked.is_dir():
            _unpack(unpacked, "systemd", "libsystemd-shared")
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", None) or exc
        pytest.skip(f"{name} is missing: apt-get install systemd (or apt-get update): {said}")
    libraries = os.pathsep.join(str(file) for file in unpacked.glob("usr/lib/*/systemd"))
    (program,) = [
        file for place in ("usr/bin", "bin") if (file := unpacked / place / name).exists()
    ][:1]
    return str(program), {**environment, "LD_LIBRARY_PATH": libraries}


def _unpack(place: Path, *packages: str) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent) as name:
        folder = Path(name)
        for package in packages:
            argv = ["apt-get", "download", package]
            subprocess.run(
                argv, cwd=folder, check=True, capture_output=True, text=True, timeout=300
            )
        for file in folder.glob("*.deb"):
            argv = ["dpkg", "-x", str(file), str(folder / "unpacked")]
            subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300)
        if not place.is_dir():  # another worker of pytest-xdist was first
            (folder / "unpacked").rename(place)
