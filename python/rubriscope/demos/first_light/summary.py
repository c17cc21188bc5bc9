"""What a run amounts to. Every number is read from its film; nothing is carried over from the run itself."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass

import torch

from ...event import Event
from ...film import Film
from ...ledger import Ledger
from .contour import LIMIT_M
from .heldout import ninetieth
from .twin import FORWARD, HAUSDORFF, IDEMPOTENCY, LATENCY_LIMIT_MS

MODALITIES = ("simulation", "vision_processing", "inference")


@dataclass(frozen=True)
class ModalityFigures:
    """One modality's observations."""

    name: str
    observations: int
    average_ms: float  #: mean duration of the instrumented calls


@dataclass(frozen=True)
class Violation:
    """Something over its limit."""

    tick: int | None  #: None where it is no tick's
    text: str


@dataclass(frozen=True)
class Summary:
    """The numbers of one run."""

    observations: int
    chain_problem: str  #: "" where the ledger holds
    sight_points: int  #: those that observed something
    modalities: list[ModalityFigures]
    trained_cpu_s: float | None  #: None where the network was not trained in this run
    heldout_trajectories: int
    heldout_p90_m: float  #: of the trajectories' largest Hausdorff distances
    latency_median_ms: float
    latency_largest_ms: float
    residual_mean: float
    residual_largest: float
    scans: int
    hausdorff_largest_m: float
    replays: int
    identical: int
    counted_twice: int
    violations: list[Violation]

    @property
    def chain_valid(self) -> bool:
        """Whether every record is what was signed."""
        return not self.chain_problem


def summarise(path: str | os.PathLike[str], session: str) -> Summary:
    """Reads a run's film and verifies its ledger.

    Args:
        path: The database.
        session: The run's UUID.
    """
    problem = Ledger(path, session).verify().problem
    with Film(path) as film:
        events = list(film.events(session, kind="observation"))
        largest = film.scores("heldout/hausdorff_m", session).score
        trained = "train/cpu_s" in film.scalars(session)
        cpu_s = float(film.scores("train/cpu_s", session).score[-1]) if trained else None
    named = {name: [e for e in events if e.name == name] for name in (FORWARD, HAUSDORFF, IDEMPOTENCY)}
    latencies = [e.values["latency_ms"] for e in named[FORWARD]]
    residuals = [e.values["physics_residual"] for e in named[FORWARD]]
    return Summary(
        observations=len(events),
        chain_problem=problem,
        sight_points=len({e.name for e in events}),
        modalities=[
            _modality(name, [e for e in events if e.attributes["modality"] == name]) for name in MODALITIES
        ],
        trained_cpu_s=cpu_s,
        heldout_trajectories=len(largest),
        heldout_p90_m=ninetieth(torch.from_numpy(largest)),
        latency_median_ms=statistics.median(latencies),
        latency_largest_ms=max(latencies),
        residual_mean=statistics.fmean(residuals),
        residual_largest=max(residuals),
        scans=len(named[HAUSDORFF]),
        hausdorff_largest_m=max(e.values["hausdorff_m"] for e in named[HAUSDORFF]),
        replays=len(named[IDEMPOTENCY]),
        identical=sum(int(e.values["identical"]) for e in named[IDEMPOTENCY]),
        counted_twice=sum(int(e.values["counted_twice"]) for e in named[IDEMPOTENCY]),
        violations=[*_violations(events), *([Violation(None, f"ledger: {problem}")] if problem else [])],
    )


def _modality(name: str, events: list[Event]) -> ModalityFigures:
    return ModalityFigures(name, len(events), statistics.fmean(e.duration_ns for e in events) / 1e6)


def _violations(events: list[Event]) -> list[Violation]:
    found = []
    for event in events:
        values = event.values
        if values.get("latency_ms", 0.0) > LATENCY_LIMIT_MS:
            text = f"state estimation took {values['latency_ms']:.3f}ms, limit {LATENCY_LIMIT_MS}ms"
            found.append(Violation(event.step, text))
        if values.get("hausdorff_m", 0.0) > LIMIT_M:
            text = f"the car is {values['hausdorff_m']:.4f}m from its twin, limit {LIMIT_M}m"
            found.append(Violation(event.step, text))
        if values.get("identical", 1.0) != 1.0:
            found.append(Violation(event.step, "an event's bytes changed on their way"))
        if values.get("counted_twice", 0.0) != 0.0:
            found.append(Violation(event.step, "a replayed event was counted twice"))
    return found


def lines(summary: Summary) -> list[str]:
    """The summary as it is printed."""
    s = summary
    training = [] if s.trained_cpu_s is None else [f"  training: {s.trained_cpu_s:.1f}s of CPU time"]
    return [
        "Observability Summary:",
        f"  Total Observations: {s.observations}",
        f"  Merkle Chain Valid: {s.chain_valid}",
        f"  Active Sight Points: {s.sight_points}",
        "",
        "[OBSERVATIONS BY MODALITY]",
        *(
            f"  {m.name}: {m.observations} observations (avg latency: {m.average_ms:.3f}ms)"
            for m in s.modalities
        ),
        "",
        "[CALIBRATION]",
        *training,
        f"  held out: {s.heldout_trajectories} trajectories, 90th percentile of their largest Hausdorff "
        f"distances {s.heldout_p90_m:.4f}m (limit {LIMIT_M}m)",
        f"  state estimation: median {s.latency_median_ms:.3f}ms, largest {s.latency_largest_ms:.3f}ms "
        f"(limit {LATENCY_LIMIT_MS}ms)",
        f"  physics residual: mean {s.residual_mean:.3e}, largest {s.residual_largest:.3e}",
        f"  Hausdorff distance: largest of {s.scans} scans {s.hausdorff_largest_m:.4f}m (limit {LIMIT_M}m)",
        f"  idempotency: {s.identical} of {s.replays} replayed events byte for byte the same, "
        f"{s.counted_twice} counted twice",
        "",
        f"[VIOLATIONS] {len(s.violations) or 'none'}",
        *(f"  {'' if v.tick is None else f'tick {v.tick}: '}{v.text}" for v in s.violations),
    ]
