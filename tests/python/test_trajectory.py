import copy
import math
import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rubriscope.trajectory import ExponentialDiscountingTrajectoryRubric, TrajectoryRubric


class LastScore(ExponentialDiscountingTrajectoryRubric):
    def score_trajectory(self, trajectory):
        _, observation = trajectory[-1]
        return observation["score"] if isinstance(observation, dict) else observation.score


class EqualCredit(TrajectoryRubric):
    def score_trajectory(self, trajectory):
        return 0.75

    def compute_step_rewards(self):
        return [self.score_trajectory(self._trajectory)] * len(self._trajectory)


def step(done, score=0.0, mapping=False):
    return {"done": done, "score": score} if mapping else SimpleNamespace(done=done, score=score)


@pytest.mark.parametrize("mapping", [False, True], ids=["attribute", "mapping"])
def test_intermediate_reward_until_done(mapping):
    rubric = LastScore(gamma=0.5, intermediate_reward=0.1)
    rewards = [rubric("a", step(False, mapping=mapping)) for _ in range(2)]
    rewards.append(rubric("b", step(True, 0.8, mapping=mapping)))
    assert rewards == [0.1, 0.1, 0.8]
    assert rubric.compute_step_rewards() == pytest.approx([0.2, 0.4, 0.8])
    assert [action for action, _ in rubric.trajectory] == ["a", "a", "b"]


def test_an_observation_without_done_is_not_the_last():
    rubric = LastScore(intermediate_reward=0.3)
    assert rubric("a", object()) == 0.3
    assert rubric("a", {}) == 0.3


def test_reset_and_copies():
    rubric = EqualCredit()
    rubric("a", step(True))
    rubric.trajectory.clear()
    assert len(rubric.trajectory) == len(rubric._trajectory) == 1
    assert rubric.compute_step_rewards() == [0.75]
    rubric.reset()
    assert rubric.trajectory == [] and LastScore().compute_step_rewards() == []


@given(st.floats(0, 1), st.integers(1, 40), st.floats(-1, 1))
def test_discounting_is_the_recurrence(gamma, length, final):
    rubric = LastScore(gamma=gamma)
    for i in range(length):
        rubric(i, step(i == length - 1, final))
    rewards = rubric.compute_step_rewards()
    expected = [final]
    while len(expected) < length:
        expected.insert(0, expected[0] * gamma)
    assert rewards == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("missing", "body"),
    [
        ("compute_step_rewards", {"score_trajectory": lambda self, t: 0.0}),
        ("score_trajectory", {"compute_step_rewards": lambda self: []}),
    ],
)
def test_abstract_classes_cannot_be_instantiated(missing, body):
    cls = type(TrajectoryRubric)("Half", (TrajectoryRubric,), body)
    with pytest.raises(TypeError, match=rf"abstract class Half.*{missing}"):
        cls()


def test_the_bases_are_abstract():
    with pytest.raises(TypeError, match=r"compute_step_rewards.*score_trajectory"):
        TrajectoryRubric()
    with pytest.raises(TypeError, match="score_trajectory"):
        ExponentialDiscountingTrajectoryRubric()


@pytest.mark.parametrize("gamma", [-0.1, 1.1, math.nan, math.inf])
def test_gamma_is_checked(gamma):
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got"):
        LastScore(gamma=gamma)
    rubric = LastScore(gamma=0.5, intermediate_reward=0.2)
    with pytest.raises(ValueError, match="gamma"):
        rubric.load_state_dict({"gamma": gamma, "intermediate_reward": 0.9})
    assert (rubric.gamma, rubric.intermediate_reward) == (0.5, 0.2)


def test_state_dict_round_trip():
    rubric = LastScore(gamma=0.5, intermediate_reward=0.2)
    rubric("a", step(False))
    assert rubric.state_dict() == {"gamma": 0.5, "intermediate_reward": 0.2}
    other = LastScore()
    other.load_state_dict(rubric.state_dict())
    assert other.state_dict() == rubric.state_dict()
    other.load_state_dict({})
    assert other.state_dict() == rubric.state_dict()


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))], ids=["copy", "pickle"]
)
def test_copies_keep_the_trajectory_and_part_ways(twin):
    rubric = LastScore(gamma=0.5)
    rubric("a", {"done": False})
    other = twin(rubric)
    other("b", {"done": True, "score": 1.0})
    assert len(rubric.trajectory) == 1
    assert other.compute_step_rewards() == [0.5, 1.0]
