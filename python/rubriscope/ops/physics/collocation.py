"""Residuals of partial differential equations on a network's collocation points."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._check import floating
from ._equations import AXES, EQUATIONS, Equation
from ._jet_plan import JetPlan, plan
from .jet import check_network, jet_channels

Source = Tensor | float | Callable[[Tensor], Tensor]


class Sin(nn.Module):
    """sin(x) as a module, which :func:`collocation_residual` knows as an activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Sine, element by element."""
        return torch.sin(x)


def _activation(module: nn.Module) -> str | None:
    if type(module) is nn.Tanh:
        return "tanh"
    if type(module) is nn.SiLU:
        return "silu"
    if type(module) is Sin:
        return "sin"
    if type(module) is nn.GELU and module.approximate == "none":
        return "gelu"
    return None


def _flat(model: nn.Module) -> list[nn.Module] | None:
    """The modules of nested ``nn.Sequential`` in order; None where a hook may change what they compute."""
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    if model._forward_hooks or model._forward_pre_hooks or model._backward_hooks or model._backward_pre_hooks:
        return None
    if type(model) is nn.Identity:
        return []
    if type(model) is not nn.Sequential:
        return [model]
    found: list[nn.Module] = []
    for child in model:
        inner = _flat(child)
        if inner is None:
            return None
        found += inner
    return found


def plain_mlp(model: Any) -> tuple[list[Tensor], list[Tensor | None], str] | None:
    """Weights, biases and activation of a plain multilayer perceptron, or None for any other model.

    Plain is ``nn.Sequential`` (also nested, with ``nn.Identity`` anywhere, or compiled by ``torch.compile``)
    of ``nn.Linear`` with one kind of activation in between: ``nn.Tanh``, ``nn.SiLU``, ``nn.GELU()`` (the
    exact one) or :class:`Sin`; no hooks.
    """
    if not isinstance(model, nn.Module):
        return None
    modules = _flat(model)
    if not modules or len(modules) % 2 == 0:
        return None
    weights: list[Tensor] = []
    biases: list[Tensor | None] = []
    activation: str | None = None
    for index, module in enumerate(modules):
        if index % 2 == 0:
            if type(module) is not nn.Linear:
                return None
            weights.append(module.weight)
            biases.append(module.bias)
            continue
        kind = _activation(module)
        if kind is None or (activation is not None and kind != activation):
            return None
        activation = kind
    return weights, biases, activation or "tanh"


class _Fields:
    """The equation's view of its fields: sources as given, the others by ``derivative(by)``, ``(N,
    fields)``."""

    def __init__(
        self,
        dimensions: int,
        predicted: Sequence[str],
        sources: Mapping[str, Any],
        derivative: Callable[[str], Any],
    ) -> None:
        self.dimensions = dimensions
        self._index = {field: i for i, field in enumerate(predicted)}
        self._sources = sources
        self._derivative = derivative
        self._known: dict[str, Any] = {}

    def _get(self, field: str, by: str) -> Any:
        if by not in self._known:
            self._known[by] = self._derivative(by)
        found = self._known[by]
        return found[:, self._index[field]] if isinstance(found, Tensor) else found

    def __getitem__(self, field: str) -> Any:
        return self._sources[field] if field in self._sources else self._get(field, "")

    def __call__(self, field: str, by: str) -> Any:
        if field in self._sources:
            raise ValueError(f"the equation asks for the derivative {by!r} of the source {field!r}")
        return self._get(field, "".join(sorted(by)))

    def laplacian(self, field: str) -> Any:
        if field in self._sources:
            raise ValueError(f"the equation asks for the Laplacian of the source {field!r}")
        return self._get(field, "laplacian")


def _jet_derivative(raw: Tensor, wanted: JetPlan) -> Callable[[str], Any]:
    channels = raw.unbind(0)

    def derivative(by: str) -> Any:
        total: Any = 0.0
        for index, factor in wanted.terms[by]:
            term = channels[index] if factor == 1 else factor * channels[index]
            total = term if isinstance(total, float) else total + term
        return total

    return derivative


def _func_derivative(model: Callable[[Tensor], Tensor], x: Tensor, dimensions: int) -> Callable[[str], Any]:
    axes = dict(zip((*AXES[:dimensions], "t"), range(x.shape[1]), strict=False))

    def along(function: Callable[[Tensor], Tensor], letter: str) -> Callable[[Tensor], Tensor]:
        tangent = torch.zeros_like(x)
        tangent[:, axes[letter]] = 1
        return lambda points: torch.func.jvp(function, (points,), (tangent,))[1]

    def derivative(by: str) -> Any:
        if by == "laplacian":
            return sum(derivative(2 * letter) for letter in AXES[:dimensions])
        return functools.reduce(along, by, model)(x)

    return derivative


def _numbers(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The parameters as the plan needs them: numbers, None for a tensor, tuples for sequences; hashable."""

    def kind(value: Any) -> Any:
        if isinstance(value, Tensor):
            return "vector" if value.ndim > 0 else None
        if isinstance(value, Sequence):
            return tuple(kind(entry) for entry in value)
        if isinstance(value, float) and torch.compiler.is_compiling():
            # The plan needs the number itself: a compiled graph is made for it.
            return float.fromhex(value.hex())
        return float(value)

    return tuple((name, kind(value)) for name, value in params.items())


def _equation(pde: str | Equation) -> Equation:
    if isinstance(pde, Equation):
        return pde
    if not isinstance(pde, str):
        raise TypeError(f"pde is a {type(pde).__name__}, expected a name or an Equation")
    if pde not in EQUATIONS:
        raise ValueError(f"pde is {pde!r}, expected one of {', '.join(EQUATIONS)}")
    return EQUATIONS[pde]


def _check_params(
    params: Mapping[str, Any] | None, equation: Equation, count: int, dimensions: int
) -> dict[str, Any]:
    given = dict(params or {})
    for name in given:
        if name not in equation.params:
            known = ", ".join(equation.params) or "none"
            raise ValueError(f"params holds {name!r}, which {equation.name} has not; expected {known}")
    for name in equation.params:
        if name not in given:
            raise ValueError(f"params lacks {name!r}, which {equation.name} needs")
        value = given[name]
        entries = [value] if isinstance(value, Tensor) or not isinstance(value, Sequence) else list(value)
        for entry in entries:
            if isinstance(entry, Tensor):
                shape = tuple(entry.shape)
                if shape not in ((), (count,), (dimensions,), (dimensions, count)):
                    raise ValueError(
                        f"params[{name!r}] has shape {shape}, expected () or ({count},), one number per point"
                    )
            elif isinstance(entry, bool) or not isinstance(entry, (int, float)):
                raise TypeError(
                    f"params[{name!r}] is a {type(entry).__name__}, expected a number or a torch.Tensor"
                )
        if isinstance(value, Sequence) and len(value) != dimensions:
            raise ValueError(f"params[{name!r}] has {len(value)} entries, expected {dimensions}")
    return given


def _check_sources(
    sources: Mapping[str, Source] | None, equation: Equation, names: Sequence[str], x: Tensor
) -> dict[str, Any]:
    given = dict(sources or {})
    for name in given:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"sources holds {name!r}, which {equation.name} has not; expected {known}")
    found: dict[str, Any] = {}
    for name in names:
        if name not in given:
            raise ValueError(f"sources lacks {name!r}, which {equation.name} needs")
        value: Any = given[name]
        if callable(value) and not isinstance(value, Tensor):
            value = value(x)
        if isinstance(value, Tensor):
            if tuple(value.shape) not in ((), (x.shape[0],)):
                raise ValueError(
                    f"sources[{name!r}] has shape {tuple(value.shape)}, expected ({x.shape[0]},)"
                )
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(
                f"sources[{name!r}] is a {type(value).__name__}, expected a torch.Tensor, a number or a "
                "callable of x"
            )
        found[name] = value
    return found


def _check_output(output: Any, x: Tensor, fields: Sequence[str]) -> Tensor:
    count = len(fields)
    if isinstance(output, Tensor):
        if count == 1 and tuple(output.shape) == (x.shape[0],):
            return output[:, None]
        if tuple(output.shape) == (x.shape[0], count):
            return output
        got = f"a tensor of shape {tuple(output.shape)}"
    else:
        got = f"a {type(output).__name__}"
    raise ValueError(
        f"model returned {got} for x of shape {tuple(x.shape)}, expected ({x.shape[0]}, {count}): "
        f"{', '.join(fields)}"
    )


def collocation_residual(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    pde: str | Equation,
    params: Mapping[str, Any] | None = None,
    *,
    sources: Mapping[str, Source] | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """The residual of an equation at points, for the fields a network predicts there.

    A plain multilayer perceptron (see :func:`plain_mlp`) goes through the fused operator behind
    :func:`~rubriscope.ops.physics.mlp_jet`, with only the derivatives that the equation asks for. Those that
    enter it linearly with constant numbers, ``u_t − ν ∇²u`` in Burgers' equation say, are propagated as one
    channel; a parameter given as a tensor keeps its derivative apart, so that its gradient flows. Any other
    model, and an equation with mixed derivatives beyond the second order or derivatives beyond the fourth, is
    differentiated by nested ``torch.func.jvp``: the same residual but for rounding, slower.

    Under ``torch.compile`` a parameter that is a Python number is compiled in: give those that change as
    tensors. Gradients flow to the model's parameters, to x and to tensors among params and sources. The
    gradient of the fused operator's gradient is not available (it raises).

    Args:
        model: Maps ``(N, columns)`` to ``(N, fields)``, or ``(N,)`` where there is one field; the fields in
            the equation's order, without its sources. It must treat points one by one. A model that is no
            ``nn.Module`` may be any function of torch operations with forward-mode derivatives.
        x: Points, ``(N, columns)``: the space coordinates, then the time for an equation with one. The number
            of space dimensions is the number of columns, less one for an equation with a time derivative.
        pde: The name of an equation, or an :class:`Equation`.
        params: The equation's parameters: numbers or tensors, 0-dim or ``(N,)``; a vector (``velocity``) is a
            sequence of these or a tensor ``(dimensions,)`` or ``(dimensions, N)``.
        sources: The equation's given fields (``f``): tensors ``(N,)``, numbers, or callables of x.

    Returns:
        ``(N,)``, or a tuple of them for an equation of several components, in x's dtype. The fused path
        computes float16 and bfloat16 in float32, the other in what the model computes in.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: an unknown equation; a number of columns it does not have; missing or unknown parameters
            or sources; a shape that does not fit.
    """
    equation = _equation(pde)
    x = floating(x, "x")
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (N, columns)")
    dimensions = x.shape[1] - (1 if equation.time_order else 0)
    if dimensions not in equation.fields:
        known = " or ".join(str(d + (1 if equation.time_order else 0)) for d in equation.fields)
        time = ", the time last" if equation.time_order else ""
        raise ValueError(f"x has {x.shape[1]} columns, expected {known} for {equation.name}{time}")
    fields = equation.fields[dimensions]
    predicted = [field for field in fields if field not in equation.sources]
    values = _check_params(params, equation, x.shape[0], dimensions)
    given = _check_sources(sources, equation, [f for f in fields if f in equation.sources], x)

    mlp = plain_mlp(model)
    wanted = None if mlp is None else plan(pde, dimensions, _numbers(values))
    if mlp is not None and wanted is not None:
        weights, biases, activation = mlp
        check_network(x, weights, biases, activation)
        if weights[-1].shape[0] != len(predicted):
            raise ValueError(
                f"model has {weights[-1].shape[0]} outputs, expected {len(predicted)}: {', '.join(predicted)}"
            )
        directions = torch.tensor(wanted.directions, dtype=x.dtype, device=x.device).reshape(-1, x.shape[1])
        raw = jet_channels(
            x, weights, biases, activation, directions, wanted.orders, wanted.collapse, wanted.drift
        )
        derivative = _jet_derivative(raw, wanted)
    else:
        derivative = _func_derivative(
            lambda points: _check_output(model(points), points, predicted), x, dimensions
        )
    found = equation.residual(_Fields(dimensions, predicted, given, derivative), values)
    if isinstance(found, tuple):
        return tuple(_finish(component, x) for component in found)
    return _finish(found, x)


def _finish(component: Tensor, x: Tensor) -> Tensor:
    if tuple(component.shape) != (x.shape[0],):
        raise ValueError(
            f"the equation gave a residual of shape {tuple(component.shape)}, expected ({x.shape[0]},): a "
            "parameter does not fit the points"
        )
    return component.to(x.dtype)
