"""A rubric written for openenv-core runs here by changing the import, except where it was wrong there."""

from __future__ import annotations

import asyncio
import inspect
import json
import math

import openenv_cases
import pytest
import rubriscope as rs
from engine_support import AsyncEcho, AsyncRaises, AsyncValue, Mean, Raises, Value

ANSWERS = json.loads(openenv_cases.ANSWERS.read_text())


@pytest.mark.parametrize("case", ANSWERS["trees"], ids=lambda case: str(ANSWERS["trees"].index(case)))
def test_trees_answer_as_openenv_does(case):
    found = openenv_cases.answer(rs, case["spec"])
    assert found["score"] == pytest.approx(case["score"], rel=1e-12, abs=1e-15)
    assert found["waited"] == case["waited"] == openenv_cases.is_async(case["spec"]) or not case["waited"]
    assert found["names"] == case["names"]
    assert found["children"] == case["children"]
    assert found["called"] == case["called"]
    assert {n: s is None for n, s in found["last"].items()} == {n: s is None for n, s in case["last"].items()}
    for name, score in case["last"].items():
        if score is not None:
            assert found["last"][name] == pytest.approx(score, rel=1e-12, abs=1e-15)


def test_the_cases_are_not_trivial():
    kinds = json.dumps([case["spec"] for case in ANSWERS["trees"]])
    for kind in ("gate", "sequential", "sum", "mean", "async"):
        assert kinds.count(f'"{kind}"') > 50
    assert sum(case["waited"] for case in ANSWERS["trees"]) > 30
    assert len({round(case["score"], 6) for case in ANSWERS["trees"]}) > 30
    assert sum(len(case["called"]) < len(list(case["names"])) for case in ANSWERS["trees"]) > 50


def test_judges_answer_as_openenv_does():
    assert openenv_cases.judge_answers(rs) == ANSWERS["judge"]


def test_trajectories_answer_as_openenv_does():
    assert openenv_cases.trajectory_answers(rs) == ANSWERS["trajectory"]


def test_names_that_subclasses_in_the_wild_use():
    class Client:
        async def complete(self, prompt):
            return "0.5"

    class Judge(rs.LLMJudge):
        def _render_prompt(self, action, observation):
            return "mine"

        def _parse_score(self, response):
            return 2 * float(response)

    class Won(rs.ExponentialDiscountingTrajectoryRubric):
        def score_trajectory(self, trajectory):
            return len(self._trajectory)

    judge = Judge("{action}", Client())
    assert judge._client and judge._score_pattern.search("0.5")
    assert asyncio.run(judge(1, 2)) == 1.0
    assert Won()._trajectory == []
    assert list(rs.Sequential(Value(1))._rubric_list)
    assert list(rs.WeightedSum([Value(1)], [1.0])._rubric_list)
    assert rs.WeightedSum([Value(1)], [1.0])._weights == [1.0]
    assert Value(1)._forward_hooks == [] and Value(1)._forward_pre_hooks == []


def test_trajectory_rubrics_are_abstract():
    with pytest.raises(TypeError, match=r"compute_step_rewards|score_trajectory"):
        rs.TrajectoryRubric()
    with pytest.raises(TypeError, match="score_trajectory"):
        rs.ExponentialDiscountingTrajectoryRubric()
    for gamma in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="gamma"):

            class Rubric(rs.ExponentialDiscountingTrajectoryRubric):
                def score_trajectory(self, trajectory):
                    return 1.0

            Rubric(gamma=gamma)


# ---- openenv-core's known faults. Each is checked against what its own code does, see the first lines.


def tell_apart():
    """An async tree whose every score says which call it belongs to."""
    return rs.WeightedSum(
        [rs.Gate(AsyncEcho(), 0.0), rs.Sequential(AsyncEcho(), AsyncEcho()), AsyncEcho()], [0.5, 0.25, 0.25]
    )


async def test_fault_one_async_tree_awaited_100_times_at_once(watch):
    # There, each node has one last_score, and all 100 snapshots show other calls' scores.
    tree = tell_apart()
    watched = watch(tree)
    actions = [(i + 1) / 128 for i in range(100)]
    scores = await asyncio.gather(*(tree(action, i % 7 + 1) for i, action in enumerate(actions)))
    assert scores == pytest.approx(actions)
    snapshots = watched.snapshots()
    assert len(snapshots) == 100
    assert sorted(snapshot.action for snapshot in snapshots) == actions
    for snapshot in snapshots:
        assert len(snapshot.scores) == 7
        assert list(snapshot.scores.values()) == [pytest.approx(snapshot.action)] * 7
        assert set(snapshot.statuses.values()) == {"scored"}


def test_fault_a_gates_pre_hook_fires_after_its_child():
    log = []
    gate = rs.Gate(Value(1.0))
    gate.register_forward_pre_hook(lambda *_: log.append("gate"))
    gate.rubric.register_forward_pre_hook(lambda *_: log.append("child"))
    gate(1, 2)
    assert log == ["gate", "child"]


@pytest.mark.parametrize("make", [Raises, AsyncRaises], ids=["sync", "async"])
def test_fault_a_raising_forward_leaves_no_trace(watch, make):
    error = LookupError("in the middle")
    tree = rs.Sequential(
        Value(1.0), rs.Gate(Mean(x=make(error)) if make is Raises else make(error)), Value(0.5)
    )
    watched = watch(tree)
    with pytest.raises(LookupError) as caught:
        score = tree(1, 2)
        if inspect.iscoroutine(score):
            asyncio.run(score)
    assert caught.value is error
    snapshot = watched.only()
    below = "rubric_1.rubric.x" if make is Raises else "rubric_1.rubric"
    failed = {"root", "rubric_1", "rubric_1.rubric", below}
    assert {path for path, status in snapshot.statuses.items() if status == "failed"} == failed
    assert snapshot.statuses["rubric_0"] == "scored"
    assert snapshot.statuses["rubric_2"] == "skipped"
    assert snapshot.scores == {"rubric_0": 1.0}
    assert set(snapshot.reasons) == failed
    assert all("in the middle" in reason and "LookupError" in reason for reason in snapshot.reasons.values())
    assert snapshot.reward is None


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("leaf", [Value, AsyncValue])
def test_fault_nan_passes_a_gate(score, leaf):
    for threshold in (-1.0, 0.0, 0.5, 1.0):
        given = rs.Gate(leaf(score), threshold)(1, 2)
        if inspect.iscoroutine(given):
            given = asyncio.run(given)
        assert given == 0.0


def test_fault_del_leaves_the_child_registered():
    node = Mean(x=Value(1.0), y=Value(0.5))
    del node.x
    assert dict(node.named_children()) == {"y": node.y}
    node.y = None
    assert dict(node.named_children()) == {}


async def test_fault_a_tree_of_sync_children_returns_a_coroutine_inside_a_running_loop():
    asyncio.get_running_loop()
    for tree in (
        rs.Sequential(),
        rs.Sequential(Value(0.5)),
        rs.Gate(Value(0.5), 0.1),
        rs.WeightedSum([Value(0.5)], [1.0]),
        Mean(x=Value(0.5)),
    ):
        score = tree(1, 2)
        assert isinstance(score, float)
