"""Gradients of the Hausdorff operators, opcheck, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rubriscope.ops import hausdorff
from scipy.spatial import cKDTree

REDUCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "max": lambda *a: hausdorff.distance(*a),
    "directed": lambda *a: hausdorff.directed(*a)[0],
    "percentile": lambda *a: hausdorff.distance(*a, reduction="percentile", percentile=80),
    "percentile, directed": lambda *a: hausdorff.distance(
        *a, reduction="percentile", percentile=33, directed=True
    ),
    "mean": lambda *a: hausdorff.distance(*a, reduction="mean"),
    "modified": lambda *a: hausdorff.distance(*a, reduction="modified"),
    "chamfer": lambda *a: hausdorff.chamfer(*a),
    "chamfer, not squared": lambda *a: hausdorff.chamfer(*a, squared=False),
}


def clouds(
    device: torch.device, dimensions: int = 3, dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(dimensions)
    return [
        torch.randn(2, n, dimensions, generator=g, dtype=dtype).to(device).requires_grad_() for n in (12, 9)
    ]


@pytest.mark.parametrize("dimensions", [1, 3, 5])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradcheck(name: str, dimensions: int, device: torch.device) -> None:
    x, y = clouds(device, dimensions)
    lengths = [torch.tensor([12, 7], device=device), torch.tensor([5, 9], device=device)]
    call = REDUCTIONS[name]
    assert torch.autograd.gradcheck(call, (x, y))
    assert torch.autograd.gradcheck(lambda a, b: call(a, b, *lengths), (x, y))


@pytest.mark.parametrize("name", ["max", "directed"])
def test_second_derivatives_of_the_pair(name: str, device: torch.device) -> None:
    x, y = clouds(device)
    assert torch.autograd.gradgradcheck(REDUCTIONS[name], (x, y))


def test_second_derivatives_of_reductions_raise(device: torch.device) -> None:
    x, y = clouds(device)
    (grad,) = torch.autograd.grad(hausdorff.chamfer(x, y).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
        grad.sum().backward()


def test_a_unit_vector_at_the_pair(device: torch.device) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], device=device, requires_grad=True)
    y = torch.tensor([[0.0, 0.0]], device=device, requires_grad=True)
    hausdorff.distance(x, y).backward()
    assert x.grad is not None and y.grad is not None
    torch.testing.assert_close(x.grad.cpu(), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    torch.testing.assert_close(y.grad.cpu(), torch.tensor([[-0.6, -0.8]]))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_no_gradient_at_zero_distance_and_without_a_pair(name: str, device: torch.device) -> None:
    same = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(0)).to(device)
    x, y = same.clone().requires_grad_(), same.clone().requires_grad_()
    for lengths in (None, torch.tensor([0, 0], device=device), torch.tensor([0, 3], device=device)):
        grads = torch.autograd.grad(REDUCTIONS[name](x, y, lengths).sum(), (x, y))
        if lengths is None:
            assert all(not g.any() for g in grads)
        else:
            assert not grads[0][0].any() and not grads[1][0].any()
    none = same[:, :0].clone().requires_grad_()
    grads = torch.autograd.grad(REDUCTIONS[name](none, y).sum(), (none, y))
    assert grads[0].shape == (2, 0, 3) and not grads[1].any()
    far = same.clone()
    far[:, 0] = torch.inf
    grads = torch.autograd.grad(REDUCTIONS[name](far.requires_grad_(), y).sum(), (far, y))
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_one_side_needs_a_gradient(name: str, device: torch.device) -> None:
    x, y = clouds(device)
    both = torch.autograd.grad(REDUCTIONS[name](x, y).sum(), (x, y))
    (only_x,) = torch.autograd.grad(REDUCTIONS[name](x, y.detach()).sum(), x)
    (only_y,) = torch.autograd.grad(REDUCTIONS[name](x.detach(), y).sum(), y)
    assert torch.equal(only_x, both[0]) and torch.equal(only_y, both[1])
    assert not REDUCTIONS[name](x.detach(), y.detach()).requires_grad
    with torch.no_grad():
        assert not REDUCTIONS[name](x, y).requires_grad
    assert torch.equal(REDUCTIONS[name](x, y).detach(), REDUCTIONS[name](x.detach(), y.detach()))


def test_chamfer_gradient_against_autograd_over_scipys_neighbours(device: torch.device) -> None:
    g = np.random.default_rng(4)
    a, b = g.random((5000, 3)), g.random((4000, 3))
    x, y = (torch.from_numpy(s).to(device).requires_grad_() for s in (a, b))
    grads = torch.autograd.grad(hausdorff.chamfer(x, y, squared=False), (x, y))
    of_x, of_y = torch.from_numpy(cKDTree(b).query(a)[1]), torch.from_numpy(cKDTree(a).query(b)[1])
    u, v = torch.from_numpy(a).requires_grad_(), torch.from_numpy(b).requires_grad_()
    loss = (u - v[of_x]).norm(dim=1).mean() + (v - u[of_y]).norm(dim=1).mean()
    for found, expected in zip(grads, torch.autograd.grad(loss, (u, v)), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-12, atol=1e-15)


def test_half_types_have_gradients(device: torch.device) -> None:
    x, y = clouds(device, dtype=torch.float16)
    grads = torch.autograd.grad(hausdorff.chamfer(x, y).sum(), (x, y))
    assert all(g.dtype == torch.float16 and g.any() for g in grads)


# ---- opcheck and torch.compile


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype, device: torch.device) -> None:
    x, y = clouds(device, dtype=dtype)
    lengths = torch.tensor([12, 7], device=device)
    operators = torch.ops.rubriscope
    torch.library.opcheck(operators.hausdorff_max.default, (x, y, lengths, None, True))
    torch.library.opcheck(operators.hausdorff_reduce.default, (x, y, lengths, None, "mean", 0.0, True))
    x, y = x.detach(), y.detach()
    torch.library.opcheck(operators.hausdorff_max.plain, (x, y, None, None, False))
    torch.library.opcheck(operators.hausdorff_reduce.plain, (x, y, None, None, "percentile", 95.0, False))
    out = operators.hausdorff_reduce.default(x, y, None, None, "mean", 0.0, True)
    torch.library.opcheck(operators.hausdorff_reduce_backward.default, (out[0], x, y, *out[1:], False))


def everything(x: torch.Tensor, y: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    distance, index_x, index_y = hausdorff.directed(x, y, lengths)
    total = distance + hausdorff.distance(x, y, reduction="percentile") + hausdorff.chamfer(x, y, lengths)
    return (total * (1 + 0 * (index_x + index_y))).sum()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(backend: str, device: torch.device) -> None:
    x, y = clouds(device, dtype=torch.float32)
    lengths = torch.tensor([12, 7], device=device)
    compiled: Any = torch.compile(everything, fullgraph=True, backend=backend)
    value, expected = compiled(x, y, lengths), everything(x, y, lengths)
    torch.testing.assert_close(value, expected)
    found, wanted = (torch.autograd.grad(v, (x, y)) for v in (value, expected))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, y, lengths), expected)
