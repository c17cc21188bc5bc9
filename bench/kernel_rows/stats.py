"""tensor_stats of a large tensor, against the torch calls that give the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from rubriscope.ops import tensor_stats

if TYPE_CHECKING:
    from kernels import KernelBench


def separately(t: torch.Tensor) -> list[Any]:
    """The same statistics by one torch call each; the magnitudes by their exponents, as integers."""
    exponents = torch.frexp(t).exponent
    return [
        torch.aminmax(t),
        torch.mean(t),
        torch.var(t),
        torch.isnan(t).sum(),
        torch.isinf(t).sum(),
        (t == 0).sum(),
        torch.bincount((exponents + 63).clamp_(0, 127).flatten(), minlength=128),
    ]


def rows(bench: KernelBench) -> None:
    """16 M float32: normal numbers, and the same after a ReLU."""
    normal = torch.randn(1 << 24, generator=bench.generator).to(bench.device)
    reads = bench.time({"sum": normal.sum, "max": normal.max, "aminmax": lambda: torch.aminmax(normal)})
    read = min(bench.seconds(timing) for timing in reads.values())
    limit = ("read bandwidth (the fastest of torch's sum, max, aminmax)", read)
    cases = {"rubriscope": lambda: tensor_stats(normal), "torch calls": lambda: separately(normal)}
    bench.row("tensor_stats of 16 M float32", cases, {"torch calls": 4}, limit=limit, repetitions=9)
    rectified = torch.relu(normal)
    cases = {"rubriscope": lambda: tensor_stats(rectified), "torch calls": lambda: separately(rectified)}
    bench.row(
        "tensor_stats of 16 M float32 after a ReLU", cases, {"torch calls": 4}, limit=limit, repetitions=9
    )
