"""The order of a session with several writers: by step, then rank, each stream in its own order."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import rubriscope as rs
from engine_support import Echo
from hypothesis import given
from hypothesis import strategies as st
from rubriscope.merging import by_clock, by_step, columns_by_step

streams_of_steps = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=20), max_size=5
)


def records(streams):
    return [
        [
            SimpleNamespace(step=step, time_ns=time, rank=number % 3, writer=number, sequence=i)
            for i, (step, time) in enumerate(stream)
        ]
        for number, stream in enumerate(streams)
    ]


@given(streams_of_steps)
def test_columns_and_streams_have_one_order_and_keep_each_writers(streams):
    many = records(streams)
    flat = [record for stream in many for record in stream]
    merged = list(by_step(map(iter, many)))
    columns = {
        name: np.array([getattr(record, name) for record in flat], dtype=np.int64)
        for name in ("step", "time_ns", "rank", "writer", "sequence")
    }
    ordered = columns_by_step(columns)
    assert ordered["writer"].tolist() == [record.writer for record in merged]
    assert ordered["sequence"].tolist() == [record.sequence for record in merged]
    for number, stream in enumerate(many):
        assert [record for record in merged if record.writer == number] == stream


@given(st.lists(st.lists(st.integers(0, 20)), min_size=1, max_size=4))
def test_steps_that_only_rise_are_sorted_by_step_then_rank(streams):
    many = records([[(step, 0) for step in sorted(steps)] for steps in streams])
    merged = [(record.step, record.rank) for record in by_step(map(iter, many))]
    assert merged == sorted(merged)


def test_episodes_that_count_from_zero_go_side_by_side():
    many = records([[(s, 0) for s in (0, 1, 2, 0, 1)], [(s, 0) for s in (0, 1, 0, 1, 2)]])
    merged = [(record.step, record.rank) for record in by_step(map(iter, many))]
    assert merged == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0),  # the first episode of both
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 1),
    ]  # fmt: skip


def test_by_clock_keeps_a_stream_whose_clock_was_set_back():
    many = records([[(0, 5), (1, 2)], [(0, 4), (1, 6)]])
    assert [(r.writer, r.sequence) for r in by_clock(map(iter, many))] == [(1, 0), (0, 0), (0, 1), (1, 1)]


@pytest.fixture(params=["runs.db", "run.jsonl", "postgresql"])
def target(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return str(tmp_path / request.param)


def test_a_film_of_ranks_goes_by_step_whatever_their_clocks_say(target, monkeypatch):
    for rank in (1, 0, 2):  # one after the other: by the clock, rank 1 is first
        monkeypatch.setenv("RANK", str(rank))
        with rs.record(target, session="ranks", session_id="job-17") as recorder:
            tree = rs.Sequential(Echo())
            recorder.observe(tree)
            for step in range(3):
                recorder.step = step
                tree(float(10 * rank + step), "first")
                tree(float(10 * rank + step) + 0.5, "second")
                recorder.log({"loss": float(rank)}, step=step)
    with rs.Film(target) as film:
        (session,) = film.sessions()
        assert (session.writers, session.ranks, session.steps) == (3, (0, 1, 2), 18)
        expected = [10.0 * rank + step + half for step in range(3) for rank in range(3) for half in (0, 0.5)]
        found = list(film.snapshots())
        assert [(s.step, s.rank) for s in found[:6]] == [(0, 0), (0, 0), (0, 1), (0, 1), (0, 2), (0, 2)]
        assert [s.reward for s in found] == expected
        assert [s.reward for s in film.snapshots(start=1, stop=2)] == expected[6:12]
        series = film.scores("root")
        assert series.score.tolist() == expected
        assert series.rank.tolist() == [s.rank for s in found]
        assert film.scores("loss").score.tolist() == [0.0, 1.0, 2.0] * 3
        alone = series.of_rank(1)
        assert alone.path == "root @ rank 1" and alone.score.tolist() == [10.0, 10.5, 11.0, 11.5, 12.0, 12.5]
