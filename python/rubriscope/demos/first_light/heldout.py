"""How good a twin is on trajectories that no training has seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .contour import SCAN_EVERY, apart, contour, scan
from .driving import TICKS, Trajectories, manoeuvres
from .training import HELDOUT_SEED

TRAJECTORIES = 40

Step = Callable[[Tensor, Tensor], Tensor]


def heldout(count: int = TRAJECTORIES) -> Trajectories:
    """The held-out trajectories: the same for every seed."""
    return manoeuvres(count, HELDOUT_SEED)


def predicted(step: Step, driven: Trajectories, dtype: torch.dtype = torch.float32) -> Tensor:
    """States (N, ticks + 1, 8), float64, by ``step`` from the starts on, without correction."""
    state = driven.states[:, 0].to(dtype)
    found = [state]
    with torch.inference_mode():
        for control in driven.controls.to(dtype).unbind(1):
            state = step(state, control)
            found.append(state)
    return torch.stack(found, 1).double()


def distances(driven: Trajectories, states: Tensor) -> Tensor:
    """Hausdorff distances (N, scans), m, between scans of the car and the contour of ``states``, as in the
    twin's run; infinite where these are not finite."""
    noise = torch.Generator().manual_seed(HELDOUT_SEED)
    found = []
    for tick in range(SCAN_EVERY, TICKS + 1, SCAN_EVERY):
        apart_m = apart(scan(driven.states[:, tick], noise), contour(states[:, tick]))
        found.append(torch.where(apart_m.isnan(), torch.inf, apart_m))
    return torch.stack(found, 1)


def ninetieth(largest: Tensor) -> float:
    """The 90th percentile of (N,) values, the upper of the two it lies between."""
    return float(largest.quantile(0.9, interpolation="higher"))
