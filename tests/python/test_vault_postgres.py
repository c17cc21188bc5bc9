"""The vault on a PostgreSQL server: the same promises as on SQLite (test_vault.py)."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap

import psycopg
import pytest
import rubriscope as rs
from rubriscope import vault
from rubriscope.cli import main
from test_vault import CANARY, KEY, canaries_in, make, record_canaries


def rows(url, sql, *arguments):
    with psycopg.connect(url) as connection:
        return connection.execute(sql, arguments).fetchall()


def test_opens_with_the_key_alone(postgres_url):
    make(postgres_url)
    film = rs.Film(postgres_url, key=KEY)
    assert film.session().metadata["secret"] == f"{CANARY}-session"
    assert film.paths() == ["root", "parts", f"parts.{CANARY}path", "parts.bad"]
    assert film.episodes() == [f"{CANARY}-episode"]
    snapshots = list(film.snapshots(episode=f"{CANARY}-episode", start=5, stop=8))
    assert [s.step for s in snapshots] == [5, 6, 7] and snapshots[0].action == f"{CANARY}-action"
    assert film.scores(f"parts.{CANARY}path", episode=f"{CANARY}-episode").score.tolist() == [0.5] * 20
    assert film.scores(f"{CANARY}loss").score.tolist() == [1.5]
    assert {s.path: s.failed for s in film.summaries()}["parts.bad"] == 20
    (event,) = film.events(name=f"{CANARY}event")
    assert event.fields == {"f": f"{CANARY}-field"} and event.outcome == "error"
    without = rs.Film(postgres_url)
    assert [(s.name, s.steps, s.metadata) for s in without.sessions()] == [
        ("sealed", 20, {"encrypted": True})
    ]
    for ask in (without.paths, lambda: list(without.snapshots()), without.episodes):
        with pytest.raises(rs.SealedError, match="key_file"):
            ask()
    with pytest.raises(rs.SealedError, match="the key given is"):
        rs.Film(postgres_url, key=b"0" * 32)
    with pytest.raises(rs.SealedError, match="the key given is"):
        rs.EncryptedDatabaseSink(postgres_url, key=b"0" * 32)
    assert main(["verify", postgres_url]) == 0


def test_tables_show_nothing(postgres_url):
    make(postgres_url)
    tables = rows(
        postgres_url, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    for (table,) in tables:
        for (text,) in rows(postgres_url, f'SELECT t::text FROM "{table}" t'):
            assert CANARY not in text and CANARY.encode().hex() not in text, table
    token = rs.EncryptedDatabaseSink(postgres_url, key=KEY).vault.token(f"parts.{CANARY}path")
    found = rows(
        postgres_url,
        "SELECT count(*), count(score), count(status) FROM trajectory WHERE rubric_path = %s",
        token,
    )
    assert found == [(20, 0, 0)]


def test_plain_recorders_are_refused(postgres_url):
    make(postgres_url)
    with pytest.raises(ValueError, match="EncryptedDatabaseSink"):
        rs.record(postgres_url)


def test_a_killed_recorder_is_recovered_without_the_key(postgres_url, tmp_path):
    program = f"""
        import os, signal, sys
        import rubriscope as rs
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_vault import KEY, record_canaries
        sink = rs.EncryptedDatabaseSink({postgres_url!r}, key=KEY)
        recorder = rs.record(sink, session="killed", journal_dir={str(tmp_path / "journal")!r})
        record_canaries(recorder)
        recorder.flush()
        record_canaries(recorder, 300)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)])
    assert ended.returncode == -signal.SIGKILL
    assert canaries_in(tmp_path) == []
    again = rs.record(
        rs.EncryptedDatabaseSink(postgres_url, key=KEY), session="next", journal_dir=tmp_path / "journal"
    )
    again.close()
    film = rs.Film(postgres_url, key=KEY)
    assert film.session("killed").steps == 320
    assert all(s.action == f"{CANARY}-action" for s in film.snapshots("killed"))
    assert main(["verify", postgres_url]) == 0


def test_a_changed_row_does_not_open(postgres_url):
    make(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "UPDATE steps SET record = (SELECT record FROM steps ORDER BY step_key LIMIT 1 OFFSET 1) "
            "WHERE step_key = (SELECT min(step_key) FROM steps)"
        )
        connection.execute(
            "UPDATE steps SET record = "
            "set_byte(record, length(record) - 1, get_byte(record, length(record) - 1) # 1) "
            "WHERE step_key = (SELECT max(step_key) FROM steps)"
        )
    with pytest.raises(rs.SealedError, match="does not open"):
        list(rs.Film(postgres_url, key=KEY).snapshots())
    assert main(["verify", postgres_url]) == 1


def test_rotation_and_shredding(postgres_url, tmp_path):
    make(postgres_url)
    make(postgres_url, session="kept")
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    old.write_bytes(KEY)
    new.write_text("ab" * 32)
    rotate = ["keys", "rotate", postgres_url, "--key-file", str(old), "--new-key-file", str(new)]
    assert main(rotate) == 0 and main(rotate) == 0
    with pytest.raises(rs.SealedError):
        rs.Film(postgres_url, key_file=old)
    assert rs.Film(postgres_url, key_file=new).paths("kept")[0] == "root"
    with pytest.raises(rs.SealedError, match="encrypted with"):
        vault.rotate(postgres_url, vault.load_key(key=b"x" * 32), vault.load_key(key=b"y" * 32))
    assert main(["shred", postgres_url, "sealed", "--yes"]) == 0
    film = rs.Film(postgres_url, key_file=new)
    with pytest.raises(rs.SealedError, match="shredded"):
        list(film.snapshots("sealed"))
    assert len(list(film.snapshots("kept"))) == 20
    assert main(["verify", postgres_url]) == 0
    with rs.record(rs.EncryptedDatabaseSink(postgres_url, key_file=new), session="open") as recorder:
        record_canaries(recorder, 1)
        recorder.flush()
        with pytest.raises(ValueError, match="recording"):
            vault.shred(postgres_url, "open")


def test_a_pickled_sink_is_encrypted_too(postgres_url):
    sink = pickle.loads(pickle.dumps(rs.EncryptedDatabaseSink(postgres_url, key=KEY)))
    with rs.record(sink, session="pickled") as recorder:
        record_canaries(recorder, 1)
    assert rs.Film(postgres_url, key=KEY).session().steps == 1
    with pytest.raises(rs.SealedError):
        rs.Film(postgres_url).paths()
