"""The process's sight points seen together: figures, last observations, alerts, the recorder."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import _C
from ..recorder import Recorder
from . import _control, _cost, _image, _inject, _logging
from ._actions import Alert, handlers
from ._cost import Costs
from ._inject import Injection

if TYPE_CHECKING:
    import torch

WINDOW = 10_000


@dataclass(frozen=True)
class PointStats:
    """Figures of one sight point since the process began; durations in ms, quantiles within 0.8 %."""

    count: int  #: calls that have returned or raised
    errors: int  #: of these, calls that raised or were stopped by ``fail_closed``
    total_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    last: float  #: the last call's duration


@dataclass(frozen=True)
class Observation:
    """One call of a sight point, as the window in memory holds it."""

    name: str
    modality: str
    time_ns: int  #: wall clock at its end
    duration_ns: int
    outcome: str  #: success, error or blocked
    metrics: dict[str, float]
    trace_id: str | None = None  #: of the trace it stood in when it began
    parent_id: str | None = None  #: of the span it stood in


class AlertHandle:
    """Removes the handler that :meth:`CodeSight.on_alert` added; also a context manager."""

    def __init__(self, key: int) -> None:
        self._key = key

    def remove(self) -> None:
        """The handler is not called any more. Idempotent."""
        handlers.pop(self._key, None)

    def __enter__(self) -> AlertHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class CodeSight:
    """The sight points of this process. There is one: :func:`get_code_sight`."""

    def __init__(self) -> None:
        self._keys = itertools.count()

    def stats(self) -> dict[str, PointStats]:
        """Figures by point, counting every call that has returned, also where nothing records."""
        return {name: PointStats(**figures) for name, figures in _C.sight_figures().items()}

    def costs(self) -> Costs:
        """Tokens and what they cost by point, modality and trace, of the points that count tokens."""
        return _cost.costs()

    def observations(self, last: int = WINDOW) -> list[Observation]:
        """The last observations of all points, the oldest first; the window holds 10,000."""
        if last < 0:
            raise ValueError(f"last is {last}, expected 0 or more")
        return [Observation(*one) for one in _C.sight_observations(last)]

    def on_alert(self, handler: Callable[[Alert], Any]) -> AlertHandle:
        """Calls ``handler(alert)`` in the thread whose call passed a limit of an ``alert`` point.

        What a handler raises is contained, counted in :attr:`failures` and reported once.
        """
        if not callable(handler):
            raise TypeError(f"an alert handler is called with an Alert, got {handler!r}")
        key = next(self._keys)
        handlers[key] = handler
        return AlertHandle(key)

    def attach(self, recorder: Recorder | None) -> None:
        """Sends observations to ``recorder``; None goes back to the recorder opened last and still open."""
        if recorder is not None and recorder.closed:
            raise ValueError("the recorder is closed")
        _C.sight_attach(None if recorder is None else recorder._native)

    def log_log(self, target: str, message: str, level: str = "info") -> bool:
        """Records a message under the name ``target``; with level ``error`` the event's outcome is error.

        Returns:
            False when no recorder is open, or it refused. So do the next three.

        Raises:
            ValueError: ``level`` is none of debug, info, warning, error.
        """
        return _logging.log_log(target, message, level)

    def log_text(self, target: str, text: str) -> bool:
        """Records a text as it is. Raises TypeError for anything else."""
        return _logging.log_text(target, text)

    def log_tensor(self, target: str, tensor: torch.Tensor) -> bool:
        """Records shape, dtype, device and what :func:`rubriscope.ops.tensor_stats` finds, not the elements.

        The tensor is read once, where it lies; from a GPU a few hundred numbers are copied, and waited for.

        Raises:
            TypeError: not a tensor, or complex.
        """
        return _logging.log_tensor(target, tensor)

    def log_image(
        self,
        target: str,
        image: Any,
        *,
        layout: _image.Layout | None = None,
        max_side: int = _image.MAX_SIDE,
        max_bytes: int = _image.MAX_BYTES,
        max_pixels: int = _image.MAX_PIXELS,
    ) -> bool:
        """Records an image, scaled down until it is within the limits; needs ``rubriscope[image]``.

        Args:
            image: PNG or JPEG bytes, which are kept as they are where they are within the limits. An array or
                tensor, uint8, bool, or floats from 0 to 1 (what is outside is clipped, NaN is 0; counted as
                ``clipped``). A PIL image of any mode.
            layout: ``"HW"``, ``"HWC"`` or ``"CHW"``, with 1, 3 (RGB) or 4 (RGBA) channels. Left out, arrays
                of three dimensions are HWC; tensors CHW, or HWC where only that can be.
            max_side: Pixels of the longer side in the recording.
            max_bytes: Of the image in the recording.
            max_pixels: A larger image is refused before it is decoded.

        Raises:
            ImportError: there is no Pillow.
            TypeError: another type, or a dtype that is none of these.
            ValueError: bytes that are no image or a damaged one, more than ``max_pixels``, a shape that is no
                image's, or a limit that cannot be kept.
        """
        return _image.log_image(
            target, image, layout=layout, max_side=max_side, max_bytes=max_bytes, max_pixels=max_pixels
        )

    def inject_metric(
        self,
        target: str,
        metric_name: str,
        alert_threshold: float | None = None,
        *,
        action: str | None = None,
        modality: str | None = None,
    ) -> str:
        """Measures something at every call of a function of this process from now on.

        The function becomes a sight point, named ``module:qualname``. Its object stays the same, so that
        calls through names imported before are observed as well: its code is exchanged, and put back by
        :meth:`remove`.

        Args:
            target: A Python function or method, as ``pkg.mod:Class.method``, or the end of such a dotted name
                that only one function of all loaded modules has, as ``Class.method``.
            metric_name: ``execution_time_ms``, ``cpu_time_ms`` (of the thread), ``result``, ``args.<name>``,
                ``result.<attr>``; behind the last three also ``.attr``, ``[3]`` and ``["key"]``. The value is
                a number or what ``float()`` takes, such as a 0-dim tensor (which is waited for).
            alert_threshold: A value above it, or NaN, is a violation.
            action: As of :func:`sight_point`; by default ``alert`` with a threshold and ``metric`` without.
            modality: One of :class:`Modality`, ``inference`` by default.

        Returns:
            The injection's id. The same injection again changes nothing and returns the same id.

        Raises:
            LookupError: no function, or more than one, is called so.
            TypeError: what is called so is no Python function, or is inherited from another class.
            ValueError: another metric, an argument that the function does not have, a bad threshold, action
                or modality.
            RuntimeError: somebody else exchanged the code since an earlier injection.
        """
        return _inject.inject_metric(target, metric_name, alert_threshold, action, modality)

    def inject_log(
        self,
        target: str,
        condition: str | None,
        message: str,
        action: str = "log",
        *,
        level: str = "info",
        modality: str | None = None,
    ) -> str:
        """Tells of every call of a function at which ``condition`` holds (None: of every call).

        Args:
            target: As of :meth:`inject_metric`.
            condition: An expression, such as ``execution_time_ms > 1.2 and args.batch % 2 == 0``, checked now
                and never given to ``eval``. It has ``or and not``, comparisons, ``+ - * / // % **``,
                parentheses, numbers, texts, ``True False None``, ``abs min max isnan len``, and the values
                ``execution_time_ms``, ``cpu_time_ms``, ``result``, ``error`` (the type of what was raised, as
                text, or None), ``args.<name>`` and ``metrics.<name>``. A value that cannot be had
                makes it undecided, which is counted and does not act.
            message: A text with expressions in braces: ``slow, {execution_time_ms} ms``.
            action: ``log`` writes the message to the logger ``rubriscope.sight``, ``metric`` only records it,
                ``alert`` calls the handlers, ``snapshot`` records arguments and result, ``fail_closed`` makes
                the call raise :class:`FailClosed`.
            level: Of the logger.
            modality: As of :meth:`inject_metric`.

        Returns:
            The injection's id, as :meth:`inject_metric`.

        Raises:
            ValueError: an expression that is none, and as :meth:`inject_metric`, as for the others.
        """
        return _inject.inject_log(target, condition, message, action, level, modality)

    def remove(self, id: str) -> None:
        """Takes an injection away; with the last of a function, its very code object is put back.

        Calls that run are still observed.

        Raises:
            KeyError: an unknown id.
            RuntimeError: somebody else exchanged the code since.
        """
        _inject.remove(id)

    def injections(self) -> list[Injection]:
        """What is injected now, with how often it acted."""
        return list(_inject.injections())

    def listen(self) -> str:
        """Lets this user's other processes inject, as ``rubriscope sight --pid`` does.

        ``RUBRISCOPE_SIGHT=1`` does it where rubriscope is imported. The Unix socket lies in a folder that
        only this user can enter, and a peer's user is checked as well. A forked child does not listen.

        Returns:
            The socket's path. Again is no error.

        Raises:
            PermissionError: the folder for sockets can be entered by others.
            OSError: no socket can be made there.
        """
        return _control.listen()

    def stop_listening(self) -> None:
        """Closes what :meth:`listen` opened. Injections stay."""
        _control.stop()

    def enable(self, name: str) -> None:
        """Observes calls of a point again, or lets an injection act again, by its id. Raises KeyError."""
        self._switch(name, True)

    def disable(self, name: str) -> None:
        """Calls of a point that begin from now on are not observed; by an id: an injection rests."""
        self._switch(name, False)

    def _switch(self, name: str, enabled: bool) -> None:
        if _inject.is_injection(name):
            _inject.enable(name, enabled)
        else:
            _C.sight_enable(name, enabled)

    @property
    def failures(self) -> int:
        """How often the observation itself, or an alert handler, failed; the first was reported."""
        return int(_C.sight_failures())


_code_sight = CodeSight()


def get_code_sight() -> CodeSight:
    """The sight points of this process."""
    return _code_sight
