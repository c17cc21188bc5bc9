"""Rubrics for delayed rewards: they collect an episode's steps and score it at its end (RFC 004)."""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import Any

from rubriscope._C import Rubric

__all__ = ["ExponentialDiscountingTrajectoryRubric", "TrajectoryRubric"]


class TrajectoryRubric(Rubric, metaclass=ABCMeta):
    """Base for rubrics that score whole trajectories.

    A call appends ``(action, observation)`` and returns ``intermediate_reward`` until an observation says
    it is the last one; then it returns ``score_trajectory``. An observation says so by a true ``done``
    attribute, or a true ``"done"`` entry where it is a mapping.

    The steps are kept by reference until ``reset()``: an environment whose observations hold device tensors
    should move them to the CPU first. One instance follows one episode at a time; episodes that run at the
    same time need an instance each.

    Args:
        intermediate_reward: the reward of every step before the last.
    """

    _trajectory: list[tuple[Any, Any]]
    intermediate_reward: float

    def __init__(self, intermediate_reward: float = 0.0) -> None:
        super().__init__()
        self.intermediate_reward = intermediate_reward
        self._trajectory = []

    def forward(self, action: Any, observation: Any) -> float:
        """Append the step; ``intermediate_reward``, or the trajectory's score after the last step."""
        self._trajectory.append((action, observation))
        if _is_done(observation):
            return self.score_trajectory(self._trajectory)
        return self.intermediate_reward

    @abstractmethod
    def score_trajectory(self, trajectory: list[tuple[Any, Any]]) -> float:
        """The score of a complete trajectory, typically in [0, 1].

        Args:
            trajectory: the episode's ``(action, observation)`` pairs, oldest first.
        """

    @abstractmethod
    def compute_step_rewards(self) -> list[float]:
        """One reward per step of the trajectory so far: the credit assignment."""

    def reset(self) -> None:
        """Forget the trajectory; call it when the environment is reset."""
        self._trajectory = []

    @property
    def trajectory(self) -> list[tuple[Any, Any]]:
        """A copy of the steps so far."""
        return list(self._trajectory)

    def state_dict(self) -> dict[str, Any]:
        """The configuration; not the trajectory."""
        return {"intermediate_reward": self.intermediate_reward}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the configuration from ``state``; entries that are missing stay as they are."""
        if "intermediate_reward" in state:
            self.intermediate_reward = state["intermediate_reward"]


class ExponentialDiscountingTrajectoryRubric(TrajectoryRubric):
    """Spreads the final score over the steps: step ``t`` of ``T`` gets ``gamma ** (T - 1 - t)`` of it.

    ``gamma=1`` gives every step the same credit, ``gamma=0`` all of it to the last.

    Args:
        gamma: discount factor in [0, 1].
        intermediate_reward: the reward of every step before the last.

    Raises:
        ValueError: ``gamma`` is outside [0, 1] or not a number.
    """

    gamma: float

    def __init__(self, gamma: float = 0.99, intermediate_reward: float = 0.0) -> None:
        super().__init__(intermediate_reward=intermediate_reward)
        self.gamma = _checked_gamma(gamma)

    def compute_step_rewards(self) -> list[float]:
        """The discounted final score, one value per step; empty without steps."""
        if not self._trajectory:
            return []
        final_score = self.score_trajectory(self._trajectory)
        length = len(self._trajectory)
        return [final_score * self.gamma ** (length - 1 - t) for t in range(length)]

    def state_dict(self) -> dict[str, Any]:
        """The configuration, ``gamma`` included."""
        return {**super().state_dict(), "gamma": self.gamma}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As the base class; a ``gamma`` outside [0, 1] raises ``ValueError`` and changes nothing."""
        gamma = _checked_gamma(state["gamma"]) if "gamma" in state else self.gamma
        super().load_state_dict(state)
        self.gamma = gamma


def _is_done(observation: Any) -> bool:
    if isinstance(observation, Mapping):
        return bool(observation.get("done", False))
    return bool(getattr(observation, "done", False))


def _checked_gamma(gamma: float) -> float:
    if math.isnan(gamma) or not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    return gamma
