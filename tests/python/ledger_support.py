"""Recordings with a ledger in both databases, and how to tamper with them."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import rubriscope as rs


class Half(rs.Rubric):
    def forward(self, action: Any, observation: Any) -> float:
        return 0.5 if action else float("nan")


Target = Path | str
DATABASES = ["sqlite", "postgresql"]


def record_run(path: Target, calls: int = 700, session: str = "run", **options: Any) -> rs.Recorder:
    """Records a tree of three nodes, scalars in between, and two trees in one session."""
    tree = rs.WeightedSum([Half(), Half()], [0.25, 0.75])
    with rs.record(path, session=session, metadata={"who": "test"}, **options) as recorder:
        recorder.observe(tree)
        recorder.observe(other := Half())
        for i in range(calls):
            with recorder.episode(f"ep-{i // 100}"):
                tree("answer", i)
            if i % 50 == 0:
                recorder.log({"loss": 1.0 / (i + 1)}, step=i)
                other("" if i % 100 else "x", [0.0, 1.5, 1e300, -math.inf, math.nan][i // 50 % 5])
    return recorder


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Journals of targets without a folder go here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(params=DATABASES)
def target(request: pytest.FixtureRequest, tmp_path: Path, state: None) -> Target:
    """A new database."""
    return tmp_path / "runs.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture(scope="module", params=DATABASES)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, state: None) -> Target:
    """A database with a recording, to be left as it is."""
    path: Target = tmp_path_factory.mktemp("ledger") / "runs.db"
    if request.param != "sqlite":
        path = request.getfixturevalue("postgres_server").create_database()
    record_run(path)
    return path


#: Tables in an order in which they may be filled.
TABLES = [
    "sessions",
    "writers",
    "schemas",
    "rubrics",
    "episodes",
    "steps",
    "scalars",
    "events",
    "extents",
    "ledgers",
    "ledger_tiles",
    "ledger_entries",
]


@pytest.fixture(scope="module")
def second(request: pytest.FixtureRequest, recorded: Target) -> Target:
    """A copy of it, with another copy of its tables kept beside them."""
    if isinstance(recorded, Path):
        return recorded
    url: str = request.getfixturevalue("postgres_server").create_database(recorded.rsplit("/", 1)[1])
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA kept")
        for table in TABLES:
            connection.execute(f"CREATE TABLE kept.{table} AS TABLE {table}".encode())
    return url


@pytest.fixture
def copy(second: Target, tmp_path: Path) -> Target:
    """A copy, to be changed."""
    if isinstance(second, Path):
        return Path(shutil.copy(second, tmp_path / "copy.db"))
    with psycopg.connect(second) as connection:
        for table in reversed(TABLES):
            connection.execute(
                f"DELETE FROM {table}".encode()
            )  # a TRUNCATE makes files, and waits for the disk
        for table in TABLES:
            connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept.{table}".encode())
    return second


def of_postgres(sql: str) -> str:
    """The same in PostgreSQL's words."""
    sql = re.sub(r"zeroblob\((length\(hashes\)|\d+)\)", r"decode(repeat('00', \1), 'hex')", sql)
    sql = re.sub(r"'\[([\d,]+)\]'", r"'{\1}'", sql)
    return sql.replace("char(10)", "chr(10)")


def change(target: Target, *statements: str) -> None:
    if isinstance(target, str):
        with psycopg.connect(target) as connection:
            for sql in map(of_postgres, statements):
                assert connection.execute(sql.encode()).rowcount != 0, f"{sql} changes nothing"
        return
    with sqlite3.connect(target) as database:
        for sql in statements:
            assert database.execute(sql).rowcount != 0, f"{sql} changes nothing"
    database.close()


def rows(target: Target, sql: str) -> list[tuple[Any, ...]]:
    if isinstance(target, str):
        with psycopg.connect(target) as connection:
            return connection.execute(sql.encode()).fetchall()
    with contextlib.closing(sqlite3.connect(target)) as database:
        return database.execute(sql).fetchall()
