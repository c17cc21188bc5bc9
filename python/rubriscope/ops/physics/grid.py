"""Residuals of partial differential equations on regular grids, and own equations from the same pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .._check import compute_dtype, floating, same_place
from . import _eager, _program
from ._equations import EQUATIONS, Equation, Residual
from ._program import INPUT, PARAM, Entry, Problem
from ._weights import BOUNDARIES, ORDERS

Fields = torch.Tensor | Sequence[torch.Tensor]
Params = Mapping[str, Any] | None


def fd_residual(
    fields: Fields,
    pde: str,
    spacing: float | Sequence[float],
    *,
    dt: float | None = None,
    params: Params = None,
    order: int = 2,
    bc: str | Sequence[str] = "periodic",
    theta: float | None = None,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """The residual of an equation at every grid point, by central finite differences, in one fused pass.

    ``fd_residual((u_now, u_next), "heat", (hx, hy), dt=dt, params={"alpha": a})`` is
    ``(u_next − u_now)/dt − a ∇²u_next``. docs/ops/equations.md lists the equations with their fields and
    parameters, docs/ops/grids.md the stencils and boundaries.

    Args:
        fields: A tensor, or tensors of one shape ``(…batch, *grid)``: the time levels, oldest first, within
            each the equation's fields in order; fields that are given once (a right side) last. The letters
            x, y, z are the grid's axes in order. float32 or float64; half types are computed in float32.
        pde: An equation's name, one of :func:`equations`.
        spacing: The nodes' distance along each axis, which says how many axes the grid has (1 to 3); a
            number in one dimension.
        dt: Time between two levels. None with one level: the steady residual, without time derivatives.
        params: By name, each a number, a tensor without dimensions, or a field that broadcasts to the grid
            (with or without batch); a vector as a sequence of those, or as a tensor ``(d,)`` or
            ``(d, *grid)``.
        order: The accuracy order in space: 2, 4 or 6.
        bc: "periodic", "neumann" (zero normal derivative, by even reflection about the boundary node) or
            "dirichlet" (the boundary nodes' values are prescribed, their residual is 0); one for each axis,
            or one for all.
        theta: Where between two levels all but the time derivative is taken: 1 the new one (the default), 0
            the old one, 0.5 Crank–Nicolson.

    Returns:
        One tensor of the fields' shape and dtype for each component of the residual; the tensor itself where
        there is one. Differentiable once, in the fields and in parameters that are tensors.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an unknown equation or parameter, shapes or devices that differ, a spacing, dt, order,
            bc or theta that is not as above, or a grid too small for the stencils.
    """
    call = _call(fields, pde, spacing, dt, params, order, bc, theta)
    found: Sequence[torch.Tensor]
    if call.known is not None:
        found = call.known.residual(call.inputs, call.tensors)
    else:
        code, numbers = _forward_program(call.problem)
        given = call.inputs, call.tensors, code, numbers
        if call.wanted:
            adjoint = _backward_program(call.problem, call.wanted, False)
            found = torch.ops.rubriscope.fd_residual(*given, *adjoint)
        else:
            found = torch.ops.rubriscope.fd_residual.plain(*given)
    components = tuple(f.to(call.dtype) for f in found)
    return components[0] if len(components) == 1 else components


def fd_residual_loss(
    fields: Fields,
    pde: str,
    spacing: float | Sequence[float],
    *,
    dt: float | None = None,
    params: Params = None,
    order: int = 2,
    bc: str | Sequence[str] = "periodic",
    theta: float | None = None,
) -> torch.Tensor:
    """The mean squared residual, and in the same sweep its gradient where one is needed.

    The sum of squares over all components, batches and grid points, divided by their number (the zeros at
    "dirichlet" boundary nodes count as values), summed in float64 in a fixed order. Where a field or a
    parameter requires a gradient, the forward pass computes it too, by the adjoint stencils on tiles that
    stay in cache; the backward pass multiplies it by the incoming number. Arguments and errors as in
    :func:`fd_residual`.

    Returns:
        A tensor without dimensions, in the fields' dtype, float32 for half types. Differentiable once.
    """
    call = _call(fields, pde, spacing, dt, params, order, bc, theta)
    if call.known is not None:
        return call.known.mean_square(call.inputs, call.tensors)
    code, numbers = _backward_program(call.problem, call.wanted, True)
    given = call.inputs, call.tensors, code, numbers
    loss: torch.Tensor
    if call.wanted:
        loss = torch.ops.rubriscope.fd_residual_loss(*given)[0]
    else:
        loss = torch.ops.rubriscope.fd_residual_loss.plain(*given)
    return loss


def register_pde(
    name: str,
    residual: Residual,
    *,
    fields: Sequence[str] | Mapping[int, Sequence[str]],
    params: Sequence[str] = (),
    time_order: int = 1,
    sources: Sequence[str] = (),
    vectors: Sequence[str] = (),
    formula: str | None = None,
    source: str = "registered by the user",
) -> Equation:
    """Adds an own equation, usable like those that are there.

    ``register_pde("fisher", lambda d, p: d("u", "t") - p["D"] * d.laplacian("u") - d["u"] * (1 - d["u"]),
    fields=("u",), params=("D",))``. The formula is run once on symbols and becomes the same fused kernel; its
    adjoint follows by itself.

    Args:
        name: A new name.
        residual: ``(d, params) -> residual``, or a tuple of residuals. ``d["u"]`` is a field's value,
            ``d("u", "xy")`` a derivative, ``d.laplacian("u")`` the Laplacian, ``d.dimensions`` the number of
            dimensions; they take + − * / ** and torch.sin, cos, exp, log, tanh, sqrt.
        fields: The fields' names in order, for every number of dimensions or by it.
        params: The parameters' names.
        time_order: The highest time derivative: 0, 1 or 2.
        sources: Those of the fields that are given once.
        vectors: Those of the parameters that have one entry per dimension.
        formula: The residual as text, for :func:`describe`.
        source: Where the equation comes from.

    Raises:
        ValueError: the name is taken or empty, a time order other than 0, 1 or 2, no fields, or sources and
            vectors that are not among the fields and parameters.
        TypeError: the residual is not callable.
    """
    if not callable(residual):
        raise TypeError(f"residual is a {type(residual).__name__}, expected a callable (d, params)")
    if not name or name in EQUATIONS:
        raise ValueError(f"name is '{name}', expected one that is not taken: {', '.join(EQUATIONS)}")
    if time_order not in (0, 1, 2):
        raise ValueError(f"time_order is {time_order}, expected 0, 1 or 2")
    by_dimension = (
        {int(d): tuple(names) for d, names in fields.items()}
        if isinstance(fields, Mapping)
        else {d: tuple(fields) for d in (1, 2, 3)}
    )
    if not by_dimension or not all(by_dimension.values()) or not set(by_dimension) <= {1, 2, 3}:
        raise ValueError(f"fields is {fields!r}, expected names, for 1 to 3 dimensions")
    every = {f for names in by_dimension.values() for f in names}
    for what, names, among in (("sources", sources, every), ("vectors", vectors, set(params))):
        if unknown := sorted(set(names) - among):
            raise ValueError(f"{what} names {unknown}, expected some of {sorted(among)}")
    equation = Equation(
        name,
        residual,
        by_dimension,
        tuple(params),
        time_order,
        formula or "see the registered function",
        source,
        tuple(sources),
        tuple(vectors),
    )
    EQUATIONS[name] = equation
    return equation


def equations() -> tuple[str, ...]:
    """The names of all equations, registered ones too."""
    return tuple(EQUATIONS)


def describe(pde: str) -> Equation:
    """An equation's formula, fields, parameters and source.

    Raises:
        ValueError: there is no such equation.
    """
    if pde not in EQUATIONS:
        raise ValueError(f"pde is '{pde}', expected one of {', '.join(EQUATIONS)}")
    return EQUATIONS[pde]


# ---- arguments


class _Call(NamedTuple):
    """A call whose arguments were checked.

    Attributes:
        known: What runs it, where an eager call does; None for the operators with their lists.
        problem: The arguments of Problem; without ``known`` only.
        tensors: The parameters that are tensors.
        wanted: What has a gradient: (INPUT or PARAM, index).
        dtype: That of the residuals.
    """

    known: _eager.Known | None
    problem: tuple[Any, ...]
    inputs: list[torch.Tensor]
    tensors: list[torch.Tensor]
    wanted: _eager.Wanted
    dtype: torch.dtype


def _call(
    fields: Fields,
    pde: str,
    spacing: float | Sequence[float],
    dt: float | None,
    params: Params,
    order: int,
    bc: str | Sequence[str],
    theta: float | None,
) -> _Call:
    key = None
    if not torch.compiler.is_compiling():
        key = _eager.key_of(fields, pde, spacing, dt, params, order, bc, theta)
    if key is not None:
        again = _eager.recall(key, params)
        if again is not None:
            inputs = [fields] if isinstance(fields, torch.Tensor) else list(fields)
            return _Call(again[0], (), inputs, again[1], again[0].wanted, inputs[0].dtype)
    problem, inputs, tensors, wanted, dtype = _prepare(fields, pde, spacing, dt, params, order, bc, theta)
    if not _eager.is_plain([*inputs, *tensors]):
        return _Call(None, problem, inputs, tensors, wanted, dtype)
    known = _eager.known(Problem(*problem), len(inputs), wanted)
    if key is not None:
        _eager.remember(key, known, params)
    return _Call(known, (), inputs, tensors, wanted, dtype)


def _prepare(
    fields: Fields,
    pde: str,
    spacing: float | Sequence[float],
    dt: float | None,
    params: Params,
    order: int,
    bc: str | Sequence[str],
    theta: float | None,
) -> tuple[tuple[Any, ...], list[torch.Tensor], list[torch.Tensor], tuple[tuple[int, int], ...], torch.dtype]:
    equation = describe(pde)
    steps = _spacing(spacing)
    dimensions = len(steps)
    if dimensions not in equation.fields:
        known = ", ".join(f"{d}" for d in equation.fields)
        raise ValueError(f"spacing has {dimensions} entries, and {pde} is there in {known} dimensions")
    given = _fields(fields, dimensions)
    first = given[0]
    dtype = compute_dtype(first.dtype)
    shape = tuple(int(n) for n in first.shape[first.ndim - dimensions :])
    levels = _levels(equation, dimensions, len(given), dt)
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}, expected 2, 4 or 6")
    boundaries = (bc,) * dimensions if isinstance(bc, str) else tuple(bc)
    if len(boundaries) != dimensions or any(b not in BOUNDARIES for b in boundaries):
        raise ValueError(
            f"bc is {bc!r}, expected 'periodic', 'neumann' or 'dirichlet', for all {dimensions} axes or each"
        )
    if theta is not None and levels != 2:
        raise ValueError(f"theta is {theta}, expected None: it lies between two time levels, got {levels}")
    weight = 1.0 if theta is None else float(theta)
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"theta is {theta}, expected a number from 0 to 1")
    entries, tensors = _params(equation, params, dimensions, shape, first, dtype)
    rate = -1
    if dt is not None and torch.compiler.is_compiling():
        # A number that changes between calls is no constant there: it goes in as a tensor.
        rate = len(tensors)
        tensors.append(torch.full((), 1.0 / dt, dtype=dtype, device=first.device))
    problem = (  # the arguments of Problem
        pde,
        shape,
        steps,
        levels,
        None if dt is None or rate >= 0 else float(dt),
        rate,
        weight,
        order,
        boundaries,
        entries,
    )
    inputs = [f.to(dtype).contiguous() for f in given]
    wanted: tuple[tuple[int, int], ...] = ()
    if torch.is_grad_enabled():
        wanted = tuple((INPUT, i) for i, f in enumerate(inputs) if f.requires_grad) + tuple(
            (PARAM, i) for i, t in enumerate(tensors) if t.requires_grad
        )
    return problem, inputs, tensors, wanted, first.dtype


def _spacing(spacing: float | Sequence[float]) -> tuple[float, ...]:
    steps = (float(spacing),) if isinstance(spacing, (int, float)) else tuple(float(s) for s in spacing)
    if not 1 <= len(steps) <= 3:
        raise ValueError(f"spacing has {len(steps)} entries, expected 1 to 3, one per dimension")
    for step in steps:
        if not 0 < step < math.inf:
            raise ValueError(f"spacing holds {step}, expected positive finite numbers")
    return steps


def _fields(fields: Fields, dimensions: int) -> list[torch.Tensor]:
    given = [fields] if isinstance(fields, torch.Tensor) else list(fields)
    if not given:
        raise ValueError("fields is empty, expected a tensor or tensors")
    for index, field in enumerate(given):
        name = f"fields[{index}]"
        floating(field, name)
        if index:
            same_place(given[0], "fields[0]", field, name)
            if field.shape != given[0].shape:
                raise ValueError(
                    f"{name} has shape {tuple(field.shape)}, expected {tuple(given[0].shape)} "
                    "as fields[0] has"
                )
    if given[0].ndim < dimensions:
        raise ValueError(
            f"fields[0] has shape {tuple(given[0].shape)}, expected at least {dimensions} axes, "
            "one per entry of spacing"
        )
    return given


def _levels(equation: Equation, dimensions: int, count: int, dt: float | None) -> int:
    """How many time levels the fields are."""
    names = equation.fields[dimensions]
    given_once = [name for name in names if name in equation.sources]
    evolving = len(names) - len(given_once)
    allowed = {0: (1,), 1: (1, 2), 2: (1, 3)}[equation.time_order]
    levels = (count - len(given_once)) // evolving if evolving else 1
    if levels not in allowed or levels * evolving + len(given_once) != count:
        numbers = " or ".join(str(level * evolving + len(given_once)) for level in allowed)
        raise ValueError(
            f"fields holds {count} tensors, expected {numbers} for {equation.name}: {', '.join(names)}"
            + (f" at {' or '.join(map(str, allowed))} time levels" if equation.time_order else "")
        )
    if levels == 1 and dt is not None:
        raise ValueError(f"dt is {dt}, expected None: the fields are of one time level")
    if levels > 1 and (dt is None or not 0 < dt < math.inf):
        raise ValueError(
            f"dt is {dt}, expected a positive finite number: the fields are of {levels} time levels"
        )
    return levels


def _params(
    equation: Equation,
    params: Params,
    dimensions: int,
    grid: tuple[int, ...],
    first: torch.Tensor,
    dtype: torch.dtype,
) -> tuple[tuple[tuple[Entry, ...], ...], list[torch.Tensor]]:
    """The parameters as entries of a problem, and those that are tensors."""
    given = dict(params or {})
    for name in given:
        if name not in equation.params:
            known = ", ".join(equation.params) or "none"
            raise ValueError(f"params has '{name}', and {equation.name}'s parameters are: {known}")
    found: list[tuple[Entry, ...]] = []
    tensors: list[torch.Tensor] = []
    for name in equation.params:
        if name not in given:
            raise ValueError(f"params lacks '{name}', which {equation.name} needs")
        values = _entries(given[name], name, dimensions, grid) if name in equation.vectors else [given[name]]
        entries: list[Entry] = []
        for value in values:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                if torch.compiler.is_compiling():
                    entries.append((None, len(tensors), False))
                    tensors.append(torch.full((), float(value), dtype=dtype, device=first.device))
                    continue
                entries.append((float(value), -1, False))
                continue
            if not isinstance(value, torch.Tensor):
                raise TypeError(
                    f"params['{name}'] is a {type(value).__name__}, expected a number or a tensor"
                )
            floating(value, f"params['{name}']")
            if value.ndim and value.device != first.device:
                raise ValueError(
                    f"params['{name}'] is on {value.device}, expected {first.device} as the fields"
                )
            entries.append((None, len(tensors), value.ndim > 0))
            tensors.append(_param(value, name, dimensions, first).to(first.device, dtype).contiguous())
        found.append(tuple(entries))
    return tuple(found), tensors


def _entries(value: Any, name: str, dimensions: int, grid: tuple[int, ...]) -> list[Any]:
    """A vector parameter's entries."""
    if isinstance(value, torch.Tensor):
        if value.ndim in (1, 1 + len(grid)) and value.shape[0] == dimensions and tuple(value.shape) != grid:
            return list(value.unbind(0))
        if dimensions == 1:
            return [value]
        raise ValueError(
            f"params['{name}'] has shape {tuple(value.shape)}, "
            f"expected ({dimensions},) or {(dimensions, *grid)}"
        )
    if isinstance(value, Sequence):
        if len(value) != dimensions:
            raise ValueError(
                f"params['{name}'] has {len(value)} entries, expected {dimensions}, one per dimension"
            )
        return list(value)
    if dimensions == 1:
        return [value]
    raise ValueError(f"params['{name}'] is {value!r}, expected {dimensions} entries, one per dimension")


def _param(value: torch.Tensor, name: str, dimensions: int, first: torch.Tensor) -> torch.Tensor:
    """A parameter's tensor: without dimensions, of the grid's shape, or of the fields' shape."""
    if value.ndim == 0:
        return value
    grid = first.shape[first.ndim - dimensions :]
    shape = first.shape if value.ndim > dimensions or value.requires_grad else grid
    try:
        return value.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"params['{name}'] has shape {tuple(value.shape)}, expected one that broadcasts to {tuple(shape)}"
        ) from None


# ---- programs, as constants under torch.compile

Lists = tuple[tuple[int, ...], tuple[float, ...]]


# A problem travels as a plain tuple: torch.compile takes those for constants.


def _forward_lists(problem: tuple[Any, ...]) -> Lists:
    program = _program.forward(Problem(*problem))
    return program.code, program.numbers


def _backward_lists(problem: tuple[Any, ...], wanted: tuple[tuple[int, int], ...], loss: bool) -> Lists:
    program = _program.backward(Problem(*problem), wanted, loss)
    return program.code, program.numbers


_forward_program: Callable[..., Lists] = torch.compiler.assume_constant_result(_forward_lists)
_backward_program: Callable[..., Lists] = torch.compiler.assume_constant_result(_backward_lists)


# ---- fake kernels and autograd


def _gradients_of(code: Sequence[int]) -> list[tuple[int, int]]:
    """Which input or parameter each gradient of a program belongs to."""
    return [(code[3 + 2 * g], code[4 + 2 * g]) for g in range(code[2])]


def _fake_gradients(
    inputs: list[torch.Tensor], params: list[torch.Tensor], code: Sequence[int]
) -> list[torch.Tensor]:
    like = inputs[0]
    return [
        like.new_empty(() if kind == PARAM and params[index].ndim == 0 else like.shape)
        for kind, index in _gradients_of(code)
    ]


def _fake_residual(
    inputs: list[torch.Tensor],
    params: list[torch.Tensor],
    code: list[int],
    numbers: list[float],
    adjoint: list[int],
    adjoint_numbers: list[float],
) -> list[torch.Tensor]:
    return [inputs[0].new_empty(inputs[0].shape) for _ in range(code[1])]


def _fake_residual_plain(
    inputs: list[torch.Tensor], params: list[torch.Tensor], code: list[int], numbers: list[float]
) -> list[torch.Tensor]:
    return [inputs[0].new_empty(inputs[0].shape) for _ in range(code[1])]


def _fake_vjp(
    cotangents: list[torch.Tensor],
    inputs: list[torch.Tensor],
    params: list[torch.Tensor],
    code: list[int],
    numbers: list[float],
) -> list[torch.Tensor]:
    return _fake_gradients(inputs, params, code)


def _fake_loss(
    inputs: list[torch.Tensor], params: list[torch.Tensor], code: list[int], numbers: list[float]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return inputs[0].new_empty(()), _fake_gradients(inputs, params, code)


def _fake_loss_plain(
    inputs: list[torch.Tensor], params: list[torch.Tensor], code: list[int], numbers: list[float]
) -> torch.Tensor:
    return inputs[0].new_empty(())


def _fake_scaled(
    gradients: list[torch.Tensor], by: torch.Tensor, of: list[torch.Tensor]
) -> list[torch.Tensor]:
    return [g.new_empty(g.shape) for g in gradients]


for _name, _fake in (
    ("fd_residual", _fake_residual),
    ("fd_residual.plain", _fake_residual_plain),
    ("fd_residual_vjp", _fake_vjp),
    ("fd_residual_loss", _fake_loss),
    ("fd_residual_loss.plain", _fake_loss_plain),
    ("fd_scaled", _fake_scaled),
):
    torch.library.register_fake(f"rubriscope::{_name}", _fake)


def _sorted_out(
    found: Sequence[torch.Tensor], code: Sequence[int], inputs: int, params: int
) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
    """Gradients in the order of the operator's arguments, None where there is none."""
    gradients: tuple[list[torch.Tensor | None], list[torch.Tensor | None]] = (
        [None] * inputs,
        [None] * params,
    )
    for (kind, index), gradient in zip(_gradients_of(code), found, strict=True):
        gradients[kind][index] = gradient
    return gradients


def _residual_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    fields, params, _, _, ctx.code, ctx.numbers = inputs
    ctx.count = len(fields)
    ctx.save_for_backward(*fields, *params)


def _residual_backward(ctx: Any, cotangents: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    fields, params = list(ctx.saved_tensors[: ctx.count]), list(ctx.saved_tensors[ctx.count :])
    found = torch.ops.rubriscope.fd_residual_vjp(
        [c.contiguous() for c in cotangents], fields, params, ctx.code, ctx.numbers
    )
    return (*_sorted_out(found, ctx.code, len(fields), len(params)), None, None, None, None)


def _loss_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    fields, params, ctx.code, _ = inputs
    ctx.counts = len(fields), len(params)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*fields, *params, *output[1])


def _loss_backward(
    ctx: Any, cotangent: torch.Tensor | None, _: Sequence[torch.Tensor | None]
) -> tuple[Any, ...]:
    fields, params = ctx.counts
    if cotangent is None:
        return [None] * fields, [None] * params, None, None
    saved = list(ctx.saved_tensors)
    found = torch.ops.rubriscope.fd_scaled(saved[fields + params :], cotangent, saved[: fields + params])
    return (*_sorted_out(found, ctx.code, fields, params), None, None)


def _no_second(operator: str) -> Callable[..., Any]:
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            f"{operator} has first derivatives only: its gradient cannot be differentiated again"
        )

    return backward


torch.library.register_autograd("rubriscope::fd_residual", _residual_backward, setup_context=_residual_setup)
torch.library.register_autograd("rubriscope::fd_residual_loss", _loss_backward, setup_context=_loss_setup)
torch.library.register_autograd("rubriscope::fd_residual_vjp", _no_second("fd_residual"))
torch.library.register_autograd("rubriscope::fd_scaled", _no_second("fd_residual_loss"))
