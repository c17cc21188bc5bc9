"""An equation's formula as a graph: what running it on symbols gives, and the graph of its adjoint.

Linear pieces (a field's value, its derivatives, and their sums with constant factors) stay together as one
node, so that one stencil evaluates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from ._equations import AXES

#: What a linear piece reads: (input, derivatives by axis, group). Taps are merged within a group only, which
#: keeps the difference of two time levels a difference.
Part = tuple[int, tuple[int, ...], int]

FUNCTIONS = ("sin", "cos", "exp", "log", "tanh", "sqrt")


class Symbol:
    """One node: ``kind`` is const, linear, param, cotangent, sum, mul, div or a function's name.

    Attributes:
        kind: See above.
        value: const: the number; linear: its parts, ``((part, factor), …)``; param, cotangent: the index;
            sum: ``(constant, factors)``.
        args: The nodes it is made of.
    """

    __slots__ = ("args", "key", "kind", "value")

    def __init__(self, kind: str, value: Any, args: tuple[Symbol, ...] = ()) -> None:
        self.kind, self.value, self.args = kind, value, args
        self.key = (kind, value, tuple(id(a) for a in args))

    def __add__(self, other: Any) -> Symbol:
        return total([(1.0, self), (1.0, symbol(other))])

    __radd__ = __add__

    def __sub__(self, other: Any) -> Symbol:
        return total([(1.0, self), (-1.0, symbol(other))])

    def __rsub__(self, other: Any) -> Symbol:
        return total([(-1.0, self), (1.0, symbol(other))])

    def __neg__(self) -> Symbol:
        return scaled(self, -1.0)

    def __pos__(self) -> Symbol:
        return self

    def __mul__(self, other: Any) -> Symbol:
        return product(self, symbol(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Symbol:
        return quotient(self, symbol(other))

    def __rtruediv__(self, other: Any) -> Symbol:
        return quotient(symbol(other), self)

    def __pow__(self, exponent: Any) -> Symbol:
        if not isinstance(exponent, int) or exponent < 1:
            raise TypeError(f"a power in a residual is {exponent!r}, expected a positive integer")
        found = self
        for _ in range(exponent - 1):
            found = product(found, self)
        return found

    def __bool__(self) -> bool:
        raise TypeError("a residual's formula must not branch on a field's values")

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        operators: dict[str, Callable[..., Any]] = {
            "add": lambda a, b: a + b,
            "sub": lambda a, b: a - b,
            "rsub": lambda a, b: b - a,
            "mul": lambda a, b: a * b,
            "div": lambda a, b: a / b,
            "true_divide": lambda a, b: a / b,
            "square": lambda a: a * a,
            "neg": lambda a: -a,
        }
        name = getattr(func, "__name__", str(func))
        if name in FUNCTIONS and not kwargs:
            return function(name, symbol(args[0]))
        if name in operators and not kwargs:
            return operators[name](*[symbol(a) for a in args])
        raise TypeError(f"torch.{name} is not available in a residual; there are {', '.join(FUNCTIONS)}")


_made: dict[Any, Symbol] = {}


def _node(kind: str, value: Any, args: tuple[Symbol, ...] = ()) -> Symbol:
    """The one node of its kind, value and arguments, so that common expressions are shared."""
    made = Symbol(kind, value, args)
    return _made.setdefault(made.key, made)


def forget() -> None:
    """Drops the shared nodes: called when a formula is done."""
    _made.clear()


def symbol(value: Any) -> Symbol:
    """A node of a number, or the node itself."""
    if isinstance(value, Symbol):
        return value
    if isinstance(value, torch.Tensor):
        raise TypeError("a residual uses a tensor that is no parameter: declare it in params")
    return _node("const", float(value))


def linear(parts: Mapping[Part, float]) -> Symbol:
    """A linear piece."""
    kept = tuple(sorted((part, factor) for part, factor in parts.items() if factor != 0.0))
    return _node("linear", kept) if kept else symbol(0.0)


def param(index: int) -> Symbol:
    """A parameter that is a tensor."""
    return _node("param", index)


def cotangent(index: int) -> Symbol:
    """The cotangent of a residual component."""
    return _node("cotangent", index)


def total(terms: Iterable[tuple[float, Symbol]]) -> Symbol:
    """The sum of factor times node."""
    constant = 0.0
    parts: dict[Part, float] = {}
    others: dict[Symbol, float] = {}
    for factor, node in terms:
        inner = [(1.0, node)]
        if node.kind == "sum":
            constant += factor * node.value[0]
            inner = list(zip(node.value[1], node.args, strict=True))
        for weight, item in inner:
            if item.kind == "const":
                constant += factor * weight * item.value
            elif item.kind == "linear":
                for part, value in item.value:
                    parts[part] = parts.get(part, 0.0) + factor * weight * value
            else:
                others[item] = others.get(item, 0.0) + factor * weight
    kept = [(node, factor) for node, factor in others.items() if factor != 0.0]
    whole = linear(parts)
    if whole.kind == "linear":
        kept.insert(0, (whole, 1.0))
    if not kept:
        return symbol(constant)
    if len(kept) == 1 and constant == 0.0 and kept[0][1] == 1.0:
        return kept[0][0]
    return _node("sum", (constant, tuple(f for _, f in kept)), tuple(n for n, _ in kept))


def scaled(node: Symbol, factor: float) -> Symbol:
    """The node times a number."""
    return total([(factor, node)])


def _factored(node: Symbol) -> tuple[float, Symbol]:
    """A node as a number times a node."""
    if node.kind == "sum" and len(node.args) == 1 and node.value[0] == 0.0:
        return node.value[1][0], node.args[0]
    return 1.0, node


def product(a: Symbol, b: Symbol) -> Symbol:
    """The product."""
    if a.kind == "const":
        return scaled(b, a.value)
    if b.kind == "const":
        return scaled(a, b.value)
    (f, a), (g, b) = _factored(a), _factored(b)
    return scaled(_node("mul", None, (a, b)), f * g)


def quotient(a: Symbol, b: Symbol) -> Symbol:
    """The quotient."""
    if b.kind == "const":
        return scaled(a, 1.0 / b.value)
    return _node("div", None, (a, b))


def function(name: str, a: Symbol) -> Symbol:
    """A function of a node, by its name in ``FUNCTIONS``."""
    if a.kind == "const":
        return symbol(getattr(math, name)(a.value))
    return _node(name, None, (a,))


def _slope(node: Symbol) -> Symbol:
    """The derivative of a function's node by its argument."""
    (a,) = node.args
    if node.kind == "sin":
        return function("cos", a)
    if node.kind == "cos":
        return scaled(function("sin", a), -1.0)
    if node.kind == "exp":
        return node
    if node.kind == "log":
        return quotient(symbol(1.0), a)
    if node.kind == "tanh":
        return symbol(1.0) - product(node, node)
    return quotient(symbol(0.5), node)  # sqrt


def ordered(roots: Iterable[Symbol]) -> list[Symbol]:
    """All nodes below the roots, arguments first."""
    seen: set[Symbol] = set()
    found: list[Symbol] = []

    def visit(node: Symbol) -> None:
        if node not in seen:
            seen.add(node)
            for arg in node.args:
                visit(arg)
            found.append(node)

    for root in roots:
        visit(root)
    return found


def adjoint(outputs: Sequence[Symbol], seeds: Sequence[Symbol]) -> dict[Symbol, Symbol]:
    """Reverse mode: leaf (linear piece or parameter) → its cotangent, for the seeds at the outputs."""
    terms: dict[Symbol, list[tuple[float, Symbol]]] = {}
    for output, seed in zip(outputs, seeds, strict=True):
        terms.setdefault(output, []).append((1.0, seed))
    leaves: dict[Symbol, Symbol] = {}
    for node in reversed(ordered(outputs)):
        if node not in terms:
            continue
        g = total(terms[node])
        if node.kind in ("linear", "param"):
            leaves[node] = g
            continue
        given: list[Symbol] = []
        if node.kind == "sum":
            given = [scaled(g, factor) for factor in node.value[1]]
        elif node.kind == "mul":
            a, b = node.args
            given = [product(g, b), product(g, a)]
        elif node.kind == "div":
            a, b = node.args
            given = [quotient(g, b), scaled(product(g, quotient(node, b)), -1.0)]
        elif node.kind in FUNCTIONS:
            given = [product(g, _slope(node))]
        for arg, cotangent_of_arg in zip(node.args, given, strict=False):
            terms.setdefault(arg, []).append((1.0, cotangent_of_arg))
    return leaves


class GridDerivatives:
    """What an equation sees of its fields on a grid: linear pieces.

    Args:
        fields: The fields' names in order.
        steady: Those given once, after all time levels.
        dimensions: 1 to 3.
        levels: Time levels.
        rate: 1/dt, dt being the time between two of them; not used where there is one.
        theta: Where between the levels space derivatives are taken; ignored for 1 and 3 levels.
    """

    def __init__(
        self,
        fields: Sequence[str],
        steady: Sequence[str],
        dimensions: int,
        levels: int,
        rate: Symbol,
        theta: float,
    ) -> None:
        self.dimensions = dimensions
        self._rate = rate
        self._levels: dict[str, list[int]] = {name: [] for name in fields}
        count = 0
        evolving = [name for name in fields if name not in steady]
        for name in (*evolving * levels, *(name for name in fields if name in steady)):
            self._levels[name].append(count)
            count += 1
        self.inputs = count
        self._theta = theta

    def _indices(self, field: str) -> list[int]:
        if field not in self._levels:
            raise ValueError(f"the equation uses the field '{field}', which is none of {list(self._levels)}")
        return self._levels[field]

    def _spatial(self, field: str, by: tuple[int, ...]) -> Symbol:
        indices = self._indices(field)
        if len(indices) == 2:
            return linear({(indices[1], by, 0): self._theta, (indices[0], by, 0): 1.0 - self._theta})
        return linear({(indices[len(indices) // 2], by, 0): 1.0})

    def __getitem__(self, field: str) -> Symbol:
        return self._spatial(field, (0,) * self.dimensions)

    def __call__(self, field: str, by: str) -> Symbol:
        if "t" in by:
            return self._in_time(field, by)
        letters = AXES[: self.dimensions]
        if not by or any(letter not in letters for letter in by):
            raise ValueError(f"the derivative '{by}' of '{field}' is none by {', '.join(letters)} or t")
        counts = tuple(by.count(letter) for letter in letters)
        if max(counts) > 4:
            raise ValueError(f"the derivative '{by}' of '{field}' is of order over 4 along an axis")
        return self._spatial(field, counts)

    def _in_time(self, field: str, by: str) -> Symbol:
        indices = self._indices(field)
        if by not in ("t", "tt"):
            raise ValueError(f"the derivative '{by}' of '{field}' mixes time and space, which a grid lacks")
        if len(indices) == 1:
            return symbol(0.0)
        value = (0,) * self.dimensions

        def levels(*factors: float) -> Symbol:
            return linear({(index, value, 1): f for index, f in zip(indices, factors, strict=True)})

        if by == "t":
            return product(self._rate, levels(-1.0, 1.0) if len(indices) == 2 else levels(-0.5, 0.0, 0.5))
        if len(indices) != 3:
            raise ValueError(f"the derivative 'tt' of '{field}' takes three time levels, got {len(indices)}")
        return product(product(self._rate, self._rate), levels(1.0, -2.0, 1.0))

    def laplacian(self, field: str) -> Symbol:
        axes = range(self.dimensions)
        return total(
            [(1.0, self._spatial(field, tuple(2 if a == axis else 0 for a in axes))) for axis in axes]
        )
