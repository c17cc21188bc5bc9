"""The same policy taught by example: the supervised peer of `grpo_digits.py`.

Each training image comes with the answer to give (`<a> 7 sure <e>`), and the policy learns to say just that
(cross-entropy, teacher forcing). The reward plays no part in training; every few steps the answers to
held-out images are scored with the rubric tree that GRPO maximises, at the same steps and into the same kind
of film:

    python examples/grpo_digits.py --db runs.db --session grpo
    python examples/sft_digits.py --db runs.db --session sft
    rubriscope compare runs.db sft grpo --episode heldout
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import rubriscope as rs
import torch
from digits_policy import DigitPolicy, Digits, chosen_log_probs, encode
from digits_run import Scorer, Status, heldout_reward, minibatches
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the run depends on, the seed aside. Recorded with the session."""

    images: int = 128
    learning_rate: float = 3e-3
    gradient_norm: float = 1.0
    evaluate_every: int = 20
    hidden: int = 64


def right_answers() -> Tensor:
    """The answer to give to each digit: token ids (10, T)."""
    return torch.tensor([encode(f"<a> {digit} sure <e>") for digit in range(10)])


def train(settings: Settings, seed: int, scorer: Scorer, status: Status, steps: int) -> dict[str, Any]:
    """Train for `steps` steps and return the run's figures; times are seconds."""
    started = time.monotonic()
    torch.manual_seed(seed)
    digits, answers = Digits.load(), right_answers()
    policy = DigitPolicy(settings.hidden)
    optimizer = torch.optim.Adam(policy.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    batches = minibatches(len(digits.train_images), settings.images, generator)
    evaluations = [[0, heldout_reward(policy, digits, scorer, 0, seed)]]
    losses: list[float] = []
    for step in range(steps):
        index = next(batches)
        tokens = answers[digits.train_labels[index]]
        loss = -chosen_log_probs(policy(digits.train_images[index], tokens), tokens).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.gradient_norm)
        optimizer.step()
        losses.append(loss.item())
        scorer.log({"loss": losses[-1], "gradient_norm": norm.item()}, step)
        if (step + 1) % settings.evaluate_every == 0:
            evaluations.append([step + 1, heldout_reward(policy, digits, scorer, step + 1, seed)])
        if status.due():
            status.show(f"step {step + 1:4d}  loss {losses[-1]:.3f}  held-out {evaluations[-1][1]:.3f}")
    return {
        "seed": seed,
        "steps": steps,
        "seconds": time.monotonic() - started,
        "rubric_calls": len(evaluations) * len(digits.heldout_labels),
        "evaluations": evaluations,
        "loss": losses,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the example; the exit code is 0."""
    parser = argparse.ArgumentParser(description="Supervised training on scikit-learn's digits, on film.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300, help="training steps (300)")
    parser.add_argument("--db", type=Path, default=Path("runs.db"), help="where the film goes (runs.db)")
    parser.add_argument("--session", help="the film's name in it (sft-seed<seed>)")
    parser.add_argument("--quiet", action="store_true", help="no live line and no summary")
    parser.add_argument("--json", action="store_true", help="print the run's figures as JSON")
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f"--steps must be at least 1, got {args.steps}")
    torch.set_num_threads(1)
    settings = Settings()
    session = args.session or f"sft-seed{args.seed}"
    metadata = {"example": "sft_digits", "seed": args.seed, **dataclasses.asdict(settings)}
    args.db.parent.mkdir(parents=True, exist_ok=True)
    with rs.record(args.db, session=session, metadata=metadata) as recorder, Status(args.quiet) as status:
        result = train(settings, args.seed, Scorer(recorder), status, args.steps)
    result |= {"db": str(args.db), "session": session}
    if args.json:
        print(json.dumps(result))
    if not args.quiet:
        first, last = result["evaluations"][0][1], result["evaluations"][-1][1]
        status.console.print(
            f"held-out reward {first:.3f} → {last:.3f} in {args.steps} supervised steps, "
            f"{result['seconds']:.1f} s\n"
            f"film: rubriscope compare {args.db} {session} <session of grpo_digits> --episode heldout",
            highlight=False,
            soft_wrap=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
