"""Random trees against a small reference, written from RFC 004 and DESIGN's list of what is better."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import rubriscope as rs
from engine_support import AsyncRaises, AsyncValue, Mean, Raises, Value, Watch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BROKEN = "raises"
SCORES = [
    0.0,
    -0.0,
    0,
    1,
    True,
    False,
    0.25,
    0.5,
    0.75,
    1.0,
    -1.0,
    2.5,
    1e-300,
    math.nan,
    math.inf,
    -math.inf,
    None,
    BROKEN,
]
THRESHOLDS = st.sampled_from([-1.0, 0.0, 0.5, 1.0])


class Broke(Exception):
    """A rubric of the model raised."""


def leaves() -> st.SearchStrategy[Any]:
    return st.tuples(st.just("leaf"), st.sampled_from(SCORES), st.booleans())


def branches(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(below, min_size=1, max_size=4)

    def weighted(children: list[Any]) -> st.SearchStrategy[Any]:
        raw = st.lists(
            st.sampled_from([0, 0, 1, 2, 5]), min_size=len(children), max_size=len(children)
        ).filter(any)
        return raw.map(lambda w: ("sum", children, [x / sum(w) for x in w]))

    return st.one_of(
        st.tuples(st.just("gate"), below, THRESHOLDS),
        st.lists(below, max_size=4).map(lambda children: ("sequential", children)),
        some.flatmap(weighted),
        some.map(lambda children: ("mean", children)),
    )


TREES = st.recursive(leaves(), branches, max_leaves=12)


def build(spec: Any, asynchronous: bool) -> rs.Rubric:
    kind, *rest = spec
    if kind == "leaf":
        score, wants_async = rest
        is_async = asynchronous and wants_async
        if score == BROKEN:
            return (AsyncRaises if is_async else Raises)()
        return (AsyncValue if is_async else Value)(score)
    if kind == "gate":
        return rs.Gate(build(rest[0], asynchronous), rest[1])
    if kind == "sequential":
        return rs.Sequential(*(build(s, asynchronous) for s in rest[0]))
    if kind == "sum":
        return rs.WeightedSum([build(s, asynchronous) for s in rest[0]], rest[1])
    return Mean(**{f"part_{i}": build(s, False) for i, s in enumerate(rest[0])})


def is_number(score: Any) -> bool:
    return isinstance(score, (int, float))


def reference(spec: Any, path: str, found: dict[str, tuple[str, Any]]) -> Any:
    """The score of a tree, and what its snapshot holds: path → (status, score)."""
    kind, *rest = spec
    names = {"gate": "rubric", "mean": "part_{}"}.get(kind, "rubric_{}")
    children = [] if kind == "leaf" else [rest[0]] if kind == "gate" else rest[0]

    def child(i: int) -> Any:
        name = names.format(i)
        return reference(children[i], f"{path}.{name}" if path else name, found)

    key = path or "root"
    try:
        if kind == "leaf":
            if rest[0] == BROKEN:
                raise Broke
            score = rest[0]
        elif kind == "gate":
            below = child(0)
            score = below if is_number(below) and math.isfinite(below) and below >= rest[1] else 0.0
        elif kind == "sequential":
            score = 1.0
            for i in range(len(children)):
                score = child(i)
                if is_number(score) and score == 0:
                    score = 0.0
                    break
        elif kind == "sum":
            score = 0.0
            for i, weight in enumerate(rest[1]):
                part = child(i)
                if weight != 0:
                    if not is_number(part):
                        raise Broke
                    score += weight * part
        else:
            scores = [child(i) for i in range(len(children))]
            if not all(map(is_number, scores)):
                raise Broke
            score = sum(scores) / len(scores)
    except Broke:
        found[key] = ("failed", None)
        raise
    good = is_number(score) and math.isfinite(score)
    found[key] = ("scored", float(score)) if good else ("failed", None)
    return score


def same(a: Any, b: Any) -> bool:
    if not (is_number(a) and is_number(b)):
        return a is b
    return (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-15)


def call(tree: rs.Rubric) -> Any:
    """(score, whether it was a coroutine, whether it raised)."""
    waited = False
    try:
        score = tree("a", "o")
        waited = inspect.iscoroutine(score)
        if waited:

            async def wait() -> Any:
                return await score

            return asyncio.run(wait()), waited, False
        return score, waited, False
    except (RuntimeError, TypeError):
        return None, waited, True


@contextlib.contextmanager
def watched(tree):
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder), tree)
        try:
            yield watch
        finally:
            watch.recorder.close()


def check(snapshot: rs.NeuralSnapshot, expected: dict[str, tuple[str, Any]]) -> None:
    for path, status in snapshot.statuses.items():
        wanted, score = expected.get(path, ("skipped", None))
        assert status == wanted, path
        if score is None:
            assert path not in snapshot.scores
        else:
            assert same(snapshot.scores[path], score), path
    assert set(expected) <= set(snapshot.statuses)
    assert set(snapshot.reasons) == {path for path, (status, _) in expected.items() if status == "failed"}
    assert snapshot.calls == {}


SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@SETTINGS
@given(TREES)
def test_a_sync_tree_equals_the_reference(spec):
    expected: dict[str, tuple[str, Any]] = {}
    try:
        wanted, raises = reference(spec, "", expected), False
    except Broke:
        wanted, raises = None, True
    tree = build(spec, asynchronous=False)
    plain, waited, raised = call(tree)
    assert not waited and raised == raises
    assert raised or same(plain, wanted)
    with watched(tree) as watch:
        again, _, raised = call(tree)
        assert raised == raises and (raised or same(again, wanted))
        check(watch.only(), expected)


@SETTINGS
@given(TREES)
def test_the_async_tree_agrees(spec):
    # Concurrent children of a sum that fail are stopped together: compared are trees in which nothing raises.
    expected: dict[str, tuple[str, Any]] = {}
    try:
        wanted = reference(spec, "", expected)
    except Broke:
        return
    tree = build(spec, asynchronous=True)
    with watched(tree) as watch:
        score, _, raised = call(tree)
        assert not raised and same(score, wanted)
        check(watch.only(), expected)


@SETTINGS
@given(TREES)
def test_an_async_tree_that_raises_says_so_and_stays_usable(spec):
    with contextlib.suppress(Broke):
        reference(spec, "", {})
        return
    tree = build(spec, asynchronous=True)
    with watched(tree) as watch:
        for _ in range(2):
            _, _, raised = call(tree)
            assert raised
        for snapshot in watch.snapshots():
            assert snapshot.reward is None and snapshot.statuses["root"] == "failed"


@settings(parent=SETTINGS, max_examples=30)
@given(TREES, st.integers(0, 5))
def test_a_batch_equals_a_loop(spec, pairs):
    expected: dict[str, tuple[str, Any]] = {}
    try:
        wanted = reference(spec, "", expected)
    except Broke:
        return
    tree = build(spec, asynchronous=False)
    if not is_number(wanted):
        if pairs:
            with pytest.raises((TypeError, ValueError)):
                tree.batch(["a"] * pairs, ["o"] * pairs)
        return
    scores = tree.batch(["a"] * pairs, ["o"] * pairs)
    assert scores.shape == (pairs,)
    assert all(same(score, wanted) for score in scores.tolist())


@settings(parent=SETTINGS, max_examples=40)
@given(st.text(max_size=200), st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.none()))
def test_any_action_and_observation_gives_valid_json(action, observation):
    import json

    tree = Value(0.5)
    with watched(tree) as watch:
        tree(action, observation)
        snapshot = watch.only()
        assert watch.observer.failures == 0
        if action.encode("utf-8", "ignore").decode() == action:
            assert snapshot.action == action
        if isinstance(observation, int):
            assert snapshot.observation == observation
        json.loads(snapshot.to_json(), parse_constant=pytest.fail)


NAMES = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters="."), min_size=1, max_size=12
)


@settings(parent=SETTINGS, max_examples=40)
@given(
    st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=6)
)
def test_any_name_of_a_child_comes_back(children):
    class Named(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.all = rs.RubricDict({name: Value(score) for name, score in children.items()})

        def forward(self, action, observation):
            return sum(child(action, observation) for child in self.all.values())

    tree = Named()
    assert {name: tree.get_rubric(f"all.{name}").value for name in children} == children
    with watched(tree) as watch:
        tree(1, 2)
        scores = watch.only().scores
        assert {name: scores[f"all.{name}"] for name in children} == children
