"""Memory: reads, writes and moves between tiers.

Each call is an event, or a span where it is entered with ``with``.
"""

from __future__ import annotations

from ._point import Point, off, on, point


def read(namespace: str, key: str, tier: str, *, component: str | None = None) -> Point:
    """A read."""
    if not on():
        return off()
    return point(
        "mem", "read", component, f"{namespace}.{key}", None, namespace=namespace, key=key, tier=tier
    )


def write(namespace: str, key: str, tier: str, tokens_saved: int, *, component: str | None = None) -> Point:
    """A write."""
    if not on():
        return off()
    return point(
        "mem",
        "write",
        component,
        f"{namespace}.{key}",
        "written",
        namespace=namespace,
        key=key,
        tier=tier,
        tokens_saved=tokens_saved,
    )


def promote(key: str, from_tier: str, to_tier: str, *, component: str | None = None) -> Point:
    """A key moves to a faster tier."""
    if not on():
        return off()
    return point(
        "mem",
        "promote",
        component,
        f"{key}: {from_tier}→{to_tier}",
        None,
        key=key,
        from_tier=from_tier,
        to_tier=to_tier,
    )


def demote(key: str, from_tier: str, to_tier: str, *, component: str | None = None) -> Point:
    """A key moves to a slower tier."""
    if not on():
        return off()
    return point(
        "mem",
        "demote",
        component,
        f"{key}: {from_tier}→{to_tier}",
        None,
        key=key,
        from_tier=from_tier,
        to_tier=to_tier,
    )
