"""Events: observations, spans and checkpoints on the way every record takes."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import cbor2
import pytest
import rubriscope as rs
from rubriscope.event import Event

FIELDS = ["trace_id", "parent_id", "text", "count", "real", "image", "list"]
VALUES = {
    "trace_id": "mem_1_a",
    "text": "grüß",
    "count": -7,
    "real": 0.1,
    "image": b"\x89PNG\x00",
    "list": [1, None],
}


def emit(recorder, *, kind="span", name="mem.write", values=(1.5, math.nan), fields=VALUES, **options):
    schema = recorder._native.define_event(name, '{"layer": "memory"}', ["tokens", "rest"], FIELDS)
    numbered = {FIELDS.index(field): value for field, value in fields.items()}
    return recorder._native.emit_event(kind, schema, values=list(values), fields=numbered, **options)


class Everything:
    """A sink that keeps what it gets."""

    def __init__(self):
        self.records = []

    def write_all(self, records):
        self.records.extend(records)


@pytest.fixture(params=["runs.db", "run.jsonl", "postgresql"])
def target(request, tmp_path, monkeypatch):
    """A file's path, or a database's URL."""
    if request.param != "postgresql":
        return tmp_path / request.param
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return request.getfixturevalue("postgres_url")


def test_comes_back_from_a_film(target):
    seen = Everything()
    with rs.record(target, session="events", sinks=[seen]) as recorder:
        with recorder.episode("ep-1", step=3):
            emit(recorder, duration_ns=1500, outcome="blocked", metadata_json='{"why": "gate"}')
        recorder.log({"loss": 1.0}, step=4)
        emit(recorder, kind="observation", name="pinn", fields={}, step=9)
    film = rs.Film(target)
    found = list(film.events())
    assert found == [r for r in seen.records if isinstance(r, Event)] or film.name == "run"
    first, second = found
    assert (first.kind, first.name, first.outcome, first.duration_ns) == (
        "span",
        "mem.write",
        "blocked",
        1500,
    )
    assert (first.episode_id, first.step, second.step) == ("ep-1", 3, 9)
    assert first.values == {"tokens": 1.5}
    assert first.fields == VALUES
    assert first.attributes == {"layer": "memory"}
    assert first.metadata == {"why": "gate"}
    assert first.writer == recorder.writer_id and first.sequence == 0
    assert [e.name for e in film.events(kind="observation")] == ["pinn"]
    assert [e.name for e in film.events(name="mem.write")] == ["mem.write"]
    assert [e.name for e in film.events(start=4)] == ["pinn"]
    assert [e.name for e in film.events(stop=9)] == ["mem.write"]
    assert film.session().events == 2 and film.session().scalars == 1 and film.session().steps == 0
    assert '"image":{"bytes":5}' in first.to_json()
    with pytest.raises(ValueError, match="'steps'"):
        film.events(kind="steps")


def test_sql_and_canonical_bytes(tmp_path):
    with rs.record(tmp_path / "runs.db") as recorder:
        emit(recorder, duration_ns=7)
    with sqlite3.connect(tmp_path / "runs.db") as database:
        row = database.execute(
            "SELECT kind, name, outcome, trace_id, parent_id, duration_ns, record FROM events"
        ).fetchone()
        assert row[:-1] == ("span", "mem.write", "success", "mem_1_a", None, 7)
        assert database.execute(
            "SELECT name, value FROM event_values WHERE value IS NOT NULL"
        ).fetchall() == [("tokens", 1.5)]
    decoded = cbor2.loads(row[-1])
    assert cbor2.dumps(decoded, canonical=True) == row[-1]
    assert decoded[1] == 8 and decoded[35] == 7 and 36 not in decoded
    assert decoded[37][FIELDS.index("image")] == VALUES["image"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET outcome = 'error' WHERE kind = 'span'",
        "UPDATE events SET trace_id = 'other' WHERE kind = 'span'",
        "UPDATE events SET \"values\" = '[2.5,null]' WHERE kind = 'span'",
        "UPDATE events SET fields = '{}' WHERE kind = 'span'",
        "UPDATE events SET kind = 'checkpoint'",
        "UPDATE events SET name = 'x'",
        "DELETE FROM events WHERE kind = 'span'",
        "UPDATE schemas SET definition = replace(definition, 'memory', 'learning')",
    ],
)
def test_the_ledger_finds_a_changed_event(tmp_path, change):
    path = tmp_path / "runs.db"
    with rs.record(path, session="s") as recorder:
        emit(recorder)
        emit(recorder, kind="observation", name="pinn", fields={})
    run = [sys.executable, "-m", "rubriscope", "verify", str(path)]
    assert subprocess.run(run, capture_output=True).returncode == 0
    with sqlite3.connect(path) as database:
        database.execute(change)
    assert subprocess.run(run, capture_output=True).returncode == 1


def test_survives_sigkill(target):
    program = f"""
        import math, os, signal, sys
        import rubriscope as rs
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_events import emit
        recorder = rs.record({str(target)!r}, session="killed", flush_interval_ms=60_000)
        for i in range(500):
            assert emit(recorder, step=i)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)])
    assert ended.returncode == -signal.SIGKILL
    rs.record(target, session="next").close()
    with rs.Film(target) as film:
        found = list(film.events("killed"))
    assert [event.step for event in found] == list(range(500))
    assert all(event.fields == VALUES for event in found)


def test_refuses_what_does_not_fit(tmp_path):
    with rs.record(tmp_path / "runs.db") as recorder:
        native = recorder._native
        schema = native.define_event("a", "{}", ["x"], ["f"])
        assert schema == native.define_event("a", "{}", ["x"], ["f"])
        with pytest.raises(ValueError, match="1 values, got an event with 2"):
            native.emit_event("span", schema, values=[1.0, 2.0], fields={})
        with pytest.raises(ValueError, match="no field 1"):
            native.emit_event("span", schema, values=[1.0], fields={1: "x"})
        with pytest.raises(ValueError, match="no kind of event"):
            native.emit_event("scalars", schema, values=[1.0], fields={})
        with pytest.raises(ValueError, match="no outcome"):
            native.emit_event("span", schema, values=[1.0], fields={}, outcome="fine")
        with pytest.raises(ValueError, match='"x" twice'):
            native.define_event("a", "{}", ["x", "x"], [])
        with pytest.raises(ValueError, match="JSON"):
            native.define_event("a", "{", [], [])
    assert rs.Film(tmp_path / "runs.db").session().events == 0
