"""Residuals on grids against the same formula in eager torch and compiled by inductor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from kernels import KernelBench

SIDE, STEP, DT, NU = 1024, 0.01, 1e-3, 0.1


def _dx(u: torch.Tensor) -> torch.Tensor:
    return (u.roll(-1, 0) - u.roll(1, 0)) * (0.5 / STEP)


def _dy(u: torch.Tensor) -> torch.Tensor:
    return (u.roll(-1, 1) - u.roll(1, 1)) * (0.5 / STEP)


def _laplacian(u: torch.Tensor) -> torch.Tensor:
    around = u.roll(1, 0) + u.roll(-1, 0) + u.roll(1, 1) + u.roll(-1, 1)
    return (around - 4.0 * u) * (1.0 / STEP**2)


def heat(now: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """The heat equation's residual as one writes it in torch."""
    return (new - now) * (1.0 / DT) - NU * _laplacian(new)


def heat_loss(now: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Its mean square."""
    return heat(now, new).square().mean()


def navier_stokes(
    u0: torch.Tensor, v0: torch.Tensor, u: torch.Tensor, v: torch.Tensor, p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two-dimensional Navier–Stokes equations' residuals as one writes them in torch."""
    ux, uy, vx, vy = _dx(u), _dy(u), _dx(v), _dy(v)
    return (
        (u - u0) * (1.0 / DT) + u * ux + v * uy + _dx(p) - NU * _laplacian(u),
        (v - v0) * (1.0 / DT) + u * vx + v * vy + _dy(p) - NU * _laplacian(v),
        ux + vy,
    )


def _with_gradient(loss: Callable[..., torch.Tensor], *fields: torch.Tensor) -> Callable[[], Any]:
    def call() -> Any:
        value = loss(*fields)
        return value, torch.autograd.grad(value, fields)

    return call


def rows(bench: KernelBench) -> None:
    """Adds the family's lines."""
    from rubriscope.ops import physics

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=bench.generator).to(bench.device)

    def against(eager: Callable[..., Any], *fields: torch.Tensor) -> dict[str, Callable[[], Any]]:
        compiled = torch.compile(eager, fullgraph=True)
        return {"torch.compile": lambda: compiled(*fields), "eager": lambda: eager(*fields)}

    # glibc gives freed outputs back to the system and takes them again, page by page, until a larger block
    # was freed once: here, before all, so that no case pays for pages that another one does not.
    largest = torch.empty(24 << 20, dtype=torch.uint8)
    del largest
    spacing = (STEP, STEP)
    field_bytes = 4 * SIDE * SIDE
    now, new = random(SIDE, SIDE), random(SIDE, SIDE)
    bench.row(
        f"heat residual, {SIDE}²",
        {
            "rubriscope": lambda: physics.fd_residual(
                (now, new), "heat", spacing, dt=DT, params={"alpha": NU}
            ),
            **against(heat, now, new),
        },
        {"torch.compile": 2},
        limit=("copy bandwidth", bench.copy(2 * field_bytes, field_bytes)),
    )

    def ours(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return physics.fd_residual_loss((a, b), "heat", spacing, dt=DT, params={"alpha": NU})

    compiled_loss = torch.compile(heat_loss, fullgraph=True)
    both = [t.clone().requires_grad_() for t in (now, new)]
    bench.row(
        f"heat loss and gradient, {SIDE}²",
        {
            "rubriscope": _with_gradient(ours, *both),
            "torch.compile": _with_gradient(compiled_loss, *both),
            "eager": _with_gradient(heat_loss, *both),
        },
        {"torch.compile": 2.5},
        limit=("copy bandwidth", bench.copy(2 * field_bytes, 2 * field_bytes)),
    )

    u0, v0, u, v, p = (random(SIDE, SIDE) for _ in range(5))
    bench.row(
        f"Navier–Stokes 2-D residual, {SIDE}²",
        {
            "rubriscope": lambda: physics.fd_residual(
                (u0, v0, p, u, v, p), "navier_stokes", spacing, dt=DT, params={"nu": NU}
            ),
            **against(navier_stokes, u0, v0, u, v, p),
        },
        {"torch.compile": 2},
        limit=("copy bandwidth", bench.copy(5 * field_bytes, 3 * field_bytes)),
    )
