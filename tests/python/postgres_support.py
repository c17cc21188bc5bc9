"""What the tests of PostgreSQL share: servers, questions to a database, the command line."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time

import psycopg
import pytest
import rubriscope as rs
from postgres_server import PostgresServer
from rubriscope import ledger
from rubriscope.cli.app import run

PASSWORD = "canary/7:@ %41?#"
SECRETS = (PASSWORD, "canary")
#: The server's processes that serve recorders.
OURS = "FROM pg_stat_activity WHERE application_name = 'rubriscope' AND datname = current_database()"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Journals of targets without a folder go here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def closed_server():
    """A server that wants a password."""
    server = PostgresServer(password=PASSWORD)
    server.url = _quoting(server.url)  # type: ignore[method-assign]
    yield server
    server.close()


def _quoting(url):
    """URLs with the password as a URL takes it."""
    from urllib.parse import quote

    return lambda *args, **kwargs: url(*args, **kwargs).replace(PASSWORD, quote(PASSWORD, safe=""))


@pytest.fixture
def own_server():
    """A server to stop and start."""
    server = PostgresServer()
    yield server
    server.close()


def wait_for(condition, seconds=30):
    """Until it holds; fails the test where it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def rows(url, sql, *arguments):
    with psycopg.connect(url) as connection:
        return connection.execute(sql, arguments).fetchall()


def rewards(url):
    return [reward for (reward,) in rows(url, "SELECT reward FROM steps ORDER BY step_key")]


def records_in_ledgers(url):
    """How many records the ledgers of all sessions hold, where they hold."""
    with rs.Film(url) as film:
        verdicts = [verdict for session in film.sessions() for verdict in ledger.verify(url, session.uuid)]
    assert [(verdict.problem, verdict.unsigned_tail) for verdict in verdicts] == [("", 0)] * len(verdicts)
    return sum(verdict.records for verdict in verdicts)


def cli(*arguments, code=0):
    """What a command prints."""
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        assert run([str(argument) for argument in arguments]) == code, out.getvalue() + said.getvalue()
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), said.getvalue())


def fresh_cli(*arguments, code=0, **environment):
    """The same in a process that was told nothing before."""
    done = subprocess.run(
        [sys.executable, "-m", "rubriscope.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done
