"""From an equation's graph to the program that the kernels run.

A program has two stages. The first is evaluated at each grid point: linear pieces (sums of stencil taps) and
arithmetic on them, giving the residuals, or the channels that the adjoint needs. The second is linear: each
gradient gathers the channels through transposed stencils. Both are lists of integers and numbers, read by
``csrc/ops/stencil/program.cpp``, which says what stands where.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from . import _symbols as sym
from ._equations import EQUATIONS
from ._symbols import Symbol
from ._weights import Table, fewest_nodes, table

VERSION = 1

# Instructions, as in csrc/ops/stencil/program.h.
LINEAR, MULTIPLY_ADD, DIVIDE = 0, 1, 2
_CODES = {name: 3 + index for index, name in enumerate(sym.FUNCTIONS)}

# What an operand or a gradient belongs to.
INPUT, PARAM, COTANGENT = 0, 1, 2

#: One entry of a parameter: a number, or None and the index of its tensor, and whether that is a field.
Entry = tuple[float | None, int, bool]


class Problem(NamedTuple):
    """Everything a program depends on."""

    equation: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    levels: int
    #: A number, or None with one time level or where a parameter's tensor holds 1/dt.
    dt: float | None
    #: The index of that tensor, or −1.
    dt_param: int
    theta: float
    order: int
    bc: tuple[str, ...]
    #: By parameter: its entries, more than one for a vector.
    params: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Program:
    """What the operators take.

    Attributes:
        components: How many residuals the equation has.
        gradients: Which input or parameter each gradient belongs to: (INPUT or PARAM, index).
    """

    code: tuple[int, ...]
    numbers: tuple[float, ...]
    components: int
    gradients: tuple[tuple[int, int], ...] = ()


_planning = threading.RLock()


@lru_cache(maxsize=512)
def forward(problem: Problem) -> Program:
    """The residuals."""
    with _planning:
        try:
            residuals = _trace(problem)
            writer = _Writer(problem)
            stage = _Stage(writer, problem, residuals)
            return writer.finish(len(residuals), (), stage, None, [])
        finally:
            sym.forget()


@lru_cache(maxsize=512)
def backward(problem: Problem, wanted: tuple[tuple[int, int], ...], loss: bool) -> Program:
    """The gradients of what ``wanted`` names: of the residuals for given cotangents, or, for ``loss``, of
    half the sum of squared residuals, whose cotangents are the residuals themselves.
    """
    with _planning:
        try:
            return _backward(problem, wanted, loss)
        finally:
            sym.forget()


def _backward(problem: Problem, wanted: tuple[tuple[int, int], ...], loss: bool) -> Program:
    residuals = _trace(problem)
    seeds = [sym.cotangent(index) for index in range(len(residuals))]
    leaves = sym.adjoint(residuals, seeds)
    channels: list[Symbol] = list(residuals) if loss else []
    known: dict[Symbol, int] = dict(zip(seeds, range(len(seeds)), strict=True)) if loss else {}

    def channel(node: Symbol) -> int:
        if node not in known:
            known[node] = len(channels)
            channels.append(node)
        return known[node]

    fields = {entry[1]: entry[2] for entries in problem.params for entry in entries if entry[0] is None}
    identity = (0,) * len(problem.shape)
    gathered: list[tuple[int, int]] = []
    summed: list[tuple[int, int]] = []
    pieces: list[list[tuple[sym.Part, float]]] = []
    sums = [(index, True) for index in range(len(residuals))] if loss else []
    for kind, index in wanted:
        if kind == INPUT:
            piece = []
            for leaf, g in leaves.items():
                if leaf.kind == "linear" and (g.kind != "const" or g.value != 0.0):
                    factor, node = sym._factored(g)
                    for (source, by, _), weight in leaf.value:
                        if source == index:
                            piece.append(((channel(node), by, 0), weight * factor))
            gathered.append((kind, index))
            pieces.append(piece)
            continue
        g = leaves.get(sym.param(index), sym.symbol(0.0))
        if fields.get(index, False):
            pieces.append([((channel(g), identity, 0), 1.0)])
            gathered.append((kind, index))
        else:
            sums.append((channel(g), False))
            summed.append((kind, index))
    writer = _Writer(problem)
    point = _Stage(writer, problem, channels, cotangents=len(residuals) if loss else 0)
    gather = _Stage(writer, problem, [])
    for slot, piece in enumerate(pieces):
        gather.gather(slot, piece)
    return writer.finish(len(residuals), (*gathered, *summed), point, gather, sums)


def _trace(problem: Problem) -> list[Symbol]:
    equation = EQUATIONS[problem.equation]
    dimensions = len(problem.shape)
    d = sym.GridDerivatives(
        equation.fields[dimensions],
        equation.sources,
        dimensions,
        problem.levels,
        sym.param(problem.dt_param) if problem.dt is None else sym.symbol(1.0 / problem.dt),
        problem.theta,
    )
    params: dict[str, Any] = {}
    for name, entries in zip(equation.params, problem.params, strict=True):
        symbols = [
            sym.symbol(number) if number is not None else sym.param(index) for number, index, _ in entries
        ]
        params[name] = tuple(symbols) if name in equation.vectors else symbols[0]
    found = equation.residual(d, params)
    residuals = [sym.symbol(r) for r in (found if isinstance(found, tuple) else (found,))]
    _check_size(problem, residuals)
    return residuals


class _Writer:
    """Collects what both stages share: operator tables, scalars, operands."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.tables: dict[Table, int] = {}
        self.scalars: dict[tuple[int, float], int] = {}
        self.operands: dict[tuple[int, int], int] = {}

    def axis_table(self, axis: int, derivative: int, transposed: bool) -> int:
        """The table of a derivative along one of the grid's axes."""
        nodes, boundary = self.problem.shape[axis], self.problem.bc[axis]
        # Residuals at boundary nodes are set to zero by the kernel: only the transpose needs to know.
        if derivative == 0 and not transposed:
            boundary = "periodic"
        found = table(nodes, derivative, self.problem.order, boundary, transposed)
        return self.tables.setdefault(found, len(self.tables))

    def identity(self) -> int:
        """The table of an axis that the grid does not have."""
        return self.tables.setdefault(table(1, 0, 2, "periodic", False), len(self.tables))

    def scalar(self, number: float, param: int = -1) -> int:
        """A number, times a parameter of no dimensions where one is named."""
        return self.scalars.setdefault((param, number), len(self.scalars))

    def operand(self, kind: int, index: int) -> int:
        """A tensor that is read at the point itself."""
        return self.operands.setdefault((kind, index), len(self.operands))

    def finish(
        self,
        components: int,
        gradients: tuple[tuple[int, int], ...],
        point: _Stage,
        gather: _Stage | None,
        sums: Sequence[tuple[int, bool]],
    ) -> Program:
        problem = self.problem
        missing = 3 - len(problem.shape)
        code: list[int] = [VERSION, components, len(gradients)]
        for kind, index in gradients:
            code += [kind, index]
        code += [1, 0, 0] * missing
        for nodes, boundary in zip(problem.shape, problem.bc, strict=True):
            code += [nodes, int(boundary == "periodic"), int(boundary == "dirichlet")]
        numbers: list[float] = []
        # The stages come last in the list, but writing them is what makes the tables.
        stages: list[int] = []
        weights: list[float] = []
        for stage in (point, gather):
            stages += stage.code(weights) if stage is not None else [0, 0, 0, 0]
        code.append(len(self.tables))
        for item in self.tables:
            code += [item.lead, item.tail]
            for row in item.rows:
                code.append(len(row))
                code += [offset for offset, _ in row]
                numbers += [weight for _, weight in row]
        code.append(len(self.scalars))
        for param, number in self.scalars:
            code.append(param)
            numbers.append(number)
        code.append(len(self.operands))
        for kind, index in self.operands:
            code += [kind, index]
        code.append(len(sums))
        for channel, squared in sums:
            code += [channel, int(squared)]
        return Program((*code, *stages), (*numbers, *weights), components, gradients)


class _Stage:
    """One stage: its pieces and instructions.

    Args:
        outputs: What it computes, in order.
        cotangents: So many of the first outputs are the cotangents themselves.
    """

    def __init__(
        self, writer: _Writer, problem: Problem, outputs: Sequence[Symbol], cotangents: int = 0
    ) -> None:
        self._writer, self._problem = writer, problem
        self._fields = {e[1]: e[2] for entries in problem.params for e in entries if e[0] is None}
        self._pieces: dict[tuple[tuple[int, ...], ...], int] = {}
        self._terms: list[list[tuple[int, int, tuple[int, int, int], float]]] = []
        self._instructions: list[list[Any]] = []
        self._outputs = len(outputs)
        self._slots: dict[Symbol, Any] = {}
        self._registers = 0
        self._uses: dict[Symbol, int] = {}
        for node in sym.ordered(outputs):
            for arg in node.args:
                self._uses[arg] = self._uses.get(arg, 0) + 1
        for node in outputs:
            self._uses[node] = self._uses.get(node, 0) + 1
        for index, node in enumerate(outputs):
            target = ("output", index)
            if node in self._slots or self._in_memory(node):
                self._emit(MULTIPLY_ADD, target, a=self._slot(node))
            else:
                self._compute(node, target)
                self._slots[node] = target
            if index < cotangents:
                self._slots[sym.cotangent(index)] = target

    def gather(self, output: int, piece: Sequence[tuple[sym.Part, float]]) -> None:
        """An output that is a transposed linear piece."""
        self._outputs = max(self._outputs, output + 1)
        self._emit(LINEAR, ("output", output), piece=self._piece(tuple(piece), transposed=True))

    # -- writing instructions

    def _emit(
        self,
        operation: int,
        target: Any,
        *,
        a: Any = None,
        b: Any = None,
        c: Any = None,
        scalar: int | None = None,
        piece: int = -1,
    ) -> None:
        if scalar is None:
            scalar = self._writer.scalar(1.0)
        self._instructions.append([operation, target, a, b, c, scalar, piece])

    def _in_memory(self, node: Symbol) -> bool:
        if node.kind == "param":
            return self._fields.get(node.value, False)
        if node.kind == "linear" and len(node.value) == 1:
            (_, by, _), factor = node.value[0]
            return factor == 1.0 and not any(by)
        return node.kind == "cotangent"

    def _is_scalar(self, node: Symbol) -> bool:
        return node.kind == "param" and not self._fields.get(node.value, False)

    def _slot(self, node: Symbol) -> Any:
        if node not in self._slots:
            if self._in_memory(node):
                kind = {"linear": INPUT, "param": PARAM, "cotangent": COTANGENT}[node.kind]
                index = node.value[0][0][0] if node.kind == "linear" else node.value
                self._slots[node] = ("operand", self._writer.operand(kind, index))
            else:
                target = ("register", self._registers)
                self._registers += 1
                self._compute(node, target)
                self._slots[node] = target
        return self._slots[node]

    def _fusible(self, node: Symbol) -> bool:
        """Whether a linear piece may be evaluated where it is used."""
        return node.kind == "linear" and not self._in_memory(node) and self._uses.get(node, 0) == 1

    def _compute(self, node: Symbol, target: Any) -> None:
        if node.kind == "sum":
            constant, factors = node.value
            accumulated = None
            for factor, item in zip(factors, node.args, strict=True):
                self._add(target, accumulated, factor, item)
                accumulated = target
            if constant != 0.0:
                self._emit(MULTIPLY_ADD, target, c=accumulated, scalar=self._writer.scalar(constant))
        elif node.kind == "div":
            a, b = node.args
            self._emit(DIVIDE, target, a=self._slot(a), b=self._slot(b))
        elif node.kind in _CODES:
            self._emit(_CODES[node.kind], target, a=self._slot(node.args[0]))
        elif node.kind == "mul":
            self._multiply(target, None, 1.0, node)
        elif node.kind == "linear":
            self._emit(LINEAR, target, piece=self._piece(node.value))
        else:  # a number, or a parameter that is one
            scalar = (
                self._writer.scalar(node.value)
                if node.kind == "const"
                else self._writer.scalar(1.0, node.value)
            )
            self._emit(MULTIPLY_ADD, target, scalar=scalar)

    def _add(self, target: Any, accumulated: Any, factor: float, item: Symbol) -> None:
        """target = accumulated + factor · item."""
        if item.kind == "mul" and self._uses.get(item, 0) == 1:
            self._multiply(target, accumulated, factor, item)
        elif self._is_scalar(item):
            self._emit(MULTIPLY_ADD, target, c=accumulated, scalar=self._writer.scalar(factor, item.value))
        elif self._fusible(item):
            self._emit(
                LINEAR,
                target,
                c=accumulated,
                scalar=self._writer.scalar(factor),
                piece=self._piece(item.value),
            )
        else:
            slot = self._slot(item)
            self._emit(MULTIPLY_ADD, target, a=slot, c=accumulated, scalar=self._writer.scalar(factor))

    def _multiply(self, target: Any, accumulated: Any, factor: float, node: Symbol) -> None:
        """target = accumulated + factor · a · b."""
        a, b = node.args
        if self._is_scalar(b):
            a, b = b, a
        if self._is_scalar(a):
            scalar = self._writer.scalar(factor, a.value)
            if self._fusible(b):
                self._emit(LINEAR, target, c=accumulated, scalar=scalar, piece=self._piece(b.value))
            else:
                self._emit(MULTIPLY_ADD, target, a=self._slot(b), c=accumulated, scalar=scalar)
            return
        scalar = self._writer.scalar(factor)
        if not self._fusible(b) and a is not b:
            a, b = b, a
        first = self._slot(a)
        if self._fusible(b) and a is not b:
            self._emit(LINEAR, target, a=first, c=accumulated, scalar=scalar, piece=self._piece(b.value))
        else:
            self._emit(MULTIPLY_ADD, target, a=first, b=self._slot(b), c=accumulated, scalar=scalar)

    def _piece(self, parts: Sequence[tuple[sym.Part, float]], transposed: bool = False) -> int:
        problem = self._problem
        missing = 3 - len(problem.shape)
        terms = []
        for (source, by, group), factor in parts:
            # Derivatives are named x, y, z; axes of the grid in that order.
            tables = [self._writer.identity()] * missing
            for axis, derivative in enumerate(by):
                tables.append(self._writer.axis_table(axis, derivative, transposed))
                factor /= problem.spacing[axis] ** derivative
            terms.append((source, group, (tables[0], tables[1], tables[2]), factor))
        self._terms.append(terms)
        return len(self._terms) - 1

    # -- the result

    def code(self, weights: list[float]) -> list[int]:
        """The stage as integers; its factors are appended to ``weights``."""
        place, registers = self._allocate()
        found = [self._outputs, registers, len(self._terms), len(self._instructions)]
        for terms in self._terms:
            found.append(len(terms))
            for source, group, tables, factor in terms:
                found += [source, group, *tables]
                weights.append(factor)
        for operation, target, a, b, c, scalar, piece in self._instructions:
            found += [operation, place(target), place(a), place(b), place(c), scalar, piece]
        return found

    def _allocate(self) -> tuple[Any, int]:
        """Registers by linear scan: where each slot lies, and how many registers there are."""
        last: dict[Any, int] = {}
        for index, instruction in enumerate(self._instructions):
            for slot in instruction[1:5]:
                if slot is not None and slot[0] == "register":
                    last[slot] = index
        free: list[int] = []
        given: dict[Any, int] = {}
        count = 0
        for index, instruction in enumerate(self._instructions):
            target = instruction[1]
            if target[0] == "register" and target not in given:
                if free:
                    given[target] = free.pop()
                else:
                    given[target] = count
                    count += 1
            for slot in {s for s in instruction[1:5] if s is not None and s[0] == "register"}:
                if last[slot] == index:
                    free.append(given[slot])
        operands = len(self._writer.operands)

        def place(slot: Any) -> int:
            if slot is None:
                return -1
            kind, index = slot
            if kind == "operand":
                return int(index)
            return operands + (index if kind == "output" else self._outputs + given[slot])

        return place, count


def _check_size(problem: Problem, residuals: Sequence[Symbol]) -> None:
    """Raises ValueError where the grid is too small for a stencil of the equation."""
    most = [1] * len(problem.shape)
    for node in sym.ordered(residuals):
        if node.kind == "linear":
            for (_, by, _), _ in node.value:
                fewest = [fewest_nodes(k, problem.order, bc) for k, bc in zip(by, problem.bc, strict=True)]
                most = [max(m, f) for m, f in zip(most, fewest, strict=True)]
    for axis, (nodes, least) in enumerate(zip(problem.shape, most, strict=True)):
        if nodes < least:
            raise ValueError(
                f"the grid has {nodes} nodes along axis {axis}, expected at least {least}: "
                f"{problem.equation} at order {problem.order} with bc '{problem.bc[axis]}' needs that many"
            )
