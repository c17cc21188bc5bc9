"""What a sink written in Python may have beside emit() and write()."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import cbor2
import pytest
import rubriscope as rs
from engine_support import Value, rows
from rubriscope.cli import main
from rubriscope.snapshot import NeuralSnapshot, Scalars


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def record_some(*sinks):
    with rs.record(sinks=sinks, session="s") as recorder:
        tree = rs.Sequential(Value(0.5))
        recorder.observe(tree)
        for step in range(3):
            recorder.step = step
            tree("a", "o")
            recorder.log({"loss": step / 2}, step=step)
    return recorder


def test_write_all_gets_both_kinds_in_order():
    class Sink:
        def __init__(self):
            self.records = []

        def write_all(self, records):
            self.records.extend(records)

    sink = Sink()
    recorder = record_some(sink)
    assert [type(record) for record in sink.records] == [NeuralSnapshot, Scalars] * 3
    assert [record.id for record in sink.records] == [f"{recorder.writer_id}:{i}" for i in range(6)]
    assert [record.step for record in sink.records] == [0, 0, 1, 1, 2, 2]
    scalars = sink.records[3]
    assert (scalars.values, scalars.session_id, scalars.rank) == ({"loss": 0.5}, recorder.session_id, 0)
    assert sink.records[2].time_ns <= scalars.time_ns <= sink.records[4].time_ns


def test_write_records_gets_what_the_database_stores(tmp_path):
    class Sink:
        def __init__(self):
            self.records, self.schemas, self.opened = [], {}, []

        def open(self, session):
            self.opened.append(session)

        def write_records(self, writer_id, records, schemas):
            self.records += [(writer_id, *record) for record in records]
            self.schemas.update(schemas)

    sink = Sink()
    recorder = record_some(tmp_path / "runs.db", sink)
    stored = rows(
        tmp_path / "runs.db",
        "SELECT step_key & 0xFFFFFFFFFF, record FROM steps "
        "UNION SELECT scalar_key & 0xFFFFFFFFFF, record FROM scalars ORDER BY 1",
    )
    assert sink.records == [(recorder.writer_id, *row) for row in stored]
    assert {cbor2.loads(record)[5] for _, _, record in sink.records} == set(sink.schemas)
    kinds = {json.loads(definition)["kind"] for definition in sink.schemas.values()}
    assert kinds == {"tree", "scalars"}
    (session,) = sink.opened
    assert session["writer_id"] == recorder.writer_id and session["host"] and session["started_ns"] > 0
    assert json.loads(session["metadata_json"]) == session["metadata"]


class Flaky:
    """Stores, then fails: whoever asks it what it has will not send it again."""

    def __init__(self, error=OSError):
        self.stored, self.error, self.calls = [], error, 0

    def write_all(self, records):
        self.calls += 1
        self.stored += [int(record.id.rpartition(":")[2]) for record in records]
        if self.calls == 1:
            raise self.error("after it was stored")


def test_stored_through_makes_a_retry_harmless():
    class Asked(Flaky):
        def stored_through(self, writer_id):
            return self.stored[-1] if self.stored else None

    plain, asked = Flaky(), Asked()
    record_some(plain)
    record_some(asked)
    assert asked.stored == list(range(6))
    assert sorted(set(plain.stored)) == list(range(6)) and len(plain.stored) > 6


class Final(Exception):
    transient = False


@pytest.mark.parametrize(("error", "lost"), [(OSError, False), (Final, True)])
def test_a_sink_that_keeps_failed_batches(error, lost):
    class Store:
        keeps_failed_batches = True

        def __init__(self):
            self.calls, self.taken = 0, 0

        def write_all(self, records):
            self.calls += 1
            if self.calls <= 5:  # more than a sink without the attribute is given
                raise error("no")
            self.taken += len(records)

    store = Store()
    with rs.record(store) as recorder:
        recorder.log({"x": 1})
        recorder.flush(30)
        assert recorder.stats().failed == lost
    assert store.taken == (not lost)


def test_a_target_brings_a_dead_process_its_sink(tmp_path):
    """Killed before the sink could take anything; `rubriscope recover` opens the sink by its target."""
    import pyarrow.parquet as pq

    script = textwrap.dedent(
        """
        import os, signal, sys
        import rubriscope as rs

        sink = rs.ParquetSink(sys.argv[1])
        sink.write_all = lambda records: os.kill(os.getpid(), signal.SIGKILL)
        recorder = rs.record(sink)
        recorder.log({"x": 1.5})
        recorder.flush()
        """
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "pq")], timeout=60)
    assert main(["recover", f"parquet:{tmp_path}/pq"]) == 0
    table = pq.read_table(tmp_path / "pq", partitioning=None)
    assert [dict(values) for values in table["scores"].to_pylist()] == [{"x": 1.5}]
    assert main(["recover", f"parquet:{tmp_path}/pq"]) == 0  # nothing is left
