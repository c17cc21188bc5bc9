"""What an observation costs the code it watches."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

import rubriscope as rs

from ...film import Film
from ...ledger import Ledger

MODALITIES = (
    "text_generation",
    "code_execution",
    "vision_processing",
    "simulation",
    "inference",
    "planning",
    "tool_calling",
)
BUDGET_MS = 0.1
BLOCKS = 10  #: of each modality, in turns


@dataclass(frozen=True)
class Stress:
    """Read from the film."""

    observations: int
    overhead_ms: dict[str, float]  #: by modality: CPU time an observation adds to a call, the median block's
    chain_valid: bool

    @property
    def within_budget(self) -> bool:
        """Whether every modality keeps the budget, and the ledger holds."""
        return self.chain_valid and max(self.overhead_ms.values()) <= BUDGET_MS


def stress(path: str | os.PathLike[str], session: str, observations: int) -> Stress:
    """Calls a function that does next to nothing, watched and not, and records what that costs.

    Args:
        path: The database.
        session: The session's name.
        observations: Of each modality, at least a block's worth.
    """
    calls = max(observations // BLOCKS, 1)
    watched = {modality: _watched(modality) for modality in MODALITIES}
    with rs.record(path, session=session, metadata={"demo": "first-light", "mode": "stress"}) as recorder:
        for block in range(BLOCKS):
            for modality, function in watched.items():
                # With interleaved blocks a change of the machine's speed meets all alike.
                plain_ns, watched_ns = _cpu_ns(_plain, calls), _cpu_ns(function, calls)
                recorder.log({f"stress/{modality}/overhead_ns": (watched_ns - plain_ns) / calls}, step=block)
                recorder.flush()
        uuid = recorder.session_id
    return measured(path, uuid)


def measured(path: str | os.PathLike[str], session: str) -> Stress:
    """What a session recorded by :func:`stress` holds."""
    valid = not Ledger(path, session).verify().problem
    with Film(path) as film:
        count = film.session(session).events
        overheads = {
            modality: statistics.median(film.scores(f"stress/{modality}/overhead_ns", session).score) / 1e6
            for modality in MODALITIES
        }
    return Stress(count, overheads, valid)


def lines(found: Stress) -> list[str]:
    """The measurement as it is printed."""
    return [
        f"[STRESS] {found.observations} observations of {len(found.overhead_ms)} modalities",
        *(
            f"  {modality}: overhead {overhead:.5f}ms per observation (budget {BUDGET_MS}ms)"
            for modality, overhead in found.overhead_ms.items()
        ),
        f"  Merkle Chain Valid: {found.chain_valid}",
    ]


def _plain(value: float) -> float:
    return value


@functools.cache
def _watched(modality: str) -> Callable[[float], float]:
    @rs.sight_point(name=f"stress_{modality}", modality=modality, metrics=["value"])
    def call(value: float) -> float:
        rs.metric("value", value)
        return value

    return call


def _cpu_ns(function: Callable[[float], float], calls: int) -> int:
    begin = time.thread_time_ns()
    for _ in repeat(None, calls):
        function(0.5)
    return time.thread_time_ns() - begin
