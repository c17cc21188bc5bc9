"""Altitude: at which level the work is done.

Each call is an event, or a span where it is entered with ``with``.
"""

from __future__ import annotations

from ._point import Point, level, off, on, point


def transition(
    from_level: int | str, to_level: int | str, reason: str, *, component: str | None = None
) -> Point:
    """A change of level."""
    if not on():
        return off()
    return point(
        "alt",
        "transition",
        component,
        f"{level(from_level)}→{level(to_level)}",
        None,
        from_level=from_level,
        to_level=to_level,
        reason=reason,
    )


def evaluate(altitude: int | str, verdict: str, confidence: float, *, component: str | None = None) -> Point:
    """A plan is evaluated."""
    if not on():
        return off()
    return point(
        "alt",
        "evaluate",
        component,
        level(altitude),
        verdict,
        altitude=altitude,
        verdict=verdict,
        confidence=confidence,
    )


def plan(altitude: int | str, intent: str, plan_summary: str, *, component: str | None = None) -> Point:
    """A plan is made."""
    if not on():
        return off()
    return point(
        "alt",
        "plan",
        component,
        intent,
        plan_summary,
        altitude=altitude,
        intent=intent,
        plan_summary=plan_summary,
    )


def execute(altitude: int | str, action_type: str, *, component: str | None = None) -> Point:
    """Execution starts."""
    if not on():
        return off()
    return point("alt", "execute", component, action_type, None, altitude=altitude, action_type=action_type)
