"""Rubrics and a sink for the tests of the engine."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from pathlib import Path
from typing import Any

import rubriscope as rs


class Value(rs.Rubric):
    """Gives what it was made with."""

    def __init__(self, value: Any = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.value = value

    def forward(self, action: Any, observation: Any) -> Any:
        return self.value


class AsyncValue(rs.Rubric):
    """Gives what it was made with, after it has let others run."""

    def __init__(self, value: Any = 0.5, pauses: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.value = value
        self.pauses = pauses

    async def forward(self, action: Any, observation: Any) -> Any:
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        return self.value


class Echo(rs.Rubric):
    """Gives the action."""

    def forward(self, action: Any, observation: Any) -> Any:
        return action


class AsyncEcho(rs.Rubric):
    async def forward(self, action: Any, observation: Any) -> Any:
        for _ in range(int(observation or 1)):
            await asyncio.sleep(0)
        return action


class Raises(rs.Rubric):
    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = error

    def forward(self, action: Any, observation: Any) -> float:
        raise self.error or RuntimeError("broken rubric")


class AsyncRaises(Raises):
    async def forward(self, action: Any, observation: Any) -> float:
        await asyncio.sleep(0)
        raise self.error or RuntimeError("broken rubric")


class Mean(rs.Rubric):
    """The mean of its children, called by name as a user's forward() does."""

    def __init__(self, **children: rs.Rubric) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, action: Any, observation: Any) -> float:
        scores = [child(action, observation) for child in self.children()]
        return sum(scores) / len(scores)


class Collect:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.snapshots: list[rs.NeuralSnapshot] = []
        self.scalars: list[tuple[dict[str, float], int]] = []
        self.threads: set[int] = set()

    def emit(self, snapshot: rs.NeuralSnapshot) -> None:
        self.threads.add(threading.get_ident())
        self.snapshots.append(snapshot)

    def log(self, values: dict[str, float], step: int) -> None:
        self.scalars.append((values, step))


class Watch:
    """An observed rubric, with its snapshots at hand."""

    def __init__(self, directory: Path, rubric: rs.Rubric, **options: Any) -> None:
        self.sink = Collect()
        self.recorder = rs.record(
            sinks=[self.sink],
            session="test",
            journal_dir=directory,
            journal_limit_bytes=1 << 20,
            flush_interval_ms=5,
        )
        self.observer = self.recorder.observe(rubric, **options)

    def snapshots(self) -> list[rs.NeuralSnapshot]:
        self.recorder.flush(30)
        return list(self.sink.snapshots)

    def last(self) -> rs.NeuralSnapshot:
        return self.snapshots()[-1]

    def only(self) -> rs.NeuralSnapshot:
        (snapshot,) = self.snapshots()
        return snapshot


def shown(value: Any) -> str:
    """A test's id for a value: the same in every process, so without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def rows(database: Path, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """What a query gives, read as a stranger would: with the standard library."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return connection.execute(query, arguments).fetchall()
    finally:
        connection.close()


def three_levels() -> rs.WeightedSum:
    """The 13-node tree of the issue's speed table."""
    return rs.WeightedSum(
        [rs.Gate(rs.WeightedSum([Value(0.5), Value(0.7)], [0.5, 0.5]), 0.1) for _ in range(3)],
        [0.5, 0.25, 0.25],
    )
