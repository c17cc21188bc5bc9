"""The Parquet sink: a folder of part files that any Arrow, DuckDB or Spark reads as one table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..event import Event
from ..snapshot import Scalars, dump_json
from ._common import Record, folder_of, need, sequence_of

_NAME = re.compile(r"([0-9a-f-]{36})\.(\d+)-(\d+)\.parquet")
_FAN_IN = 8  #: as many small parts become one
_MOST_ROWS = 1 << 17  #: of a part that was put together


@dataclass(frozen=True)
class _Part:
    path: Path
    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first + 1

    @property
    def level(self) -> int:
        return (self.rows.bit_length() - 1) // 3  # of a factor of 8


class ParquetSink:
    """Writes one row a record into ``folder``; docs/formats.md has the columns.

    A batch is a part file named by writer and sequences, complete and on disk when it has its name; small
    parts are put together as they gather. So every record is there once, also after a crash.

    Raises:
        ImportError: pyarrow is missing: ``pip install 'rubriscope[parquet]'``.
    """

    keeps_failed_batches = True

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        need("pyarrow", "parquet", "ParquetSink")
        self._folder = Path(folder).expanduser().absolute()
        self._writer = ""
        self._parts: list[_Part] = []

    @property
    def target(self) -> str:
        """``parquet:/path``, by which a later process opens it again."""
        return f"parquet:{self._folder}"

    def open(self, session: Mapping[str, Any]) -> None:
        """Finds what the writer has written, and removes what a crash left half done."""
        self._writer = session["writer_id"]
        self._folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self._folder.glob(f".{self._writer}.*"):
            unfinished.unlink()
        self._parts = []
        for part in self._stored(self._writer):
            if self._parts and part.last <= self._parts[-1].last:  # put together, and not removed yet
                part.path.unlink()
            else:
                self._parts.append(part)

    def stored_through(self, writer_id: str) -> int | None:
        """The highest sequence on disk."""
        return max((part.last for part in self._stored(writer_id)), default=None)

    def write_all(self, records: Sequence[Record]) -> None:
        """Writes a part, and puts parts together where there are many."""
        table = _table(records)
        self._parts.append(self._write(sequence_of(records[0]), sequence_of(records[-1]), [table]))
        while len(self._parts) >= _FAN_IN:
            newest = self._parts[-_FAN_IN:]
            if any(part.level > newest[-1].level for part in newest) or not self._join(newest):
                break

    def close(self) -> None:
        """Puts the last parts together."""
        rest: list[_Part] = []
        for part in reversed(self._parts):
            if sum(p.rows for p in rest) + part.rows > _MOST_ROWS:
                break
            rest.insert(0, part)
        if len(rest) > 1:
            self._join(rest)
        self._parts = []

    def _stored(self, writer_id: str) -> list[_Part]:
        found = []
        for path in self._folder.glob(f"{writer_id}.*.parquet"):
            if match := _NAME.fullmatch(path.name):
                found.append(_Part(path, int(match[2]), int(match[3])))
        return sorted(found, key=lambda part: (part.first, -part.last))

    def _join(self, parts: list[_Part]) -> bool:
        import pyarrow.parquet as pq

        if sum(part.rows for part in parts) > _MOST_ROWS:
            return False
        tables = (pq.read_table(part.path, partitioning=None) for part in parts)
        joined = self._write(parts[0].first, parts[-1].last, tables)
        self._parts[self._parts.index(parts[0]) :] = [joined]
        for part in parts:
            part.path.unlink()
        return True

    def _write(self, first: int, last: int, tables: Iterable[Any]) -> _Part:
        import pyarrow.parquet as pq

        name = f"{self._writer}.{first:012}-{last:012}.parquet"
        unfinished, path = self._folder / f".{name}.part", self._folder / name
        with open(unfinished, "wb") as file:
            with pq.ParquetWriter(file, _schema(), compression="zstd") as out:
                for table in tables:
                    out.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return _Part(path, first, last)


def _schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            pa.field("writer", text, nullable=False),
            pa.field("sequence", pa.int64(), nullable=False),
            pa.field("kind", text, nullable=False),
            pa.field("session", text, nullable=False),
            pa.field("session_name", text, nullable=False),
            pa.field("rank", pa.int32(), nullable=False),
            pa.field("episode", text),
            pa.field("step", pa.int64(), nullable=False),
            pa.field("group", pa.int64()),
            pa.field("sample", pa.int32()),
            pa.field("time_ns", pa.int64(), nullable=False),
            pa.field("reward", number),
            pa.field("scores", pa.map_(text, number), nullable=False),
            pa.field("statuses", pa.map_(text, text)),
            pa.field("durations_ns", pa.map_(text, pa.int64())),
            pa.field("calls", pa.map_(text, pa.int64())),
            pa.field("explanations", pa.map_(text, text)),
            pa.field("reasons", pa.map_(text, text)),
            pa.field("score_metadata", pa.map_(text, text)),
            pa.field("action", text),
            pa.field("observation", text),
            pa.field("metadata", text),
            pa.field("name", text),
            pa.field("duration_ns", pa.int64()),
            pa.field("outcome", text),
            pa.field("attributes", text),
            pa.field("fields", text),
        ]
    )


def _table(records: Sequence[Record]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist([_row(record) for record in records], schema=_schema())


def _row(record: Record) -> dict[str, Any]:
    writer, _, sequence = record.id.rpartition(":")
    row: dict[str, Any] = {
        "writer": writer,
        "sequence": int(sequence),
        "kind": _kind(record),
        "session": record.session_id,
        "session_name": record.session_name,
        "rank": record.rank,
        "step": record.step,
        "time_ns": record.time_ns,
    }
    if isinstance(record, Scalars):
        return {**row, "scores": list(record.values.items())}
    if isinstance(record, Event):
        return {
            **row,
            "episode": record.episode_id,
            "group": record.group_id,
            "sample": record.sample_index,
            "scores": list(record.values.items()),
            "name": record.name,
            "duration_ns": record.duration_ns,
            "outcome": record.outcome,
            "attributes": dump_json(record.attributes),
            "fields": record.to_json_fields(),
            "metadata": dump_json(record.metadata) if record.metadata else None,
        }
    return {
        **row,
        "episode": record.episode_id,
        "group": record.group_id,
        "sample": record.sample_index,
        "reward": record.reward,
        "scores": list(record.scores.items()),
        "statuses": list(record.statuses.items()),
        "durations_ns": list(record.durations_ns.items()),
        "calls": list(record.calls.items()),
        "explanations": list(record.explanations.items()),
        "reasons": list(record.reasons.items()),
        "score_metadata": [(path, dump_json(value)) for path, value in record.score_metadata.items()],
        "action": _text(record.action),
        "observation": _text(record.observation),
        "metadata": dump_json(record.metadata) if record.metadata else None,
    }


def _kind(record: Record) -> str:
    if isinstance(record, Event):
        return record.kind
    return "scalars" if isinstance(record, Scalars) else "snapshot"


def _text(capture: str | int | float | None) -> str | None:
    return capture if capture is None or isinstance(capture, str) else repr(capture)


def from_target(target: str) -> ParquetSink:
    """The sink for ``parquet:DIR``."""
    return ParquetSink(folder_of(target))
