"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``watch(rubric, **options)`` observes a rubric into a list; see :class:`engine_support.Watch`."""
    from engine_support import Watch

    made: list[Watch] = []

    def observe(rubric: Any, **options: Any) -> Watch:
        made.append(Watch(tmp_path / f"journal{len(made)}", rubric, **options))
        return made[-1]

    yield observe
    for one in made:
        one.recorder.close()
