"""A session in other formats: results.json, JSONL, CSV, Parquet, Arrow and pandas tables.

Records are streamed: memory holds one batch of snapshots, and the numbers of the logged scalars.
"""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .film import Film, Progress, Session
from .snapshot import NeuralSnapshot, dump_json

if TYPE_CHECKING:
    import pandas
    import pyarrow

_BATCH = 4096
_REPORT_EVERY = 512

#: The columns that every table has, before one ``score.<path>`` a rubric and one ``scalar.<name>`` a scalar.
FIXED_COLUMNS: tuple[str, ...] = (
    "session",
    "kind",
    "episode",
    "step",
    "time_ns",
    "rank",
    "group",
    "sample",
    "reward",
    "duration_ns",
    "failed",
    "action",
    "observation",
    "metadata",
)


def export(film: Film, session: Session, path: str | os.PathLike[str], progress: Progress | None) -> int:
    """Writes ``session`` to ``path`` by its suffix and returns the number of records."""
    target = Path(path)
    writers: dict[str, Callable[[Film, Session, Path, _Counter], None]] = {
        ".json": _write_results,
        ".jsonl": _write_jsonl,
        ".ndjson": _write_jsonl,
        ".csv": _write_csv,
        ".parquet": _write_parquet,
    }
    write = writers.get(target.suffix.lower())
    if write is None:
        raise ValueError(f"cannot export to {target.name!r}: the suffix must be one of {', '.join(writers)}")
    if film.path is not None and target.exists() and target.samefile(film.path):
        raise ValueError(f"{target} is the recording itself; export to another file")
    counter = _Counter(progress, session.steps + session.scalars)
    # Written beside the target and renamed, so that no reader ever meets half a file.
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        write(film, session, part, counter)
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    counter.finish()
    return counter.done


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


class _Counter:
    """Counts records and tells ``progress`` now and then."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.done = 0
        self._progress = progress
        self._total = total

    def add(self, records: int = 1) -> None:
        before = self.done
        self.done += records
        if self._progress is not None and before // _REPORT_EVERY != self.done // _REPORT_EVERY:
            self._progress(self.done, max(self._total, self.done))

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(self.done, self.done)


# ---- results.json ------------------------------------------------------------------------------------------


def _write_results(film: Film, session: Session, part: Path, counter: _Counter) -> None:
    """``results.json``. One pass over the snapshots: the three lists made of them are spooled and joined."""
    with (
        open(part, "w", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=part.parent) as details,
        tempfile.TemporaryFile("w+", encoding="utf-8", dir=part.parent) as frames,
    ):
        out.write(f'{{"name": {dump_json(session.name)},\n"session": {dump_json(session.to_dict())},\n')
        out.write('"results": [{"summary": {"rewards": [')
        total, scored = 0.0, 0
        for index, snapshot in enumerate(film.snapshots(session)):
            separator = ",\n" if index else ""
            reward = dump_json(snapshot.reward)
            out.write(f"{', ' if index else ''}{reward}")
            metrics = dump_json(snapshot.scores)
            details.write(f'{separator}{{"reward": {reward}, "metrics": {metrics}}}')
            frames.write(separator + dump_json(_frame(snapshot)))
            if snapshot.reward is not None:
                total += snapshot.reward
                scored += 1
            counter.add()
        mean = dump_json(total / scored if scored else None)
        out.write(f'], "mean_reward": {mean}, "count": {counter.done}}},\n"detailed_results": [\n')
        _join(details, out)
        out.write('\n]}],\n"snapshots": [\n')
        _join(frames, out)
        out.write('\n],\n"scalars": {')
        for index, name in enumerate(film.scalars(session)):
            series = film.series("scalar", name, session)
            columns = {
                "step": series.step.tolist(),
                "value": series.score.tolist(),
                "timestamp": (series.time_ns / 1e9).tolist(),
            }
            out.write(f"{',' if index else ''}\n{dump_json(name)}: {dump_json(columns)}")
        counter.add(session.scalars)
        out.write("}}\n")


def _frame(snapshot: NeuralSnapshot) -> dict[str, Any]:
    """A snapshot as the origin's viewer takes it, and what else it holds; empty things are left out."""
    frame: dict[str, Any] = {
        "timestamp": snapshot.timestamp,
        "scores": snapshot.scores,
        "action": snapshot.action,
        "observation": snapshot.observation,
        "reward": snapshot.reward,
        "episode_id": snapshot.episode_id,
        "step": snapshot.step,
    }
    others = {path: status for path, status in snapshot.statuses.items() if status != "scored"}
    optional = {
        "statuses": others or None,
        "reasons": snapshot.reasons or None,
        "explanations": snapshot.explanations or None,
        "score_metadata": snapshot.score_metadata or None,
        "metadata": snapshot.metadata or None,
        "rank": snapshot.rank or None,
        "group_id": snapshot.group_id,
        "sample_index": snapshot.sample_index,
    }
    frame.update((key, value) for key, value in optional.items() if value is not None)
    return frame


def _join(spool: IO[str], out: IO[str]) -> None:
    spool.seek(0)
    shutil.copyfileobj(spool, out)


# ---- JSONL -------------------------------------------------------------------------------------------------


def _write_jsonl(film: Film, session: Session, part: Path, counter: _Counter) -> None:
    """The recorder's own JSONL (docs/formats.md): a film reads it back."""
    with open(part, "w", encoding="utf-8") as out:
        writers: set[str] = set()
        for snapshot in film.snapshots(session):
            writer, sequence = snapshot.id.rsplit(":", 1)
            if writer not in writers:
                writers.add(writer)
                out.write(dump_json(_session_line(session, writer, snapshot.rank)) + "\n")
            out.write(dump_json(_snapshot_line(snapshot, writer, int(sequence))) + "\n")
            counter.add()
        for line in _scalar_lines(film, session, writers):
            out.write(dump_json(line) + "\n")
            if line["kind"] == "scalars":
                counter.add()


def _session_line(session: Session, writer: str, rank: int) -> dict[str, Any]:
    return {
        "writer": writer,
        "kind": "session",
        "format": 1,
        "session": session.uuid,
        "session_name": session.name,
        "rank": rank,
        "created_ns": session.created_ns,
        "closed_ns": session.closed_ns,
        "metadata": session.metadata,
    }


def _snapshot_line(snapshot: NeuralSnapshot, writer: str, sequence: int) -> dict[str, Any]:
    statuses = {path: status for path, status in snapshot.statuses.items() if status != "scored"}
    line: dict[str, Any] = {
        "writer": writer,
        "sequence": sequence,
        "kind": "snapshot",
        "session": snapshot.session_id,
        "session_name": snapshot.session_name,
        "rank": snapshot.rank,
        "episode": snapshot.episode_id,
        "step": snapshot.step,
        "group": snapshot.group_id,
        "sample": snapshot.sample_index,
        "time_ns": snapshot.time_ns,
        "reward": snapshot.reward,
        "scores": snapshot.scores,
        "statuses": statuses,
        "durations_ns": snapshot.durations_ns,
        "action": snapshot.action,
        "observation": snapshot.observation,
        "captures": snapshot.captures,
        "explanations": snapshot.explanations,
        "reasons": snapshot.reasons,
        "score_metadata": snapshot.score_metadata,
        "calls": snapshot.calls,
        "metadata": snapshot.metadata,
        "recovered": snapshot.recovered or None,
    }
    return {key: value for key, value in line.items() if value is not None and value != {}}


def _scalar_lines(film: Film, session: Session, writers: set[str]) -> Iterator[dict[str, Any]]:
    for record in scalar_records(film, session):
        if record.writer not in writers:
            writers.add(record.writer)
            yield _session_line(session, record.writer, record.rank)
        yield {
            "writer": record.writer,
            "sequence": record.sequence,
            "kind": "scalars",
            "session": session.uuid,
            "session_name": session.name,
            "rank": record.rank,
            "step": record.step,
            "time_ns": record.time_ns,
            "values": {name: value for name, value in record.values.items() if value is not None},
            "statuses": {name: "failed" for name, value in record.values.items() if value is None},
        }


@dataclass(frozen=True, slots=True)
class ScalarRecord:
    """One ``recorder.log`` call, put together again from the columns."""

    writer: str
    sequence: int
    rank: int
    step: int
    time_ns: int
    values: dict[str, float | None]  #: None where the value was not finite


def scalar_records(film: Film, session: Session) -> Iterator[ScalarRecord]:
    """The session's ``recorder.log`` records in order of time."""
    columns = [film.series("scalar", name, session) for name in film.scalars(session)]
    if not columns:
        return
    writer_ids = film.writers(session)
    # One row a value: (time, writer, sequence) says which record it belongs to.
    series_of = np.repeat(np.arange(len(columns)), [len(series) for series in columns])
    at = np.concatenate([np.arange(len(series)) for series in columns])
    time_ns = np.concatenate([series.time_ns for series in columns])
    sequence = np.concatenate([series.sequence for series in columns])
    writer = np.concatenate([series.writer for series in columns])
    order = np.lexsort((series_of, sequence, writer, time_ns))
    keys = np.stack([time_ns, writer, sequence], axis=1)[order]
    first = np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)])
    starts = np.flatnonzero(first)
    for low, high in zip(starts, [*starts[1:], len(order)], strict=True):
        rows = order[low:high]
        head = columns[series_of[rows[0]]]
        row = at[rows[0]]
        values: dict[str, float | None] = {}
        for entry in rows:
            series = columns[series_of[entry]]
            value = float(series.score[at[entry]])
            values[series.path] = value if np.isfinite(value) else None
        yield ScalarRecord(
            writer=writer_ids[head.writer[row]],
            sequence=int(head.sequence[row]),
            rank=int(head.rank[row]),
            step=int(head.step[row]),
            time_ns=int(head.time_ns[row]),
            values=values,
        )


# ---- tables ------------------------------------------------------------------------------------------------


class _Layout:
    """The columns of a session's table and how a record fills them."""

    def __init__(self, film: Film, session: Session) -> None:
        self.film = film
        self.session = session
        self.paths = film.paths(session)
        self.names = film.scalars(session)
        self.columns = [
            *FIXED_COLUMNS,
            *(f"score.{path}" for path in self.paths),
            *(f"scalar.{name}" for name in self.names),
        ]

    def rows(self) -> Iterator[list[Any]]:
        """Snapshots in order of recording, then the logged scalars in order of time."""
        none_logged = [None] * len(self.names)
        for snapshot in self.film.snapshots(self.session):
            failed = [path for path, status in snapshot.statuses.items() if status == "failed"]
            yield [
                self.session.name,
                "snapshot",
                snapshot.episode_id,
                snapshot.step,
                snapshot.time_ns,
                snapshot.rank,
                snapshot.group_id,
                snapshot.sample_index,
                snapshot.reward,
                snapshot.durations_ns.get("root"),
                " ".join(failed) or None,
                None if snapshot.action is None else str(snapshot.action),
                None if snapshot.observation is None else str(snapshot.observation),
                dump_json(snapshot.metadata) if snapshot.metadata else None,
                *(snapshot.scores.get(path) for path in self.paths),
                *none_logged,
            ]
        none_scored = [None] * len(self.paths)
        for record in scalar_records(self.film, self.session):
            fixed: dict[str, Any] = dict.fromkeys(FIXED_COLUMNS)
            fixed["session"] = self.session.name
            fixed["kind"] = "scalars"
            fixed["step"] = record.step
            fixed["time_ns"] = record.time_ns
            fixed["rank"] = record.rank
            yield [*fixed.values(), *none_scored, *(record.values.get(name) for name in self.names)]

    def batches(self) -> Iterator[list[list[Any]]]:
        rows = self.rows()
        while batch := list(itertools.islice(rows, _BATCH)):
            yield batch


def _write_csv(film: Film, session: Session, part: Path, counter: _Counter) -> None:
    layout = _Layout(film, session)
    with open(part, "w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(layout.columns)
        for row in layout.rows():
            writer.writerow(row)
            counter.add()


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Arrow tables and Parquet need pyarrow: pip install 'rubriscope[arrow]' (or: pip install pyarrow)"
        ) from error
    return pyarrow


def _arrow_schema(layout: _Layout) -> pyarrow.Schema:
    pa = _arrow()
    types = {
        "step": pa.int64(),
        "time_ns": pa.int64(),
        "rank": pa.int32(),
        "group": pa.int64(),
        "sample": pa.int32(),
        "reward": pa.float64(),
        "duration_ns": pa.int64(),
    }
    fixed = [(name, types.get(name, pa.string())) for name in FIXED_COLUMNS]
    return pa.schema(fixed + [(name, pa.float64()) for name in layout.columns[len(FIXED_COLUMNS) :]])


def _arrow_batches(layout: _Layout, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    pa = _arrow()
    for rows in layout.batches():
        arrays = [
            pa.array(_encodable(column) if field.type == pa.string() else column, type=field.type)
            for column, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _encodable(column: Sequence[str | None]) -> list[str | None]:
    """Lone surrogates as escapes: Arrow's strings are UTF-8."""
    return [None if text is None else text.encode("utf-8", "backslashreplace").decode() for text in column]


def _write_parquet(film: Film, session: Session, part: Path, counter: _Counter) -> None:
    pa = _arrow()
    layout = _Layout(film, session)
    schema = _arrow_schema(layout)
    with pa.parquet.ParquetWriter(part, schema) as writer:
        for batch in _arrow_batches(layout, schema):
            writer.write_batch(batch)
            counter.add(batch.num_rows)


def to_arrow(film: Film, session: Session) -> pyarrow.Table:
    """The session as a table; see :meth:`Film.to_arrow`."""
    pa = _arrow()
    layout = _Layout(film, session)
    schema = _arrow_schema(layout)
    return pa.Table.from_batches(_arrow_batches(layout, schema), schema=schema)


def to_pandas(film: Film, session: Session) -> pandas.DataFrame:
    """The session as a frame; see :meth:`Film.to_pandas`."""
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "frames need pandas and pyarrow: pip install 'rubriscope[arrow]' (or: pip install pandas pyarrow)"
        ) from error
    return to_arrow(film, session).to_pandas()
