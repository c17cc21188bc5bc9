"""Learning: patterns found, added, trimmed and generalised.

Each call is an event, or a span where it is entered with ``with``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._point import Point, off, on, point


def pattern_match(pattern_code: str, confidence: float, *, component: str | None = None) -> Point:
    """A pattern is recognised."""
    if not on():
        return off()
    return point(
        "lrn",
        "pattern_match",
        component,
        pattern_code,
        None,
        pattern_code=pattern_code,
        confidence=confidence,
    )


def pattern_add(pattern_code: str, source: str, *, component: str | None = None) -> Point:
    """A new pattern is learned."""
    if not on():
        return off()
    return point(
        "lrn", "pattern_add", component, pattern_code, None, pattern_code=pattern_code, source=source
    )


def pattern_trim(pattern_code: str, reason: str, *, component: str | None = None) -> Point:
    """A pattern is pruned."""
    if not on():
        return off()
    return point(
        "lrn", "pattern_trim", component, pattern_code, None, pattern_code=pattern_code, reason=reason
    )


def generalize(from_patterns: Sequence[str], to_pattern: str, *, component: str | None = None) -> Point:
    """Patterns become one."""
    if not on():
        return off()
    return point(
        "lrn",
        "generalize",
        component,
        ", ".join(from_patterns),
        to_pattern,
        from_patterns=list(from_patterns),
        to_pattern=to_pattern,
    )
