"""Residuals on grids against mathematics: discrete symbols, observed orders, exact solutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rubriscope.ops.physics import fd_residual, register_pde
from rubriscope.ops.physics._equations import EQUATIONS

PI = math.pi

# Weights at 1, 2, … of the central stencils, as tabulated by Fornberg (1988): odd and even derivatives.
TABULATED = {
    ("x", 2): [1 / 2],
    ("x", 4): [2 / 3, -1 / 12],
    ("x", 6): [3 / 4, -3 / 20, 1 / 60],
    ("xx", 2): [1.0],
    ("xx", 4): [4 / 3, -1 / 12],
    ("xx", 6): [3 / 2, -3 / 20, 1 / 90],
    ("xxx", 2): [-1.0, 1 / 2],
    ("xxx", 4): [-13 / 8, 1.0, -1 / 8],
    ("xxx", 6): [-61 / 30, 169 / 120, -3 / 10, 7 / 240],
    ("xxxx", 2): [-4.0, 1.0],
    ("xxxx", 4): [-13 / 2, 2.0, -1 / 6],
    ("xxxx", 6): [-122 / 15, 169 / 60, -2 / 5, 7 / 240],
}


def derivative(by: str) -> str:
    """An equation whose residual is one derivative."""
    name = f"test_derivative_{by}"
    if name not in EQUATIONS:
        register_pde(name, lambda d, p: d("u", by), fields=("u",), time_order=0)
    return name


@pytest.mark.parametrize(("by", "order"), list(TABULATED))
def test_symbols_on_fourier_modes(by: str, order: int) -> None:
    """A mode e^{iθj} is multiplied by the stencil's symbol, to rounding, for every wave number."""
    n, h = 24, 0.3
    weights = TABULATED[by, order]
    j = torch.arange(n, dtype=torch.float64)
    for wave in range(n // 2 + 1):
        angle = 2 * PI * wave / n
        if len(by) % 2:
            symbol = sum(2 * w * math.sin((k + 1) * angle) for k, w in enumerate(weights)) / h ** len(by)
            expected = -symbol * torch.sin(angle * j)
        else:
            symbol = sum(2 * w * (math.cos((k + 1) * angle) - 1) for k, w in enumerate(weights)) / h ** len(
                by
            )
            expected = symbol * torch.cos(angle * j)
        found = fd_residual(torch.cos(angle * j), derivative(by), h, order=order)
        size = sum(map(abs, weights)) * 4 / h ** len(by)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14 * size)


def test_mixed_symbol() -> None:
    n, h = 16, (0.3, 0.5)
    i, j = torch.meshgrid(*[torch.arange(n, dtype=torch.float64)] * 2, indexing="ij")
    a, b = 2 * PI * 3 / n, 2 * PI * 5 / n
    found = fd_residual(torch.cos(a * i) * torch.cos(b * j), derivative("xy"), h)
    expected = math.sin(a) / h[0] * math.sin(b) / h[1] * torch.sin(a * i) * torch.sin(b * j)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14 / (h[0] * h[1]))


def grid(n: int, low: float, high: float, bc: str, dimensions: int) -> tuple[list[torch.Tensor], float]:
    """Coordinates by axis, and the spacing."""
    h = (high - low) / (n if bc == "periodic" else n - 1)
    axis = low + h * torch.arange(n, dtype=torch.float64)
    return list(torch.meshgrid(*[axis] * dimensions, indexing="ij")), h


@pytest.mark.parametrize("order", [2, 4, 6])
@pytest.mark.parametrize(
    ("bc", "u", "high"),
    [
        ("periodic", lambda x: torch.exp(torch.sin(x)), 2 * PI),
        ("neumann", lambda x: torch.exp(torch.cos(x)), PI),
        ("dirichlet", lambda x: torch.exp(0.8 * x) * torch.cos(x), 3.0),
    ],
)
@pytest.mark.parametrize("by", ["x", "xx", "xxxx"])
def test_observed_order(
    by: str, bc: str, u: Callable[[torch.Tensor], torch.Tensor], high: float, order: int
) -> None:
    """The error against the derivative by autograd falls as h^order, at boundaries too."""
    errors = []
    for n in (40, 80) if by != "xxxx" or order < 6 else (24, 48):
        n += bc != "periodic"
        (x,), h = grid(n, 0.0, high, bc, 1)
        x.requires_grad_()
        value = u(x)
        exact = value
        for _ in by:
            (exact,) = torch.autograd.grad(exact.sum(), x, create_graph=True)
        found = fd_residual(value.detach(), derivative(by), h, order=order, bc=bc)
        error = (found - exact.detach()).abs()
        errors.append((error[1:-1] if bc == "dirichlet" else error).max().item())
    assert math.log2(errors[0] / errors[1]) > order - 0.95


def heat(x: torch.Tensor, y: torch.Tensor, t: float) -> list[torch.Tensor]:
    return [math.exp(-0.3 * 5 * t) * torch.sin(x) * torch.cos(2 * y)]


def cole_hopf(x: torch.Tensor, t: float) -> list[torch.Tensor]:
    e = 0.5 * math.exp(-0.4 * t)
    return [0.8 * e * torch.sin(x) / (1 + e * torch.cos(x))]


def taylor_green(x: torch.Tensor, y: torch.Tensor, t: float) -> list[torch.Tensor]:
    f = math.exp(-2 * 0.2 * t)
    return [
        -f * torch.cos(x) * torch.sin(y),
        f * torch.sin(x) * torch.cos(y),
        -0.25 * f * f * (torch.cos(2 * x) + torch.cos(2 * y)),
    ]


def beltrami(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, t: float) -> list[torch.Tensor]:
    """The Arnold–Beltrami–Childress flow, decaying."""
    f = math.exp(-0.2 * t)
    u = f * (1.0 * torch.sin(z) + 0.5 * torch.cos(y))
    v = f * (0.7 * torch.sin(x) + 1.0 * torch.cos(z))
    w = f * (0.5 * torch.sin(y) + 0.7 * torch.cos(x))
    return [u, v, w, -0.5 * (u * u + v * v + w * w)]


def kovasznay(x: torch.Tensor, y: torch.Tensor, t: float) -> list[torch.Tensor]:
    rate = 20 - math.sqrt(400 + 4 * PI * PI)
    e = torch.exp(rate * x)
    return [
        1 - e * torch.cos(2 * PI * y),
        rate / (2 * PI) * e * torch.sin(2 * PI * y),
        0.5 * (1 - e * e),
    ]


def vortex(x: torch.Tensor, y: torch.Tensor, t: float) -> list[torch.Tensor]:
    psi = math.exp(-2 * 0.2 * t) * torch.cos(x) * torch.cos(y)
    return [2 * psi, psi]


def soliton(x: torch.Tensor, t: float) -> list[torch.Tensor]:
    phase = 0.5 * x + (1 - 0.25) / 2 * t
    size = 1 / torch.cosh(x - 0.5 * t)
    return [size * torch.cos(phase), size * torch.sin(phase)]


EXACT: dict[str, tuple[str, Any, dict[str, Any], tuple[float, float], str, int, int]] = {
    # name: equation, solution, parameters, domain, boundary, dimensions, nodes
    "heat mode": ("heat", heat, {"alpha": 0.3}, (0, 2 * PI), "periodic", 2, 24),
    "heat mode, dirichlet": ("heat", heat, {"alpha": 0.3}, (0, 1.5), "dirichlet", 2, 24),
    "advected mode": (
        "advection_diffusion",
        lambda x, y, t: [math.exp(-0.4 * t) * torch.sin(x - 0.5 * t) * torch.sin(y + t)],
        {"velocity": (0.5, -1.0), "nu": 0.2},
        (0, 2 * PI), "periodic", 2, 24,
    ),
    "Burgers shock": (
        "burgers",
        lambda x, t: [0.5 - torch.tanh((x - 0.5 * t) / 0.8)], {"nu": 0.4}, (-3, 3), "dirichlet", 1, 80,
    ),
    "Cole–Hopf": ("burgers", cole_hopf, {"nu": 0.4}, (0, 2 * PI), "periodic", 1, 40),
    "Allen–Cahn front": (
        "allen_cahn",
        # Two constant states joined by a standing front.
        lambda x, t: [torch.tanh(x / (math.sqrt(2) * 0.5))], {"epsilon": 0.5}, (-3, 3), "dirichlet", 1, 80,
    ),
    "Taylor–Green": ("navier_stokes", taylor_green, {"nu": 0.2}, (0, 2 * PI), "periodic", 2, 24),
    "Beltrami": ("navier_stokes", beltrami, {"nu": 0.2}, (0, 2 * PI), "periodic", 3, 16),
    "Kovasznay": ("navier_stokes", kovasznay, {"nu": 1 / 40}, (-0.5, 0.5), "dirichlet", 2, 40),
    "vortex": ("vorticity", vortex, {"nu": 0.2}, (0, 2 * PI), "periodic", 2, 24),
    "soliton": ("schrodinger", soliton, {}, (-8, 8), "dirichlet", 1, 160),
}  # fmt: skip


@pytest.mark.parametrize("name", list(EXACT))
def test_exact_solutions(name: str, device: torch.device) -> None:
    """The residual of an exact solution falls as h⁴ at order 4 (midpoint in time, a small time step)."""
    pde, solution, params, (low, high), bc, dimensions, nodes = EXACT[name]
    dt, sizes = 1e-5, []
    for n in (nodes, 2 * nodes):
        n += bc != "periodic"
        coordinates, h = grid(n, low, high, bc, dimensions)
        fields = [f.to(device) for t in (0.3, 0.3 + dt) for f in solution(*coordinates, t)]
        found = fd_residual(fields, pde, (h,) * dimensions, dt=dt, params=params, order=4, bc=bc, theta=0.5)
        sizes.append(max(r.abs().max().item() for r in (found if isinstance(found, tuple) else (found,))))
    assert sizes[1] < 3e-3
    assert sizes[0] / sizes[1] > 10 or sizes[1] < 1e-9


def test_wave() -> None:
    """d'Alembert: f(x − c t) + g(x + c t)."""
    sizes = []
    for n in (40, 80):
        (x,), h = grid(n, 0, 2 * PI, "periodic", 1)
        dt = 0.05 * h * h
        fields = [torch.exp(torch.sin(x - 1.5 * t)) + torch.cos(x + 1.5 * t) for t in (-dt, 0.0, dt)]
        sizes.append(fd_residual(fields, "wave", h, dt=dt, params={"c": 1.5}, order=4).abs().max().item())
    assert sizes[1] < 1e-3 and sizes[0] / sizes[1] > 12


def manufactured(dimensions: int) -> tuple[list[torch.Tensor], tuple[float, ...]]:
    coordinates, h = grid(48, 0, 2 * PI, "periodic", dimensions)
    return coordinates, (h,) * dimensions


def close(found: Any, *expected: torch.Tensor) -> None:
    for f, e in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        torch.testing.assert_close(f, e, rtol=0, atol=1e-4)


def test_manufactured() -> None:
    """Steady residuals that are known in closed form, at order 6."""
    (x,), h = manufactured(1)
    sin, cos = torch.sin, torch.cos
    close(fd_residual(sin(x), "kuramoto_sivashinsky", h, order=6), sin(x) * cos(x))
    close(
        fd_residual((2 + sin(x), cos(x)), "shallow_water", h, params={"g": 3.0}, order=6),
        -(2 + sin(x)) * sin(x) + cos(x) ** 2,
        -cos(x) * sin(x) + 3 * cos(x),
    )
    (x, y), h2 = manufactured(2)
    u, f = sin(x) * sin(2 * y), cos(x + y)
    close(fd_residual((u, f), "poisson", h2, order=6), -5 * u - f)
    close(fd_residual((u, f), "helmholtz", h2, params={"k": 2.0}, order=6), -5 * u + 4 * u - f)
    u, v = sin(x) * cos(y), cos(x) * sin(y)
    factor = 2 * (1.5 + 0.5) + 2 * 0.5
    zero = fd_residual(
        (u, v, factor * u, factor * v), "elasticity", h2, params={"lam": 1.5, "mu": 0.5}, order=6
    )
    close(zero, torch.zeros_like(u), torch.zeros_like(u))
    mass, first, second = fd_residual(
        (2 + sin(x) * cos(y), cos(x), sin(y)), "shallow_water", h2, params={"g": 3.0}, order=6
    )
    close(
        (mass, first, second),
        (2 + sin(x) * cos(y)) * (-sin(x) + cos(y)) + cos(x) * cos(x) * cos(y) - sin(y) * sin(x) * sin(y),
        -cos(x) * sin(x) + 3 * cos(x) * cos(y),
        sin(y) * cos(y) - 3 * sin(x) * sin(y),
    )


def test_dirichlet_nodes_have_no_equation() -> None:
    u = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    f = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    found = fd_residual((u, f), "poisson", (1.0, 1.0), bc="dirichlet")
    inner = torch.zeros_like(u, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    assert (found[~inner] == 0).all() and (found[inner] != 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), f)
    assert torch.equal(gradient, -inner.double())
