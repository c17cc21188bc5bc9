"""Hausdorff distance of segmentation masks, against MONAI and DeepMind's surface-distance."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rubriscope.ops.hausdorff import mask_distance

if TYPE_CHECKING:
    from kernels import KernelBench

SIDE = 128


def ball(centre: tuple[float, float, float], radius: float) -> torch.Tensor:
    """A ball in a cube of SIDE voxels."""
    axes = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float32)] * 3, indexing="ij")
    distance2 = torch.zeros(SIDE, SIDE, SIDE)
    for axis, place in zip(axes, centre, strict=True):
        distance2 += (axis - place) ** 2
    return distance2 <= radius**2


def rows(bench: KernelBench) -> None:
    """HD95 of two overlapping balls in 128³ voxels."""
    from monai.metrics import compute_hausdorff_distance
    from surface_distance import metrics as deepmind

    bench.peer("monai")
    bench.peer("surface-distance-based-measures")
    # compute_robust_hausdorff names what NumPy 2 removed.
    np.Inf = np.inf  # type: ignore[attr-defined]
    warnings.simplefilter("ignore")
    pred, target = ball((60, 64, 64), 40).to(bench.device), ball((68, 60, 66), 38).to(bench.device)
    pred_batch, target_batch = pred[None, None], target[None, None]

    def monai(**options: Any) -> torch.Tensor:
        return compute_hausdorff_distance(pred_batch, target_batch, include_background=True, **options)

    def google() -> float:
        distances = deepmind.compute_surface_distances(target.numpy(), pred.numpy(), (1.0, 1.0, 1.0))
        return float(deepmind.compute_robust_hausdorff(distances, 95))

    bench.row(
        "HD95 of 128³ masks",
        {
            "rubriscope": lambda: mask_distance(pred, target, percentile=95),
            "MONAI": lambda: monai(percentile=95),
        },
        {"MONAI": 10},
    )
    spacing = (1.5, 0.9, 0.9)
    bench.row(
        "HD95 of 128³ masks, spacing 1.5 × 0.9 × 0.9",
        {
            "rubriscope": lambda: mask_distance(pred, target, spacing, percentile=95),
            "MONAI": lambda: monai(percentile=95, spacing=spacing),
        },
        {"MONAI": 10},
    )
    cases: dict[str, Any] = {
        "rubriscope": lambda: mask_distance(pred, target, percentile=95, convention="deepmind")
    }
    if bench.device.type == "cpu":
        cases["DeepMind"] = google
    bench.row("HD95 of 128³ masks, DeepMind's", cases, {})
