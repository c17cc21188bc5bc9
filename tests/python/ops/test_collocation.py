"""collocation_residual: exact solutions, and the fused path against the torch.func path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rubriscope.ops.physics import _jet_plan
from rubriscope.ops.physics._equations import EQUATIONS, Equation
from rubriscope.ops.physics.collocation import Sin, collocation_residual, plain_mlp
from torch import Tensor, nn

CASES = [(name, dimensions) for name, equation in EQUATIONS.items() for dimensions in equation.fields]


def parts(residual: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return residual if isinstance(residual, tuple) else (residual,)


def mlp(inputs: int, outputs: int, activation: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, 20), activation(), nn.Linear(20, 24), activation(), nn.Linear(24, outputs)
    ).double()


def points(count: int, columns: int, low: float = 0.1, high: float = 1.0) -> Tensor:
    make = torch.Generator().manual_seed(11)
    return low + (high - low) * torch.rand(count, columns, generator=make, dtype=torch.float64)


# ---- exact solutions


def heat(x: Tensor) -> Tensor:
    space, t = x[:, :-1], x[:, -1]
    decay = 0.3 * math.pi**2 * space.shape[1]
    return torch.sin(math.pi * space).prod(1) * torch.exp(-decay * t)


def burgers_shock(x: Tensor) -> Tensor:
    """The travelling shock from 1 to 0 at speed ½."""
    return 0.5 - 0.5 * torch.tanh((x[:, 0] - 0.5 * x[:, 1]) / (4 * 0.05))


def taylor_green(x: Tensor) -> Tensor:
    a, b, t = x.unbind(1)
    decay = torch.exp(-2 * 0.1 * t)
    u = torch.cos(a) * torch.sin(b) * decay
    v = -torch.sin(a) * torch.cos(b) * decay
    p = -0.25 * (torch.cos(2 * a) + torch.cos(2 * b)) * decay**2
    return torch.stack([u, v, p], 1)


def kovasznay(x: Tensor) -> Tensor:
    """Steady: the time column is ignored. Re = 1/ν = 20."""
    a, b = x[:, 0], x[:, 1]
    lam = 10.0 - math.sqrt(100.0 + 4 * math.pi**2)
    e = torch.exp(lam * a)
    u = 1 - e * torch.cos(2 * math.pi * b)
    v = lam / (2 * math.pi) * e * torch.sin(2 * math.pi * b)
    p = 0.5 * (1 - e * e)
    return torch.stack([u, v, p], 1)


def allen_cahn_front(x: Tensor) -> Tensor:
    """The standing front between −1 and 1, moved by nothing: tanh(x / (√2 ε))."""
    return torch.tanh(x[:, 0] / (math.sqrt(2) * 0.2))


def soliton(x: Tensor) -> Tensor:
    """The bright soliton at rest and moving with speed c."""
    a, t = x.unbind(1)
    c = 0.7
    size = 1 / torch.cosh(a - c * t)
    phase = c * a + (1 - c * c) / 2 * t
    return torch.stack([size * torch.cos(phase), size * torch.sin(phase)], 1)


def plane_wave(x: Tensor) -> Tensor:
    a, b, t = x.unbind(1)
    return torch.sin(3 * a + 4 * b - 5 * 2.0 * t)


def vortex_decay(x: Tensor) -> Tensor:
    a, b, t = x.unbind(1)
    psi = torch.sin(a) * torch.sin(b) * torch.exp(-0.2 * t)
    return torch.stack([2 * psi, psi], 1)


def shear(x: Tensor) -> Tensor:
    return torch.stack([x[:, 1] ** 2, 0.5 * x[:, 0] * x[:, 1]], 1)


EXACT: list[tuple[str, int, Callable[[Tensor], Tensor], dict[str, Any], dict[str, Any]]] = [
    ("heat", 2, heat, {"alpha": 0.3}, {}),
    ("heat", 3, heat, {"alpha": 0.3}, {}),
    ("heat", 4, heat, {"alpha": 0.3}, {}),
    ("wave", 3, plane_wave, {"c": 2.0}, {}),
    ("burgers", 2, burgers_shock, {"nu": 0.05}, {}),
    ("navier_stokes", 3, taylor_green, {"nu": 0.1}, {}),
    ("navier_stokes", 3, kovasznay, {"nu": 0.05}, {}),
    ("vorticity", 3, vortex_decay, {"nu": 0.1}, {}),
    ("allen_cahn", 2, allen_cahn_front, {"epsilon": 0.2}, {}),
    ("schrodinger", 2, soliton, {}, {}),
    ("poisson", 2, lambda x: x[:, 0] ** 2 * x[:, 1], {}, {"f": lambda x: 2 * x[:, 1]}),
    ("helmholtz", 1, lambda x: torch.sin(3 * x[:, 0]), {"k": 3.0}, {"f": 0.0}),
    # (λ+μ) (½, 0) + μ (2, 0) + f = 0 for the displacement (y², xy/2)
    ("elasticity", 2, shear, {"lam": 1.0, "mu": 2.0}, {"fx": -5.5, "fy": 0.0}),
    (
        "advection_diffusion",
        3,
        lambda x: torch.sin(x[:, 0] - x[:, 2]) * torch.exp(-0.1 * x[:, 2]) * torch.ones_like(x[:, 1]),
        {"velocity": (1.0, 0.5), "nu": 0.1},
        {},
    ),
]


@pytest.mark.parametrize("case", EXACT, ids=lambda case: f"{case[0]}-{case[1]}")
def test_exact_solutions_have_no_residual(case: Any, device: torch.device) -> None:
    name, columns, solution, params, sources = case
    x = points(64, columns).to(device)
    found = parts(collocation_residual(solution, x, name, params, sources=sources))
    for component in found:
        assert component.shape == (64,)
        assert component.abs().max() < 2e-12
    if params:
        wrong = {key: (2 * v if isinstance(v, float) else [2 * e for e in v]) for key, v in params.items()}
        other = parts(collocation_residual(solution, x, name, wrong, sources=sources))
        assert max(component.abs().max() for component in other) > 1e-3


# ---- the fused path


def arguments(
    name: str, dimensions: int, tensors: bool, device: torch.device
) -> tuple[Tensor, dict[str, Any], Any]:
    equation = EQUATIONS[name]
    columns = dimensions + (1 if equation.time_order else 0)
    x = points(40, columns).to(device).requires_grad_()
    params: dict[str, Any] = {}
    for index, key in enumerate(equation.params):
        number = 0.3 + 0.2 * index
        if key == "velocity":
            vector = [0.3, -0.2, 0.1][:dimensions]
            params[key] = (
                torch.tensor(vector, dtype=x.dtype, device=device, requires_grad=True) if tensors else vector
            )
        else:
            params[key] = (
                torch.tensor(number, dtype=x.dtype, device=device, requires_grad=True) if tensors else number
            )
    sources = {
        field: (lambda x: torch.sin(x).sum(1))
        for field in equation.fields[dimensions]
        if field in equation.sources
    }
    return x, params, sources


@pytest.mark.parametrize("tensors", [False, True], ids=["numbers", "tensors"])
@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_the_fused_path_gives_what_torch_func_does(
    name: str, dimensions: int, tensors: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    equation = EQUATIONS[name]
    x, params, sources = arguments(name, dimensions, tensors, device)
    predicted = [f for f in equation.fields[dimensions] if f not in equation.sources]
    model = mlp(x.shape[1], len(predicted)).to(device)
    inputs = [x, *model.parameters(), *(p for p in params.values() if isinstance(p, Tensor))]

    def run(model: Callable[[Tensor], Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        found = parts(collocation_residual(model, x, name, params, sources=sources))
        loss = sum((component.square().mean() for component in found), x.new_zeros(()))
        return found, torch.autograd.grad(loss, inputs, allow_unused=True)

    expected, expected_gradients = run(lambda x: model(x))

    def forward_is_not_called(x: Tensor) -> Tensor:
        raise AssertionError("the model itself was called")

    monkeypatch.setattr(model, "forward", forward_is_not_called)
    found, gradients = run(model)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    for mine, other in zip(gradients, expected_gradients, strict=True):
        zero = torch.zeros_like(inputs[0][:0].sum())
        torch.testing.assert_close(
            zero if mine is None else mine,
            zero if other is None and mine is None else torch.zeros_like(mine) if other is None else other,
            rtol=1e-9,
            atol=1e-12,
        )


@pytest.mark.parametrize("activation", [nn.Tanh, nn.SiLU, nn.GELU, Sin])
def test_every_known_activation_is_fused(activation: type[nn.Module]) -> None:
    model = mlp(2, 1, activation)
    assert plain_mlp(model) is not None
    x = points(30, 2)
    found = collocation_residual(model, x, "kuramoto_sivashinsky")
    expected = collocation_residual(lambda x: model(x), x, "kuramoto_sivashinsky")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def test_linear_constant_terms_are_one_channel() -> None:
    plan = _jet_plan.plan("burgers", 1, (("nu", 0.1),))
    assert plan is not None
    assert (plan.directions, plan.orders, plan.collapse, plan.drift) == (
        ((1.0, 0.0),),
        (1,),
        (-0.1,),
        (0.0, 1.0),
    )
    apart = _jet_plan.plan("burgers", 1, (("nu", None),))
    assert apart is not None
    assert (apart.orders, apart.collapse, apart.drift) == ((1, 1), (1.0, 0.0), (0.0, 0.0))
    schrodinger = _jet_plan.plan("schrodinger", 1, ())
    assert schrodinger is not None and schrodinger.drift == (0.0, 0.0)  # u_t and ∇²u in different proportions


def test_a_tensor_parameter_per_point(device: torch.device) -> None:
    model, x = mlp(2, 1).to(device), points(30, 2).to(device)
    nu = torch.linspace(0.1, 0.5, 30, dtype=torch.float64, device=device, requires_grad=True)
    found = collocation_residual(model, x, "burgers", {"nu": nu})
    each = [collocation_residual(model, x[i : i + 1], "burgers", {"nu": nu[i].item()}) for i in (0, 17)]
    assert isinstance(found, Tensor)
    for i, alone in zip((0, 17), each, strict=True):
        assert isinstance(alone, Tensor)
        torch.testing.assert_close(found[i], alone[0])
    found.sum().backward()
    assert nu.grad is not None and nu.grad.abs().min() > 0


def own_equation() -> Equation:
    return Equation(
        "sine_gordon",
        lambda d, p: d("u", "tt") - d.laplacian("u") + torch.sin(d["u"]),
        {1: ("u",), 2: ("u",)},
        (),
        2,
        "u_tt − ∇²u + sin u",
        "a test",
    )


def test_an_own_equation_that_is_no_polynomial() -> None:
    model, x = mlp(3, 1), points(30, 3)
    found = collocation_residual(model, x, own_equation())
    torch.testing.assert_close(found, collocation_residual(lambda x: model(x), x, own_equation()))


def test_derivatives_beyond_the_jets_fall_back() -> None:
    third = Equation("xxy", lambda d, p: d("u", "xxy"), {2: ("u",)}, (), 0, "u_xxy", "a test")
    model, x = mlp(2, 1), points(10, 2)
    found = collocation_residual(model, x, third)
    torch.testing.assert_close(found, collocation_residual(lambda x: model(x), x, third))


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * x[:, :1]


def test_what_is_a_plain_mlp() -> None:
    model = mlp(2, 1)
    assert plain_mlp(nn.Sequential(nn.Identity(), model)) is not None
    assert plain_mlp(torch.compile(model)) is not None
    assert plain_mlp(nn.Linear(2, 1)) is not None
    assert plain_mlp(Wrapped()) is None
    assert plain_mlp(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))) is None
    assert plain_mlp(nn.Sequential(nn.Linear(2, 3), nn.GELU(approximate="tanh"), nn.Linear(3, 1))) is None
    assert plain_mlp(nn.Sequential(nn.Linear(2, 3), nn.Tanh())) is None
    mixed = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3), nn.SiLU(), nn.Linear(3, 1))
    assert plain_mlp(mixed) is None
    model[0].register_forward_hook(lambda *a: None)
    assert plain_mlp(model) is None


def test_other_models_train_too() -> None:
    model, x = Wrapped(), points(20, 2)
    found = collocation_residual(model, x, "heat", {"alpha": 0.1})
    assert isinstance(found, Tensor)
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.net[0].parameters())


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_graph_breaks(backend: str, device: torch.device) -> None:
    model, x = mlp(2, 1).to(device), points(30, 2).to(device)
    nu = torch.tensor(0.2, dtype=torch.float64, device=device, requires_grad=True)

    def loss(x: Tensor, number: float) -> Tensor:
        a = collocation_residual(model, x, "burgers", {"nu": nu})
        b = collocation_residual(model, x, "heat", {"alpha": number})
        assert isinstance(a, Tensor) and isinstance(b, Tensor)
        return a.square().mean() + b.square().mean()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    inputs = [nu, *model.parameters()]
    for number in (0.1, 0.2, 0.3) if backend == "aot_eager" else (0.1,):
        expected = loss(x, number)
        found = compiled(x, number)
        torch.testing.assert_close(found, expected)
        reference = torch.autograd.grad(expected, inputs)
        for mine, theirs in zip(torch.autograd.grad(found, inputs), reference, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_half_types(device: torch.device) -> None:
    model = mlp(2, 1).to(device, torch.bfloat16)
    x = points(20, 2).to(device, torch.bfloat16)
    found = collocation_residual(model, x, "burgers", {"nu": 0.1})
    assert isinstance(found, Tensor) and found.dtype == torch.bfloat16
    wide = mlp(2, 1).to(device, torch.bfloat16).float()
    expected = collocation_residual(wide, x.float(), "burgers", {"nu": 0.1})
    assert isinstance(expected, Tensor)
    assert torch.equal(found, expected.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pde": "heats"}, ValueError, "pde is 'heats', expected one of heat, "),
        ({"pde": 3}, TypeError, "pde is a int"),
        ({"x": [1]}, TypeError, "x is a list"),
        ({"x": torch.ones(5)}, ValueError, r"x has shape \(5,\)"),
        ({"x": torch.ones(5, 4)}, ValueError, "x has 4 columns, expected 2 or 3 for burgers, the time last"),
        ({"params": None}, ValueError, "params lacks 'nu'"),
        ({"params": {"nu": 0.1, "mu": 1.0}}, ValueError, "params holds 'mu', which burgers has not"),
        ({"params": {"nu": "0.1"}}, TypeError, r"params\['nu'\] is a str"),
        ({"params": {"nu": torch.ones(4)}}, ValueError, r"params\['nu'\] has shape \(4,\), expected"),
        ({"params": {"nu": torch.ones(5, 1)}}, ValueError, r"params\['nu'\] has shape \(5, 1\)"),
        ({"sources": {"f": 0.0}}, ValueError, "sources holds 'f', which burgers has not"),
        ({"pde": "poisson", "params": None}, ValueError, "sources lacks 'f'"),
        (
            {"pde": "poisson", "params": None, "sources": {"f": torch.ones(5, 1)}},
            ValueError,
            r"sources\['f'\] has shape \(5, 1\), expected \(5,\)",
        ),
        ({"model": nn.Linear(2, 2)}, ValueError, "model has 2 outputs, expected 1: u"),
        ({"model": lambda x: x}, ValueError, r"model returned a tensor of shape \(5, 2\)"),
        ({"model": nn.Linear(3, 1)}, ValueError, r"weights\[0\] has shape \(1, 3\)"),
        ({"model": nn.Linear(2, 1).double()}, TypeError, r"weights\[0\] has dtype torch.float64"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {
        "model": nn.Linear(2, 1),
        "x": torch.ones(5, 2),
        "pde": "burgers",
        "params": {"nu": 0.1},
    }
    with pytest.raises(error, match=message):
        collocation_residual(**{**good, **change})
