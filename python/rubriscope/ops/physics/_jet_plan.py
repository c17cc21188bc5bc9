"""Which derivatives an equation asks of a network, and as which channels they are propagated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ._equations import AXES, EQUATIONS, Equation
from .jet import MAX_ORDER

Monomial = tuple[tuple[str, ...], ...]
Terms = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class JetPlan:
    """The channels of one equation.

    Attributes:
        directions: Along which the network is differentiated, one row each.
        orders: Up to which order, for each.
        collapse: The weight of each direction's second derivative in the collapsed channel; empty without.
        drift: That channel's first-order part, one number per input; empty without.
        terms: Each derivative the equation asks for (``""``, ``"t"``, ``"xy"``, ``"laplacian"``) as a
            weighted sum of channels; empty where another derivative already carries it.
    """

    directions: tuple[tuple[float, ...], ...]
    orders: tuple[int, ...]
    collapse: tuple[float, ...]
    drift: tuple[float, ...]
    terms: Mapping[str, Terms]


class _Polynomial:
    """A polynomial in derivatives and tensor parameters, to see how an equation uses them."""

    def __init__(self, terms: Mapping[Monomial, float], ndim: int = 0) -> None:
        self.terms = dict(terms)
        self.ndim = ndim

    @staticmethod
    def of(value: Any) -> _Polynomial:
        if isinstance(value, _Polynomial):
            return value
        if isinstance(value, (int, float)):
            return _Polynomial({(): float(value)})
        raise TypeError(f"no polynomial: {type(value).__name__}")

    def __getitem__(self, axis: int) -> _Polynomial:
        ((symbol,),) = self.terms
        return _Polynomial({((*symbol, str(axis)),): 1.0})

    def __add__(self, other: Any) -> _Polynomial:
        terms = dict(self.terms)
        for monomial, factor in _Polynomial.of(other).terms.items():
            terms[monomial] = terms.get(monomial, 0.0) + factor
        return _Polynomial(terms)

    def __mul__(self, other: Any) -> _Polynomial:
        terms: dict[Monomial, float] = {}
        for a, factor_a in self.terms.items():
            for b, factor_b in _Polynomial.of(other).terms.items():
                monomial = tuple(sorted((*a, *b)))
                terms[monomial] = terms.get(monomial, 0.0) + factor_a * factor_b
        return _Polynomial(terms)

    def __neg__(self) -> _Polynomial:
        return self * -1.0

    def __sub__(self, other: Any) -> _Polynomial:
        return self + _Polynomial.of(other) * -1.0

    def __rsub__(self, other: Any) -> _Polynomial:
        return _Polynomial.of(other) - self

    def __truediv__(self, other: float) -> _Polynomial:
        if not isinstance(other, (int, float)):
            raise TypeError("no polynomial: a quotient")
        return self * (1.0 / other)

    def __pow__(self, power: int) -> _Polynomial:
        if not isinstance(power, int) or power < 0:
            raise TypeError("no polynomial: a power")
        found = _Polynomial.of(1.0)
        for _ in range(power):
            found = found * self
        return found

    __radd__ = __add__
    __rmul__ = __mul__


class _Recorder:
    """Derivatives that note what is asked of them."""

    def __init__(self, dimensions: int, sources: Sequence[str], symbolic: bool) -> None:
        self.dimensions = dimensions
        self.asked: list[str] = []
        self._sources = sources
        self._symbolic = symbolic

    def _value(self, *symbol: str) -> Any:
        if self._symbolic:
            return _Polynomial({(symbol,): 1.0})
        return torch.ones(1, dtype=torch.float64)

    def _note(self, field: str, by: str) -> Any:
        if by not in self.asked:
            self.asked.append(by)
        return self._value("field", field, by)

    def __getitem__(self, field: str) -> Any:
        return self._value("source", field) if field in self._sources else self._note(field, "")

    def __call__(self, field: str, by: str) -> Any:
        return self._note(field, "".join(sorted(by)))

    def laplacian(self, field: str) -> Any:
        return self._note(field, "laplacian")


def _parameter(name: str, kind: Any, symbolic: bool) -> Any:
    if isinstance(kind, float):
        return kind
    if isinstance(kind, tuple):
        return [_parameter(f"{name}{axis}", entry, symbolic) for axis, entry in enumerate(kind)]
    if symbolic:
        return _Polynomial({(("param", name),): 1.0}, ndim=1 if kind == "vector" else 0)
    return torch.ones(3 if kind == "vector" else (), dtype=torch.float64)


def _trace(
    equation: Equation, dimensions: int, numbers: tuple[tuple[str, Any], ...]
) -> tuple[list[str], list[_Polynomial] | None]:
    """What the equation asks for, and its components as polynomials where it is polynomial."""
    for symbolic in (True, False):
        d = _Recorder(dimensions, equation.sources, symbolic)
        params = {name: _parameter(name, kind, symbolic) for name, kind in numbers}
        try:
            found = equation.residual(d, params)
            components = list(found) if isinstance(found, tuple) else [found]
            return d.asked, [_Polynomial.of(c) for c in components] if symbolic else None
        except (TypeError, AttributeError):
            if not symbolic:
                raise
    raise AssertionError("unreachable")


def _merged(components: list[_Polynomial] | None, candidates: Sequence[str]) -> dict[str, float]:
    """Derivatives that may be propagated as one, with their weights; the first has weight 1. Empty where they
    enter non-linearly, with a parameter that is a tensor, or in different proportions.
    """
    if components is None or not candidates:
        return {}
    vectors: dict[tuple[int, str], dict[str, float]] = {}
    for number, component in enumerate(components):
        for monomial, factor in component.terms.items():
            inside = [s for s in monomial if s[0] == "field" and s[2] in candidates]
            if not inside or factor == 0:
                continue
            if len(monomial) > 1:
                return {}
            _, field, by = inside[0]
            vectors.setdefault((number, field), {})[by] = factor
    found: dict[str, float] | None = None
    for vector in vectors.values():
        pivot = vector.get(candidates[0])
        if pivot is None:
            return {}
        weights = {by: factor / pivot for by, factor in vector.items()}
        if found is not None and found != weights:
            return {}
        found = weights
    return found or {}


def _mergeable(components: list[_Polynomial] | None, asked: Sequence[str]) -> dict[str, float]:
    """The largest useful set to propagate as one: time derivatives and second derivatives in space."""
    linear = []
    for by in asked:
        second = by == "laplacian" or (len(by) == 2 and by[0] == by[1])
        if (second or by == "t") and components is not None:
            uses = [m for c in components for m in c.terms if any(s[0] == "field" and s[2] == by for s in m)]
            if all(len(m) == 1 for m in uses):
                linear.append(by)
    if any(by != "t" for by in linear):
        found = _merged(components, linear)
        if len(found) == len(linear) > 1:
            return found
    return {"laplacian": 1.0} if "laplacian" in asked else {}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator,unused-ignore]
def plan(pde: str | Equation, dimensions: int, numbers: tuple[tuple[str, Any], ...]) -> JetPlan | None:
    """The channels for an equation, or None where it needs derivatives that the jets do not have.

    Args:
        pde: The equation or its name.
        dimensions: Its number of space dimensions.
        numbers: Its parameters: a number, None for a tensor, ``"vector"`` for a tensor of one or more
            dimensions, or a tuple of these.
    """
    equation = EQUATIONS[pde] if isinstance(pde, str) else pde
    key = (id(equation), dimensions, numbers)
    if key not in _plans:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = equation, _plan(equation, dimensions, numbers)
    return _plans[key][1]


#: By the equation's identity, which lasts while it is held here: an equation itself does not hash.
_plans: dict[tuple[int, int, Any], tuple[Equation, JetPlan | None]] = {}
_MOST_PLANS = 256


def _plan(equation: Equation, dimensions: int, numbers: tuple[tuple[str, Any], ...]) -> JetPlan | None:
    asked, components = _trace(equation, dimensions, numbers)
    timed = 1 if equation.time_order else 0
    axes = {letter: axis for axis, letter in enumerate((*AXES[:dimensions], "t")[: dimensions + timed])}
    together = _mergeable(components, asked)

    # The orders needed along each axis, and along sums of two for mixed derivatives.
    orders: dict[str, int] = {}

    def need(way: str, order: int) -> None:
        orders[way] = max(orders.get(way, 0), order)

    for by in asked:
        if by in ("", "laplacian") or by in together:
            continue
        if any(letter not in axes for letter in by):
            raise ValueError(
                f"{equation.name} asks for the derivative {by!r}, expected letters of {list(axes)}"
            )
        if len(set(by)) == 1 and len(by) <= MAX_ORDER:
            need(by[0], len(by))
        elif len(by) == 2:
            need(by, 2)
            need(by[0], 2)
            need(by[1], 2)
        else:
            return None
    space = AXES[:dimensions]
    if together == {"laplacian": 1.0} and all(orders.get(letter, 0) >= 2 for letter in space):
        together = {}

    weights = dict.fromkeys(axes, 0.0)
    drift = [0.0] * len(axes)
    for by, factor in together.items():
        if by == "laplacian":
            for letter in space:
                weights[letter] += factor
        elif by == "t":
            drift[axes["t"]] += factor
        else:
            weights[by[0]] += factor
    for letter, weight in weights.items():
        if weight != 0:
            need(letter, 1)

    ways = sorted(orders, key=lambda way: (len(way), [axes[letter] for letter in way]))
    first, channel = {}, 1
    for way in ways:
        first[way] = channel
        channel += orders[way]

    terms: dict[str, Terms] = {"": ((0, 1.0),)}
    for number, by in enumerate(together):
        terms[by] = ((channel, 1.0),) if number == 0 else ()
    for by in asked:
        if by in terms:
            continue
        if by == "laplacian":
            terms[by] = tuple((first[letter] + 1, 1.0) for letter in space)
        elif len(set(by)) == 1:
            terms[by] = ((first[by[0]] + len(by) - 1, 1.0),)
        else:  # the second derivative along x + y is u_xx + 2 u_xy + u_yy
            terms[by] = ((first[by] + 1, 0.5), (first[by[0]] + 1, -0.5), (first[by[1]] + 1, -0.5))
    return JetPlan(
        tuple(tuple(1.0 if letter in way else 0.0 for letter in axes) for way in ways),
        tuple(orders[way] for way in ways),
        tuple(weights[way] if len(way) == 1 else 0.0 for way in ways) if together else (),
        tuple(drift) if together else (),
        terms,
    )
