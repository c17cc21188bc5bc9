"""Focus: stances, gates, lanes and routes.

Each call is an event, or a span where it is entered with ``with``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._point import Point, off, on, point


def stance_change(from_stance: str, to_stance: str, gate: str, *, component: str | None = None) -> Point:
    """A change of stance."""
    if not on():
        return off()
    return point(
        "foc",
        "stance_change",
        component,
        f"{from_stance}→{to_stance}",
        None,
        from_stance=from_stance,
        to_stance=to_stance,
        gate=gate,
    )


def gate_check(gate_type: str, decision: str, reason: str, *, component: str | None = None) -> Point:
    """A gate is evaluated."""
    if not on():
        return off()
    return point(
        "foc",
        "gate_check",
        component,
        gate_type,
        decision,
        gate_type=gate_type,
        decision=decision,
        reason=reason,
    )


def lane_switch(from_lane: str, to_lane: str, reason: str, *, component: str | None = None) -> Point:
    """A change of lane."""
    if not on():
        return off()
    return point(
        "foc",
        "lane_switch",
        component,
        f"{from_lane}→{to_lane}",
        None,
        from_lane=from_lane,
        to_lane=to_lane,
        reason=reason,
    )


def consent_check(operation: str, allowed: bool, *, component: str | None = None) -> Point:
    """Consent is evaluated."""
    if not on():
        return off()
    return point(
        "foc",
        "consent_check",
        component,
        operation,
        "allowed" if allowed else "denied",
        operation=operation,
        allowed=allowed,
    )


def route(signal_type: str, bundle: str, agents: Sequence[str], *, component: str | None = None) -> Point:
    """A signal is routed."""
    if not on():
        return off()
    return point(
        "foc",
        "route",
        component,
        signal_type,
        bundle,
        signal_type=signal_type,
        bundle=bundle,
        agents=list(agents),
    )
