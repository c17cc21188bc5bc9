"""A rubric as a reward function of TRL's GRPOTrainer (and RLOOTrainer, and others with its signature).

    trainer = GRPOTrainer(reward_funcs=rs.adapters.trl.reward_function(rubric, recorder="runs.db"), …)

TRL calls ``reward(prompts=…, completions=…, completion_ids=…, trainer_state=…, log_extra=…, log_metric=…,
**columns)`` and wants one float per completion, or ``None`` for a sample the function does not judge.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rubriscope._C import Rubric
from rubriscope.adapters._scoring import Build, Pair, Scorer

__all__ = ["RewardFunction", "reward_function"]

_logger = logging.getLogger("rubriscope")


def reward_function(
    rubric: Rubric,
    *,
    recorder: Any = None,
    session: str | None = None,
    name: str | None = None,
    action: Build | None = None,
    observation: Build | None = None,
    num_generations: int | None = None,
    on_error: Literal["raise", "none"] = "raise",
    log_components: bool = True,
) -> RewardFunction:
    """The rubric as a TRL reward function.

    Each completion is scored by ``rubric(action, observation)``. The action is its text: of a chat, the text
    of the last assistant message. The observation is a dict of ``prompt`` and the sample's columns. An
    asynchronous rubric scores the whole batch at once, on an event loop in a thread of its own.

    With a recorder every completion is a snapshot at step ``trainer_state.global_step``, with the number of
    its prompt in the step as group and its place among the prompt's completions as sample. Do not observe the
    rubric with the same recorder a second time.

    Args:
        rubric: the tree to score with.
        recorder: a recorder, a target to open one for (``"runs.db"``), or ``None``.
        session: the session's name, where ``recorder`` is a target.
        name: ``__name__``, under which TRL logs the reward; the rubric's class by default.
        action: builds the action from a sample's dict: ``prompt``, ``completion`` and ``completion_ids`` as
            TRL gave them, and the columns.
        observation: builds the observation from the same dict.
        num_generations: completions per prompt, for groups; by default equal prompts in a row are a group.
        on_error: a rubric that raises, or returns no finite number: ``"raise"`` lets it through; ``"none"``
            gives TRL ``None`` for the sample, logs a warning and counts it in ``failures``. TRL ignores a
            ``None`` beside other reward functions, but counts it as 0 where no other judged the sample.
        log_components: give the mean score of every node below the root to TRL's ``log_metric``, where TRL
            has it, as ``<name>/<path>``, over the samples in which the node was reached.

    Raises:
        TypeError: ``rubric`` is no rubric.
        ValueError: ``on_error`` or ``num_generations`` is out of range, or ``session`` without a target.
    """
    return RewardFunction(
        rubric,
        recorder=recorder,
        session=session,
        name=name,
        action=action,
        observation=observation,
        num_generations=num_generations,
        on_error=on_error,
        log_components=log_components,
    )


class RewardFunction:
    """What ``reward_function`` returns. It pickles if its parts do, and works in spawned and forked workers.

    Attributes:
        failures: samples that got ``None`` because their scoring failed, in this process.
    """

    def __init__(
        self,
        rubric: Rubric,
        *,
        recorder: Any,
        session: str | None,
        name: str | None,
        action: Build | None,
        observation: Build | None,
        num_generations: int | None,
        on_error: Literal["raise", "none"],
        log_components: bool,
    ) -> None:
        if on_error not in ("raise", "none"):
            raise ValueError(f"on_error must be 'raise' or 'none', got {on_error!r}")
        if num_generations is not None and num_generations < 1:
            raise ValueError(f"num_generations must be at least 1, got {num_generations}")
        self._scorer = Scorer(rubric, recorder, session)
        self.__name__ = name if name is not None else type(rubric).__name__
        self._action = action
        self._observation = observation
        self._num_generations = num_generations
        self._on_error = on_error
        self._log_components = log_components
        self._step: int | None = None
        self._groups_in_step = 0
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
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Any] | None = None,
        trainer_state: Any = None,
        log_extra: Any = None,
        log_metric: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion, in order; called by TRL.

        Raises:
            ValueError: prompts, completions or a column differ in length; a chat has no assistant message.
        """
        samples = _samples(prompts, completions, completion_ids, columns)
        step = getattr(trainer_state, "global_step", None)
        labels = self._labels(prompts, step)
        pairs = [
            Pair(
                action=_text(sample["completion"]) if self._action is None else self._action(sample),
                observation=_visible(sample) if self._observation is None else self._observation(sample),
                step=step,
                group=group,
                sample=index,
            )
            for sample, (group, index) in zip(samples, labels, strict=True)
        ]
        components = self._log_components and log_metric is not None
        outcomes = self._scorer.score(pairs, components=components, stop_at_error=self._on_error == "raise")
        if components:
            self._log(log_metric, [outcome.components for outcome in outcomes])
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            self.failures += len(errors)
            _logger.warning(
                "%s could not score %d of %d samples (%d since the start); TRL gets None. First: %s: %s",
                self.__name__,
                len(errors),
                len(outcomes),
                self.failures,
                type(errors[0]).__name__,
                errors[0],
            )
        if log_metric is not None and self._on_error == "none":
            log_metric(f"{self.__name__}/failed", len(errors) / max(1, len(outcomes)))
        return [None if outcome.error is not None else outcome.score for outcome in outcomes]

    def close(self) -> None:
        """Stop observing the rubric; close the recorder if it was opened here."""
        self._scorer.close()

    def _labels(self, prompts: Sequence[Any], step: int | None) -> list[tuple[int, int]]:
        """(group, sample) of each completion. TRL may call several times in a step: groups count on."""
        if step is None or step != self._step:
            self._step, self._groups_in_step = step, 0
        labels: list[tuple[int, int]] = []
        group, sample = self._groups_in_step - 1, 0
        for index, prompt in enumerate(prompts):
            if self._num_generations is not None:
                starts = index % self._num_generations == 0
            else:
                starts = index == 0 or prompt != prompts[index - 1]
            group, sample = (group + 1, 0) if starts else (group, sample + 1)
            labels.append((group, sample))
        self._groups_in_step = group + 1
        return labels

    def _log(self, log_metric: Any, components: list[dict[str, float]]) -> None:
        for path in self._scorer.paths()[1:]:
            scores = [scored[path] for scored in components if math.isfinite(scored.get(path, math.nan))]
            if scores:
                log_metric(f"{self.__name__}/{path}", math.fsum(scores) / len(scores))


def _samples(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Any] | None,
    columns: Mapping[str, Any],
) -> list[dict[str, Any]]:
    count = len(completions)
    per_sample: dict[str, Any] = {
        **columns,
        "prompt": prompts,
        "completion": completions,
        "completion_ids": completion_ids,
    }
    for name, values in per_sample.items():
        if isinstance(values, (list, tuple)) and len(values) != count:
            raise ValueError(f"{name} has {len(values)} values for {count} completions")
    return [
        {
            name: values[index] if isinstance(values, (list, tuple)) else values
            for name, values in per_sample.items()
        }
        for index in range(count)
    ]


def _visible(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if name not in ("completion", "completion_ids")}


def _text(completion: Any) -> str:
    """The text of a completion: itself, or what the last assistant message of a chat says."""
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message.get("role", "assistant") == "assistant":
            content = message.get("content")
            if content is None:  # a message that only calls tools
                return ""
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content)
    raise ValueError(f"a completion has no assistant message: roles {[m.get('role') for m in completion]}")
