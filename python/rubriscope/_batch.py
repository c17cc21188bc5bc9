"""``rubric.batch()`` beyond plain numbers: trees with a ``forward_batch``, tensors, coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
from typing import TYPE_CHECKING, Any

from . import _C, _device, _tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ._C import Rubric

_current: contextvars.ContextVar[_Batch | None] = contextvars.ContextVar("rubriscope_batch", default=None)


def from_doubles(doubles: bytearray) -> torch.Tensor:
    """A float64 tensor over the bytes of C doubles."""
    import torch

    return torch.frombuffer(doubles, dtype=torch.float64) if doubles else torch.empty(0, dtype=torch.float64)


def _as_vector(scores: Any, count: int, who: str) -> torch.Tensor:
    import torch

    if isinstance(scores, torch.Tensor):
        vector = scores.detach().to(torch.float64)
    else:
        items = [
            s.detach().to(torch.float64).reshape(()) if isinstance(s, torch.Tensor) else float(s)
            for s in scores
        ]
        device = next((s.device for s in items if isinstance(s, torch.Tensor)), torch.device("cpu"))
        if device.type == "cpu":
            vector = torch.tensor([float(s) for s in items], dtype=torch.float64)
        else:
            vector = torch.stack([torch.as_tensor(s, dtype=torch.float64, device=device) for s in items])
    if vector.shape != (count,):
        raise ValueError(f"{who} gave scores of shape {tuple(vector.shape)}, expected ({count},)")
    return vector


def finish_objects(
    rubric: Rubric, actions: Sequence[Any], observations: Sequence[Any], done: bytearray, first: Any
) -> Any:
    """Goes on with a batch whose pair number ``len(done) / 8`` gave ``first``, which is no plain number.

    Returns a tensor, or a coroutine of one when the rubric is asynchronous.
    """
    scores: list[Any] = from_doubles(done).tolist()
    rest = range(len(scores) + 1, len(actions))
    scores.append(first)
    scores.extend(rubric(actions[i], observations[i]) for i in rest)
    if any(inspect.isawaitable(score) for score in scores):
        return _await_all(scores, type(rubric).__name__)
    return _as_vector(scores, len(scores), type(rubric).__name__)


async def _await_all(scores: list[Any], who: str) -> torch.Tensor:
    async def settle(score: Any) -> Any:
        return await score if inspect.isawaitable(score) else score

    return _as_vector(await asyncio.gather(*map(settle, scores)), len(scores), who)


class _Batch:
    """One evaluation of a tree over N pairs, node by node."""

    def __init__(self, root: Rubric, actions: Sequence[Any], observations: Sequence[Any]) -> None:
        self.root = root
        self.actions = list(actions)
        self.observations = list(observations)
        self.rows = list(range(len(self.actions)))  # the pairs that the running forward_batch() sees
        # The calls around the node that is evaluated now, and which of them belongs to a pair.
        self.contexts = _C._BatchContexts(root, len(self.actions)) if _C._is_observed(root) else None
        self.place = {row: row for row in self.rows}
        self.waits = False  # a root inside this batch waits for its device
        self.on_device: list[tuple[Rubric, list[int], torch.Tensor, int, int]] = []

    def evaluate(self, node: Rubric, rows: list[int]) -> torch.Tensor:
        """Scores ``rows`` of the batch with ``node``: shape (len(rows),), float64."""
        if not (hasattr(type(node), "forward_batch") or node._items()):
            return self._pair_by_pair(node, rows)
        if node is not self.root and _C._is_observed(node):
            return self._evaluate_observed(node, rows)
        return self._evaluate(node, rows)

    def _evaluate_observed(self, node: Rubric, rows: list[int]) -> torch.Tensor:
        """A root of its own inside this batch: its observers get a snapshot a pair too."""
        outer, place, on_device = self.contexts, self.place, self.on_device
        outer_rows = [place[row] for row in rows] if outer is not None else []
        self.contexts = _C._BatchContexts(node, len(rows), outer, outer_rows)
        self.place = {row: i for i, row in enumerate(rows)}
        self.on_device = []
        try:
            return self._evaluate(node, rows)
        finally:
            self.publish([self.actions[row] for row in rows], [self.observations[row] for row in rows])
            # What is still on its device is noted in the outer calls too when it arrives: they wait for it.
            self.waits = self.waits or bool(self.on_device)
            self.contexts, self.place, self.on_device = outer, place, on_device

    def _evaluate(self, node: Rubric, rows: list[int]) -> torch.Tensor:
        start = self.contexts.now() if self.contexts is not None else 0
        for hook in node._forward_pre_hooks:
            for row in rows:
                hook(node, self.actions[row], self.observations[row])
        try:
            scores = self._forward(node, rows)
        except BaseException as error:
            if self.contexts is not None:
                for row in rows:
                    self.contexts.fail(node, self.place[row], error, start)
            raise
        self._record(node, rows, scores, start)
        if node.strict and scores.device.type == "cpu":
            for value in scores.tolist():
                if not math.isfinite(value):
                    raise ValueError(
                        f"{type(node).__name__} (strict) gave {value!r}, expected a finite number"
                    )
        hooks = node._forward_hooks
        if hooks:
            values = scores.tolist()
            for hook in hooks:
                for row, value in zip(rows, values, strict=True):
                    hook(node, self.actions[row], self.observations[row], value)
        return scores

    def _forward(self, node: Rubric, rows: list[int]) -> torch.Tensor:
        if hasattr(type(node), "forward_batch"):
            outer, self.rows = self.rows, rows
            try:
                many: Any = node
                scores = many.forward_batch(
                    [self.actions[row] for row in rows], [self.observations[row] for row in rows]
                )
            finally:
                self.rows = outer
            if inspect.isawaitable(scores):
                raise TypeError(f"{type(node).__name__}.forward_batch() must not be async")
            return _as_vector(scores, len(rows), f"{type(node).__name__}.forward_batch()")
        kind = _C._kind(node)
        if kind == "weighted_sum":
            return self._weighted_sum(node, rows)
        if kind == "gate":
            (_, child, _), *_ = node._items()
            gated: torch.Tensor = _tensors.gate_batch(self.evaluate(child, rows), node._threshold)
            return gated
        if kind == "sequential":
            return self._sequential(node, rows)
        return self._pair_by_pair(node, rows)

    def _weighted_sum(self, node: Rubric, rows: list[int]) -> torch.Tensor:
        import torch

        total = torch.zeros(len(rows), dtype=torch.float64)
        for _, child, weight in node._items():
            scores = self.evaluate(child, rows)
            if weight != 0:
                total = total.to(scores.device) + weight * scores
        return total

    def _sequential(self, node: Rubric, rows: list[int]) -> torch.Tensor:
        import torch

        total = torch.ones(len(rows), dtype=torch.float64)
        places = list(range(len(rows)))  # of the rows that have not met a 0
        for _, child, _ in node._items():
            if not places:
                break
            scores = self.evaluate(child, [rows[place] for place in places])
            if scores.device.type != "cpu":
                # Reading which rows stopped would wait for the device: all go on, and 0 stays 0.
                total = total.to(scores.device)
                total = torch.where(total == 0, total, scores)
                continue
            total = total.cpu()
            total[places] = scores
            places = [place for place, score in zip(places, scores.tolist(), strict=True) if score != 0]
        return total

    def _pair_by_pair(self, node: Rubric, rows: list[int]) -> torch.Tensor:
        if self.contexts is None:
            scores = [node(self.actions[row], self.observations[row]) for row in rows]
        else:
            scores = [
                self.contexts.call(node, self.place[row], self.actions[row], self.observations[row])
                for row in rows
            ]
        if any(inspect.isawaitable(score) for score in scores):
            for score in scores:
                if inspect.iscoroutine(score):
                    score.close()
            raise TypeError(
                f"{type(node).__name__} is asynchronous: a tree with a forward_batch() must be synchronous"
            )
        return _as_vector(scores, len(rows), type(node).__name__)

    def _record(self, node: Rubric, rows: list[int], scores: torch.Tensor, start: int) -> None:
        if self.contexts is None:
            return
        end = self.contexts.now()
        if scores.device.type != "cpu":
            self.on_device.append((node, [self.place[row] for row in rows], scores, start, end))
            return
        # Rows of a vector are scored together: each carries its share of the time.
        share = (end - start) // max(len(rows), 1)
        for row, value in zip(rows, scores.tolist(), strict=True):
            self.contexts.record(node, self.place[row], value, end - share, end)

    def publish(self, actions: list[Any], observations: list[Any]) -> None:
        if self.contexts is None:
            return
        if self.on_device or self.waits:
            _device.complete_batch_later(self.contexts, self.on_device, actions, observations)
        else:
            self.contexts.publish(actions, observations)


def evaluate(rubric: Rubric, actions: Sequence[Any], observations: Sequence[Any]) -> torch.Tensor:
    """Scores N pairs with a tree in which some rubric has a ``forward_batch``.

    Returns:
        float64 tensor of shape (N,), on the scores' device.
    """
    outer = _current.get()
    if outer is not None and len(actions) == len(outer.rows) and not _C._is_observed(rubric):
        return outer.evaluate(rubric, outer.rows)
    if not (hasattr(type(rubric), "forward_batch") or rubric._items()):
        # A forward() that calls its children itself: pair by pair is all that can be done.
        return _as_vector(
            [rubric(a, o) for a, o in zip(actions, observations, strict=True)],
            len(actions),
            type(rubric).__name__,
        )
    batch = _Batch(rubric, actions, observations)
    token = _current.set(batch)
    try:
        return batch.evaluate(rubric, list(batch.rows))
    finally:
        _current.reset(token)
        batch.publish(batch.actions, batch.observations)
