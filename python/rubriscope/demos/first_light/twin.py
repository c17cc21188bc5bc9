"""The digital twin: follows the car from its start by the network alone, and three sight points watch it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

import rubriscope as rs

from .contour import SCAN_EVERY, apart, contour, scan
from .network import PhyAtteN_R32
from .replay import Replay
from .training import LEARNED, scaled_residual

FORWARD, HAUSDORFF, IDEMPOTENCY = "pinn_forward_pass", "hausdorff_validation", "idempotency_check"
LATENCY_LIMIT_MS = 1.2
REPLAY_EVERY = 5  #: ticks


class Twin:
    """Estimates the car's state tick by tick. Never corrected: only its start is the car's.

    Args:
        predict: The network, as a function of tick, state (1, 8) and control (1, 3), float32.
        start: The car's state (8,).
        seed: Of the scanner's noise.
    """

    def __init__(self, predict: Callable[[int, Tensor, Tensor], Tensor], start: Tensor, seed: int) -> None:
        self.state = start.float()[None]
        self._predict = predict
        self._noise = torch.Generator().manual_seed(seed)

    @rs.sight_point(name=FORWARD, modality="simulation", metrics=["latency_ms", "physics_residual"])
    def forward_pass(self, tick: int, control: Tensor) -> None:
        """Estimates the state at the end of ``tick`` under ``control`` (3,)."""
        with torch.inference_mode():
            before, held = self.state, control.float()[None]
            begin = time.perf_counter_ns()
            self.state = self._predict(tick, before, held)
            rs.metric("latency_ms", (time.perf_counter_ns() - begin) / 1e6)
            residual = scaled_residual(before, held, self.state)[:, LEARNED]
            rs.metric("physics_residual", residual.square().mean().sqrt().item())

    @rs.sight_point(name=HAUSDORFF, modality="vision_processing", metrics=["hausdorff_m"])
    def validate(self, car: Tensor) -> None:
        """Scans the car's contour, in state (8,), and compares it with the twin's."""
        rs.metric("hausdorff_m", apart(scan(car, self._noise), contour(self.state[0].double())).item())


@rs.sight_point(name=IDEMPOTENCY, modality="inference", metrics=["identical", "counted_twice"])
def check_idempotency(replay: Replay, tick: int) -> None:
    """Delivers the tick's estimate a second time."""
    found = replay.latest(FORWARD, tick)
    rs.metric("identical", float(found.identical))
    rs.metric("counted_twice", float(found.counted_twice))


def warm_up(network: PhyAtteN_R32, start: Tensor) -> None:
    """What torch does at first calls, it does here: the first tick is like the others."""
    state, control = start.float()[None], torch.zeros(1, 3)
    for _ in range(20):
        scaled_residual(state, control, network(state, control))
    apart(contour(start), contour(start))


def follow(
    twin: Twin, states: Tensor, controls: Tensor, replay: Replay, at: Callable[[int], None], tick_s: float
) -> None:
    """Runs the twin beside the car, in real time.

    Args:
        states: The car's, (ticks + 1, 8).
        controls: (ticks, 3).
        at: Told each tick before it begins.
        tick_s: How long a tick takes.
    """
    due = time.perf_counter()
    for tick, control in enumerate(controls):
        at(tick)
        twin.forward_pass(tick, control)
        if tick % REPLAY_EVERY == REPLAY_EVERY - 1:
            check_idempotency(replay, tick)
        if tick % SCAN_EVERY == SCAN_EVERY - 1:
            twin.validate(states[tick + 1])
        due += tick_s
        time.sleep(max(due - time.perf_counter(), 0.0))
