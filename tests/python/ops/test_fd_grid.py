"""Residuals on grids, their gradients and losses against dense matrices, for every equation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import fd_oracle
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies
from rubriscope.ops.physics import fd_residual, fd_residual_loss, register_pde
from rubriscope.ops.physics._equations import EQUATIONS

PARAMS: dict[str, Any] = {
    "alpha": 0.7,
    "c": 1.3,
    "nu": 0.4,
    "k": 1.7,
    "epsilon": 0.6,
    "g": 2.1,
    "lam": 1.4,
    "mu": 0.8,
}
BUILT_IN = list(EQUATIONS)
CASES = [(name, d) for name in BUILT_IN for d in EQUATIONS[name].fields]
SIZES = {1: (23,), 2: (14, 19), 3: (11, 12, 18)}


def problem(
    name: str,
    dimensions: int,
    dtype: torch.dtype,
    steady: bool = False,
    batch: tuple[int, ...] = (2,),
    size: Any = None,
) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Random fields and arguments of an equation."""
    generator = torch.Generator().manual_seed(7 + dimensions)
    equation = EQUATIONS[name]
    names = equation.fields[dimensions]
    evolving = len([f for f in names if f not in equation.sources])
    levels = 1 if steady else equation.time_order + 1
    count = evolving * levels + len(names) - evolving
    fields = [
        torch.randn(*batch, *(size or SIZES[dimensions]), generator=generator, dtype=torch.float64).to(dtype)
        for _ in range(count)
    ]
    params = {p: PARAMS[p] for p in equation.params if p != "velocity"}
    if "velocity" in equation.params:
        params["velocity"] = [0.3, -0.8, 0.5][:dimensions] if dimensions > 1 else 0.3
    return fields, {
        "pde": name,
        "spacing": (0.4, 0.7, 0.9)[:dimensions],
        "dt": None if levels == 1 else 0.3,
        "params": params,
    }


def as_tuple(found: Any) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def oracle_params(arguments: dict[str, Any]) -> dict[str, Any]:
    """The oracle takes vectors as sequences."""
    params = dict(arguments["params"])
    if "velocity" in params and not isinstance(params["velocity"], (list, tuple)):
        params["velocity"] = [params["velocity"]]
    return {**arguments, "params": params}


@pytest.mark.parametrize("bc", ["periodic", "neumann", "dirichlet"])
@pytest.mark.parametrize("order", [2, 4, 6])
@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_against_dense_matrices(
    device: torch.device, name: str, dimensions: int, order: int, bc: str
) -> None:
    """Residual, loss and both gradients of random fields, float64."""
    fields, arguments = problem(name, dimensions, torch.float64)
    arguments.update(order=order, bc=bc)
    if EQUATIONS[name].time_order == 1:
        arguments["theta"] = 0.35
    inputs = [f.clone().requires_grad_() for f in fields]
    expected = fd_oracle.residual(inputs, **oracle_params(arguments))
    cotangents = [torch.randn_like(e) for e in expected]
    ours = [f.clone().to(device).requires_grad_() for f in fields]
    found = as_tuple(fd_residual(ours, **arguments))
    assert len(found) == len(expected)
    size = max(e.abs().max().item() for e in expected)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f.cpu(), e, rtol=0, atol=1e-12 * size)

    def compare(a: torch.Tensor, b: torch.Tensor) -> None:
        wanted = torch.autograd.grad(a, inputs, retain_graph=True, materialize_grads=True)
        got = torch.autograd.grad(b, ours, retain_graph=True)
        scale = max(w.abs().max().item() for w in wanted)
        for g, w in zip(got, wanted, strict=True):
            torch.testing.assert_close(g.cpu(), w, rtol=0, atol=1e-12 * scale)

    compare(
        sum((e * c).sum() for e, c in zip(expected, cotangents, strict=True)),
        sum((f * c.to(device)).sum() for f, c in zip(found, cotangents, strict=True)),
    )
    loss = torch.stack(expected).square().mean()
    ours_loss = fd_residual_loss(ours, **arguments)
    torch.testing.assert_close(ours_loss.detach().cpu(), loss.detach(), rtol=1e-12, atol=0)
    compare(loss, ours_loss)
    with torch.no_grad():
        assert fd_residual_loss(ours, **arguments).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("bc", [("periodic", "dirichlet"), ("neumann", "periodic"), ("dirichlet", "neumann")])
@pytest.mark.parametrize("name", ["navier_stokes", "elasticity", "advection_diffusion"])
def test_mixed_boundaries(name: str, bc: tuple[str, str]) -> None:
    fields, arguments = problem(name, 2, torch.float64, batch=())
    arguments.update(order=4, bc=bc)
    for f, e in zip(
        as_tuple(fd_residual(fields, **arguments)), fd_oracle.residual(fields, **arguments), strict=True
    ):
        torch.testing.assert_close(f, e, rtol=0, atol=1e-12 * e.abs().max().item())


@pytest.mark.parametrize("bc", ["periodic", "neumann", "dirichlet"])
@pytest.mark.parametrize(
    "size", [(5, 300), (3, 1100), (70, 5), (200, 33), (3, 2100), (9, 11, 13), (40, 30, 7), (2500,), (5,)]
)
def test_tiles(size: tuple[int, ...], bc: str, device: torch.device) -> None:
    """Grids that are cut into boxes, long and short along each axis: the heat loss and its gradient."""
    fields, arguments = problem("heat", len(size), torch.float64, batch=(), size=size)
    inputs = [f.clone().requires_grad_() for f in fields]
    ours = [f.to(device).clone().requires_grad_() for f in fields]
    (expected,) = fd_oracle.residual(inputs, **arguments, bc=bc)
    wanted = torch.autograd.grad(expected.square().mean(), inputs)
    loss = fd_residual_loss(ours, **arguments, bc=bc)
    assert loss.item() == pytest.approx(expected.square().mean().item(), rel=1e-12)
    for g, w in zip(torch.autograd.grad(loss, ours), wanted, strict=True):
        torch.testing.assert_close(g.cpu(), w, rtol=0, atol=1e-12 * w.abs().max().item())
    found = fd_residual(ours, **arguments, bc=bc)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-12 * expected.abs().max().item())


def repeated(fields: list[torch.Tensor], times: tuple[int, int]) -> list[torch.Tensor]:
    return [f.repeat(1, *times) for f in fields]


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("name", [name for name, d in CASES if d == 2])
def test_long_rows_hold_what_short_ones_do(name: str, order: int, device: torch.device) -> None:
    """A periodic field repeated: rows of several blocks and a rest, boxes of several bands, several warps."""
    fields, kwargs = problem(name, 2, torch.float32, size=(20, 39))
    fields = [f.to(device) for f in fields]
    times = (7, 9)
    small = as_tuple(fd_residual(fields, order=order, **kwargs))
    large = as_tuple(fd_residual(repeated(fields, times), order=order, **kwargs))
    for one, many in zip(small, large, strict=True):
        torch.testing.assert_close(many, one.repeat(1, *times), rtol=1e-5, atol=1e-5)
    for f in fields:
        f.requires_grad_()
    fd_residual_loss(fields, order=order, **kwargs).backward()
    many_fields = [f.requires_grad_() for f in repeated([f.detach() for f in fields], times)]
    fd_residual_loss(many_fields, order=order, **kwargs).backward()
    for f, m in zip(fields, many_fields, strict=True):
        # A mean over so many more points.
        expected = f.grad.repeat(1, *times) / math.prod(times)
        torch.testing.assert_close(m.grad, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("columns", [40, 39])
@pytest.mark.parametrize("name", ["heat", "navier_stokes", "allen_cahn"])
def test_outputs_past_the_caches(name: str, columns: int) -> None:
    """More than the caches hold is written around them, where rows begin on a cache line and otherwise."""
    fields, kwargs = problem(name, 2, torch.float32, size=(25, columns), batch=(1,))
    times = (70, 70)
    small = as_tuple(fd_residual(fields, **kwargs))
    large = as_tuple(fd_residual(repeated(fields, times), **kwargs))
    assert large[0].nbytes * (len(fields) + len(large)) > 48 << 20
    for one, many in zip(small, large, strict=True):
        torch.testing.assert_close(many, one.repeat(1, *times), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=strategies.data())
def test_any_problem_against_dense_matrices(data: strategies.DataObject) -> None:
    """Any equation, order, boundary, dtype and size: code of its own or not, the numbers are the oracle's."""
    name, dimensions = data.draw(strategies.sampled_from([c for c in CASES if c[1] < 3]))
    order = data.draw(strategies.sampled_from([2, 4, 6]))
    bc = tuple(
        data.draw(strategies.sampled_from(["periodic", "neumann", "dirichlet"])) for _ in range(dimensions)
    )
    dtype = data.draw(strategies.sampled_from([torch.float32, torch.float64]))
    size = tuple(data.draw(strategies.integers(11, 90 if dimensions == 1 else 40)) for _ in range(dimensions))
    batch = data.draw(strategies.sampled_from([(), (3,)]))
    fields, arguments = problem(name, dimensions, dtype, batch=batch, size=size)
    arguments.update(order=order, bc=bc)
    inputs = [f.double().requires_grad_() for f in fields]
    expected = fd_oracle.residual(inputs, **oracle_params(arguments))
    loss = torch.stack(expected).square().mean()
    wanted = torch.autograd.grad(loss, inputs, materialize_grads=True)
    ours = [f.requires_grad_() for f in fields]
    tolerance = 1e-12 if dtype is torch.float64 else 2e-5
    for turn in range(2):  # the second call finds what the first one made
        found = as_tuple(fd_residual(ours, **arguments))
        our_loss = fd_residual_loss(ours, **arguments)
        got = torch.autograd.grad(our_loss, ours)
        assert our_loss.item() == pytest.approx(loss.item(), rel=tolerance), turn
        for pairs in (zip(found, expected, strict=True), zip(got, wanted, strict=True)):
            values = [(f.detach().double(), e.detach()) for f, e in pairs]
            scale = max(e.abs().max().item() for _, e in values)
            for f, e in values:
                torch.testing.assert_close(f, e, rtol=0, atol=tolerance * scale)


def test_parameters_as_tensors(device: torch.device) -> None:
    """Numbers, tensors without dimensions and fields agree, and gradients flow to tensors."""
    fields, arguments = problem("advection_diffusion", 2, torch.float64, batch=(3,))
    grid = fields[0].shape[1:]
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()

    choices = [
        {"velocity": [random(), 0.2], "nu": random()},
        {"velocity": [random(*grid), random(grid[1])], "nu": random(3, 1, 1)},
        {"velocity": (0.5, random(3, *grid)), "nu": random(*grid)},
    ]
    for params in choices:
        wanted = [p for v in params.values() for p in (v if isinstance(v, (list, tuple)) else [v])]
        wanted = [p for p in wanted if isinstance(p, torch.Tensor)]
        arguments["params"] = params
        (expected,) = fd_oracle.residual(fields, **arguments)
        on_device = {
            k: [x.to(device) if isinstance(x, torch.Tensor) else x for x in v]
            if isinstance(v, (list, tuple))
            else v.to(device)
            for k, v in params.items()
        }
        placed = [f.to(device) for f in fields]
        found = fd_residual(placed, **{**arguments, "params": on_device})
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-12, atol=1e-12)
        loss = fd_residual_loss(placed, **{**arguments, "params": on_device})
        for a, b in ((expected.sin().sum(), found.sin().sum()), (expected.square().mean(), loss)):
            for x, y in zip(
                torch.autograd.grad(a, wanted, retain_graph=True),
                torch.autograd.grad(b, wanted, retain_graph=True),
                strict=True,
            ):
                torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


def test_vector_tensors() -> None:
    fields, arguments = problem("advection_diffusion", 2, torch.float64)
    entries = torch.tensor([0.3, -0.8], dtype=torch.float64)
    expected = fd_residual(fields, **arguments)
    nu = arguments["params"]["nu"]
    for velocity in (entries, entries[:, None, None].expand(2, *SIZES[2]), (0.3, -0.8)):
        arguments["params"] = {"velocity": velocity, "nu": nu}
        torch.testing.assert_close(fd_residual(fields, **arguments), expected)


@pytest.mark.parametrize("bc", ["periodic", "neumann", "dirichlet"])
@pytest.mark.parametrize(("name", "dimensions"), [c for c in CASES if c[1] < 3])
def test_gradcheck(name: str, dimensions: int, bc: str) -> None:
    fields, arguments = problem(name, dimensions, torch.float64, batch=(), size=(7, 6)[:dimensions])
    inputs = [f.requires_grad_() for f in fields]
    params = {
        k: torch.tensor(v, dtype=torch.float64, requires_grad=True) if isinstance(v, float) else v
        for k, v in arguments.pop("params").items()
    }
    free = [p for p in params.values() if isinstance(p, torch.Tensor)]

    def call(*tensors: torch.Tensor) -> Any:
        given = dict(
            zip(
                [k for k, v in params.items() if isinstance(v, torch.Tensor)],
                tensors[len(inputs) :],
                strict=True,
            )
        )
        return fd_residual(tensors[: len(inputs)], params={**params, **given}, bc=bc, **arguments)

    def loss(*tensors: torch.Tensor) -> Any:
        given = dict(
            zip(
                [k for k, v in params.items() if isinstance(v, torch.Tensor)],
                tensors[len(inputs) :],
                strict=True,
            )
        )
        return fd_residual_loss(tensors[: len(inputs)], params={**params, **given}, bc=bc, **arguments)

    assert torch.autograd.gradcheck(call, (*inputs, *free), fast_mode=True)
    assert torch.autograd.gradcheck(loss, (*inputs, *free), fast_mode=True)


@pytest.mark.parametrize(
    ("name", "dimensions", "bc", "order"),
    [
        (n, d, bc, order)
        for (n, d), bc, order in zip(
            CASES,
            itertools.cycle(["dirichlet", "periodic", "neumann"]),
            itertools.cycle([2, 6, 4, 2]),
            strict=False,
        )
    ],
)
def test_adjoint(name: str, dimensions: int, bc: str, order: int) -> None:
    """⟨J v, w⟩ = ⟨v, Jᵀ w⟩, with J v by a central difference quotient, exact enough for cubic residuals."""
    fields, arguments = problem(name, dimensions, torch.float64)
    arguments.update(bc=bc, order=order)
    inputs = [f.clone().requires_grad_() for f in fields]
    directions = [torch.randn_like(f) for f in fields]
    found = torch.stack(as_tuple(fd_residual(inputs, **arguments)))
    w = torch.randn_like(found)

    def moved(step: float) -> torch.Tensor:
        there = [f + step * v for f, v in zip(fields, directions, strict=True)]
        return torch.stack(as_tuple(fd_residual(there, **arguments)))

    # Richardson: no error for a polynomial of degree 4.
    jv = (8 * (moved(0.5) - moved(-0.5)) - (moved(1.0) - moved(-1.0))) / 6.0
    left = (jv * w).sum().item()
    gradients = torch.autograd.grad(found, inputs, w)
    right = sum((v * g).sum().item() for v, g in zip(directions, gradients, strict=True))
    scale = (jv.abs() * w.abs()).sum().item()
    assert abs(left - right) <= 1e-12 * scale


def test_own_equation(device: torch.device) -> None:
    """Functions, quotients, powers and a constant; the gradient by the chain rule through dense matrices."""
    if "test_own" not in EQUATIONS:
        register_pde(
            "test_own",
            lambda d, p: (
                d("u", "t")
                - p["D"] * d.laplacian("u")
                + torch.sin(d["u"]) * torch.exp(-(d["v"] ** 2)) / (2.0 + d("v", "x") ** 2)
                + 1.5,
                torch.tanh(d("v", "t") - d["u"] * d("v", "y"))
                + (1.0 + d["u"] * d["u"]) ** 1 * p["D"]
                + torch.sqrt(1.0 + d["v"] * d["v"])
                - torch.log(2.0 + torch.cos(d["u"])),
            ),
            fields=("u", "v"),
            params=("D",),
        )
    generator = torch.Generator().manual_seed(5)
    for bc in ("periodic", "dirichlet"):
        fields = [
            torch.randn(2, 9, 21, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(4)
        ]
        D = torch.rand(9, 21, generator=generator, dtype=torch.float64).requires_grad_()
        arguments: dict[str, Any] = {"spacing": (0.5, 0.6), "dt": 0.2, "bc": bc, "theta": 0.5}
        expected = torch.stack(fd_oracle.residual(fields, "test_own", params={"D": D}, **arguments))
        placed = [f.to(device) for f in fields]
        found = torch.stack(
            fd_residual(placed, "test_own", params={"D": D.to(device)}, **arguments)  # type: ignore[arg-type]
        )
        torch.testing.assert_close(found.cpu(), expected)
        loss = fd_residual_loss(placed, "test_own", params={"D": D.to(device)}, **arguments)
        for a, b in ((expected.cos().sum(), found.cos().sum()), (expected.square().mean(), loss)):
            torch.testing.assert_close(
                torch.autograd.grad(b, (*fields, D), retain_graph=True),
                torch.autograd.grad(a, (*fields, D), retain_graph=True),
            )


def test_a_steady_residual_is_the_one_without_time() -> None:
    fields, arguments = problem("burgers", 2, torch.float64, steady=True)
    for f, e in zip(fd_residual(fields, **arguments), fd_oracle.residual(fields, **arguments), strict=True):
        torch.testing.assert_close(f, e)


def test_the_loss_is_a_mean_in_float64() -> None:
    """A million float32 residuals of 1 + 2⁻¹²: summed in float32 the mean would be off by more."""
    u = torch.zeros(1, 1 << 20)
    value = 1.0 + 2.0**-12
    f = torch.full_like(u, -value)
    loss = fd_residual_loss((u, f), "poisson", 1.0)
    assert loss.item() == pytest.approx(value**2, rel=1e-7)
    assert math.isnan(fd_residual_loss((torch.full_like(u, math.nan), f), "poisson", 1.0).item())
