"""The film against recordings made by hand: SQLite and JSONL must read the same."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rubriscope as rs
from recording_fixture import SessionSpec, make_session, write_jsonl, write_sqlite
from rubriscope.compare import t_quantile
from rubriscope.errors import FormatError
from rubriscope.film import Film
from rubriscope.series import NO_GROUP, STATUS_NAMES, ScoreSeries

Write = Callable[[Path, list[SessionSpec]], Path]


@pytest.fixture(params=["db", "jsonl"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[SessionSpec]], Path]:
    kind = request.param

    def made(sessions: list[SessionSpec]) -> Path:
        path = tmp_path / f"runs.{kind}"
        return (write_sqlite if kind == "db" else write_jsonl)(path, sessions)

    return made


@pytest.fixture
def two() -> list[SessionSpec]:
    return [
        make_session(1, "sft", samples=2),
        make_session(2, "grpo", shift=0.2, samples=2, ranks=2, closed=False),
    ]


# ---- sessions ----------------------------------------------------------------------------------------------


def test_sessions(write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]) -> None:
    sft, grpo = Film(write(two)).sessions()
    assert (sft.name, sft.uuid, sft.created_ns, sft.closed_ns) == (
        "sft",
        two[0].uuid,
        two[0].created_ns,
        two[0].closed_ns,
    )
    assert sft.metadata == two[0].metadata
    assert (sft.steps, sft.episodes, sft.scalars, sft.writers, sft.ranks) == (40, 2, 20, 1, (0,))
    assert (grpo.steps, grpo.scalars, grpo.writers, grpo.ranks) == (80, 40, 2, (0, 1))
    assert grpo.closed_ns is None
    assert grpo.last_ns == max(one.time_ns for one in (*two[1].snapshots, *two[1].scalars))
    assert grpo.closed is None
    assert sft.created.timestamp() == sft.created_ns / 1e9
    assert json.loads(json.dumps(sft.to_dict()))["ranks"] == [0]


def test_newest_session_is_last(write: Callable[[list[SessionSpec]], Path]) -> None:
    film = Film(write([make_session(5, "late", 1), make_session(3, "early", 1)]))
    assert [session.name for session in film.sessions()] == ["early", "late"]


def test_session_by_name_uuid_prefix_and_number(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    grpo = film.session("grpo")
    assert grpo.uuid == two[1].uuid
    assert film.session(two[1].uuid) == grpo
    assert film.session(two[1].uuid[:8]) == grpo
    assert film.session(grpo.id) == grpo
    assert film.session(str(grpo.id)) == grpo
    assert film.session(grpo) == grpo


def test_a_name_used_again_means_the_newest(write: Callable[[list[SessionSpec]], Path]) -> None:
    film = Film(write([make_session(1, "run", 1), make_session(2, "run", 2)]))
    assert film.session("run").uuid == make_session(2, "run", 0).uuid


def test_unknown_session_names_what_exists(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    with pytest.raises(KeyError, match=r"no session 'dpo'; it holds 'sft', 'grpo'"):
        film.session("dpo")
    with pytest.raises(KeyError, match="no session 99"):
        film.session(99)


def test_session_may_be_left_out_where_there_is_one(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two[:1]))
    assert film.session() == film.sessions()[0]
    assert len(list(film.snapshots())) == 40


def test_left_out_session_is_refused_where_there_are_two(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    with pytest.raises(ValueError, match=r"2 sessions; say which: 'sft', 'grpo'"):
        film.snapshots()
    with pytest.raises(ValueError, match="say which"):
        film.scores("root")


# ---- snapshots ---------------------------------------------------------------------------------------------


def test_snapshots_are_what_was_recorded(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    for spec in two:
        assert list(film.snapshots(spec.name)) == spec.snapshots


def test_snapshots_of_a_range(write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]) -> None:
    film = Film(write(two))
    found = [snapshot.step for snapshot in film.snapshots("sft", start=3, stop=5)]
    assert found == [3, 3, 4, 4]
    assert [s.step for s in film.snapshots("sft", start=18)] == [18, 18, 19, 19]
    assert [s.step for s in film.snapshots("sft", stop=1)] == [0, 0]
    assert list(film.snapshots("sft", start=5, stop=5)) == []


def test_snapshots_of_an_episode(write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]) -> None:
    film = Film(write(two))
    assert film.episodes("sft") == ["0", "ep-1"]
    assert {s.step for s in film.snapshots("sft", episode="ep-1")} == set(range(10, 20))
    assert {s.step for s in film.snapshots("sft", episode="ep-1", stop=12)} == {10, 11}


def test_unknown_episode_is_refused_at_the_call(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    with pytest.raises(KeyError, match="no episode 'ep-9'; it has '0', 'ep-1'"):
        film.snapshots("sft", episode="ep-9")


def test_snapshots_are_streamed(write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]) -> None:
    film = Film(write(two))
    first, second = film.snapshots("sft"), film.snapshots("sft")
    assert next(first) == next(second) == two[0].snapshots[0]
    assert next(first) == two[0].snapshots[1]


# ---- columns -----------------------------------------------------------------------------------------------


def test_paths_and_scalars(write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]) -> None:
    film = Film(write(two))
    assert film.paths("sft")[0] == "root"
    assert set(film.paths("sft")) == set(two[0].paths)
    assert sorted(film.scalars("sft")) == ["kl", "loss"]


def test_scores_are_what_was_recorded(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    for spec in two:
        for path in spec.paths:
            series = film.scores(path, spec.name)
            expected = [s.scores.get(path, math.nan) for s in spec.snapshots]
            np.testing.assert_array_equal(series.score, expected)
            assert series.statuses == [s.statuses[path] for s in spec.snapshots]
            assert series.step.tolist() == [s.step for s in spec.snapshots]
            assert series.time_ns.tolist() == [s.time_ns for s in spec.snapshots]
            assert series.rank.tolist() == [s.rank for s in spec.snapshots]
            assert series.group.tolist() == [s.group_id for s in spec.snapshots]
            assert series.sample.tolist() == [s.sample_index for s in spec.snapshots]
            assert series.sequence.tolist() == [int(s.id.rsplit(":")[1]) for s in spec.snapshots]
            writers = film.writers(spec.name)
            assert [writers[w] for w in series.writer] == [s.id.rsplit(":")[0] for s in spec.snapshots]
            assert series.duration_ns.tolist() == [s.durations_ns.get(path, 0) for s in spec.snapshots]
            assert series.kind == "rubric"


def test_no_group_and_sample(write: Callable[[list[SessionSpec]], Path]) -> None:
    series = Film(write([make_session(1, "one", 3)])).scores("root")
    assert series.group.tolist() == [NO_GROUP] * 3
    assert series.sample.tolist() == [-1] * 3


def test_scores_of_a_range_and_an_episode(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    assert film.scores("root", "sft", start=2, stop=4).step.tolist() == [2, 2, 3, 3]
    assert set(film.scores("format", "sft", episode="0").step) == set(range(10))
    assert set(film.scores("loss", "sft", start=2, stop=4).step) == {2, 3}


def test_scalars_are_what_was_logged(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    for spec in two:
        for name in ("loss", "kl"):
            series = film.scores(name, spec.name)
            logged = sorted(spec.scalars, key=lambda record: record.time_ns)
            expected = [math.nan if r.values[name] is None else r.values[name] for r in logged]
            np.testing.assert_array_equal(series.score, np.array(expected, dtype=float))
            assert series.step.tolist() == [r.step for r in logged]
            assert series.kind == "scalar"


def test_unknown_path_names_what_exists(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    with pytest.raises(KeyError, match=r"no rubric or scalar 'qualty'; rubrics: root, .*; scalars: "):
        film.scores("qualty", "sft")


def test_summary_and_by_step_against_numpy(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    series = Film(write(two)).scores("quality.exact", "grpo")
    values = np.array([s.scores["quality.exact"] for s in two[1].snapshots if "quality.exact" in s.scores])
    summary = series.summary()
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(values.mean(), rel=1e-14)
    assert summary.std == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert (summary.min, summary.max) == (values.min(), values.max())
    statuses = [s.statuses["quality.exact"] for s in two[1].snapshots]
    assert summary.failed == statuses.count("failed") > 0
    assert summary.skipped == statuses.count("skipped") > 0
    called = [
        s.durations_ns["quality.exact"] for s in two[1].snapshots if s.statuses["quality.exact"] != "skipped"
    ]
    assert summary.mean_duration_ns == pytest.approx(np.mean(called))
    steps, means = series.by_step()
    for step, mean in zip(steps, means, strict=True):
        at = [
            s.scores["quality.exact"]
            for s in two[1].snapshots
            if s.step == step and "quality.exact" in s.scores
        ]
        assert mean == pytest.approx(np.mean(at), rel=1e-14)


def test_summaries_are_those_of_each_series(
    write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]
) -> None:
    film = Film(write(two))
    for spec in two:
        found = film.summaries(spec.name, bins=7)
        assert [one.path for one in found if one.kind == "rubric"] == film.paths(spec.name)
        assert [one.path for one in found if one.kind == "scalar"] == film.scalars(spec.name)
        for one in found:
            expected = film.scores(one.path, spec.name).summary(7)
            assert one.curve == pytest.approx(expected.curve, rel=1e-12)
            for name in ("mean", "std", "min", "max", "mean_duration_ns"):
                value = getattr(expected, name)
                wanted = None if value is None else pytest.approx(value, rel=1e-12)
                assert getattr(one, name) == wanted, name
            assert (one.n, one.skipped, one.failed) == (expected.n, expected.skipped, expected.failed)
        by_path = {one.path: one for one in film.summaries(spec.name, episode="ep-1")}
        expected = film.scores("quality.exact", spec.name, episode="ep-1").summary()
        assert by_path["quality.exact"].mean == pytest.approx(expected.mean)
        assert by_path["quality.exact"].failed == expected.failed
    with pytest.raises(ValueError, match="bins must be"):
        film.summaries("sft", bins=0)


def test_curve_is_the_mean_of_equal_shares_of_the_steps() -> None:
    columns = {"score": np.arange(10.0), "step": np.array([0, 0, 1, 1, 2, 3, 3, 8, 9, 9])}
    series = ScoreSeries.from_columns("x", "rubric", columns)
    assert series.summary(5).curve == (1.5, 5.0, 8.0)
    assert series.summary(100).curve == (0.5, 2.5, 4.0, 5.5, 7.0, 8.5)
    assert series.summary(1).curve == (4.5,)


def test_summary_of_nothing() -> None:
    empty = ScoreSeries.from_columns("x", "rubric", {"score": np.array([np.nan]), "status": np.array([0])})
    summary = empty.summary()
    assert (summary.n, summary.mean, summary.std, summary.min, summary.skipped) == (0, None, None, None, 1)
    assert empty.by_step()[0].tolist() == []
    assert "no score" in repr(empty)
    assert STATUS_NAMES == ("skipped", "scored", "failed")


# ---- targets -----------------------------------------------------------------------------------------------


def test_targets_by_url(tmp_path: Path, two: list[SessionSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    database = write_sqlite(tmp_path / "runs.db", two)
    lines = write_jsonl(tmp_path / "runs.out", two)
    monkeypatch.chdir(tmp_path)
    for target in (database, str(database), f"sqlite://{database}", "sqlite:runs.db", "runs.db"):
        assert len(Film(target).sessions()) == 2
    for target in (lines, f"jsonl:{lines}", f"jsonl://{lines}", "jsonl:runs.out", "runs.out"):
        assert len(Film(target).sessions()) == 2


def test_missing_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nope\.db"):
        Film(tmp_path / "nope.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IsADirectoryError):
        Film(tmp_path)


def test_targets_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        Film("console:")
    with pytest.raises(ValueError, match="known are"):
        Film("gopher://host")


def test_a_file_that_is_not_ours_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(b"something else entirely" * 100)
    before = path.read_bytes()
    with pytest.raises(FormatError, match=r"other\.db"):
        Film(path).sessions()
    assert path.read_bytes() == before


def test_a_bad_line_of_jsonl_is_named(tmp_path: Path, two: list[SessionSpec]) -> None:
    path = write_jsonl(tmp_path / "runs.jsonl", two[:1])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:5], '{"writer": 1}\n', *lines[5:]]))
    with pytest.raises(FormatError, match="line 6 is not a rubriscope record"):
        Film(path).sessions()


def test_jsonl_that_is_being_written(tmp_path: Path, two: list[SessionSpec]) -> None:
    path = write_jsonl(tmp_path / "runs.jsonl", two[:1])
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:9]) + lines[9][:20])
    film = Film(path)
    before = film.session().steps
    assert len(list(film.snapshots())) == before
    path.write_bytes(whole)
    assert film.session().steps == 40
    assert len(film.scores("root")) == 40


def test_film_closes(write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]) -> None:
    with Film(write(two)) as film:
        assert "runs." in repr(film)


# ---- what the recorder wrote -------------------------------------------------------------------------------


class Exact(rs.Rubric):
    def forward(self, action: str, observation: int) -> float:
        if action == "boom":
            raise ZeroDivisionError("division by zero")
        return rs.Score(observation / 10, "because", digits=2)


class Tag(rs.Rubric):
    def forward(self, action: str, observation: int) -> float:
        return 0.0 if action == "no tag" else 1.0


@pytest.mark.parametrize("name", ["runs.db", "runs.jsonl"])
def test_a_real_recording(tmp_path: Path, name: str) -> None:
    tree = rs.Sequential(rs.Gate(Tag(), 0.5), rs.WeightedSum([Exact(), Tag()], [0.5, 0.5]))
    with rs.record(tmp_path / name, session="real", metadata={"lr": 0.1}) as recorder:
        recorder.observe(tree)
        with recorder.episode("first"):
            recorder.annotate(note="x")
            tree("good", 4)
            tree("no tag", 4)
        with recorder.episode("second", step=7, group_id=3, sample_index=1), pytest.raises(ZeroDivisionError):
            tree("boom", 5)
        recorder.log({"loss": 0.25, "kl": math.nan}, step=7)
        recorder.flush()
        live = Film(tmp_path / name)
        assert live.session().steps == 3
    film = Film(tmp_path / name)
    assert film.session().metadata["lr"] == 0.1
    assert film.paths()[:2] == ["root", "rubric_0"]
    assert film.episodes() == ["first", "second"]
    good, gated, failed = film.snapshots()
    assert good.reward == pytest.approx(0.7)
    assert good.scores["rubric_1.rubric_0"] == 0.4
    assert good.explanations["rubric_1.rubric_0"] == "because"
    assert good.score_metadata["rubric_1.rubric_0"] == {"digits": 2}
    assert (good.action, good.observation, good.metadata) == ("good", 4, {"note": "x"})
    assert (gated.reward, gated.statuses["rubric_1.rubric_0"]) == (0.0, "skipped")
    assert "rubric_1.rubric_0" not in gated.scores
    assert failed.reward is None
    assert (failed.step, failed.group_id, failed.sample_index) == (7, 3, 1)
    assert failed.statuses["root"] == failed.statuses["rubric_1.rubric_0"] == "failed"
    assert "division by zero" in failed.reasons["rubric_1.rubric_0"]
    assert film.scores("rubric_1").statuses == ["scored", "skipped", "failed"]
    assert film.scores("rubric_1").duration_ns[0] > 0
    assert film.scores("loss").score.tolist() == [0.25]
    assert film.scores("kl").statuses == ["failed"]
    assert film.export(tmp_path / "results.json") == 4


def test_writers_of_one_session_are_replayed_in_one_order(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    recorder = rs.record(path, session="forked")
    rubric = Tag()
    recorder.observe(rubric)
    rubric("parent", 0)
    recorder.flush()
    child = os.fork()
    if child == 0:
        rubric("child", 1)
        recorder.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    rubric("parent", 2)
    recorder.close()
    film = Film(path)
    assert [s.action for s in film.snapshots()] == ["parent", "child", "parent"]
    assert film.scores("root").writer.tolist() == [0, 1, 0]
    assert film.session().writers == 2


# ---- comparison --------------------------------------------------------------------------------------------


def test_compare_against_scipy(write: Callable[[list[SessionSpec]], Path], two: list[SessionSpec]) -> None:
    stats = pytest.importorskip("scipy.stats")
    result = Film(write(two)).compare("sft", "grpo")
    assert set(result.paths) == {*two[0].paths, "loss", "kl"}
    for path in two[0].paths:
        sides = []
        for spec in two:
            by_step: dict[int, list[float]] = {}
            for s in spec.snapshots:
                if path in s.scores:
                    by_step.setdefault(s.step, []).append(s.scores[path])
            sides.append({step: float(np.mean(values)) for step, values in by_step.items()})
        steps = sorted(set(sides[0]) & set(sides[1]))
        paired = np.array([sides[1][step] - sides[0][step] for step in steps])
        found = result[path]
        assert found.pairs == len(steps)
        assert found.paired_delta == pytest.approx(paired.mean(), abs=1e-12)
        assert found.delta == pytest.approx(
            np.mean([s.scores[path] for s in two[1].snapshots if path in s.scores])
            - np.mean([s.scores[path] for s in two[0].snapshots if path in s.scores]),
            abs=1e-12,
        )
        if paired.std() > 1e-12:
            low, high = stats.t.interval(0.95, len(paired) - 1, paired.mean(), stats.sem(paired))
            assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert result["quality.exact"].verdict == "higher"
    assert result["quality.style"].verdict == "unclear"
    assert result["quality.style"].paired_delta == 0.0


def test_t_quantile_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for df in [*range(1, 40), 100, 199, 200, 201, 1000, 10**6]:
        for p in (0.6, 0.9, 0.975, 0.995):
            assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-6)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        t_quantile(0.975, 0)


def test_compare_with_paths_on_one_side_only(write: Callable[[list[SessionSpec]], Path]) -> None:
    a, b = make_session(1, "a"), make_session(2, "b")
    b.slots = b.slots[:1]
    for snapshot in b.snapshots:
        snapshot.scores = {"root": 0.5}
        snapshot.statuses = {"root": "scored"}
        snapshot.durations_ns = {"root": 1}
        snapshot.reward = 0.5
        snapshot.explanations = snapshot.reasons = snapshot.score_metadata = snapshot.calls = {}
    result = Film(write([a, b])).compare("a", "b")
    only = result["quality"]
    assert only.n_a > 0
    assert (only.n_b, only.mean_b, only.delta, only.pairs, only.paired_delta) == (0, None, None, 0, None)
    assert "–" in str(result)


def test_compare_across_films_and_its_forms(tmp_path: Path) -> None:
    a = Film(write_sqlite(tmp_path / "a.db", [make_session(1, "run", 3)]))
    b = Film(write_jsonl(tmp_path / "b.jsonl", [make_session(2, "run", 3, shift=0.1)]))
    result = a.compare("run", "run", other=b)
    assert (result.label_a, result.label_b) == ("a:run", "b:run")
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["a"]["name"] == "run"
    assert {"path", "delta", "paired_delta", "pairs", "low", "high", "verdict"} <= set(
        found["differences"][0]
    )
    assert "b:run against a:run" in str(result)
    with pytest.raises(KeyError, match="there are root"):
        result["nothing"]


def test_compare_one_pair_has_no_interval(tmp_path: Path) -> None:
    film = Film(write_sqlite(tmp_path / "a.db", [make_session(1, "a", 1), make_session(2, "b", 1)]))
    found = film.compare("a", "b")["format"]
    assert (found.pairs, found.low, found.high, found.verdict) == (1, None, None, "unclear")
