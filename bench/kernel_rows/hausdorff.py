"""Hausdorff distances between point clouds, against SciPy and Open3D."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from kernels import KernelBench
from rubriscope.ops import hausdorff
from scipy.spatial import cKDTree
from scipy.spatial.distance import directed_hausdorff

COUNT = 100_000


def tree_both_ways(x: np.ndarray, y: np.ndarray, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest distances of x and of y: both trees built, both queried."""
    near, _ = cKDTree(y).query(x, workers=workers)
    back, _ = cKDTree(x).query(y, workers=workers)
    return near, back


def rows(bench: KernelBench) -> None:
    """The table's rows; SciPy's and Open3D's stay away on a GPU."""
    generator = bench.generator
    uniform = [torch.rand(COUNT, 3, generator=generator) for _ in range(2)]
    noisy = uniform[0] + 1e-3 * torch.randn(COUNT, 3, generator=generator)
    outlier = uniform[0].clone()
    outlier[COUNT // 2] = 100.0
    directions = [torch.randn(COUNT, 3, generator=generator) for _ in range(2)]
    shells = [r * d / d.norm(dim=1, keepdim=True) for r, d in zip((1.0, 2.0), directions, strict=True)]
    small = [torch.rand(1000, 3, generator=generator) for _ in range(2)]
    on_cpu = bench.device.type == "cpu"
    open3d = _open3d() if on_cpu else None
    bench.peer("scipy")
    if open3d is not None:
        bench.peer("open3d")

    def row(
        figure: str,
        pair: list[torch.Tensor],
        targets: dict[str, float],
        *,
        scipy: bool = False,
        clouds: bool = False,
        reduction: Any = "max",
    ) -> None:
        x, y = (p.to(bench.device) for p in pair)
        a, b = (p.double().numpy() for p in pair)  # both peers compute in float64
        cases: dict[str, Any] = {"rubriscope": lambda: hausdorff.distance(x, y, reduction=reduction)}
        if on_cpu:
            if reduction == "max":
                cases["cKDTree"] = lambda: max(d.max() for d in tree_both_ways(a, b, bench.threads))
            elif reduction == "percentile":
                cases["cKDTree"] = lambda: max(
                    np.percentile(d, 95) for d in tree_both_ways(a, b, bench.threads)
                )
            else:
                cases["cKDTree"] = lambda: np.mean([d.mean() for d in tree_both_ways(a, b, bench.threads)])
            if scipy:
                cases["directed_hausdorff"] = lambda: max(
                    directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0]
                )
            if clouds and open3d is not None:
                cases["Open3D"] = _open3d_case(open3d, a, b)
        bench.row(figure, cases, targets if on_cpu else {}, repetitions=11)

    row(
        "Hausdorff, uniform 100k × 100k, 3-D",
        uniform,
        {"cKDTree": 25, "directed_hausdorff": 200},
        scipy=True,
        clouds=True,
    )
    row(
        "Hausdorff, noisy copy 100k (deviation 0.001)",
        [uniform[0], noisy],
        {"cKDTree": 20},
        scipy=not bench.quick,
    )
    row("Hausdorff, one far outlier 100k", [outlier, uniform[1]], {"cKDTree": 6})
    row("Hausdorff, concentric shells 100k", shells, {"cKDTree": 50}, clouds=True)
    row("HD95, uniform 100k × 100k", uniform, {"cKDTree": 8}, reduction="percentile")
    row("average Hausdorff, uniform 100k × 100k", uniform, {"cKDTree": 8}, reduction="mean")
    row("Hausdorff, uniform 1k × 1k", small, {"directed_hausdorff": 5}, scipy=True)
    if not on_cpu:
        large = [torch.rand(count, 3, generator=generator) for count in (400_000, 3_600_000)]
        row("Hausdorff, uniform 400k × 3.6M", large, {})
        row("HD95, uniform 400k × 3.6M", large, {}, reduction="percentile")
        # Items too small for trees: every pair is looked at. At best a pair takes seven instructions (three
        # differences, a square, two multiply-adds, a minimum); a matrix product does two operations an
        # instruction.
        x, y = (torch.rand(1024, 2048, 3, generator=generator).to(bench.device) for _ in range(2))
        pairs = float(len(x) * x.shape[1] * y.shape[1])
        bench.row(
            "directed mean, 1024 items of uniform 2k × 2k, every pair",
            {"rubriscope": lambda: hausdorff.distance(x, y, reduction="mean", directed=True)},
            {},
            limit=("seven instructions a pair at FMA rate", bench.matmul_seconds(14.0 * pairs)),
            repetitions=11,
        )


def _open3d() -> Any:
    """Open3D where it is installed and can be loaded; its rows are shown, not required."""
    try:
        return importlib.import_module("open3d")
    except ImportError as error:
        print(f"  (without Open3D: {error})", flush=True)
        return None


def _open3d_case(open3d: Any, a: np.ndarray, b: np.ndarray) -> Any:
    def cloud(points: np.ndarray) -> Any:
        return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))

    x, y = cloud(a), cloud(b)

    def call() -> float:
        distances = (x.compute_point_cloud_distance(y), y.compute_point_cloud_distance(x))
        return max(float(np.asarray(d).max()) for d in distances)

    return call
