"""Sight points: named places of a program whose calls are measured, recorded and, where asked, acted upon."""

from __future__ import annotations

from ._actions import Alert
from ._control import listen_as_told
from ._cost import Costs, CostStats, TokenPrice
from ._inject import Injection
from ._modality import Modality
from ._point import metric, sight, sight_point
from ._sight import CodeSight, Observation, PointStats, get_code_sight
from ._trace import MultimodalTracer, OpenTrace, TraceEvent, TraceView

__all__ = [
    "Alert",
    "CodeSight",
    "CostStats",
    "Costs",
    "Injection",
    "Modality",
    "MultimodalTracer",
    "Observation",
    "OpenTrace",
    "PointStats",
    "TokenPrice",
    "TraceEvent",
    "TraceView",
    "get_code_sight",
    "listen_as_told",
    "metric",
    "sight",
    "sight_point",
]
