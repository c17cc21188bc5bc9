"""Residuals on grids by dense matrices: what the kernels are compared with.

Each derivative along an axis is a matrix whose weights come from a Vandermonde system in rationals, so
nothing is shared with the kernels but the equations' formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from rubriscope.ops.physics._equations import EQUATIONS


@lru_cache
def weights(derivative: int, nodes: tuple[int, ...]) -> list[float]:
    """Of the derivative at 0 from the values at the nodes: Gauss–Jordan elimination in rationals."""
    count = len(nodes)
    rows = [
        [
            *(Fraction(node) ** power for node in nodes),
            Fraction(math.factorial(power) * (power == derivative)),
        ]
        for power in range(count)
    ]
    for k in range(count):
        pivot = next(r for r in range(k, count) if rows[r][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for r in range(count):
            if r != k:
                rows[r] = [x - rows[r][k] * y for x, y in zip(rows[r], rows[k], strict=True)]
    return [float(row[-1]) for row in rows]


def matrix(n: int, derivative: int, order: int, bc: str, step: float) -> torch.Tensor:
    """The derivative along an axis of n nodes."""
    found = np.zeros((n, n))
    if derivative == 0:
        return torch.eye(n, dtype=torch.float64)
    h = (derivative + 1) // 2 + order // 2 - 1
    for i in range(n):
        first, count = i - h, 2 * h + 1
        if bc == "dirichlet":
            if i in (0, n - 1):
                continue
            if first < 0 or i + h >= n:
                count = derivative + order
                first = 0 if first < 0 else n - count
        nodes = tuple(first + k - i for k in range(count))
        for node, weight in zip(nodes, weights(derivative, nodes), strict=True):
            column = i + node
            if bc == "periodic":
                column %= n
            elif bc == "neumann":
                column = -column if column < 0 else column
                column = 2 * (n - 1) - column if column >= n else column
            found[i, column] += weight
    return torch.from_numpy(found / step**derivative)


class Dense:
    """What an equation's formula runs on."""

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[str],
        fields: Sequence[torch.Tensor],
        spacing: Sequence[float],
        dt: float | None,
        order: int,
        bc: Sequence[str],
        theta: float,
    ) -> None:
        self.dimensions = len(spacing)
        self._spacing, self._order, self._bc, self._dt = spacing, order, bc, dt
        evolving = [n for n in names if n not in sources]
        given_once = [n for n in names if n in sources]
        levels = (len(fields) - len(given_once)) // len(evolving)
        self._levels = {
            name: [fields[level * len(evolving) + k] for level in range(levels)]
            for k, name in enumerate(evolving)
        }
        for k, name in enumerate(given_once):
            self._levels[name] = [fields[levels * len(evolving) + k]]
        self._theta = theta

    def __getitem__(self, field: str) -> torch.Tensor:
        at = self._levels[field]
        if len(at) == 2:
            return self._theta * at[1] + (1 - self._theta) * at[0]
        return at[len(at) // 2]

    def __call__(self, field: str, by: str) -> Any:
        at = self._levels[field]
        if by == "t":
            if len(at) == 1:
                return 0.0
            return (at[-1] - at[0]) / ((len(at) - 1) * self._dt)
        if by == "tt":
            return 0.0 if len(at) == 1 else (at[2] - 2 * at[1] + at[0]) / self._dt**2
        value = self[field]
        for axis, letter in enumerate("xyz"[: self.dimensions]):
            if count := by.count(letter):
                dim = value.ndim - self.dimensions + axis
                d = matrix(value.shape[dim], count, self._order, self._bc[axis], self._spacing[axis])
                value = torch.movedim(torch.tensordot(value, d.to(value), dims=([dim], [1])), -1, dim)
        return value

    def laplacian(self, field: str) -> Any:
        return sum(self(field, 2 * letter) for letter in "xyz"[: self.dimensions])


def residual(
    fields: Sequence[torch.Tensor],
    pde: str,
    spacing: Sequence[float],
    *,
    dt: float | None = None,
    params: Mapping[str, Any] | None = None,
    order: int = 2,
    bc: str | Sequence[str] = "periodic",
    theta: float | None = None,
) -> tuple[torch.Tensor, ...]:
    """As fd_residual, always a tuple."""
    equation = EQUATIONS[pde]
    dimensions = len(spacing)
    boundaries = (bc,) * dimensions if isinstance(bc, str) else tuple(bc)
    d = Dense(
        equation.fields[dimensions],
        equation.sources,
        fields,
        spacing,
        dt,
        order,
        boundaries,
        1.0 if theta is None else theta,
    )
    found = equation.residual(d, params or {})
    mask = torch.ones_like(fields[0])
    for axis, boundary in enumerate(boundaries):
        if boundary == "dirichlet":
            dim = mask.ndim - dimensions + axis
            mask.index_fill_(dim, torch.tensor([0, mask.shape[dim] - 1]), 0.0)
    return tuple(r * mask for r in (found if isinstance(found, tuple) else (found,)))
