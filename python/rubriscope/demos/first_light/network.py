"""PhyAtteN_R32: the twin's model of the car, a network that knows the kinematics and learns the tyres."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .driving import RADIUS_M, TICK_S, VEHICLE

WIDTH = 32  #: of a token: the R32
HEADS = 2
_SLIP_SPEED_SQ = 0.5**2  #: as the model's own slips are guarded at standstill, (m/s)²

# What an input or an output is divided by, so that it is of the order of 1.
SLIP = 0.05
SPEED_M_S = (22.0, 8.0)  #: mean and spread
LATERAL_M_S = 0.3
YAW_RATE = 0.3
STEERING = 0.04
TORQUE_N_M = 800.0
ACCELERATION = (3.0, 3.0, 3.0)  #: along, across (m/s²) and about the vertical axis (rad/s²)
SLIP_CHANGE = 0.02


def slips(state: Tensor, control: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How the tyres slide.

    Args:
        state: ``(N, 8)``.
        control: ``(N, 3)``.

    Returns:
        Slip angles (rad) and slip ratios, each ``(N, 2)``, front and rear, and the speed q by which
        the ratios are divided, m/s: as rubriscope.ops.physics.single_track_derivative defines them.
    """
    vx, vy, yaw_rate = state[:, 3], state[:, 4], state[:, 5]
    steering = control[:, 0]
    sine, cosine = torch.sin(steering), torch.cos(steering)
    lateral = vy + float(VEHICLE.front) * yaw_rate
    along = torch.stack([vx * cosine + lateral * sine, vx], 1)
    across = torch.stack([lateral * cosine - vx * sine, vy - float(VEHICLE.rear) * yaw_rate], 1)
    guard = torch.sqrt(along * along + _SLIP_SPEED_SQ)
    return -torch.atan2(across, guard), (RADIUS_M * state[:, 6:8] - along) / guard, guard


class PhyAtteN_R32(nn.Module):
    """Predicts the state of a single-track car with Pacejka tyres one tick of 10 ms later.

    The state's 8 variables, the equations and their sources are in docs/ops/vehicle.md; the car is vehicle 2
    (BMW 320i) of the CommonRoad vehicle models with their tyre (M. Althoff, M. Koschi, S. Manzinger, IV
    2017), as ``rubriscope.ops.physics.Vehicle()`` and ``Tyre()`` hold it: m = 1093.3 kg, I = 1791.6 kg m²,
    a = 1.1562 m, b = 1.4227 m, R = 0.344 m, J = 3.4 kg m².

    What is known is built in: that forces turn and move a rigid body, and how position and yaw follow from
    velocities. What is learned is what the tyres do: the mean accelerations of the tick along, across and
    about the vertical axis, and both axles' slip ratios at its end, five numbers. Inputs are speeds, slip
    angles and slip ratios, not raw wheel speeds: a force depends on the small difference of two large speeds.

    Three tokens of width 32 (front axle, rear axle, body) attend to each other: the axles share one body, and
    the load, torque and slip of one decide what is left for the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(11, 3 * WIDTH)
        self.attend = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)
        self.read = nn.Linear(3 * WIDTH, 5)
        with torch.no_grad():
            self.read.weight.mul_(0.1)
            self.read.bias.zero_()

    def inputs(self, state: Tensor, control: Tensor) -> Tensor:
        """(N, 11): slip angles, slip ratios, velocity, yaw rate, controls, scaled."""
        angle, ratio, _ = slips(state, control)
        speed = (state[:, 3:4] - SPEED_M_S[0]) / SPEED_M_S[1]
        return torch.cat(
            [
                angle / SLIP,
                ratio / SLIP_CHANGE,
                speed,
                SPEED_M_S[0] / (state[:, 3:4] + 1.0) - 1.0,
                state[:, 4:5] / LATERAL_M_S,
                state[:, 5:6] / YAW_RATE,
                control[:, 0:1] / STEERING,
                control[:, 1:3] / TORQUE_N_M,
            ],
            1,
        )

    def learned(self, inputs: Tensor) -> Tensor:
        """(N, 5): scaled accelerations along, across and about the vertical axis, scaled slip ratios."""
        count = inputs.shape[0]
        tokens = functional.silu(self.embed(inputs)).view(count, 3, WIDTH)
        query, key, value = (
            self.attend(tokens).view(count, 3, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS), -1)
        tokens = tokens + self.mix((weights @ value).transpose(1, 2).reshape(count, 3, WIDTH))
        tokens = tokens + self.narrow(functional.silu(self.widen(tokens)))
        found: Tensor = self.read(tokens.reshape(count, 3 * WIDTH))
        return found

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        """The state (N, 8) a tick after ``state`` (N, 8) under ``control`` (N, 3), float32."""
        return advance(state, control, self.learned(self.inputs(state, control)))


def advance(state: Tensor, control: Tensor, learned: Tensor) -> Tensor:
    """The next state (N, 8) that the learned numbers (N, 5) mean."""
    x, y, yaw, vx, vy, rate = state[:, :6].unbind(1)
    along, across, turn = (learned[:, i] * (TICK_S * ACCELERATION[i]) for i in range(3))
    next_rate = rate + turn
    turned = (TICK_S / 2) * (rate + next_rate)
    sine, cosine = torch.sin(turned), torch.cos(turned)
    # The velocity in the axes of the tick's beginning, then seen from the car that has turned.
    ahead, aside = vx + along, vy + across
    next_vx, next_vy = ahead * cosine + aside * sine, aside * cosine - ahead * sine
    sine_yaw, cosine_yaw = torch.sin(yaw), torch.cos(yaw)
    mean_ahead, mean_aside = vx + along / 2, vy + across / 2
    next_x = x + TICK_S * (mean_ahead * cosine_yaw - mean_aside * sine_yaw)
    next_y = y + TICK_S * (mean_ahead * sine_yaw + mean_aside * cosine_yaw)
    body = torch.stack([next_x, next_y, yaw + turned, next_vx, next_vy, next_rate], 1)
    return torch.cat([body, wheel_speeds(body, control, learned[:, 3:5] * SLIP_CHANGE)], 1)


def wheel_speeds(body: Tensor, control: Tensor, ratio: Tensor) -> Tensor:
    """Angular speeds (N, 2), front and rear, of wheels that slip by ``ratio`` (N, 2) under a car that moves
    as ``body`` (N, ≥ 6) says."""
    vx, lateral = body[:, 3], body[:, 4] + float(VEHICLE.front) * body[:, 5]
    along = torch.stack([vx * torch.cos(control[:, 0]) + lateral * torch.sin(control[:, 0]), vx], 1)
    return (along + ratio * torch.sqrt(along * along + _SLIP_SPEED_SQ)) / RADIUS_M
