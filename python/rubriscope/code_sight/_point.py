"""The decorator, the ``with`` block and ``metric()``."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from .. import _C
from ._cost import TokenPrice, as_price, check_tokens
from ._modality import check_modality

F = TypeVar("F", bound=Callable[..., Any])
_Price = tuple[float, float, float]
_Settings = tuple[str, tuple[str, ...], tuple[tuple[str, float], ...], str, _Price | None]
#: Tokens of a call: their number, (input, output), or a function of the result that tells one of these.
Tokens = int | tuple[int, int] | Callable[[Any], Any]

_settings: dict[str, _Settings] = {}
_innermost: ContextVar[_C.SightSpan | None] = ContextVar("rubriscope_sight", default=None)

_NEED_LIMIT = ("alert", "fail_closed")


def _define(
    name: str,
    modality: str,
    metrics: Iterable[str],
    conditions: Mapping[str, float] | None,
    action: str,
    price: float | TokenPrice | None = None,
) -> None:
    """Makes the point, or finds that it is there with the same settings."""
    if isinstance(metrics, str):
        raise TypeError(f"metrics is a list of names, got {metrics!r}")
    names = tuple(metrics)
    limits = tuple(
        ((names[0] if names else "latency_ms") if metric == "threshold" else metric, float(limit))
        for metric, limit in (conditions or {}).items()
    )
    if action in _NEED_LIMIT and not limits:
        raise ValueError(f"sight point {name!r}: the action {action!r} needs conditions")
    settings = (check_modality(modality), names, limits, action, as_price(price))
    known = _settings.get(name)
    if known is None:
        _C.sight_make_point(name, modality, list(names), list(limits), action, settings[4])
        _settings[name] = settings
    elif known != settings:
        raise ValueError(f"sight point {name!r} is there already as {known}, got {settings}")


@overload
def sight_point(function: F, /) -> F: ...
@overload
def sight_point(
    *,
    name: str | None = None,
    modality: str = "inference",
    metrics: Iterable[str] = (),
    conditions: Mapping[str, float] | None = None,
    action: str = "metric",
    token_count: Tokens | None = None,
    price: float | TokenPrice | None = None,
) -> Callable[[F], F]: ...
def sight_point(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    modality: str = "inference",
    metrics: Iterable[str] = (),
    conditions: Mapping[str, float] | None = None,
    action: str = "metric",
    token_count: Tokens | None = None,
    price: float | TokenPrice | None = None,
) -> Any:
    """Observes every call of a function: duration, outcome and metrics.

    For functions, methods, class and static methods (decorated in either order), coroutines, generators and
    async generators; the last two are one observation each, from the first item asked for to the end. The
    name, signature, docstring and pickling stay; what is decorated can be undone by ``.__wrapped__``.

    Args:
        name: The point's name, by default ``module:qualname``. Points of one name share their figures and
            must have the same settings.
        modality: One of :class:`Modality`.
        metrics: Names of numbers that :func:`metric` gives inside the call. ``latency_ms`` and
            ``cpu_time_ms`` (of the thread) are measured where they are named and not given.
        conditions: Name → limit; a metric above its limit, or NaN, is a violation. ``"threshold"`` is the
            limit of the first of ``metrics``, or of ``latency_ms`` where there is none.
        action: What a violation does: ``metric`` records it, ``log`` also logs it, ``alert`` also calls
            the handlers, ``snapshot`` also records arguments and result, ``fail_closed`` raises
            :class:`FailClosed` instead of returning. Without conditions ``log`` and ``snapshot`` act on
            every call.
        token_count: The tokens of a call that returned, where it does not give them itself as the metric
            ``token_count``, or ``input_tokens`` and ``output_tokens``: a number, a pair (input, output), or
            a function that tells one of these (None: not known) of the result.
        price: What a token costs, in currency units, or a :class:`TokenPrice`. Each call that used tokens
            gets the metric ``cost``, unless it gives that itself; :meth:`CodeSight.costs` adds them up.

    Raises:
        ValueError: an unknown modality or action, an alert without conditions, another point's name, or a
            negative price.
        TypeError: ``function`` is not callable, or ``token_count`` is none of these.
    """

    def decorate(target: Any) -> Any:
        if isinstance(target, (staticmethod, classmethod)):
            return type(target)(decorate(target.__func__))
        if not callable(target):
            raise TypeError(f"sight_point decorates functions, got {target!r}")
        check_tokens(token_count, has_result=not inspect.isasyncgenfunction(target))
        label = name
        if label is None:
            module = getattr(target, "__module__", None) or "__main__"
            label = f"{module}:{getattr(target, '__qualname__', type(target).__qualname__)}"
        _define(label, modality, metrics, conditions, action, price)
        return observed(target, label, token_count)

    return decorate if function is None else decorate(function)


def observed(target: Any, name: str, tokens: Any = None) -> Any:
    """The function as one whose calls are those of the point ``name``."""
    if inspect.iscoroutinefunction(target):
        return _of_coroutine(target, name, tokens)
    if inspect.isasyncgenfunction(target):
        return _of_async_generator(target, name, tokens)
    if inspect.isgeneratorfunction(target):
        return _of_generator(target, name, tokens)
    return functools.update_wrapper(
        cast("Any", _C.SightFunction(target, _C.sight_point_handle(name), tokens)), target
    )


def claim_point(name: str, modality: str) -> str:
    """Makes a point of this name, or of one like it where the name is taken, and returns its name."""
    free = name
    for number in itertools.count(2):
        if free not in _settings:
            break
        free = f"{name}#{number}"
    _define(free, modality, (), None, "metric")
    return free


def _of_coroutine(target: Any, name: str, tokens: Any) -> Any:
    @functools.wraps(target)
    async def observed(*args: Any, **kwargs: Any) -> Any:
        if not _C.sight_enabled(name):
            return await target(*args, **kwargs)
        outer = _innermost.get()
        span = _C.SightSpan(name, outer)
        _innermost.set(span)
        span.begin()
        try:
            result = await target(*args, **kwargs)
        except BaseException as error:
            span.end(error, args, kwargs)
            raise
        finally:
            _innermost.set(outer)
        span.end(None, args, kwargs, result, tokens)
        return result

    return observed


def _of_generator(target: Any, name: str, tokens: Any) -> Any:
    @functools.wraps(target)
    def observed(*args: Any, **kwargs: Any) -> Any:
        generator = target(*args, **kwargs)
        if not _C.sight_enabled(name):
            return (yield from generator)
        span = _C.SightSpan(name, _innermost.get())
        span.begin()
        resume, value = generator.send, None
        try:
            while True:
                # The span is the innermost only while the generator runs, not while its caller does.
                outer = _innermost.get()
                _innermost.set(span)
                try:
                    item = resume(value)
                finally:
                    _innermost.set(outer)
                try:
                    value = yield item
                    resume = generator.send
                except GeneratorExit:
                    generator.close()
                    raise
                except BaseException as error:
                    resume, value = generator.throw, error
        except StopIteration as stop:
            span.end(None, args, kwargs, stop.value, tokens)
            return stop.value
        except GeneratorExit:
            span.end(None, args, kwargs)
            raise
        except BaseException as error:
            span.end(error, args, kwargs)
            raise

    return observed


def _of_async_generator(target: Any, name: str, tokens: Any) -> Any:
    @functools.wraps(target)
    async def observed(*args: Any, **kwargs: Any) -> Any:
        generator = target(*args, **kwargs)
        span = _C.SightSpan(name, _innermost.get()) if _C.sight_enabled(name) else None
        if span is not None:
            span.begin()
        resume, value = generator.asend, None
        try:
            while True:
                outer = _innermost.get()
                if span is not None:
                    _innermost.set(span)
                try:
                    item = await resume(value)
                finally:
                    _innermost.set(outer)
                try:
                    value = yield item
                    resume = generator.asend
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as error:
                    resume, value = generator.athrow, error
        except (StopAsyncIteration, GeneratorExit) as end:
            if span is not None:
                span.end(None, args, kwargs, None, None if isinstance(end, GeneratorExit) else tokens)
            if isinstance(end, GeneratorExit):
                raise
        except BaseException as error:
            if span is not None:
                span.end(error, args, kwargs)
            raise

    return observed


class sight:
    """``with rs.sight("name", modality=…) as s: s.metric("loss", 0.1)``: a block as a sight point.

    The arguments are those of :func:`sight_point`; ``token_count`` is no function, as a block has no result.
    An instance may be entered again after it was left.
    """

    def __init__(
        self,
        name: str,
        *,
        modality: str = "inference",
        metrics: Iterable[str] = (),
        conditions: Mapping[str, float] | None = None,
        action: str = "metric",
        token_count: int | tuple[int, int] | None = None,
        price: float | TokenPrice | None = None,
    ) -> None:
        check_tokens(token_count, has_result=False)
        _define(name, modality, metrics, conditions, action, price)
        self.name = name
        self._tokens = token_count
        self._span: _C.SightSpan | None = None
        self._outer: _C.SightSpan | None = None

    def metric(self, name: str, value: Any) -> None:
        """Gives this block a number; after the block, or where the point is off, it goes nowhere."""
        if self._span is not None:
            self._span.metric(name, float(value))

    def __enter__(self) -> sight:
        if self._span is not None:
            raise RuntimeError(f"sight({self.name!r}) is entered already; make another for a nested block")
        if _C.sight_enabled(self.name):
            self._outer = _innermost.get()
            self._span = _C.SightSpan(self.name, self._outer)
            _innermost.set(self._span)
            self._span.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span, self._span = self._span, None
        if span is None:
            return
        _innermost.set(self._outer)
        self._outer = None
        span.end(error, tokens=self._tokens)


def metric(name: str, value: Any) -> bool:
    """Gives the innermost sight point that runs in this context a number; the last one of a name counts.

    Args:
        name: Best one of the point's ``metrics``; another is added to the point.
        value: A number or 0-dim tensor (which is waited for).

    Returns:
        False when no sight point runs here, or it is disabled.
    """
    return bool(_C.sight_metric(_innermost.get(), name, float(value)))
