"""Observers: what is in a snapshot, whose it is, and what an observer's failure does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import warnings
import weakref

import numpy as np
import pytest
import rubriscope as rs
import torch
from engine_support import AsyncRaises, AsyncValue, Collect, Echo, Mean, Raises, Value, shown, three_levels

NAN = float("nan")


# ---- What a snapshot holds


def test_one_snapshot_per_call_of_the_root(watch):
    tree = three_levels()
    watched = watch(tree)
    for i in range(5):
        tree(f"action {i}", i)
    snapshots = watched.snapshots()
    assert [s.action for s in snapshots] == [f"action {i}" for i in range(5)]
    assert [s.observation for s in snapshots] == list(range(5))
    assert [s.step for s in snapshots] == list(range(5))
    assert watched.observer.snapshots == 5
    paths = ["root"]
    for i in range(3):
        paths += [
            f"rubric_{i}",
            f"rubric_{i}.rubric",
            f"rubric_{i}.rubric.rubric_0",
            f"rubric_{i}.rubric.rubric_1",
        ]
    for s in snapshots:
        assert list(s.scores) == list(s.statuses) == list(s.durations_ns) == paths
        assert s.reward == s.scores["root"] == pytest.approx(0.6)
        assert set(s.statuses.values()) == {"scored"}
        assert s.session_name == "test" and s.session_id == watched.recorder.session_id
        assert s.rank == 0 and s.metadata == {} and s.calls == {}
        assert s.recovered is False


def test_fields_that_the_issue_names(watch):
    tree = Value(0.5)
    watched = watch(tree)
    tree("a", "o")
    snapshot = watched.only()
    names = (
        "session_id step episode_id timestamp scores statuses durations_ns reward metadata action observation"
    )
    for name in [*names.split(), "rank"]:
        assert hasattr(snapshot, name)
        assert name in snapshot.to_dict()
    assert json.loads(snapshot.to_json())["scores"] == {"root": 0.5}


def test_identity_is_the_writer_and_the_sequence(watch):
    tree = Value(0.5)
    watched = watch(tree)
    for _ in range(3):
        tree(1, 2)
    assert [s.id for s in watched.snapshots()] == [f"{watched.recorder.writer_id}:{i}" for i in range(3)]


def test_time_stamps(watch):
    import time

    tree = Value(0.5)
    watched = watch(tree)
    before = time.time_ns()
    for _ in range(100):
        tree(1, 2)
    after = time.time_ns()
    times = [s.time_ns for s in watched.snapshots()]
    assert times == sorted(times)
    assert before - 2_000_000 <= times[0] and times[-1] <= after + 2_000_000


def test_durations_hold_what_was_waited_for(watch):
    import time

    class Sleeps(rs.Rubric):
        def forward(self, action, observation):
            time.sleep(action)
            return 1.0

    class AsyncSleeps(rs.Rubric):
        async def forward(self, action, observation):
            await asyncio.sleep(action)
            return 1.0

    for leaf in (Sleeps, AsyncSleeps):
        tree = rs.Sequential(Value(1.0), rs.Gate(leaf()))
        watched = watch(tree)
        score = tree(0.02, None)
        if leaf is AsyncSleeps:
            asyncio.run(_wait(score))
        took = watched.only().durations_ns
        for path in ("rubric_1.rubric", "rubric_1", "root"):
            assert 19_000_000 < took[path] < 30_000_000_000
        assert took["root"] >= took["rubric_1"] >= took["rubric_1.rubric"] - 1_000_000
        assert took["rubric_0"] < took["rubric_1"]


async def _wait(coroutine):
    return await coroutine


def test_nested_durations_are_consistent(watch):
    tree = three_levels()
    watched = watch(tree)
    for _ in range(50):
        tree(1, 2)
    for s in watched.snapshots():
        d = s.durations_ns
        assert d["root"] >= sum(d[f"rubric_{i}"] for i in range(3)) * 0.99 - 10
        assert d["rubric_0"] >= d["rubric_0.rubric"] >= d["rubric_0.rubric.rubric_0"]


# ---- Statuses


def test_skipped_nodes_have_no_score_and_never_a_stale_one(watch):
    tree = rs.Sequential(Echo(), rs.Gate(Value(0.75), 0.5), Value(0.5))
    watched = watch(tree)
    tree(1.0, None)
    tree(0.0, None)
    full, cut = watched.snapshots()
    assert full.scores == {
        "root": 0.5,
        "rubric_0": 1.0,
        "rubric_1": 0.75,
        "rubric_1.rubric": 0.75,
        "rubric_2": 0.5,
    }
    assert cut.scores == {"root": 0.0, "rubric_0": 0.0}
    assert cut.statuses == {
        "root": "scored",
        "rubric_0": "scored",
        "rubric_1": "skipped",
        "rubric_1.rubric": "skipped",
        "rubric_2": "skipped",
    }
    assert set(cut.durations_ns) == {"root", "rubric_0"}


@pytest.mark.parametrize(
    ("score", "word"),
    [(NAN, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (None, "NoneType"), ("high", "str")],
    ids=shown,
)
def test_a_score_that_is_no_finite_number_is_recorded_as_failed(watch, score, word):
    tree = rs.WeightedSum([Value(0.5), rs.Gate(Value(score))], [0.5, 0.5])
    watched = watch(tree)
    assert tree(1, 2) == 0.25
    s = watched.only()
    assert s.statuses["rubric_1.rubric"] == "failed"
    assert word in s.reasons["rubric_1.rubric"]
    assert s.scores == {"root": 0.25, "rubric_0": 0.5, "rubric_1": 0.0}
    assert "NaN" not in s.to_json() and "Infinity" not in s.to_json()


def test_a_root_that_is_nan(watch):
    tree = rs.WeightedSum([Value(NAN), Value(1.0)], [0.5, 0.5])
    watched = watch(tree)
    assert math.isnan(tree(1, 2))
    s = watched.only()
    assert s.reward is None and s.statuses["root"] == "failed"
    assert json.loads(s.to_json())["reward"] is None


def test_strict_is_recorded_as_failed_and_raises(watch):
    tree = rs.Sequential(Value(1.0), Value(NAN, strict=True), Value(1.0))
    watched = watch(tree)
    with pytest.raises(ValueError, match="strict"):
        tree(1, 2)
    s = watched.only()
    assert s.statuses == {"root": "failed", "rubric_0": "scored", "rubric_1": "failed", "rubric_2": "skipped"}
    assert "nan" in s.reasons["rubric_1"]
    assert s.calls == {}


@pytest.mark.parametrize("leaf", [Value, AsyncValue])
@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
def test_an_exception_in_a_hook_is_recorded(watch, leaf, register):
    tree = rs.Sequential(leaf(1.0), leaf(0.5), leaf(0.25))
    watched = watch(tree)
    getattr(tree.rubric_1, register)(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score = tree(1, 2)
        if not isinstance(score, float):
            asyncio.run(_wait(score))
    s = watched.only()
    assert s.statuses == {"root": "failed", "rubric_0": "scored", "rubric_1": "failed", "rubric_2": "skipped"}
    assert "ZeroDivisionError" in s.reasons["rubric_1"]
    assert s.calls == {}, "the node was called once"
    assert "rubric_1" not in s.scores


def test_a_rubric_that_catches_its_childs_failure(watch):
    class Tolerant(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.child = Raises()

        def forward(self, action, observation):
            try:
                return self.child(action, observation)
            except RuntimeError:
                return 0.125

    tree = rs.Sequential(Tolerant())
    watched = watch(tree)
    assert tree(1, 2) == 0.125
    s = watched.only()
    assert s.statuses == {"root": "scored", "rubric_0": "scored", "rubric_0.child": "failed"}
    assert set(s.reasons) == {"rubric_0.child"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError()], ids=shown)
def test_exceptions_of_every_kind_are_recorded_and_pass(watch, error):
    tree = rs.Sequential(Raises(error))
    watched = watch(tree)
    with pytest.raises(type(error)):
        tree(1, 2)
    assert type(error).__name__ in watched.only().reasons["rubric_0"]


def test_an_exception_whose_text_cannot_be_made(watch):
    class Ugly(Exception):
        def __str__(self):
            raise ValueError("no text")

    tree = rs.Sequential(Raises(Ugly()))
    watched = watch(tree)
    with pytest.raises(Ugly):
        tree(1, 2)
    assert "Ugly" in watched.only().reasons["root"]


def test_a_long_reason_is_cut(watch):
    tree = Raises(RuntimeError("ä" * 100_000))
    watched = watch(tree)
    with pytest.raises(RuntimeError):
        tree(1, 2)
    assert 100 < len(watched.only().reasons["root"]) < 5000


def test_a_node_called_more_than_once(watch):
    class Thrice(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.child = Echo()

        def forward(self, action, observation):
            return sum(self.child(i / 8, None) for i in range(3))

    tree = Thrice()
    watched = watch(tree)
    tree(1, 2)
    s = watched.only()
    assert s.calls == {"child": 3}
    assert s.scores == {"root": 0.375, "child": 0.25}, "the last score"


# ---- Explanations


def test_a_score_keeps_its_explanation_and_metadata(watch):
    tree = rs.Sequential(
        Value(rs.Score(1.0, "well formed", tokens=12)),
        rs.Gate(Value(rs.Score(0.25, "too long ☹", limit=10, nested={"a": [1, NAN]}, odd=object)), 0.5),
        Value(1.0),
    )
    watched = watch(tree)
    tree(1, 2)
    s = watched.only()
    assert s.explanations == {"rubric_0": "well formed", "rubric_1.rubric": "too long ☹"}
    assert s.score_metadata["rubric_0"] == {"tokens": 12}
    assert s.score_metadata["rubric_1.rubric"]["limit"] == 10
    assert s.score_metadata["rubric_1.rubric"]["nested"] == {"a": [1, None]}
    assert "object" in s.score_metadata["rubric_1.rubric"]["odd"]


def test_a_score_passed_up_explains_the_nodes_it_passes(watch):
    tree = rs.Sequential(rs.Gate(Value(rs.Score(0.75, "why")), 0.5))
    watched = watch(tree)
    score = tree(1, 2)
    assert score.explanation == "why"
    assert watched.only().explanations == {"root": "why", "rubric_0": "why", "rubric_0.rubric": "why"}


def test_a_score_of_an_async_rubric(watch):
    tree = rs.WeightedSum([AsyncValue(rs.Score(0.5, "judged")), Value(1.0)], [0.5, 0.5])
    watched = watch(tree)
    asyncio.run(_wait(tree(1, 2)))
    assert watched.only().explanations == {"rubric_0": "judged"}


def test_a_nan_score_keeps_its_explanation(watch):
    tree = rs.WeightedSum([Value(0.5), Value(rs.Score(NAN, "no answer"))], [1.0, 0.0])
    watched = watch(tree)
    assert tree(1, 2) == 0.5
    s = watched.only()
    assert s.statuses["rubric_1"] == "failed" and s.explanations["rubric_1"] == "no answer"


# ---- Several observers, several trees


def test_several_observers_on_one_tree(watch):
    tree = rs.Sequential(Value(0.5))
    first, second = watch(tree), watch(tree, capture="none")
    tree("a", "o")
    assert first.only().action == "a" and second.only().action is None
    assert first.only().scores == second.only().scores
    first.observer.detach()
    tree("b", "o")
    assert len(first.snapshots()) == 1 and len(second.snapshots()) == 2


def test_two_observers_of_one_recorder_on_one_tree(watch):
    tree = Value(0.5)
    watched = watch(tree)
    watched.recorder.observe(tree)
    tree("a", "o")
    assert len(watched.snapshots()) == 2


def test_one_recorder_on_many_trees(watch):
    trees = [Value(i / 4) for i in range(4)]
    watched = watch(trees[0])
    for tree in trees[1:]:
        watched.recorder.observe(tree)
    for tree in trees:
        tree(1, 2)
    assert [s.reward for s in watched.snapshots()] == [0.0, 0.25, 0.5, 0.75]


def test_nested_observed_rubrics(watch):
    inner = rs.Gate(Value(0.75), 0.5)
    outer = rs.WeightedSum([inner, Value(0.25)], [0.5, 0.5])
    above, below = watch(outer), watch(inner)
    outer("a", "o")
    assert above.only().scores == {"root": 0.5, "rubric_0": 0.75, "rubric_0.rubric": 0.75, "rubric_1": 0.25}
    assert below.only().scores == {"root": 0.75, "rubric": 0.75}
    assert below.only().action == "a"
    inner("b", "o")
    assert len(above.snapshots()) == 1 and len(below.snapshots()) == 2


def test_nested_observed_rubrics_that_fail(watch):
    inner = rs.Gate(Value(rs.Score(NAN, "why")), 0.5)
    outer = rs.Sequential(inner, Raises())
    above, below = watch(outer), watch(inner)
    outer.rubric_0.threshold = -1
    outer(1, 2)
    assert below.only().statuses == {"root": "scored", "rubric": "failed"}
    assert above.only().statuses == {
        "root": "scored",
        "rubric_0": "scored",
        "rubric_0.rubric": "failed",
        "rubric_1": "skipped",
    }
    for one in (above, below):
        path = "rubric" if one is below else "rubric_0.rubric"
        assert one.only().explanations[path] == "why" and "nan" in one.only().reasons[path]


def test_nested_observed_async(watch):
    inner = rs.Gate(AsyncValue(0.75), 0.5)
    outer = rs.WeightedSum([inner, AsyncValue(0.25)], [0.5, 0.5])
    above, below = watch(outer), watch(inner)

    async def many():
        await asyncio.gather(*(outer(i, None) for i in range(30)))

    asyncio.run(many())
    assert len(above.snapshots()) == len(below.snapshots()) == 30
    for s in above.snapshots():
        assert s.scores == {"root": 0.5, "rubric_0": 0.75, "rubric_0.rubric": 0.75, "rubric_1": 0.25}
    for s in below.snapshots():
        assert s.scores == {"root": 0.75, "rubric": 0.75}


def test_a_shared_child_is_listed_under_every_path(watch):
    shared = Echo()
    tree = Mean(a=shared, b=rs.Gate(shared, 0.0))
    watched = watch(tree)
    tree(0.5, None)
    s = watched.only()
    assert s.scores == {"root": 0.5, "a": 0.5, "b": 0.5, "b.rubric": 0.5}
    assert s.calls == {"a": 2, "b.rubric": 2}


def test_a_node_in_two_observed_trees(watch):
    shared = Echo()
    first, second = rs.Sequential(shared), rs.Gate(shared, 0.0)
    one, two = watch(first), watch(second)
    first(0.25, None)
    second(0.75, None)
    assert one.only().scores == {"root": 0.25, "rubric_0": 0.25}
    assert two.only().scores == {"root": 0.75, "rubric": 0.75}


def test_a_child_called_root(watch):
    tree = Mean(root=Value(0.25), other=Value(0.75))
    watched = watch(tree)
    tree(1, 2)
    s = watched.only()
    assert s.reward == s.scores["root"] == 0.5
    assert len(s.scores) == 3 and 0.25 in s.scores.values()


def test_paths_with_unicode(watch):
    tree = Mean(größe=Value(0.25), 日本=Value(0.75))
    watched = watch(tree)
    tree(1, 2)
    assert watched.only().scores == {"root": 0.5, "größe": 0.25, "日本": 0.75}


def test_a_large_tree(watch):
    tree = rs.WeightedSum([Value(i / 4096) for i in range(2048)], [1 / 2048] * 2048)
    watched = watch(tree)
    tree(1, 2)
    assert watched.only().scores["rubric_2047"] == 2047 / 4096


# ---- Trees that change


def test_a_tree_that_changes_between_calls(watch):
    tree = Mean(a=Value(0.25), b=rs.Gate(Value(0.75), 0.5))
    watched = watch(tree)
    tree(1, 2)
    tree.c = Value(1.0)
    tree(1, 2)
    del tree.a
    tree(1, 2)
    tree.b.extra = Value(0)
    tree(1, 2)
    tree.b = Value(0.5)
    tree(1, 2)
    found = [s.statuses for s in watched.snapshots()]
    assert [list(statuses) for statuses in found] == [
        ["root", "a", "b", "b.rubric"],
        ["root", "a", "b", "b.rubric", "c"],
        ["root", "b", "b.rubric", "c"],
        ["root", "b", "b.rubric", "b.extra", "c"],
        ["root", "b", "c"],
    ]
    assert watched.last().scores == {"root": 0.75, "b": 0.5, "c": 1.0}


def test_a_tree_that_changes_during_a_call(watch):
    class Grows(rs.Rubric):
        def forward(self, action, observation):
            observation.late = Value(0.5)
            return observation.late(action, observation) * 2

    tree = rs.Sequential(Grows())
    watched = watch(tree)
    assert tree(1, tree) == 1.0
    assert tree(1, tree) == 1.0
    first, second = watched.snapshots()
    assert first.scores == {"root": 1.0, "rubric_0": 1.0}
    assert second.statuses["late"] in ("scored", "skipped")
    assert {"root": 1.0, "rubric_0": 1.0}.items() <= second.scores.items()


def test_a_leaf_whose_class_changes(watch):
    class Other(Value):
        pass

    tree = rs.Sequential(Value(0.5))
    watched = watch(tree)
    tree(1, 2)
    tree.rubric_0.__class__ = Other
    tree(1, 2)
    assert [s.scores for s in watched.snapshots()] == [{"root": 0.5, "rubric_0": 0.5}] * 2


def test_an_observed_part_that_moves_to_another_tree(watch):
    part = Echo()
    old, new = Mean(x=part, y=Value(0)), Mean(z=part)
    one, two = watch(old), watch(new)
    del old.x
    old(0.25, None)
    new(0.75, None)
    assert one.only().scores == {"root": 0.0, "y": 0.0}
    assert two.only().scores == {"root": 0.75, "z": 0.75}


# ---- Calls from outside


def test_calls_outside_of_the_root_are_counted(watch):
    tree = rs.Sequential(Value(1.0), rs.Gate(Value(0.5), 0.1))
    watched = watch(tree)
    tree.rubric_0(1, 2)
    tree.rubric_1(1, 2)  # two nodes
    with contextlib.suppress(RuntimeError):
        Raises()(1, 2)
    assert watched.snapshots() == []
    assert watched.recorder.stats().unattributed == 3
    tree(1, 2)
    assert watched.recorder.stats().unattributed == 3
    watched.observer.detach()
    tree.rubric_0(1, 2)
    assert watched.recorder.stats().unattributed == 3


def test_detach(watch):
    tree = Value(0.5)
    watched = watch(tree)
    tree(1, 2)
    assert watched.observer.rubric is tree
    watched.observer.detach()
    watched.observer.detach()
    assert watched.observer.rubric is None
    tree(1, 2)
    assert len(watched.snapshots()) == 1


def test_detach_inside_a_call(watch):
    class Detaches(rs.Rubric):
        def forward(self, action, observation):
            observation.detach()
            return 0.5

    tree = Detaches()
    watched = watch(tree, capture="none")
    assert tree(1, watched.observer) == 0.5
    assert tree(1, watched.observer) == 0.5
    assert len(watched.snapshots()) <= 1


def test_attach_inside_a_call(watch):
    class Attaches(rs.Rubric):
        def forward(self, action, observation):
            watched.recorder.observe(tree)
            return 0.5

    tree = rs.Sequential(Attaches())
    watched = watch(tree)
    tree(1, 2)
    assert 1 <= len(watched.snapshots()) <= 2


def test_observer_as_context_manager_over_sinks(tmp_path):
    sink = Collect()
    tree = Value(0.5)
    with rs.RubricObserver(tree, [sink], session_id="mine") as observer:
        tree(1, 2)
        assert isinstance(observer.recorder, rs.Recorder)
        assert observer.flush() == 1
    assert [s.session_name for s in sink.snapshots] == ["mine"]
    assert observer.recorder.closed
    tree(1, 2)
    assert len(sink.snapshots) == 1


def test_observer_over_a_path_and_a_recorder(tmp_path):
    tree = Value(0.5)
    with rs.RubricObserver(tree, tmp_path / "runs.db") as observer:
        tree(1, 2)
    assert observer.recorder.stats().durable == 1
    with rs.record(tmp_path / "runs.db", session="two") as recorder:
        with rs.RubricObserver(tree, recorder) as observer:
            tree(1, 2)
        assert not recorder.closed
        assert recorder.stats().durable == 1
        with pytest.raises(ValueError, match="other"):
            rs.RubricObserver(tree, recorder, session_id="other")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"rubric": lambda a, o: 1}, TypeError),
        ({"capture": "everything"}, ValueError),
        ({"capture": 3}, TypeError),
        ({"on_error": "ignore"}, ValueError),
    ],
    ids=shown,
)
def test_observer_arguments_are_checked(watch, arguments, error):
    watched = watch(Value(1))
    with pytest.raises(error):
        rs.RubricObserver(**{"rubric": Value(0.5), "recorder_or_sinks": watched.recorder, **arguments})


def test_an_observed_tree_is_collected(watch):
    tree = rs.Sequential(Value(0.5))
    watched = watch(tree)
    tree(1, 2)
    gone = weakref.ref(tree)
    watched.observer.detach()
    del tree
    gc.collect()
    assert gone() is None


def test_copies_of_an_observed_tree_are_not_observed(watch):
    import copy
    import pickle

    import engine_slots_module as module

    tree = module.Slotted(2, module.Leaf(0.5))
    watched = watch(tree)
    for twin in (copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):
        twin(1, 2)
    assert watched.snapshots() == []
    assert watched.recorder.stats().unattributed == 0


# ---- Captures


class Unreadable:
    """Like a tensor on a device: looking at its contents costs."""

    shape = (2, 3)
    dtype = "float16"
    device = "cuda:0"

    def __repr__(self):
        raise AssertionError("its contents were read")

    __str__ = __len__ = __iter__ = __float__ = __bool__ = __array__ = __getitem__ = __repr__


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("text", "text"),
        ("", ""),
        ("naïve ☃ 😀", "naïve ☃ 😀"),
        (7, 7),
        (2**80, 2**80),
        (-1, -1),
        (0.25, 0.25),
        (None, "None"),
        (True, True),
        ([1, "a"], "[1, 'a']"),
        ({"k": 1}, "{'k': 1}"),
        (b"x", "b'x'"),
    ],
    ids=shown,
)
def test_capture_text(watch, value, kept):
    tree = Value(0.5)
    watched = watch(tree)
    tree(value, value)
    s = watched.only()
    if isinstance(value, bool):
        assert s.action in (True, "True")
    else:
        assert s.action == s.observation == kept
        assert type(s.action) is type(kept)


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf], ids=shown)
def test_capture_of_a_number_that_is_not_finite(watch, value):
    tree = Value(0.5)
    watched = watch(tree)
    tree(value, 1)
    s = watched.only()
    assert s.action == value or s.action != s.action or s.action == str(value)
    json.loads(s.to_json(), parse_constant=lambda name: pytest.fail(f"bare {name}"))


def test_capture_leaves_tensors_unread(watch):
    tree = Value(0.5)
    watched = watch(tree)
    tree(Unreadable(), Unreadable())
    tree(torch.zeros(2, 3, dtype=torch.bfloat16), np.zeros((4, 5), dtype=np.int16))
    first, second = watched.snapshots()
    assert "(2, 3)" in first.action and "float16" in first.action and "cuda:0" in first.action
    assert "(2, 3)" in second.action and "bfloat16" in second.action and "cpu" in second.action
    assert "(4, 5)" in second.observation and "int16" in second.observation


def test_a_meta_tensor_is_captured(watch):
    tree = Value(0.5)
    watched = watch(tree)
    tree(torch.empty(10**6, 10**6, device="meta"), 1)
    assert "meta" in watched.only().action


@pytest.mark.parametrize(
    "text", ["x" * 4097, "x" * 1_000_000, "é" * 4000, "😀" * 2000, ["y" * 5000]], ids=lambda t: str(len(t))
)
def test_a_long_capture_is_cut_at_4_kib_and_marked(watch, text):
    tree = Value(0.5)
    watched = watch(tree)
    tree(text, 1)
    kept = watched.only().action
    whole = text if isinstance(text, str) else repr(text)
    assert kept != whole
    common = (
        next(i for i, (a, b) in enumerate(zip(kept, whole + "\0", strict=False)) if a != b)
        if kept[: len(whole)] != whole[: len(kept)]
        else len(kept)
    )
    assert 4096 - 3 <= len(whole[:common].encode()) <= 4096
    assert len(kept.encode()) < 4096 + 64
    assert len(kept) > common, "the cut is marked"


def test_a_capture_of_exactly_4_kib_is_kept(watch):
    tree = Value(0.5)
    watched = watch(tree)
    tree("x" * 4096, "é" * 2048)
    s = watched.only()
    assert s.action == "x" * 4096 and s.observation == "é" * 2048


def test_lone_surrogates(watch):
    tree = Value(0.5)
    watched = watch(tree)
    tree("a\ud800b", 1)
    assert "a" in watched.only().action


def test_capture_none(watch):
    tree = Value(0.5)
    watched = watch(tree, capture="none")
    tree(Unreadable(), "text")
    s = watched.only()
    assert s.action is None and s.observation is None
    assert watched.recorder.stats().capture_ns == 0


def test_capture_callable(watch):
    tree = Value(0.5)
    watched = watch(tree, capture=lambda value: value["text"] if isinstance(value, dict) else None)
    tree({"text": "kept", "rest": Unreadable()}, 3)
    tree({"text": 7}, {"text": 0.5})
    first, second = watched.snapshots()
    assert (first.action, first.observation) == ("kept", None)
    assert (second.action, second.observation) == (7, 0.5)


def test_capture_costs_are_shown(watch):
    import time

    class Slow:
        def __repr__(self):
            time.sleep(0.005)
            return "slow"

    tree = Value(0.5)
    watched = watch(tree)
    tree(Slow(), "o")
    assert watched.recorder.stats().capture_ns > 4_000_000


# ---- Failures of the observer


class Bad:
    def __repr__(self):
        raise LookupError("no repr")


def test_on_error_contain(watch, capfd):
    tree = Value(0.5)
    watched = watch(tree)
    for _ in range(3):
        assert tree(Bad(), 1) == 0.5
    assert tree("good", 1) == 0.5
    assert watched.observer.failures == 3
    assert [s.action for s in watched.snapshots()] == ["good"]
    assert watched.recorder.stats().accepted == 1


def test_on_error_raise(watch):
    tree = Value(0.5)
    watched = watch(tree, on_error="raise")
    with pytest.raises(LookupError, match="no repr"):
        tree(Bad(), 1)
    assert watched.observer.failures == 1
    assert tree("good", 1) == 0.5
    assert [s.action for s in watched.snapshots()] == ["good"]


def test_on_error_raise_async(watch):
    tree = AsyncValue(0.5)
    watched = watch(tree, on_error="raise")
    with pytest.raises(LookupError, match="no repr"):
        asyncio.run(_wait(tree(Bad(), 1)))
    assert asyncio.run(_wait(tree("good", 1))) == 0.5
    assert len(watched.snapshots()) == 1


@pytest.mark.parametrize("leaf", [Raises, AsyncRaises])
def test_the_calls_own_exception_is_the_one_to_see(watch, leaf):
    tree = leaf(KeyError("mine"))
    watched = watch(tree, on_error="raise")
    with pytest.raises(KeyError, match="mine"):
        score = tree(Bad(), 1)
        asyncio.run(_wait(score))
    assert watched.observer.failures == 1


@pytest.mark.parametrize("on_error", ["contain", "raise"])
def test_one_observers_failure_does_not_cost_another_its_snapshot(watch, on_error):
    tree = Value(0.5)
    bad = watch(tree, on_error=on_error, capture=lambda value: 1 / 0)
    good = watch(tree)
    with pytest.raises(ZeroDivisionError) if on_error == "raise" else contextlib.nullcontext():
        tree(1, 2)
    assert len(good.snapshots()) == 1
    assert bad.observer.failures == 1


def test_an_observer_of_a_closed_recorder(watch):
    tree = Value(0.5)
    watched = watch(tree)
    other = rs.RubricObserver(tree, watched.recorder)
    watched.recorder.close()
    assert tree(1, 2) == 0.5
    assert watched.recorder.stats().accepted == 0
    assert watched.recorder.stats().dropped + other.failures >= 1, "never a silence"


# ---- Annotations and positions


def test_annotate_before_and_inside_a_call(watch):
    class Annotates(rs.Rubric):
        def forward(self, action, observation):
            watched.recorder.annotate(inside=action, both=2)
            return 0.5

    tree = rs.Sequential(Annotates())
    watched = watch(tree)
    watched.recorder.annotate(before=1, both=1)
    tree("a", "o")
    tree("b", "o")
    first, second = watched.snapshots()
    assert first.metadata == {"before": 1, "both": 2, "inside": "a"}
    assert second.metadata == {"inside": "b", "both": 2}


def test_annotate_keeps_json_and_the_repr_of_the_rest(watch):
    tree = Value(0.5)
    watched = watch(tree)
    watched.recorder.annotate(
        a=None,
        b=True,
        c=[1, {"x": 2.5}],
        d=NAN,
        e=torch.tensor(2.5),
        f=np.float64(1.5),
        g={1: 2},
        h=object(),
        i=1 + 2j,
    )
    tree(1, 2)
    metadata = watched.only().metadata
    assert metadata["a"] is None and metadata["b"] is True and metadata["c"] == [1, {"x": 2.5}]
    assert (
        metadata["d"] is None and metadata["e"] == 2.5 and metadata["f"] == 1.5 and metadata["g"] == {"1": 2}
    )
    assert metadata["h"].startswith("<object") and metadata["i"] == "(1+2j)"
    json.loads(watched.only().to_json())


def test_annotate_in_tasks_stays_in_its_task(watch):
    class Annotates(rs.Rubric):
        async def forward(self, action, observation):
            await asyncio.sleep(0)
            watched.recorder.annotate(inside=action)
            await asyncio.sleep(0)
            return 0.5

    tree = rs.Sequential(Annotates())
    watched = watch(tree)

    async def one(i):
        watched.recorder.annotate(before=i)
        await asyncio.sleep(0)
        await tree(i, None)

    async def many():
        await asyncio.gather(*(one(i) for i in range(50)))

    asyncio.run(many())
    for s in watched.snapshots():
        assert s.metadata == {"before": s.action, "inside": s.action}


def test_annotate_of_another_recorder_inside_a_nested_call(watch):
    class Annotates(rs.Rubric):
        def forward(self, action, observation):
            above.recorder.annotate(seen=1)
            return 0.5

    inner = rs.Gate(Annotates(), 0.1)
    outer = rs.Sequential(inner)
    above, below = watch(outer), watch(inner)
    outer(1, 2)
    assert above.only().metadata == {"seen": 1}
    assert below.only().metadata == {}


def test_steps_count_from_zero(watch):
    tree = Value(0.5)
    watched = watch(tree)
    for _ in range(4):
        tree(1, 2)
    assert [(s.episode_id, s.step) for s in watched.snapshots()] == [("0", i) for i in range(4)]


def test_setting_the_step(watch):
    tree = Value(0.5)
    watched = watch(tree)
    recorder = watched.recorder
    assert recorder.step is None
    recorder.step = 12
    assert recorder.step == 12
    tree(1, 2)
    tree(1, 2)
    recorder.step = np.int64(13)
    tree(1, 2)
    recorder.step = None
    tree(1, 2)
    tree(1, 2)
    steps = [s.step for s in watched.snapshots()]
    assert steps[:3] == [12, 12, 13]
    assert steps[4] == steps[3] + 1


def test_episodes(watch):
    tree = Value(0.5)
    watched = watch(tree)
    recorder = watched.recorder
    tree(1, 2)
    with recorder.episode("ep-7") as episode:
        assert episode.name == recorder.episode_id == "ep-7"
        tree(1, 2)
        tree(1, 2)
        with recorder.episode("inner", step=40, group_id=3, sample_index=1):
            tree(1, 2)
            tree(1, 2)
        tree(1, 2)
    tree(1, 2)
    assert [(s.episode_id, s.step, s.group_id, s.sample_index) for s in watched.snapshots()] == [
        ("0", 0, None, None),
        ("ep-7", 0, None, None),
        ("ep-7", 1, None, None),
        ("inner", 40, 3, 1),
        ("inner", 40, 3, 1),
        ("ep-7", 2, None, None),
        ("0", 1, None, None),
    ]


def test_episodes_are_numbered_from_zero(watch):
    tree = Value(0.5)
    watched = watch(tree)
    for _ in range(3):
        with watched.recorder.episode():
            tree(1, 2)
    assert [s.episode_id for s in watched.snapshots()] == ["0", "1", "2"]


def test_an_episode_ends_with_its_exception(watch):
    tree = Value(0.5)
    watched = watch(tree)
    with contextlib.suppress(LookupError), watched.recorder.episode("broken"):
        raise LookupError
    tree(1, 2)
    assert watched.only().episode_id == "0"


def test_defaults_of_the_recorder(watch):
    tree = Value(0.5)
    watched = watch(tree)
    recorder = watched.recorder
    recorder.episode_id = "other"
    recorder.group_id = 5
    recorder.sample_index = 2
    tree(1, 2)
    with recorder.episode("own", sample_index=9):
        tree(1, 2)
    recorder.group_id = recorder.sample_index = None
    tree(1, 2)
    assert [(s.episode_id, s.group_id, s.sample_index) for s in watched.snapshots()] == [
        ("other", 5, 2),
        ("own", 5, 9),
        ("other", None, None),
    ]


def test_the_recorders_step_inside_an_episode(watch):
    tree = Value(0.5)
    watched = watch(tree)
    with watched.recorder.episode("a"):
        watched.recorder.step = 7
        tree(1, 2)
    with watched.recorder.episode("b", step=1):
        tree(1, 2)
    assert [(s.episode_id, s.step) for s in watched.snapshots()] == [("a", 7), ("b", 1)]


def test_episodes_are_local_to_a_task(watch):
    tree = AsyncValue(0.5)
    watched = watch(tree)

    async def one(i):
        with watched.recorder.episode(f"ep-{i}", group_id=i):
            for _ in range(3):
                await tree(i, None)
                await asyncio.sleep(0)

    async def many():
        await asyncio.gather(*(one(i) for i in range(30)))

    asyncio.run(many())
    seen: dict[str, list[int]] = {}
    for s in watched.snapshots():
        assert s.episode_id == f"ep-{s.action}" and s.group_id == s.action
        seen.setdefault(s.episode_id, []).append(s.step)
    assert len(seen) == 30 and all(steps == [0, 1, 2] for steps in seen.values())


def test_an_episode_outlives_its_with_in_a_task_that_began_inside(watch):
    tree = AsyncValue(0.5)
    watched = watch(tree)

    async def many():
        with watched.recorder.episode("kept"):
            task = asyncio.create_task(tree(1, 2))
        await task

    asyncio.run(many())
    assert watched.only().episode_id == "kept"


def test_a_step_that_is_no_number(watch):
    watched = watch(Value(1))
    with pytest.raises((TypeError, ValueError)):
        watched.recorder.step = "twelve"
    with pytest.raises(TypeError), watched.recorder.episode("x", step="one"):
        pass


def test_an_empty_and_a_long_episode_name(watch):
    tree = Value(0.5)
    watched = watch(tree)
    for name in ("", "ü" * 3000):
        with watched.recorder.episode(name):
            tree(1, 2)
    assert [s.episode_id for s in watched.snapshots()] == ["", "ü" * 3000]


def test_batches_make_a_snapshot_per_pair(watch):
    tree = rs.Sequential(rs.Gate(Echo(), 0.5), Value(0.25))
    watched = watch(tree)
    tree.batch([0.25, 0.5, 1.0], ["x", "y", "z"])
    assert [(s.observation, s.reward, s.step) for s in watched.snapshots()] == [
        ("x", 0.0, 0),
        ("y", 0.25, 1),
        ("z", 0.25, 2),
    ]


def test_nothing_is_said_when_all_is_well(watch, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = three_levels()
        watched = watch(tree)
        tree("a", "o")
        watched.recorder.close()
    out, err = capfd.readouterr()
    assert out == err == ""
