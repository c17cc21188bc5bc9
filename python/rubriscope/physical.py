"""Rubrics over point sets and fields: the distance to a target, the residual of an equation, as a score.

Tensors on the CPU are scored in C++ without the GIL; tensors elsewhere, of half types or not contiguous go
through the same operators, and their score stays on their device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from . import _C
from .native import _Native
from .ops import hausdorff, physics
from .ops.hausdorff import Reduction
from .ops.physics import grid

Shape = Literal["linear", "exponential"]


def _score(distance: torch.Tensor, shape: str, limit: float) -> torch.Tensor:
    """The map of ``csrc/ops/rubrics.h`` on a tensor."""
    if shape == "linear":
        return torch.clamp(1.0 - distance / limit, min=0.0)
    return torch.exp(-distance / limit)


class _OnTensors(_Native):
    """A native leaf whose ``_score_batch`` does what C++ does not take."""

    def _forward_python(self, action: Any, observation: Any) -> Any:
        score = self._score_batch([action], [observation])[0]
        return score if score.device.type != "cpu" else float(score)

    def forward_batch(self, actions: Sequence[Any], observations: Sequence[Any]) -> torch.Tensor:
        """Scores N pairs in one launch: shape (N,), on the tensors' device."""
        if not actions:
            return torch.empty(0, dtype=torch.float64)
        return self._score_batch(actions, observations)

    def _score_batch(self, actions: Sequence[Any], observations: Sequence[Any]) -> torch.Tensor:
        raise NotImplementedError


class HausdorffRubric(_OnTensors):
    """How near a point set comes to another, by their Hausdorff distance.

    The action is a tensor ``(N, D)`` of points. The score is ``max(0, 1 − d / limit)`` (``shape="linear"``)
    or ``exp(−d / limit)`` (``"exponential"``) of the distance ``d`` that
    :func:`rubriscope.ops.hausdorff.distance` gives: 1 where the sets are equal, 0 where one is empty. Where
    both are empty, or a coordinate is NaN, there is no distance, and the score is NaN, which is recorded as
    failed.

    Args:
        target: Points ``(M, D)`` to come near to; None takes the observation, a tensor ``(M, D)``, instead.
        limit: The distance in the points' unit at which the linear score reaches 0, the exponential one 1/e.
        reduction: ``"max"``, ``"percentile"``, ``"mean"`` or ``"modified"``, as there.
        percentile: 0 to 100, for ``"percentile"``.
        directed: Only from the action's points to the target's.
        shape: ``"linear"`` or ``"exponential"``.

    Raises:
        TypeError: ``target`` is no floating tensor.
        ValueError: ``target`` is not of shape (M, D), or another argument is not one of the above.
    """

    def __init__(
        self,
        target: torch.Tensor | None = None,
        limit: float = 1.0,
        *,
        reduction: Reduction = "max",
        percentile: float = 95.0,
        directed: bool = False,
        shape: Shape = "linear",
    ) -> None:
        if target is not None:
            if not isinstance(target, torch.Tensor) or not target.is_floating_point():
                raise TypeError(f"target is {type(target).__name__}, expected a tensor of a floating dtype")
            if target.ndim != 2 or target.shape[1] < 1:
                raise ValueError(f"target has shape {tuple(target.shape)}, expected (M, D)")
        # Refuses a bad reduction or percentile now, in the operator's own words.
        probe = torch.zeros(1, 1)
        hausdorff.distance(probe, probe, reduction=reduction, percentile=percentile)
        super().__init__(
            target=None if target is None else target.detach().cpu(),
            limit=float(limit),
            reduction=reduction,
            percentile=float(percentile),
            directed=bool(directed),
            shape=shape,
        )

    def _make(self, **arguments: Any) -> Any:
        target = arguments["target"]
        return _C._hausdorff_rubric(
            arguments["shape"],
            arguments["limit"],
            arguments["reduction"],
            arguments["percentile"],
            arguments["directed"],
            None if target is None else target.double().flatten().tolist(),
            0 if target is None else target.shape[1],
        )

    @torch.no_grad()
    def _score_batch(self, actions: Sequence[Any], observations: Sequence[Any]) -> torch.Tensor:
        given = self._arguments
        x, x_lengths = _stack(actions, "action")
        if given["target"] is None:
            y, y_lengths = _stack(observations, "observation")
        else:
            y = given["target"].to(x).expand(len(actions), -1, -1)
            y_lengths = None
        distances = hausdorff.distance(
            x,
            y,
            x_lengths,
            y_lengths,
            reduction=given["reduction"],
            percentile=given["percentile"],
            directed=given["directed"],
        )
        return _score(distances.double(), given["shape"], given["limit"])


def _stack(sets: Sequence[Any], name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Point sets as one batch (B, N, D), padded, with their lengths where they differ."""
    for points in sets:
        if not isinstance(points, torch.Tensor):
            raise TypeError(f"{name} is a {type(points).__name__}, expected a tensor of points (N, D)")
        if points.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(points.shape)}, expected (N, D)")
    lengths = [len(points) for points in sets]
    if len(set(lengths)) == 1:
        return torch.stack(tuple(sets)), None
    padded = torch.nn.utils.rnn.pad_sequence(list(sets), batch_first=True)
    return padded, torch.tensor(lengths, device=padded.device)


class PhysicsResidualRubric(_OnTensors):
    """How well fields on a grid satisfy an equation.

    The score is ``max(0, 1 − r / limit)`` (``shape="linear"``) or ``exp(−r / limit)`` (``"exponential"``) of
    the root ``r`` of the mean squared residual, all components and points together, as
    :func:`rubriscope.ops.physics.fd_residual_loss` computes it.

    The action is a field, or a tuple of them, in the order of :func:`rubriscope.ops.physics.fd_residual`: a
    tensor of the grid's shape. With ``observed=True`` the observation holds the earlier time levels, and the
    action the newest: ``rubric(prediction, state)``.

    Args:
        pde: The equation's name.
        spacing: The nodes' distance along each axis.
        limit: The root mean squared residual at which the linear score reaches 0, the exponential one 1/e.
        dt, params, order, bc, theta: As for :func:`rubriscope.ops.physics.fd_residual`; with tensors in
            ``params``, scores are computed with the GIL.
        observed: The fields are the observation's and then the action's.
        shape: ``"linear"`` or ``"exponential"``.

    Raises:
        KeyError or ValueError: an argument is not one of the above.
    """

    def __init__(
        self,
        pde: str,
        spacing: float | Sequence[float],
        limit: float = 1.0,
        *,
        dt: float | None = None,
        params: dict[str, Any] | None = None,
        order: int = 2,
        bc: str | Sequence[str] = "periodic",
        theta: float | None = None,
        observed: bool = False,
        shape: Shape = "linear",
    ) -> None:
        physics.describe(pde)
        if shape not in ("linear", "exponential"):
            raise ValueError(f"shape is {shape!r}, expected 'linear' or 'exponential'")
        if not 0 < limit < math.inf:
            raise ValueError(f"limit is {limit}, expected a positive finite number")
        super().__init__(
            pde=pde,
            spacing=spacing,
            limit=float(limit),
            dt=dt,
            params=params,
            order=order,
            bc=bc,
            theta=theta,
            observed=bool(observed),
            shape=shape,
        )

    def _make(self, **arguments: Any) -> Any:
        return None  # the program needs the grid, which the first call brings

    def _equation(self) -> dict[str, Any]:
        names = ("pde", "spacing", "dt", "params", "order", "bc", "theta")
        return {name: self._arguments[name] for name in names}

    def _fields(self, action: Any, observation: Any) -> tuple[torch.Tensor, ...]:
        given = (*_tuple(observation), *_tuple(action)) if self._arguments["observed"] else _tuple(action)
        for field in given:
            if not isinstance(field, torch.Tensor):
                raise TypeError(f"a field is a {type(field).__name__}, expected a tensor of the grid's shape")
        return given

    def _compile(self, fields: tuple[torch.Tensor, ...]) -> None:
        """Makes the C++ rubric for this grid; the next call of such fields needs no Python."""
        problem, _, tensors, _, _ = grid._prepare(fields, **self._equation())
        if tensors or any(field.dtype not in (torch.float32, torch.float64) for field in fields):
            return
        code, numbers = grid._backward_program(problem, (), True)
        given = self._arguments
        shape = list(fields[0].shape)
        rubric = _C._residual_rubric(given["shape"], given["limit"], code, numbers, shape, given["observed"])
        _C._set_native(self, rubric)

    @torch.no_grad()
    def _score_batch(self, actions: Sequence[Any], observations: Sequence[Any]) -> torch.Tensor:
        calls = [
            self._fields(action, observation)
            for action, observation in zip(actions, observations, strict=True)
        ]
        given = self._arguments
        if len(calls) == 1:
            self._compile(calls[0])
        fields = tuple(torch.stack(levels) for levels in zip(*calls, strict=True))
        residual = physics.fd_residual(fields, **self._equation())
        components = residual if isinstance(residual, tuple) else (residual,)
        squares = torch.stack([r.double().square().flatten(1).mean(1) for r in components]).mean(0)
        return _score(squares.sqrt(), given["shape"], given["limit"])


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
