"""Recordings made by hand from docs/formats.md, with the standard library and cbor2 alone.

An oracle for everything that reads: what a test expects is known before the product's own code has seen it.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
from rubriscope.snapshot import NeuralSnapshot

EPOCH_NS = 1_700_000_000_000_000_000


@dataclass
class Scalars:
    writer: str
    sequence: int
    rank: int
    step: int
    time_ns: int
    values: dict[str, float | None]


@dataclass
class SessionSpec:
    uuid: str
    name: str
    created_ns: int
    closed_ns: int | None
    metadata: dict[str, Any]
    slots: list[dict[str, Any]]  # {"class": ..., "paths": [...]}
    snapshots: list[NeuralSnapshot] = field(default_factory=list)
    scalars: list[Scalars] = field(default_factory=list)
    writers: dict[str, int] = field(default_factory=dict)  # writer id -> rank

    @property
    def paths(self) -> list[str]:
        return [path for slot in self.slots for path in slot["paths"]]

    def episodes(self) -> list[str]:
        return list(dict.fromkeys(snapshot.episode_id for snapshot in self.snapshots))


#: A tree with a shared child: `style` hangs under the root and under `quality`.
SLOTS = [
    {"class": "Sequential", "paths": ["root"]},
    {"class": "Gate", "paths": ["format"]},
    {"class": "Tag", "paths": ["format.tag"]},
    {"class": "WeightedSum", "paths": ["quality"]},
    {"class": "Exact", "paths": ["quality.exact"]},
    {"class": "Style", "paths": ["quality.style", "style"]},
]


def uuid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def make_session(
    number: int,
    name: str,
    steps: int = 20,
    *,
    shift: float = 0.0,
    samples: int = 1,
    ranks: int = 1,
    closed: bool = True,
) -> SessionSpec:
    """A session whose root rises with the step; one node in seven fails, one in eleven is skipped."""
    rng = random.Random(number)
    created = EPOCH_NS + number * 3_600_000_000_000
    spec = SessionSpec(
        uuid=uuid(number),
        name=name,
        created_ns=created,
        closed_ns=None,
        metadata={"seed": number, "machine": {"host": "test", "cpus": 2}},
        slots=SLOTS,
        writers={uuid(1000 * number + rank): rank for rank in range(ranks)},
    )
    sequences = dict.fromkeys(spec.writers, 0)
    count = 0
    for step in range(steps):
        for writer, rank in spec.writers.items():
            for sample in range(samples):
                now = created + 1_000_000 * (count + 1)
                place = (writer, sequences[writer], rank, step, sample, samples, now)
                spec.snapshots.append(_snapshot(spec, rng, *place, shift, count))
                sequences[writer] += 1
                count += 1
            now = created + 1_000_000 * count + 1000
            spec.scalars.append(
                Scalars(
                    writer,
                    sequences[writer],
                    rank,
                    step,
                    now,
                    {"loss": 1.0 / (step + 1) + shift, "kl": None if step == 3 else 0.01 * step},
                )
            )
            sequences[writer] += 1
    spec.closed_ns = created + 1_000_000 * (count + 1) if closed else None
    return spec


def _snapshot(
    spec: SessionSpec,
    rng: random.Random,
    writer: str,
    sequence: int,
    rank: int,
    step: int,
    sample: int,
    samples: int,
    now: int,
    shift: float,
    count: int,
) -> NeuralSnapshot:
    exact = round(min(1.0, step / 20 + shift + rng.uniform(0, 0.1)), 6)
    values: dict[str, float | None] = {
        "root": round(0.5 * exact + 0.25, 6),
        "format": 1.0,
        "format.tag": 1,
        "quality": round(exact * 0.75, 6),
        "quality.exact": exact,
        "quality.style": 0.1,
        "style": 0.1,
    }
    statuses = dict.fromkeys(values, "scored")
    reasons: dict[str, str] = {}
    if count % 7 == 5:
        for path in ("root", "quality", "quality.exact"):
            statuses[path] = "failed"
        reasons["quality.exact"] = "ZeroDivisionError: division by zero"
        for path in ("quality.style", "style"):
            statuses[path] = "skipped"
    elif count % 11 == 9:
        for path in ("quality", "quality.exact", "quality.style", "style"):
            statuses[path] = "skipped"
        values["root"] = 0.0
    scores = {path: float(value) for path, value in values.items() if statuses[path] == "scored"}
    durations = {path: 1000 + 10 * i for i, path in enumerate(values) if statuses[path] != "skipped"}
    if "style" in durations:
        durations["style"] = durations["quality.style"]
    return NeuralSnapshot(
        id=f"{writer}:{sequence}",
        session_id=spec.uuid,
        session_name=spec.name,
        episode_id="0" if step < 10 else "ep-1",
        step=step,
        time_ns=now,
        scores=scores,
        statuses=statuses,
        durations_ns=durations,
        reward=scores.get("root"),
        metadata={"lr": 0.1, "tag": "ä"} if count % 3 == 0 else {},
        action=[f"the answer is {step}", step, step / 3][count % 3],
        observation=None if count % 5 == 4 else f"image {count}\nsecond line",
        explanations={"format.tag": "has both tags"} if statuses["format.tag"] == "scored" else {},
        reasons=reasons,
        score_metadata={"format.tag": {"span": [0, 4]}} if count % 4 == 0 else {},
        calls={"format.tag": 2} if count % 6 == 0 else {},
        rank=rank,
        group_id=step if samples > 1 else None,
        sample_index=sample if samples > 1 else None,
    )


# ---- SQLite ------------------------------------------------------------------------------------------------

_SCHEMA = """
PRAGMA application_id = 0x52534350;
PRAGMA user_version = 3;
CREATE TABLE sessions(session_id INTEGER PRIMARY KEY, uuid TEXT UNIQUE, name TEXT, created_at TEXT,
  created_ns INTEGER, closed_ns INTEGER, metadata TEXT);
CREATE TABLE writers(writer_key INTEGER PRIMARY KEY, session_id INTEGER, writer_id TEXT UNIQUE, rank INTEGER,
  world_size INTEGER, host TEXT, pid INTEGER, started_ns INTEGER, closed_ns INTEGER);
CREATE TABLE schemas(schema_key INTEGER PRIMARY KEY, session_id INTEGER, kind TEXT, definition TEXT,
  UNIQUE(session_id, definition));
CREATE TABLE rubrics(schema_key INTEGER, rubric_path TEXT, slot INTEGER, jp TEXT, class_name TEXT,
  PRIMARY KEY(schema_key, rubric_path));
CREATE TABLE episodes(session_id INTEGER, episode_id TEXT, started_ns INTEGER,
  PRIMARY KEY(session_id, episode_id));
CREATE TABLE steps(step_key INTEGER PRIMARY KEY, session_id INTEGER, episode_id TEXT, step_index INTEGER,
  time_ns INTEGER, reward REAL, action, observation, metadata TEXT, group_id INTEGER, sample_index INTEGER,
  schema_key INTEGER, scores TEXT, statuses TEXT, record BLOB);
CREATE TABLE extents(first_key INTEGER PRIMARY KEY, last_key INTEGER, session_id INTEGER, steps INTEGER,
  scalars INTEGER, events INTEGER, first_ns INTEGER, last_ns INTEGER, episode_id TEXT, first_step INTEGER,
  last_step INTEGER);
CREATE TABLE scalars(scalar_key INTEGER PRIMARY KEY, session_id INTEGER, step_index INTEGER, time_ns INTEGER,
  schema_key INTEGER, "values" TEXT, record BLOB);
"""

_LETTER = {"scored": "s", "skipped": "k", "failed": "f"}
_BYTE = {"skipped": 0, "scored": 1, "failed": 2}


def _form(value: Any) -> int:
    return 1 if isinstance(value, int) else 2 if isinstance(value, float) else 0


def _uuid_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


def snapshot_cbor(spec: SessionSpec, snapshot: NeuralSnapshot, schema_id: int = 0) -> bytes:
    """The canonical record of a snapshot, by cbor2."""
    writer, sequence = snapshot.id.rsplit(":", 1)
    first = [slot["paths"][0] for slot in spec.slots]
    slot_of = {path: index for index, slot in enumerate(spec.slots) for path in slot["paths"]}

    def by_slot(values: dict[str, Any]) -> dict[int, Any]:
        return {slot_of[path]: value for path, value in values.items()}

    forms = [_form(snapshot.action), _form(snapshot.observation)]
    record: dict[int, Any] = {
        0: 1,
        1: 1,
        2: _uuid_bytes(spec.uuid),
        3: _uuid_bytes(writer),
        4: int(sequence),
        5: schema_id,
        6: snapshot.time_ns,
        7: snapshot.time_ns - EPOCH_NS,
        8: 1,
        9: snapshot.episode_id,
        10: snapshot.step,
        11: snapshot.group_id,
        12: snapshot.sample_index,
        13: [snapshot.scores.get(path) for path in first],
        14: bytes(_BYTE[snapshot.statuses[path]] for path in first),
        15: [snapshot.durations_ns.get(path, 0) for path in first],
        16: snapshot.action,
        17: snapshot.observation,
        18: forms if any(forms) else None,
        19: by_slot(snapshot.explanations) or None,
        20: by_slot(snapshot.reasons) or None,
        21: json.dumps(snapshot.metadata) if snapshot.metadata else None,
        22: {slot: json.dumps(value) for slot, value in by_slot(snapshot.score_metadata).items()} or None,
        23: by_slot(snapshot.calls) or None,
    }
    return cbor2.dumps({key: value for key, value in record.items() if value is not None}, canonical=True)


def write_sqlite(path: Path, sessions: list[SessionSpec]) -> Path:
    """A database as docs/formats.md describes it."""
    connection = sqlite3.connect(path)
    connection.executescript(_SCHEMA)
    writer_key = schema_key = 0
    for session_id, spec in enumerate(sessions, start=1):
        connection.execute(
            "INSERT INTO sessions VALUES (?,?,?,?,?,?,?)",
            (session_id, spec.uuid, spec.name, "2023-11-14T22:13:20Z", spec.created_ns, spec.closed_ns,
             json.dumps(spec.metadata)),
        )  # fmt: skip
        keys = {}
        for writer, rank in spec.writers.items():
            writer_key += 1
            keys[writer] = writer_key
            mine = [one for one in spec.snapshots if one.id.startswith(writer)]
            logged = [one for one in spec.scalars if one.writer == writer]
            connection.execute(
                "INSERT INTO writers VALUES (?,?,?,?,?,?,?,?,?)",
                (writer_key, session_id, writer, rank, len(spec.writers), "test", 100 + rank, spec.created_ns,
                 spec.closed_ns),
            )  # fmt: skip
            _write_extents(connection, session_id, writer_key, mine, logged)
        schema_key += 1
        tree_key = schema_key
        definition = json.dumps({"kind": "tree", "slots": spec.slots}, separators=(",", ":"))
        connection.execute("INSERT INTO schemas VALUES (?,?,?,?)", (tree_key, session_id, "tree", definition))
        for slot, entry in enumerate(spec.slots):
            for rubric_path in entry["paths"]:
                connection.execute(
                    "INSERT INTO rubrics VALUES (?,?,?,?,?)",
                    (tree_key, rubric_path, slot, f"$[{slot}]", entry["class"]),
                )
        for episode in spec.episodes():
            started = next(s.time_ns for s in spec.snapshots if s.episode_id == episode)
            connection.execute("INSERT INTO episodes VALUES (?,?,?)", (session_id, episode, started))
        first = [entry["paths"][0] for entry in spec.slots]
        for s in spec.snapshots:
            writer, sequence = s.id.rsplit(":", 1)
            statuses = "".join(_LETTER[s.statuses[path]] for path in first)
            connection.execute(
                "INSERT INTO steps VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (keys[writer] << 40 | int(sequence), session_id, s.episode_id, s.step, s.time_ns, s.reward,
                 s.action, s.observation, json.dumps(s.metadata) if s.metadata else None, s.group_id,
                 s.sample_index, tree_key, json.dumps([s.scores.get(path) for path in first]),
                 None if set(statuses) == {"s"} else statuses, snapshot_cbor(spec, s)),
            )  # fmt: skip
        names = list(spec.scalars[0].values) if spec.scalars else []
        if names:
            schema_key += 1
            slots = [{"class": "", "paths": [name]} for name in names]
            definition = json.dumps({"kind": "scalars", "slots": slots}, separators=(",", ":"))
            connection.execute(
                "INSERT INTO schemas VALUES (?,?,?,?)", (schema_key, session_id, "scalars", definition)
            )
            for slot, name in enumerate(names):
                connection.execute(
                    "INSERT INTO rubrics VALUES (?,?,?,?,?)", (schema_key, name, slot, f"$[{slot}]", "")
                )
        for scalar in spec.scalars:
            values = list(scalar.values.values())
            record = {
                0: 1, 1: 2, 2: _uuid_bytes(spec.uuid), 3: _uuid_bytes(scalar.writer), 4: scalar.sequence,
                5: 1, 6: scalar.time_ns, 7: scalar.time_ns - EPOCH_NS, 8: 1, 10: scalar.step, 13: values,
                14: bytes(2 if value is None else 1 for value in values),
            }  # fmt: skip
            connection.execute(
                "INSERT INTO scalars VALUES (?,?,?,?,?,?,?)",
                (keys[scalar.writer] << 40 | scalar.sequence, session_id, scalar.step, scalar.time_ns,
                 schema_key, json.dumps(values), cbor2.dumps(record, canonical=True)),
            )  # fmt: skip
    connection.commit()
    connection.close()
    return path


def _write_extents(
    connection: sqlite3.Connection,
    session_id: int,
    writer_key: int,
    snapshots: list[NeuralSnapshot],
    logged: list[Scalars],
) -> None:
    """One extent a run of eight records, with the episode where it is the same for all its snapshots."""
    keyed: list[tuple[int, NeuralSnapshot | Scalars]] = [
        *((int(one.id.rsplit(":", 1)[1]), one) for one in snapshots),
        *((one.sequence, one) for one in logged),
    ]
    keyed.sort(key=lambda entry: entry[0])
    for start in range(0, len(keyed), 8):
        run = keyed[start : start + 8]
        keys = [writer_key << 40 | sequence for sequence, _ in run]
        times = [one.time_ns for _, one in run]
        mine = [one for _, one in run if isinstance(one, NeuralSnapshot)]
        episodes = {one.episode_id for one in mine}
        episode = episodes.pop() if len(episodes) == 1 else None
        steps = [one.step for one in mine]
        connection.execute(
            "INSERT INTO extents VALUES (?,?,?,?,?,0,?,?,?,?,?)",
            (keys[0], keys[-1], session_id, len(mine), len(run) - len(mine), min(times), max(times),
             episode, min(steps, default=None), max(steps, default=None)),
        )  # fmt: skip


# ---- JSONL -------------------------------------------------------------------------------------------------


def write_jsonl(path: Path, sessions: list[SessionSpec]) -> Path:
    """A JSONL file as docs/formats.md describes it."""
    with open(path, "w", encoding="utf-8") as out:
        for spec in sessions:
            for writer, rank in spec.writers.items():
                head = {"writer": writer, "kind": "session", "session": spec.uuid, "session_name": spec.name,
                        "rank": rank, "created_ns": spec.created_ns, "metadata": spec.metadata}  # fmt: skip
                if spec.closed_ns is not None:
                    head["closed_ns"] = spec.closed_ns
                out.write(json.dumps(head) + "\n")
            merged: list[tuple[int, dict[str, Any]]] = []
            for s in spec.snapshots:
                writer, sequence = s.id.rsplit(":", 1)
                line = {
                    "writer": writer, "sequence": int(sequence), "kind": "snapshot", "session": spec.uuid,
                    "session_name": spec.name, "rank": s.rank, "episode": s.episode_id, "step": s.step,
                    "group": s.group_id, "sample": s.sample_index, "time_ns": s.time_ns, "reward": s.reward,
                    "scores": s.scores,
                    "statuses": {p: status for p, status in s.statuses.items() if status != "scored"} or None,
                    "durations_ns": s.durations_ns, "action": s.action, "observation": s.observation,
                    "explanations": s.explanations or None, "reasons": s.reasons or None,
                    "score_metadata": s.score_metadata or None, "calls": s.calls or None,
                    "metadata": s.metadata or None,
                }  # fmt: skip
                merged.append((s.time_ns, {key: value for key, value in line.items() if value is not None}))
            for scalar in spec.scalars:
                line = {"writer": scalar.writer, "sequence": scalar.sequence, "kind": "scalars",
                        "session": spec.uuid, "session_name": spec.name, "rank": scalar.rank,
                        "step": scalar.step, "time_ns": scalar.time_ns,
                        "values": {n: v for n, v in scalar.values.items() if v is not None},
                        "statuses": {n: "failed" for n, v in scalar.values.items() if v is None}}  # fmt: skip
                merged.append((scalar.time_ns, line))
            for _, line in sorted(merged, key=lambda entry: entry[0]):
                out.write(json.dumps(line) + "\n")
    return path


def finite(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
