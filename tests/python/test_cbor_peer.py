"""The canonical bytes of every stored record, checked against another implementation of CBOR."""

from __future__ import annotations

import math
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import cbor2
import pytest
import rubriscope as rs


class Leaf(rs.Rubric):
    """Returns, or raises, what it was given for the action."""

    def __init__(self, outcomes: dict[Any, Any]) -> None:
        super().__init__()
        self._outcomes = outcomes

    def forward(self, action: Any, observation: Any) -> Any:
        outcome = self._outcomes[action]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


ACTIONS: list[Any] = [
    "plain",
    "grüß \U0001f600",
    7,
    -7,
    2**40,
    10**30,
    0.5,
    0.1,
    -0.0,
    float("inf"),
    "x" * 70_000,
]
SCORES: list[Any] = [1.0, 0.25, 1 / 3, -4.1, 1e300, 65504.0, 5.960464477539063e-08, 0.0, 100000.0, 1, 0.1]


@pytest.fixture()
def database(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    outcomes = dict(zip(ACTIONS, SCORES, strict=True))
    outcomes["explained"] = rs.Score(0.5, explanation="why", certainty=0.9)
    outcomes["raises"] = ValueError("boom")
    outcomes["nan"] = math.nan
    tree = rs.WeightedSum([Leaf(outcomes), rs.Sequential(Leaf(outcomes), Leaf(outcomes))], [0.5, 0.5])
    with rs.record(path, session="peer", metadata={"k": 1}) as recorder:
        recorder.observe(tree)
        with recorder.episode("ep-1"):
            for action in outcomes:
                recorder.annotate(action=repr(action)[:20])
                if action == "raises":
                    with pytest.raises(ValueError, match="boom"):
                        tree(action, "seen")
                else:
                    tree(action, "seen")
        for step, loss in enumerate([0.5, math.nan, math.inf, 1e-3]):
            recorder.log({"loss": loss, "kl": float(step)}, step=step)
    return path


def blobs(path: Path) -> list[bytes]:
    with sqlite3.connect(path) as connection:
        query = "SELECT record FROM steps UNION ALL SELECT record FROM scalars"
        return [row[0] for row in connection.execute(query)]


def test_bytes_are_what_cbor2_calls_canonical(database: Path) -> None:
    found = blobs(database)
    assert len(found) == len(ACTIONS) + 3 + 4
    for blob in found:
        assert cbor2.dumps(cbor2.loads(blob), canonical=True) == blob


def test_fields_are_the_documented_ones(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        [session] = connection.execute("SELECT * FROM sessions").fetchall()
        [writer] = connection.execute("SELECT * FROM writers").fetchall()
        rows = connection.execute("SELECT * FROM steps ORDER BY step_key").fetchall()
    for row in rows:
        fields = cbor2.loads(row["record"])
        assert list(fields) == sorted(fields)
        assert fields[0] == 1
        assert fields[1] == 1
        assert uuid.UUID(bytes=fields[2]) == uuid.UUID(session["uuid"])
        assert uuid.UUID(bytes=fields[3]) == uuid.UUID(writer["writer_id"])
        assert fields[4] == row["step_key"] & (2**40 - 1)
        assert fields[6] == row["time_ns"]
        assert fields[9] == row["episode_id"] == "ep-1"
        assert fields[10] == row["step_index"]
        assert len(fields[13]) == len(fields[14]) == len(fields[15]) == 5
        assert [score is None for score in fields[13]] == [status != 1 for status in fields[14]]
        assert fields[13][0] == row["reward"]


def test_film_gives_back_the_numbers_that_went_in(database: Path) -> None:
    film = rs.Film(database)
    series = film.scores("rubric_0")
    assert series.score[: len(SCORES)].tolist() == [float(score) for score in SCORES]
    assert series.statuses[-3:] == ["scored", "failed", "failed"]
    snapshots = list(film.snapshots())
    assert [type(snapshot.action) for snapshot in snapshots[:3]] == [str, str, int]
    assert [snapshot.action for snapshot in snapshots[:10]] == ACTIONS[:10]
    assert snapshots[10].action.startswith("x" * 4000)
    assert snapshots[10].action.endswith("…")
    assert snapshots[11].explanations["rubric_0"] == "why"
    assert snapshots[11].score_metadata["rubric_0"] == {"certainty": 0.9}
    assert "boom" in snapshots[12].reasons["rubric_0"]
    assert "rubric_0" not in snapshots[13].scores
