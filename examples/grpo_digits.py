"""GRPO on scikit-learn's digits, with every reward on film.

A small recurrent policy reads an 8x8 image and writes an answer token by token. It starts from random weights
and is told nothing: neither the format of an answer nor the digit. It learns both from the rubric tree in
`digits_rubric.py` by group relative policy optimisation (Shao et al. 2024): several answers to each image,
each worth as much as it is better than its group's mean; a clipped likelihood ratio; a KL term that holds the
policy to a reference.

    python examples/grpo_digits.py --db runs.db --plot curves.png

Each answer is one call of the rubric tree and so one snapshot in the database: answers to training images in
the episode `train`, answers to held-out images in the episode `heldout`. The exit code is 0 when the mean
reward on held-out images was above the target in two evaluations in a row, 1 when the time ran out first.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import rubriscope as rs
import torch
from digits_policy import Completions, DigitPolicy, Digits, chosen_log_probs
from digits_rubric import CURVES
from digits_run import HELDOUT, TRAIN, Scorer, Status, heldout_reward, minibatches
from rich.console import Console
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the run depends on, the seed aside. Recorded with the session."""

    images: int = 32  # a step's images, each of which gets `samples` answers: its group
    samples: int = 16
    updates: int = 2  # optimiser steps on the same answers; from the second on, the clipped ratio matters
    learning_rate: float = 3e-3
    clip: float = 0.2
    kl_weight: float = 0.03
    gradient_norm: float = 1.0
    evaluate_every: int = 20
    hidden: int = 64

    @property
    def batch(self) -> int:
        """Answers, and so rubric calls, a training step."""
        return self.images * self.samples


def group_advantages(rewards: Tensor, samples: int) -> Tensor:
    """How much better each answer is than its group: (r - mean) / std within each row of `samples`.

    `rewards` is (N,), N a multiple of `samples`; so is the result. A group whose rewards are all equal
    teaches nothing: its advantages are 0.
    """
    groups = rewards.view(-1, samples)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, keepdim=True) + 1e-4)).view(-1)


class GRPO:
    """The policy, its frozen reference and the optimiser."""

    def __init__(self, settings: Settings, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings = settings
        self.policy = DigitPolicy(settings.hidden)
        # The reference is the untrained policy. Staying near it keeps several answers alive until the digits
        # are learned: without the KL term the policy soon gives the same answer to every image.
        self.reference = copy.deepcopy(self.policy).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=settings.learning_rate)

    def update(self, images: Tensor, answers: Completions, rewards: Tensor) -> dict[str, float]:
        """One step of training on `answers` to `images`, worth `rewards` (N,). Returns the scalars to log."""
        settings, tokens, mask = self.settings, answers.tokens, answers.mask
        count = mask.sum()
        advantages = group_advantages(rewards, settings.samples).unsqueeze(1)
        with torch.no_grad():
            reference = chosen_log_probs(self.reference(images, tokens), tokens)
        for _ in range(settings.updates):
            log_probs = self.policy(images, tokens)
            chosen = chosen_log_probs(log_probs, tokens)
            ratio = (chosen - answers.log_probs).exp()
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            gain = torch.minimum(ratio * advantages, clipped * advantages)
            # Schulman's k3: an estimate of KL(policy || reference) that is never negative and varies little.
            difference = reference - chosen
            kl = difference.exp() - difference - 1
            loss = ((settings.kl_weight * kl - gain) * mask).sum() / count
            self.optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), settings.gradient_norm)
            self.optimizer.step()
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            return {
                "loss": loss.item(),
                "kl": ((kl * mask).sum() / count).item(),
                "entropy": ((entropy * mask).sum() / count).item(),
                "gradient_norm": norm.item(),
                "answer_tokens": (count / len(mask)).item(),
            }


def train(
    settings: Settings,
    seed: int,
    scorer: Scorer,
    status: Status,
    *,
    target: float,
    budget_s: float,
    steps: int | None,
) -> dict[str, Any]:
    """Train until the target was passed twice in a row, the budget is spent, or exactly `steps` steps.

    Returns the run's figures; times are seconds, the CPU time is the calling thread's.
    """
    started, cpu_started = time.monotonic(), time.thread_time()
    digits = Digits.load()
    learner = GRPO(settings, seed)
    generator = torch.Generator().manual_seed(seed)
    batches = minibatches(len(digits.train_images), settings.images, generator)
    heldout = [heldout_reward(learner.policy, digits, scorer, 0, seed)]
    training: list[float] = []
    step, passed, reached = 0, 0, False
    while True:
        index = next(batches)
        images, labels = digits.train_images[index], digits.train_labels[index].tolist()
        answers = learner.policy.sample(images, settings.samples, generator)
        with scorer.at(step, TRAIN):
            rewards = scorer(answers.tokens, labels, index.tolist(), settings.samples)
        scalars = learner.update(images, answers, rewards)
        mean = rewards.mean().item()
        scorer.log({"reward_mean": mean, **scalars}, step)
        training.append(mean)
        step += 1
        seconds = time.monotonic() - started
        if step % settings.evaluate_every == 0:
            heldout.append(heldout_reward(learner.policy, digits, scorer, step, seed))
            passed = passed + 1 if heldout[-1] > target else 0
            reached = reached or passed == 2
        if status.due():
            calls = step * settings.batch + len(heldout) * len(digits.heldout_labels)
            where = "rubric calls" if scorer.recorder is None else "snapshots"
            status.show(
                f"step {step:4d}  reward {mean:.3f}  held-out {heldout[-1]:.3f}  "
                f"{step / seconds:.1f} steps/s  {calls:,} {where}  {seconds:.1f} s"
            )
        done = reached or seconds >= budget_s if steps is None else step == steps
        if done:
            break
    return {
        "seed": seed,
        "reached": reached,
        "target": target,
        "steps": step,
        "batch": settings.batch,
        "seconds": time.monotonic() - started,
        "training_thread_cpu_s": time.thread_time() - cpu_started,
        "scoring_cpu_s": scorer.cpu_s,
        "rubric_calls": {
            TRAIN: step * settings.batch,
            HELDOUT: len(heldout) * len(digits.heldout_labels),
        },
        "evaluations": [[place * settings.evaluate_every, reward] for place, reward in enumerate(heldout)],
        "reward_mean": training,
    }


def draw(path: Path, result: dict[str, Any], db: Path | None, session: str) -> None:
    """Draw the run's curves into an image: from the film where there is one, else from the run's figures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    rewards, terms = figure.subplots(1, 2)
    steps, values = zip(*result["evaluations"], strict=True)
    if db is None:
        rewards.plot(result["reward_mean"], color="black", alpha=0.5, label="reward, training images")
    else:
        film = rs.Film(db)
        for rubric_path, label in CURVES.items():
            series = film.scores(rubric_path, session, episode=TRAIN)
            style = {"color": "black", "lw": 1.8} if rubric_path == "root" else {"lw": 1.0, "alpha": 0.8}
            rewards.plot(*series.by_step(), label=label, **style)
        for name in ("kl", "entropy"):
            series = film.scores(name, session)
            terms.plot(series.step, series.score, label=f"{name} (nats a token)")
        terms.legend(frameon=False)
        held = film.scores("heldout_reward", session)
        steps, values = held.step, held.score
        film.close()
    rewards.plot(steps, values, "o-", color="tab:red", ms=3, label="reward, held-out images")
    rewards.axhline(result["target"], color="grey", ls=":", lw=1)
    rewards.set(ylim=(0, 1.02), ylabel="mean score", title=session)
    rewards.legend(frameon=False, fontsize="small")
    for axes in (rewards, terms):
        axes.set_xlabel("training step")
        axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="GRPO on scikit-learn's digits, every reward recorded.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--db", type=Path, default=Path("runs.db"), help="where the film goes (runs.db)")
    parser.add_argument("--session", help="the film's name in it (grpo-seed<seed>)")
    parser.add_argument("--no-record", action="store_true", help="train without a recorder")
    parser.add_argument("--plot", type=Path, help="draw the curves into this image")
    parser.add_argument("--target", type=float, default=0.9, help="held-out reward to pass twice (0.9)")
    parser.add_argument("--budget-s", type=float, default=60.0, help="give up after so many seconds (60)")
    parser.add_argument("--steps", type=int, help="do exactly so many steps instead, whatever the reward")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (1)")
    parser.add_argument("--quiet", action="store_true", help="no live line and no summary")
    parser.add_argument("--json", action="store_true", help="print the run's figures as JSON")
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 1:
        parser.error(f"--steps must be at least 1, got {args.steps}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run; the exit code says whether the target was reached. With --steps it is always 0."""
    args = arguments(argv)
    # One thread: the matrices are too small to share, and the second core is the recorder's.
    torch.set_num_threads(args.threads)
    settings = Settings()
    session = args.session or f"grpo-seed{args.seed}"
    cpu_started = time.process_time()
    with contextlib.ExitStack() as stack:
        recorder = None
        if not args.no_record:
            args.db.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"example": "grpo_digits", "seed": args.seed, **dataclasses.asdict(settings)}
            recorder = stack.enter_context(rs.record(args.db, session=session, metadata=metadata))
        status = stack.enter_context(Status(args.quiet))
        result = train(
            settings,
            args.seed,
            Scorer(recorder),
            status,
            target=args.target,
            budget_s=args.budget_s,
            steps=args.steps,
        )
        if recorder is not None:
            recorder.flush(60)
            stats = recorder.stats()
            result["recorder"] = {
                name: getattr(stats, name) for name in ("accepted", "durable", "pending", "dropped", "failed")
            }
    result["process_cpu_s"] = time.process_time() - cpu_started
    result["db"] = None if args.no_record else str(args.db)
    result["session"] = session
    if args.plot is not None:
        draw(args.plot, result, None if args.no_record else args.db, session)
    if args.json:
        print(json.dumps(result))
    if not args.quiet:
        summarise(result, status.console)
    return 0 if result["reached"] or args.steps is not None else 1


def summarise(result: dict[str, Any], console: Console) -> None:
    """Print what came of the run."""
    evaluations = result["evaluations"]
    verdict = "reached" if result["reached"] else "did not reach"
    calls = sum(result["rubric_calls"].values())
    console.print(
        f"held-out reward {evaluations[0][1]:.3f} → {evaluations[-1][1]:.3f}: {verdict} {result['target']:g} "
        f"twice in a row, {result['steps']} steps in {result['seconds']:.1f} s",
        f"CPU time: training thread {result['training_thread_cpu_s']:.1f} s, "
        f"process {result['process_cpu_s']:.1f} s; {calls:,} rubric calls",
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )
    if result["db"] is not None:
        recorder = result["recorder"]
        console.print(
            f"recorded: {recorder['accepted']:,} records accepted, {recorder['durable']:,} durable, "
            f"{recorder['dropped']:,} dropped\n"
            f"film: rubriscope show {result['db']} {result['session']}",
            highlight=False,
            soft_wrap=True,
        )


if __name__ == "__main__":
    sys.exit(main())
