"""Residuals of partial differential equations on grids and on networks, and of a vehicle."""

from __future__ import annotations

from ._equations import Equation
from .collocation import Sin, collocation_residual, plain_mlp
from .grid import describe, equations, fd_residual, fd_residual_loss, register_pde
from .jet import JetValue, mlp_jet
from .vehicle import Tyre, Vehicle, single_track_derivative, single_track_residual

__all__ = [
    "Equation",
    "JetValue",
    "Sin",
    "Tyre",
    "Vehicle",
    "collocation_residual",
    "describe",
    "equations",
    "fd_residual",
    "fd_residual_loss",
    "mlp_jet",
    "plain_mlp",
    "register_pde",
    "single_track_derivative",
    "single_track_residual",
]
