"""rs.connect: SQL on a database that this process may be recording into."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import rubriscope as rs
from rubriscope import sql


class Half(rs.Rubric):
    def forward(self, action: object, observation: object) -> float:
        return 0.5


def test_reads_while_the_recorder_writes(tmp_path: Path) -> None:
    path = tmp_path / "runs with space.db"
    rubric = rs.Gate(Half(), 0.1)
    with rs.record(path) as recorder:
        recorder.observe(rubric)
        for expected in (1, 2, 3):
            rubric("action", "observation")
            recorder.flush()
            connection = rs.connect(path)
            rows = connection.execute(
                "select step_index, score, status from trajectory where rubric_path = 'rubric' order by 1"
            ).fetchall()
            connection.close()
            assert rows == [(step, 0.5, "scored") for step in range(expected)]


def test_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    rs.record(path).close()
    connection = rs.connect(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("delete from sessions")
    connection.close()


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.db"):
        rs.connect(tmp_path / "nothing.db")
    assert not (tmp_path / "nothing.db").exists()


def test_two_copies_of_sqlite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    rs.record(path).close()
    monkeypatch.setattr(sql, "sqlite_of", lambda library: (f"copy of {library}", "3.0"))
    with pytest.raises(RuntimeError, match="two copies of SQLite"):
        rs.connect(path)
