"""Hausdorff distance of segmentation masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from ._check import positive_spacing
from ._load import require_device

MaskMetric = Literal["euclidean", "chessboard", "taxicab"]
MaskConvention = Literal["monai", "deepmind", "medpy"]

_METRICS = ("euclidean", "chessboard", "taxicab")
_CONVENTIONS = ("monai", "deepmind", "medpy")


def _foreground(mask: Any, name: str) -> torch.Tensor:
    """The mask with one byte a voxel, not 0 where it is foreground."""
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"{name} is a {type(mask).__name__}, expected a torch.Tensor")
    if mask.dtype.is_complex:
        raise TypeError(f"{name} has dtype {mask.dtype}, expected bool, an integer or a floating dtype")
    require_device(mask, name)
    if mask.dim() not in (2, 3, 4, 5):
        raise ValueError(
            f"{name} has {mask.dim()} axes, expected 2 or 3 (one mask) or 4 or 5 (batch, channel, spatial)"
        )
    return mask.detach() if mask.dtype in (torch.bool, torch.uint8) else mask.detach() != 0


def mask_distance(
    pred: torch.Tensor,
    target: torch.Tensor,
    spacing: Sequence[float] | float | None = None,
    *,
    percentile: float | None = None,
    directed: bool = False,
    metric: MaskMetric = "euclidean",
    convention: MaskConvention = "monai",
) -> torch.Tensor:
    """Hausdorff distance between two segmentation masks, or a percentile of it (``percentile=95``: HD95).

    The surface of each mask is found, from every surface element of one the distance to the nearest of the
    other is computed exactly, and the distances become one number. Libraries differ in how, so name the one
    whose numbers are to be reproduced:

    ======== ============================== ==================================================== ==========
    name     surface elements               percentile                                           metrics
    ======== ============================== ==================================================== ==========
    monai    foreground voxels with a face  interpolated in each direction, then the larger; 0   all three
             neighbour that is background   is the maximum as ``None`` is
             or outside the image
    deepmind corners between voxels that    least distance within which lies that share of the   euclidean
             are not all alike, 0 outside   surface's area (in 2-D: length) by marching cubes,
             the image                      in each direction, then the larger
    medpy    as monai                       interpolated over both directions' distances pooled  euclidean
    ======== ============================== ==================================================== ==========

    Args:
        pred: A mask with 2 or 3 axes, or a batch ``(B, C, …spatial)`` with 4 or 5. Bool, integer or floating;
            what is not 0 is foreground (NaN too).
        target: The same shape, on the same device.
        spacing: The voxels' size, one number or one per spatial axis; 1 when left out. In the metrics other
            than Euclidean distances are in voxels whatever the spacing, as MONAI has it.
        percentile: From 0 to 100; left out, the maximum.
        directed: Only from ``pred`` to ``target``.
        metric: ``"euclidean"``, ``"chessboard"`` (largest axis) or ``"taxicab"`` (sum of the axes).
        convention: See above.

    Returns:
        float64: a scalar for one mask, ``(B, C)`` for a batch. ``inf`` where one of two masks is empty,
        ``nan`` where both are, whatever the convention. (There MedPy raises, MONAI gives ``nan`` for a
        percentile of infinite distances, DeepMind ``inf`` for two empty masks.) Not differentiable.

    Raises:
        TypeError: an argument is no tensor, or a complex one.
        ValueError: shapes or devices differ, there are fewer than 2 or more than 5 axes, a spacing is not
            positive, the percentile not in [0, 100], or the convention does not know the metric.
    """
    one, other = _foreground(pred, "pred"), _foreground(target, "target")
    if one.shape != other.shape:
        raise ValueError(f"target has shape {tuple(other.shape)}, expected {tuple(one.shape)} as pred has")
    if one.device != other.device:
        raise ValueError(f"target is on {other.device}, expected {one.device} as pred is")
    dimensions = one.dim() if one.dim() < 4 else one.dim() - 2
    steps = positive_spacing(1.0 if spacing is None else spacing, dimensions)
    if percentile is not None and not 0 <= percentile <= 100:
        raise ValueError(f"percentile is {percentile}, expected a number from 0 to 100, or None")
    if metric not in _METRICS:
        raise ValueError(f"metric is {metric!r}, expected one of {', '.join(map(repr, _METRICS))}")
    if convention not in _CONVENTIONS:
        raise ValueError(
            f"convention is {convention!r}, expected one of {', '.join(map(repr, _CONVENTIONS))}"
        )
    if metric != "euclidean" and convention != "monai":
        raise ValueError(
            f"metric is {metric!r}, which convention {convention!r} does not know: expected 'euclidean'"
        )
    share = -1.0 if percentile is None else float(percentile)
    found: torch.Tensor = torch.ops.rubriscope.mask_distance(
        one, other, steps, share, directed, metric, convention
    )
    return found


@torch.library.register_fake("rubriscope::mask_distance")  # type: ignore[untyped-decorator]
def _fake(
    pred: torch.Tensor,
    target: torch.Tensor,
    spacing: Sequence[float],
    percentile: float,
    directed: bool,
    metric: str,
    convention: str,
) -> torch.Tensor:
    shape = () if pred.dim() == len(spacing) else (pred.shape[0], pred.shape[1])
    return pred.new_empty(shape, dtype=torch.float64)
