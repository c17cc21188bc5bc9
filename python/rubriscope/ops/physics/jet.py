"""Value, directional derivatives and forward Laplacian of a multilayer perceptron in one fused pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _load as _load
from .._check import compute_dtype, floating, same_place

ACTIVATIONS = ("tanh", "silu", "sin", "gelu")
MAX_ORDER = 4

_OP = torch.ops.rubriscope


class JetValue(NamedTuple):
    """What :func:`mlp_jet` returns, for N points, K directions v and a network f.

    Attributes:
        value: f(x), ``(N, out)``.
        first: d f(x + s v)/ds at s = 0 for each direction, ``(K, N, out)``; None below order 1.
        second: The second derivative vᵀ H v, ``(K, N, out)``; None below order 2 and where collapsed.
        third: The third, ``(K, N, out)``, or None.
        fourth: The fourth, ``(K, N, out)``, or None.
        collapsed: Σₖ collapse[k] vₖᵀ H vₖ + drift·∇f, ``(N, out)``, or None.
    """

    value: Tensor
    first: Tensor | None = None
    second: Tensor | None = None
    third: Tensor | None = None
    fourth: Tensor | None = None
    collapsed: Tensor | None = None


def _fake(
    x: Tensor,
    parameters: Tensor,
    widths: Sequence[int],
    activation: str,
    directions: Tensor,
    orders: Sequence[int],
    collapse: Sequence[float],
    drift: Sequence[float],
) -> Tensor:
    channels = 1 + sum(orders) + (1 if len(drift) else 0)
    return x.new_empty((channels, x.shape[0], widths[-1]))


torch.library.register_fake("rubriscope::mlp_jet", _fake)
torch.library.register_fake("rubriscope::mlp_jet.plain", _fake)


def _fake_backward(
    grad: Tensor, x: Tensor, parameters: Tensor, *settings: Any, **named: Any
) -> tuple[Tensor, Tensor]:
    wants_x = named.get("wants_x", settings[-1] if settings else False)
    return x.new_empty((x.shape[0] if wants_x else 0, x.shape[1])), torch.empty_like(parameters)


torch.library.register_fake("rubriscope::mlp_jet_backward", _fake_backward)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, parameters, widths, activation, directions, orders, collapse, drift = inputs
    ctx.save_for_backward(x, parameters, directions)
    ctx.settings = (widths, activation, orders, collapse, drift)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, parameters, directions = ctx.saved_tensors
    widths, activation, orders, collapse, drift = ctx.settings
    wants_x = ctx.needs_input_grad[0]
    x_bar, parameters_bar = _OP.mlp_jet_backward(
        grad, x, parameters, widths, activation, directions, orders, collapse, drift, wants_x
    )
    return (x_bar if wants_x else None), parameters_bar, None, None, None, None, None, None


torch.library.register_autograd("rubriscope::mlp_jet", _backward, setup_context=_setup_context)


def _no_double_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    raise RuntimeError(
        "mlp_jet: the gradient of its gradient is not available. Ask for higher derivatives with respect to "
        "x as directions and order; for the rest differentiate a plain torch network"
    )


torch.library.register_autograd("rubriscope::mlp_jet_backward", _no_double_backward)


def flat_parameters(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    """The operator's layout: weight and bias of each layer, flattened, one after the other."""
    parts = []
    for weight, bias in zip(weights, biases, strict=True):
        parts.append(weight.reshape(-1))
        parts.append(weight.new_zeros(weight.shape[0]) if bias is None else bias)
    return torch.cat(parts)


def jet_channels(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    directions: Tensor,
    orders: Sequence[int],
    collapse: Sequence[float] = (),
    drift: Sequence[float] = (),
) -> Tensor:
    """The operator on checked arguments: ``(channels, N, out)``, see csrc/ops/torch/jet.cpp."""
    widths = [int(weights[0].shape[1])] + [int(weight.shape[0]) for weight in weights]
    parameters = flat_parameters(weights, biases)
    dtype = compute_dtype(x.dtype)
    if dtype != x.dtype:
        x, parameters = x.to(dtype), parameters.to(dtype)
    directions = directions.to(dtype)
    wanted = torch.is_grad_enabled() and (x.requires_grad or parameters.requires_grad)
    op = _OP.mlp_jet.default if wanted else _OP.mlp_jet.plain
    found: Tensor = op(
        x, parameters, widths, activation, directions, list(orders), list(collapse), list(drift)
    )
    return found


def check_network(
    x: Any, weights: Sequence[Any], biases: Sequence[Any], activation: str
) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
    """The network's arguments, checked.

    Raises:
        TypeError, ValueError: as :func:`mlp_jet` says.
    """
    x = floating(x, "x")
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (N, inputs)")
    weights, biases = list(weights), list(biases)
    if not weights:
        raise ValueError("weights is empty, expected one (out, in) tensor per layer")
    if len(biases) != len(weights):
        raise ValueError(f"biases has {len(biases)} entries, expected {len(weights)}, one per layer or None")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    width = x.shape[1]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        name = f"weights[{layer}]"
        same_place(x, "x", floating(weight, name), name)
        if weight.ndim != 2 or weight.shape[1] != width or weight.shape[0] < 1:
            raise ValueError(f"{name} has shape {tuple(weight.shape)}, expected (out, {width})")
        width = weight.shape[0]
        if bias is not None:
            name = f"biases[{layer}]"
            same_place(x, "x", floating(bias, name), name)
            if tuple(bias.shape) != (width,):
                raise ValueError(f"{name} has shape {tuple(bias.shape)}, expected ({width},)")
    if x.shape[1] < 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected at least one column")
    return x, weights, biases


def _check_directions(directions: Any, x: Tensor) -> Tensor:
    if directions is None:
        return torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    if not isinstance(directions, Tensor):
        directions = torch.as_tensor(directions, dtype=x.dtype, device=x.device)
    ways = floating(directions, "directions")
    if ways.requires_grad:
        raise ValueError("directions requires grad, but mlp_jet is not differentiable in its directions")
    same_place(x, "x", ways, "directions")
    if ways.ndim != 2 or ways.shape[1] != x.shape[1]:
        raise ValueError(f"directions has shape {tuple(ways.shape)}, expected (K, {x.shape[1]})")
    return ways


def _numbers(values: Any, name: str, count: int) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != count:
        raise ValueError(f"{name} has {len(numbers)} entries, expected {count}")
    return numbers


def mlp_jet(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str = "tanh",
    directions: Tensor | Sequence[Sequence[float]] | None = None,
    order: int = 2,
    *,
    collapse: Sequence[float] | None = None,
    drift: Sequence[float] | None = None,
) -> JetValue:
    """A multilayer perceptron's value and its derivatives along directions, in one pass over the points.

    The network is ``Linear, activation, …, Linear``; derivatives are propagated forwards (Taylor mode), so
    the cost is that of one forward pass per derivative, and the points go through all layers in tiles that
    stay in the cache. The backward (for x, weights and biases) recomputes a tile's activations, so nothing
    of the size points × width is kept. Mixed second derivatives follow by polarisation:
    ``(D²(v + w) − D²(v − w)) / 4``.

    Args:
        x: Points, ``(N, inputs)``.
        weights: One ``(out, in)`` tensor per layer, as ``nn.Linear`` has them.
        biases: One ``(out,)`` tensor per layer, or None.
        activation: ``"tanh"``, ``"silu"``, ``"sin"`` or ``"gelu"`` (the exact one, with erf), between layers.
        directions: ``(K, inputs)``; the coordinate axes by default.
        order: The highest derivative along each direction, 0 to 4.
        collapse: K numbers. The second derivatives are then propagated as one weighted sum (collapsed Taylor
            mode; with ones and the default directions the forward Laplacian of Li et al., Nature Machine
            Intelligence 6, 2024) instead of one by one; ``order`` is 2.
        drift: ``inputs`` numbers b, only with ``collapse``: adds b·∇f to that sum, at no cost. A heat
            operator u_t − α ∇²u is then one channel.

    Returns:
        The derivatives in x's dtype; float16 and bfloat16 compute in float32.

    Raises:
        TypeError: an argument is no floating tensor, or its dtype differs from x's.
        ValueError: a shape, device, activation or order is not as above, or directions requires grad.
        RuntimeError: on a second backward through the first (it is not available).
    """
    x, weights, biases = check_network(x, weights, biases, activation)
    ways = _check_directions(directions, x)
    count = ways.shape[0]
    if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order is {order!r}, expected an integer from 0 to {MAX_ORDER}")
    if collapse is None:
        if drift is not None:
            raise ValueError("drift is given without collapse, expected both or neither")
        if order == 0:
            ways, count = ways[:0], 0
        raw = jet_channels(x, weights, biases, activation, ways, [order] * count).to(x.dtype)
        if order == 0:
            return JetValue(raw[0])
        lines = raw[1:].unflatten(0, (count, order)).unbind(1)
        return JetValue(raw[0], *lines)
    if order != 2:
        raise ValueError(f"order is {order}, expected 2 with collapse")
    sums = _numbers(collapse, "collapse", count)
    along = [0.0] * x.shape[1] if drift is None else _numbers(drift, "drift", x.shape[1])
    raw = jet_channels(x, weights, biases, activation, ways, [1] * count, sums, along).to(x.dtype)
    return JetValue(raw[0], raw[1 : 1 + count], collapsed=raw[1 + count])
