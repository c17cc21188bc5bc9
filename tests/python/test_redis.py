"""Redis Streams and `rubriscope ingest`, on a server of the tests' own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import cbor2
import pytest
import rubriscope as rs
from engine_support import Echo, Raises, Value, rows
from rubriscope import ledger
from rubriscope.cli import main
from rubriscope.ingest import Ingester
from rubriscope.targets import sink_for_target, target_of
from test_events import VALUES, emit

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))
import ingest_campaign
from redis_server import RedisServer


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def client(shared_server, tmp_path, monkeypatch):
    """A client of an empty server."""
    import redis

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with redis.Redis(port=shared_server.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def url(shared_server, client):
    return shared_server.url


def record_many(recorder, count=30):
    """Everything a record can hold."""
    tree = rs.Sequential(Echo(), Value(rs.Score(0.5, explanation="half", source={"page": 3})))
    broken = rs.Sequential(Raises(RuntimeError("no idea")))
    recorder.observe(tree)
    recorder.observe(broken)
    for i in range(count):
        with recorder.episode(f"ep-{i // 10}", step=i, group_id=i % 3, sample_index=i % 2):
            recorder.annotate(prompt=i)
            tree(float(i % 2), {"seen": i})
            with pytest.raises(RuntimeError):
                broken("x" * 5000, -7)
        recorder.log({"loss": 1 / (i + 1), "nan": float("nan")}, step=i)
    recorder.flush()
    return 3 * count


def tables(path):
    """What a database holds, its own times left out."""
    with sqlite3.connect(path) as database:
        found = {}
        for name in ("sessions", "writers", "schemas", "rubrics", "episodes", "steps", "scalars"):
            cursor = database.execute(f"SELECT * FROM {name} ORDER BY 1, 2")
            names = [column[0] for column in cursor.description]
            found[name] = [
                {k: v for k, v in zip(names, row, strict=True) if k != "closed_ns"} for row in cursor
            ]
        open_writers = database.execute("SELECT count(*) FROM writers WHERE closed_ns IS NULL").fetchone()
        return found, open_writers[0]


def test_an_ingested_database_is_as_one_recorded_directly(tmp_path, url, client):
    with rs.record(url, session="s", sinks=[tmp_path / "direct.db"], metadata={"a": "ü"}) as recorder:
        count = record_many(recorder)
    counts = Ingester(url, str(tmp_path / "ingested.db")).run(once=True)
    assert (counts.stored, counts.repeated, counts.damaged) == (count, 0, 0)
    direct, ingested = tables(tmp_path / "direct.db"), tables(tmp_path / "ingested.db")
    assert ingested == direct  # canonical bytes included
    assert len(direct[0]["steps"]) == count * 2 // 3
    assert client.keys() == []  # an ended writer whose records are stored leaves nothing


def test_events_are_ingested_into_postgres(url, client, postgres_url):
    with rs.record(url, session="s") as recorder:
        for i in range(10):
            emit(recorder, step=i, duration_ns=5, outcome="blocked")
        recorder.log({"loss": 1.0}, step=1)
    counts = Ingester(url, postgres_url).run(once=True)
    assert (counts.stored, counts.damaged) == (11, 0)
    with rs.Film(postgres_url) as film:
        assert [event.step for event in film.events()] == list(range(10))
        assert all(event.fields == VALUES for event in film.events())
    (verdict,) = ledger.verify(postgres_url)
    assert (verdict.problem, verdict.records, verdict.unsigned_tail) == ("", 11, 0)


def test_the_stream_is_as_documented(url, client):
    with rs.record(url + "?stream=mine", session="s") as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for _ in range(5):
            tree("a", "o")
        recorder.flush()
        writer = recorder.writer_id
        assert client.smembers("mine:writers") == {writer.encode()}
        entries = client.xrange(f"mine:{writer}")
        assert [entry for entry, _ in entries] == [list(fields)[-1] + b"-1" for _, fields in entries]
        fields = {name: record for _, fields in entries for name, record in fields.items()}
        assert list(fields) == [b"0", b"1", b"2", b"3", b"4"]
        records = [cbor2.loads(record) for record in fields.values()]
        assert [(r[0], r[1], r[4], r[10], r[13]) for r in records] == [(1, 1, i, i, [0.5]) for i in range(5)]
        assert [cbor2.dumps(record, canonical=True) for record in records] == list(fields.values())
        about = client.hgetall(f"mine:{writer}:about")
        assert json.loads(about[b"schema:0"])["slots"][0]["paths"] == ["root"]
        assert json.loads(about[b"session"])["session_name"] == "s"
        assert b"closed_ns" not in about
    assert b"closed_ns" in client.hgetall(f"mine:{writer}:about")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_twenty_kills_lose_nothing_and_store_nothing_twice(tmp_path, database, request):
    """The short form: four kills. `make crash` has the long one."""
    target = None if database == "sqlite" else request.getfixturevalue("postgres_url")
    counts = ingest_campaign.run(tmp_path, kills=4, snapshots=2000, seed=int(time.time()), target=target)
    assert counts["lost"] == counts["twice"] == 0


def test_a_server_that_is_killed_while_another_sink_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    server = RedisServer(tmp_path / "redis")
    try:
        with rs.record(server.url, sinks=[tmp_path / "runs.db"], session="s") as recorder:
            for kill in range(3):
                for i in range(200):
                    recorder.log({"x": kill * 1000 + i})
                    if i == 100:
                        server.kill()
                with pytest.raises(TimeoutError, match=r"redis://127\.0\.0\.1"):
                    recorder.flush(0.5)
                down, database = recorder.stats().sinks
                assert down.failing and down.pending > 0 and "refused" in down.last_error
                assert database.pending == 0
                server.start()
                recorder.flush(30)
            assert not recorder.stats().sinks[0].failing
        Ingester(server.url, str(tmp_path / "ingested.db")).run(once=True)
    finally:
        server.kill()
    expected = [kill * 1000 + i for kill in range(3) for i in range(200)]
    query = "SELECT value FROM scalar_values ORDER BY sequence"
    assert [value for (value,) in rows(tmp_path / "ingested.db", query)] == expected
    assert [value for (value,) in rows(tmp_path / "runs.db", query)] == expected
    assert capfd.readouterr().err.count("records wait in the journal") == 3


def test_a_server_that_forgot_everything_learns_it_again(tmp_path, url, client):
    with rs.record(url, session="s") as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        tree("lost", "o")
        recorder.flush()
        client.flushall()  # as a restart without persistence
        tree("kept", "o")
        recorder.flush()
        tree("kept too", "o")
    Ingester(url, str(tmp_path / "runs.db")).run(once=True)
    assert rows(tmp_path / "runs.db", "SELECT action FROM steps ORDER BY 1") == [("kept",), ("kept too",)]


def test_a_confirmation_that_got_lost(url, client, tmp_path, monkeypatch):
    """The transaction is done, and the connection ends before the sink hears of it."""
    from redis.exceptions import ConnectionError

    sink = rs.RedisStreamSink(url)
    real, calls = sink.write_records, []

    def lossy(*arguments):
        real(*arguments)
        calls.append(len(arguments[1]))
        if len(calls) == 1:
            raise ConnectionError("gone")

    sink.write_records = lossy
    with rs.record(sink) as recorder:
        for i in range(50):
            recorder.log({"x": i})
        recorder.flush()
        entries = client.xrange(f"rubriscope:{recorder.writer_id}")
        assert sum(len(fields) for _, fields in entries) == 50
    assert sum(calls) == 50


def test_what_a_killed_rank_had_accepted_comes_with_the_next(tmp_path, url, client):
    script = textwrap.dedent(
        """
        import os, signal, sys
        import rubriscope as rs

        sink = rs.RedisStreamSink(sys.argv[1])
        real = sink.write_records

        def once(*arguments):
            real(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)  # stored, and the journal does not know it

        sink.write_records = once
        recorder = rs.record(sink, session="killed")
        recorder.log({"x": 0})
        recorder.flush()
        """
    )
    done = subprocess.run([sys.executable, "-c", script, url], timeout=60)
    assert done.returncode == -signal.SIGKILL
    with rs.record(url, session="next") as recorder:
        recorder.log({"x": 1})
    Ingester(url, str(tmp_path / "runs.db")).run(once=True)
    found = rows(
        tmp_path / "runs.db",
        "SELECT sessions.name, value FROM scalar_values JOIN sessions USING (session_id) ORDER BY 2",
    )
    assert found == [("killed", 0.0), ("next", 1.0)]
    assert not list((tmp_path / "state").rglob("segment-*"))
    assert client.keys() == []


def test_a_forked_child_is_a_writer_of_its_own(tmp_path, url):
    with rs.record(url) as recorder:
        recorder.log({"x": 1})
        recorder.flush()
        child = os.fork()
        if child == 0:
            recorder.log({"x": 2})
            recorder.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        recorder.log({"x": 3})
    Ingester(url, str(tmp_path / "runs.db")).run(once=True)
    found = rows(tmp_path / "runs.db", "SELECT value FROM scalar_values ORDER BY 1")
    assert found == [(1.0,), (2.0,), (3.0,)]
    assert len(rows(tmp_path / "runs.db", "SELECT * FROM writers")) == 2
    assert len(rows(tmp_path / "runs.db", "SELECT * FROM sessions")) == 1


def test_two_ingesters_share_the_writers(tmp_path, url, client):
    target = str(tmp_path / "runs.db")
    ingesters = [Ingester(url, target) for _ in range(2)]
    threads = [threading.Thread(target=ingester.run) for ingester in ingesters]
    recorders = [rs.record(url, session=f"s{i}") for i in range(4)]
    for thread in threads:
        thread.start()
    for i in range(400):
        for recorder in recorders:
            recorder.log({"x": i})
        if i % 100 == 0:
            time.sleep(0.05)
    for recorder in recorders:
        recorder.close()
    deadline = time.monotonic() + 30
    while client.keys("*:about") and time.monotonic() < deadline:
        time.sleep(0.02)
    for ingester, thread in zip(ingesters, threads, strict=True):
        ingester.stop()
        thread.join()
    assert sum(ingester.counts.stored for ingester in ingesters) == 1600
    assert client.keys() == []
    per_writer = rows(
        target,
        "SELECT count(*), count(DISTINCT sequence), max(sequence) FROM scalar_values GROUP BY session_id",
    )
    assert per_writer == [(400, 400, 399)] * 4


def test_a_lease_elsewhere_is_respected_until_it_ends(tmp_path, url, client):
    with rs.record(url) as recorder:
        recorder.log({"x": 1})
    lease = f"rubriscope:{recorder.writer_id}:lease"
    client.set(lease, "another-host 1 2 token", px=600_000)
    assert Ingester(url, str(tmp_path / "runs.db")).run(once=True).stored == 0
    client.pexpire(lease, 1)
    time.sleep(0.01)
    assert Ingester(url, str(tmp_path / "runs.db")).run(once=True).stored == 1
    # A process of this machine that is gone holds nothing.
    with rs.record(url) as recorder:
        recorder.log({"x": 2})
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lease = f"rubriscope:{recorder.writer_id}:lease"
    client.set(lease, f"{socket.gethostname()} {gone.pid} 12345 token", px=600_000)
    assert Ingester(url, str(tmp_path / "runs.db")).run(once=True).stored == 1


def test_an_entry_that_is_no_record_is_set_aside(tmp_path, url, client, capfd):
    with rs.record(url) as recorder:
        recorder.log({"x": 1})
        recorder.flush()
        stream = f"rubriscope:{recorder.writer_id}"
        record = client.xrange(stream)[0][1][b"0"]
        client.xadd(stream, {"1": record[:-3]}, id="1-1")
        client.xadd(stream, {"other": "field"}, id="2-1")
        client.xadd(stream, {"3": record.replace(uuid.UUID(recorder.writer_id).bytes, bytes(16))}, id="3-1")
        assert main(["ingest", url, "--to", str(tmp_path / "runs.db"), "--once", "--json"]) == 1
        assert json.loads(capfd.readouterr().out) == {"stored": 1, "repeated": 0, "damaged": 3, "writers": 1}
    assert rows(tmp_path / "runs.db", "SELECT value FROM scalar_values") == [(1.0,)]
    aside = [fields for _, fields in client.xrange("rubriscope:damaged")]
    assert [fields[b"id"] for fields in aside] == [b"1-1", b"2-1", b"3-1"]
    assert aside[0][b"record"] == record[:-3] and b"expected one of" in aside[2][b"reason"]


def test_a_target_that_fails_keeps_the_records_in_redis(tmp_path, url, client, capfd):
    target = tmp_path / "later" / "runs.db"  # the folder is not there yet
    with rs.record(url) as recorder:
        recorder.log({"x": 1})
        recorder.flush()
    ingester = Ingester(url, str(target))
    thread = threading.Thread(target=ingester.run)
    thread.start()
    time.sleep(0.5)
    assert not target.exists() and client.keys("*:about")
    target.parent.mkdir()
    deadline = time.monotonic() + 30
    while client.keys("*:about") and time.monotonic() < deadline:
        time.sleep(0.02)
    ingester.stop()
    thread.join()
    assert rows(target, "SELECT value FROM scalar_values") == [(1.0,)]
    assert capfd.readouterr().err.count("the records stay in Redis") == 1


def test_into_any_target_that_stores_identity(tmp_path, url):
    import pyarrow.parquet as pq

    with rs.record(url) as recorder:
        count = record_many(recorder, 5)
    assert Ingester(url, f"parquet:{tmp_path}/pq").run(once=True).stored == count
    table = pq.read_table(tmp_path / "pq", partitioning=None)
    assert sorted(table["sequence"].to_pylist()) == list(range(count))
    assert set(table["writer"].to_pylist()) == {recorder.writer_id}


@pytest.mark.parametrize("target", ["console:", "tensorboard:{p}"])
def test_a_target_without_identity_is_refused(tmp_path, url, target):
    with pytest.raises(ValueError, match="does not store who wrote a record"):
        Ingester(url, target.format(p=tmp_path))


def test_a_file_of_somebody_elses_is_refused(tmp_path, url, client):
    (tmp_path / "notes.db").write_text("dear diary")
    with rs.record(url) as recorder:
        recorder.log({"x": 1})
    with pytest.raises(rs.FormatError):
        Ingester(url, str(tmp_path / "notes.db")).run(once=True)
    assert client.keys("*:about")


def test_urls(url):
    for wrong in ("redis:", "redis:///0", "http://h"):
        with pytest.raises(ValueError, match="looks like redis://host"):
            rs.RedisStreamSink(wrong)
    sink = sink_for_target("redis://me:secret@h:1/2?stream=x")
    assert target_of(sink) == "redis://me@h:1/2?stream=x"
    assert target_of(rs.RedisStreamSink("redis://:secret@h")) == "redis://h"
    assert main(["ingest", "redis://:secret@", "--to", "x.db", "--once"]) == 2


def test_the_command_ends_on_a_signal(tmp_path, url):
    with rs.record(url) as recorder:
        recorder.log({"x": 1})
    process = subprocess.Popen(
        [sys.executable, "-m", "rubriscope.cli", "ingest", url, "--to", str(tmp_path / "runs.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "runs.db").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == f"ingested 1 record of 1 writer into {tmp_path}/runs.db\n"
