"""Residuals on grids as torch operators: opcheck, torch.compile, threads, instruction sets, dtypes,
errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rubriscope.ops.physics import (
    _eager,
    _program,
    describe,
    equations,
    fd_residual,
    fd_residual_loss,
    register_pde,
)
from rubriscope.ops.physics._eager import Held
from rubriscope.ops.physics._program import INPUT, PARAM, Problem

HEAT: dict[str, Any] = {"pde": "heat", "spacing": (0.1, 0.2), "dt": 0.01, "params": {"alpha": 0.3}}


def heat_fields(
    dtype: torch.dtype = torch.float64, device: Any = "cpu", grad: bool = False
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return [
        torch.randn(2, 12, 17, generator=generator, dtype=torch.float64)
        .to(device, dtype)
        .requires_grad_(grad)
        for _ in range(2)
    ]


def _heat_problem() -> Problem:
    return Problem(
        "heat", (12, 17), (0.1, 0.2), 2, 0.01, -1, 1.0, 2, ("periodic", "dirichlet"), (((None, 0, False),),)
    )


def test_opcheck(device: torch.device) -> None:
    problem = _heat_problem()
    wanted = ((INPUT, 0), (INPUT, 1), (PARAM, 0))
    forward = _program.forward(problem)
    adjoint = _program.backward(problem, wanted, False)
    loss = _program.backward(problem, wanted, True)
    ops = torch.ops.rubriscope
    for grad in (False, True):
        fields = heat_fields(device=device, grad=grad)
        alpha = [torch.tensor(0.3, dtype=torch.float64, device=device, requires_grad=grad)]
        programs = (list(forward.code), list(forward.numbers))
        torch.library.opcheck(
            ops.fd_residual.default,
            (fields, alpha, *programs, list(adjoint.code), list(adjoint.numbers)),
        )
        torch.library.opcheck(
            ops.fd_residual_loss.default, (fields, alpha, list(loss.code), list(loss.numbers))
        )
    plain = heat_fields(device=device)
    alpha = [torch.tensor(0.3, dtype=torch.float64, device=device)]
    torch.library.opcheck(ops.fd_residual.plain, (plain, alpha, *programs))
    none = _program.backward(problem, (), True)
    torch.library.opcheck(ops.fd_residual_loss.plain, (plain, alpha, list(none.code), list(none.numbers)))
    torch.library.opcheck(
        ops.fd_residual_vjp, ([plain[0]], plain, alpha, list(adjoint.code), list(adjoint.numbers))
    )
    torch.library.opcheck(ops.fd_scaled, ([plain[0]], alpha[0], plain))
    if device.type == "cpu":
        held = [Held(program, 2) for program in (forward, adjoint, loss)]
        torch.library.opcheck(ops.fd_held_residual, (plain, alpha, held[0].number))
        torch.library.opcheck(ops.fd_held_vjp, ([plain[0]], plain, alpha, held[1].number))
        torch.library.opcheck(ops.fd_held_loss, (plain, alpha, held[2].number))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile(backend: str) -> None:
    def call(a: torch.Tensor, b: torch.Tensor, alpha: torch.Tensor, dt: float) -> torch.Tensor:
        given: dict[str, Any] = {**HEAT, "dt": dt, "params": {"alpha": alpha}, "bc": "neumann"}
        return fd_residual((a, b), **given).sin().sum() + 3.0 * fd_residual_loss((a, b), **given)

    compiled = torch.compile(call, fullgraph=True, backend=backend)
    fields = heat_fields(grad=True)
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for dt in (0.01, 0.02, 0.03):
        expected, found = call(*fields, alpha, dt), compiled(*fields, alpha, dt)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, (*fields, alpha)), torch.autograd.grad(expected, (*fields, alpha))
        )


def test_compile_without_gradient() -> None:
    fields = heat_fields(torch.float32)
    call = torch.compile(lambda a, b: fd_residual((a, b), **HEAT), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(call(*fields), fd_residual(fields, **HEAT))


def test_threads_give_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(1)
    fields = [torch.randn(300, 512, generator=generator).requires_grad_() for _ in range(6)]
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            arguments: dict[str, Any] = {"dt": 0.1, "params": {"nu": 0.3}}
            residuals = fd_residual(fields, "navier_stokes", (0.1, 0.1), **arguments)
            loss = fd_residual_loss(fields, "navier_stokes", (0.1, 0.1), **arguments)
            found.append([*residuals, loss, *torch.autograd.grad(loss, fields)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


_REDUCED = """
import sys; sys.path.insert(0, {folder!r})
import torch, test_fd_grid as t
from rubriscope import _C
assert _C.isa_name() == {isa!r}
for case in (("heat", 2, 2, "periodic"), ("navier_stokes", 2, 4, "dirichlet"), ("burgers", 1, 6, "neumann")):
    t.test_against_dense_matrices(torch.device("cpu"), *case)
t.test_tiles((3, 1100), "neumann", torch.device("cpu"))
t.test_own_equation(torch.device("cpu"))
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_instruction_sets(isa: str) -> None:
    """The reduced tests under each narrower instruction set than the machine's own."""
    from rubriscope import _C

    if isa == "avx2" and _C.isa_name() == "baseline":
        pytest.skip("this machine has no AVX2")
    code = _REDUCED.format(folder=str(Path(__file__).parent), isa=isa)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "RUBRISCOPE_ISA": isa})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    fields = [f.detach().requires_grad_() for f in heat_fields(dtype)]
    whole = [f.detach().float().requires_grad_() for f in fields]
    found, expected = fd_residual(fields, **HEAT), fd_residual(whole, **HEAT)
    assert found.dtype == dtype and torch.equal(found, expected.to(dtype))
    loss, expected_loss = fd_residual_loss(fields, **HEAT), fd_residual_loss(whole, **HEAT)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected_loss)
    for g, e in zip(
        torch.autograd.grad(loss, fields), torch.autograd.grad(expected_loss, whole), strict=True
    ):
        assert torch.equal(g, e.to(dtype))


def test_float32_is_close_to_float64() -> None:
    whole = heat_fields()
    single = [f.float() for f in whole]
    expected = fd_residual([f.double() for f in single], **HEAT)
    found = fd_residual(single, **HEAT)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 4e-7 * expected.abs().max()


def test_a_difference_of_time_levels_is_exact() -> None:
    """Levels 1 ulp apart: their difference over dt is exact, however small dt."""
    now = torch.full((8,), 1.0)
    new = torch.nextafter(now, torch.tensor(2.0))
    found = fd_residual((now, new), "heat", 1.0, dt=2.0**-40, params={"alpha": 0.0})
    assert torch.equal(found, torch.full((8,), 2.0**-23 * 2.0**40))


def test_any_layout_and_batch() -> None:
    fields = heat_fields()
    expected = fd_residual(fields, **HEAT)
    strided = [f.transpose(-1, -2).contiguous().transpose(-1, -2) for f in fields]
    assert torch.equal(fd_residual(strided, **HEAT), expected)
    one = [f[1] for f in fields]
    assert torch.equal(fd_residual(one, **HEAT), expected[1])
    none = [f[:0] for f in fields]
    assert fd_residual(none, **HEAT).shape == (0, 12, 17)
    assert fd_residual_loss(none, **HEAT).isnan()


def test_second_derivatives_are_refused() -> None:
    fields = heat_fields(grad=True)
    for value in (fd_residual(fields, **HEAT).square().sum(), fd_residual_loss(fields, **HEAT)):
        (gradient,) = torch.autograd.grad(value, fields[:1], create_graph=True)
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(gradient.sum(), fields)


def test_a_call_that_was_made_before_gives_the_same() -> None:
    """The first call checks its arguments, the second finds them; what differs is not taken for the same."""
    fields = heat_fields(grad=True)
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def both(given: Any, **change: Any) -> list[torch.Tensor]:
        arguments: dict[str, Any] = {**HEAT, "params": {"alpha": alpha}, **change}
        wanted = [t for t in (*given, alpha) if t.requires_grad]
        residual, loss = fd_residual(given, **arguments), fd_residual_loss(given, **arguments)
        gradients = torch.autograd.grad(residual.sin().sum() + loss, wanted, allow_unused=True)
        return [residual, loss, *(g for g in gradients if g is not None)]

    cases: list[tuple[Any, dict[str, Any]]] = [
        (fields, {}),
        ((fields[1], fields[0].detach()), {}),
        (fields, {"params": {"alpha": 0.3}}),
        (fields, {"params": {"alpha": 0.4}}),
        (fields, {"dt": 0.02}),
        (fields, {"bc": "neumann"}),
        (fields, {"order": 4}),
        (fields, {"spacing": (0.2, 0.1)}),
        (fields, {"theta": 0.25}),
        ([f[0] for f in fields], {}),
    ]
    _eager._shortcuts.clear()
    first = [both(given, **change) for given, change in cases]
    assert len(_eager._shortcuts) == len(cases)
    for (given, change), expected in zip(cases, first, strict=True):
        again = both(given, **change)
        assert len(again) == len(expected)
        assert all(torch.equal(a, e) for a, e in zip(again, expected, strict=True))
    # Not told by its key: a tensor's value.
    with torch.no_grad():
        alpha.fill_(0.5)
    other = fd_residual(fields, **{**HEAT, "params": {"alpha": alpha}})
    torch.testing.assert_close(other, fd_residual(fields, **{**HEAT, "params": {"alpha": 0.5}}))
    with pytest.raises(ValueError, match=r"fields\[1\] has shape"):
        fd_residual((fields[0], fields[1][:1]), **HEAT)


def test_programs_are_released() -> None:
    before = set(Held.by_number)
    held = Held(_program.forward(_heat_problem()), 2)
    number = held.number
    assert number not in before
    fields, alpha = heat_fields(), [torch.tensor(0.3, dtype=torch.float64)]
    torch.ops.rubriscope.fd_held_residual(fields, alpha, number)
    del held
    with pytest.raises(RuntimeError, match=f"program is {number}"):
        torch.ops.rubriscope.fd_held_residual(fields, alpha, number)


def test_the_loss_can_be_differentiated_again_and_scaled() -> None:
    fields = heat_fields(grad=True)
    loss = fd_residual_loss(fields, **HEAT)
    first = torch.autograd.grad(loss, fields, retain_graph=True)
    second = torch.autograd.grad(-2.0 * loss, fields)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(b, -2.0 * a)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"pde": "heet"}, ValueError, "pde is 'heet', expected one of heat"),
    ({"spacing": (0.1, -0.2)}, ValueError, "spacing holds -0.2"),
    ({"spacing": (0.1, float("nan"))}, ValueError, "spacing holds nan"),
    ({"spacing": (1.0,) * 4}, ValueError, "spacing has 4 entries"),
    ({"dt": None}, ValueError, "dt is None"),
    ({"dt": 0.0}, ValueError, "dt is 0.0"),
    ({"params": {}}, ValueError, "params lacks 'alpha'"),
    ({"params": {"alpha": 1.0, "beta": 2.0}}, ValueError, "params has 'beta'"),
    ({"params": {"alpha": "1"}}, TypeError, r"params\['alpha'\] is a str"),
    (
        {"params": {"alpha": torch.ones(5, dtype=torch.float64)}},
        ValueError,
        r"params\['alpha'\] has shape \(5,\)",
    ),
    ({"order": 3}, ValueError, "order is 3"),
    ({"bc": "open"}, ValueError, "bc is 'open'"),
    ({"bc": ("periodic",)}, ValueError, "bc is"),
    ({"theta": 1.5}, ValueError, "theta is 1.5"),
    ({"fields": ()}, ValueError, "fields is empty"),
    ({"fields": [1.0, 2.0]}, TypeError, r"fields\[0\] is a float"),
    ({"fields": [torch.zeros(8, 8), torch.zeros(8, 9)]}, ValueError, r"fields\[1\] has shape \(8, 9\)"),
    ({"fields": [torch.zeros(8, 8), torch.zeros(8, 8).double()]}, TypeError, r"fields\[1\] has dtype"),
    ({"fields": [torch.zeros(8, 8, dtype=torch.int32)] * 2}, TypeError, r"fields\[0\] has dtype torch.int32"),
    ({"fields": [torch.zeros(8, 8)] * 3}, ValueError, "fields holds 3 tensors, expected 1 or 2"),
    ({"fields": [torch.zeros(8)] * 2}, ValueError, r"fields\[0\] has shape \(8,\)"),
    (
        {"fields": [torch.zeros(2, 8)] * 2},
        ValueError,
        "the grid has 2 nodes along axis 0, expected at least 3",
    ),
    (
        {"fields": [torch.zeros(8, 6)] * 2, "order": 6},
        ValueError,
        "6 nodes along axis 1, expected at least 7",
    ),
    ({"pde": "wave", "params": {"c": 1.0}}, ValueError, "fields holds 2 tensors, expected 1 or 3"),
    ({"pde": "kuramoto_sivashinsky", "params": {}}, ValueError, "there in 1 dimensions"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
@pytest.mark.parametrize("function", [fd_residual, fd_residual_loss])
def test_bad_arguments(function: Any, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        function(**{"fields": heat_fields(), **HEAT, **change})


def test_theta_needs_two_levels() -> None:
    fields = [torch.zeros(8)] * 3
    with pytest.raises(ValueError, match=r"theta is 0\.5"):
        fd_residual(fields, "wave", 0.1, dt=0.1, params={"c": 1.0}, theta=0.5)


def test_register() -> None:
    with pytest.raises(ValueError, match="name is 'heat'"):
        register_pde("heat", lambda d, p: d["u"], fields=("u",))
    with pytest.raises(ValueError, match="sources names"):
        register_pde("test_new", lambda d, p: d["u"], fields=("u",), sources=("f",))
    with pytest.raises(ValueError, match="time_order is 3"):
        register_pde("test_new", lambda d, p: d["u"], fields=("u",), time_order=3)
    assert "heat" in equations() and describe("heat").params == ("alpha",)
    if "test_branch" not in equations():
        register_pde(
            "test_branch", lambda d, p: d["u"] if d["u"] else d("u", "x"), fields=("u",), time_order=0
        )
    with pytest.raises(TypeError, match="must not branch"):
        fd_residual(torch.zeros(8), "test_branch", 0.1)


def test_a_damaged_program_is_refused() -> None:
    """Whatever the integers: the operator raises or gives numbers, it never reads elsewhere."""
    problem = Problem(
        "burgers", (12, 17), (0.1, 0.2), 2, 0.01, -1, 1.0, 4, ("dirichlet",) * 2, (((0.1, -1, False),),)
    )
    program = _program.backward(problem, ((INPUT, 2), (INPUT, 3)), True)
    fields = heat_fields() * 2
    generator = torch.Generator().manual_seed(2)
    refused = 0
    for trial in range(400):
        code = list(program.code)
        at = int(torch.randint(len(code), (1,), generator=generator))
        code[at] += int(torch.randint(-40, 40, (1,), generator=generator)) if trial % 2 else 10**12
        try:
            torch.ops.rubriscope.fd_residual_loss(fields, [], code, list(program.numbers))
        except (RuntimeError, ValueError):
            refused += 1
    assert refused > 200


def test_the_reference_page_is_that_of_the_equations() -> None:
    from rubriscope.ops.physics import _reference

    page = Path(__file__).parents[3] / "docs" / "ops" / "equations.md"
    assert page.read_text() == _reference.page(), "write it again as its head says"
