"""Reasoning: classification, strategy, escalation.

Each call is an event, or a span where it is entered with ``with``.
"""

from __future__ import annotations

from ._point import Point, level, off, on, point


def classify(input_type: str, confidence: float, *, component: str | None = None) -> Point:
    """An input is classified."""
    if not on():
        return off()
    return point("rsn", "classify", component, input_type, None, input_type=input_type, confidence=confidence)


def route(strategy: str, reason: str, *, component: str | None = None) -> Point:
    """A strategy is chosen."""
    if not on():
        return off()
    return point("rsn", "route", component, strategy, None, strategy=strategy, reason=reason)


def escalate(
    from_level: int | str, to_level: int | str, trigger: str, *, component: str | None = None
) -> Point:
    """A decision to escalate."""
    if not on():
        return off()
    return point(
        "rsn",
        "escalate",
        component,
        f"{level(from_level)}→{level(to_level)}",
        None,
        from_level=from_level,
        to_level=to_level,
        trigger=trigger,
    )
