"""mask_distance against the libraries whose conventions it reproduces, run here."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import medpy.metric.binary
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance
from rubriscope.ops.hausdorff import mask_distance
from scipy import ndimage
from surface_distance import lookup_tables
from surface_distance import metrics as deepmind_metrics

INF = float("inf")

Masks = tuple[torch.Tensor, torch.Tensor]


def blobs(shape: tuple[int, ...], seed: int, threshold: float = 0.1, smooth: float = 1.5) -> torch.Tensor:
    """A random mask with smooth boundaries."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    return torch.from_numpy(noise / noise.std() > threshold)


def voxels(shape: tuple[int, ...], *places: tuple[int, ...]) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    for place in places:
        mask[place] = True
    return mask


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2


def pairs(dimensions: int) -> dict[str, Masks]:
    """Cases: blobs, thin and single shapes, masks at the border, boxes wider than a machine word."""
    small = (17, 23, 19)[:dimensions]
    wide = (9, 21, 150) if dimensions == 3 else (33, 150)
    middle = tuple(n // 2 for n in small)
    last = tuple(n - 1 for n in small)
    return {
        "blobs": (blobs(small, 1), blobs(small, 2)),
        "sparse blobs": (blobs(small, 3, 1.5), blobs(small, 4, 1.8)),
        "dense blobs": (blobs(small, 5, -1.0), blobs(small, 6, -1.5, 0.6)),
        "noise": (blobs(small, 7, 0.5, 0.1), blobs(small, 8, 0.5, 0.1)),
        "the same": (blobs(small, 9), blobs(small, 9)),
        "single voxels": (voxels(small, (0,) * dimensions), voxels(small, last)),
        "voxel in a ball": (voxels(small, middle), ball(small, middle, 6.5)),
        "full and a ball": (torch.ones(small, dtype=torch.bool), ball(small, middle, 4)),
        "full and full": (torch.ones(small, dtype=torch.bool), torch.ones(small, dtype=torch.bool)),
        "at the border": (ball(small, (0,) * dimensions, 7), ball(small, last, 6)),
        "far apart": (ball(wide, (4, 10, 5)[-dimensions:], 4), ball(wide, (4, 10, 144)[-dimensions:], 4)),
        "wide": (blobs(wide, 10), blobs(wide, 11, 0.8)),
    }


CASES = [(d, name) for d in (2, 3) for name in pairs(d)]
SPACINGS: list[tuple[float, ...] | float | None] = [None, 0.7, (0.5, 1.0, 2.0), (1.3, 0.7, 1.9)]
PERCENTILES = [None, 100.0, 95.0, 50.0, 12.5, 0.0]


def spacing_for(
    spacing: tuple[float, ...] | float | None, dimensions: int
) -> tuple[float, ...] | float | None:
    return spacing[:dimensions] if isinstance(spacing, tuple) else spacing


def monai(pred: torch.Tensor, target: torch.Tensor, spacing: Any = None, **options: Any) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = list(spacing) if isinstance(spacing, tuple) else spacing
        return compute_hausdorff_distance(pred, target, include_background=True, spacing=steps, **options)


@pytest.mark.parametrize(("dimensions", "name"), CASES)
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_monai(dimensions: int, name: str, spacing: Any, device: torch.device) -> None:
    pred, target = (mask.to(device) for mask in pairs(dimensions)[name])
    spacing = spacing_for(spacing, dimensions)
    for percentile, directed in itertools.product(PERCENTILES, (False, True)):
        found = mask_distance(pred, target, spacing, percentile=percentile, directed=directed)
        expected = monai(
            pred[None, None].cpu(),
            target[None, None].cpu(),
            spacing,
            percentile=percentile,
            directed=directed,
        )
        assert found.dtype == torch.float64 and found.shape == ()
        assert found.item() == pytest.approx(expected.item(), rel=3e-7, abs=1e-6), (percentile, directed)


@pytest.mark.parametrize(("dimensions", "name"), CASES)
@pytest.mark.parametrize("metric", ["chessboard", "taxicab"])
def test_monai_metrics(dimensions: int, name: str, metric: Any, device: torch.device) -> None:
    pred, target = (mask.to(device) for mask in pairs(dimensions)[name])
    spacing = (1.5, 2.5, 3.5)[:dimensions]  # which MONAI leaves out of these metrics
    for percentile, directed in itertools.product((None, 95.0), (False, True)):
        found = mask_distance(pred, target, spacing, percentile=percentile, directed=directed, metric=metric)
        expected = monai(
            pred[None, None].cpu(), target[None, None].cpu(), spacing,
            distance_metric=metric, percentile=percentile, directed=directed,
        )  # fmt: skip
        assert found.item() == pytest.approx(expected.item(), rel=3e-7), (percentile, directed)


def surface_distances(pred: torch.Tensor, target: torch.Tensor, spacing: Any) -> dict[str, Any]:
    """DeepMind's, which names what NumPy and SciPy have since moved."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(np, "Inf", np.inf, raising=False)
        return dict(deepmind_metrics.compute_surface_distances(target.numpy(), pred.numpy(), spacing))


def deepmind(distances: dict[str, Any], percentile: float) -> float:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "Inf", np.inf, raising=False)
        return float(deepmind_metrics.compute_robust_hausdorff(distances, percentile))


@pytest.mark.parametrize(("dimensions", "name"), CASES)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0), (1.3, 0.7, 1.9)], ids=str)
def test_deepmind(dimensions: int, name: str, spacing: Any, device: torch.device) -> None:
    pred, target = pairs(dimensions)[name]
    spacing = spacing[:dimensions]
    distances = surface_distances(pred, target, spacing)
    one_way = {**distances, "distances_gt_to_pred": np.zeros(1), "surfel_areas_gt": np.ones(1)}
    pred, target = pred.to(device), target.to(device)
    for percentile in (None, 100.0, 95.0, 61.8, 33.3, 0.0):
        found = mask_distance(pred, target, spacing, percentile=percentile, convention="deepmind")
        expected = deepmind(distances, 100.0 if percentile is None else percentile)
        assert found.item() == pytest.approx(expected, rel=1e-12), percentile
        found = mask_distance(
            pred, target, spacing, percentile=percentile, convention="deepmind", directed=True
        )
        expected = deepmind(one_way, 100.0 if percentile is None else percentile)
        assert found.item() == pytest.approx(expected, rel=1e-12), percentile


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.3, 0.7, 1.9), (0.4, 2.1, 0.9)], ids=str)
def test_the_area_of_every_cell(spacing: tuple[float, float, float], device: torch.device) -> None:
    """Every code as a mask: the percentiles at which the distance changes tell the areas."""
    areas = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    shares = []
    target = voxels((2, 2, 2), (0, 0, 0))
    for code in range(1, 255):
        pred = torch.tensor([(code >> (7 - bit)) & 1 for bit in range(8)], dtype=torch.bool).view(2, 2, 2)
        distances = surface_distances(pred, target, spacing)
        # Every share at which DeepMind's answer changes, from just below and just above.
        cumulated = np.cumsum(distances["surfel_areas_pred"]) / distances["surfel_areas_pred"].sum()
        steps = np.flatnonzero(np.diff(distances["distances_pred_to_gt"]) > 0)
        for step in steps:
            for nudge in (-1e-7, 1e-7):
                percentile = float((cumulated[step] + nudge) * 100)
                found = mask_distance(
                    pred.to(device), target.to(device), spacing, percentile=percentile,
                    convention="deepmind", directed=True,
                )  # fmt: skip
                index = int(np.searchsorted(cumulated, percentile / 100))
                assert found.item() == pytest.approx(distances["distances_pred_to_gt"][index]), code
                shares.append(code)
    assert len(set(shares)) > 200 and areas.max() > 0


@pytest.mark.parametrize(("dimensions", "name"), CASES)
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_medpy(dimensions: int, name: str, spacing: Any, device: torch.device) -> None:
    pred, target = pairs(dimensions)[name]
    spacing = spacing_for(spacing, dimensions)
    whole = medpy.metric.binary.hd(pred.numpy(), target.numpy(), voxelspacing=spacing)
    most = medpy.metric.binary.hd95(pred.numpy(), target.numpy(), voxelspacing=spacing)
    pred, target = pred.to(device), target.to(device)
    found = mask_distance(pred, target, spacing, convention="medpy")
    assert found.item() == pytest.approx(whole, rel=1e-12)
    found = mask_distance(pred, target, spacing, percentile=95, convention="medpy")
    assert found.item() == pytest.approx(most, rel=1e-12)


def test_medpy_directed(device: torch.device) -> None:
    pred, target = pairs(3)["blobs"]
    surface = target.numpy() & ~ndimage.binary_erosion(target.numpy())
    away = ndimage.distance_transform_edt(~surface)
    distances = away[pred.numpy() & ~ndimage.binary_erosion(pred.numpy())]
    for percentile in (None, 95.0, 20.0):
        found = mask_distance(
            pred.to(device), target.to(device), percentile=percentile, directed=True, convention="medpy"
        )
        assert found.item() == pytest.approx(np.percentile(distances, percentile or 100), rel=1e-12)


@pytest.mark.parametrize("convention", ["monai", "deepmind", "medpy"])
@pytest.mark.parametrize("percentile", [None, 95.0])
def test_empty_masks(convention: Any, percentile: float | None, device: torch.device) -> None:
    for shape in ((6, 7), (5, 6, 7)):
        empty = torch.zeros(shape, dtype=torch.bool, device=device)
        some = voxels(shape, (2,) * len(shape)).to(device)
        options: dict[str, Any] = {"convention": convention, "percentile": percentile}
        assert mask_distance(empty, some, **options).item() == INF
        assert mask_distance(some, empty, **options, directed=True).item() == INF
        assert math.isnan(mask_distance(empty, empty, **options).item())
    nothing = torch.zeros((2, 3, 0, 4), dtype=torch.bool, device=device)
    assert mask_distance(nothing, nothing, convention=convention).isnan().tolist() == [[True] * 3] * 2


def test_monai_maximum_of_empty_masks() -> None:
    empty = torch.zeros(1, 1, 5, 5)
    some = empty.clone()
    some[..., 2, 2] = 1
    assert monai(empty, some).item() == INF == mask_distance(empty, some).item()
    assert monai(empty, empty).isnan().item() and mask_distance(empty, empty).isnan().item()


@pytest.mark.parametrize("convention", ["monai", "deepmind", "medpy"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_batches(convention: Any, dimensions: int, device: torch.device) -> None:
    shape = (13, 18, 15)[:dimensions]
    pred = torch.stack([blobs(shape, i, 0.4) for i in range(6)]).view(2, 3, *shape).to(device)
    target = torch.stack([blobs(shape, 20 + i, 0.4) for i in range(6)]).view(2, 3, *shape).to(device)
    pred[1, 1] = False
    found = mask_distance(pred, target, 0.7, percentile=90, convention=convention)
    assert found.shape == (2, 3) and found.device == pred.device
    for b, c in itertools.product(range(2), range(3)):
        alone = mask_distance(pred[b, c], target[b, c], 0.7, percentile=90, convention=convention)
        assert alone.item() == found[b, c].item()
    if convention == "monai":
        expected = monai(pred.cpu(), target.cpu(), 0.7, percentile=90)
        expected[1, 1] = INF  # MONAI interpolates between infinities: nan
        torch.testing.assert_close(found.cpu(), expected.double(), rtol=1e-6, atol=0)
        assert mask_distance(pred[:0], target[:0]).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64, torch.float16, torch.float32])
def test_what_counts_as_foreground(dtype: torch.dtype, device: torch.device) -> None:
    pred, target = (mask.to(device) for mask in pairs(3)["blobs"])
    expected = mask_distance(pred, target)
    value = 3 if dtype in (torch.uint8, torch.int8, torch.int64) else 0.25
    assert torch.equal(mask_distance(pred.to(dtype) * value, target.to(dtype)), expected)


def test_layouts(device: torch.device) -> None:
    pred, target = (mask.to(device) for mask in pairs(3)["blobs"])
    expected = mask_distance(pred.permute(2, 0, 1).contiguous(), target.permute(2, 0, 1).contiguous())
    assert torch.equal(mask_distance(pred.permute(2, 0, 1), target.permute(2, 0, 1)), expected)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_exact_against_all_pairs(data: st.DataObject) -> None:
    """Any two small masks, any spacing: the maximum over all pairs of surface voxels."""
    dimensions = data.draw(st.sampled_from([2, 3]))
    shape = tuple(data.draw(st.integers(1, 7 if dimensions == 3 else 80)) for _ in range(dimensions))
    count = math.prod(shape)
    density = data.draw(st.sampled_from([0.02, 0.3, 0.8]))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    masks = [generator.random(shape) < density for _ in range(2)]
    for mask in masks:
        mask.flat[generator.integers(count)] = True
    spacing = [data.draw(st.sampled_from([0.3, 1.0, 2.0, 37.5])) for _ in range(dimensions)]
    points = [np.argwhere(m & ~ndimage.binary_erosion(m)) * np.array(spacing) for m in masks]
    away = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    there, back = away.min(1), away.min(0)
    one, other = (torch.from_numpy(m) for m in masks)
    assert mask_distance(one, other, spacing).item() == pytest.approx(max(there.max(), back.max()), rel=1e-14)
    found = mask_distance(one, other, spacing, percentile=70, convention="medpy")
    assert found.item() == pytest.approx(np.percentile(np.hstack([there, back]), 70), rel=1e-12)


def test_narrow_and_wide_costs_agree() -> None:
    """The same masks by 16-bit, 32-bit and float64 costs, and by pairs: spacings choose which."""
    pred, target = ball((40, 40, 70), (20, 20, 20), 12), ball((40, 40, 70), (22, 18, 50), 11)
    for percentile in (None, 95.0):
        narrow = mask_distance(pred, target, percentile=percentile).item()
        assert mask_distance(pred, target, 1e-3, percentile=percentile).item() == pytest.approx(narrow * 1e-3)
        wide = mask_distance(pred, target, (1.0, 1.0, 7.0), percentile=percentile).item()
        real = mask_distance(pred, target, (1.0, 1.0, 7.0 + 1e-11), percentile=percentile).item()
        assert real == pytest.approx(wide, rel=1e-10)
    long = torch.zeros(3, 5000, dtype=torch.bool)
    long[1, 0] = True
    dense = torch.zeros(3, 5000, dtype=torch.bool)
    dense[1, ::2] = True
    assert mask_distance(dense, long).item() == 4998.0
    assert mask_distance(long, long.flip(1)).item() == 4999.0


def test_the_same_bits_with_any_number_of_threads() -> None:
    # Large enough that threads are used at all.
    shape = (36, 40, 70)
    pred, target = blobs(shape, 1, 1.2, 3), ball(shape, (20, 18, 40), 12)
    batch = torch.stack([pred, target]).view(1, 2, *pred.shape)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(
                [
                    mask_distance(a, b, (1.3, 0.7, 1.9), percentile=88, convention=c).tolist()
                    for a, b in ((pred, target), (batch, batch.flip(1)))
                    for c in ("monai", "deepmind", "medpy")
                ]
            )
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_operator(device: torch.device) -> None:
    pred, target = (mask.to(device) for mask in pairs(2)["blobs"])
    for masks in ((pred, target), (pred[None, None], target[None, None])):
        torch.library.opcheck(
            torch.ops.rubriscope.mask_distance.default,
            (*masks, [1.0, 2.0], 95.0, False, "euclidean", "monai"),
        )


def test_compile(device: torch.device) -> None:
    pred, target = (mask.to(device) for mask in pairs(3)["blobs"])

    def score(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + mask_distance(a.float(), b, (1, 2, 3), percentile=95))

    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(pred, target), score(pred, target))


def test_no_gradient() -> None:
    pred = torch.rand(4, 4, requires_grad=True)
    assert not mask_distance(pred, torch.ones(4, 4)).requires_grad


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pred": [[1]]}, TypeError, "pred is a list"),
        ({"pred": torch.ones(4, 4, dtype=torch.complex64)}, TypeError, "pred has dtype torch.complex64"),
        ({"pred": torch.ones(4)}, ValueError, "pred has 1 axes"),
        ({"target": torch.ones(1, 1, 1, 1, 4, 4)}, ValueError, "target has 6 axes"),
        ({"target": torch.ones(4, 5)}, ValueError, r"target has shape \(4, 5\)"),
        ({"target": torch.ones(1, 1, 4, 4)}, ValueError, r"target has shape \(1, 1, 4, 4\)"),
        ({"spacing": (1.0, 1.0, 1.0)}, ValueError, "spacing has 3 entries, expected 2"),
        ({"spacing": -1.0}, ValueError, "spacing holds -1.0"),
        ({"spacing": (1.0, 0.0)}, ValueError, "spacing holds 0.0"),
        ({"percentile": 101}, ValueError, "percentile is 101"),
        ({"percentile": -1}, ValueError, "percentile is -1"),
        ({"percentile": float("nan")}, ValueError, "percentile is nan"),
        ({"metric": "manhattan"}, ValueError, "metric is 'manhattan'"),
        ({"convention": "itk"}, ValueError, "convention is 'itk'"),
        ({"metric": "taxicab", "convention": "medpy"}, ValueError, "convention 'medpy' does not know"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments: dict[str, Any] = {"pred": torch.ones(4, 4), "target": torch.ones(4, 4), **change}
    with pytest.raises(error, match=words):
        mask_distance(**arguments)


def test_the_operator_itself_reads_no_further_than_its_masks() -> None:
    operator = torch.ops.rubriscope.mask_distance
    mask = torch.ones(4, 4, dtype=torch.bool)
    for pred, target, spacing in (
        (mask, mask[:3], [1.0, 1.0]),
        (mask, mask.float(), [1.0, 1.0]),
        (mask, mask, [1.0]),
        (mask, mask, [1.0, 1.0, 1.0]),
        (mask, mask, [1.0, -1.0]),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            operator(pred, target, spacing, -1.0, False, "euclidean", "monai")
    with pytest.raises(ValueError, match="metric is 'x'"):
        operator(mask, mask, [1.0, 1.0], -1.0, False, "x", "monai")


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_narrower_instruction_sets(isa: str) -> None:
    chosen = "test_monai or test_deepmind or test_exact or test_narrow_and_wide"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-k",
            f"({chosen}) and not narrower",
            str(Path(__file__)),
        ],
        env={**os.environ, "RUBRISCOPE_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
