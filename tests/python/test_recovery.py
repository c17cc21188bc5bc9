"""What a process that was killed had accepted is in the database after the next start: once, and in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import rubriscope as rs
from engine_support import Echo, rows

WRITER = """
import os, signal, sys, threading, time
import rubriscope as rs

class Echo(rs.Rubric):
    def forward(self, action, observation):
        return action

tree = rs.Sequential(Echo(), Echo())
recorder = rs.record({target!r}, session="killed", flush_interval_ms={interval}, sinks={sinks})
recorder.observe(tree)
accepted = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.stdout.write("ready\\n"); sys.stdout.flush()
i = 0
while i < {most}:
    tree(float(i + 1), "o" * (i % 50))
    i += 1
    os.write(accepted, b"%d\\n" % i)
    {pause}
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(
    tmp_path: Path, most: int = 10**9, pause: str = "", interval: int = 20, sinks: str = "[]", target=None
):
    script = textwrap.dedent(WRITER).format(
        target=str(target or tmp_path / "runs.db"),
        log=str(tmp_path / "accepted"),
        most=most,
        pause=pause,
        interval=interval,
        sinks=sinks,
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def accepted(tmp_path: Path) -> int:
    lines = (tmp_path / "accepted").read_text().split()
    return int(lines[-1]) if lines else 0


def found(tmp_path: Path) -> list[float]:
    return [reward for (reward,) in rows(tmp_path / "runs.db", "select reward from steps order by step_key")]


@pytest.mark.parametrize("seed", range(5))
def test_sigkill_at_a_random_moment(tmp_path, seed):
    choose = random.Random(seed)
    process = start(tmp_path, interval=choose.choice([1, 20, 60_000]))
    time.sleep(choose.uniform(0.0, 0.25))
    process.kill()
    process.wait()
    with rs.record(tmp_path / "runs.db", session="after") as recorder:
        assert recorder.stats().damaged == 0
    rewards = found(tmp_path)
    assert rewards == [float(i + 1) for i in range(len(rewards))], "once, and in order"
    # The last record may have been accepted and not noted; no noted one is missing.
    assert accepted(tmp_path) <= len(rewards) <= accepted(tmp_path) + 1
    assert rows(tmp_path / "runs.db", "select count(*) from sessions where name = 'killed'") == [(1,)]


def test_several_kills_one_after_another(tmp_path):
    total = 0
    for _ in range(4):
        (tmp_path / "accepted").unlink(missing_ok=True)
        process = start(tmp_path, most=50, interval=60_000)
        process.wait()
        assert process.returncode == -signal.SIGKILL
        total += 50
    rs.record(tmp_path / "runs.db").close()
    counts = rows(
        tmp_path / "runs.db", "select count(*), count(distinct reward) from steps group by session_id"
    )
    assert counts == [(50, 50)] * 4
    assert rows(tmp_path / "runs.db", "select count(*) from steps") == [(total,)]


def test_what_was_recovered_says_so_and_comes_once(tmp_path):
    start(tmp_path, most=30, interval=60_000, sinks=repr([str(tmp_path / "run.jsonl")])).wait()
    assert (not (tmp_path / "runs.db").exists()) or len(found(tmp_path)) < 30
    with rs.record(tmp_path / "runs.db", sinks=[tmp_path / "run.jsonl"]) as recorder:
        assert recorder.stats().recovered == 30
    with rs.record(tmp_path / "runs.db", sinks=[tmp_path / "run.jsonl"]) as recorder:
        assert recorder.stats().recovered == 0
    assert found(tmp_path) == [float(i + 1) for i in range(30)]
    import json

    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    replayed = [line for line in lines if line["kind"] == "snapshot"]
    assert [line["reward"] for line in replayed] == [float(i + 1) for i in range(30)]
    assert all(line["recovered"] for line in replayed)


def test_recovered_snapshots_keep_their_ids_in_python_sinks(tmp_path):
    journal = tmp_path / "journal"
    script = f"""
import os, signal, rubriscope as rs
class Sink:
    def emit(self, snapshot):
        raise ConnectionError("down")
class Half(rs.Rubric):
    def forward(self, action, observation):
        return 0.5
tree = Half()
recorder = rs.record(sinks=[Sink()], journal_dir={str(journal)!r}, flush_interval_ms=60000)
recorder.observe(tree)
for i in range(5):
    tree(i, None)
print(recorder.writer_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    writer = done.stdout.strip()

    class Sink:
        def __init__(self):
            self.seen = []

        def emit(self, snapshot):
            self.seen.append(snapshot)

    sink = Sink()
    rs.record(sinks=[sink], journal_dir=journal).close()
    assert [s.id for s in sink.seen] == [f"{writer}:{i}" for i in range(5)]
    assert all(s.recovered for s in sink.seen) and [s.action for s in sink.seen] == list(range(5))


def test_a_journal_of_a_living_process_is_left_alone(tmp_path):
    process = start(tmp_path, most=10**9, pause="time.sleep(0.002)", interval=60_000)
    try:
        time.sleep(0.1)
        with rs.record(tmp_path / "runs.db", session="other") as recorder:
            assert recorder.stats().recovered == 0
        assert process.poll() is None
        time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    rs.record(tmp_path / "runs.db").close()
    rewards = found(tmp_path)
    assert rewards == [float(i + 1) for i in range(len(rewards))] and len(rewards) >= accepted(tmp_path) > 0


def test_the_command_line_recovers(tmp_path):
    start(tmp_path, most=40, interval=60_000).wait()
    done = subprocess.run(
        [sys.executable, "-m", "rubriscope.cli", "recover", str(tmp_path / "runs.db.rubriscope"), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert found(tmp_path) == [float(i + 1) for i in range(40)]
    assert list((tmp_path / "runs.db.rubriscope").glob("*/segment-*")) == []


def written_segment(tmp_path: Path) -> tuple[Path, bytes]:
    """The journal file that holds the records."""
    found = [(path, path.read_bytes()) for path in (tmp_path / "runs.db.rubriscope").glob("*/segment-*")]
    ((segment, content),) = [(path, content) for path, content in found if b"o" * 10 in content]
    return segment, content


def test_a_torn_tail_loses_only_the_torn_record(tmp_path, capfd):
    start(tmp_path, most=20, interval=60_000).wait()
    segment, content = written_segment(tmp_path)
    last = content.rindex(b"o" * 19)  # in the observation of the last record
    segment.write_bytes(content[:last] + b"X" + content[last + 1 :])
    with rs.record(tmp_path / "runs.db") as recorder:
        stats = recorder.stats()
    assert found(tmp_path) == [float(i + 1) for i in range(19)]
    assert stats.recovered == 19
    assert stats.damaged == 1 or "damaged" in capfd.readouterr().err


def test_a_damaged_record_in_the_middle_loses_only_itself(tmp_path, capfd):
    start(tmp_path, most=20, interval=60_000).wait()
    segment, content = written_segment(tmp_path)
    at = content.index(b"o" * 10)
    segment.write_bytes(content[:at] + b"X" + content[at + 1 :])
    with rs.record(tmp_path / "runs.db") as recorder:
        assert recorder.stats().damaged == 1
    assert found(tmp_path) == [float(i + 1) for i in range(20) if i != 10]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_an_exit_that_skips_everything(tmp_path):
    script = (
        textwrap.dedent(WRITER)
        .replace("os.kill(os.getpid(), signal.SIGKILL)", "os._exit(7)")
        .format(
            target=str(tmp_path / "runs.db"),
            log=str(tmp_path / "accepted"),
            most=25,
            pause="",
            interval=60_000,
            sinks="[]",
        )
    )
    assert (
        subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, timeout=60).returncode == 7
    )
    rs.record(tmp_path / "runs.db").close()
    assert found(tmp_path) == [float(i + 1) for i in range(25)]


def test_recovery_does_not_disturb_the_recorder_that_does_it(tmp_path):
    start(tmp_path, most=25, interval=60_000).wait()
    tree = Echo()
    with rs.record(tmp_path / "runs.db", session="next") as recorder:
        recorder.observe(tree)
        for i in range(10):
            tree(float(i), None)
    counts = rows(
        tmp_path / "runs.db",
        "select name, count(*) from steps join sessions using(session_id) group by name order by 1",
    )
    assert counts == [("killed", 25), ("next", 10)]
