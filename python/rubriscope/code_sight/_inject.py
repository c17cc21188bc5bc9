"""Instrumentation of functions at run time.

A function object is reached from everywhere, also where it was imported by name before. So it stays, and only
its code is exchanged for one that has the same parameters and hands them to an observed copy of the function,
which it asks :mod:`rubriscope._injected` for. Removing the last injection puts the very code object back.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import (
    CO_ASYNC_GENERATOR,
    CO_COROUTINE,
    CO_GENERATOR,
    CO_ITERABLE_COROUTINE,
    CO_VARARGS,
    CO_VARKEYWORDS,
)
from types import CodeType, FunctionType
from typing import Any

from .. import _C
from ._modality import check_modality
from ._point import claim_point, observed
from ._target import find_function

_CALL = "_rubriscope_call"


@dataclass(frozen=True)
class Injection:
    """What was injected into a function, and what came of it."""

    id: str
    target: str  #: the function, as ``module:qualname``
    kind: str  #: metric or log
    action: str
    metric_name: str | None
    alert_threshold: float | None
    condition: str | None
    message: str | None
    level: str | None
    enabled: bool
    hits: int  #: calls at which it acted
    undecided: int  #: calls whose value or condition could not be had


@dataclass(frozen=True)
class _Settings:
    target: str
    kind: str
    action: str
    metric_name: str | None = None
    alert_threshold: float | None = None
    condition: str | None = None
    message: str | None = None
    level: str | None = None

    def key(self) -> str:
        """The same for the same settings, in every process."""
        text = json.dumps(vars(self), sort_keys=True)
        return f"inj_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class _Instrumented:
    """A function whose code is exchanged."""

    def __init__(self, target: str, function: FunctionType, modality: str) -> None:
        self.function = function
        self.modality = modality
        self._free = _free_points.setdefault((target, modality), [])
        self.point = self._free.pop() if self._free else claim_point(target, modality)
        self.signature = _signature(function.__code__)
        self.injections: dict[str, _Settings] = {}
        self.original: CodeType = function.__code__
        self.exchanged: CodeType | None = None

    def exchange(self) -> None:
        from .. import _injected  # imports torch

        code, globals = self.original, self.function.__globals__
        copy = FunctionType(code, globals, self.function.__name__, None, self.function.__closure__)
        copy.__module__, copy.__qualname__ = self.function.__module__, self.function.__qualname__
        key = f"{self.point}@{next(_numbers)}"
        _injected.originals[key] = copy
        _injected.observed[key] = observed(copy, self.point)
        self.exchanged = _forwarding(code, key, copy)
        self.function.__code__ = self.exchanged

    def restore(self) -> None:
        if self.exchanged is not None:
            self.function.__code__ = self.original
            self.exchanged = None
        self._free.append(self.point)

    def check(self) -> None:
        """That nobody else exchanged the code since."""
        if self.exchanged is not None and self.function.__code__ is not self.exchanged:
            raise RuntimeError(
                f"the code of {self.point} was exchanged by somebody else since; undo that first"
            )


_lock = threading.RLock()
# A fork waits for it, so that a child never finds it taken and a function half exchanged.
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)  # fmt: skip
_numbers = itertools.count()
_instrumented: dict[int, _Instrumented] = {}  # by the function's identity
_holders: dict[str, _Instrumented] = {}  # by injection
_free_points: dict[tuple[str, str], list[str]] = {}  # of functions that were restored, by target and modality


def inject_metric(
    target: str, metric_name: str, alert_threshold: float | None, action: str | None, modality: str | None
) -> str:
    """See :meth:`CodeSight.inject_metric`."""
    if alert_threshold is not None:
        alert_threshold = float(alert_threshold)
        if not math.isfinite(alert_threshold):
            raise ValueError(f"alert_threshold is {alert_threshold}, expected a finite number")
    if action is None:
        action = "metric" if alert_threshold is None else "alert"
    elif action in ("alert", "fail_closed") and alert_threshold is None:
        raise ValueError(f"the action {action!r} needs an alert_threshold")

    def add(point: str, key: str, signature: Any) -> None:
        _C.sight_inject_metric(point, key, metric_name, signature, alert_threshold, action)

    name, function = find_function(target)
    settings = _Settings(name, "metric", action, metric_name=metric_name, alert_threshold=alert_threshold)
    return _inject(function, settings, modality, add)


def inject_log(
    target: str, condition: str | None, message: str, action: str, level: str, modality: str | None
) -> str:
    """See :meth:`CodeSight.inject_log`."""
    if not isinstance(level, str) or not isinstance(logging.getLevelNamesMapping().get(level.upper()), int):
        raise ValueError(f"no level {level!r} (there are debug, info, warning, error, critical)")

    def add(point: str, key: str, signature: Any) -> None:
        _C.sight_inject_log(point, key, condition, message, signature, action, level)

    name, function = find_function(target)
    settings = _Settings(name, "log", action, condition=condition, message=message, level=level)
    return _inject(function, settings, modality, add)


def _inject(
    function: FunctionType, settings: _Settings, modality: str | None, add: Callable[[str, str, Any], None]
) -> str:
    key = settings.key()
    if modality is not None:
        check_modality(modality)
    with _lock:
        known = _holders.get(key)
        if known is not None and known.function is not function:
            raise RuntimeError(
                f"{settings.target} was another function when {key} was injected; remove that first"
            )
        holder = _instrumented.get(id(function))
        if holder is None:
            holder = _Instrumented(settings.target, function, modality or "inference")
        elif modality is not None and modality != holder.modality:
            raise ValueError(f"{settings.target} is injected with the modality {holder.modality!r} already")
        holder.check()
        if key in holder.injections:
            return key
        try:
            add(holder.point, key, holder.signature)
            if holder.exchanged is None:
                holder.exchange()
        except BaseException:
            with contextlib.suppress(KeyError):  # it failed before it was there
                _C.sight_remove_injection(holder.point, key)
            if not holder.injections:
                holder.restore()
            raise
        holder.injections[key] = settings
        _instrumented[id(function)] = holder
        _holders[key] = holder
    return key


def remove(key: str) -> None:
    """See :meth:`CodeSight.remove`."""
    with _lock:
        holder = _holder(key)
        last = len(holder.injections) == 1
        if last:
            holder.check()
            holder.restore()
            del _instrumented[id(holder.function)]
        _C.sight_remove_injection(holder.point, key)
        del holder.injections[key], _holders[key]


def enable(key: str, enabled: bool) -> None:
    """Lets an injection act, or not."""
    with _lock:
        _C.sight_enable_injection(_holder(key).point, key, enabled)


def _holder(key: str) -> _Instrumented:
    holder = _holders.get(key)
    if holder is None:
        raise KeyError(f"no injection {key!r}")
    return holder


def is_injection(key: str) -> bool:
    """Whether there is one of this id."""
    return key in _holders


def injections() -> Iterator[Injection]:
    """All that are in place, in the order of their injection."""
    with _lock:
        for key, holder in list(_holders.items()):
            enabled, hits, undecided = _C.sight_injection_counts(holder.point, key)
            yield Injection(
                id=key, **vars(holder.injections[key]), enabled=enabled, hits=hits, undecided=undecided
            )


class _Carrier:
    """A constant that nothing loads: where code is pickled by value, it brings the function as it was."""

    def __init__(self, key: str, function: FunctionType) -> None:
        self._key, self._function = key, function

    def __reduce__(self) -> Any:
        from .. import _injected

        return _injected.arrive, (self._key, self._function)


def _parameters(code: CodeType) -> tuple[list[str], list[str], str, str]:
    names = list(code.co_varnames)
    count, only = code.co_argcount, code.co_kwonlyargcount
    positional, keyword_only, rest = names[:count], names[count : count + only], names[count + only :]
    star = rest.pop(0) if code.co_flags & CO_VARARGS else ""
    stars = rest.pop(0) if code.co_flags & CO_VARKEYWORDS else ""
    return positional, keyword_only, star, stars


def _signature(code: CodeType) -> tuple[list[str], list[str], str, bool]:
    positional, keyword_only, star, stars = _parameters(code)
    return positional, keyword_only, star, bool(stars)


_BODIES = {
    "function": "return {call}",
    "coroutine": "return await {call}",
    "generator": "return (yield from {call})",
    # What `yield from` would do, if there were one for asynchronous generators.
    "async generator": """\
        {v}_g = {call}
        {v}_do, {v}_value = {v}_g.asend, None
        while True:
            try:
                {v}_item = await {v}_do({v}_value)
            except StopAsyncIteration:
                return
            try:
                {v}_value = yield {v}_item
                {v}_do = {v}_g.asend
            except GeneratorExit:
                await {v}_g.aclose()
                raise
            except BaseException as {v}_error:
                {v}_do, {v}_value = {v}_g.athrow, {v}_error""",
}


def _forwarding(code: CodeType, key: str, copy: FunctionType) -> CodeType:
    """Code with the parameters, name, place and kind of ``code`` that calls what stands under ``key``."""
    positional, keyword_only, star, stars = _parameters(code)
    declared = list(positional)
    if code.co_posonlyargcount:
        declared.insert(code.co_posonlyargcount, "/")
    if star or keyword_only:
        declared.append(f"*{star}")
    declared += keyword_only
    if stars:
        declared.append(f"**{stars}")
    given = positional + ([f"*{star}"] if star else []) + [f"{name}={name}" for name in keyword_only]
    given += [f"**{stars}"] if stars else []
    asynchronous = code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)
    body = _BODIES[_kind(code)].format(call=f"{_CALL}({', '.join(given)})", v=_CALL)
    # The dead lines at the end give the code the same free variables: an assignment of code demands as many.
    free = "".join(f"\n        {name}" for name in code.co_freevars)
    # Reached by an import, not by a constant: torch.compile can follow it, to the original.
    source = f"""\
def make({", ".join(code.co_freevars)}):
    {"async " if asynchronous else ""}def f({", ".join(declared)}):
        import rubriscope as {_CALL}
        {_CALL} = {_CALL}._injected.choose({key!r})
        {body.lstrip()}{free}
"""
    made = compile(source, code.co_filename, "exec")
    inner = next(one for one in _codes(made) if one.co_name == "f")
    return inner.replace(
        co_consts=(*inner.co_consts, _Carrier(key, copy)),
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_firstlineno=code.co_firstlineno,
        co_flags=inner.co_flags | (code.co_flags & CO_ITERABLE_COROUTINE),
    )


def _kind(code: CodeType) -> str:
    if code.co_flags & CO_ASYNC_GENERATOR:
        return "async generator"
    if code.co_flags & CO_COROUTINE:
        return "coroutine"
    return "generator" if code.co_flags & CO_GENERATOR else "function"


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)
