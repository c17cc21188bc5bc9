"""The car's contour, a synthetic scan of it, and how far two contours are apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...ops import hausdorff
from .driving import VEHICLE

# BMW 320i, vehicle 2 of the CommonRoad vehicle models; the rounding of the corners is ours.
LENGTH_M, WIDTH_M, CORNER_M = 4.508, 1.610, 0.30
#: From the centre of gravity forward to the middle of the car, which is between the axles.
MIDDLE_M = (float(VEHICLE.front) - float(VEHICLE.rear)) / 2

POINTS = 1024  #: of a contour; about 1.2 cm apart
SCAN_NOISE_M = 0.002  #: standard deviation of a scanned point, along and across
SCAN_EVERY = 10  #: ticks
LIMIT_M = 0.045


def outline(along: Tensor) -> Tensor:
    """Points (…, 2) of the contour, in the car's axes, at shares ``along`` (…) of its length, from 0 to 1."""
    straight, side, quarter = LENGTH_M - 2 * CORNER_M, WIDTH_M - 2 * CORNER_M, math.pi / 2 * CORNER_M
    # Four pieces alike: half of the contour is (long side, corner, short side, corner), twice.
    half = straight + side + 2 * quarter
    way = along.remainder(1.0) * (2 * half)
    sign = torch.where(way < half, 1.0, -1.0).to(along.dtype)
    way = way.remainder(half)
    on_side = way.clamp(0, straight)
    first = ((way - straight) / CORNER_M).clamp(0, math.pi / 2)
    on_front = (way - straight - quarter).clamp(0, side)
    second = ((way - straight - quarter - side) / CORNER_M).clamp(0, math.pi / 2)
    turned = first + second
    x = -straight / 2 + on_side + CORNER_M * torch.sin(turned)
    y = -WIDTH_M / 2 + CORNER_M + on_front - CORNER_M * torch.cos(turned)
    return torch.stack([sign * x + MIDDLE_M, sign * y], -1)


def placed(points: Tensor, state: Tensor) -> Tensor:
    """Points (…, n, 2) of the car's axes where a car in ``state`` (…, 8) has them."""
    sine, cosine = torch.sin(state[..., 2:3]), torch.cos(state[..., 2:3])
    x = state[..., 0:1] + points[..., 0] * cosine - points[..., 1] * sine
    y = state[..., 1:2] + points[..., 0] * sine + points[..., 1] * cosine
    return torch.stack([x, y], -1)


def contour(state: Tensor) -> Tensor:
    """The contour (…, POINTS, 2) of a car in ``state`` (…, 8), m."""
    even = torch.arange(POINTS, dtype=state.dtype) / POINTS
    return placed(outline(even), state)


def scan(state: Tensor, generator: torch.Generator) -> Tensor:
    """What a scanner sees of the car: as many points, begun anywhere on the contour, each a little off."""
    shape = (*state.shape[:-1], POINTS)
    begin = torch.rand(*state.shape[:-1], 1, dtype=state.dtype, generator=generator)
    even = torch.arange(POINTS, dtype=state.dtype) / POINTS
    noise = SCAN_NOISE_M * torch.randn(*shape, 2, dtype=state.dtype, generator=generator)
    return placed(outline(even + begin), state) + noise


def apart(seen: Tensor, predicted: Tensor) -> Tensor:
    """The Hausdorff distance of point sets (n, 2) or (B, n, 2), m."""
    return hausdorff.distance(seen, predicted)
