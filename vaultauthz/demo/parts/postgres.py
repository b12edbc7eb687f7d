"""PostgreSQL with password logins over TCP and a `reports` table."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from vaultauthz.demo.parts import binaries
from vaultauthz.demo.parts.process import PartError, Process, free_port

SUPERUSER = "postgres"
DATABASE = "postgres"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    # The data lives as long as a demo: surviving a power cut is not worth a sync for every new login.
    "fsync": "off",
}
LAY_OUT = """
CREATE TABLE reports (id int PRIMARY KEY, title text NOT NULL, total int NOT NULL);
INSERT INTO reports VALUES (1, 'January', 1200), (2, 'February', 1350), (3, 'March', 980);
"""


class Postgres:
    """A PostgreSQL server; `address` is host:port, the superuser's password is made at random.

    `start` after `stop` or `kill` finds the same data at the same port.
    Leaving the context also removes what it wrote outside `folder`.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.superuser = SUPERUSER
        self.password = secrets.token_urlsafe(18)
        self._folder = folder
        self._home: Path | None = None
        self._process: Process | None = None

    def start(self) -> None:
        """Start the server, with a fresh database the first time. Raises PartError."""
        if self._process is None:
            self._process = self._prepare()
            self._process.start()
            self._process.wait_until(self._answers)
            with self.connect(self.superuser, self.password) as session:
                session.execute(LAY_OUT)
        else:
            self._process.start()
            self._process.wait_until(self._answers)

    def stop(self) -> None:
        """Stop it in order, without waiting for open sessions."""
        if self._process:
            self._process.terminate(ask=signal.SIGINT)

    def kill(self) -> None:
        """End it at once, as a crash would (SIGQUIT: its session processes go with it, the data is recovered)."""
        if self._process:
            self._process.terminate(ask=signal.SIGQUIT)

    def close(self) -> None:
        """Stop it and remove what lies outside the folder."""
        self.stop()
        if self._home and self._home != self._folder:
            shutil.rmtree(self._home, ignore_errors=True)

    @property
    def superuser_url(self) -> str:
        """A libpq URL with the superuser's password in it."""
        return f"postgresql://{self.superuser}:{self.password}@{self.address}/{DATABASE}"

    def connect(self, user: str, password: str) -> psycopg.Connection[tuple[Any, ...]]:
        """A session with exactly this login, in autocommit. Raises psycopg.OperationalError if the login fails."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=DATABASE,
            user=user,
            password=password,
            connect_timeout=5,
            autocommit=True,
        )

    def users(self) -> list[str]:
        """The logins that Vault made (their names begin with `v-`), sorted."""
        with self.connect(self.superuser, self.password) as session:
            rows = session.execute(
                "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'v-%' ORDER BY 1"
            )
            return [str(row[0]) for row in rows]

    def _answers(self) -> bool:
        try:
            self.connect(self.superuser, self.password).close()
        except psycopg.OperationalError:
            return False
        return True

    def _prepare(self) -> Process:
        self._folder.mkdir(parents=True, exist_ok=True)
        install, user = binaries.postgres_install(), unprivileged_user()
        self._home = self._folder
        if user:
            # The folder may lie where that user may not go (pytest's and mkdtemp's are mode 700).
            self._home = Path(tempfile.mkdtemp(prefix="vaultauthz-postgres-"))
            self._home.chmod(0o755)
            install = readable_install(install, self._home / "install")
        data = self._home / "data"
        data.mkdir(mode=0o700)
        if user:
            os.chown(data, user.pw_uid, user.pw_gid)
        self._init(install, data, user)
        options = [
            f"--{name}={value}" for name, value in {**SETTINGS, "port": str(self.port)}.items()
        ]
        argv: list[str | Path] = [install / "bin" / "postgres", "-D", data, *options]
        # SIGQUIT if we die: the postmaster then ends its session processes and frees its shared memory.
        return Process(
            argv, self._folder / "postgres.log", cwd=data, user=user, death_signal=signal.SIGQUIT
        )

    def _init(self, install: Path, data: Path, user: pwd.struct_passwd | None) -> None:
        password_file = data.parent / "superuser_password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        identity: dict[str, Any] = {}
        if user:
            os.chown(password_file, user.pw_uid, user.pw_gid)
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        flags = [
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            f"--pwfile={password_file}",
        ]
        argv = [str(install / "bin" / "initdb"), "-D", str(data), "-U", self.superuser, *flags]
        done = subprocess.run(
            argv, capture_output=True, text=True, cwd=data, check=False, **identity
        )
        password_file.unlink()
        if done.returncode != 0:
            raise PartError(
                f"initdb failed with status {done.returncode}:\n{done.stdout}{done.stderr}"
            )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def unprivileged_user() -> pwd.struct_passwd | None:
    """The user to run PostgreSQL as when we are root (it refuses root), else None."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def readable_install(install: Path, copy: Path) -> Path:
    """The install itself if every user can reach it, else a copy of it (a venv under /root is closed to others)."""
    if all(folder.stat().st_mode & 0o005 == 0o005 for folder in (install, *install.parents)):
        return install
    package = install.parent
    shutil.copytree(install, copy / package.name / install.name, symlinks=True)
    # The binaries look for their libraries here, by a path relative to themselves.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    return copy / package.name / install.name
