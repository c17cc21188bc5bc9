"""Trees that change at the worst moment: while they are scanned, walked or scored."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import threading

import pytest
import rubriscope as rs
import torch
from engine_support import Echo, Mean, Value, rows
from test_threads import run_threads


def grow_and_shrink(rubric, name="grown"):
    """Moves the list of children in memory, and ends rubrics that were in it."""
    for i in range(40):
        setattr(rubric, f"{name}_{i}", Value(0.0))
    for i in range(40):
        delattr(rubric, f"{name}_{i}")


class Meddler(rs.Rubric):
    """Changes another rubric whenever its configuration is asked for, which is when its tree is scanned."""

    def __init__(self, meddle) -> None:
        super().__init__()
        self.meddle = meddle

    def forward(self, action, observation):
        return action

    def state_dict(self):
        self.meddle()
        return {}


def test_a_tree_that_changes_while_it_is_scanned(watch):
    tree = Mean(a=Echo())
    tree.meddler = Meddler(lambda: grow_and_shrink(tree))
    for i in range(20):
        setattr(tree, f"later_{i}", Echo())
    watched = watch(tree)
    for k in range(3):
        assert tree(k, None) == k
    for s in watched.snapshots():
        assert set(s.scores.values()) == {s.action} and len(s.scores) == 23


def test_children_that_end_while_their_tree_is_scanned(watch):
    tree = Mean(a=Echo(), last=Echo())

    def end():
        for name, _ in list(tree.named_children()):
            if name != "meddler":
                delattr(tree, name)

    tree.meddler = Meddler(end)
    tree.behind = Mean(a=Mean(a=Echo(), b=Echo()))
    watched = watch(tree)
    assert tree(1.0, None) == 1.0
    # A scan after the change that was made during the first.
    assert watched.only().scores == {"root": 1.0, "meddler": 1.0}


def test_an_observer_that_detaches_while_its_tree_is_scanned(watch):
    tree = Mean(a=Echo())
    watched = watch(tree)
    tree.meddler = Meddler(watched.observer.detach)
    assert tree(0.5, None) == 0.5
    assert watched.snapshots() == [] and watched.observer.failures == 0


def test_observers_attached_while_another_scans(watch):
    tree = Mean(a=Echo())
    recorder = watch(Echo()).recorder
    inner: list[rs.RubricObserver] = []
    begun = []

    def attach():
        if not begun:  # the scan of this one must not begin another
            begun.append(True)
            inner.append(rs.RubricObserver(tree, recorder))

    tree.meddler = Meddler(attach)
    with rs.RubricObserver(tree, recorder) as outer:
        tree(0.5, None)
        assert outer.snapshots == inner[0].snapshots == 1


def test_a_configuration_that_changed_is_another_schema(tmp_path):
    class Configured(Echo):
        def __init__(self, limit):
            super().__init__()
            self.limit = limit

        def state_dict(self):
            return {"limit": self.limit}

    tree = Mean(a=Configured(1))
    with rs.record(tmp_path / "runs.db") as recorder:
        recorder.observe(tree)
        for limit in range(2, 6):  # the new rubric mostly lies where the old one lay
            tree(1.0, None)
            del tree.a
            tree.a = Configured(limit)
        tree(1.0, None)
        recorder.flush()
    definitions = [json.loads(d) for (d,) in rows(tmp_path / "runs.db", "select definition from schemas")]
    limits = {
        json.loads(slot["details"])["config"]["limit"]
        for definition in definitions
        for slot in definition["slots"]
        if "config" in json.loads(slot["details"])
    }
    assert limits == {1, 2, 3, 4, 5}


class Remover(rs.Rubric):
    """Changes its container while it is evaluated."""

    def __init__(self, given=0.5) -> None:
        super().__init__()
        self.given = given
        self.container = []

    def forward(self, action, observation):
        (container,) = self.container
        grow_and_shrink(container)
        for name, child in list(container.named_children()):
            if child is not self:
                delattr(container, name)
        return self.given


def with_remover(make, given):
    remover = Remover(given)
    container = make(remover)
    remover.container.append(container)
    return container


def test_a_container_that_is_emptied_by_its_child():
    weights = lambda remover: rs.WeightedSum([remover, Value(1.0), Value(1.0)], [0.5, 0.25, 0.25])  # noqa: E731
    assert with_remover(weights, 1.0)(0, 0) == 0.5
    assert with_remover(lambda remover: rs.Sequential(remover, Value(1.0)), 0.25)(0, 0) == 0.25
    assert with_remover(lambda remover: rs.Gate(remover, 0.1), 0.25)(0, 0) == 0.25
    with pytest.raises(TypeError, match=r"child 'rubric_0' \(Remover\) gave str"):
        with_remover(weights, "much")(0, 0)


def test_a_weighted_sum_of_tensors_that_is_emptied_by_its_child():
    tree = with_remover(
        lambda remover: rs.WeightedSum([Value(torch.ones(3)), remover, Value(1.0)], [0.5, 0.25, 0.25]),
        torch.full((3,), 2.0),
    )
    assert torch.equal(tree(0, 0), torch.ones(3))


def test_children_are_listed_while_garbage_changes_them():
    """Making a tuple may start the garbage collector, and so any finalizer."""
    tree = Mean(**{f"child_{i}": Mean(a=Echo()) for i in range(50)})

    class Garbage:
        def __init__(self):
            self.me = self

        def __del__(self):
            grow_and_shrink(tree)
            if len(list(tree.children())) > 1:
                delattr(tree, next(iter(tree.named_children()))[0])

    threshold = gc.get_threshold()
    try:
        gc.set_threshold(1)
        for listing in (
            tree.named_children,
            tree.named_rubrics,
            tree.children,
            tree.rubrics,
            tree.__getstate__,
        ):
            for _ in range(5):
                Garbage()
                listing()
    finally:
        gc.set_threshold(*threshold)


def test_natively_scored_trees_change_while_threads_call_them(watch):
    words = "the same words, over and over " * 40
    tree = rs.WeightedSum([rs.native.FuzzyMatch(), rs.native.LengthBetween(1, 4000)], [0.5, 0.5])
    watched = watch(tree)
    stop = threading.Event()

    def change():
        while not stop.is_set():
            tree.rubric_0 = rs.native.FuzzyMatch()
            tree.extra = rs.native.ExactMatch()
            del tree.extra

    changer = threading.Thread(target=change)
    changer.start()
    try:

        def work(i):
            for _ in range(100):
                assert tree(words, words) == 1.0

        run_threads(work, 4)
    finally:
        stop.set()
        changer.join()
    assert {s.reward for s in watched.snapshots()} == {1.0} and len(watched.snapshots()) == 400


def test_scans_in_many_threads(watch):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        tree = Mean(a=Echo(), b=Mean(a=Echo()))
        watched = watch(tree)

        def work(i):
            for _ in range(50):
                setattr(tree.b, f"own_{i}", Echo())
                # The list of children may change while Mean's forward() walks it.
                with rs.RubricObserver(tree, watched.recorder), contextlib.suppress(RuntimeError):
                    tree(1.0, None)
                delattr(tree.b, f"own_{i}")

        run_threads(work, 6)
    finally:
        sys.setswitchinterval(before)
    assert all(set(s.scores.values()) <= {1.0} for s in watched.snapshots())
