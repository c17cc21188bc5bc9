"""By how much rs.watch slows a training step, beside wandb.watch."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import rubriscope as rs
import torch
from rubriscope import watch
from torch import nn

if TYPE_CHECKING:
    from kernels import Call, KernelBench

EVERY = 10
STEPS = 2 * EVERY  #: a call trains so many steps, two of them recorded


def classifier() -> nn.Module:
    """A small convolutional network for 32 × 32 images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for width, out in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, 10))


def rows(bench: KernelBench) -> None:
    """A training step plain, watched by rs.watch, and by wandb.watch at the same frequency."""
    os.environ["WANDB_MODE"] = "offline"
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    bench.peer("wandb")
    device = bench.device
    images = torch.randn(32, 3, 32, 32, generator=bench.generator).to(device)
    labels = torch.randint(0, 10, (32,), generator=bench.generator).to(device)

    def training(model: nn.Module) -> Call:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        def steps() -> None:
            for _ in range(STEPS):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()

        return steps

    models = {
        name: classifier().to(device) for name in ("plain", "rubriscope", "gradients only", "wandb.watch")
    }
    cases = {name: training(model) for name, model in models.items()}
    with tempfile.TemporaryDirectory() as folder, rs.record(f"{folder}/watch.db") as recorder:
        run = wandb.init(project="rubriscope-bench", dir=folder, mode="offline")
        try:
            watch(models["rubriscope"], recorder, EVERY)
            watch(models["gradients only"], recorder, EVERY, "gradients")
            run.watch(models["wandb.watch"], log="gradients", log_freq=EVERY)
            trained = cases["wandb.watch"]

            def with_log() -> None:
                trained()
                run.log({})  # sends what the hooks gathered

            cases["wandb.watch"] = with_log
            found = bench.row(
                f"{STEPS} training steps of a small CNN, every {EVERY}th watched", cases, {}, repetitions=9
            )
        finally:
            run.finish()
    slower = {name: found[name] / found["plain"] - 1 for name in cases if name != "plain"}
    bench.report.data["watch_slows_a_step_by"] = slower
    print("  slower than plain: " + ", ".join(f"{name} {share:+.1%}" for name, share in slower.items()))
