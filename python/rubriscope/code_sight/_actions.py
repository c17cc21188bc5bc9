"""What a sight point does beside recording: logs, alerts, snapshots.

Called by ``csrc/binding/sight_frame.cpp``.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import _C

logger = logging.getLogger("rubriscope.sight")
handlers: dict[int, Callable[[Alert], Any]] = {}
TEXT_LIMIT = 4000  #: characters of arguments, results and error messages that are kept

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 400
_repr.maxlist = _repr.maxtuple = _repr.maxdict = _repr.maxset = 20


@dataclass(frozen=True)
class Alert:
    """A limit that a sight point with ``action="alert"`` passed."""

    name: str
    modality: str
    violation: str  #: such as ``"latency_ms 1.3 > 1.2"``
    duration_ms: float
    metrics: dict[str, float]
    message: str = ""  #: of an injected log


def error_text(error: BaseException) -> str:
    """The type and the message of an exception."""
    return f"{type(error).__name__}: {error}"[:TEXT_LIMIT].encode(errors="replace").decode()


def object_text(value: Any) -> str:
    """The ``repr`` of any object, cut where it is long."""
    return _repr.repr(value)[:TEXT_LIMIT].encode(errors="replace").decode()


def snapshot(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> tuple[str, str]:
    """Arguments and result of a call as texts, cut where they are long."""
    parts = [object_text(value) for value in args] + [
        f"{name}={object_text(value)}" for name, value in kwargs.items()
    ]
    return f"({', '.join(parts)})"[:TEXT_LIMIT], object_text(result)


def act(
    action: str,
    name: str,
    modality: str,
    violation: str,
    duration_ms: float,
    metrics: dict[str, float],
    message: str,
    level: str,
) -> None:
    """Writes a line to the logger ``rubriscope.sight``, or calls every alert handler.

    ``message`` and ``level`` are an injection's; without them a violation is a warning.
    """
    if action == "log":
        severity = logging.getLevelNamesMapping()[level.upper()] if level else _severity(violation)
        said = message or violation
        logger.log(severity, "%s [%s] %.3f ms%s", name, modality, duration_ms, said and f": {said}")
        return
    alert = Alert(name, modality, violation, duration_ms, metrics, message)
    for handler in list(handlers.values()):
        try:
            handler(alert)
        except Exception as error:
            _C.sight_contain(error)


def _severity(violation: str) -> int:
    return logging.WARNING if violation else logging.INFO
