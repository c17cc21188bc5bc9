"""Eager calls on the CPU: the programs of earlier calls by number, and gradients past the dispatcher.

What is computed is what the operators compute; less is done around it. A call with the same plain arguments
as an earlier one skips their checks, the kernels find the program as they left it, and the autograd function
is Python's own rather than the operator's. Everything else (torch.compile, functorch, dispatch modes,
subclasses, other devices) takes the operators with the program's lists.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch

from . import _program
from ._equations import EQUATIONS
from ._program import INPUT, PARAM, Problem

_ops = torch.ops.rubriscope
_residual, _vjp, _loss = _ops.fd_held_residual.default, _ops.fd_held_vjp.default, _ops.fd_held_loss.default
_new_program, _release = _ops.fd_program.default, _ops.fd_release.default

_TENSORS = {torch.Tensor, torch.nn.Parameter}
_NUMBERS = {int, float}
_REALS = {torch.float32, torch.float64}
_MOST = 256  #: Programs and shortcuts that are kept.

Wanted = tuple[tuple[int, int], ...]


class Held:
    """A program that the kernels keep, for as long as this object lives."""

    __slots__ = ("__weakref__", "lists", "number", "places", "program")

    by_number: ClassVar[weakref.WeakValueDictionary[int, Held]] = weakref.WeakValueDictionary()

    def __init__(self, program: _program.Program, inputs: int) -> None:
        self.program = program
        self.lists = program.code, program.numbers
        self.number: int = _new_program(*self.lists)
        #: Where each gradient belongs among inputs and parameters in a row.
        self.places = [index if kind == INPUT else inputs + index for kind, index in program.gradients]
        weakref.finalize(self, _release, self.number).atexit = False
        Held.by_number[self.number] = self

    def sorted_out(self, found: Sequence[torch.Tensor], count: int) -> list[torch.Tensor | None]:
        """Gradients in the order of ``count`` inputs and parameters, None where there is none."""
        gradients: list[torch.Tensor | None] = [None] * count
        for place, gradient in zip(self.places, found, strict=True):
            gradients[place] = gradient
        return gradients


class Known:
    """A problem's programs, each made when it is first run.

    Args:
        inputs: How many fields there are.
        wanted: What has a gradient.
    """

    __slots__ = ("_forward", "_loss", "_vjp", "inputs", "problem", "wanted")

    def __init__(self, problem: Problem, inputs: int, wanted: Wanted) -> None:
        self.problem, self.inputs, self.wanted = problem, inputs, wanted
        self._forward: Held | None = None
        self._vjp: Held | None = None
        self._loss: Held | None = None

    def forward(self) -> Held:
        if self._forward is None:
            self._forward = Held(_program.forward(self.problem), self.inputs)
        return self._forward

    def vjp(self) -> Held:
        if self._vjp is None:
            self._vjp = Held(_program.backward(self.problem, self.wanted, False), self.inputs)
        return self._vjp

    def loss(self) -> Held:
        if self._loss is None:
            self._loss = Held(_program.backward(self.problem, self.wanted, True), self.inputs)
        return self._loss

    # -- running

    def residual(self, inputs: list[torch.Tensor], params: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The components."""
        if self.wanted:
            found: Sequence[torch.Tensor] = _Residual.apply(self, *inputs, *params)  # type: ignore[no-untyped-call]
        else:
            found = _residual(inputs, params, self.forward().number)
        return found

    def mean_square(self, inputs: list[torch.Tensor], params: list[torch.Tensor]) -> torch.Tensor:
        """The loss."""
        if self.wanted:
            loss: torch.Tensor = _Loss.apply(self, *inputs, *params)  # type: ignore[no-untyped-call]
        else:
            loss = _loss(inputs, params, self.loss().number)[0]
        return loss


@lru_cache(maxsize=_MOST)
def known(problem: Problem, inputs: int, wanted: Wanted) -> Known:
    """The one of this problem."""
    return Known(problem, inputs, wanted)


def is_plain(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a call with these may run here."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
        and all(type(t) in _TENSORS and t.is_cpu for t in tensors)
    )


# ---- a shortcut from plain arguments to what an earlier call with the same ones found out

Key = tuple[Any, ...]
_shortcuts: dict[Key, tuple[Known, tuple[str, ...]]] = {}


def key_of(
    fields: Any, pde: Any, spacing: Any, dt: Any, params: Any, order: Any, bc: Any, theta: Any
) -> Key | None:
    """The call's key; None where the arguments are not plain enough to have one.

    Plain is what cannot change between two calls that look alike: numbers, strings, tuples and lists of
    those, and of tensors their shape and dtype.
    """
    inputs = (fields,) if type(fields) in _TENSORS else fields
    if type(inputs) not in (list, tuple) or not inputs or not is_plain(inputs):
        return None
    shape, dtype = inputs[0].shape, inputs[0].dtype
    if dtype not in _REALS or any(t.shape != shape or t.dtype is not dtype for t in inputs):
        return None
    if type(spacing) is not float:
        if type(spacing) not in (list, tuple) or not _NUMBERS.issuperset(map(type, spacing)):
            return None
        spacing = tuple(spacing)
    if not (dt is None or type(dt) is float) or not (theta is None or type(theta) is float):
        return None
    if type(bc) is not str:
        if type(bc) not in (list, tuple) or not all(type(b) is str for b in bc):
            return None
        bc = tuple(bc)
    if type(pde) is not str or type(order) is not int or not (params is None or type(params) is dict):
        return None
    grad = torch.is_grad_enabled()
    entries: list[Any] = []
    for name, value in (params or {}).items():
        if type(value) in _NUMBERS:
            entries += (name, value)
        elif type(value) in (list, tuple):
            if not _NUMBERS.issuperset(map(type, value)):
                return None
            entries += (name, tuple(value))
        elif is_plain((value,)) and not value.ndim and value.dtype is dtype:
            entries += (name, torch.Tensor, grad and value.requires_grad)
        else:
            return None
    wanted = tuple([t.requires_grad for t in inputs]) if grad else None
    return pde, shape, dtype, len(inputs), wanted, spacing, dt, order, bc, theta, *entries


def remember(key: Key, found: Known, params: Mapping[str, Any] | None) -> None:
    """What a call with this key runs."""
    if len(_shortcuts) >= _MOST:
        _shortcuts.clear()
    given = params or {}
    # Tensors among the parameters, in the problem's order.
    names = tuple(n for n in EQUATIONS[found.problem.equation].params if type(given.get(n)) in _TENSORS)
    _shortcuts[key] = found, names


def recall(key: Key, params: Mapping[str, Any] | None) -> tuple[Known, list[torch.Tensor]] | None:
    """What an earlier call with this key ran, and this call's parameters that are tensors."""
    found = _shortcuts.get(key)
    if found is None:
        return None
    known, names = found
    return known, [params[name] for name in names] if params and names else []


# ---- gradients


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, known: Known, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.known = known
        ctx.save_for_backward(*tensors)
        inputs, params = list(tensors[: known.inputs]), list(tensors[known.inputs :])
        return tuple(_residual(inputs, params, known.forward().number))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        held, count = ctx.known.vjp(), ctx.known.inputs
        saved = ctx.saved_tensors
        inputs, params, given = list(saved[:count]), list(saved[count:]), list(cotangents)
        if torch.is_grad_enabled():
            # The operator refuses to be differentiated again.
            found = _ops.fd_residual_vjp([c.contiguous() for c in given], inputs, params, *held.lists)
        else:
            found = _vjp(given, inputs, params, held.number)
        return (None, *held.sorted_out(found, len(saved)))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, known: Known, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.known = known
        inputs, params = list(tensors[: known.inputs]), list(tensors[known.inputs :])
        loss: torch.Tensor
        loss, gradients = _loss(inputs, params, known.loss().number)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        held = ctx.known.loss()
        saved = ctx.saved_tensors
        count = len(saved) - len(held.places)
        if cotangent is None:
            return (None,) * (1 + count)
        found = list(saved[count:])
        # After a plain loss.backward() the gradient is the one that was saved.
        if torch.is_grad_enabled() or type(cotangent) is not torch.Tensor or cotangent.item() != 1.0:
            found = _ops.fd_scaled(found, cotangent, list(saved[:count]))
        return (None, *held.sorted_out(found, count))


# ---- fake kernels: a program is known by its number for as long as it is held


def _fake_residual(
    inputs: list[torch.Tensor], params: list[torch.Tensor], program: int
) -> list[torch.Tensor]:
    return [torch.empty_like(inputs[0]) for _ in range(Held.by_number[program].program.components)]


def _fake_gradients(
    inputs: list[torch.Tensor], params: list[torch.Tensor], program: int
) -> list[torch.Tensor]:
    like = inputs[0]
    return [
        like.new_empty(() if kind == PARAM and params[index].ndim == 0 else like.shape)
        for kind, index in Held.by_number[program].program.gradients
    ]


def _fake_vjp(
    cotangents: list[torch.Tensor], inputs: list[torch.Tensor], params: list[torch.Tensor], program: int
) -> list[torch.Tensor]:
    return _fake_gradients(inputs, params, program)


def _fake_loss(
    inputs: list[torch.Tensor], params: list[torch.Tensor], program: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return inputs[0].new_empty(()), _fake_gradients(inputs, params, program)


torch.library.register_fake("rubriscope::fd_held_residual", _fake_residual)
torch.library.register_fake("rubriscope::fd_held_vjp", _fake_vjp)
torch.library.register_fake("rubriscope::fd_held_loss", _fake_loss)
