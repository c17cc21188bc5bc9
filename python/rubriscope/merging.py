"""The one order of a session that several writers recorded: ranks of a run, workers, a run that was resumed.

Snapshots and scalars go by step, then rank, then clock. Clocks of machines differ, steps of ranks that train
together do not. A stream keeps its own order: where its steps go back (each episode counts from 0) a new lap
begins, and laps of different writers go side by side. Events go by the clock: what caused what is in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt


class _Placed(Protocol):
    step: int
    rank: int
    time_ns: int


_Stepped = TypeVar("_Stepped", bound=_Placed)


class _Timed(Protocol):
    time_ns: int


_Clocked = TypeVar("_Clocked", bound=_Timed)

_EARLIEST = -(2**63)


def by_step(streams: Iterable[Iterator[_Stepped]]) -> Iterator[_Stepped]:
    """Records of several streams in one, by (lap, step), rank and clock."""
    many = list(streams)
    if len(many) == 1:
        return many[0]
    return (record for _, record in heapq.merge(*map(_with_place, many), key=lambda entry: entry[0]))


def by_clock(streams: Iterable[Iterator[_Clocked]]) -> Iterator[_Clocked]:
    """Records of several streams in one, by their time."""
    many = list(streams)
    if len(many) == 1:
        return many[0]
    return (record for _, record in heapq.merge(*map(_with_time, many), key=lambda entry: entry[0]))


def columns_by_step(columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The order of :func:`by_step`, for columns that come writer by writer."""
    order = step_order(*(columns[name] for name in ("writer", "step", "rank", "time_ns")))
    return columns if order is None else {name: column[order] for name, column in columns.items()}


def step_order(
    writer: npt.NDArray[Any], step: npt.NDArray[Any], rank: npt.NDArray[Any], time_ns: npt.NDArray[Any]
) -> npt.NDArray[Any] | None:
    """Indices in the order of :func:`by_step`, of records that come writer by writer; None for one writer."""
    starts = np.flatnonzero(np.diff(writer)) + 1
    if len(starts) == 0:
        return None
    laps = np.zeros(len(step), dtype=np.int64)
    times = time_ns.copy()
    for lap, steps, stream in zip(
        np.split(laps, starts), np.split(step, starts), np.split(times, starts), strict=True
    ):
        lap[1:] = np.cumsum(np.diff(steps) < 0)
        np.maximum.accumulate(stream, out=stream)
    return np.lexsort((times, rank, step, laps))


def _with_place(stream: Iterator[_Stepped]) -> Iterator[tuple[tuple[int, int, int, int], _Stepped]]:
    lap, before, latest = 0, _EARLIEST, _EARLIEST
    for record in stream:
        lap += record.step < before
        before = record.step
        latest = max(latest, record.time_ns)  # a clock that was set back does not reorder a stream
        yield (lap, before, record.rank, latest), record


def _with_time(stream: Iterator[_Clocked]) -> Iterator[tuple[int, _Clocked]]:
    latest = _EARLIEST
    for record in stream:
        latest = max(latest, record.time_ns)
        yield latest, record
