"""GRPO on the digits by several ranks (DistributedDataParallel), all of them on one film.

    torchrun --nproc-per-node 2 examples/ddp_digits.py --db runs.db --session ddp

Each rank answers its own share of the training images and scores its answers with its own rubric tree; the
gradients are averaged, so the policies stay equal. Every rank opens a recorder with the same name, and
because they belong to one run they record one session, each its own stream of it. The film merges the streams
by step:

    rubriscope show runs.db ddp
    rubriscope show runs.db ddp --step 12 --limit 4
    rubriscope verify runs.db

The database may be any target: with `--db postgresql://user@host/database`, or `redis://host:6379/0`, the
ranks may run on several machines. Without torchrun it is a run of one rank.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import rubriscope as rs
import torch
import torch.distributed as dist
from digits_policy import DigitPolicy, Digits
from digits_run import HELDOUT, TRAIN, Scorer, Status, minibatches
from grpo_digits import GRPO, Settings
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

COUNTS = ("accepted", "durable", "dropped")  # of a rank's recorder


class Share:
    """A rank's part of the images: every `world`-th, beginning with its own number."""

    def __init__(self, images: Tensor, labels: Tensor, rank: int, world: int) -> None:
        self.images, self.labels = images[rank::world], labels[rank::world]
        self.ids = torch.arange(rank, len(images), world)  #: the images' numbers among all


def mean_of_all(values: Tensor) -> float:
    """The mean over the values of all ranks, which may have different numbers of them."""
    total = torch.tensor([values.sum().item(), float(len(values))], dtype=torch.float64)
    dist.all_reduce(total)
    return float(total[0] / total[1])


def heldout_reward(policy: DigitPolicy, share: Share, scorer: Scorer, step: int, seed: int) -> float:
    """Mean reward of one sampled answer to each held-out image, over all ranks."""
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + 1009 * dist.get_rank() + step)
    answers = policy.sample(share.images, 1, generator)
    with scorer.at(step, HELDOUT):
        rewards = scorer(answers.tokens, share.labels.tolist(), share.ids.tolist(), 1)
    return mean_of_all(rewards)


def train(settings: Settings, seed: int, scorer: Scorer, status: Status, steps: int) -> dict[str, Any]:
    """Trains for `steps` steps and returns the run's figures, the same on every rank; times are seconds."""
    started = time.monotonic()
    rank, world = dist.get_rank(), dist.get_world_size()
    digits = Digits.load()
    training = Share(digits.train_images, digits.train_labels, rank, world)
    heldout = Share(digits.heldout_images, digits.heldout_labels, rank, world)
    learner = GRPO(settings, seed)
    policy = learner.policy
    # What the optimiser sees is the average of the ranks' gradients; sampling needs no wrapper.
    learner.policy = DistributedDataParallel(policy)
    generator = torch.Generator().manual_seed(1009 * seed + rank)
    batches = minibatches(len(training.images), settings.images, generator)
    evaluations = [[0, heldout_reward(policy, heldout, scorer, 0, seed)]]
    for step in range(steps):
        index = next(batches)
        images = training.images[index]
        answers = policy.sample(images, settings.samples, generator)
        with scorer.at(step, TRAIN):
            labels, ids = training.labels[index].tolist(), training.ids[index].tolist()
            rewards = scorer(answers.tokens, labels, ids, settings.samples)
        scalars = learner.update(images, answers, rewards)
        scorer.log({"reward_mean": rewards.mean().item(), **scalars}, step)
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == steps:
            evaluations.append([step + 1, heldout_reward(policy, heldout, scorer, step + 1, seed)])
            if rank == 0:
                scorer.log({"heldout_reward": evaluations[-1][1]}, step + 1)
        if status.due():
            status.show(
                f"step {step + 1:4d}  reward {rewards.mean():.3f}  held-out {evaluations[-1][1]:.3f}  "
                f"{(step + 1) / (time.monotonic() - started):.1f} steps/s  {world} ranks"
            )
    return {
        "ranks": world,
        "steps": steps,
        "seconds": time.monotonic() - started,
        "evaluations": evaluations,
        "policies_equal": policies_equal(policy),
    }


def policies_equal(policy: DigitPolicy) -> bool:
    """Whether all ranks hold the same parameters, to the last bit."""
    mine = torch.cat([parameter.detach().reshape(-1) for parameter in policy.parameters()])
    theirs = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(theirs, mine)
    return all(torch.equal(mine, other) for other in theirs)


def join() -> None:
    """Joins torchrun's ranks, or makes a group of one."""
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def main(argv: list[str] | None = None) -> int:
    """Runs one rank; the exit code is 0."""
    parser = argparse.ArgumentParser(description="GRPO on the digits by several ranks, on one film.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60, help="training steps (60)")
    parser.add_argument("--images", type=int, default=16, help="images a step and rank (16)")
    parser.add_argument("--db", default="runs.db", help="where the film goes: a path or URL (runs.db)")
    parser.add_argument("--session", help="the film's name in it (ddp-seed<seed>)")
    parser.add_argument("--quiet", action="store_true", help="no live line and no summary")
    parser.add_argument("--json", action="store_true", help="rank 0 prints the run's figures as JSON")
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f"--steps must be at least 1, got {args.steps}")
    torch.set_num_threads(1)
    if ":" not in args.db:
        Path(args.db).parent.mkdir(parents=True, exist_ok=True)
    settings = Settings(images=args.images)
    session = args.session or f"ddp-seed{args.seed}"
    metadata = {"example": "ddp_digits", "seed": args.seed, **dataclasses.asdict(settings)}
    join()
    first = dist.get_rank() == 0
    try:
        with (
            rs.record(args.db, session=session, metadata=metadata) as recorder,
            Status(args.quiet or not first) as status,
        ):
            result = train(settings, args.seed, Scorer(recorder), status, args.steps)
            recorder.flush(60)
            stats = recorder.stats()
            mine = torch.tensor([stats.accepted, stats.durable, stats.dropped])
            everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
            # Not the last thing before the process ends: a thread of gloo lets go of the tensors afterwards,
            # for which it needs the GIL, and torch 2.13 aborts where the interpreter has ended meanwhile.
            dist.all_gather(everyone, mine)
    finally:
        dist.destroy_process_group()
    if first:
        counts = [dict(zip(COUNTS, one.tolist(), strict=True)) for one in everyone]
        result |= {"db": args.db, "session": session, "uuid": recorder.session_id, "recorders": counts}
        if args.json:
            print(json.dumps(result))
        if not args.quiet:
            before, after = result["evaluations"][0][1], result["evaluations"][-1][1]
            status.console.print(
                f"held-out reward {before:.3f} → {after:.3f} in {result['seconds']:.1f} s, "
                f"{args.steps} steps of {result['ranks']} ranks\n"
                f"recorded: {' + '.join(str(one['durable']) for one in counts)} records durable\n"
                f"film: rubriscope show {args.db} {session}",
                highlight=False,
                soft_wrap=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
