"""Hausdorff distances between point sets: values, ties, policy, batches, arguments."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rubriscope.ops import hausdorff
from scipy.spatial import cKDTree
from scipy.spatial.distance import directed_hausdorff

DTYPES = [torch.float32, torch.float64]


def brute(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """All distances, in float64."""
    difference = x[:, None, :].astype(np.float64) - y[None, :, :].astype(np.float64)
    return np.sqrt((difference**2).sum(axis=2))


def close(found: torch.Tensor, expected: float, dtype: torch.dtype = torch.float64) -> None:
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert float(found) == pytest.approx(expected, rel=tolerance, abs=0 if expected else 1e-300, nan_ok=True)


def check_all(a: np.ndarray, b: np.ndarray, device: torch.device) -> None:
    """Every reduction of two sets against numpy on all distances, the pair by its index."""
    table = brute(a, b)
    x, y = torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)
    near, back = table.min(axis=1), table.min(axis=0)
    value, index_x, index_y = hausdorff.directed(x, y)
    dtype = x.dtype
    close(value, near.max(), dtype)
    assert int(index_x) == near.argmax()
    assert int(index_y) == table[near.argmax()].argmin()
    close(hausdorff.distance(x, y), max(near.max(), back.max()), dtype)
    close(hausdorff.distance(x, y, directed=True), near.max(), dtype)
    for q in (0.0, 37.5, 95.0, 100.0):
        expected = max(np.percentile(near, q), np.percentile(back, q))
        close(hausdorff.distance(x, y, reduction="percentile", percentile=q), expected, dtype)
    close(hausdorff.distance(x, y, reduction="mean"), (near.mean() + back.mean()) / 2, dtype)
    close(hausdorff.distance(x, y, reduction="mean", directed=True), near.mean(), dtype)
    close(hausdorff.distance(x, y, reduction="modified"), max(near.mean(), back.mean()), dtype)
    close(hausdorff.chamfer(x, y, squared=False), near.mean() + back.mean(), dtype)
    close(hausdorff.chamfer(x, y), (near**2).mean() + (back**2).mean(), dtype)
    # The neighbours themselves, the lowest index where equal.
    operator = torch.ops.rubriscope.hausdorff_reduce.default
    found = operator(x.unsqueeze(0), y.unsqueeze(0), None, None, "mean", 0.0, True)
    assert found[1].cpu().numpy()[0].tolist() == table.argmin(axis=1).tolist()
    assert found[2].cpu().numpy()[0].tolist() == table.argmin(axis=0).tolist()


# ---- against numpy and SciPy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 40), (33, 7), (600, 900)])
def test_every_reduction_is_that_of_all_distances(
    dtype: torch.dtype, dimensions: int, n: int, m: int, device: torch.device
) -> None:
    generator = np.random.default_rng(n * 10 + dimensions)
    kind = np.float32 if dtype == torch.float32 else np.float64
    x, y = (generator.random((count, dimensions)).astype(kind) for count in (n, m))
    check_all(x, y, device)


SHAPES = [
    "uniform",
    "noisy",
    "planar",
    "line",
    "disjoint",
    "clusters",
    "outlier",
    "shells",
    "duplicates",
    "lattice",
]


def sets(shape: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 sets of a kind that some search degrades on."""
    g = np.random.default_rng(seed)
    x, y = g.random((n, 3)), g.random((n, 3))
    if shape == "noisy":
        y = x + 1e-3 * g.normal(size=x.shape)
    elif shape == "planar":
        x[:, 2] = 0.25
        y[:, 2] = 0.5
    elif shape == "line":
        x[:, 1:] = 0
        y[:, 1:] = 0
    elif shape == "disjoint":
        y += 10
    elif shape == "clusters":
        x, y = (1e-3 * s + g.integers(0, 4, size=(n, 3)) for s in (x, y))
    elif shape == "outlier":
        x[n // 2] = 1e4
    elif shape == "shells":
        x, y = (r * s / np.linalg.norm(s, axis=1, keepdims=True) for r, s in ((1, x - 0.5), (2, y - 0.5)))
    elif shape == "duplicates":
        x, y = x[g.integers(0, 9, size=n)], y[g.integers(0, 9, size=n)]
    elif shape == "lattice":
        x, y = (np.round(s * 12) for s in (x, y))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_sets_that_a_search_may_degrade_on(shape: str, device: torch.device) -> None:
    x, y = sets(shape, 1200)
    check_all(x, y, device)
    check_all(x.astype(np.float64), y.astype(np.float64), device)


@pytest.mark.parametrize("shape", SHAPES)
def test_large_sets_against_scipy(shape: str, device: torch.device) -> None:
    x, y = sets(shape, 20_000)
    if shape == "duplicates":
        x, y = x[:3000], y[:3000]  # a k-d tree has no leaf small enough for more
    near, _ = cKDTree(y.astype(np.float64)).query(x.astype(np.float64))
    back, _ = cKDTree(x.astype(np.float64)).query(y.astype(np.float64))
    a, b = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    close(hausdorff.distance(a, b), max(near.max(), back.max()), torch.float32)
    close(hausdorff.distance(a, b, reduction="mean"), (near.mean() + back.mean()) / 2, torch.float32)
    value, index_x, index_y = hausdorff.directed(a, b)
    close(value, near.max(), torch.float32)
    assert int(index_x) == near.argmax()
    pair = x[int(index_x)].astype(np.float64) - y[int(index_y)].astype(np.float64)
    assert np.float32(np.sqrt((pair**2).sum())) == value.cpu().numpy()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sets_for_which_cuda_builds_trees(dtype: torch.dtype, dimensions: int, device: torch.device) -> None:
    """Every reduction, neighbours and weights, on more points than every pair of them pays for on a GPU."""
    g = np.random.default_rng(dimensions)
    kind = np.float32 if dtype == torch.float32 else np.float64
    x = g.random((30_000, dimensions)).astype(kind)
    y = (g.random((25_000, dimensions)) * 1.25 - 0.125).astype(kind)
    y[:5000] = np.round(y[:5000] * 8) / 8  # ties
    near, _ = cKDTree(y.astype(np.float64)).query(x.astype(np.float64))
    back, _ = cKDTree(x.astype(np.float64)).query(y.astype(np.float64))
    a, b = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    for q in (0.0, 50.0, 95.0, 100.0):
        expected = max(np.percentile(near, q), np.percentile(back, q))
        close(hausdorff.distance(a, b, reduction="percentile", percentile=q), expected, dtype)
    close(hausdorff.distance(a, b), max(near.max(), back.max()), dtype)
    close(hausdorff.distance(a, b, directed=True), near.max(), dtype)
    close(hausdorff.distance(a, b, reduction="modified"), max(near.mean(), back.mean()), dtype)
    close(hausdorff.chamfer(a, b), (near**2).mean() + (back**2).mean(), dtype)
    operator = torch.ops.rubriscope.hausdorff_reduce.default
    found = operator(a.unsqueeze(0), b.unsqueeze(0), None, None, "percentile", 95.0, True)
    ours = found[1].cpu().numpy()[0]
    # The same distance, and of equally near ones none lower.
    difference = x.astype(np.float64) - y[ours].astype(np.float64)
    np.testing.assert_allclose(np.sqrt((difference**2).sum(axis=1)), near, rtol=1e-12, atol=0)
    unique, first = np.unique(y, axis=0, return_inverse=True)
    lowest = np.full(len(unique), len(y))
    np.minimum.at(lowest, first.reshape(-1), np.arange(len(y)))
    assert np.array_equal(lowest[first.reshape(-1)[ours]], ours)
    assert float(found[3].sum() + found[4].sum()) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_large_ragged_batches_are_their_items(dimensions: int, device: torch.device) -> None:
    """Trees of several items at once: lengths, infinite points, a NaN, an empty item."""
    g = torch.Generator().manual_seed(17)
    x = torch.rand(5, 9000, dimensions, generator=g)
    y = torch.rand(5, 12_000, dimensions, generator=g)
    x[1, 8000:] = math.nan  # beyond the length
    x[2, 4000, 1] = math.inf
    y[2, 0, 0] = -math.inf
    y[3, 11_999, 0] = math.nan
    x, y = x.to(device), y.to(device)
    n = torch.tensor([9000, 8000, 9000, 9000, 0], device=device)
    m = torch.tensor([12_000, 33, 12_000, 12_000, 7], device=device)
    batched = hausdorff.directed(x, y, n, m)
    both = {r: hausdorff.distance(x, y, n, m, reduction=r) for r in ("max", "percentile", "mean")}  # type: ignore[arg-type]
    for b in range(5):
        a, c = x[b, : n[b]].cpu(), y[b, : m[b]].cpu()
        for found, expected in zip(batched, hausdorff.directed(a, c), strict=True):
            torch.testing.assert_close(found[b].cpu(), expected, rtol=0, atol=0, equal_nan=True)
        for reduction, values in both.items():
            expected = hausdorff.distance(a, c, reduction=reduction)  # type: ignore[arg-type]
            torch.testing.assert_close(values[b].cpu(), expected, rtol=1e-6, atol=0, equal_nan=True)


def test_scipy_directed_hausdorff(device: torch.device) -> None:
    g = np.random.default_rng(5)
    x, y = g.normal(size=(300, 3)), g.normal(size=(200, 3))
    value, index_x, index_y = hausdorff.directed(
        torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    )
    expected = directed_hausdorff(x, y)
    close(value, expected[0])
    assert (int(index_x), int(index_y)) == expected[1:]


coordinates = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, 1e-3, 1e3, 1 + 2**-20, 1e4, 1e4 + 2**-6])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda d: st.tuples(
            *[
                st.lists(st.lists(coordinates, min_size=d, max_size=d), min_size=1, max_size=40)
                for _ in range(2)
            ]
        )
    ),
    st.sampled_from([np.float32, np.float64]),
)
def test_degenerate_sets(points: tuple[list[list[float]], list[list[float]]], kind: Any) -> None:
    check_all(np.array(points[0], dtype=kind), np.array(points[1], dtype=kind), torch.device("cpu"))


# ---- analytic values and exactness


def test_translation_circle_lattice_and_subset(device: torch.device) -> None:
    g = torch.Generator().manual_seed(3)
    # Far apart, the translated set's nearest points are the farthest ones' images only along a line.
    line = torch.arange(100, dtype=torch.float64).unsqueeze(1).to(device)
    close(hausdorff.distance(line, line + 7), 7)
    angle = torch.arange(1000, dtype=torch.float64, device=device) * (2 * math.pi / 1000)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert float(hausdorff.distance(circle, 3 * circle)) == pytest.approx(2, rel=1e-14)
    lattice = torch.cartesian_prod(*[torch.arange(9.0)] * 3).to(device)
    close(hausdorff.distance(lattice, lattice + 0.5), math.sqrt(0.75), torch.float32)
    cloud = torch.rand(500, 3, generator=g).to(device)
    value, index_x, index_y = hausdorff.directed(cloud[100:], cloud)
    assert (float(value), int(index_x), int(index_y)) == (0.0, 0, 100)


def test_no_cancellation_far_from_the_origin(device: torch.device) -> None:
    x = torch.tensor([[1e4, 1e4, 1e4]], device=device)
    y = x.clone()
    y[0, 0] += 1 / 64
    assert float(hausdorff.distance(x, y)) == 1 / 64
    assert float(hausdorff.chamfer(x, y, squared=False)) == 2 / 64
    high = torch.full((1, 20), 1e4, device=device)
    other = high.clone()
    other[0, 7] += 1 / 64
    assert float(hausdorff.distance(high, other)) == 1 / 64


@pytest.mark.parametrize("dimensions", [3, 6])
def test_near_identical_clouds_to_the_last_bit(dimensions: int, device: torch.device) -> None:
    """Where |a|² + |b|² − 2ab in float32 was off by 66 %."""
    g = np.random.default_rng(1)
    x = (100 + g.random((2000, dimensions))).astype(np.float32)
    y = x + (1e-4 * g.normal(size=x.shape)).astype(np.float32)
    expected = np.float32(max(brute(x, y).min(axis=1).max(), brute(x, y).min(axis=0).max()))
    assert (
        hausdorff.distance(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)).item() == expected
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [2, 5])
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_squares_neither_overflow_nor_underflow(
    dtype: torch.dtype, dimensions: int, factor: float, device: torch.device
) -> None:
    g = np.random.default_rng(2)
    x, y = g.random((100, dimensions)), g.random((90, dimensions))
    power = factor if dtype == torch.float32 else factor**8
    a, b = (torch.from_numpy(s * power).to(dtype).to(device) for s in (x, y))
    expected = brute(x, y).min(axis=1).max() * power
    assert float(hausdorff.distance(a, b, directed=True)) == pytest.approx(expected, rel=1e-6)


# ---- policy


@pytest.mark.parametrize("dimensions", [3, 5])
def test_empty_sets_and_nan(dimensions: int, device: torch.device) -> None:
    x = torch.rand(7, dimensions, device=device)
    none = x[:0]
    bad = x.clone()
    bad[3, 1] = math.nan
    cases = [
        (x, none, math.inf),
        (none, x, math.inf),
        (none, none, math.nan),
        (x, bad, math.nan),
        (bad, x, math.nan),
    ]
    for a, b, expected in cases:
        value, index_x, index_y = hausdorff.directed(a, b)
        assert (int(index_x), int(index_y)) == (-1, -1)
        close(value, expected)
        for reduction in ("max", "percentile", "mean", "modified"):
            close(hausdorff.distance(a, b, reduction=reduction), expected)  # type: ignore[arg-type]
        close(hausdorff.chamfer(a, b), expected)


@pytest.mark.parametrize("dimensions", [3, 5])
def test_an_infinite_coordinate_is_infinitely_far(dimensions: int, device: torch.device) -> None:
    x = torch.rand(50, dimensions, device=device)
    y = torch.rand(60, dimensions, device=device)
    expected = hausdorff.directed(x, y)
    far = y.clone()
    far[int(expected[2]), 0] += 0
    far = torch.cat([far, torch.full((2, dimensions), -math.inf, device=device)])
    # As a target it is nobody's neighbour; as a query it decides.
    assert [t.item() for t in hausdorff.directed(x, far)] == [t.item() for t in expected]
    value, index_x, index_y = hausdorff.directed(far, x)
    assert (float(value), int(index_x), int(index_y)) == (math.inf, 60, 0)
    value, index_x, index_y = hausdorff.directed(x, far[60:])
    assert (float(value), int(index_x), int(index_y)) == (math.inf, 0, 0)
    assert float(hausdorff.distance(x, far)) == math.inf
    assert math.isfinite(float(hausdorff.distance(x, far, reduction="percentile", percentile=50)))


def test_ties_go_to_the_lowest_index(device: torch.device) -> None:
    x = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 0.0], [10.0, 0.0]], device=device)
    y = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [9.0, 0.0], [11.0, 0.0]], device=device)
    assert [t.item() for t in hausdorff.directed(x, y)] == [1.0, 0, 0]
    assert [t.item() for t in hausdorff.directed(x.flip(0), y)] == [1.0, 0, 2]
    # Many equal pairs, in each of the searches.
    for dimensions in (1, 2, 3, 4):
        many = torch.ones(5000 if dimensions < 4 else 600, dimensions, device=device)
        assert [t.item() for t in hausdorff.directed(many, many)] == [0.0, 0, 0]
        other = many.clone()
        other[:, 0] += 1
        assert [t.item() for t in hausdorff.directed(many, other)] == [1.0, 0, 0]


# ---- batches


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [3, 4])
def test_ragged_batches_are_their_items(dtype: torch.dtype, dimensions: int, device: torch.device) -> None:
    g = torch.Generator().manual_seed(7)
    x = torch.randn(6, 40, dimensions, generator=g, dtype=dtype).to(device)
    y = torch.randn(6, 35, dimensions, generator=g, dtype=dtype).to(device)
    n = torch.tensor([40, 1, 0, 0, 17, 33], device=device)
    m = torch.tensor([35, 20, 5, 0, 0, 34], device=device)
    x[1, 1:] = math.nan  # beyond the length: not looked at
    batched = hausdorff.directed(x, y, n, m)
    for b in range(6):
        a, c = x[b, : n[b]], y[b, : m[b]]
        for found, expected in zip(batched, hausdorff.directed(a, c), strict=True):
            torch.testing.assert_close(found[b], expected, rtol=0, atol=0, equal_nan=True)
        for reduction in ("max", "percentile", "mean", "modified"):
            found = hausdorff.distance(x, y, n, m, reduction=reduction)[b]  # type: ignore[arg-type]
            expected = hausdorff.distance(a, c, reduction=reduction)  # type: ignore[arg-type]
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        found, expected = hausdorff.chamfer(x, y, n, m)[b], hausdorff.chamfer(a, c)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_views_and_half_types(device: torch.device) -> None:
    g = torch.Generator().manual_seed(8)
    x = torch.rand(3, 300, generator=g).to(device).t()
    y = torch.rand(400, 6, generator=g).to(device)[:, ::2]
    expected = hausdorff.distance(x.contiguous(), y.contiguous())
    assert hausdorff.distance(x, y) == expected
    offset = torch.rand(1 + 3 * 1000, generator=g).to(device)[1:].view(1000, 3)  # not on a vector's boundary
    assert hausdorff.distance(offset, y) == hausdorff.distance(offset.clone(), y)
    for dtype in (torch.float16, torch.bfloat16):
        half = hausdorff.distance(x.to(dtype), y.to(dtype))
        assert half.dtype == dtype
        assert half == hausdorff.distance(x.to(dtype).float(), y.to(dtype).float()).to(dtype)
    empty = hausdorff.distance(torch.zeros(0, 5, 3, device=device), torch.zeros(0, 4, 3, device=device))
    assert empty.shape == (0,)


@pytest.mark.parametrize("shape", ["uniform", "shells", "lattice"])
def test_threads_do_not_change_a_bit(shape: str) -> None:
    x, y = (torch.from_numpy(s) for s in sets(shape, 30_000))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(
                [
                    *hausdorff.directed(x, y),
                    hausdorff.distance(x, y),
                    hausdorff.distance(x, y, reduction="mean"),
                    hausdorff.distance(x[:2000].repeat(1, 2), y[:2000].repeat(1, 2)),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.skipif("RUBRISCOPE_ISA" in os.environ, reason="is what the test starts")
@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa: str) -> None:
    chosen = "reduction or degrade or ties or far or last_bit or overflow"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", chosen]
    done = subprocess.run(
        command, env={**os.environ, "RUBRISCOPE_ISA": isa}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- arguments


def test_wrong_arguments_are_named() -> None:
    x, y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
    lengths = torch.tensor([1, 2])
    for error, message, call in [
        (TypeError, "x is a list", lambda: hausdorff.directed([[1.0]], y)),  # type: ignore[arg-type]
        (TypeError, "y has dtype torch.int64", lambda: hausdorff.directed(x, y.long())),
        (
            TypeError,
            "y has dtype torch.float64, expected torch.float32",
            lambda: hausdorff.distance(x, y.double()),
        ),
        (ValueError, r"x has shape \(3,\)", lambda: hausdorff.distance(x[0, 0], y)),
        (ValueError, r"y has shape \(4, 3\), expected 3 dimensions", lambda: hausdorff.distance(x, y[0])),
        (ValueError, "expected 3 coordinates", lambda: hausdorff.distance(x, y[..., :2])),
        (ValueError, "at least one coordinate", lambda: hausdorff.distance(x[..., :0], y[..., :0])),
        (ValueError, "expected a batch of 2", lambda: hausdorff.chamfer(x, y[:1])),
        (ValueError, "reduction is 'median'", lambda: hausdorff.distance(x, y, reduction="median")),  # type: ignore[arg-type]
        (ValueError, "percentile is 101", lambda: hausdorff.distance(x, y, percentile=101)),
        (ValueError, "percentile is nan", lambda: hausdorff.distance(x, y, percentile=math.nan)),
        (TypeError, "x_lengths is a list", lambda: hausdorff.directed(x, y, [1, 2])),  # type: ignore[arg-type]
        (TypeError, "y_lengths has dtype torch.int32", lambda: hausdorff.directed(x, y, None, lengths.int())),
        (ValueError, r"x_lengths has shape \(1,\)", lambda: hausdorff.directed(x, y, lengths[:1])),
        (ValueError, "x_lengths holds 6, expected 0 to 5", lambda: hausdorff.directed(x, y, lengths + 4)),
        (ValueError, "y_lengths holds -1", lambda: hausdorff.chamfer(x, y, lengths, lengths - 2)),
        (ValueError, "x_lengths is given", lambda: hausdorff.chamfer(x[0], y[0], lengths)),
    ]:
        with pytest.raises(error, match=message):  # type: ignore[call-overload]
            call()


def test_the_operators_check_memory_themselves() -> None:
    operators = torch.ops.rubriscope
    x, y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
    for message, call in [
        ("x has 2 dimensions", lambda: operators.hausdorff_max(x[0], y, None, None, True)),
        ("y holds 1 items", lambda: operators.hausdorff_max(x, y[:1], None, None, True)),
        ("y has 2 coordinates", lambda: operators.hausdorff_max(x, y[..., :2], None, None, True)),
        ("neither float32", lambda: operators.hausdorff_max(x.half(), y.half(), None, None, True)),
        ("another dtype", lambda: operators.hausdorff_max(x, y.double(), None, None, True)),
        ("x_lengths holds 6", lambda: operators.hausdorff_max(x, y, torch.tensor([6, 1]), None, True)),
        ("y_lengths is not of shape", lambda: operators.hausdorff_max(x, y, None, torch.tensor([1]), True)),
        ("percentile is 200", lambda: operators.hausdorff_reduce(x, y, None, None, "mean", 200.0, True)),
        ("reduction is 'x'", lambda: operators.hausdorff_reduce(x, y, None, None, "x", 20.0, True)),
    ]:
        with pytest.raises(RuntimeError, match=message):
            call()
