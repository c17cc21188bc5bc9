"""The run: training, validation, the twin beside its car, and what the film says about it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rubriscope as rs

from ...cli.common import FAILED, OK, print_json, progress
from . import heldout, injection, model
from .contour import LIMIT_M
from .driving import TICK_S, TICKS, Trajectories, draw, drive
from .network import PhyAtteN_R32
from .replay import Replay
from .stress import lines as stress_lines
from .stress import stress
from .summary import Summary, lines, summarise
from .training import HELDOUT_SEED, PHYSICS_WEIGHT, Settings, one_thread, train
from .twin import FORWARD, LATENCY_LIMIT_MS, Twin, follow, warm_up

SESSION, STRESS_SESSION = "first-light", "first-light-stress"
LOG_EVERY = 50  #: steps of the training

BANNER = f"""\
============================================================
            FIRST LIGHT TELEMETRY SEQUENCE
          PhyAtteN_R32 PINN Calibration Console
============================================================

Configuration:
- State-Estimation Latency Target: < {LATENCY_LIMIT_MS}ms
- Hausdorff Distance Limit: < {LIMIT_M}m (metres: the origin's nm are below float32's rounding)
- Physics Residual Weight (lambda): {PHYSICS_WEIGHT}
- Idempotency: byte for byte, canonical CBOR
"""


def run(arguments: argparse.Namespace) -> int:
    """Runs what ``options.add_arguments`` was asked for; 1 where a limit is not kept."""
    say: Callable[[str], None] = (lambda text: None) if arguments.json else print
    found: dict[str, Any] = {}
    kept = True
    with one_thread():
        if arguments.mode in ("first_light", "both"):
            say(BANNER)
            summary = first_light(arguments, say)
            say("[OK] First Light sequence complete!\n")
            say("\n".join(lines(summary)))
            found["first_light"] = {**dataclasses.asdict(summary), "chain_valid": summary.chain_valid}
            kept = not summary.violations
        if arguments.mode in ("stress", "both"):
            measured = stress(arguments.db, STRESS_SESSION, arguments.observations)
            say("\n".join([*([""] if found else []), *stress_lines(measured)]))
            found["stress"] = dataclasses.asdict(measured)
            kept = kept and measured.within_budget
    if arguments.json:
        print_json(found)
    return OK if kept else FAILED


def first_light(arguments: argparse.Namespace, say: Callable[[str], None]) -> Summary:
    """One sequence, recorded; its summary, read back."""
    network = kept_network(arguments.model, say)
    metadata = {"demo": "first-light", "seed": arguments.seed, "inject": arguments.inject}
    with rs.record(arguments.db, session=SESSION, metadata=metadata) as recorder:
        if network is None:
            network = trained_network(arguments, recorder, say)
        largest = heldout.distances(driven := heldout.heldout(), heldout.predicted(network, driven)).amax(1)
        for index, value in enumerate(largest.tolist()):
            recorder.log({"heldout/hausdorff_m": value}, step=index)
        car = the_car(arguments.seed, arguments.inject)
        warm_up(network, car.states[0, 0])
        twin = Twin(injection.slowed(network, arguments.inject), car.states[0, 0], arguments.seed)
        say(f"[RUN] {TICKS} ticks of {TICK_S * 1000:.0f} ms, seed {arguments.seed}")

        def at(tick: int) -> None:
            recorder.step = tick

        recorder.flush()
        with contextlib.closing(
            Replay(recorder, arguments.db, injection.carried(arguments.inject))
        ) as replay:
            follow(twin, car.states[0], car.controls[0], replay, at, TICK_S)
        session = recorder.session_id
    if arguments.inject is not None:
        say(f"[INJECTED] {arguments.inject}: {injection.DONE[arguments.inject]}")
    if arguments.inject == "corruption":
        injection.tamper(arguments.db, session, FORWARD)
    return summarise(arguments.db, session)


def the_car(seed: int, injected: str | None) -> Trajectories:
    """The trajectory that the twin has to follow: a hard lane change that no training has seen."""
    starts, controls = draw(1, HELDOUT_SEED + 1 + seed, manoeuvre="lane change", hardness=(0.8, 1.0))
    return drive(starts, controls, injection.roads(injected))


def kept_network(path: Path | None, say: Callable[[str], None]) -> PhyAtteN_R32 | None:
    """The network kept in a file, None where there is none."""
    if path is None or not path.exists():
        return None
    network, settings, seed = model.load(path)
    say(f"[MODEL] {path}, {settings.steps} steps, seed {seed}")
    return network


def trained_network(
    arguments: argparse.Namespace, recorder: rs.Recorder, say: Callable[[str], None]
) -> PhyAtteN_R32:
    """A network trained now, and kept where that is asked for; the training's curves go to the film."""
    settings = Settings()
    if arguments.steps is not None:
        settings = dataclasses.replace(settings, steps=arguments.steps)
    say(f"[TRAIN] {settings.steps} steps, {settings.trajectories} trajectories")
    with progress("training") as show:

        def report(step: int, data: float, physics: float) -> None:
            if step % LOG_EVERY == 0 or step == settings.steps:
                recorder.log({"train/data_loss": data, "train/physics_loss": physics}, step=step)
                show(step, settings.steps)

        made = train(settings, arguments.seed, report)
    recorder.log({"train/cpu_s": made.cpu_s}, step=settings.steps)
    if arguments.model is not None:
        model.keep(arguments.model, made.network, settings, arguments.seed)
    return made.network
