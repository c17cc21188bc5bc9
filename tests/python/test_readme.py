"""The Python of README and docs runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import rubriscope as rs

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


class Constant(rs.Rubric):
    def forward(self, action: object, observation: object) -> float:
        return 0.5


def record_two_runs() -> None:
    """The runs.db that docs/film.md reads."""
    for session in ("sft", "grpo"):
        rubric = rs.Gate(Constant(), 0.1)
        with rs.record("runs.db", session=session) as recorder:
            recorder.observe(rubric)
            for step in range(20):
                with recorder.episode("ep-7", step=step):
                    rubric("action", "observation")


def test_there_is_something_to_run() -> None:
    assert len(blocks(ROOT / "README.md")) >= 3


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name == "film.md":
        record_two_runs()
    names: dict[str, object] = {"__name__": "page"}
    for number, source in enumerate(blocks(page)):
        exec(compile(source, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
