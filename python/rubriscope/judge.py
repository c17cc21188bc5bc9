"""A rubric that asks a language model (RFC 004's LLMJudge)."""

from __future__ import annotations

import functools
import math
import re
import string
from typing import Any, Protocol

from rubriscope._C import Rubric
from rubriscope.score import Score

__all__ = ["JudgeClient", "LLMJudge"]

# The first number of the answer, as RFC 004; a sign counts only where it cannot be a hyphen or a range.
_NUMBER = r"((?:(?<![\w.)\]])[-+\u2212])?(?:\d+\.?\d*|\.\d+)(?:[eE][-+\u2212]?\d+)?)"
_FIELD = re.compile(r"\{(?:action|observation)(?:[.\[][^{}!:]*)?(?:![rsa])?(?::[^{}]*)?\}")


class JudgeClient(Protocol):
    """What a judge needs of a client."""

    async def complete(self, prompt: str) -> str:
        """The model's answer to ``prompt``."""
        ...


class LLMJudge(Rubric):
    """Scores by asking a language model and reading a number from its answer.

    The score is an ``rs.Score``: its explanation is the model's whole answer, its metadata says whether a
    number was found in it (``parsed``) and, where ``normalize`` clamped one, what it was (``raw``). An answer
    without a readable, finite number gives ``default_score`` with ``parsed=False``; a client's exception
    reaches the caller.

    The template. One that is a well-formed ``str.format`` string over ``action`` and ``observation`` alone is
    formatted as RFC 004 does (``{{`` and ``}}`` stand for braces). In any other, for example one with JSON in
    it, exactly the fields ``{action}`` and ``{observation}`` (with attributes, conversions and format
    specs, as ``{action.text!r}``) are replaced and every other brace stays as it is written.
    Replaced text is never looked at again, so an action may contain ``{observation}``.

    Subclasses may override ``_render_prompt(action, observation)`` and ``_parse_score(response)``; the latter
    may return a plain number, which is then recorded with the answer but without ``parsed``.

    Args:
        prompt_template: the prompt, with ``{action}`` and ``{observation}``.
        client: anything with ``async complete(prompt) -> str``, as ``rs.OpenAICompatibleClient``.
        score_pattern: regular expression whose first participating group, or whole match without groups, is
            the score. The default finds the first number, with sign and exponent.
        default_score: the score of an answer that cannot be read.
        normalize: clamp what was read to [0, 1].

    Raises:
        ValueError: ``default_score`` is not finite.
        re.error: ``score_pattern`` is not a regular expression.
    """

    prompt_template: str
    default_score: float
    normalize: bool

    def __init__(
        self,
        prompt_template: str,
        client: JudgeClient,
        *,
        score_pattern: str | None = None,
        default_score: float = 0.0,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.prompt_template = prompt_template
        self._client = client
        self._score_pattern = re.compile(score_pattern or _NUMBER)
        self.default_score = _finite_default(default_score)
        self.normalize = normalize

    async def forward(self, action: Any, observation: Any) -> Score:
        """Ask the model; the score read from its answer.

        Raises:
            TypeError: the client's answer is not a string.
        """
        response = await self._client.complete(self._render_prompt(action, observation))
        if not isinstance(response, str):
            raise TypeError(
                f"{type(self._client).__name__}.complete() must return a string, "
                f"got {type(response).__name__}: {response!r}"
            )
        score = self._parse_score(response)
        if isinstance(score, Score):
            return score
        return Score(score, response)

    def _render_prompt(self, action: Any, observation: Any) -> str:
        """The prompt for one pair."""
        pieces = _compile_template(self.prompt_template)
        if pieces is None:
            return self.prompt_template.format(action=action, observation=observation)
        return "".join(
            piece.format(action=action, observation=observation) if is_field else piece
            for piece, is_field in pieces
        )

    def _parse_score(self, response: str) -> float:
        """The score in ``response``, an ``rs.Score`` here; a subclass may return any number."""
        match = self._score_pattern.search(response)
        value = None if match is None else _number(match)
        if value is None:
            return Score(self.default_score, response, parsed=False)
        if self.normalize and not 0.0 <= value <= 1.0:
            return Score(min(max(value, 0.0), 1.0), response, parsed=True, raw=value)
        return Score(value, response, parsed=True)

    def state_dict(self) -> dict[str, Any]:
        """The configuration; the client is not part of it."""
        return {
            "prompt_template": self.prompt_template,
            "score_pattern": self._score_pattern.pattern,
            "default_score": self.default_score,
            "normalize": self.normalize,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the configuration from ``state``; entries that are missing stay as they are.

        Raises:
            ValueError, re.error: as the constructor; nothing is changed then.
        """
        pattern = re.compile(state["score_pattern"]) if "score_pattern" in state else self._score_pattern
        default_score = _finite_default(state.get("default_score", self.default_score))
        self._score_pattern = pattern
        self.default_score = default_score
        self.prompt_template = state.get("prompt_template", self.prompt_template)
        self.normalize = state.get("normalize", self.normalize)


def _number(match: re.Match[str]) -> float | None:
    """The number a match stands for; None where it is none, or not finite."""
    groups = [group for group in match.groups() if group is not None]
    text = (groups[0] if groups else match.group(0)).replace("\u2212", "-")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _finite_default(default_score: float) -> float:
    if not math.isfinite(default_score):
        raise ValueError(f"default_score must be finite, got {default_score}")
    return default_score


@functools.lru_cache(maxsize=256)
def _compile_template(template: str) -> tuple[tuple[str, bool], ...] | None:
    """None for a format string over action and observation; else its (text, is a field) pieces."""
    if _is_format_string(template):
        return None
    pieces: list[tuple[str, bool]] = []
    end = 0
    for match in _FIELD.finditer(template):
        pieces += [(template[end : match.start()], False), (match.group(), True)]
        end = match.end()
    pieces.append((template[end:], False))
    return tuple(pieces)


def _is_format_string(template: str) -> bool:
    try:
        fields = [(name, spec) for _, name, spec, _ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        return False
    return all(
        re.match(r"(?:action|observation)(?:[.\[]|$)", name) and "{" not in (spec or "")
        for name, spec in fields
    )
