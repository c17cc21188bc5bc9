"""Hausdorff distances between point sets: exact, batched, differentiable, on CPU and CUDA.

Points are ``(N, D)`` and ``(M, D)``, or batches ``(B, N, D)`` and ``(B, M, D)`` whose items may hold fewer
points than rows (``x_lengths``, ``y_lengths``: int64 tensors ``(B,)`` on the points' device). Any D ≥ 1;
float32 and float64, half types by upcasting. Definitions, the policy for empty sets, NaN and ties, and
gradients: ``docs/ops/hausdorff.md``.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch

from . import _check
from ._mask import mask_distance as mask_distance

Reduction = Literal["max", "percentile", "mean", "modified"]

_REDUCTIONS = ("max", "percentile", "mean", "modified")


def directed(
    x: torch.Tensor,
    y: torch.Tensor,
    x_lengths: torch.Tensor | None = None,
    y_lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The directed Hausdorff distance ``max_i min_j |x_i - y_j|`` and the pair that decides it.

    Args:
        x: Points ``(N, D)`` or ``(B, N, D)``.
        y: Points ``(M, D)`` or ``(B, M, D)``, of x's dtype and device.
        x_lengths: How many rows of each item of x count, ``(B,)`` int64; all where None. On CUDA the values
            are clamped to 0 … N instead of checked, which would have to wait for the device.
        y_lengths: The same of y.

    Returns:
        ``(distance, index_x, index_y)``: scalars, or ``(B,)`` for batches; the distance in x's dtype and
        differentiable (a unit vector at the pair, zero at distance 0), the indices int64. Of several farthest
        points the one of the lowest index counts, and of several nearest ones likewise. One set empty:
        ``inf``; both empty, or a coordinate NaN: ``nan``; the indices are -1 then.

    Raises:
        TypeError: an argument is no tensor, or of a wrong dtype.
        ValueError: shapes or devices do not fit together, or a length is not within 0 … N.
    """
    single, x, y, dtype = _points(x, y, x_lengths, y_lengths)
    distance, index_x, index_y = _farthest(x, y, x_lengths, y_lengths, symmetric=False)
    distance = distance.to(dtype)
    if single:
        return distance.squeeze(0), index_x.squeeze(0), index_y.squeeze(0)
    return distance, index_x, index_y


def distance(
    x: torch.Tensor,
    y: torch.Tensor,
    x_lengths: torch.Tensor | None = None,
    y_lengths: torch.Tensor | None = None,
    *,
    reduction: Reduction = "max",
    percentile: float = 95.0,
    directed: bool = False,
) -> torch.Tensor:
    """The Hausdorff distance, or another reduction of all points' nearest distances.

    Args:
        x: As for :func:`directed`.
        y: As for :func:`directed`.
        x_lengths: As for :func:`directed`.
        y_lengths: As for :func:`directed`.
        reduction: ``"max"``: the larger of both directed distances. ``"percentile"``: the larger of both
            directions' percentiles (95: "HD95"), as ``numpy.percentile`` interpolates linearly. ``"mean"``:
            the average Hausdorff distance, the mean of both directions' means. ``"modified"``: the larger of
            both directions' means (Dubuisson and Jain, A modified Hausdorff distance for object matching,
            ICPR 1994).
        percentile: 0 to 100, for ``"percentile"``.
        directed: Only from x to y.

    Returns:
        A scalar, or ``(B,)``, in x's dtype and differentiable. Empty sets and NaN: as for :func:`directed`.

    Raises:
        TypeError: an argument is no tensor, or of a wrong dtype.
        ValueError: shapes or devices do not fit together, a length is not within 0 … N, or reduction or
            percentile is not one of the above.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}, expected one of {', '.join(_REDUCTIONS)}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile is {percentile}, expected 0 to 100")
    single, x, y, dtype = _points(x, y, x_lengths, y_lengths)
    if reduction == "max":
        result, _, _ = _farthest(x, y, x_lengths, y_lengths, symmetric=not directed)
    else:
        result = _reduced(x, y, x_lengths, y_lengths, reduction, float(percentile), symmetric=not directed)
    result = result.to(dtype)
    return result.squeeze(0) if single else result


def chamfer(
    x: torch.Tensor,
    y: torch.Tensor,
    x_lengths: torch.Tensor | None = None,
    y_lengths: torch.Tensor | None = None,
    *,
    squared: bool = True,
) -> torch.Tensor:
    """The Chamfer distance: the mean nearest distance from x to y plus that from y to x.

    Args:
        x: As for :func:`directed`.
        y: As for :func:`directed`.
        x_lengths: As for :func:`directed`.
        y_lengths: As for :func:`directed`.
        squared: Means of squared distances, as PyTorch3D's ``chamfer_distance`` by default.

    Returns:
        A scalar, or ``(B,)`` (one distance an item; PyTorch3D averages them), in x's dtype and
        differentiable. Empty sets and NaN: as for :func:`directed`.

    Raises:
        TypeError: an argument is no tensor, or of a wrong dtype.
        ValueError: shapes or devices do not fit together, or a length is not within 0 … N.
    """
    single, x, y, dtype = _points(x, y, x_lengths, y_lengths)
    name = "chamfer_squared" if squared else "chamfer"
    result = _reduced(x, y, x_lengths, y_lengths, name, 0.0, symmetric=True).to(dtype)
    return result.squeeze(0) if single else result


# ---- arguments


def _points(
    x: Any, y: Any, x_lengths: Any, y_lengths: Any
) -> tuple[bool, torch.Tensor, torch.Tensor, torch.dtype]:
    """Whether these are single sets, the points as batches in the kernels' dtype, their own dtype."""
    _check.floating(x, "x")
    _check.floating(y, "y")
    _check.same_place(x, "x", y, "y")
    for points, name in ((x, "x"), (y, "y")):
        if points.dim() not in (2, 3):
            raise ValueError(
                f"{name} has shape {tuple(points.shape)}, expected (N, D), or (B, N, D) for a batch"
            )
    if x.dim() != y.dim():
        raise ValueError(f"y has shape {tuple(y.shape)}, expected {x.dim()} dimensions as x has")
    if x.shape[-1] < 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected at least one coordinate a point")
    if y.shape[-1] != x.shape[-1]:
        raise ValueError(f"y has shape {tuple(y.shape)}, expected {x.shape[-1]} coordinates a point as x has")
    if x.dim() == 3 and x.shape[0] != y.shape[0]:
        raise ValueError(f"y has shape {tuple(y.shape)}, expected a batch of {x.shape[0]} as x has")
    single = x.dim() == 2
    _lengths(x_lengths, "x_lengths", x, single)
    _lengths(y_lengths, "y_lengths", y, single)
    dtype = x.dtype
    if single:
        x, y = x.unsqueeze(0), y.unsqueeze(0)
    compute = _check.compute_dtype(dtype)
    return single, x.to(compute), y.to(compute), dtype


def _lengths(lengths: Any, name: str, points: torch.Tensor, single: bool) -> None:
    if lengths is None:
        return
    if not isinstance(lengths, torch.Tensor):
        raise TypeError(f"{name} is a {type(lengths).__name__}, expected an int64 torch.Tensor")
    if lengths.dtype != torch.int64:
        raise TypeError(f"{name} has dtype {lengths.dtype}, expected torch.int64")
    if lengths.device != points.device:
        raise ValueError(f"{name} is on {lengths.device}, expected {points.device} as its points are")
    if single:
        raise ValueError(
            f"{name} is given for points of shape {tuple(points.shape)}, expected a batch (B, N, D)"
        )
    if lengths.shape != points.shape[:1]:
        raise ValueError(f"{name} has shape {tuple(lengths.shape)}, expected ({points.shape[0]},)")
    # Values are read where that costs no waiting; elsewhere the operator sees to them.
    if torch.compiler.is_compiling() or lengths.device.type != "cpu" or lengths.numel() == 0:
        return
    for value in lengths.aminmax():
        if not 0 <= int(value) <= points.shape[1]:
            raise ValueError(f"{name} holds {int(value)}, expected 0 to {points.shape[1]}")


# ---- operators


def _needs_grad(x: torch.Tensor, y: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)


def _farthest(
    x: torch.Tensor,
    y: torch.Tensor,
    x_lengths: torch.Tensor | None,
    y_lengths: torch.Tensor | None,
    *,
    symmetric: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    operator = torch.ops.rubriscope.hausdorff_max
    overload = operator.default if _needs_grad(x, y) else operator.plain
    return cast(
        tuple[torch.Tensor, torch.Tensor, torch.Tensor], overload(x, y, x_lengths, y_lengths, symmetric)
    )


def _reduced(
    x: torch.Tensor,
    y: torch.Tensor,
    x_lengths: torch.Tensor | None,
    y_lengths: torch.Tensor | None,
    reduction: str,
    percentile: float,
    *,
    symmetric: bool,
) -> torch.Tensor:
    operator = torch.ops.rubriscope.hausdorff_reduce
    arguments = (x, y, x_lengths, y_lengths, reduction, percentile, symmetric)
    if _needs_grad(x, y):
        return cast(torch.Tensor, operator.default(*arguments)[0])
    return cast(torch.Tensor, operator.plain(*arguments))


def _max_fake(
    x: torch.Tensor, y: torch.Tensor, x_lengths: Any, y_lengths: Any, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    indices = [x.new_empty((x.shape[0],), dtype=torch.int64) for _ in range(2)]
    return x.new_empty((x.shape[0],)), indices[0], indices[1]


def _reduce_fake(
    x: torch.Tensor,
    y: torch.Tensor,
    x_lengths: Any,
    y_lengths: Any,
    reduction: str,
    percentile: float,
    symmetric: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        x.new_empty((x.shape[0],)),
        x.new_empty(x.shape[:2], dtype=torch.int64),
        y.new_empty(y.shape[:2], dtype=torch.int64),
        x.new_empty(x.shape[:2], dtype=torch.float64),
        y.new_empty(y.shape[:2], dtype=torch.float64),
    )


def _reduce_plain_fake(
    x: torch.Tensor,
    y: torch.Tensor,
    x_lengths: Any,
    y_lengths: Any,
    reduction: str,
    percentile: float,
    symmetric: bool,
) -> torch.Tensor:
    return x.new_empty((x.shape[0],))


def _reduce_backward_fake(
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    near_x: torch.Tensor,
    near_y: torch.Tensor,
    weight_x: torch.Tensor,
    weight_y: torch.Tensor,
    squared: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(
        y, memory_format=torch.contiguous_format
    )


torch.library.register_fake("rubriscope::hausdorff_max", _max_fake)
torch.library.register_fake("rubriscope::hausdorff_max.plain", _max_fake)
torch.library.register_fake("rubriscope::hausdorff_reduce", _reduce_fake)
torch.library.register_fake("rubriscope::hausdorff_reduce.plain", _reduce_plain_fake)
torch.library.register_fake("rubriscope::hausdorff_reduce_backward", _reduce_backward_fake)


# ---- gradients


def _max_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    _, index_x, index_y = output
    ctx.mark_non_differentiable(index_x, index_y)
    ctx.save_for_backward(inputs[0], inputs[1], index_x, index_y)


def _max_backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    """In torch's own operators: one row an item, so nothing is added up; differentiable again."""
    x, y, index_x, index_y = ctx.saved_tensors
    dimensions = x.shape[2]
    found = (index_x >= 0).view(-1, 1, 1)
    at_x = index_x.clamp(min=0).view(-1, 1, 1).expand(-1, 1, dimensions)
    at_y = index_y.clamp(min=0).view(-1, 1, 1).expand(-1, 1, dimensions)
    # Without a pair a set may have no row to look at.
    if x.shape[1] == 0 or y.shape[1] == 0:
        return torch.zeros_like(x), torch.zeros_like(y), None, None, None
    # In float64, where squares of float32 differences neither overflow nor underflow.
    difference = x.gather(1, at_x).double() - y.gather(1, at_y).double()
    scale = difference.detach().abs().amax(dim=2, keepdim=True)
    usable = found & (scale > 0) & scale.isfinite()
    safe = torch.where(usable, difference / torch.where(usable, scale, 1.0), 1.0)
    unit = safe / (safe * safe).sum(dim=2, keepdim=True).sqrt()
    row = torch.where(usable, unit * grad.view(-1, 1, 1).double(), 0.0).to(x.dtype)
    grad_x = torch.zeros_like(x).scatter(1, at_x, row) if ctx.needs_input_grad[0] else None
    grad_y = torch.zeros_like(y).scatter(1, at_y, -row) if ctx.needs_input_grad[1] else None
    return grad_x, grad_y, None, None, None


torch.library.register_autograd("rubriscope::hausdorff_max", _max_backward, setup_context=_max_setup)


def _reduce_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.squared = inputs[4] == "chamfer_squared"
    ctx.save_for_backward(inputs[0], inputs[1], *output[1:])


def _reduce_backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    grad_x, grad_y = torch.ops.rubriscope.hausdorff_reduce_backward(grad, *ctx.saved_tensors, ctx.squared)
    return (
        grad_x if ctx.needs_input_grad[0] else None,
        grad_y if ctx.needs_input_grad[1] else None,
        *([None] * 5),
    )


torch.library.register_autograd("rubriscope::hausdorff_reduce", _reduce_backward, setup_context=_reduce_setup)


def _no_second_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _no_second_backward(ctx: Any, *_: Any) -> Any:
    raise NotImplementedError(
        "the gradient of rubriscope.ops.hausdorff's percentile, mean, modified and chamfer distances "
        "cannot be differentiated again"
    )


torch.library.register_autograd(
    "rubriscope::hausdorff_reduce_backward", _no_second_backward, setup_context=_no_second_setup
)
