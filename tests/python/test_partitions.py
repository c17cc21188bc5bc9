"""PostgreSQL with `steps` partitioned by examples/postgres_partitions.sql, as docs/scale.md says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg
import pytest
import rubriscope as rs
from engine_support import Echo
from rubriscope.cli.app import run

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "postgres_partitions.sql"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def partition(url: str, writers: int = 2, partitions: int = 2) -> subprocess.CompletedProcess[str]:
    options = ["-v", f"writers={writers}", "-v", f"partitions={partitions}"]
    return subprocess.run(
        ["psql", url, *options, "-f", str(SCRIPT)], capture_output=True, text=True, timeout=60
    )


def record(url: str, name: str, first: float, recorder: rs.Recorder | None = None) -> None:
    opened = recorder or rs.record(url, session=name)
    tree = rs.Sequential(Echo())
    observer = opened.observe(tree)
    for i in range(5):
        tree(first + i, "o")
    observer.detach()
    opened.flush()
    if recorder is None:
        opened.close()


def counts(url: str) -> dict[str, int]:
    with psycopg.connect(url) as database:
        return {
            str(row[0]): int(row[1])
            for row in database.execute("SELECT tableoid::regclass, count(*) FROM steps GROUP BY 1")
        }


def test_a_partitioned_database_is_recorded_into_and_read(postgres_url, capsys):
    record(postgres_url, "before", 0.0)
    with rs.record(postgres_url, session="open") as recorder:
        record(postgres_url, "open", 10.0, recorder)
        done = partition(postgres_url)
        assert done.returncode == 0, done.stderr
        record(postgres_url, "open", 15.0, recorder)  # it goes on into the new table
    for number in range(3):
        record(postgres_url, f"after {number}", 100.0 * (number + 1))
    found = counts(postgres_url)
    assert sum(found.values()) == 30
    # Writers are numbered from 1, two a partition.
    assert found == {"steps_0": 5, "steps_1": 15, "steps_rest": 10}
    with rs.Film(postgres_url) as film:
        assert [s.reward for s in film.snapshots("before")] == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert [s.reward for s in film.snapshots("open")] == [10.0 + i for i in range(10)]
        assert film.scores("root", "after 2", start=1, stop=3).score.tolist() == [301.0, 302.0]
    with psycopg.connect(postgres_url) as database:
        assert database.execute("SELECT count(*) FROM trajectory WHERE rubric_path = 'root'").fetchone() == (
            30,
        )
        # Old runs go by the partition.
        database.execute("ALTER TABLE steps DETACH PARTITION steps_0")
    with rs.Film(postgres_url) as film:
        assert list(film.snapshots("before")) == [] and len(list(film.snapshots("open"))) == 10
    # A record is stored once there too: the key is unique.
    with psycopg.connect(postgres_url) as database, pytest.raises(psycopg.errors.UniqueViolation):
        database.execute("INSERT INTO steps SELECT * FROM steps LIMIT 1")
    capsys.readouterr()
    assert run(["verify", postgres_url, "--session", "open"]) == 0
    assert run(["verify", postgres_url, "--session", "before"]) == 1  # its records are gone, and that shows


def test_a_script_that_fails_changes_nothing(postgres_url):
    record(postgres_url, "before", 0.0)
    assert partition(postgres_url, writers=0).returncode != 0
    assert counts(postgres_url) == {"steps": 5}
    with psycopg.connect(postgres_url) as database:
        assert database.execute("SELECT count(*) FROM trajectory").fetchone() == (10,)
