"""The recorder: targets, sessions, scalars, flushing, failing sinks and its numbers."""

from __future__ import annotations

import gc
import json
import math
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from importlib.metadata import version

import numpy as np
import pytest
import rubriscope as rs
import torch
from engine_support import Collect, Echo, Value, rows, shown, three_levels

NAN = float("nan")


def record_one(target, **options):
    with rs.record(target, **options) as recorder:
        tree = rs.Sequential(Value(0.5))
        recorder.observe(tree)
        tree("a", "o")
    return recorder


# ---- Targets


@pytest.mark.parametrize("form", ["{p}", "sqlite:///{p}", "sqlite:{p}", "path", "sink"])
def test_database_targets(tmp_path, form):
    path = tmp_path / "sub folder" / "runs.db"
    path.parent.mkdir()
    target = {"path": path, "sink": rs.DatabaseSink(path)}.get(form, form.format(p=path))
    recorder = record_one(target, session="s")
    assert rows(path, "select rubric_path, score, status from trajectory order by 1") == [
        ("root", 0.5, "scored"),
        ("rubric_0", 0.5, "scored"),
    ]
    assert recorder.stats().durable == 1
    assert rows(path, "select name, uuid from sessions") == [("s", recorder.session_id)]


def test_a_relative_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder = rs.record("runs.db")
    monkeypatch.chdir("/")
    recorder.log({"x": 1.0})
    recorder.close()
    assert rows(tmp_path / "runs.db", "select value from scalar_values") == [(1.0,)]


@pytest.mark.parametrize("form", ["{p}", "jsonl:{p}", "path", "sink"])
def test_jsonl_targets(tmp_path, form):
    path = tmp_path / "run.jsonl"
    target = {"path": path, "sink": rs.JSONLSink(path)}.get(form, form.format(p=path))
    record_one(target, session="s")
    head, line = map(json.loads, path.read_text().splitlines())
    assert head["kind"] == "session"
    assert line["kind"] == "snapshot" and line["scores"] == {"root": 0.5, "rubric_0": 0.5}
    assert line["action"] == "a" and line["session_name"] == "s"


def test_console_target(capfd):
    record_one("console:")
    assert "0.5" in capfd.readouterr().out


def test_no_target_is_the_console(capfd, tmp_path):
    record_one(None, journal_dir=tmp_path)
    assert "0.5" in capfd.readouterr().out


def test_several_sinks(tmp_path):
    collect = Collect()
    recorder = record_one(tmp_path / "runs.db", sinks=[tmp_path / "run.jsonl", collect])
    assert [len(rows(tmp_path / "runs.db", "select * from steps")), len(collect.snapshots)] == [1, 1]
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 2
    stats = recorder.stats()
    assert [sink.durable for sink in stats.sinks] == [1, 1, 1]
    assert [sink.target.split(":")[0] for sink in stats.sinks] == ["sqlite", "jsonl", "python"]


def test_python_sinks_with_write_get_batches():
    class Writes:
        def __init__(self):
            self.batches = []

        def write(self, batch):
            self.batches.append(list(batch))

    sink = Writes()
    with rs.record(sinks=[sink]) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for i in range(1000):
            tree(i, None)
    assert [s.action for batch in sink.batches for s in batch] == list(range(1000))
    assert len(sink.batches) < 500


def test_python_sinks_are_opened_closed_and_run_elsewhere():
    calls = []

    class Full(Collect):
        def open(self, session):
            calls.append(("open", session["session_name"]))

        def close(self):
            calls.append(("close",))

    sink = Full()
    record_one(None, sinks=[sink], session="mine")
    assert calls == [("open", "mine"), ("close",)]
    assert sink.threads and threading.get_ident() not in sink.threads


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("postgresql://user:secret/@host/db", ValueError, "percent-encode"),
        ("postgres:host/db", ValueError, "postgres://user@host"),
        ("redis://:secret@/0", ValueError, "redis://host"),
        ("parquet:", ValueError, "parquet:path"),
        ("hub://host", ImportError, "rubriscope[hub]"),
        ("gopher://me:secret@x", ValueError, "gopher"),
        (3, TypeError, "3"),
        (object(), TypeError, "object"),
        ("sqlite:", ValueError, "sqlite"),
    ],
    ids=shown,
)
def test_targets_that_are_refused(target, error, words, tmp_path):
    with pytest.raises(error) as caught:
        rs.record(target, journal_dir=tmp_path)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_database_sink_of_a_later_extra_says_so():
    with pytest.raises(ImportError, match=r"rubriscope\[hub\]"):
        rs.DatabaseSink("hub://host/db")


@pytest.mark.parametrize(
    "options", [{"on_full": "explode"}, {"journal_limit_bytes": 100}, {"block_timeout_s": -1.0}], ids=shown
)
def test_options_are_checked(tmp_path, options):
    with pytest.raises(ValueError) as caught:
        rs.record(tmp_path / "runs.db", **options)
    assert str(next(iter(options.values())))[:3] in str(caught.value)


# ---- What is not ours


def test_a_foreign_database_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("create table things(x)")
    connection.execute("insert into things values(1)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(rs.FormatError, match=r"other\.db"):
        rs.record(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if "rubriscope" not in p.name) == ["other.db"]


def test_a_newer_database_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "runs.db"
    record_one(path)
    connection = sqlite3.connect(path)
    connection.execute("pragma user_version = 99")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(rs.FormatError, match="99"):
        rs.record(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database at all", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_a_file_that_is_no_database_is_refused(tmp_path, content):
    path = tmp_path / "runs.db"
    path.write_bytes(content)
    with pytest.raises(rs.FormatError, match=r"runs\.db"):
        rs.record(path)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_made(tmp_path):
    record_one(tmp_path / "not" / "there" / "runs.db")
    assert rows(tmp_path / "not" / "there" / "runs.db", "select count(*) from steps") == [(1,)]


def test_a_target_that_cannot_be_opened_yet_loses_nothing(tmp_path, capfd):
    path = tmp_path / "runs.db"
    path.mkdir()
    recorder = rs.record(path)
    tree = Echo()
    recorder.observe(tree)
    for i in range(10):
        assert tree(i, None) == i
    with pytest.raises(TimeoutError, match="10"):
        recorder.flush(0.3)
    (sink,) = recorder.stats().sinks
    assert sink.failing and "runs.db" in sink.last_error
    path.rmdir()
    assert recorder.flush() == 10
    recorder.close()
    assert rows(path, "select count(*) from steps") == [(10,)]
    assert "runs.db" in capfd.readouterr().err


def test_a_folder_nobody_can_write_into():
    # Root ignores permissions; /proc takes no files from anybody.
    with pytest.raises((OSError, rs.RubriscopeError)) as caught:
        rs.record("/proc/self/runs.db")
    assert "/proc/self" in str(caught.value)


# ---- Sessions


def test_a_name_used_again_makes_a_new_session(tmp_path):
    path = tmp_path / "runs.db"
    first, second = record_one(path, session="same"), record_one(path, session="same")
    assert first.session_id != second.session_id
    assert rows(path, "select name, count(*) from sessions group by name") == [("same", 2)]
    assert rows(path, "select count(*) from steps group by session_id") == [(1,), (1,)]


def test_resume_goes_on_with_the_latest(tmp_path):
    path = tmp_path / "runs.db"
    record_one(path, session="same", metadata={"lr": 0.5})
    second = record_one(path, session="same", metadata={"lr": 0.25})
    record_one(path, session="other")
    third = record_one(path, session="same", resume=True)
    assert third.session_id == second.session_id and third.writer_id != second.writer_id
    assert rows(path, "select count(*) from sessions where name = 'same'") == [(2,)]
    counts = rows(
        path,
        "select uuid, count(*) from steps join sessions using(session_id) where name='same' group by uuid",
    )
    assert sorted(n for _, n in counts) == [1, 2]
    (metadata,) = rows(path, "select metadata from sessions where uuid = ?", second.session_id)[0]
    assert json.loads(metadata)["lr"] == 0.25


def test_resume_of_what_is_not_there(tmp_path):
    path = tmp_path / "runs.db"
    with pytest.raises(ValueError, match="nothing"):
        rs.record(path, session="nothing", resume=True)
    assert not path.exists()
    record_one(path, session="something")
    with pytest.raises(ValueError, match="nothing"):
        rs.record(path, session="nothing", resume=True)
    with pytest.raises(ValueError, match="name"):
        rs.record(path, resume=True)
    with pytest.raises(ValueError, match="database"):
        rs.record(tmp_path / "x.jsonl", session="something", resume=True)


def test_a_session_says_what_an_auditor_asks(tmp_path):
    path = tmp_path / "runs.db"
    record_one(path, session="audited", metadata={"lr": 0.1, "odd": object, "nan": NAN})
    ((text, created, closed),) = rows(path, "select metadata, created_at, closed_ns from sessions")
    metadata = json.loads(text, parse_constant=pytest.fail)
    facts = metadata["rubriscope"]
    assert metadata["lr"] == 0.1 and metadata["nan"] is None and "object" in metadata["odd"]
    assert facts["argv"] == sys.argv and facts["packages"]["torch"] == version("torch")
    assert facts["machine"]["cpus"] == os.cpu_count() and facts["version"] == rs.__version__
    assert created.startswith("20") and "T" in created and closed
    definition = json.loads(rows(path, "select definition from schemas")[0][0])
    assert "Sequential" in json.dumps(definition)
    assert rows(path, "select rubric_path, class_name from rubrics order by slot") == [
        ("root", "Sequential"),
        ("rubric_0", "Value"),
    ]


def test_a_session_without_a_name_is_named_by_the_date(tmp_path):
    assert record_one(tmp_path / "runs.db").session_name.startswith("run-20")


def test_rank_and_world_size(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    record_one(tmp_path / "runs.db")
    assert rows(tmp_path / "runs.db", "select rank, world_size, pid from writers") == [(3, 8, os.getpid())]
    assert rows(tmp_path / "runs.db", "select distinct rank from trajectory") == [(3,)]


def test_two_recorders_on_one_database_at_once(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path, session="a") as one, rs.record(path, session="b") as two:
        trees = [Echo(), Echo()]
        one.observe(trees[0])
        two.observe(trees[1])
        for i in range(500):
            trees[i % 2](i / 512, None)
    assert rows(
        path, "select name, count(*) from steps join sessions using(session_id) group by 1 order by 1"
    ) == [("a", 250), ("b", 250)]


# ---- The five-step loop


def test_every_snapshot_of_a_loop_of_five_steps_is_complete(tmp_path):
    path = tmp_path / "runs.db"
    tree = three_levels()
    paths = ["root", *(name for name, _ in tree.named_rubrics())]
    with rs.record(path) as recorder:
        recorder.observe(tree)
        with recorder.episode("ep-7"):
            for i in range(5):
                recorder.annotate(lr=0.1 * i)
                tree(f"action {i}", i)
    assert rows(path, "select count(*), count(score), count(distinct rubric_path) from trajectory") == [
        (65, 65, 13)
    ]
    found = rows(
        path,
        "select episode_id, step_index, rubric_path, score from trajectory order by step_index, rubric_path",
    )
    assert [(e, i, p) for e, i, p, _ in found] == [("ep-7", i, p) for i in range(5) for p in sorted(paths)]
    steps = rows(
        path, "select step_index, action, observation, metadata, reward, statuses from steps order by 1"
    )
    assert [(i, a, o) for i, a, o, *_ in steps] == [(i, f"action {i}", i) for i in range(5)]
    assert [json.loads(m)["lr"] for _, _, _, m, *_ in steps] == [0.1 * i for i in range(5)]
    assert all(reward == pytest.approx(0.6) and statuses is None for *_, reward, statuses in steps)
    assert rows(path, "select episode_id from episodes") == [("ep-7",)]


def test_failed_and_skipped_in_the_database(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path) as recorder:
        tree = rs.Sequential(Value(NAN), Value(0.0), Value(1.0))
        recorder.observe(tree)
        tree(1, 2)
    assert rows(path, "select rubric_path, score, status from trajectory order by 1") == [
        ("root", 0.0, "scored"),
        ("rubric_0", None, "failed"),
        ("rubric_1", 0.0, "scored"),
        ("rubric_2", None, "skipped"),
    ]
    assert rows(path, "select statuses from steps") == [("kfks",)] or rows(
        path, "select statuses from steps"
    ) == [("sfsk",)]


# ---- Scalars


def test_log(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path) as recorder:
        recorder.log({"loss": 0.5, "kl": torch.tensor(0.25), "n": 3, "np": np.float32(1.5), "flag": True})
        recorder.log({"loss": torch.tensor(0.75, requires_grad=True)}, step=7)
        recorder.step = 9
        recorder.log({"loss": np.array(0.125)})
        with recorder.episode("e", step=11):
            recorder.log({"loss": 1})
    found = rows(path, "select step_index, name, value from scalar_values order by step_index, name")
    assert found == [
        (0, "flag", 1.0),
        (0, "kl", 0.25),
        (0, "loss", 0.5),
        (0, "n", 3.0),
        (0, "np", 1.5),
        (7, "loss", 0.75),
        (9, "loss", 0.125),
        (11, "loss", 1.0),
    ]


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf, torch.tensor(NAN)], ids=shown)
def test_log_of_a_number_that_is_not_finite(tmp_path, value):
    with rs.record(tmp_path / "runs.db", sinks=[tmp_path / "run.jsonl"]) as recorder:
        recorder.log({"loss": value, "other": 1.0})
        assert recorder.flush() == 1
    assert rows(tmp_path / "runs.db", "select name, value from scalar_values order by name") == [
        ("loss", None),
        ("other", 1.0),
    ]
    for line in (tmp_path / "run.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("value", ["0.5", None, [1.0], object(), 1 + 2j], ids=shown)
def test_log_takes_numbers_only(tmp_path, value):
    with rs.record(tmp_path / "runs.db") as recorder:
        with pytest.raises(TypeError, match="loss"):
            recorder.log({"ok": 1.0, "loss": value})
        assert recorder.stats().accepted == 0


@pytest.mark.parametrize("value", [torch.zeros(2), np.zeros(3)], ids=shown)
def test_log_takes_single_numbers_only(tmp_path, value):
    with rs.record(tmp_path / "runs.db") as recorder, pytest.raises(ValueError, match="loss"):
        recorder.log({"loss": value})


def test_log_of_nothing(tmp_path):
    with rs.record(tmp_path / "runs.db") as recorder, pytest.raises(ValueError):
        recorder.log({})


@pytest.mark.filterwarnings("error")
def test_log_of_a_loss_with_a_gradient_does_not_warn(tmp_path):
    with rs.record(tmp_path / "runs.db") as recorder:
        recorder.log({"loss": torch.tensor(0.5, requires_grad=True) * 2})


def test_log_and_snapshots_keep_their_order():
    order = []

    class Both:
        def emit(self, snapshot):
            order.append(snapshot.action)

        def log(self, values, step):
            order.append(values["i"])

    with rs.record(sinks=[Both()]) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for i in range(100):
            tree(i, None)
            recorder.log({"i": float(i)})
    assert order == [x for i in range(100) for x in (i, float(i))]


# ---- flush, close, stats


def test_flush_returns_when_all_is_durable(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path, flush_interval_ms=60_000) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for i in range(1, 4):
            for _ in range(100):
                tree(1, 2)
            assert recorder.flush() == 100 * i
            assert rows(path, "select count(*) from steps") == [(100 * i,)]
        stats = recorder.stats()
    assert (stats.accepted, stats.durable, stats.pending, stats.dropped, stats.failed) == (300, 300, 0, 0, 0)


class Blocked:
    """A sink that waits until it is let go."""

    def __init__(self):
        self.go = threading.Event()
        self.seen = []

    def emit(self, snapshot):
        self.go.wait(60)
        self.seen.append(snapshot.action)


def test_flush_that_takes_too_long_says_how_many_are_outstanding(tmp_path):
    sink = Blocked()
    recorder = rs.record(sinks=[sink], journal_dir=tmp_path)
    try:
        tree = Value(0.5)
        recorder.observe(tree)
        for i in range(7):
            tree(i, None)
        with pytest.raises(TimeoutError, match=r"\b7\b") as caught:
            recorder.flush(0.2)
        assert "Blocked" in str(caught.value)
        assert recorder.stats().pending == 7 and recorder.stats().durable == 0
    finally:
        sink.go.set()
    assert recorder.flush() == 7
    recorder.close()
    assert sink.seen == list(range(7))


def test_close_is_idempotent_and_leaves_no_journal(tmp_path):
    path = tmp_path / "runs.db"
    recorder = rs.record(path)
    tree = Value(0.5)
    recorder.observe(tree)
    tree(1, 2)
    journal = recorder.journal_path
    assert journal.is_dir() and journal.parent == tmp_path / "runs.db.rubriscope"
    assert not recorder.closed
    recorder.close()
    recorder.close()
    assert recorder.closed and not journal.exists()
    tree(1, 2)
    assert rows(path, "select count(*) from steps") == [(1,)]
    assert "closed" in repr(recorder)


def test_use_after_close(tmp_path):
    recorder = rs.record(tmp_path / "runs.db")
    recorder.close()
    assert recorder.flush() == 0
    recorder.annotate(x=1)
    recorder.log({"x": 1.0})
    assert recorder.stats().dropped == 1
    recorder.stats()


def test_an_exception_in_the_with_block_still_records(tmp_path):
    path = tmp_path / "runs.db"
    with pytest.raises(LookupError), rs.record(path) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        tree(1, 2)
        raise LookupError
    assert rows(path, "select count(*) from steps") == [(1,)]


def test_a_recorder_that_is_dropped_without_close_is_kept_until_exit(tmp_path):
    path = tmp_path / "runs.db"
    tree = Value(0.5)
    rs.record(path).observe(tree)
    for _ in range(10):
        tree(1, 2)
    gc.collect()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and rows(path, "select count(*) from steps") != [(10,)]:
        time.sleep(0.01)
    assert rows(path, "select count(*) from steps") == [(10,)]


def test_records_reach_the_sink_without_a_flush(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path, flush_interval_ms=20) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        tree(1, 2)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and recorder.stats().durable == 0:
            time.sleep(0.01)
        assert rows(path, "select count(*) from steps") == [(1,)]


def test_the_journal_can_be_elsewhere(tmp_path):
    with rs.record(tmp_path / "runs.db", journal_dir=tmp_path / "j") as recorder:
        assert tmp_path / "j" in recorder.journal_path.parents
        assert not (tmp_path / "runs.db.rubriscope").exists()


def test_a_journal_without_a_folder_is_in_the_state_home(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with rs.record("console:") as recorder:
        assert tmp_path / "rubriscope" in recorder.journal_path.parents


# ---- Sinks that fail


class Fails(Collect):
    def __init__(self, times=10**9):
        super().__init__()
        self.times = times

    def emit(self, snapshot):
        if self.times > 0:
            self.times -= 1
            raise ConnectionError("sink is down")
        super().emit(snapshot)


def test_a_raising_python_sink_is_contained_counted_and_stops_no_other(tmp_path, capfd):
    path = tmp_path / "runs.db"
    bad = Fails()
    with rs.record(path, sinks=[bad]) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for _ in range(50):
            assert tree(1, 2) == 0.5
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and recorder.stats().sinks[1].failed < 50:
            time.sleep(0.02)
        good, failing = recorder.stats().sinks
        assert good.durable == 50 and not good.failing and good.failed == 0
        assert failing.failed == 50 and failing.durable == 0
        assert recorder.stats().failed == 50
    assert rows(path, "select count(*) from steps") == [(50,)]
    assert "sink is down" in capfd.readouterr().err


def test_a_python_sink_that_recovers_gets_everything_once_in_order(tmp_path):
    sink = Fails(times=2)
    with rs.record(sinks=[sink], journal_dir=tmp_path) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for i in range(20):
            tree(i, None)
        recorder.flush(60)
        assert recorder.stats().failed == 0
    actions = [s.action for s in sink.snapshots]
    assert sorted(set(actions)) == list(range(20))


def test_a_sink_that_fails_to_open_is_contained(tmp_path, capfd):
    class NoOpen(Collect):
        def open(self, session):
            raise PermissionError("no entry")

    recorder = rs.record(sinks=[NoOpen()], journal_dir=tmp_path)
    tree = Echo()
    recorder.observe(tree)
    assert tree(0.5, None) == 0.5
    recorder.close()
    assert "no entry" in capfd.readouterr().err


def test_a_recorder_with_a_python_sink_that_is_dropped_without_close(tmp_path):
    sink = Collect()
    recorder = rs.record(sinks=[sink], journal_dir=tmp_path, flush_interval_ms=60_000)
    recorder.log({"x": 1.0})
    del recorder
    gc.collect()
    assert sink.scalars == [({"x": 1.0}, 0)]


def test_a_locked_database_delays_and_loses_nothing(tmp_path):
    path = tmp_path / "runs.db"
    record_one(path)
    recorder = rs.record(path)
    tree = Echo()
    recorder.observe(tree)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("begin exclusive")
    try:
        for i in range(100):
            assert tree(i, None) == i
        with pytest.raises(TimeoutError, match="100"):
            recorder.flush(0.3)
    finally:
        lock.execute("rollback")
        lock.close()
    assert recorder.flush() == 100
    recorder.close()
    assert rows(path, "select count(*) from steps") == [(101,)]


# ---- A full journal


def fill(recorder, tree, most=200_000):
    """Calls until a record is refused; how many calls were made."""
    for i in range(most):
        tree(i, None)
        if recorder.stats().dropped:
            return i + 1
    pytest.fail("the journal never became full")


@pytest.mark.parametrize("on_full", ["drop_newest", "block"])
def test_a_full_journal_refuses_new_records_and_keeps_the_accepted(tmp_path, on_full):
    sink = Blocked()
    recorder = rs.record(
        sinks=[sink], journal_dir=tmp_path, journal_limit_bytes=1 << 16, on_full=on_full, block_timeout_s=0.05
    )
    tree = Value(0.5)
    recorder.observe(tree)
    try:
        made = fill(recorder, tree)
        refused = 0
        while refused < 5:  # the drain may have been late with the last piece of journal
            time.sleep(0.02)
            dropped = recorder.stats().dropped
            tree("after", None)
            made += 1
            refused = refused + 1 if recorder.stats().dropped > dropped else 0
        stats = recorder.stats()
        assert stats.accepted + stats.dropped == made
        assert 0 < stats.accepted < made
        assert stats.pending == stats.accepted
    finally:
        sink.go.set()
    accepted = recorder.stats().accepted
    assert recorder.flush() == accepted
    assert len(sink.seen) == accepted
    numbers = [seen for seen in sink.seen if seen != "after"]
    assert numbers == list(range(len(numbers))), "the first were kept, in order"
    tree("room again", None)
    recorder.close()
    assert sink.seen[-1] == "room again"


def test_block_waits_for_room_instead_of_dropping(tmp_path):
    class Slow(Collect):
        def emit(self, snapshot):
            time.sleep(0.0005)
            super().emit(snapshot)

    sink = Slow()
    with rs.record(
        sinks=[sink], journal_dir=tmp_path, journal_limit_bytes=1 << 16, on_full="block", block_timeout_s=60
    ) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for i in range(1500):
            tree(i, None)
        recorder.flush()
        assert recorder.stats().dropped == 0
    assert [s.action for s in sink.snapshots] == list(range(1500))


def test_a_record_larger_than_the_journal_is_refused_and_counted(tmp_path):
    with rs.record(
        sinks=[Collect()], journal_dir=tmp_path, journal_limit_bytes=1 << 16, on_full="drop_newest"
    ) as recorder:
        tree = rs.WeightedSum([Value(0.5) for _ in range(8000)], [1 / 8000] * 8000)
        observer = recorder.observe(tree)
        tree(1, 2)
        assert recorder.stats().accepted == 0
        assert recorder.stats().dropped == 1
        assert observer.snapshots == 0


# ---- The end of the process


def run_script(tmp_path, body, **environment):
    script = tmp_path / "script.py"
    script.write_text("import sys, os, rubriscope as rs\n" + textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, **environment},
    )


TREE = """
class Half(rs.Rubric):
    def forward(self, action, observation):
        return 0.5

tree = rs.Sequential(Half())
recorder = rs.record("runs.db", flush_interval_ms=60000)
recorder.observe(tree)
for i in range(100):
    tree(i, None)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("raise LookupError('at the end')", 1),
        ("sys.exit(3)", 3),
        ("import threading; threading.Thread(target=lambda: [tree(i, None) for i in range(0)]).start()", 0),
        ("import gc; del tree, recorder; gc.collect()", 0),
        ("raise KeyboardInterrupt", None),
    ],
    ids=["end", "exception", "exit", "thread", "deleted", "interrupt"],
)
def test_the_interpreters_exit_flushes_without_close(tmp_path, end, code):
    done = run_script(tmp_path, TREE + end)
    assert code is None or done.returncode == code, done.stderr
    assert ("Traceback" in done.stderr) == (end.startswith("raise")), done.stderr
    assert rows(tmp_path / "runs.db", "select count(*), max(step_index) from steps") == [(100, 99)]
    assert (
        list((tmp_path / "runs.db.rubriscope").glob("*")) == []
        if (tmp_path / "runs.db.rubriscope").exists()
        else True
    )


def test_exit_with_a_blocked_python_sink_does_not_hang(tmp_path):
    done = run_script(
        tmp_path,
        """
        class Sink:
            def emit(self, snapshot):
                raise ConnectionError("never")

        class Half(rs.Rubric):
            def forward(self, action, observation):
                return 0.5

        tree = Half()
        recorder = rs.record("runs.db", sinks=[Sink()])
        recorder.observe(tree)
        for i in range(10):
            tree(i, None)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "never" in done.stderr
    assert rows(tmp_path / "runs.db", "select count(*) from steps") == [(10,)]


def test_import_is_quiet_and_does_not_import_torch_by_itself(tmp_path):
    done = run_script(tmp_path, "print('torch' in sys.modules)")
    assert done.returncode == 0 and done.stderr == ""


def test_a_recorder_made_and_closed_many_times_leaves_no_threads_or_files(tmp_path):
    import psutil

    process = psutil.Process()
    record_one(tmp_path / "warm.db")
    threads, files = process.num_threads(), process.num_fds()
    for i in range(20):
        record_one(tmp_path / f"runs{i % 3}.db", session=str(i))
    assert process.num_threads() <= threads
    assert process.num_fds() <= files


def test_memory_stays_flat_while_recording(tmp_path):
    import psutil

    process = psutil.Process()
    with rs.record(tmp_path / "run.jsonl", journal_limit_bytes=1 << 22) as recorder:
        tree = three_levels()
        recorder.observe(tree)
        for _ in range(30_000):
            tree("action", "observation")
        recorder.flush()
        before = process.memory_info().rss
        for _ in range(100_000):
            tree("action", "observation")
        recorder.flush()
        assert process.memory_info().rss - before < 24 << 20
        assert recorder.stats().dropped == 0
