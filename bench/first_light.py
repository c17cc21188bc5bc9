"""First Light: what does the physics term do, and what is the network worth beside plain integrators?

Twelve trainings: the physics residual's weight λ = 0 and 0.85, 300 and 12 training trajectories, three seeds.
Each network follows held-out trajectories of 100 ticks of 10 ms from their start, uncorrected; what counts
is the largest Hausdorff distance of a trajectory's ten scans, its 90th percentile over the trajectories. One
set of those is drawn as the training's are, one is driven harder than any trajectory of a training, so that
the network has seen such states at collocation points only. Beside them, on the same trajectories, stand the
integrators that know the equations: Euler with one step a tick, Runge–Kutta with one, two and four.

The λs get the same number of steps and of driven transitions; λ = 0.85 costs more CPU time a step, which is
shown. Without a scanner's noise and sampling a perfect twin has the distance 0; with them about 0.009 m.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from measure import Report, caller, duration, options, time_in_turns
from rubriscope.demos.first_light import driving, heldout
from rubriscope.demos.first_light.contour import LIMIT_M
from rubriscope.demos.first_light.training import (
    BUDGET_CPU_S,
    HELDOUT_SEED,
    LEARNED,
    PHYSICS_WEIGHT,
    Settings,
    one_thread,
    scaled_residual,
    train,
)
from torch import Tensor

LATENCY_LIMIT_MS = 1.2
SEEDS = (0, 1, 2)
TRAJECTORIES = (300, 12)
WEIGHTS = (0.0, PHYSICS_WEIGHT)

Step = Callable[[Tensor, Tensor], Tensor]


def sets(count: int) -> dict[str, driving.Trajectories]:
    """Held-out trajectories: as trained, and harder than any of a training."""
    harder = driving.drive(*driving.draw(count, HELDOUT_SEED + 1, hardness=(1.0, 1.2)))
    return {"held-out": heldout.heldout(count), "harder": harder}


def judge(step: Step, driven: driving.Trajectories, dtype: torch.dtype) -> dict[str, float]:
    """How a step's trajectories compare with the driven ones."""
    states = heldout.predicted(step, driven, dtype)
    largest = heldout.distances(driven, states).amax(1)
    before, control, _ = driven.transitions()
    with torch.inference_mode():
        after = step(before.to(dtype), control.to(dtype))
        residual = scaled_residual(before.to(dtype), control.to(dtype), after)[:, LEARNED]
    return {
        "median_m": float(largest.median()),
        "p90_m": heldout.ninetieth(largest),
        "largest_m": float(largest.max()),
        "diverged": int((~states.isfinite()).any(2).any(1).sum()),
        "residual_rms": float(residual.square().mean().sqrt()),
    }


def integrators() -> dict[str, Step]:
    """Steps of a tick by those who know the equations."""
    tick, plant = driving.TICK_S, driving.plant
    return {
        "Euler, one step a tick": lambda s, c: driving.euler_step(plant, s, c, tick),
        "Runge-Kutta, one step a tick": lambda s, c: driving.runge_kutta_step(plant, s, c, tick),
        "Runge-Kutta, two steps a tick": lambda s, c: driving.tick(s, c, substeps=2),
        "Runge-Kutta, four steps a tick": lambda s, c: driving.tick(s, c, substeps=4),
    }


def show(name: str, found: dict[str, dict[str, float]]) -> None:
    """One case as it is done."""
    parts = [
        f"{where}: median {f['median_m']:.4f} m, p90 {f['p90_m']:.4f} m, residual {f['residual_rms']:.2e}"
        + (f", {f['diverged']} diverged" if f["diverged"] else "")
        for where, f in found.items()
    ]
    print(f"  {name:<46} {'; '.join(parts)}", flush=True)


def spread(values: list[float]) -> str:
    """Median of the seeds and their range, m."""
    return f"{statistics.median(values):.4f} m ({min(values):.4f}–{max(values):.4f})"


def main() -> int:
    args = options(__doc__).parse_args()
    report = Report("first_light", "what the physics term does, and what the network is worth", args)
    base = replace(Settings(), steps=400) if args.quick else Settings()
    driven = sets(40 if args.quick else 100)
    seeds = SEEDS[:1] if args.quick else SEEDS
    trained: dict[tuple[int, float], list[dict[str, Any]]] = {}
    network = None
    for count in TRAJECTORIES:
        for weight in WEIGHTS:
            for seed in seeds:
                made = train(replace(base, trajectories=count, physics_weight=weight), seed)
                if network is None and weight:
                    network = made.network
                found = {name: judge(made.network, some, torch.float32) for name, some in driven.items()}
                trained.setdefault((count, weight), []).append({"cpu_s": made.cpu_s, **found})
                show(f"λ = {weight}, {count} trajectories, seed {seed}, {made.cpu_s:.1f} s", found)
    assert network is not None
    known = {}
    for name, step in integrators().items():
        known[name] = {where: judge(step, some, torch.float64) for where, some in driven.items()}
        show(name, known[name])

    state, control = driven["held-out"].states[:1, 0], driven["held-out"].controls[:1, 0]
    single = (state.float(), control.float())
    cases = {"the network": caller(network, *single)}
    cases |= {name: caller(step, *single) for name, step in integrators().items()}
    with one_thread(), torch.inference_mode():
        timings = time_in_turns(cases, repetitions=5 if args.quick else 25)
    report.timings(timings)
    report.data |= {
        "settings": vars(base),
        "trained": {f"λ={w}, {n} trajectories": found for (n, w), found in trained.items()},
        "integrators": known,
    }

    one = "Runge-Kutta, one step a tick"
    for where in driven:
        for count in TRAJECTORIES:
            without, with_ = (
                [found[where]["p90_m"] for found in trained[count, weight]] for weight in WEIGHTS
            )
            target = where == "held-out" and count == max(TRAJECTORIES) and not args.quick
            report.row(
                f"Hausdorff p90, {where}, {count} training trajectories, λ = {PHYSICS_WEIGHT}",
                spread(with_),
                f"λ = 0: {spread(without)}; {one}: {known[one][where]['p90_m']:.4f} m",
                f"{statistics.median(with_) / statistics.median(without):.2f} of λ = 0",
                f"≤ {LIMIT_M} m" if target else "",
                max(with_) <= LIMIT_M if target else None,
            )
    for name, found in known.items():
        report.row(
            f"{name}: Hausdorff p90, held-out",
            "",
            f"{found['held-out']['p90_m']:.4f} m, largest {found['held-out']['largest_m']:.4f} m",
            f"{duration(report.ns(timings[name]))} a tick",
            "",
            None,
        )
    cpu = [found["cpu_s"] for found in trained[max(TRAJECTORIES), PHYSICS_WEIGHT]]
    plain = [found["cpu_s"] for found in trained[max(TRAJECTORIES), 0.0]]
    report.row(
        "training, CPU time",
        f"{statistics.median(cpu):.1f} s",
        f"λ = 0: {statistics.median(plain):.1f} s",
        f"{base.steps} steps of {base.batch}",
        f"≤ {BUDGET_CPU_S:.0f} s",
        max(cpu) <= BUDGET_CPU_S,
    )
    ns = report.ns(timings["the network"])
    report.row(
        "state estimation, a tick",
        duration(ns),
        f"{one}: {duration(report.ns(timings[one]))}",
        f"{ns / 1e6 / LATENCY_LIMIT_MS:.2f} of the limit",
        f"≤ {LATENCY_LIMIT_MS} ms",
        ns / 1e6 <= LATENCY_LIMIT_MS,
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
