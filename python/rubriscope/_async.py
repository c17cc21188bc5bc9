"""Asynchronous calls of rubrics: what the C++ engine hands over once something has to be awaited.

The engine calls these; each returns the coroutine that finishes a call or a container's algorithm.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from . import _tensors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import CoroutineType as Coroutine

    from ._C import Rubric


async def _run_hooks(hooks: Iterable[Callable[..., Any]], *arguments: Any) -> None:
    for hook in hooks:
        result = hook(*arguments)
        if inspect.isawaitable(result):
            await result


def close(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Closes a coroutine that nobody will await, and those it would have awaited: they would warn."""
    frame = coroutine.cr_frame
    if frame is not None and frame.f_globals is globals() and frame.f_lasti <= 0:
        for value in frame.f_locals.values():
            for below in value if isinstance(value, list) else [value]:
                if inspect.iscoroutine(below):
                    close(below)
    coroutine.close()


async def run(call: Any) -> Any:
    """Makes a whole call: pre-hooks, forward, record, forward hooks. Nothing of it has run yet."""
    return await _finish(call, None)


async def drive(call: Any, awaitable: Awaitable[Any]) -> Any:
    """Finishes a call whose pre-hooks have run and whose forward gave an awaitable."""
    return await _finish(call, awaitable)


async def _finish(call: Any, awaitable: Awaitable[Any] | None) -> Any:
    token = call.enter()
    recorded = failed = False
    try:
        if awaitable is None:
            call.start()
            await _run_hooks(call.pre_hooks(), call.rubric, call.action, call.observation)
            score = call.forward()
        else:
            score = awaitable
        if inspect.isawaitable(score):
            score = await score
        recorded = True  # finish() records a strict rubric's refusal itself
        score = call.finish(score)
        try:
            await _run_hooks(call.forward_hooks(), call.rubric, call.action, call.observation, score)
        except BaseException:
            recorded = False
            raise
        return score
    except BaseException as error:
        failed = True
        if not recorded:
            call.fail(error)
        raise
    finally:
        call.leave(token, failed)


async def resume_sequential(
    rubric: Rubric, index: int, awaitable: Awaitable[Any], so_far: Any, action: Any, observation: Any
) -> Any:
    """Goes on with a ``Sequential`` whose item number ``index`` gave an awaitable.

    ``so_far`` is the combination of earlier tensor scores that could not be tested for 0, or None.
    """
    children = [child for _, child, _ in rubric._items()]
    score = await awaitable
    for position in range(index, len(children)):
        if position > index:
            score = children[position](action, observation)
            if inspect.isawaitable(score):
                score = await score
        if _tensors.is_deferred(score) or so_far is not None:
            so_far = _tensors.sequence(so_far, score)
            score = so_far
        elif score == 0:
            return 0.0
    return score


async def resume_gate(rubric: Rubric, awaitable: Awaitable[Any]) -> Any:
    """Applies a ``Gate``'s threshold to a score that is awaited."""
    return _tensors.gate(await awaitable, rubric._threshold)


async def resume_weighted_sum(total: float, results: list[Any], weights: list[float]) -> Any:
    """Awaits the awaitables among ``results`` concurrently and adds up ``total + Σ weight × score``."""
    waiting = [(i, asyncio.ensure_future(r)) for i, r in enumerate(results) if inspect.isawaitable(r)]
    try:
        for (i, _), score in zip(waiting, await asyncio.gather(*(task for _, task in waiting)), strict=True):
            results[i] = score
    except BaseException:
        # The first failure decides: the others are stopped and their ends are waited for.
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
        raise
    return _tensors.weighted_sum(total, results, weights)
