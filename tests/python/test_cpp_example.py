"""The C++ example builds against the installed package, trains, and Python reads what it recorded."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import rubriscope as rs
import torch.utils

ROOT = Path(__file__).resolve().parents[2]
STEPS = 300


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run of the example recorded."""
    if shutil.which("cmake") is None or shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no cmake or no C++ compiler on this machine")
    # Kept between runs: torch/torch.h alone takes a quarter of a minute to compile.
    build = ROOT / "build/example"
    prefixes = ";".join((rs.cmake_prefix_path, torch.utils.cmake_prefix_path))
    for command in (
        ["cmake", "-S", str(ROOT / "examples/cpp"), "-B", str(build), f"-DCMAKE_PREFIX_PATH={prefixes}"],
        ["cmake", "--build", str(build)],
    ):
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    path = tmp_path_factory.mktemp("cpp") / "runs.db"
    run = subprocess.run([build / "train_circle", path, str(STEPS)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{2 * STEPS} records durable" in run.stdout
    return path


def test_film_reads_it(database: Path) -> None:
    film = rs.Film(database)
    (session,) = film.sessions()
    assert session.name == "circle"
    assert film.paths(session) == [
        "root",
        "rubric_0",
        "rubric_1",
        "rubric_1.rubric_0",
        "rubric_1.rubric_0.rubric",
        "rubric_1.rubric_1",
        "rubric_1.rubric_2",
    ]
    snapshots = list(film.snapshots())
    assert [snapshot.step for snapshot in snapshots] == list(range(STEPS))
    last = snapshots[-1]
    scores = last.scores
    assert last.reward == scores["root"] == scores["rubric_1"] > 0.9
    # The containers' arithmetic, done again here from the leaves.
    accuracy = scores["rubric_1.rubric_0.rubric"]
    assert scores["rubric_1"] == pytest.approx(0.8 * accuracy + 0.2 * scores["rubric_1.rubric_1"])
    assert 0 < scores["rubric_1.rubric_2"] <= 1
    losses = film.scores("loss").score
    assert len(losses) == STEPS and losses[-20:].mean() < 0.5 * losses[:20].mean()
    assert not list(database.parent.glob("*.rubriscope/*")), "a clean close leaves no journal"


def test_captures_describe_tensors_as_python_does(database: Path) -> None:
    snapshot = next(iter(rs.Film(database).snapshots()))
    assert snapshot.action == "tensor(shape=(256, 2), dtype=torch.float32, device=cpu)"
    assert snapshot.observation == "tensor(shape=(256,), dtype=torch.int64, device=cpu)"


def test_any_sqlite_tool_reads_it(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "select count(*), count(distinct step_index), min(score) from trajectory "
            "where rubric_path = 'root'"
        ).fetchall()
    assert rows[0][:2] == (STEPS, STEPS)
    assert rows[0][2] >= 0
