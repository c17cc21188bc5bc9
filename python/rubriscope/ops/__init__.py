"""Operators on tensors: Hausdorff distances, physics residuals and statistics, on CPU and CUDA.

They are torch operators (``torch.ops.rubriscope``): differentiable where their documentation says so,
deterministic, and usable under ``torch.compile``.
"""

from __future__ import annotations

from . import _load as _load
from . import hausdorff, physics
from ._stats import TensorStats, magnitude_bin_edges, tensor_stats

__all__ = ["TensorStats", "hausdorff", "magnitude_bin_edges", "physics", "tensor_stats"]
