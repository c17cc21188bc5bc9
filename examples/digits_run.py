"""What the two digits examples do alike: draw batches, score answers on film, evaluate, report progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from digits_policy import Decoder, DigitPolicy, Digits
from digits_rubric import DigitsRubric
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch import Tensor

TRAIN, HELDOUT = "train", "heldout"  # episodes


def minibatches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless index tensors (size,) over shuffled passes of `count` items; a pass's remainder is left out."""
    while True:
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


class Scorer:
    """Scores answers with the rubric tree and, while a recorder watches it, says where each belongs."""

    def __init__(self, recorder: Any | None) -> None:
        self.rubric = DigitsRubric()
        self.decoder = Decoder()
        self.recorder = recorder
        self.cpu_s = 0.0  #: CPU time of the calling thread spent here: rubric calls, recording, logging
        if recorder is not None:
            recorder.observe(self.rubric)

    def __call__(self, answers: Tensor, labels: list[int], ids: list[int], samples: int) -> Tensor:
        """Rewards (N,) of token rows `answers` (N, T): `samples` in a row for each label and image id."""
        started = time.thread_time()
        rubric, recorder, texts = self.rubric, self.recorder, iter(self.decoder(answers))
        rewards: list[float] = []
        if recorder is None:
            for label in labels:
                for _ in range(samples):
                    rewards.append(rubric(next(texts), label))
        else:
            for label, image in zip(labels, ids, strict=True):
                recorder.group_id = image
                for sample in range(samples):
                    recorder.sample_index = sample
                    rewards.append(rubric(next(texts), label))
        self.cpu_s += time.thread_time() - started
        return torch.tensor(rewards)

    def at(self, step: int, episode: str) -> contextlib.AbstractContextManager[Any]:
        """Puts the snapshots made inside at `step` of `episode`."""
        if self.recorder is None:
            return contextlib.nullcontext()
        self.recorder.step = step
        return self.recorder.episode(episode)

    def log(self, scalars: dict[str, float], step: int) -> None:
        """Records scalars, where there is a recorder."""
        if self.recorder is not None:
            started = time.thread_time()
            self.recorder.log(scalars, step=step)
            self.cpu_s += time.thread_time() - started


def heldout_reward(policy: DigitPolicy, digits: Digits, scorer: Scorer, step: int, seed: int) -> float:
    """Mean reward of one sampled answer to each held-out image."""
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + step)
    answers = policy.sample(digits.heldout_images, 1, generator)
    labels = digits.heldout_labels.tolist()
    with scorer.at(step, HELDOUT):
        reward = scorer(answers.tokens, labels, list(range(len(labels))), 1).mean().item()
    scorer.log({"heldout_reward": reward}, step)
    return reward


class Status:
    """The live line: on a terminal it stays in place, elsewhere a line is printed every few seconds."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._quiet = quiet
        self._interval = 0.25 if self.console.is_terminal else 5.0
        self._next = 0.0

    def __enter__(self) -> Status:
        if self.console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def due(self) -> bool:
        """Whether the line is due for a change; cheap enough to ask at every step."""
        return not self._quiet and time.monotonic() >= self._next

    def show(self, line: str) -> None:
        """Shows `line`."""
        self._next = time.monotonic() + self._interval
        if self._live.is_started:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self.console.print(line, highlight=False, soft_wrap=True)
