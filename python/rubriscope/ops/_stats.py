"""Statistics of a tensor in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ._load import require_device

#: How many bins the histogram of magnitudes has.
MAGNITUDE_BINS = 128

_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class TensorStats(NamedTuple):
    """What :func:`tensor_stats` finds: tensors on the device of its argument, 0-dim but the histogram."""

    count: torch.Tensor  # type: ignore[assignment]  #: elements, all of them (int64)
    mean: torch.Tensor  #: of the finite elements, as the next three (float64); nan where there are none
    variance: torch.Tensor  #: with n − 1 in the denominator, as ``torch.var``; nan below two elements
    min: torch.Tensor
    max: torch.Tensor
    nan_count: torch.Tensor  #: (int64, as the next three)
    inf_count: torch.Tensor
    zero_count: torch.Tensor
    histogram: torch.Tensor  #: magnitudes by powers of two, see :func:`magnitude_bin_edges`; (128,) int64


def magnitude_bin_edges() -> torch.Tensor:
    """The edges of the bins of ``TensorStats.histogram``: ``(129,)`` float64.

    Bin ``b`` counts the elements with ``edges[b] <= abs(x) < edges[b + 1]``. The edges are 0, the powers of
    two from 2⁻⁶³ to 2⁶³, and inf: the first bin has what is smaller than 2⁻⁶³ and not 0, the last what is
    2⁶³ or greater and finite. Zeros, NaN and Inf are in no bin.
    """
    exponents = torch.arange(-63, 64, dtype=torch.float64)
    return torch.cat([torch.zeros(1, dtype=torch.float64), exponents.exp2(), torch.full((1,), torch.inf)])


def raw_stats(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two tensors the operator fills: mean, variance, min, max; count, NaN, Inf, zeros, histogram."""
    if t.dtype not in _FLOATING:
        t = t.double()
    found: tuple[torch.Tensor, torch.Tensor] = torch.ops.rubriscope.tensor_stats(t.detach())
    return found


def tensor_stats(t: torch.Tensor) -> TensorStats:
    """Count, mean, variance, extremes, special values and log-magnitudes of a tensor, reading it once.

    Mean, variance, min and max are those of the finite elements. Sums are taken in float64 over fixed pieces,
    as differences to a running mean, and combined in order by the update of Chan, Golub and LeVeque (1979):
    nothing cancels where the mean is large, and the bits do not depend on the number of threads.

    Args:
        t: Any shape and layout. float32, float64, float16 and bfloat16 are read as they are; integers and
            bools are converted to float64 first. A tensor whose elements fill a block of memory in another
            order (a transposed one, channels last) is read in place, any other is copied.

    Returns:
        Tensors on ``t``'s device; on a GPU nothing is synchronised. Not differentiable.

    Raises:
        TypeError: ``t`` is no tensor, or complex.
        ValueError: ``t`` is neither on the CPU nor on a CUDA device.
    """
    checked: Any = t
    if not isinstance(checked, torch.Tensor):
        raise TypeError(f"t is a {type(checked).__name__}, expected a torch.Tensor")
    if t.dtype.is_complex:
        raise TypeError(f"t has dtype {t.dtype}, expected a real one")
    require_device(t, "t")
    moments, counts = raw_stats(t)
    mean, variance, least, greatest = moments.unbind()
    count, nan, inf, zero = counts[:4].unbind()
    return TensorStats(count, mean, variance, least, greatest, nan, inf, zero, counts[4:])


@torch.library.register_fake("rubriscope::tensor_stats")  # type: ignore[untyped-decorator]
def _fake(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return t.new_empty((4,), dtype=torch.float64), t.new_empty((4 + MAGNITUDE_BINS,), dtype=torch.int64)
