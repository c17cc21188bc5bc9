"""PINN residuals of an MLP (4 × 64 tanh, 100k points): ours against nested autograd and compiled collapsed
Taylor mode.

The peers are what one writes by hand: `torch.autograd.grad` twice (eager), and the value, first derivatives
and Laplacian carried through the layers as further tensors, compiled by inductor. A second compiled peer,
without a target, carries the time derivative and the Laplacian as one tensor, as our plan does.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from rubriscope.ops.physics.collocation import collocation_residual
from torch import Tensor, nn

if TYPE_CHECKING:
    from kernels import KernelBench

POINTS = 100_000
WIDTH = 64
DEPTH = 4
NU = 0.01


def _network(inputs: int, device: torch.device) -> nn.Sequential:
    torch.manual_seed(20261120)
    widths = [inputs] + [WIDTH] * DEPTH
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1)).to(device)


def _formula(name: str, u: Tensor, u_t: Tensor, u_x: Tensor, laplacian: Tensor) -> Tensor:
    return u_t + u * u_x - NU * laplacian if name == "burgers" else u_t - NU * laplacian


def _nested(model: nn.Module, x: Tensor, name: str) -> Tensor:
    """Reverse mode twice, as in PINN code everywhere."""
    x = x.detach().requires_grad_(True)
    u = model(x)
    first = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    laplacian = torch.zeros_like(u[:, 0])
    for axis in range(x.shape[1] - 1):
        second = torch.autograd.grad(first[:, axis].sum(), x, create_graph=True)[0]
        laplacian = laplacian + second[:, axis]
    return _formula(name, u[:, 0], first[:, -1], first[:, 0], laplacian)


def _taylor(model: nn.Sequential, x: Tensor, name: str) -> Tensor:
    """Value, ∂t, the space derivatives and the Laplacian, layer by layer."""
    space = x.shape[1] - 1
    first = model[0]
    assert isinstance(first, nn.Linear)
    z = first(x)
    zt = first.weight[:, space].expand_as(z)
    zs = [first.weight[:, axis].expand_as(z) for axis in range(space)]
    zl = torch.zeros_like(z)
    for layer in list(model)[2::2]:
        assert isinstance(layer, nn.Linear)
        a = torch.tanh(z)
        slope = 1 - a * a
        squares = zs[0] * zs[0]
        for s in zs[1:]:
            squares = squares + s * s
        rows = [a, slope * zt, *(slope * s for s in zs), slope * zl - 2 * a * slope * squares]
        found = (torch.stack(rows) @ layer.weight.t()).unbind(0)
        z, zt, zs, zl = found[0] + layer.bias, found[1], list(found[2:-1]), found[-1]
    return _formula(name, z[:, 0], zt[:, 0], zs[0][:, 0], zl[:, 0])


def _merged(model: nn.Sequential, x: Tensor, name: str) -> Tensor:
    """Value, the space derivatives and ∂t − ν ∇² as one, layer by layer."""
    space = x.shape[1] - 1
    first = model[0]
    assert isinstance(first, nn.Linear)
    z = first(x)
    zs = [first.weight[:, axis].expand_as(z) for axis in range(space)]
    zl = first.weight[:, space].expand_as(z)
    for layer in list(model)[2::2]:
        assert isinstance(layer, nn.Linear)
        a = torch.tanh(z)
        slope = 1 - a * a
        squares = zs[0] * zs[0]
        for s in zs[1:]:
            squares = squares + s * s
        rows = [a, *(slope * s for s in zs), slope * zl + 2 * NU * a * slope * squares]
        found = (torch.stack(rows) @ layer.weight.t()).unbind(0)
        z, zs, zl = found[0] + layer.bias, list(found[1:-1]), found[-1]
    advected = z[:, 0] * zs[0][:, 0] if name == "burgers" else 0.0
    return zl[:, 0] + advected


def rows(bench: KernelBench) -> None:
    """The four rows."""
    for name, label, inputs in (("burgers", "Burgers", 2), ("heat", "heat 2-D", 3)):
        model = _network(inputs, bench.device)
        x = torch.rand(POINTS, inputs, generator=bench.generator).to(bench.device)
        parameters = list(model.parameters())
        key = "nu" if name == "burgers" else "alpha"
        taylor = torch.compile(_taylor, fullgraph=True)
        merged = torch.compile(_merged, fullgraph=True)

        def ours(model: nn.Module = model, x: Tensor = x, name: str = name, key: str = key) -> Tensor:
            found = collocation_residual(model, x, name, {key: NU})
            assert isinstance(found, Tensor)
            return found

        def call(
            residual: Callable[[nn.Sequential, Tensor, str], Tensor],
            model: nn.Sequential = model,
            x: Tensor = x,
            name: str = name,
        ) -> Callable[[], Tensor]:
            return lambda: residual(model, x, name)

        def value(residual: Callable[[], Tensor]) -> Callable[[], Tensor]:
            def run() -> Tensor:
                with torch.no_grad():
                    return residual()

            return run

        def gradient(
            residual: Callable[[], Tensor], parameters: list[nn.Parameter] = parameters
        ) -> Callable[[], tuple[Tensor, ...]]:
            # The heat equation does not see the last bias.
            return lambda: torch.autograd.grad(residual().square().mean(), parameters, allow_unused=True)

        peers = {
            "nested autograd": call(_nested),
            "compiled collapsed Taylor": call(taylor),
            "compiled, merged": call(merged),
        }
        expected = peers["nested autograd"]().detach()
        for found in (ours(), *(peer() for peer in peers.values())):
            torch.testing.assert_close(found.detach(), expected, rtol=1e-3, atol=1e-4)

        # One hidden product is 2 width² operations a point and channel: the value, one per space dimension,
        # and the merged ∂t − ν∇².
        channels = inputs + 1
        flops = 2.0 * POINTS * channels * ((DEPTH - 1) * WIDTH**2 + WIDTH * (inputs + 1))
        bench.row(
            f"PINN residual, {DEPTH} × {WIDTH} tanh, {POINTS // 1000}k points, {label}",
            {
                "rubriscope": value(ours),
                "nested autograd": peers["nested autograd"],
                "compiled collapsed Taylor": value(peers["compiled collapsed Taylor"]),
                "compiled, merged": value(peers["compiled, merged"]),
            },
            {"nested autograd": 2.8, "compiled collapsed Taylor": 2.0},
            limit=("sgemm rate", bench.matmul_seconds(flops)),
        )
        # The gradient: the recomputed forward, the inputs' and the weights' cotangents.
        bench.row(
            f"the same, loss and gradient, {label}",
            {
                "rubriscope": gradient(ours),
                **{peer: gradient(residual) for peer, residual in peers.items()},
            },
            {"nested autograd": 3.0, "compiled collapsed Taylor": 2.0},
            limit=("sgemm rate", bench.matmul_seconds(4 * flops)),
        )
