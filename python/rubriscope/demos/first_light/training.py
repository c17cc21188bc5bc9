"""Training of the twin's network: what was driven, and the equations where nothing was driven."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.physics import single_track_residual
from .driving import BRAKE_SHARE, RADIUS_M, TICK_S, TYRE, VEHICLE, WHEELBASE_M, Trajectories, manoeuvres
from .network import PhyAtteN_R32, wheel_speeds

PHYSICS_WEIGHT = 0.85
BUDGET_CPU_S = 60.0

#: What an error of one tick is divided by, by state: then 1 is about what a tick changes.
ERROR_SCALE = (0.03, 0.03, 0.03, 0.03, 0.03, 0.03, 0.1 / RADIUS_M, 0.1 / RADIUS_M)
#: Position and yaw follow from the rest, by the network's construction: no error of theirs is trained on.
LEARNED = slice(3, 8)

HELDOUT_SEED = 1_000_003  #: no trajectories of training are drawn with seeds from here on

# Collocation points: where a car may be, wider than where the manoeuvres lead.
SPEED_M_S = (5.0, 37.0)
LATERAL_M_S2 = 8.0
ACCELERATION_M_S2 = (-6.5, 3.0)


@dataclass(frozen=True)
class Settings:
    """What a training depends on, the seed aside. Recorded with the session."""

    trajectories: int = 300
    steps: int = 4000
    batch: int = 256  #: driven transitions a step, and as many collocation points
    learning_rate: float = 1e-2
    physics_weight: float = PHYSICS_WEIGHT  #: λ; 0 trains on the data alone


@dataclass(frozen=True)
class Trained:
    """A trained network and what that took."""

    network: PhyAtteN_R32
    data_loss: float  #: of the last step, mean square of the scaled errors
    physics_loss: float  #: of the last step, mean square of the scaled residuals; 0 where λ = 0
    cpu_s: float  #: of this process, making the data included


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Batches this small gain nothing by a second thread, and sums have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def collocation(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """States (count, 8) and controls (count, 3), float32, at which nothing was driven.

    Speed, lateral and longitudinal acceleration are drawn uniformly; the rest is near what steady driving
    with them takes, since anything else is over within a tick.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def normal(spread: float) -> Tensor:
        return spread * torch.randn(count, generator=generator)

    speed = uniform(*SPEED_M_S)
    lateral = uniform(-LATERAL_M_S2, LATERAL_M_S2)
    yaw_rate = lateral / speed + normal(0.02)
    stiffness = 9.81 * float(TYRE.by) * float(TYRE.cy) * float(TYRE.muy)
    vy = float(VEHICLE.rear) * yaw_rate - lateral / stiffness * speed + normal(0.02)
    steering = WHEELBASE_M * lateral / speed.square() + normal(0.005)
    force = float(VEHICLE.mass) * uniform(*ACCELERATION_M_S2)
    front = torch.where(force > 0, torch.zeros_like(force), BRAKE_SHARE * force)
    control = torch.stack([steering, RADIUS_M * front, RADIUS_M * (force - front)], 1)
    zero = torch.zeros_like(speed)
    body = torch.stack([zero, zero, uniform(-math.pi, math.pi), speed, vy, yaw_rate], 1)
    per_slip = float(TYRE.bx) * float(TYRE.cx) * float(TYRE.mux) * float(VEHICLE.mass) * 9.81 / WHEELBASE_M
    loads = torch.tensor([float(VEHICLE.rear), float(VEHICLE.front)])
    ratio = control[:, 1:] / (RADIUS_M * per_slip * loads)
    ratio = ratio + 0.001 * torch.randn(count, 2, generator=generator)
    return torch.cat([body, wheel_speeds(body, control, ratio)], 1), control


def scaled_residual(state: Tensor, control: Tensor, after: Tensor) -> Tensor:
    """How far a predicted tick is from the equations, (N, 8), in units of ERROR_SCALE."""
    residual = single_track_residual(state, control, after, TICK_S, VEHICLE, TYRE)
    return residual * (TICK_S / torch.tensor(ERROR_SCALE, dtype=residual.dtype))


def train(
    settings: Settings,
    seed: int,
    report: Callable[[int, float, float], None] = lambda step, data, physics: None,
) -> Trained:
    """Trains a network. The same settings and seed give the same network on the same machine.

    Args:
        settings: What to do.
        seed: Of the manoeuvres, the first weights and the batches.
        report: Called after each step with its number (from 1) and both losses.
    """
    begin = time.process_time()
    with one_thread():
        torch.manual_seed(seed)
        network = PhyAtteN_R32()
        generator = torch.Generator().manual_seed(seed)
        states, controls, after = (t.float() for t in training_data(settings, seed).transitions())
        scale = torch.tensor(ERROR_SCALE)[LEARNED]
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            settings.learning_rate,
            settings.steps,
            pct_start=0.1,
            div_factor=10,
            final_div_factor=1000,
        )
        data = physics = torch.zeros(())
        for step in range(1, settings.steps + 1):
            picked = torch.randint(len(states), (settings.batch,), generator=generator)
            state, control = states[picked], controls[picked]
            if settings.physics_weight:
                elsewhere, controlled = collocation(settings.batch, generator)
                state, control = torch.cat([state, elsewhere]), torch.cat([control, controlled])
            predicted = network(state, control)
            driven = slice(settings.batch)
            errors = (predicted[driven] - after[picked])[:, LEARNED] / scale
            loss = data = errors.square().mean()
            if settings.physics_weight:
                beyond = slice(settings.batch, None)
                residual = scaled_residual(state[beyond], control[beyond], predicted[beyond])
                physics = residual[:, LEARNED].square().mean()
                loss = data + settings.physics_weight * physics
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            report(step, data.item(), physics.item())
    network.requires_grad_(False)
    return Trained(network, data.item(), physics.item(), time.process_time() - begin)


def training_data(settings: Settings, seed: int) -> Trajectories:
    """The manoeuvres that a seed trains on."""
    if not 0 <= seed < HELDOUT_SEED:
        raise ValueError(f"seed is {seed}, expected 0 to {HELDOUT_SEED - 1}")
    return manoeuvres(settings.trajectories, seed)
