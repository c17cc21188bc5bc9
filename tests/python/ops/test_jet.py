"""mlp_jet against nested automatic differentiation in float64, and as a torch operator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import mpmath
import pytest
import torch
from rubriscope.ops.physics.jet import JetValue, flat_parameters, mlp_jet
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "sin": torch.sin,
    "gelu": torch.nn.functional.gelu,
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(
    widths: list[int], dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    make = torch.Generator().manual_seed(seed)
    weights, biases = [], []
    for before, after in pairwise(widths):
        weights.append(torch.randn(after, before, generator=make, dtype=torch.float64) / before**0.5)
        biases.append(torch.randn(after, generator=make, dtype=torch.float64) / 2)
    return (
        [w.to(device, dtype).requires_grad_() for w in weights],
        [b.to(device, dtype).requires_grad_() for b in biases],
    )


def points(count: int, columns: int, seed: int = 1) -> Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: str) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = x @ weight.t() + bias
        if layer + 1 < len(weights):
            x = ACTIVATIONS[activation](x)
    return x


def nested(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: str, direction: Tensor, order: int
) -> Tensor:
    """The derivative along a direction by nested forward mode."""

    def line(s: Tensor) -> Tensor:
        return plain(x + s * direction, weights, biases, activation)

    function = line
    for _ in range(order):

        def function(s: Tensor, inner: Callable[[Tensor], Tensor] = function) -> Tensor:
            return torch.func.jvp(inner, (s,), (torch.ones_like(s),))[1]

    return function(x.new_zeros(()))


def doubles(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().cpu().double().requires_grad_() for t in tensors]


def check_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = expected.abs().max().clamp_min(1e-30)
    assert ((found.detach().cpu().double() - expected.detach()).abs().max() / scale).item() < tolerance


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-14), (torch.float32, 8e-6)])
def test_derivatives_and_gradients_are_those_of_nested_differentiation(
    activation: str, dtype: torch.dtype, tolerance: float, device: torch.device
) -> None:
    weights, biases = network([3, 20, 33, 2], dtype, device)
    x = points(101, 3).to(device, dtype).requires_grad_()
    directions = points(2, 3, seed=2).to(device, dtype)
    found = mlp_jet(x, weights, biases, activation, directions, 4)
    (x_ref,) = doubles(x)
    w_ref, b_ref = doubles(*weights), doubles(*biases)
    ways = directions.cpu().double()
    total, expected_total = torch.zeros(()).double(), torch.zeros(()).double()
    for order, values in enumerate((found.value, found.first, found.second, found.third, found.fourth)):
        assert values is not None and values.dtype == dtype
        if order == 0:
            expected = plain(x_ref, w_ref, b_ref, activation)
        else:
            expected = torch.stack([nested(x_ref, w_ref, b_ref, activation, v, order) for v in ways])
        assert values.shape == expected.shape
        check_close(values, expected, tolerance)
        seeds = points(expected.numel(), 1, seed=order).reshape(expected.shape)
        total = total + (values.cpu().double() * seeds).sum()
        expected_total = expected_total + (expected * seeds).sum()
    total.backward()
    expected_total.backward()
    for ours, reference in zip([x, *weights, *biases], [x_ref, *w_ref, *b_ref], strict=True):
        assert ours.grad is not None and reference.grad is not None
        check_close(ours.grad, reference.grad, tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_lower_orders_give_what_the_highest_does(activation: str, order: int, device: torch.device) -> None:
    weights, biases = network([2, 12, 12, 3], device=device)
    x = points(50, 2).to(device)
    full = mlp_jet(x, weights, biases, activation, None, 4)
    found = mlp_jet(x, weights, biases, activation, None, order)
    for rank, (ours, reference) in enumerate(zip(found[:5], full[:5], strict=True)):
        if rank > order:
            assert ours is None
        else:
            assert ours is not None and reference is not None
            torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_collapsed_channel_is_the_weighted_sum(
    activation: str, dtype: torch.dtype, device: torch.device
) -> None:
    weights, biases = network([3, 17, 40, 2], dtype, device)
    x = points(77, 3).to(device, dtype).requires_grad_()
    collapse, drift = [1.0, -0.5, 2.0], [0.3, 0.0, -1.0]
    apart = mlp_jet(x, weights, biases, activation)
    assert apart.first is not None and apart.second is not None
    expected = sum(c * s for c, s in zip(collapse, apart.second, strict=True)) + sum(
        b * f for b, f in zip(drift, apart.first, strict=True)
    )
    inputs = [x, *weights, *biases]
    reference = torch.autograd.grad(expected.square().sum() + apart.first.square().sum(), inputs)
    found = mlp_jet(x, weights, biases, activation, collapse=collapse, drift=drift)
    assert found.collapsed is not None and found.first is not None and found.second is None
    tolerance = 1e-12 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(found.collapsed, expected, rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad(found.collapsed.square().sum() + found.first.square().sum(), inputs)
    for ours, theirs in zip(gradients, reference, strict=True):
        check_close(ours, theirs.cpu().double(), tolerance)


@pytest.mark.parametrize(
    "widths",
    [[1, 1], [5, 3], [2, 1, 1], [4, 130, 7, 65, 5], [1, 300, 2], [2, 16, 16, 16, 16, 16, 16, 1], [70, 9, 66]],
)
@pytest.mark.parametrize("count", [0, 1, 37])
def test_any_width_and_depth(widths: list[int], count: int, device: torch.device) -> None:
    weights, biases = network(widths, torch.float64, device)
    x = points(count, widths[0]).to(device).requires_grad_()
    direction = points(1, widths[0], seed=4).to(device)
    found = mlp_jet(x, weights, biases, "tanh", direction, 2)
    assert found.second is not None and found.second.shape == (1, count, widths[-1])
    (x_ref,), w_ref, b_ref = doubles(x), doubles(*weights), doubles(*biases)
    expected = nested(x_ref, w_ref, b_ref, "tanh", direction[0].cpu(), 2)
    if count:
        check_close(found.second[0], expected, 1e-12)
    ours = torch.autograd.grad(found.second.square().sum(), [x, *weights], allow_unused=True)
    reference = torch.autograd.grad(expected.square().sum(), [x_ref, *w_ref], allow_unused=True)
    for mine, theirs in zip(ours, reference, strict=True):
        expected_grad = torch.zeros_like(mine.cpu()) if theirs is None else theirs
        torch.testing.assert_close(mine.cpu(), expected_grad, rtol=1e-9, atol=1e-11)


def derivative_by_mpmath(activation: str, z: float, order: int) -> float:
    functions = {
        "tanh": mpmath.tanh,
        "silu": lambda s: s / (1 + mpmath.exp(-s)),
        "sin": mpmath.sin,
        "gelu": lambda s: s * mpmath.erfc(-s / mpmath.sqrt(2)) / 2,
    }
    with mpmath.workdps(60):
        return float(mpmath.diff(functions[activation], mpmath.mpf(z), order))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_accurate_to_a_few_ulp(activation: str, device: torch.device) -> None:
    """A network of one unit with unit weights: the derivatives are the activation's own."""
    near = torch.linspace(-6, 6, 61, dtype=torch.float64)
    values = torch.cat([near, torch.tensor([-30.0, -12.5, 1e-6, -1e-12, 14.0, 19.0, 200.0, -200.0])])
    for dtype, tolerance in ((torch.float64, 6e-16), (torch.float32, 4e-7)):
        z = values.to(dtype)
        one, none = torch.ones(1, 1, dtype=dtype, device=device), torch.zeros(1, dtype=dtype, device=device)
        found = mlp_jet(z.to(device)[:, None], [one, one], [none, none], activation, None, 4)
        for order in range(5):
            values_found = found[order]
            assert values_found is not None
            ours = values_found.reshape(-1).cpu().double()
            for at, mine in zip(z.double().tolist(), ours.tolist(), strict=True):
                expected = derivative_by_mpmath(activation, at, order)
                # A derivative is a small difference of larger terms: relative to 1 there.
                bound = tolerance * (
                    abs(expected) if order == 0 and abs(at) < 1e-5 else max(abs(expected), 1)
                )
                assert abs(mine - expected) <= 4 * bound * (10 if order > 2 else 1), (dtype, order, at)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sine_of_a_huge_argument(dtype: torch.dtype, device: torch.device) -> None:
    z = torch.tensor([9.9e3, -1.1e4, 3.2e6, 5e9, -1e15], dtype=dtype, device=device)
    one, none = torch.ones(1, 1, dtype=dtype, device=device), torch.zeros(1, dtype=dtype, device=device)
    found = mlp_jet(z[:, None], [one, one], [none, none], "sin", None, 1)
    assert found.first is not None
    wide = z.double()
    bound = 1e-6 if dtype == torch.float32 else 1e-15
    assert (found.value[:, 0].double() - wide.sin()).abs().max() < bound
    assert (found.first[0, :, 0].double() - wide.cos()).abs().max() < bound


def test_not_finite_points_stay_with_themselves(device: torch.device) -> None:
    weights, biases = network([2, 20, 1], torch.float32, device)
    x = points(40, 2).to(device, torch.float32)
    clean = mlp_jet(x, weights, biases)
    x[7, 1] = float("nan")
    found = mlp_jet(x, weights, biases)
    assert found.value[7].isnan().all()
    keep = torch.arange(40, device=device) != 7
    assert torch.equal(found.value[keep], clean.value[keep])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(activation: str, device: torch.device) -> None:
    weights, biases = network([2, 5, 4, 2], device=device)
    x = points(7, 2).to(device).requires_grad_()

    def run(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        found = mlp_jet(x, parameters[:3], parameters[3:], activation, None, 3)
        collapsed = mlp_jet(
            x, parameters[:3], parameters[3:], activation, collapse=[1.0, 0.5], drift=[0.2, -1.0]
        )
        assert found.first is not None and found.second is not None and found.third is not None
        assert collapsed.collapsed is not None
        return found.value, found.first, found.second, found.third, collapsed.collapsed

    assert torch.autograd.gradcheck(run, (x, *weights, *biases), fast_mode=True)


def call_arguments(device: torch.device) -> tuple[Any, ...]:
    weights, biases = network([2, 5, 1], device=device)
    parameters = flat_parameters(weights, biases).detach().requires_grad_()
    x = points(9, 2).to(device).requires_grad_()
    directions = torch.eye(2, dtype=torch.float64, device=device)
    return x, parameters, [2, 5, 1], "tanh", directions, [2, 1], [1.0, 0.0], [0.0, 1.0]


def test_opcheck(device: torch.device) -> None:
    arguments = call_arguments(device)
    torch.library.opcheck(torch.ops.rubriscope.mlp_jet.default, arguments)
    detached = tuple(a.detach() if isinstance(a, Tensor) else a for a in arguments)
    torch.library.opcheck(torch.ops.rubriscope.mlp_jet.plain, detached)
    grad = torch.ops.rubriscope.mlp_jet.plain(*detached)
    for wants_x in (True, False):
        torch.library.opcheck(torch.ops.rubriscope.mlp_jet_backward.default, (grad, *detached, wants_x))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_graph_breaks(backend: str, device: torch.device) -> None:
    weights, biases = network([2, 8, 1], torch.float32, device)
    x = points(33, 2).to(device, torch.float32).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        found = mlp_jet(x, weights, biases, "tanh")
        assert found.first is not None and found.second is not None
        return (found.first[1] + found.value * found.first[0] - 0.1 * found.second[0]).square().mean()

    expected = loss(x)
    reference = torch.autograd.grad(expected, [x, *weights])
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    found = compiled(x)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, [x, *weights]), reference, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_any_number_of_threads_gives_the_same_bits(threads: None) -> None:
    weights, biases = network([3, 64, 64, 1], torch.float32)
    x = points(5001, 3).float().requires_grad_()
    results = []
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        found = mlp_jet(x, weights, biases)
        assert found.second is not None
        results.append((found.second, *torch.autograd.grad(found.second.sum(), [x, *weights, *biases])))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_half_types_compute_in_float32(device: torch.device) -> None:
    weights, biases = network([2, 16, 1], torch.float32, device)
    for dtype in (torch.float16, torch.bfloat16):
        small = [t.detach().to(dtype).requires_grad_() for t in (*weights, *biases)]
        x = points(20, 2).to(device, dtype)
        found = mlp_jet(x, small[:2], small[2:])
        wide = mlp_jet(x.float(), [t.float() for t in small[:2]], [t.float() for t in small[2:]])
        assert found.second is not None and wide.second is not None
        assert found.second.dtype == dtype
        assert torch.equal(found.second, wide.second.to(dtype))
        found.second.float().sum().backward()
        assert small[0].grad is not None and small[0].grad.dtype == dtype


def test_a_missing_bias_is_zero(device: torch.device) -> None:
    weights, _ = network([2, 6, 1], device=device)
    x = points(5, 2).to(device)
    zeros = [w.new_zeros(w.shape[0]) for w in weights]
    assert torch.equal(mlp_jet(x, weights, [None, None]).value, mlp_jet(x, weights, zeros).value)


def test_double_backward_raises(device: torch.device) -> None:
    weights, biases = network([2, 6, 1], device=device)
    x = points(5, 2).to(device).requires_grad_()
    (first,) = torch.autograd.grad(mlp_jet(x, weights, biases).value.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="gradient of its gradient"):
        torch.autograd.grad(first.sum(), weights[0])


def test_result_is_a_named_tuple() -> None:
    weights, biases = network([2, 6, 1])
    assert isinstance(mlp_jet(points(5, 2), weights, biases), JetValue)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "x is a list"),
        ({"x": torch.ones(3)}, ValueError, r"x has shape \(3,\)"),
        ({"x": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "x has dtype torch.int64"),
        ({"weights": []}, ValueError, "weights is empty"),
        ({"biases": [None]}, ValueError, "biases has 1 entries, expected 2"),
        ({"weights": [torch.ones(6, 3), torch.ones(1, 6)]}, ValueError, r"weights\[0\] has shape \(6, 3\)"),
        ({"weights": [torch.ones(6, 2), torch.ones(1, 6).double()]}, TypeError, r"weights\[1\] has dtype"),
        ({"biases": [torch.ones(5), None]}, ValueError, r"biases\[0\] has shape \(5,\), expected \(6,\)"),
        ({"activation": "relu"}, ValueError, "activation is 'relu', expected one of tanh, silu, sin, gelu"),
        ({"directions": torch.ones(1, 3)}, ValueError, r"directions has shape \(1, 3\), expected \(K, 2\)"),
        ({"directions": torch.ones(1, 2, requires_grad=True)}, ValueError, "directions requires grad"),
        ({"order": 5}, ValueError, "order is 5, expected an integer from 0 to 4"),
        ({"order": -1}, ValueError, "order is -1"),
        ({"drift": [1.0, 0.0]}, ValueError, "drift is given without collapse"),
        ({"collapse": [1.0]}, ValueError, "collapse has 1 entries, expected 2"),
        ({"collapse": [1.0, 1.0], "drift": [1.0]}, ValueError, "drift has 1 entries, expected 2"),
        ({"collapse": [1.0, 1.0], "order": 3}, ValueError, "order is 3, expected 2 with collapse"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {
        "x": torch.ones(3, 2),
        "weights": [torch.ones(6, 2), torch.ones(1, 6)],
        "biases": [None, None],
    }
    with pytest.raises(error, match=message):
        mlp_jet(**{**good, **change})


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.ones(9, 3, dtype=torch.float64), "x has 3 columns"),
        (1, torch.ones(3, dtype=torch.float64), "parameters does not have the shape"),
        (1, torch.ones(21), "another dtype"),
        (2, [2], "widths has 1 entries"),
        (2, [2, -5, 1], "widths holds -5"),
        (3, "relu", "activation is 'relu'"),
        (4, torch.ones(1, 2, dtype=torch.float64), "directions does not have the shape"),
        (5, [2, 5], "orders holds 5"),
        (6, [1.0], "collapse has 1 entries"),
        (7, [1.0], "drift has 1 entries"),
    ],
)
def test_the_operator_itself_stays_inside_memory(position: int, value: Any, message: str) -> None:
    arguments = [a.detach() if isinstance(a, Tensor) else a for a in call_arguments(torch.device("cpu"))]
    arguments[position] = value
    with pytest.raises(RuntimeError, match=message):
        torch.ops.rubriscope.mlp_jet.plain(*arguments)


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_other_instruction_sets(isa: str) -> None:
    if os.environ.get("RUBRISCOPE_ISA"):
        return  # this is that run
    chosen = "lower_orders or any_width or few_ulp or huge or gradcheck"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", f"({chosen}) and not cuda"],
        env={**os.environ, "RUBRISCOPE_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
