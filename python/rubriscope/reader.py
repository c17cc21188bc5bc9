"""What a film needs of the thing it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from . import _C
from .event import Event
from .series import Summary
from .snapshot import NeuralSnapshot

Columns = Mapping[str, npt.NDArray[Any]]


class Reader(Protocol):
    """What a film needs of a recording: ``SqliteReader``, ``PostgresReader`` or ``JsonlReader``."""

    def sessions(self) -> list[dict[str, Any]]: ...

    def paths(self, session_id: int) -> list[str]: ...

    def scalar_names(self, session_id: int) -> list[str]: ...

    def episodes(self, session_id: int) -> list[str]: ...

    def writers(self, session_id: int) -> list[str]: ...

    def scores(
        self, session_id: int, path: str, episode: str | None, start: int | None, stop: int | None
    ) -> Columns: ...

    def scalars(self, session_id: int, name: str, start: int | None, stop: int | None) -> Columns: ...

    def summaries(self, session_id: int, episode: str | None, bins: int) -> list[Summary]: ...

    def snapshots(
        self, session_id: int, episode: str | None, start: int | None, stop: int | None
    ) -> Iterator[NeuralSnapshot]: ...

    def events(
        self, session_id: int, kind: str | None, name: str | None, start: int | None, stop: int | None
    ) -> Iterator[Event]: ...

    def ledgers(self) -> _C.LedgerReader: ...

    def close(self) -> None: ...
