"""A PostgreSQL server of the tests' own: unprivileged, on a free port, in a folder that goes away with it.

    server = PostgresServer()
    server.url("postgres")      # postgresql://postgres@127.0.0.1:<port>/postgres
    server.stop("immediate")    # as a power cut, for what the server holds in memory
    server.start()
    server.close()

A missing server fails the test and names the Debian package; it never skips one.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def find_program(name: str) -> str:
    """A PostgreSQL program's path, of the newest installed version. Fails the test when there is none."""
    found = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    if found:
        return max(found, key=lambda path: int(path.split("/")[4].split(".")[0]))
    on_path = shutil.which(name)
    if on_path is None:
        raise RuntimeError(f"no {name} on this machine: install the Debian package postgresql")
    return on_path


def free_port() -> int:
    """A TCP port that nothing on this machine listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def unprivileged_user() -> str | None:
    """Whom a server runs as: a user without rights where we are root, ourselves elsewhere (None)."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("a PostgreSQL server does not run as root, and there is no user postgres or nobody")


class PostgresServer:
    """One server, started by its construction.

    Args:
        password: The password of the superuser ``postgres``; without one nobody is asked for one.
        settings: Lines of postgresql.conf, name → value.
    """

    def __init__(self, password: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.password = password
        self._user = unprivileged_user()
        # Not pytest's folder: it is closed to other users.
        self.folder = Path(tempfile.mkdtemp(prefix="rubriscope-pg-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = itertools.count()
        try:
            self._make(dict(settings or {}))
            self.start()
        except BaseException:
            self.close()
            raise

    def _make(self, settings: dict[str, str]) -> None:
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        command = [find_program("initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "--no-sync"]
        command += ["--encoding=UTF8", "--locale=C"]
        if self.password is None:
            command += ["--auth=trust"]
        else:
            (self.folder / "password").write_text(self.password)
            (self.folder / "password").chmod(0o644)
            command += ["--auth=scram-sha-256", f"--pwfile={self.folder / 'password'}"]
        done = subprocess.run(command, capture_output=True, text=True, user=self._user, cwd=self.folder)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")
        lines = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": f"'{self.folder}'",
            "fsync": "off",  # the machine does not lose power in a test; the server does
            "max_connections": "50",
            **settings,
        }
        with open(self.folder / "data" / "postgresql.conf", "a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in lines.items())

    def start(self, timeout_s: float = 60.0) -> None:
        """Starts the server and waits until it takes connections."""
        assert self._process is None, "the server runs"
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [find_program("postgres"), "-D", str(self.folder / "data")],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
            )
        ready = [find_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + timeout_s
        while subprocess.run(ready).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the PostgreSQL server did not start: {self.log()[-2000:]}")
            time.sleep(0.02)

    def stop(self, how: str = "fast") -> None:
        """Stops it: ``fast``, or ``immediate``, which leaves recovery to the next start."""
        assert self._process is not None, "the server does not run"
        self._process.send_signal(STOP_SIGNALS[how])
        self._process.wait(60)
        self._process = None

    def close(self) -> None:
        """Stops it for good and removes its folder."""
        if self._process is not None:
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """What the server has said."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def url(self, database: str = "postgres", *, password: bool = True, user: str = "postgres") -> str:
        """A URL of a database, with the password where there is one and it is wanted."""
        secret = f":{self.password}" if self.password is not None and password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def local_url(self, url: str) -> str:
        """The URL of the same database on the server's Unix socket."""
        return f"postgresql://postgres@/{url.rsplit('/', 1)[1]}?host={self.folder}&port={self.port}"

    def create_database(self, template: str = "template1") -> str:
        """Makes a database, empty or a copy of one that nobody is connected to; returns its URL."""
        name = f"test{next(self._databases)}"
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Runs SQL with psql, a client that is not ours; returns its unaligned output."""
        done = subprocess.run(
            [find_program("psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", self.url(database)],
            input=sql,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"psql failed: {done.stderr}")
        return done.stdout


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server that all tests of a run share; who stops it makes one of its own."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a new, empty database."""
    return postgres_server.create_database()
