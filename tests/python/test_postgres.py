"""PostgreSQL as a target and as a film, against real servers of the tests' own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import random
import subprocess
import sys
import textwrap

import numpy as np
import psycopg
import pytest
import rubriscope as rs
from engine_support import Echo
from postgres_server import PostgresServer
from postgres_support import (
    OURS,
    SECRETS,
    cli,
    closed_server,
    own_server,
    rows,
    state,
)
from rubriscope import _postgres_url, doctor, ledger
from rubriscope.cli.common import split_target
from rubriscope.compare import compare

__all__ = ["closed_server", "own_server", "state"]  # fixtures


class Uneven(rs.Rubric):
    """Scores, fails, explains."""

    def forward(self, action, observation):
        if isinstance(action, int) and action % 5 == 3:
            raise ValueError("an odd \0 one")
        return rs.Score(0.125 * len(str(action)), explanation=f"of {action}", length=len(str(action)))


def record_anything(recorder, count=60, seed=1):
    """Everything a record can hold, what PostgreSQL does not take included."""
    chance = random.Random(seed)
    tree = rs.Sequential(rs.Gate(Echo(), threshold=0.3), Uneven())
    actions = [
        "text",
        "nul \0 inside",
        "ümläut \U0001f600",
        "\ud800 lone",
        7,
        8,
        -0.5,
        math.inf,
        None,
        b"\xff",
    ]
    with contextlib.suppress(ValueError):
        recorder.observe(tree)
    for i in range(count):
        with recorder.episode(
            f"ep-{i // 13}",
            step=i // 2,
            group_id=i // 4 if i % 3 else None,
            sample_index=i % 4 if i % 3 else None,
        ):
            if i % 4 == 0:
                recorder.annotate(prompt=i, text="a\0b", nested={"x": [1, None, "ü"]})
            with contextlib.suppress(Exception):
                tree(
                    chance.choice([chance.random(), 3, 5, 8, *actions]), chance.choice([*actions, "o" * 5000])
                )
        if i % 6 == 0:
            schema = recorder._native.define_event("s\0", '{"layer": "m"}', ["n"], ["trace_id", "t", "b"])
            recorder._native.emit_event(
                ["span", "observation", "checkpoint"][i // 6 % 3],
                schema,
                values=[i / 7 if i % 4 else math.nan],
                fields={0: f"t-{i}", 1: "a\0b", 2: b"\0\xff"} if i % 4 else {},
                outcome="blocked" if i % 4 else "success",
                duration_ns=i,
                step=i // 2,
                metadata_json='{"x": "\\u0000"}' if i % 4 else "",
            )
        if i % 5 == 0:
            recorder.log({"loss": [1.5, math.nan, math.inf, -0.0][i // 5 % 4], "kl": i}, step=i // 2)
        if i == count // 2:
            recorder.log({"another": 3}, step=i)


@pytest.fixture(scope="module")
def twice(postgres_server, tmp_path_factory):
    """One recording in PostgreSQL and in SQLite: what the one says, the other must."""
    url = postgres_server.create_database()
    folder = tmp_path_factory.mktemp("twice")
    path = folder / "runs.db"
    for name in ("first", "second"):
        recorder = rs.record(url, session=name, metadata={"ü": "\0"}, sinks=[path], journal_dir=folder / "j")
        record_anything(recorder, seed=len(name))
        recorder.close()
        assert recorder.stats().durable == recorder.stats().accepted > 70
    return url, path


@pytest.mark.parametrize("session", ["first", "second"])
def test_the_film_is_the_same_as_from_sqlite(twice, session):
    url, path = twice
    with rs.Film(url) as ours, rs.Film(path) as theirs:
        skipped = {"last_ns", "closed_ns", "closed", "id"}
        mine, other = (
            [{k: v for k, v in s.to_dict().items() if k not in skipped} for s in film.sessions()]
            for film in (ours, theirs)
        )
        assert mine == other and all(s.closed_ns for s in ours.sessions())
        assert [s.last_ns for s in ours.sessions()] == [s.last_ns for s in theirs.sessions()]
        assert ours.paths(session) == theirs.paths(session) != []
        assert ours.scalars(session) == theirs.scalars(session) == ["loss", "kl", "another"]
        assert ours.writers(session) == theirs.writers(session)
        assert ours.episodes(session) == theirs.episodes(session) == [f"ep-{i}" for i in range(5)]
        a, b = (list(film.snapshots(session)) for film in (ours, theirs))
        assert [s.to_dict() for s in a] == [s.to_dict() for s in b] and len(a) == 60
        a, b = (list(film.events(session)) for film in (ours, theirs))
        assert [e.to_dict() for e in a] == [e.to_dict() for e in b] and len(a) == 10
        for given in ({"kind": "span"}, {"name": "s\0"}, {"start": 6, "stop": 20}):
            a, b = (list(film.events(session, **given)) for film in (ours, theirs))
            assert a == b != []
        few = [list(film.snapshots(session, start=3, stop=17)) for film in (ours, theirs)]
        assert [s.to_dict() for s in few[0]] == [s.to_dict() for s in few[1]] and 0 < len(few[0]) < 60
        for name in [*ours.paths(session), *ours.scalars(session)]:
            for limits in ({}, {"start": 4, "stop": 11}):
                x, y = (film.scores(name, session, **limits) for film in (ours, theirs))
                for column in x.__slots__:
                    np.testing.assert_array_equal(getattr(x, column), getattr(y, column))
        assert ours.summaries(session, bins=5) == theirs.summaries(session, bins=5)
        with pytest.raises(KeyError):
            ours.scores("nope", session)
        with pytest.raises(KeyError):
            ours.snapshots(session, episode="nope")


@pytest.mark.parametrize("session", ["first", "second"])
def test_the_ledger_is_the_same_as_in_sqlite(twice, session):
    logs = [rs.Ledger(target, session) for target in twice]
    entries = [[log.entry(i) for i in range(log.size)] for log in logs]
    assert entries[0] == entries[1] and len(entries[0]) > 70
    assert logs[0].root() == logs[1].root()
    for target in twice:
        (verdict,) = ledger.verify(target, session)
        assert verdict.problem == "" and verdict.records == len(entries[0]) - 5


def with_tls(server: PostgresServer) -> None:
    """Makes a certificate for the server and turns TLS on."""
    files = [server.folder / "server.crt", server.folder / "server.key"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    owner = server.folder.stat()
    for file in files:
        os.chown(file, owner.st_uid, owner.st_gid)
        file.chmod(0o600)
    certificate, key = files
    server.psql(f"ALTER SYSTEM SET ssl_cert_file = '{certificate}'; ALTER SYSTEM SET ssl_key_file = '{key}'")
    server.psql("ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()")


@pytest.mark.parametrize("way", ["Unix socket", "TCP", "TLS"])
def test_streams_of_many_pieces(postgres_server, postgres_url, request, way):
    """Much longer ones than the socket holds, and short."""
    if way == "Unix socket":
        postgres_url = postgres_server.local_url(postgres_url)
    elif way == "TLS":
        server = request.getfixturevalue("own_server")
        with_tls(server)
        postgres_url = server.url() + "?sslmode=require"
    with rs.record(postgres_url, session="pieces", flush_interval_ms=60_000) as recorder:
        tree = Echo()
        recorder.observe(tree)
        for i in range(2000):
            tree(0.5, f"{i} " + "x" * (i % 4 * 1000))
        recorder.flush(30)
        for i in range(3):
            tree(0.5, f"short {i}")
        (encrypted,) = rows(postgres_url, f"SELECT ssl FROM pg_stat_ssl WHERE pid IN (SELECT pid {OURS})")
        assert encrypted == (way == "TLS",)
    found = rows(postgres_url, "SELECT observation FROM steps ORDER BY step_key")
    assert [text for (text,) in found[:2000]] == [f"{i} " + "x" * (i % 4 * 1000) for i in range(2000)]
    assert len(found) == 2003 and found[-1] == ("short 2",)
    (verdict,) = ledger.verify(postgres_url, "pieces")
    assert verdict.problem == "" and verdict.records == 2003


@pytest.mark.parametrize("implementation", ["binary", "python"])
def test_every_implementation_of_psycopg(postgres_url, implementation):
    """Its compiled one brings its own libpq, the other loads the machine's."""
    script = (
        "import sys, psycopg, rubriscope as rs\n"
        "print(psycopg.pq.__impl__)\n"
        "with rs.record(sys.argv[1]) as recorder:\n"
        "    recorder.log({'x': 1.0}, step=1)\n"
        "print(recorder.stats().durable)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, postgres_url],
        env=os.environ | {"PSYCOPG_IMPL": implementation},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [implementation, "1"], done.stderr
    assert rows(postgres_url, 'SELECT "values" FROM scalars') == [([1.0],)]


def test_an_episode_is_found(postgres_url):
    with rs.record(postgres_url) as recorder:
        tree = Echo()
        recorder.observe(tree)
        for i in range(600):
            with recorder.episode(f"ep-{i // 300}\0", step=i):  # PostgreSQL's text has no NUL
                tree(float(i), None)
    with rs.Film(postgres_url) as film:
        assert film.episodes() == ["ep-0\ufffd", "ep-1\ufffd"]
        found = [s.step for s in film.snapshots(episode="ep-1\ufffd", start=250, stop=310)]
        assert found == list(range(300, 310))
        assert film.scores("root", episode="ep-0\ufffd").step.tolist() == list(range(300))
        (summary,) = film.summaries(episode="ep-1\ufffd")
        assert (summary.n, summary.min, summary.max) == (300, 300.0, 599.0)


def test_rows_and_views_are_those_of_sqlite(twice):
    import sqlite3

    url, path = twice
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        for sql in (
            "SELECT session_id, step_index, rubric_path, score, status, rank, sequence, group_id, "
            "sample_index FROM trajectory ORDER BY session_id, sequence, rubric_path",
            "SELECT step_key, session_id, step_index, time_ns, reward, group_id, sample_index, statuses, "
            "record FROM steps ORDER BY step_key",
            "SELECT scalar_key, session_id, step_index, time_ns, record FROM scalars ORDER BY scalar_key",
            "SELECT event_key, session_id, kind, episode_id, step_index, time_ns, duration_ns, outcome, "
            "trace_id, parent_id, record FROM events ORDER BY event_key",
            "SELECT session_id, kind, name, value, step_index, time_ns, trace_id, rank, sequence "
            "FROM event_values ORDER BY session_id, sequence",
            "SELECT first_key, last_key, session_id, steps, scalars, events, first_ns, last_ns, first_step, "
            "last_step FROM extents ORDER BY first_key",
            "SELECT uuid, name, created_ns FROM sessions ORDER BY session_id",
            "SELECT session_id, writer_id, rank, world_size, host, pid, started_ns FROM writers ORDER BY 2",
            "SELECT kind, definition FROM schemas ORDER BY 1, 2",
            "SELECT rubric_path, slot, jp, class_name FROM rubrics ORDER BY 1, 2, 3",
            "SELECT session_id, count(*), min(started_ns) FROM episodes GROUP BY 1 ORDER BY 1",
        ):
            expected = theirs.execute(sql).fetchall()
            assert rows(url, sql) == expected != [], sql
        names = "SELECT session_id, step_index, name, rank, sequence FROM scalar_values ORDER BY 5, 3, 1"
        assert rows(url, names) == theirs.execute(names).fetchall()
    tables = (
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position"
    )
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        relations = theirs.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        ).fetchall()
        for (name,) in relations:
            columns = [row[1] for row in theirs.execute(f"PRAGMA table_info({name})")]
            assert [column for (column,) in rows(url, tables, name)] == columns, name
    (values,) = rows(
        url, "SELECT action, observation, metadata->>'prompt' FROM steps ORDER BY step_key LIMIT 1"
    )
    assert values[2] == "0"
    assert rows(url, "SELECT count(*) FROM steps WHERE action LIKE '%%\ufffd%%'")[0][0] > 0
    assert rows(url, "SELECT value FROM scalar_values WHERE name = 'kl' AND step_index = 5 LIMIT 1") == [
        (10.0,)
    ]


def test_the_commands_read_a_url(twice, tmp_path):
    url, path = twice
    for arguments in (
        ["show", "{}:first", "--json"],
        ["scores", "{}:first", "root", "loss", "--json"],
        ["replay", "{}", "second", "--speed", "inf", "--json"],
        ["compare", "{}", "first", "second", "--json"],
    ):
        ours, theirs = (cli(*(a.format(t) for a in arguments)).stdout for t in (url, path))
        strip = ("closed", "closed_ns", "target", "took", "id")
        mine, other = (
            [_without(json.loads(line), strip) for line in _documents(text)] for text in (ours, theirs)
        )
        for one, another in zip(mine, other, strict=True):
            assert one == another, arguments
    sessions = json.loads(cli("sessions", url, "--json").stdout)
    assert [s["name"] for s in sessions] == ["first", "second"]
    cli("export", f"{url}:first", tmp_path / "a.jsonl")
    cli("export", f"{path}:first", tmp_path / "b.jsonl")
    a, b = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("a.jsonl", "b.jsonl")
    )
    assert a[1:] == b[1:] and len(a) > 60
    with rs.Film(url) as ours, rs.Film(path) as theirs:
        labels = compare(ours, "first", theirs, "first")
        assert (labels.label_a.split(":")[0], labels.label_b) == (url.rsplit("/", 1)[1], "runs:first")
    assert cli("show", url.rsplit("/", 1)[0] + "/nowhere", code=1).stderr.count("nowhere") >= 1


def _documents(text):
    return [text] if text.startswith("{\n") else text.splitlines()


def _without(value, names):
    if isinstance(value, dict):
        return {k: _without(v, names) for k, v in value.items() if k not in names}
    return [_without(v, names) for v in value] if isinstance(value, list) else value


def test_a_session_in_a_url():
    assert split_target("postgresql://u@h:5/db:s") == ("postgresql://u@h:5/db", "s")
    assert split_target("postgresql://u:p@h:5/db") == ("postgresql://u:p@h:5/db", None)
    assert split_target("postgresql://h:5432") == ("postgresql://h:5432", None)
    assert split_target("postgres:///db?host=/tmp/x:s") == ("postgres:///db?host=/tmp/x", "s")


# ---- URLs and passwords ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("postgres://u:p@h:5/db?sslmode=require", "postgresql://u@h:5/db?sslmode=require"),
        ("postgresql://u:p@h1:5,h2:6/db", "postgresql://u@h1:5,h2:6/db"),
        ("postgresql://u@h/db?password=p&user=x", "postgresql://u@h/db?user=x"),
        ("postgresql:///db?host=/tmp&sslpassword=p", "postgresql:///db?host=%2Ftmp"),
        ("postgresql://h/db", "postgresql://h/db"),
        ("postgresql://[::1]:5/db", "postgresql://[::1]:5/db"),
    ],
)
def test_a_public_url_has_no_password(given, public):
    assert _postgres_url.public_url(given) == public
    assert rs.DatabaseSink(given).target == public
    assert _postgres_url.complete(public) in (given, public)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:canary",
        "postgresql://u:canary/x@h/db",
        "postgresql://u:canary#x@h/db",
        "postgresql://u:canary?x@h/db",
        "postgresql://u:canary%zz@h/db",
        "postgresql://[u:canary@h/db",
        "postgresql://u:canary@h/db?nonsense=1",
    ],
)
def test_a_bad_url_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="postgresql") as caught:
        rs.DatabaseSink(url)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_missing_psycopg_is_an_error_at_construction(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for make in (rs.DatabaseSink, rs.record, rs.Film):
        with pytest.raises(ImportError, match=r"rubriscope\[postgres\]"):
            make("postgresql://u@h/db")


def test_a_password_is_kept_nowhere(closed_server, tmp_path, capfd, state):
    url = closed_server.create_database()
    recorder = rs.record(url, session="secret")
    tree = Echo()
    recorder.observe(tree)
    tree(1.0, "o")
    recorder.flush(10)
    assert rows(url, "SELECT count(*) FROM steps") == [(1,)]
    shown = [repr(recorder), str(recorder.stats()), recorder.journal_path, *os.listdir(state / "rubriscope")]
    assert len(list((state / "rubriscope").glob("*/*/definitions"))) == 1
    for path in state.rglob("*"):
        if path.is_file():
            shown.append(path.read_bytes().decode(errors="replace"))
    recorder.close()
    for name in ("sessions", "writers", "schemas"):
        shown.append(rows(url, f"SELECT t::text FROM {name} t"))
    with rs.Film(url) as film:
        shown += [repr(film), film.place, film.name, cli("show", url).stdout]
    wrong = url.replace("canary", "canary-but-wrong")
    with pytest.raises(rs.SinkError, match="password") as caught:
        rs.record(wrong)
    shown.append(caught.getrepr(style="long", showlocals=False).reprcrash)
    shown.append(str(caught.value))
    with pytest.raises(ConnectionError, match="password") as caught:
        rs.Film(wrong)
    shown.append(str(caught.value))
    shown += [cli("show", wrong, code=1).stderr, *capfd.readouterr()]
    for text in map(str, shown):
        assert not any(secret in text for secret in SECRETS), text


def test_a_pickled_recorder_opens_with_its_password(closed_server):
    url = closed_server.create_database()
    with rs.record(url, session="pickled") as recorder:
        script = """
        import pickle, sys
        recorder = pickle.load(sys.stdin.buffer)
        recorder.log({"x": 1}, step=1)
        recorder.close()
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            input=pickle.dumps(recorder),
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
    assert rows(url, "SELECT count(*) FROM writers") == [(2,)]
    assert rows(url, "SELECT count(*), count(DISTINCT session_id) FROM scalars") == [(1, 1)]


# ---- whose tables ------------------------------------------------------------------------------------------


def test_another_programs_tables_are_left_alone(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE sessions(id int); INSERT INTO sessions VALUES (1)")
    with pytest.raises(rs.FormatError, match="sessions of another program"):
        rs.record(postgres_url)
    with pytest.raises(rs.FormatError, match="sessions of another program"):
        rs.Film(postgres_url)
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert rows(postgres_url, tables) == [("sessions",)]
    # In a schema of its own there is room.
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA runs")
    own = postgres_url + "?options=-csearch_path%3Druns"
    with rs.record(own) as recorder:
        recorder.log({"x": 1}, step=1)
    assert rs.Film(own).session().scalars == 1
    assert rows(postgres_url, "SELECT * FROM public.sessions") == [(1,)]


@pytest.mark.parametrize(
    ("version", "words"), [(1, "version 1 of an older"), (3, "version 3, written by a newer")]
)
def test_another_format_is_left_alone(postgres_url, version, words):
    rs.record(postgres_url).close()
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE rubriscope_format SET version = %s", (version,))
    for make in (rs.record, rs.Film):
        with pytest.raises(rs.FormatError, match=words):
            make(postgres_url)
    assert rows(postgres_url, "SELECT count(*) FROM sessions") == [(1,)]


def test_an_empty_database_is_no_film(postgres_url):
    with pytest.raises(FileNotFoundError):
        rs.Film(postgres_url)
    assert "no recording there" in cli("show", postgres_url, code=2).stderr
    with pytest.raises(ValueError, match="no session 'a'"):
        rs.record(postgres_url, session="a", resume=True)


def test_other_encodings_are_refused(postgres_server):
    postgres_server.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(rs.SinkError, match="LATIN1"):
        rs.record(postgres_server.url("latin"))


def test_doctor_knows_the_extra():
    assert "psycopg" in next(check for check in doctor.collect() if check.name == "extra [postgres]").value
