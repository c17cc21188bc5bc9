"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# A PostgreSQL server of our own, started when a test asks for it.
from postgres_server import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url", "watch"]


@pytest.fixture(scope="session", autouse=True)
def ledger_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Signs every ledger of the tests, and of the processes they start, with a key of their own."""
    import rubriscope._C as native

    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        patch.delenv("RUBRISCOPE_LEDGER_KEY", raising=False)
        patch.delenv("RUBRISCOPE_LEDGER_KEY_FILE", raising=False)
        key = native.LedgerKey.make(folder / "rubriscope" / "ledger.key", "rubriscope/tests")
        yield key.public


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
