"""Where exchanged code finds the function that it stands for (``code_sight/_inject.py``).

Entries stay when an injection is removed: a call that began before may not have looked yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.compiler import is_dynamo_compiling

observed: dict[str, Callable[..., Any]] = {}
originals: dict[str, Callable[..., Any]] = {}


def choose(key: str) -> Callable[..., Any]:
    """The observed function; while torch.compile traces, the original, which it can compile."""
    return originals[key] if is_dynamo_compiling() else observed[key]


def arrive(key: str, function: Callable[..., Any]) -> None:
    """Pickled code came from another process: there is nothing injected here."""
    originals.setdefault(key, function)
    observed.setdefault(key, function)
