"""Violations made on purpose, so that one can see them found."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable

from torch import Tensor

from .driving import TICKS, Derivative, plant, slippery

DRIFT_TICK, DRIFT_GRIP = 5, 0.2  #: from this tick on the plant drives on ice, and nobody tells the twin
SLOW_TICK, SLOW_S = 42, 0.005
CORRUPT_TICK = 49  #: its event loses a bit on the way

#: What is done, in words.
DONE = {
    "drift": f"from tick {DRIFT_TICK} on the road had {DRIFT_GRIP} of its friction, and nobody told the twin",
    "latency": f"tick {SLOW_TICK} was {SLOW_S * 1000:.0f} ms slower",
    "corruption": f"tick {CORRUPT_TICK}'s event lost a bit on the way, and its record was changed afterwards",
}


def roads(injected: str | None) -> list[Derivative]:
    """The plant's right side at every tick."""
    icy = slippery(DRIFT_GRIP)
    return [icy if injected == "drift" and tick >= DRIFT_TICK else plant for tick in range(TICKS)]


def slowed(
    network: Callable[[Tensor, Tensor], Tensor], injected: str | None
) -> Callable[[int, Tensor, Tensor], Tensor]:
    """The network as a function of tick, state and control; one tick is slow where that is injected."""

    def predict(tick: int, state: Tensor, control: Tensor) -> Tensor:
        if injected == "latency" and tick == SLOW_TICK:
            time.sleep(SLOW_S)
        return network(state, control)

    return predict


def carried(injected: str | None) -> Callable[[int, bytes], bytes]:
    """How an event's bytes travel: unharmed, or one tick's with a bit turned over."""

    def carry(tick: int, event: bytes) -> bytes:
        if injected == "corruption" and tick == CORRUPT_TICK:
            return event[:-1] + bytes([event[-1] ^ 1])
        return event

    return carry


def tamper(path: str | os.PathLike[str], session_uuid: str, name: str) -> None:
    """Changes a bit of a record of the sight point ``name`` behind the recorder's back.

    The database must not be open in this process.
    """
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        key, record = database.execute(
            "SELECT event_key, record FROM events JOIN sessions USING(session_id) "
            "WHERE uuid = ? AND events.name = ? AND step_index = ?",
            (session_uuid, name, CORRUPT_TICK),
        ).fetchone()
        changed = record[:-1] + bytes([record[-1] ^ 1])
        database.execute("UPDATE events SET record = ? WHERE event_key = ?", (changed, key))
