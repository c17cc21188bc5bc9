"""What the typed trace points share."""

from __future__ import annotations

import functools
import sys
from typing import Any

from .._C import NoSpan, Span, _trace_on, _trace_point

#: What a typed trace point gives: ``with … as ctx:`` makes it a span; left alone it is an event at once.
Point = Span | NoSpan

on = _trace_on


@functools.lru_cache(maxsize=4096)
def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def point(
    layer: str,
    operation: str,
    component: str | None,
    input_data: Any,
    output_data: Any,
    /,
    **data: Any,
) -> Point:
    """A trace point of the catalogue; ``component`` left out is the file that called it."""
    if component is None:
        component = _file_name(sys._getframe(2).f_code.co_filename)
    return _trace_point(layer, operation, component, input_data, output_data, data)


def off() -> Point:
    """What stands for a span while the tracer is off."""
    return _trace_point("sys", "off", "", "", None, {})


def level(value: int | str) -> str:
    """``L3`` for 3; a name as it is."""
    return f"L{value}" if isinstance(value, int) else str(value)
