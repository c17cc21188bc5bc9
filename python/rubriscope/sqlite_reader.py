"""Reads a SQLite recording through the native reader, with several writers brought into one order.

The native reader goes writer by writer. People replay a distributed run by the clock, so here the writers'
streams are merged by time; each stream keeps its own order, also where the clock was set back in between.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C
from .series import Summary
from .snapshot import NeuralSnapshot


class SqliteReader:
    """The sessions of one database. Raises ``rubriscope.FormatError`` for a file that is not ours."""

    def __init__(self, path: str) -> None:
        self._native = _C.FilmReader(path)

    def close(self) -> None:
        """Lets go of the file."""
        del self._native

    def sessions(self) -> list[dict[str, Any]]:
        """One dictionary a session."""
        found = []
        for info in self._native.sessions():
            ranks = {writer["rank"] for writer in self._native.writers(info["session_id"])}
            found.append({**info, "ranks": sorted(ranks)})
        return found

    def paths(self, session_id: int) -> list[str]:
        """Rubric paths in pre-order."""
        paths: list[str] = self._native.paths(session_id)
        return paths

    def scalar_names(self, session_id: int) -> list[str]:
        """Names logged with ``recorder.log``."""
        names: list[str] = self._native.scalar_names(session_id)
        return names

    def episodes(self, session_id: int) -> list[str]:
        """Episode names in order of their start."""
        return [episode["name"] for episode in self._native.episodes(session_id)]

    def writers(self, session_id: int) -> list[str]:
        """Writer ids; an index into this list is the number in a column ``writer``."""
        return [writer["writer_id"] for writer in self._native.writers(session_id)]

    def scores(
        self,
        session_id: int,
        path: str,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of one rubric path."""
        return _by_time(self._native.scores(session_id, path, episode=episode, start=start, stop=stop))

    def scalars(
        self, session_id: int, name: str, start: int | None = None, stop: int | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of one scalar."""
        return _by_time(self._native.scalars(session_id, name, start=start, stop=stop))

    def summaries(self, session_id: int, episode: str | None = None, bins: int = 24) -> list[Summary]:
        """Figures of every rubric path, from one scan."""
        return [
            Summary(**{**found, "kind": "rubric", "curve": tuple(found["curve"])})
            for found in self._native.summaries(session_id, bins, episode=episode)
        ]

    def snapshots(
        self,
        session_id: int,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[NeuralSnapshot]:
        """Streams a session's snapshots."""
        count = len(self._native.writers(session_id))
        streams = [
            self._native.snapshots(session_id, episode=episode, start=start, stop=stop, writer=writer)
            for writer in range(count)
        ]
        if count == 1:
            return iter(streams[0])
        return (snapshot for _, snapshot in heapq.merge(*map(_timed, streams), key=lambda entry: entry[0]))


def _timed(stream: Iterator[NeuralSnapshot]) -> Iterator[tuple[int, NeuralSnapshot]]:
    """Snapshots with a time that never goes back."""
    latest = -(2**63)
    for snapshot in stream:
        latest = max(latest, snapshot.time_ns)
        yield latest, snapshot


def _by_time(columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The order of :func:`SqliteReader.snapshots`, for columns that come writer by writer."""
    writer = columns["writer"]
    starts = np.flatnonzero(np.diff(writer)) + 1
    if len(starts) == 0:
        return columns
    time_ns = columns["time_ns"].copy()
    for stream in np.split(time_ns, starts):
        np.maximum.accumulate(stream, out=stream)
    order = np.argsort(time_ns, kind="stable")
    return {name: column[order] for name, column in columns.items()}
