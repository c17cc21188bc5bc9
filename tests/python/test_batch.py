"""``batch()`` and ``forward_batch``: the same scores and snapshots as a loop, vectors where a rubric can."""

from __future__ import annotations

import asyncio
import math

import pytest
import rubriscope as rs
import torch
from engine_support import AsyncEcho, Echo, Mean, Value


class Vector(rs.Rubric):
    """Scores a batch at once; counts how often, and with how many pairs."""

    def __init__(self, give=list):
        super().__init__()
        self.give = give
        self.sizes = []

    def forward(self, action, observation):
        return action

    def forward_batch(self, actions, observations):
        self.sizes.append(len(actions))
        return self.give(actions)


ACTIONS = [0.0, 0.25, 0.5, 0.75, 1.0]
OBSERVATIONS = list("abcde")

TREES = {
    "leaf": Vector,
    "gate": lambda: rs.Gate(Vector(), 0.5),
    "sum": lambda: rs.WeightedSum([Vector(), Echo(), Value(1.0)], [0.5, 0.25, 0.25]),
    "sequential": lambda: rs.Sequential(Echo(), Vector(), rs.Gate(Vector(), 0.5)),
    "deep": lambda: rs.Sequential(
        rs.Gate(rs.WeightedSum([Vector(), Echo()], [0.5, 0.5]), 0.3), Mean(a=Vector(), b=Echo())
    ),
    "zero weight": lambda: rs.WeightedSum([Vector(), Value(math.nan)], [1.0, 0.0]),
    "no vectors": lambda: rs.Sequential(rs.Gate(Echo(), 0.5), Value(0.25)),
}


@pytest.mark.parametrize("name", TREES)
def test_a_batch_equals_a_loop(watch, name):
    looped, batched = TREES[name](), TREES[name]()
    loop, batch = watch(looped), watch(batched)
    expected = [looped(a, o) for a, o in zip(ACTIONS, OBSERVATIONS, strict=True)]
    scores = batched.batch(ACTIONS, OBSERVATIONS)
    assert scores.dtype == torch.float64 and scores.shape == (5,)
    assert scores.tolist() == expected
    one, many = loop.snapshots(), batch.snapshots()
    assert len(one) == len(many) == 5
    for a, b in zip(one, many, strict=True):
        assert (b.action, b.observation, b.step, b.reward) == (a.action, a.observation, a.step, a.reward)
        assert b.scores == a.scores
        assert b.statuses == a.statuses


@pytest.mark.parametrize(
    "give",
    [
        list,
        tuple,
        torch.tensor,
        lambda a: torch.tensor(a, dtype=torch.float32),
        lambda a: map(torch.tensor, a),
    ],
)
def test_what_a_forward_batch_may_give(give):
    assert Vector(give).batch(ACTIONS, OBSERVATIONS).tolist() == ACTIONS
    assert rs.Gate(Vector(give), 0.5).batch(ACTIONS, OBSERVATIONS).tolist() == [0.0, 0.0, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    "give", [lambda a: a[1:], lambda a: [*a, 1.0], lambda a: torch.zeros(5, 1), lambda a: torch.tensor(0.5)]
)
def test_a_forward_batch_of_the_wrong_length(give):
    with pytest.raises(ValueError, match=r"Vector.*5|forward_batch"):
        rs.Gate(Vector(give)).batch(ACTIONS, OBSERVATIONS)


def test_a_forward_batch_is_called_once_with_the_pairs_that_reach_it():
    vector = Vector()
    rs.Sequential(Echo(), vector).batch(ACTIONS, OBSERVATIONS)
    assert vector.sizes == [4]
    rs.Sequential(Value(0.0), vector).batch(ACTIONS, OBSERVATIONS)
    assert vector.sizes == [4]


def test_hooks_run_per_pair_in_order():
    log = []
    vector = Vector()
    tree = rs.Gate(vector, 0.5)
    vector.register_forward_pre_hook(lambda r, a, o: log.append(("pre", a, o)))
    vector.register_forward_hook(lambda r, a, o, s: log.append(("post", a, o, s)))
    tree.batch([0.25, 0.75], ["x", "y"])
    assert [entry for entry in log if entry[0] == "pre"] == [("pre", 0.25, "x"), ("pre", 0.75, "y")]
    assert [entry for entry in log if entry[0] == "post"] == [
        ("post", 0.25, "x", 0.25),
        ("post", 0.75, "y", 0.75),
    ]


def test_nan_in_a_vector(watch):
    tree = rs.Gate(Vector(lambda a: [math.nan, 1.0]), 0.5)
    watched = watch(tree)
    assert tree.batch([1, 2], [3, 4]).tolist() == [0.0, 1.0]
    first, second = watched.snapshots()
    assert first.statuses == {"root": "scored", "rubric": "failed"} and "nan" in first.reasons["rubric"]
    assert second.statuses == {"root": "scored", "rubric": "scored"}


def test_a_forward_batch_that_raises(watch):
    tree = rs.WeightedSum([Value(1.0), Vector(lambda a: 1 / 0)], [0.5, 0.5])
    watched = watch(tree)
    with pytest.raises(ZeroDivisionError):
        tree.batch([1, 2], [3, 4])
    for s in watched.snapshots():
        assert s.statuses == {"root": "failed", "rubric_0": "scored", "rubric_1": "failed"}
    assert len(watched.snapshots()) == 2


def test_a_pair_that_raises_in_a_loop_ends_the_batch(watch):
    class Third(rs.Rubric):
        def forward(self, action, observation):
            return 1 / (3 - action)

    tree = rs.Sequential(Third())
    watched = watch(tree)
    with pytest.raises(ZeroDivisionError):
        tree.batch([1, 2, 3, 4], [0] * 4)
    assert [s.statuses["root"] for s in watched.snapshots()] == ["scored", "scored", "failed"]


def test_an_async_child_beside_a_forward_batch_is_refused():
    with pytest.raises(TypeError, match="async"):
        rs.WeightedSum([Vector(), AsyncEcho()], [0.5, 0.5]).batch(ACTIONS, OBSERVATIONS)


def test_strict_in_a_batch():
    tree = rs.Sequential(Vector(lambda a: [math.nan, 1.0]))
    tree.rubric_0.strict = True
    with pytest.raises(ValueError, match="nan"):
        tree.batch([1, 2], [3, 4])


def test_nested_observed_batches(watch):
    inner = rs.Gate(Vector(), 0.5)
    outer = rs.WeightedSum([inner, Echo()], [0.5, 0.5])
    above, below = watch(outer), watch(inner)
    outer.batch([0.25, 0.75], ["x", "y"])
    assert [s.scores for s in above.snapshots()] == [
        {"root": 0.125, "rubric_0": 0.0, "rubric_0.rubric": 0.25, "rubric_1": 0.25},
        {"root": 0.75, "rubric_0": 0.75, "rubric_0.rubric": 0.75, "rubric_1": 0.75},
    ]
    assert [s.scores for s in below.snapshots()] == [
        {"root": 0.0, "rubric": 0.25},
        {"root": 0.75, "rubric": 0.75},
    ]


def test_a_forward_that_batches_its_child():
    class Outer(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.child = Vector()

        def forward(self, action, observation):
            return float(self.child.batch([action, action], [1, 2]).mean())

        def forward_batch(self, actions, observations):
            return 2 * self.child.batch(actions, observations)

    outer = Outer()
    assert outer.batch(ACTIONS, OBSERVATIONS).tolist() == [2 * a for a in ACTIONS]
    assert outer(0.5, None) == 0.5


def test_large_batches_keep_their_order(watch):
    tree = rs.Gate(Vector(), 0.0)
    watched = watch(tree, capture="none")
    actions = [i / 4096 for i in range(2000)]
    assert tree.batch(actions, actions).tolist() == actions
    assert [s.reward for s in watched.snapshots()] == actions


async def test_async_batches_at_once(watch):
    tree = rs.Sequential(AsyncEcho())
    watched = watch(tree)
    a, b = await asyncio.gather(tree.batch([0.25, 0.5], [1, 2]), tree.batch([0.75, 1.0], [3, 1]))
    assert a.tolist() == [0.25, 0.5] and b.tolist() == [0.75, 1.0]
    assert all(set(s.scores.values()) == {s.action} for s in watched.snapshots())
