"""PostgreSQL with many writers at once, and with servers and connections that fail."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest
import rubriscope as rs
from engine_support import Echo
from postgres_server import free_port
from postgres_support import (
    OURS,
    PASSWORD,
    SECRETS,
    cli,
    closed_server,
    fresh_cli,
    own_server,
    records_in_ledgers,
    rewards,
    rows,
    state,
    wait_for,
)
from rubriscope import _postgres_url

__all__ = ["closed_server", "own_server", "state"]  # fixtures

CAMPAIGN = Path(__file__).resolve().parents[1] / "crash" / "postgres_campaign.py"


# ---- many at once ------------------------------------------------------------------------------------------

RANK = """
import sys, time
import rubriscope as rs

class Echo(rs.Rubric):
    def forward(self, action, observation):
        return action

tree = rs.Sequential(Echo(), Echo())
sys.stdin.readline()
with rs.record(sys.argv[1], session="ranks", session_id="a job", flush_interval_ms=1) as recorder:
    recorder.observe(tree)
    for i in range(400):
        # Every rank meets the same new names, in another order.
        with recorder.episode(f"ep-{i * int(sys.argv[2]) % 41}", step=i):
            tree(float(i), None)
            if i % 50 == 0:
                recorder.flush(60)
"""


def test_many_ranks_make_and_fill_one_database(postgres_url):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, postgres_url, str(rank + 1)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "4"},
        )
        for rank in range(4)
    ]
    for rank in ranks:  # all at once, once all are there
        assert rank.stdin is not None
        rank.stdin.write("go\n")
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 4, said
    assert said == [""] * 4
    with rs.Film(postgres_url) as film:
        (session,) = film.sessions()
        assert session.ranks == (0, 1, 2, 3) and session.closed
        assert (session.steps, session.episodes) == (1600, 41)
        scores = film.scores("root")
        for rank in range(4):
            assert scores.score[scores.rank == rank].tolist() == [float(i) for i in range(400)]
    assert records_in_ledgers(postgres_url) == 4 * 400


def test_writers_of_one_session_in_forked_processes(postgres_url):
    recorder = rs.record(postgres_url, session="forked", flush_interval_ms=1)
    tree = rs.Sequential(Echo())
    recorder.observe(tree)
    backends = f"SELECT pid {OURS}"
    for i in range(10):
        tree(float(i), None)
    recorder.flush(10)
    before = rows(postgres_url, backends)
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                for i in range(10 * (number != 0)):  # the first one records nothing
                    tree(100.0 * number + i, None)
                recorder.close()
                code = 0
            os._exit(code)
        children.append(pid)
        tree(10.0 + number, None)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    recorder.flush(10)
    assert rows(postgres_url, backends) == before, "the parent's connection is the one it had"
    recorder.close()
    by_writer = rows(
        postgres_url,
        "SELECT array_agg(reward ORDER BY step_key) FROM steps GROUP BY step_key >> 40 ORDER BY 1",
    )
    assert by_writer == [
        ([float(i) for i in range(13)],),
        ([100.0 + i for i in range(10)],),
        ([200.0 + i for i in range(10)],),
    ]
    (session,) = rs.Film(postgres_url).sessions()
    assert session.writers == 3 and session.closed
    assert len(list(rs.Film(postgres_url).snapshots())) == 33
    assert records_in_ledgers(postgres_url) == 33


def test_a_session_goes_on(postgres_url):
    for value in (1.0, 2.0):
        with rs.record(postgres_url, session="same", resume=value > 1) as recorder:
            recorder.log({"x": value}, step=int(value))
    (session,) = rs.Film(postgres_url).sessions()
    assert (session.writers, session.scalars) == (2, 2)


# ---- what goes wrong ---------------------------------------------------------------------------------------


class Proxy:
    """A way to the server that can be cut at the worst moment: after the server did what was asked, before
    the client hears of it."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_after: bytes | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._server))
        copied = [False]

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := server.recv(1 << 16):
                    client.sendall(data)
            client.close()

        threading.Thread(target=back, daemon=True).start()
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                copied[0] = copied[0] or b"COPY steps" in data
                if self.cut_after is not None and copied[0] and self.cut_after in data:
                    self.cut_after = None
                    self.cuts += 1
                    client.shutdown(socket.SHUT_WR)  # what the server answers is not heard
                    client.close()
                    server.sendall(data)
                    time.sleep(0.2)
                    break
                server.sendall(data)
        server.close()

    def close(self) -> None:
        self._listener.close()


def test_a_commit_whose_acknowledgement_is_lost_stores_once(postgres_server, capfd):
    url = postgres_server.create_database()
    proxy = Proxy(postgres_server.port)
    with rs.record(url.replace(str(postgres_server.port), str(proxy.port)), flush_interval_ms=20) as recorder:
        tree = Echo()
        recorder.observe(tree)
        for i in range(300):
            tree(float(i), None)
            if i in (100, 200):
                proxy.cut_after = b"COMMIT"
                recorder.flush(30)
    proxy.close()
    assert proxy.cuts == 2, "the test did what it says"
    assert rewards(url) == [float(i) for i in range(300)]
    assert rows(url, "SELECT sum(steps) FROM extents") == [(300,)]
    assert "works again" in capfd.readouterr().err


KILLED = """
import os, signal, sys
import rubriscope as rs

class Echo(rs.Rubric):
    def forward(self, action, observation):
        return action

tree = rs.Sequential(Echo(), Echo())
recorder = rs.record(sys.argv[1], session="killed", flush_interval_ms=int(sys.argv[2]))
recorder.observe(tree)
for i in range(int(sys.argv[3])):
    tree(float(i), None)
    if i == 99:
        recorder.flush(30)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(url, interval, count):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, url, str(interval), str(count)], capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize(("interval", "count"), [(60_000, 250), (1, 20_000), (60_000, 50)])
def test_what_a_killed_process_left_comes_once(postgres_url, interval, count):
    killed(postgres_url, interval, count)
    with rs.record(postgres_url, session="next") as recorder:
        recovered = recorder.stats().recovered
    assert rewards(postgres_url) == [float(i) for i in range(count)]
    assert recovered == {250: 150, 50: 50}.get(count, recovered)
    with rs.Film(postgres_url) as film:
        assert [s.name for s in film.sessions()] == ["killed", "next"]
        assert film.session("killed").steps == count
    with rs.record(postgres_url) as recorder:
        assert recorder.stats().recovered == 0


def test_the_command_line_recovers_with_a_password(closed_server, state):
    url = closed_server.create_database()
    killed(url, 60_000, 250)
    public = _postgres_url.public_url(url)
    assert "150 records wait" in cli("sessions", url).stderr
    kept = fresh_cli("recover", public, code=1)
    assert "not delivered, kept" in kept.stdout and "password" in kept.stdout
    done = fresh_cli("recover", public, PGPASSWORD=PASSWORD)
    assert "recovered 150 records" in done.stdout
    assert rewards(url) == [float(i) for i in range(250)]
    killed(url, 60_000, 250)
    (folder,) = (state / "rubriscope").iterdir()
    assert "recovered 150 records" in fresh_cli("recover", url).stdout
    assert "nothing to recover" in cli("recover", url).stdout
    assert not list(folder.glob("*/segment-*")) if folder.exists() else True
    assert rows(url, "SELECT count(*), count(DISTINCT step_key >> 40) FROM steps") == [(500, 2)]
    for text in (kept.stdout, kept.stderr, done.stdout, done.stderr):
        assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize("way", [[], ["--local"]], ids=["tcp", "local"])
def test_immediate_stops_in_the_middle_of_a_stream(way):
    done = subprocess.run(
        [sys.executable, CAMPAIGN, "--restarts", "3", "--seed", "3", *way],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each once" in done.stdout


def test_a_server_that_is_not_there_yet(own_server, capfd):
    own_server.stop()
    with rs.record(own_server.url()) as recorder:
        tree = Echo()
        recorder.observe(tree)
        for i in range(10):
            tree(float(i), None)
        with pytest.raises(TimeoutError, match="10 outstanding"):
            recorder.flush(0.2)
        (sink,) = recorder.stats().sinks
        assert sink.failing and sink.pending == 10 and "Connection refused" in sink.last_error
        own_server.start()
        recorder.flush(30)
        assert recorder.stats().durable == 10
    assert rewards(own_server.url()) == [float(i) for i in range(10)]
    assert "records wait in the journal" in capfd.readouterr().err
    port = free_port()
    with pytest.raises(ConnectionError, match="refused"):
        rs.Film(f"postgresql://127.0.0.1:{port}/db")


def test_an_unknown_database_is_an_error_at_once(postgres_server):
    with pytest.raises(rs.SinkError, match=r"nowhere.*does not exist"):
        rs.record(postgres_server.url("nowhere"))


def test_a_film_outlives_a_restart(own_server):
    url = own_server.url()
    with rs.record(url) as recorder:
        recorder.log({"x": 1}, step=1)
    film = rs.Film(url)
    own_server.stop("immediate")
    with pytest.raises(ConnectionError):
        film.sessions()
    own_server.start()
    assert film.session().scalars == 1
    film.close()


def stored_once(recorder):
    """An observed tree of which one snapshot, 0.0, is stored."""
    tree = Echo()
    recorder.observe(tree)
    tree(0.0, None)
    recorder.flush(10)
    return tree


@contextlib.contextmanager
def locked(url, table):
    """A connection that holds up whoever writes the table, not its readers."""
    with psycopg.connect(url) as other:
        other.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        yield other


@pytest.mark.parametrize("table", ["steps", "ledger_tiles"])
def test_a_statement_time_out_passes(postgres_url, table):
    limited = postgres_url + "?options=-cstatement_timeout%3D300"
    with rs.record(limited, flush_interval_ms=20) as recorder:
        tree = stored_once(recorder)
        with locked(postgres_url, table):
            for i in range(1, 500):
                tree(float(i), None)
            wait_for(lambda: recorder.stats().sinks[0].failing)
            (sink,) = recorder.stats().sinks
            assert "SQLSTATE 57014" in sink.last_error and "timeout" in sink.last_error
            assert sink.durable == 1
        recorder.flush(30)
        assert recorder.stats().sinks[0].last_error == ""
    assert rewards(postgres_url) == [float(i) for i in range(500)]
    assert records_in_ledgers(postgres_url) == 500


def test_what_the_server_says_at_the_end_is_told(postgres_url):
    with rs.record(postgres_url, flush_interval_ms=5) as recorder:
        tree = stored_once(recorder)
        with locked(postgres_url, "steps") as other:
            for i in range(1, 3000):  # more than the socket holds
                tree(float(i), "x" * 1000)
            wait_for(lambda: other.execute(f"SELECT 1 {OURS} AND wait_event_type = 'Lock'").fetchone())
            other.execute(f"SELECT pg_terminate_backend(pid) {OURS} AND pid <> pg_backend_pid()")
            wait_for(lambda: recorder.stats().sinks[0].failing)
            said = recorder.stats().sinks[0].last_error
            assert "terminating connection due to administrator command (SQLSTATE 57P01)" in said
        recorder.flush(30)
    assert rewards(postgres_url) == [float(i) for i in range(3000)]


def test_a_terminated_connection_is_made_anew(postgres_url):
    with rs.record(postgres_url, flush_interval_ms=5) as recorder:
        tree = Echo()
        recorder.observe(tree)
        for i in range(30):
            tree(float(i), None)
            if i % 10 == 9:
                rows(
                    postgres_url,
                    f"SELECT pg_terminate_backend(pid) {OURS}",
                )
    assert rewards(postgres_url) == [float(i) for i in range(30)]
    assert records_in_ledgers(postgres_url) == 30


def test_a_session_ends_though_its_connection_was_lost(postgres_url, capfd):
    with rs.record(postgres_url) as recorder:
        recorder.log({"x": 1}, step=1)
        recorder.flush(10)
        rows(postgres_url, f"SELECT pg_terminate_backend(pid) {OURS}")
    assert rs.Film(postgres_url).session().closed
    assert capfd.readouterr().err == ""


def test_batches_are_durable_whatever_the_server_is_set_to(postgres_url):
    name = postgres_url.rsplit("/", 1)[1]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    from rubriscope._postgres_link import Connector

    link = Connector(postgres_url)()
    assert link._one("SELECT current_setting('synchronous_commit')", ()) == "on"
    assert link._one("SELECT current_setting('statement_timeout')", ()) == "1min"
    link.close()
