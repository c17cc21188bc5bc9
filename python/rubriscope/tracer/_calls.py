"""Functions as spans, and functions that take their context along."""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .. import _C
from . import _w3c

P = ParamSpec("P")
R = TypeVar("R")


def traced(
    hrm: str,
    operation: str | None = None,
    component: str | None = None,
    input_data: Callable[..., Any] | str = "",
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Every call of a function (plain or ``async def``) as a span; the tracer is asked at each call.

    Args:
        hrm: The layer, code or name.
        operation: Left out, the function's name.
        component: Left out, the name of the function's file.
        input_data: What went in: a text, or a function of the call's arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = operation if operation is not None else function.__name__
        place = component
        if place is None:
            code = getattr(inspect.unwrap(function), "__code__", None)
            place = code.co_filename.rpartition("/")[2] if code is not None else function.__module__

        def summary(args: Any, kwargs: Any) -> Any:
            return input_data(*args, **kwargs) if callable(input_data) else input_data

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                if not _C._trace_on():
                    return await function(*args, **kwargs)
                with _C.span(hrm, name, place, summary(args, kwargs)):
                    return await function(*args, **kwargs)

            return call_async  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not _C._trace_on():
                return function(*args, **kwargs)
            with _C.span(hrm, name, place, summary(args, kwargs)):
                result = function(*args, **kwargs)
            return result

        return call

    return decorate


class wrap:
    """A function that runs below the span in which it was wrapped, in whatever thread or process it runs.

    ``executor.submit(rs.tracer.wrap(work), item)``: threads start with an empty context, and processes with
    none. A thread gets a copy of this context for each call; pickled (a process pool) it carries the W3C
    headers.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._context: contextvars.Context | None = contextvars.copy_context()
        self._headers: dict[str, str] = {}
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._context is not None:
            return self._context.copy().run(self._function, *args, **kwargs)
        with _w3c.extract(self._headers):
            return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        headers: dict[str, str] = dict(self._headers)
        if self._context is not None:
            self._context.run(_w3c.inject, headers)
        return _wrapped, (self._function, headers)


def _wrapped(function: Callable[..., Any], headers: dict[str, str]) -> wrap:
    made = wrap(function)
    made._context = None
    made._headers = headers
    return made
