"""Finite-difference weights: along one axis, at every node, and their transposes.

A table holds for one axis the rows of the matrix of an ``m``-th derivative (unit spacing) as
``(offset, weight)`` lists: the rows near the lower end, the row in the middle, the rows near the upper end.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

BOUNDARIES = ("periodic", "neumann", "dirichlet")
ORDERS = (2, 4, 6)

#: Above this many nodes the rows in the middle are all alike, whatever the stencil.
_LONG = 64

Row = tuple[tuple[int, float], ...]


class Table(NamedTuple):
    """The rows of one operator along an axis.

    Attributes:
        lead: How many rows at the lower end are their own.
        tail: How many at the upper end.
        rows: ``lead`` rows, the middle row, ``tail`` rows; each a list of (offset, weight).
    """

    lead: int
    tail: int
    rows: tuple[Row, ...]


def fornberg(derivative: int, nodes: Sequence[int]) -> list[Fraction]:
    """The weights of the derivative at 0 from values at the nodes, exactly.

    B. Fornberg, Generation of finite difference formulas on arbitrarily spaced grids, Math. Comp. 51, 1988.
    """
    weights = [[Fraction(0)] * (derivative + 1) for _ in nodes]
    weights[0][0] = Fraction(1)
    c1, c4 = Fraction(1), Fraction(nodes[0])
    for i in range(1, len(nodes)):
        most = min(i, derivative)
        c2, c5, c4 = Fraction(1), c4, Fraction(nodes[i])
        for j in range(i):
            c3 = Fraction(nodes[i] - nodes[j])
            c2 *= c3
            if j == i - 1:
                for k in range(most, 0, -1):
                    weights[i][k] = c1 * (k * weights[i - 1][k - 1] - c5 * weights[i - 1][k]) / c2
                weights[i][0] = -c1 * c5 * weights[i - 1][0] / c2
            for k in range(most, 0, -1):
                weights[j][k] = (c4 * weights[j][k] - k * weights[j][k - 1]) / c3
            weights[j][0] = c4 * weights[j][0] / c3
        c1 = c2
    return [row[derivative] for row in weights]


def reach(derivative: int, order: int) -> int:
    """How far the central stencil of an accuracy order reaches."""
    return 0 if derivative == 0 else (derivative + 1) // 2 + order // 2 - 1


def fewest_nodes(derivative: int, order: int, boundary: str) -> int:
    """The fewest nodes along an axis that the stencil works on."""
    h = reach(derivative, order)
    if boundary == "neumann":
        return h + 1
    if boundary == "dirichlet":
        return max(2 * h + 1, derivative + order if h > 1 else 3)
    return 2 * h + 1


def _row(i: int, n: int, derivative: int, order: int, boundary: str) -> dict[int, Fraction]:
    """Row ``i`` as column → weight; periodic columns may lie outside of [0, n)."""
    if boundary == "dirichlet" and i in (0, n - 1):
        return {}
    if derivative == 0:
        return {i: Fraction(1)}
    h = reach(derivative, order)
    first, count = i - h, 2 * h + 1
    if boundary == "dirichlet" and (first < 0 or i + h >= n):
        count = derivative + order
        first = 0 if first < 0 else n - count
    found: dict[int, Fraction] = {}
    columns = range(first, first + count)
    for column, weight in zip(columns, fornberg(derivative, [c - i for c in columns]), strict=True):
        if weight:
            if boundary == "neumann":
                column = abs(column) if column < n else 2 * (n - 1) - column
            found[column] = found.get(column, Fraction(0)) + weight
    return found


@lru_cache(maxsize=1024)
def table(nodes: int, derivative: int, order: int, boundary: str, transposed: bool) -> Table:
    """The table of a derivative along an axis of so many nodes."""
    n = min(nodes, _LONG)
    rows: list[dict[int, Fraction]] = [{} for _ in range(n)]
    if boundary == "periodic":
        sign = -1 if transposed else 1
        middle_row = {sign * c: w for c, w in _row(0, n, derivative, order, boundary).items()}
        return Table(0, 0, (_relative(middle_row, 0),))
    for i in range(n):
        for column, weight in _row(i, n, derivative, order, boundary).items():
            at, what = (column, i) if transposed else (i, column)
            rows[at][what] = weight
    relative = [_relative(row, i) for i, row in enumerate(rows)]
    middle = n // 2
    lead = middle
    while lead > 0 and relative[lead - 1] == relative[middle]:
        lead -= 1
    last = middle
    while last < n - 1 and relative[last + 1] == relative[middle]:
        last += 1
    return Table(lead, n - 1 - last, (*relative[:lead], relative[middle], *relative[last + 1 :]))


def _relative(row: dict[int, Fraction], i: int) -> Row:
    return tuple((column - i, float(weight)) for column, weight in sorted(row.items()))
