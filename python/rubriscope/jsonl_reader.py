"""Reads a JSONL recording (docs/formats.md) with the interface of the native SQLite reader.

Columns are parsed once for the whole file and kept as packed arrays until the file changes; snapshots are
streamed from the file on every call. Parsing is Python's: some tens of thousands of lines a second.
"""

from __future__ import annotations

import base64
import json
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import FormatError
from .event import EVENT_KINDS, Event
from .merging import by_clock, by_step, columns_by_step
from .series import FAILED, NO_GROUP, NO_SAMPLE, SCORED, SKIPPED, ScoreSeries, Summary
from .snapshot import ROOT, NeuralSnapshot

_STATUS_CODES = {"skipped": SKIPPED, "scored": SCORED, "failed": FAILED}
_COLUMNS = ("step", "time_ns", "sequence", "writer", "rank", "group", "sample")


class _Column:
    """One path's values: an index into the session's records and a value for each."""

    __slots__ = ("duration_ns", "record", "score", "status")

    def __init__(self) -> None:
        self.record = array("q")
        self.score = array("d")
        self.status = array("B")
        self.duration_ns = array("q")

    def add(self, record: int, score: float | None, status: int, duration_ns: int) -> None:
        self.record.append(record)
        self.score.append(float("nan") if score is None else score)
        self.status.append(status)
        self.duration_ns.append(duration_ns)


class _Session:
    """What one session's lines hold, numbers only."""

    def __init__(self, number: int, uuid: str, name: str) -> None:
        self.number = number
        self.uuid = uuid
        self.name = name
        self.created_ns: int | None = None
        self.closed_ns: int | None = None
        self.first_ns: int | None = None
        self.metadata: dict[str, Any] = {}
        self.writers: dict[str, int] = {}  # writer id -> its number
        self.ranks: set[int] = set()
        self.columns = {name: array("q") for name in _COLUMNS}
        self.episode = array("q")  # an index into `episodes`, -1 for scalars
        self.episodes: dict[str, int] = {}
        self.snapshots = 0
        self.scalar_records = 0
        self.events = 0
        self.paths: dict[str, _Column] = {}
        self.scalars: dict[str, _Column] = {}

    def append(self, line: Mapping[str, Any]) -> int:
        """Adds a record's own columns and returns its index."""
        columns = self.columns
        columns["step"].append(line.get("step", 0))
        columns["time_ns"].append(line["time_ns"])
        columns["sequence"].append(line["sequence"])
        columns["writer"].append(self.writers[line["writer"]])
        columns["rank"].append(line.get("rank", 0))
        group = line.get("group")
        columns["group"].append(NO_GROUP if group is None else group)
        sample = line.get("sample")
        columns["sample"].append(NO_SAMPLE if sample is None else sample)
        if self.first_ns is None:
            self.first_ns = line["time_ns"]
        return len(columns["step"]) - 1

    def info(self) -> dict[str, Any]:
        return {
            "session_id": self.number,
            "uuid": self.uuid,
            "name": self.name,
            "created_ns": self.created_ns if self.created_ns is not None else self.first_ns or 0,
            "closed_ns": self.closed_ns,
            "last_ns": max(self.columns["time_ns"], default=None),
            "metadata": json.dumps(self.metadata),
            "steps": self.snapshots,
            "episodes": len(self.episodes),
            "scalars": self.scalar_records,
            "events": self.events,
            "writers": len(self.writers),
            "ranks": sorted(self.ranks),
        }


class JsonlReader:
    """The sessions of one JSONL file. Session numbers count from 1 in order of first appearance."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int] | None = None
        self._by_uuid: dict[str, _Session] = {}
        self._load()

    def close(self) -> None:
        """Lets go of the parsed columns."""
        self._by_uuid = {}
        self._seen = None

    def ledgers(self) -> Any:
        """Raises ``ValueError``: lines have no ledger."""
        raise ValueError(f"{self._path} has no ledger: one is kept in databases only")

    def sessions(self) -> list[dict[str, Any]]:
        """One dictionary a session, as the native reader's."""
        self._load()
        return [session.info() for session in self._by_uuid.values()]

    def paths(self, session_id: int) -> list[str]:
        """Rubric paths of a session in order of first appearance."""
        return list(self._session(session_id).paths)

    def scalar_names(self, session_id: int) -> list[str]:
        """Names logged with ``recorder.log`` in order of first appearance."""
        return list(self._session(session_id).scalars)

    def episodes(self, session_id: int) -> list[str]:
        """Episode names in order of first appearance."""
        return list(self._session(session_id).episodes)

    def writers(self, session_id: int) -> list[str]:
        """Writer ids; an index into this list is the number in a column ``writer``."""
        return list(self._session(session_id).writers)

    def scores(
        self,
        session_id: int,
        path: str,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of one rubric path, arrays of one length. Raises ``KeyError`` for an unknown path."""
        session = self._session(session_id)
        return self._columns(session, session.paths[path], episode, start, stop)

    def scalars(
        self, session_id: int, name: str, start: int | None = None, stop: int | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of one scalar. Raises ``KeyError`` for an unknown name."""
        session = self._session(session_id)
        return self._columns(session, session.scalars[name], None, start, stop)

    def summaries(self, session_id: int, episode: str | None = None, bins: int = 24) -> list[Summary]:
        """Figures of every rubric path."""
        many = [
            ScoreSeries.from_columns(path, "rubric", self.scores(session_id, path, episode))
            for path in self.paths(session_id)
        ]
        ends = [(int(one.step.min()), int(one.step.max())) for one in many if len(one)]
        steps = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None
        return [one.summary(bins, steps) for one in many]

    def snapshots(
        self,
        session_id: int,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[NeuralSnapshot]:
        """Streams a session's snapshots."""

        def stream(writer: str) -> Iterator[NeuralSnapshot]:
            for line in self._lines_of(session_id, writer, start, stop):
                if line["kind"] == "snapshot" and episode in (None, line.get("episode", "0")):
                    yield _snapshot(line)

        return by_step(map(stream, self.writers(session_id)))

    def events(
        self,
        session_id: int,
        kind: str | None = None,
        name: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Event]:
        """Streams a session's events."""

        def stream(writer: str) -> Iterator[Event]:
            for line in self._lines_of(session_id, writer, start, stop):
                of_kind = line["kind"] in EVENT_KINDS and kind in (None, line["kind"])
                if of_kind and name in (None, line["name"]):
                    yield _event(line)

        return by_clock(map(stream, self.writers(session_id)))

    def _lines_of(
        self, session_id: int, writer: str, start: int | None, stop: int | None
    ) -> Iterator[dict[str, Any]]:
        session = self._session(session_id)
        for line in self._lines(writer):
            step = line.get("step", 0)
            if line["session"] != session.uuid or line["kind"] == "session":
                continue
            if (start is None or step >= start) and (stop is None or step < stop):
                yield line

    def _session(self, number: int) -> _Session:
        self._load()
        for session in self._by_uuid.values():
            if session.number == number:
                return session
        raise KeyError(f"{self._path} holds no session {number}")

    @staticmethod
    def _columns(
        session: _Session, column: _Column, episode: str | None, start: int | None, stop: int | None
    ) -> dict[str, npt.NDArray[Any]]:
        records = np.array(column.record, dtype=np.int64)
        steps = np.array(session.columns["step"], dtype=np.int64)[records]
        keep = np.ones(len(records), dtype=bool)
        if episode is not None:
            wanted = session.episodes.get(episode, -2)
            keep &= np.array(session.episode, dtype=np.int64)[records] == wanted
        if start is not None:
            keep &= steps >= start
        if stop is not None:
            keep &= steps < stop
        records = records[keep]
        result: dict[str, npt.NDArray[Any]] = {
            name: np.array(values, dtype=np.int64)[records] for name, values in session.columns.items()
        }
        result["score"] = np.array(column.score, dtype=np.float64)[keep]
        result["status"] = np.array(column.status, dtype=np.uint8)[keep]
        result["duration_ns"] = np.array(column.duration_ns, dtype=np.int64)[keep]
        if len(session.writers) == 1:
            return result
        by_writer = np.argsort(result["writer"], kind="stable")
        return columns_by_step({name: values[by_writer] for name, values in result.items()})

    def _load(self) -> None:
        stat = self._path.stat()
        seen = (stat.st_size, stat.st_mtime_ns)
        if seen == self._seen:
            return
        self._by_uuid = {}
        for line in self._lines():
            self._take(line)
        self._seen = seen

    def _take(self, line: Mapping[str, Any]) -> None:
        session = self._by_uuid.get(line["session"])
        if session is None:
            name = line.get("session_name", line.get("name", ""))
            session = _Session(len(self._by_uuid) + 1, line["session"], name)
            self._by_uuid[line["session"]] = session
        session.writers.setdefault(line["writer"], len(session.writers))
        session.ranks.add(line.get("rank", 0))
        kind = line["kind"]
        if kind == "session":
            session.created_ns = line.get("created_ns", session.created_ns)
            session.closed_ns = line.get("closed_ns", session.closed_ns)
            session.metadata = line.get("metadata") or session.metadata
        elif kind == "snapshot":
            record = session.append(line)
            episode = line.get("episode", "0")
            session.episode.append(session.episodes.setdefault(episode, len(session.episodes)))
            session.snapshots += 1
            statuses = line.get("statuses") or {}
            durations = line.get("durations_ns") or {}
            scores = line.get("scores") or {}
            for path, score in scores.items():
                if path in statuses:
                    continue
                _column(session.paths, path).add(record, score, SCORED, durations.get(path, 0))
            for path, status in statuses.items():
                _column(session.paths, path).add(
                    record, scores.get(path), _STATUS_CODES[status], durations.get(path, 0)
                )
        elif kind == "scalars":
            record = session.append(line)
            session.episode.append(-1)
            session.scalar_records += 1
            for name, value in line["values"].items():
                status = FAILED if value is None else SCORED
                _column(session.scalars, name).add(record, value, status, 0)
            for name, outcome in (line.get("statuses") or {}).items():
                _column(session.scalars, name).add(record, None, _STATUS_CODES[outcome], 0)
        elif kind in EVENT_KINDS:
            session.events += 1

    def _lines(self, writer: str | None = None) -> Iterator[dict[str, Any]]:
        """The file's objects, or one writer's. A last line without its newline is still being written."""
        head, wanted = b'{"writer":"', b"" if writer is None else b'{"writer":"%s"' % writer.encode()
        with open(self._path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    return
                if raw.isspace() or (raw.startswith(head) and not raw.startswith(wanted)):
                    continue
                try:
                    line = json.loads(raw)
                    line["writer"], line["session"], line["kind"]
                    if line["kind"] != "session":
                        line["sequence"], line["time_ns"]
                except (ValueError, KeyError, TypeError) as error:
                    shown = raw[:80].decode(errors="replace").rstrip()
                    raise FormatError(
                        f"{self._path} line {number} is not a rubriscope record ({error}): {shown!r}"
                    ) from error
                if writer in (None, line["writer"]):
                    yield line


def _column(columns: dict[str, _Column], path: str) -> _Column:
    column = columns.get(path)
    if column is None:
        column = columns[path] = _Column()
    return column


def _event(line: Mapping[str, Any]) -> Event:
    fields = {
        name: base64.b64decode(value["base64"])
        if isinstance(value, dict) and [*value] == ["base64"]
        else value
        for name, value in line["fields"].items()
    }
    return Event(
        id=f"{line['writer']}:{line['sequence']}",
        kind=line["kind"],
        name=line["name"],
        session_id=line["session"],
        session_name=line.get("session_name", ""),
        episode_id=line.get("episode"),
        step=line.get("step", 0),
        time_ns=line["time_ns"],
        duration_ns=line["duration_ns"],
        outcome=line["outcome"],
        values=line["values"],
        fields=fields,
        attributes=line.get("attributes") or {},
        metadata=line.get("metadata") or {},
        rank=line.get("rank", 0),
        group_id=line.get("group"),
        sample_index=line.get("sample"),
        recovered=bool(line.get("recovered", False)),
    )


def _snapshot(line: Mapping[str, Any]) -> NeuralSnapshot:
    scores = {path: score for path, score in (line.get("scores") or {}).items() if score is not None}
    others = line.get("statuses") or {}
    durations = line.get("durations_ns") or {}
    # Of what was not skipped, the durations have the tree's order.
    nodes = [path for path in durations if path in scores or path in others]
    order = dict.fromkeys([*nodes, *scores, *others])
    statuses = {path: others.get(path, "scored") for path in order}
    reward = line.get("reward", scores.get(ROOT))
    return NeuralSnapshot(
        id=f"{line['writer']}:{line['sequence']}",
        session_id=line["session"],
        session_name=line.get("session_name", ""),
        episode_id=line.get("episode", "0"),
        step=line.get("step", 0),
        time_ns=line["time_ns"],
        scores=scores,
        statuses=statuses,
        durations_ns=durations,
        reward=reward,
        metadata=line.get("metadata") or {},
        action=line.get("action"),
        observation=line.get("observation"),
        explanations=line.get("explanations") or {},
        reasons=line.get("reasons") or {},
        score_metadata=line.get("score_metadata") or {},
        calls=line.get("calls") or {},
        rank=line.get("rank", 0),
        group_id=line.get("group"),
        sample_index=line.get("sample"),
        recovered=bool(line.get("recovered", False)),
        captures=line.get("captures") or {},
    )
