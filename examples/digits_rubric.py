"""What an answer about a digit is worth: a rubric tree, four levels deep.

    root                                 0.1 * form + 0.9 * answer
    ├── form                             WeightedSum: a little for each part of the format that is in place
    │   ├── rubric_0 … rubric_3          opens, digit, confidence, ends
    └── answer                           Sequential: nothing unless the format is complete
        ├── rubric_0                     Gate
        │   └── rubric                   well-formed or not
        └── rubric_1                     0.8 * correct + 0.1 * calibration + 0.1 * brevity
            ├── correct
            ├── calibration
            └── brevity

The action is the answer's text (`"<a> 7 sure <e>"`), the observation is the true digit, an int.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import rubriscope as rs
from digits_policy import CONFIDENCES, DIGITS, END, FILLERS, MAX_TOKENS, OPEN


class Answer(NamedTuple):
    """An answer taken apart; what is missing is None or False."""

    opens: bool  # the first word that is no filler is the opening mark
    digit: int | None  # the word after the opening mark, if it is a digit
    claimed: float | None  # the probability that the word after the digit claims
    ends: bool  # the end mark comes straight after three such words
    spare: int  # words beyond the four that an answer needs


@functools.lru_cache(maxsize=1 << 16)
def parse(text: str) -> Answer:
    """Take an answer apart. Cached: a trained policy writes the same few answers over and over."""
    words = text.split()
    start = next((place for place, word in enumerate(words) if word not in FILLERS), len(words))
    opens = words[start : start + 1] == [OPEN]
    body = words[start + 1 : start + 4] if opens else []
    digit = int(body[0]) if body and body[0] in DIGITS else None
    claimed = CONFIDENCES.get(body[1]) if len(body) > 1 and digit is not None else None
    ends = claimed is not None and body[2:] == [END]
    return Answer(opens, digit, claimed, ends, max(len(words) - 4, 0))


class Opens(rs.Rubric):
    """1 where the answer begins with the opening mark, fillers before it allowed."""

    def forward(self, action: str, observation: int) -> float:
        return 1.0 if parse(action).opens else 0.0


class NamesDigit(rs.Rubric):
    """1 where a digit follows the opening mark."""

    def forward(self, action: str, observation: int) -> float:
        return 0.0 if parse(action).digit is None else 1.0


class StatesConfidence(rs.Rubric):
    """1 where a confidence word follows the digit."""

    def forward(self, action: str, observation: int) -> float:
        return 0.0 if parse(action).claimed is None else 1.0


class WellFormed(rs.Rubric):
    """1 where every part is in its place and the end mark closes them."""

    def forward(self, action: str, observation: int) -> float:
        return 1.0 if parse(action).ends else 0.0


class Correct(rs.Rubric):
    """1 where the digit is the true one."""

    def forward(self, action: str, observation: int) -> float:
        return 1.0 if parse(action).digit == observation else 0.0


class Calibration(rs.Rubric):
    """One minus the Brier loss of the confidence word: saying what is true pays best."""

    def forward(self, action: str, observation: int) -> float:
        answer = parse(action)
        if answer.claimed is None:
            return 0.0
        error = answer.claimed - (answer.digit == observation)
        return 1.0 - error * error


class Brevity(rs.Rubric):
    """1 for an answer without a spare word, 0 for one as long as it can be."""

    def forward(self, action: str, observation: int) -> float:
        return 1.0 - parse(action).spare / (MAX_TOKENS - 4)


class Quality(rs.Rubric):
    """The worth of a well-formed answer."""

    def __init__(self) -> None:
        super().__init__()
        self.correct = Correct()
        self.calibration = Calibration()
        self.brevity = Brevity()

    def forward(self, action: str, observation: int) -> float:
        return (
            0.8 * self.correct(action, observation)
            + 0.1 * self.calibration(action, observation)
            + 0.1 * self.brevity(action, observation)
        )


class DigitsRubric(rs.Rubric):
    """The whole reward, from 0 (nothing in place) to just below 1 (right, confident and brief)."""

    def __init__(self) -> None:
        super().__init__()
        parts = [Opens(), NamesDigit(), StatesConfidence(), WellFormed()]
        self.form = rs.WeightedSum(parts, weights=[0.25] * 4)
        self.answer = rs.Sequential(rs.Gate(WellFormed()), Quality())

    def forward(self, action: str, observation: int) -> float:
        return 0.1 * self.form(action, observation) + 0.9 * self.answer(action, observation)


# What a reader wants to see first, by the path the recorder gives it.
CURVES = {
    "root": "reward",
    "form": "form",
    "answer": "answer",
    "answer.rubric_1.correct": "correct (of the well-formed)",
    "answer.rubric_1.calibration": "calibration",
    "answer.rubric_1.brevity": "brevity",
}
