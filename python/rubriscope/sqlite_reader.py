"""Reads a SQLite recording through the native reader, which goes writer by writer: here they are merged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from . import _C
from .event import Event
from .merging import by_clock, by_step, columns_by_step
from .series import Summary
from .snapshot import NeuralSnapshot


class SqliteReader:
    """The sessions of one database. Raises ``rubriscope.FormatError`` for a file that is not ours."""

    def __init__(self, path: str, kek: _C.Kek | None = None) -> None:
        self._path = path
        self._native = _C.FilmReader(path, kek)

    def close(self) -> None:
        """Lets go of the file."""
        del self._native

    def ledgers(self) -> _C.LedgerReader:
        """The ledgers of this database."""
        return _C.LedgerReader(self._path)

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
        return columns_by_step(self._native.scores(session_id, path, episode=episode, start=start, stop=stop))

    def scalars(
        self, session_id: int, name: str, start: int | None = None, stop: int | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of one scalar."""
        return columns_by_step(self._native.scalars(session_id, name, start=start, stop=stop))

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
        return by_step(
            self._native.snapshots(session_id, episode=episode, start=start, stop=stop, writer=writer)
            for writer in self._numbers(session_id)
        )

    def events(
        self,
        session_id: int,
        kind: str | None = None,
        name: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Event]:
        """Streams a session's events."""
        return by_clock(
            self._native.events(session_id, kind=kind, name=name, start=start, stop=stop, writer=writer)
            for writer in self._numbers(session_id)
        )

    def _numbers(self, session_id: int) -> range:
        return range(len(self._native.writers(session_id)))
