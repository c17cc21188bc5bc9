"""Rubrics over texts whose scoring is C++: a tree of these and containers is called without the GIL.

They take ``str`` (or numbers where that makes sense) as action and observation; anything else raises
TypeError.
"""

from __future__ import annotations

import sys
from typing import Any

from . import _C
from ._C import Rubric


class _Native(Rubric):
    """A leaf in C++. Subclasses say how it is made; its arguments are its state."""

    forward = Rubric._forward_native

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._arguments = arguments
        _C._set_native(self, self._make(**arguments))

    def _make(self, **arguments: Any) -> Any:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._arguments)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over arguments that ``state_dict`` gave."""
        self._arguments = {**self._arguments, **state}
        _C._set_native(self, self._make(**self._arguments))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        _C._set_native(self, self._make(**self._arguments))


class ExactMatch(_Native):
    """1 where action and observation are the same text, else 0.

    Args:
        strip: White space at both ends does not count.
        ignore_case: The case of ASCII letters does not count.
    """

    def __init__(self, strip: bool = True, ignore_case: bool = False) -> None:
        super().__init__(strip=strip, ignore_case=ignore_case)

    def _make(self, **arguments: Any) -> Any:
        return _C._exact_match(arguments["strip"], arguments["ignore_case"])


class FuzzyMatch(_Native):
    """How similar action and observation are: ``1 − d / max(n, m)`` with the Levenshtein distance ``d``.

    The distance is over code points (V. I. Levenshtein, 1966); two empty texts give 1.
    """

    def __init__(self) -> None:
        super().__init__()

    def _make(self, **arguments: Any) -> Any:
        return _C._fuzzy_match()


class RegexMatch(_Native):
    """1 where the pattern is found in the action, else 0.

    Args:
        pattern: A regular expression in ECMAScript syntax, over the bytes of the text's UTF-8.
        full_match: It must match the whole action.

    Raises:
        ValueError: the pattern is no regular expression.
    """

    def __init__(self, pattern: str, full_match: bool = False) -> None:
        super().__init__(pattern=pattern, full_match=full_match)

    def _make(self, **arguments: Any) -> Any:
        return _C._regex_match(arguments["pattern"], arguments["full_match"])


class LengthBetween(_Native):
    """1 where the action has between ``least`` and ``most`` characters, else 0.

    Raises:
        ValueError: ``least`` is above ``most``.
    """

    def __init__(self, least: int = 0, most: int = sys.maxsize) -> None:
        super().__init__(least=least, most=most)

    def _make(self, **arguments: Any) -> Any:
        return _C._length_between(arguments["least"], arguments["most"])
