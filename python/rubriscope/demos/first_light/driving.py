"""The plant: a single-track car driven through manoeuvres drawn by seed, integrated finely."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops.physics import Tyre, Vehicle, single_track_derivative

TICK_S = 0.01
TICKS = 100
SUBSTEPS = 40  #: of a tick: 0.25 ms, a tenth of the time in which the wheels' slip settles at 6 m/s

VEHICLE = Vehicle()
TYRE = Tyre()
WHEELBASE_M = float(VEHICLE.front) + float(VEHICLE.rear)
RADIUS_M = float(VEHICLE.wheel_radius)

MANOEUVRES = ("lane change", "corner", "slalom", "brake in a corner")
SPEEDS_M_S = (10.0, 34.0)  #: at the start
LATERAL_M_S2 = 6.5  #: the hardest steering asks for this much in steady cornering
DRIVE_SHARE, BRAKE_SHARE = 0.0, 0.6  #: of the torque on the front axle: rear-wheel drive, brakes on both

Derivative = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Trajectories:
    """Driven manoeuvres, float64."""

    states: Tensor  #: (N, ticks + 1, 8), columns as rubriscope.ops.physics.vehicle.STATES
    controls: Tensor  #: (N, ticks, 3), held during a tick

    def __len__(self) -> int:
        return int(self.states.shape[0])

    def transitions(self) -> tuple[Tensor, Tensor, Tensor]:
        """State, control and next state of every tick: (N · ticks, 8), (…, 3), (…, 8)."""
        before, after = self.states[:, :-1], self.states[:, 1:]
        return before.reshape(-1, 8), self.controls.reshape(-1, 3), after.reshape(-1, 8)


def plant(state: Tensor, control: Tensor) -> Tensor:
    """The car's right side (N, 8) on a dry road."""
    return single_track_derivative(state, control, VEHICLE, TYRE)


def slippery(grip: float) -> Derivative:
    """The car's right side on a road with ``grip`` times the dry road's friction."""
    tyre = TYRE._replace(mux=float(TYRE.mux) * grip, muy=float(TYRE.muy) * grip)
    return lambda state, control: single_track_derivative(state, control, VEHICLE, tyre)


# ---- integrators


def euler_step(derivative: Derivative, state: Tensor, control: Tensor, step_s: float) -> Tensor:
    """Explicit Euler."""
    return state + step_s * derivative(state, control)


def runge_kutta_step(derivative: Derivative, state: Tensor, control: Tensor, step_s: float) -> Tensor:
    """The classical method of fourth order."""
    k1 = derivative(state, control)
    k2 = derivative(state + step_s / 2 * k1, control)
    k3 = derivative(state + step_s / 2 * k2, control)
    k4 = derivative(state + step_s * k3, control)
    return state + step_s / 6 * (k1 + 2 * (k2 + k3) + k4)


def tick(state: Tensor, control: Tensor, derivative: Derivative = plant, substeps: int = SUBSTEPS) -> Tensor:
    """The state (N, 8) a tick later, by ``substeps`` steps of Runge–Kutta."""
    for _ in range(substeps):
        state = runge_kutta_step(derivative, state, control, TICK_S / substeps)
    return state


def drive(
    starts: Tensor, controls: Tensor, roads: Sequence[Derivative] | None = None, substeps: int = SUBSTEPS
) -> Trajectories:
    """Integrates from ``starts`` (N, 8) under ``controls`` (N, ticks, 3).

    Args:
        roads: The right side at every tick; left out, a dry road.
        substeps: Steps of Runge–Kutta a tick.
    """
    states = [starts]
    for step, control in enumerate(controls.unbind(1)):
        states.append(tick(states[-1], control, plant if roads is None else roads[step], substeps))
    return Trajectories(torch.stack(states, 1), controls)


# ---- manoeuvres


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(count, 1), so that it goes with a row of times."""
    return low + (high - low) * torch.rand(count, 1, dtype=torch.float64, generator=generator)


def _ramp(time: Tensor, begin: Tensor, length: Tensor) -> Tensor:
    """From 0 to 1 between ``begin`` and ``begin + length``, without a kink."""
    share = ((time - begin) / length).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _steering_shapes(count: int, time: Tensor, generator: torch.Generator) -> Tensor:
    """(manoeuvre, count, ticks): steering between −1 and 1."""
    begin, length = _uniform(count, 0.0, 0.25, generator), _uniform(count, 0.5, 0.9, generator)
    phase = ((time - begin) / length).clamp(0, 1)
    change = torch.sin(2 * math.pi * phase) * torch.sin(math.pi * phase).abs()
    corner = _ramp(time, begin, 0.6 * length)
    rate = _uniform(count, 0.6, 1.4, generator)
    slalom = torch.sin(2 * math.pi * rate * time) * _ramp(time, torch.zeros_like(begin), length / 3)
    return torch.stack([change, corner, slalom, corner * (1 - 0.3 * _ramp(time, begin + length, length))])


def _accelerations(count: int, time: Tensor, generator: torch.Generator) -> Tensor:
    """(manoeuvre, count, ticks): the acceleration along the car that the driver asks for, m/s²."""
    begin, length = _uniform(count, 0.0, 0.5, generator), _uniform(count, 0.2, 0.5, generator)
    first, second = (_uniform(count, -3.0, 2.5, generator) for _ in range(2))
    gentle = first + (second - first) * _ramp(time, begin, length)
    braking = -_uniform(count, 2.0, 5.5, generator) * _ramp(time, begin, length)
    return torch.stack([gentle, gentle, gentle, braking])


def draw(
    count: int,
    seed: int,
    ticks: int = TICKS,
    *,
    manoeuvre: str | None = None,
    hardness: tuple[float, float] = (0.15, 1.0),
) -> tuple[Tensor, Tensor]:
    """Starts (count, 8), straight on at 10 to 34 m/s, and controls (count, ticks, 3) of random manoeuvres.

    Drive torque goes to the rear axle, brake torque to both.

    Args:
        count: How many.
        seed: Decides all of it.
        ticks: How long.
        manoeuvre: One of MANOEUVRES; left out, any.
        hardness: Bounds of the share of LATERAL_M_S2 that the steering asks for.
    """
    generator = torch.Generator().manual_seed(seed)
    time = TICK_S * torch.arange(ticks, dtype=torch.float64)[None]
    speed = _uniform(count, *SPEEDS_M_S, generator)
    yaw = _uniform(count, -math.pi, math.pi, generator)
    which = torch.randint(len(MANOEUVRES), (count,), generator=generator)
    if manoeuvre is not None:
        which.fill_(MANOEUVRES.index(manoeuvre))
    rows = torch.arange(count)
    lateral = _uniform(count, *hardness, generator) * LATERAL_M_S2
    side = 1 - 2 * (_uniform(count, 0.0, 1.0, generator) < 0.5).double()
    shape = _steering_shapes(count, time, generator)[which, rows]
    steering = side * lateral * WHEELBASE_M / speed.square() * shape
    force = float(VEHICLE.mass) * _accelerations(count, time, generator)[which, rows]
    front = torch.where(force > 0, DRIVE_SHARE * force, BRAKE_SHARE * force)
    controls = torch.stack([steering, RADIUS_M * front, RADIUS_M * (force - front)], 2)
    zero = torch.zeros_like(speed)
    starts = torch.cat([zero, zero, yaw, speed, zero, zero, speed / RADIUS_M, speed / RADIUS_M], 1)
    return starts, controls


def manoeuvres(count: int, seed: int, ticks: int = TICKS) -> Trajectories:
    """Random manoeuvres, driven."""
    return drive(*draw(count, seed, ticks))
