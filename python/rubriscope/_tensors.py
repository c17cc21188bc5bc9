"""Scores that are tensors: read where that costs nothing, combined on their device where it would wait.

torch is imported by whoever made the tensor; nothing here imports it.
"""

from __future__ import annotations

import math
import sys
from typing import Any


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_readable(tensor: Any) -> bool:
    """Whether a tensor's single number can be read without waiting for a device."""
    return bool(tensor.numel() == 1 and tensor.device.type == "cpu")


def is_deferred(value: Any) -> bool:
    """Whether a score is a tensor that must not be read here: on a device, or with several numbers."""
    return _is_tensor(value) and not is_readable(value)


def gate(score: Any, threshold: float) -> Any:
    """The score where it is finite and at least ``threshold``, else 0; element-wise for a tensor."""
    if is_deferred(score):
        return gate_batch(score, threshold)
    try:
        number = float(score)
    except (TypeError, ValueError):
        return 0.0
    return score if math.isfinite(number) and number >= threshold else 0.0


def gate_batch(scores: Any, threshold: float) -> Any:
    """``gate`` element by element, for a tensor on any device."""
    torch = sys.modules["torch"]
    passes = torch.isfinite(scores) & (scores >= threshold)
    return torch.where(passes, scores, torch.zeros_like(scores))


def sequence(so_far: Any, score: Any) -> Any:
    """0 where ``so_far`` is 0, else ``score``: a sequence's rule for tensors that are not read."""
    if so_far is None:
        return score
    torch = sys.modules["torch"]
    score = torch.as_tensor(score, device=so_far.device)
    return torch.where(so_far == 0, torch.zeros_like(score), score)


def weighted_sum(total: float, results: list[Any], weights: list[float]) -> Any:
    """``total + Σ weight × score``; a score of weight 0 adds exactly 0.

    Raises:
        TypeError: a score with a weight is not a number.
    """
    combined: Any = total
    for index, (score, weight) in enumerate(zip(results, weights, strict=True)):
        if weight == 0:
            continue
        if is_deferred(score):
            combined = combined + score * weight
            continue
        try:
            combined = combined + float(score) * weight
        except (TypeError, ValueError) as error:
            message = f"WeightedSum: child {index} gave {type(score).__name__}, expected a number"
            raise TypeError(message) from error
    return combined
