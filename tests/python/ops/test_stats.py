"""tensor_stats against NumPy in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rubriscope.ops import TensorStats, magnitude_bin_edges, tensor_stats

FLOATING = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
NAN, INF = float("nan"), float("inf")


def check(t: torch.Tensor, found: TensorStats, tolerance: float = 1e-12) -> None:
    values = t.detach().cpu().double().numpy().ravel()
    finite = values[np.isfinite(values)]
    assert found.count.item() == values.size
    assert found.nan_count.item() == np.isnan(values).sum()
    assert found.inf_count.item() == np.isinf(values).sum()
    assert found.zero_count.item() == (values == 0).sum()
    magnitudes = np.abs(finite[finite != 0])
    expected, _ = np.histogram(magnitudes, [*magnitude_bin_edges().tolist()[:-1], INF])
    assert found.histogram.cpu().tolist() == expected.tolist()
    if finite.size == 0:
        assert found.min.isnan() and found.max.isnan() and found.mean.isnan()
    else:
        assert found.min.item() == finite.min() and found.max.item() == finite.max()
        exact = finite.astype(np.longdouble)
        size = float(np.abs(exact).max())
        assert found.mean.item() == pytest.approx(float(exact.mean()), rel=tolerance, abs=1e-15 * size)
    if finite.size < 2:
        assert found.variance.isnan()
    else:
        assert found.variance.item() == pytest.approx(float(exact.var(ddof=1)), rel=tolerance, abs=1e-300)


@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 15, 16, 17, 63, 64, 65, 1000, 8191, 8193, 131073, 300001])
def test_normal_numbers(dtype: torch.dtype, count: int, device: torch.device) -> None:
    t = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(device, dtype)
    found = tensor_stats(t)
    assert all(part.device == t.device for part in found)
    check(t, found)


@pytest.mark.parametrize("dtype", FLOATING)
def test_special_values(dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    for count in (5, 40, 20000):
        t = torch.randn(count, generator=generator).to(dtype)
        kind = torch.randint(0, 12, (count,), generator=generator)
        for which, value in enumerate((NAN, INF, -INF, 0.0, -0.0)):
            t[kind == which] = value
        t[kind == 5] = torch.finfo(dtype).smallest_normal / 4
        check(t.to(device), tensor_stats(t.to(device)))
    for value in (NAN, INF, -INF, 0.0, -0.0, 3.5):
        t = torch.full((9001,), value, dtype=dtype, device=device)
        check(t, tensor_stats(t))


@pytest.mark.parametrize("dtype", FLOATING)
def test_every_exponent(dtype: torch.dtype, device: torch.device) -> None:
    """All powers of two of the dtype, and what is just below each, in an order the window cannot follow."""
    lowest, highest = {
        torch.float32: (-149, 127),
        torch.float64: (-1074, 1023),
        torch.float16: (-24, 15),
        torch.bfloat16: (-133, 127),
    }[dtype]
    powers = torch.tensor([2.0**e for e in range(lowest, highest + 1)], dtype=torch.float64).to(dtype)
    below = torch.nextafter(powers, torch.zeros_like(powers)) if dtype != torch.float16 else powers * 0.999
    t = torch.cat([powers, below, -powers]).repeat(20)
    t = t[torch.randperm(len(t), generator=torch.Generator().manual_seed(2))].to(device)
    found = tensor_stats(t)
    values = t.cpu().double()
    inside = values[values != 0].abs()
    # By edges: log2 of what is just below a power of two may round up to it.
    edges = magnitude_bin_edges()
    expected = torch.bincount(torch.bucketize(inside, edges[1:-1], right=True), minlength=128)
    assert torch.equal(found.histogram.cpu(), expected)


@pytest.mark.parametrize("mean", [1e4, -1e6, 3e7])
def test_nothing_cancels_where_the_mean_is_large(mean: float, device: torch.device) -> None:
    noise = torch.rand(200000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    check(mean + noise.to(device), tensor_stats(mean + noise.to(device)), 1e-9)
    t = (mean + 100 * noise).float().to(device)
    check(t, tensor_stats(t), 1e-9)
    first = t.clone()
    first[0] = -1e9  # an outlier where the shift is taken from
    check(first, tensor_stats(first), 1e-9)


def test_large_numbers(device: torch.device) -> None:
    t = torch.tensor([3e38, -3e38, 1e38, 1.0] * 100, device=device)
    check(t, tensor_stats(t))
    check(t.double() * 1e110, tensor_stats(t.double() * 1e110))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, NAN, INF])), max_size=70),
    st.sampled_from([1, 30]),
)
def test_any_numbers(numbers: list[float], times: int) -> None:
    t = torch.tensor(numbers, dtype=torch.float32).repeat(times)
    check(t, tensor_stats(t), 1e-9)


def test_changing_magnitudes(device: torch.device) -> None:
    """The window of common exponents has to follow; what it counts must not depend on it."""
    generator = torch.Generator().manual_seed(4)
    parts = [torch.randn(30000, generator=generator) * 10.0**e for e in (0, -30, 20, 37, -37, 0)]
    parts.append(torch.exp2(torch.empty(30000).uniform_(-120, 120, generator=generator)))
    parts.append(torch.relu(torch.randn(30000, generator=generator)))
    for t in (torch.cat(parts), torch.cat(parts).double()):
        check(t.to(device), tensor_stats(t.to(device)), 1e-9)


def test_layouts(device: torch.device) -> None:
    t = torch.randn(6, 10, 14, 8, generator=torch.Generator().manual_seed(5)).to(device)
    for view in (
        t.permute(2, 0, 3, 1), t.to(memory_format=torch.channels_last), t[:, ::2], t[..., 3], t[:, :, :1],
        t[2:4], t.expand(2, *t.shape), t[:0], t.reshape(-1)[1:],
    ):  # fmt: skip
        check(view, tensor_stats(view))
    assert all(torch.equal(a, b) for a, b in zip(tensor_stats(t), tensor_stats(t.movedim(0, 2)), strict=True))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool])
def test_integers(dtype: torch.dtype, device: torch.device) -> None:
    t = torch.randint(0, 2 if dtype == torch.bool else 100, (5000,)).to(device, dtype)
    check(t, tensor_stats(t))


def test_the_same_bits_with_any_number_of_threads() -> None:
    t = torch.randn(700001, generator=torch.Generator().manual_seed(6)) + 0.3
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append([part.tolist() for part in tensor_stats(t)])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_edges() -> None:
    edges = magnitude_bin_edges()
    assert edges.dtype == torch.float64 and edges.shape == (129,)
    assert (
        edges[0] == 0
        and edges[1] == 2.0**-63
        and edges[64] == 1
        and edges[127] == 2.0**63
        and edges[128] == INF
    )
    assert tensor_stats(torch.tensor([1.0, 1.99, 2.0, 0.5])).histogram[63:66].tolist() == [1, 2, 1]


@pytest.mark.parametrize("dtype", FLOATING)
def test_operator(dtype: torch.dtype, device: torch.device) -> None:
    for t in (
        torch.randn(100, device=device, dtype=dtype),
        torch.randn(3, 4, device=device, dtype=dtype).t(),
    ):
        torch.library.opcheck(torch.ops.rubriscope.tensor_stats.default, (t,))


def test_compile(device: torch.device) -> None:
    t = torch.randn(1000, device=device)

    def spread(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = tensor_stats(t * 2)
        return found.variance.sqrt(), found.histogram

    compiled = torch.compile(spread, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(t), spread(t), strict=True))


def test_no_gradient() -> None:
    t = torch.randn(10, requires_grad=True)
    assert not any(part.requires_grad for part in tensor_stats(t))
    assert not any(part.requires_grad for part in tensor_stats(t * 2))


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="t is a list"):
        tensor_stats([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="complex64"):
        tensor_stats(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(RuntimeError, match="t must be float32"):
        torch.ops.rubriscope.tensor_stats(torch.ones(3, dtype=torch.int32))


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_narrower_instruction_sets(isa: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-k",
            "not narrower and not compile",
            str(Path(__file__)),
        ],
        env={**os.environ, "RUBRISCOPE_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
