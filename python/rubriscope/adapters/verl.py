"""A rubric as verl's custom reward function.

In a file of yours, named by verl's ``custom_reward_function.path``:

    compute_score = rs.adapters.verl.compute_score_function(rubric, recorder="runs.db")

or this file itself, with the rubric in ``custom_reward_function.reward_kwargs``:

    reward_kwargs: {rubric: "my_rewards:build_rubric", recorder: "runs.db", session: "verl"}

verl calls ``compute_score(data_source, solution_str, ground_truth, extra_info)`` and takes a number, or a
dict with a number under ``score`` whose other entries it logs.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Mapping
from typing import Any, Literal

from rubriscope._C import Rubric
from rubriscope.adapters._scoring import Build, Pair, Scorer, resolve

__all__ = ["ScoreFunction", "compute_score", "compute_score_function"]

_logger = logging.getLogger("rubriscope")


def compute_score_function(
    rubric: Rubric | str,
    *,
    recorder: Any = None,
    session: str | None = None,
    name: str = "compute_score",
    action: Build | None = None,
    observation: Build | None = None,
    on_error: Literal["raise"] | float = "raise",
    components: bool = True,
) -> ScoreFunction:
    """The rubric as a verl reward function.

    The action is ``solution_str``; the observation is a dict of ``extra_info``'s entries, further keyword
    arguments, ``data_source`` and ``ground_truth``. With a recorder each call is a snapshot, with an integer
    ``extra_info["index"]``, the prompt's number in the data set, as group.

    Args:
        rubric: the tree to score with, or ``"module:attribute"`` of it, of its class or of a function that
            makes it.
        recorder: a recorder, a target to open one for, or ``None``.
        session: the session's name, where ``recorder`` is a target.
        name: ``__name__``.
        action: builds the action from the dict of all arguments.
        observation: builds the observation from the same dict.
        on_error: a rubric that raises, or returns no finite number: ``"raise"`` lets it through; a number is
            given to verl as the score of such a sample (verl cannot leave a sample out, and a NaN would
            reach every advantage of its group), with a warning and ``rubric/failed: 1.0``.
        components: return a dict with the score of every node below the root as ``rubric/<path>``, NaN where
            it was not reached (verl wants the same keys from every sample); otherwise a float.

    Raises:
        TypeError: ``rubric`` is no rubric.
        ValueError: ``on_error`` is no finite number, or ``session`` without a target.
    """
    return ScoreFunction(
        resolve(rubric),
        recorder=recorder,
        session=session,
        name=name,
        action=action,
        observation=observation,
        on_error=on_error,
        components=components,
    )


class ScoreFunction:
    """What ``compute_score_function`` returns. It pickles if its parts do.

    Attributes:
        failures: samples that got the number given as ``on_error``, in this process.
    """

    def __init__(
        self,
        rubric: Rubric,
        *,
        recorder: Any,
        session: str | None,
        name: str,
        action: Build | None,
        observation: Build | None,
        on_error: Literal["raise"] | float,
        components: bool,
    ) -> None:
        if on_error != "raise" and not (isinstance(on_error, (int, float)) and math.isfinite(on_error)):
            raise ValueError(f"on_error must be 'raise' or a finite number, got {on_error!r}")
        self._scorer = Scorer(rubric, recorder, session)
        self.__name__ = name
        self._action = action
        self._observation = observation
        self._on_error = on_error
        self._components = components
        self.failures = 0

    @property
    def rubric(self) -> Rubric:
        """The tree that scores."""
        return self._scorer.rubric

    @property
    def recorder(self) -> Any:
        """The recorder, or None."""
        return self._scorer.recorder

    def __call__(
        self,
        data_source: Any,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> float | dict[str, float]:
        """The score of one solution; called by verl."""
        known = {"data_source": data_source, "ground_truth": ground_truth}
        seen = {**(extra_info or {}), **kwargs, **known}
        sample = {**seen, "solution_str": solution_str}
        index = (extra_info or {}).get("index")
        pair = Pair(
            action=solution_str if self._action is None else self._action(sample),
            observation=seen if self._observation is None else self._observation(sample),
            group=index if isinstance(index, int) else None,
        )
        (outcome,) = self._scorer.score(
            [pair], components=self._components, stop_at_error=self._on_error == "raise"
        )
        score = outcome.score
        if outcome.error is not None:
            score = float(self._on_error)
            self.failures += 1
            _logger.warning(
                "%s could not score a sample (%d since the start); verl gets %s. %s: %s",
                self.__name__,
                self.failures,
                score,
                type(outcome.error).__name__,
                outcome.error,
            )
        if not self._components:
            return score
        result = {"score": score}
        for path in self._scorer.paths()[1:]:
            result[f"rubric/{path}"] = outcome.components.get(path, math.nan)
        if self._on_error != "raise":
            result["rubric/failed"] = float(outcome.error is not None)
        return result

    def close(self) -> None:
        """Stop observing the rubric; close the recorder if it was opened here."""
        self._scorer.close()


_functions: dict[tuple[Any, ...], ScoreFunction] = {}
_functions_lock = threading.Lock()


def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    rubric: Rubric | str,
    recorder: Any = None,
    session: str | None = None,
    on_error: Literal["raise"] | float = "raise",
    components: bool = True,
    **kwargs: Any,
) -> float | dict[str, float]:
    """verl's signature, with the rubric and its recording in ``reward_kwargs``.

    The function made from one set of these options is kept for the life of the process; each worker process
    that opens a target records a session of its own under the name. See ``compute_score_function``.
    """
    shown = os.fspath(recorder) if isinstance(recorder, os.PathLike) else recorder
    key = (
        rubric if isinstance(rubric, str) else id(rubric),
        shown if isinstance(shown, str) or shown is None else id(shown),
        session,
        on_error,
        components,
    )
    with _functions_lock:
        function = _functions.get(key)
        if function is None:
            function = _functions[key] = compute_score_function(
                rubric, recorder=recorder, session=session, on_error=on_error, components=components
            )
    return function(data_source, solution_str, ground_truth, extra_info, **kwargs)
