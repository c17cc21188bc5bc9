"""Exports, read back with the standard library, pyarrow and pandas."""

from __future__ import annotations

import builtins
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_fixture import SessionSpec, make_session, write_jsonl, write_sqlite
from rubriscope.film import Film


@pytest.fixture
def spec() -> SessionSpec:
    return make_session(1, "run", samples=2, ranks=2)


@pytest.fixture(params=["db", "jsonl"])
def film(request: pytest.FixtureRequest, tmp_path: Path, spec: SessionSpec) -> Film:
    folder = tmp_path / "source"
    folder.mkdir()
    write = write_sqlite if request.param == "db" else write_jsonl
    return Film(write(folder / f"runs.{request.param}", [spec]))


def test_results_json_has_the_origins_shape(film: Film, spec: SessionSpec, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert film.export(path) == len(spec.snapshots) + len(spec.scalars)
    found = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert found["name"] == "run"
    (result,) = found["results"]
    rewards = [snapshot.reward for snapshot in spec.snapshots]
    assert result["summary"]["rewards"] == rewards
    scored = [reward for reward in rewards if reward is not None]
    assert result["summary"]["mean_reward"] == pytest.approx(np.mean(scored))
    assert result["summary"]["count"] == len(rewards)
    assert result["detailed_results"] == [{"reward": s.reward, "metrics": s.scores} for s in spec.snapshots]
    assert len(found["snapshots"]) == len(spec.snapshots)
    for frame, snapshot in zip(found["snapshots"], spec.snapshots, strict=True):
        assert frame["timestamp"] == snapshot.timestamp
        assert frame["scores"] == snapshot.scores
        assert frame["action"] == snapshot.action
        assert frame["observation"] == snapshot.observation
        assert frame["step"] == snapshot.step
        assert frame.get("metadata", {}) == snapshot.metadata
        assert frame.get("reasons", {}) == snapshot.reasons
        assert frame.get("rank", 0) == snapshot.rank
        assert frame["sample_index"] == snapshot.sample_index
    logged = sorted(spec.scalars, key=lambda record: record.time_ns)
    assert found["scalars"]["kl"]["value"] == [record.values["kl"] for record in logged]
    assert found["scalars"]["kl"]["step"] == [record.step for record in logged]


def test_an_empty_session_exports(tmp_path: Path) -> None:
    film = Film(write_sqlite(tmp_path / "runs.db", [make_session(1, "run", 0)]))
    assert film.export(tmp_path / "results.json") == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["snapshots"] == []
    assert found["results"][0]["summary"] == {"rewards": [], "mean_reward": None, "count": 0}
    for name in ("x.jsonl", "x.csv", "x.parquet"):
        assert film.export(tmp_path / name) == 0
    assert film.to_arrow().num_rows == 0


def test_jsonl_reads_back_as_the_same_film(film: Film, spec: SessionSpec, tmp_path: Path) -> None:
    path = tmp_path / "copy.jsonl"
    film.export(path)
    copy = Film(path)
    assert list(copy.snapshots()) == spec.snapshots
    session, original = copy.session(), film.session()
    assert session.metadata == original.metadata
    assert (session.uuid, session.name, session.ranks) == (original.uuid, original.name, original.ranks)
    assert (session.created_ns, session.closed_ns) == (original.created_ns, original.closed_ns)
    for name in film.scalars():
        ours, theirs = copy.scores(name), film.scores(name)
        np.testing.assert_array_equal(ours.score, theirs.score)
        np.testing.assert_array_equal(ours.sequence, theirs.sequence)
        assert [copy.writers()[w] for w in ours.writer] == [film.writers()[w] for w in theirs.writer]


def expected_cell(snapshot: Any, path: str) -> float | None:
    value: float | None = snapshot.scores.get(path)
    return value


def test_csv(film: Film, spec: SessionSpec, tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    film.export(path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    snapshots = [row for row in rows if row["kind"] == "snapshot"]
    assert len(snapshots) == len(spec.snapshots)
    for row, snapshot in zip(snapshots, spec.snapshots, strict=True):
        assert int(row["step"]) == snapshot.step
        assert row["episode"] == snapshot.episode_id
        assert row["observation"] == (snapshot.observation or "")
        for rubric in spec.paths:
            cell = row[f"score.{rubric}"]
            assert (float(cell) if cell else None) == expected_cell(snapshot, rubric)
        failed = {p for p, status in snapshot.statuses.items() if status == "failed"}
        assert set(row["failed"].split()) == failed
    scalars = [row for row in rows if row["kind"] == "scalars"]
    logged = sorted(spec.scalars, key=lambda record: record.time_ns)
    assert [float(row["scalar.loss"]) for row in scalars] == [record.values["loss"] for record in logged]
    assert [row["scalar.kl"] == "" for row in scalars] == [record.values["kl"] is None for record in logged]


def test_arrow_parquet_and_pandas(film: Film, spec: SessionSpec, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("pandas")
    table = film.to_arrow()
    assert table.num_rows == len(spec.snapshots) + len(spec.scalars)
    film.export(tmp_path / "run.parquet")
    assert parquet.read_table(tmp_path / "run.parquet").equals(table)
    frame = film.to_pandas()
    scored = frame[frame.kind == "snapshot"]
    np.testing.assert_array_equal(
        scored["score.quality"].to_numpy(float),
        [s.scores.get("quality", math.nan) for s in spec.snapshots],
    )
    assert scored["time_ns"].tolist() == [s.time_ns for s in spec.snapshots]
    assert scored["action"].tolist() == [str(s.action) for s in spec.snapshots]


@pytest.mark.parametrize(
    ("module", "call", "named"),
    [
        ("pyarrow", lambda film, path: film.to_arrow(), r"rubriscope\[arrow\]"),
        ("pyarrow", lambda film, path: film.export(path / "x.parquet"), r"rubriscope\[arrow\]"),
        ("pandas", lambda film, path: film.to_pandas(), r"rubriscope\[arrow\]"),
        ("matplotlib", lambda film, path: film.plot(path / "x.png"), r"rubriscope\[plot\]"),
    ],
)
def test_a_missing_extra_is_named(
    film: Film,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    call: Callable[[Film, Path], object],
    named: str,
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=named):
        call(film, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_unknown_suffix(film: Film, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'x.xls': the suffix must be one of .json, "):
        film.export(tmp_path / "x.xls")


def test_the_recording_itself_is_never_overwritten(tmp_path: Path, spec: SessionSpec) -> None:
    path = write_jsonl(tmp_path / "runs.jsonl", [spec])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the recording itself"):
        Film(path).export(path)
    assert path.read_bytes() == before


def test_a_failure_on_the_way_leaves_the_old_file(
    film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rubriscope.export._REPORT_EVERY", 8)
    with pytest.raises(KeyboardInterrupt):
        film.export(path, progress=stop)
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["results.json", "source"]


def test_progress_reaches_the_total(film: Film, spec: SessionSpec, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    records = film.export(tmp_path / "x.jsonl", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (records, records)


def test_plot_draws_a_picture(film: Film, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    film.plot(tmp_path / "curves.png", ["root", "quality.exact", "loss"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    film.plot(tmp_path / "curves.svg")
    assert "quality.exact" in (tmp_path / "curves.svg").read_text()


def test_plot_of_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    film = Film(write_jsonl(tmp_path / "runs.jsonl", [make_session(1, "run", 0)]))
    with pytest.raises(ValueError, match="nothing to draw"):
        film.plot(tmp_path / "x.png")


def test_moving_average_against_a_plain_loop() -> None:
    pytest.importorskip("matplotlib")
    from rubriscope.plot import moving_average

    values = np.random.default_rng(0).normal(size=50)
    for window in (1, 2, 5, 50):
        expected = [
            np.mean(values[max(i - (window - 1) // 2, 0) : i + window // 2 + 1]) for i in range(len(values))
        ]
        np.testing.assert_allclose(moving_average(values, window), expected, atol=1e-12)
