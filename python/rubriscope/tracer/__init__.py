"""The layered tracer: spans and events with ids, parents by context, and typed trace points.

Off by default, and then nearly free. docs/tracing.md tells how it is turned on, and what it writes::

    with rs.tracer.span("alt", "transition", "altitude.py", "L4→L2") as ctx:
        ctx.set_output("success", reason="user asked")
"""

from __future__ import annotations

from .._C import NoSpan, Span, current_span, event, register_layer, span
from . import altitude, focus, learning, memory, reasoning
from ._calls import traced, wrap
from ._switch import (
    add_argument,
    configure,
    configure_from_environment,
    disable,
    enable,
    enabled,
    flush,
    lost,
)
from ._w3c import extract, inject

__all__ = [
    "NoSpan",
    "Span",
    "add_argument",
    "altitude",
    "configure",
    "current_span",
    "disable",
    "enable",
    "enabled",
    "event",
    "extract",
    "flush",
    "focus",
    "inject",
    "learning",
    "lost",
    "memory",
    "reasoning",
    "register_layer",
    "span",
    "traced",
    "wrap",
]

configure_from_environment()
