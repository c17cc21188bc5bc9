"""Scoring pairs that each have a place of their own in the recording: as a batch where the rubric can."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ._C import Rubric
from ._details import is_async_callable

if TYPE_CHECKING:
    from .recorder import Recorder


class Place(NamedTuple):
    """Where a snapshot stands; None: what the recorder says."""

    episode: str
    step: int | None = None
    group: int | None = None
    sample: int | None = None


class Attempt(NamedTuple):
    """What came of scoring pairs in order."""

    scores: list[float]  #: NaN where there is none
    errors: dict[int, Exception]  #: by the pair's number


def score(
    rubric: Rubric,
    recorder: Recorder | None,
    actions: Sequence[Any],
    observations: Sequence[Any],
    places: Sequence[Place],
    *,
    stop_at_error: bool,
) -> Attempt:
    """Scores pairs, each snapshot at its place; ``rubric`` has one observer of ``recorder``.

    A rubric that is scored pair by pair fails for one pair; a ``forward_batch`` that raises fails for all
    of them. Errors are given back: the first one (``stop_at_error``, and no pair after it is begun), or all.
    Without a recorder it is not known which pair failed: the first is named, and ``stop_at_error`` is needed.
    """
    if is_async(rubric):
        return _score_async(rubric, recorder, actions, observations, places)
    scores: list[float] = []
    errors: dict[int, Exception] = {}
    while len(scores) < len(actions):
        done = len(scores)
        with _places(recorder, places[done:]) as taken:
            try:
                scores += rubric.batch(list(actions[done:]), list(observations[done:])).tolist()
            except Exception as error:
                together = has_forward_batch(rubric)
                begun = len(actions) - done if together else max(taken(), 1)
                errors |= dict.fromkeys(range(done if together else done + begun - 1, done + begun), error)
                scores += [math.nan] * (len(actions) - done if stop_at_error else begun)
    return Attempt(scores, errors)


def is_async(rubric: Rubric) -> bool:
    """Whether calling it gives a coroutine."""
    nodes = [rubric, *(node for _, node in rubric.named_rubrics())]
    return any(is_async_callable(node.forward) for node in nodes)


def has_forward_batch(rubric: Rubric) -> bool:
    """Whether some node of the tree scores whole batches at once."""
    nodes = [rubric, *(node for _, node in rubric.named_rubrics())]
    return any(hasattr(type(node), "forward_batch") for node in nodes)


@contextlib.contextmanager
def _places(recorder: Recorder | None, places: Sequence[Place]) -> Iterator[Any]:
    """Enters the places; yields what says how many are taken."""
    if recorder is None:
        yield lambda: 0
        return
    native = recorder._native
    token = native.enter_positions(places)
    try:
        yield native.positions_taken
    finally:
        native.leave_position(token)


def _score_async(
    rubric: Rubric,
    recorder: Recorder | None,
    actions: Sequence[Any],
    observations: Sequence[Any],
    places: Sequence[Place],
) -> Attempt:
    from .adapters._scoring import run_async

    async def one(action: Any, observation: Any, place: Place) -> float:
        # The snapshot is made when the call ends: in the context of this task.
        with _places(recorder, [place]):
            return float(await rubric(action, observation))

    async def gather() -> list[Any]:
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(one(*pair), context=contextvars.copy_context())
            for pair in zip(actions, observations, places, strict=True)
        ]
        return await asyncio.gather(*tasks, return_exceptions=True)

    scores: list[float] = []
    errors: dict[int, Exception] = {}
    for number, result in enumerate(run_async(gather())):
        if isinstance(result, Exception):
            errors[number] = result
        elif isinstance(result, BaseException):
            raise result
        scores.append(math.nan if number in errors else result)
    return Attempt(scores, errors)
