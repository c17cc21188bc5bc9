"""The TensorBoard sink: a curve a rubric."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._common import Record, curves, folder_of, need, run_name

# Of a parent's writers, after a fork: closing one would write the parent's buffer a second time.
_abandoned: list[Any] = []


class TensorBoardSink:
    """Writes event files below ``log_dir``, one folder a session (and rank): tags ``rubric/<path>`` and the
    names of logged scalars, with the snapshot's step and time. TensorBoard keeps values as float32.

    A write hands its events to the system: they survive the process, as far as the file system is not lost.

    Raises:
        ImportError: tensorboard is missing: ``pip install 'rubriscope[tensorboard]'``.
    """

    keeps_failed_batches = True

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        need("tensorboard", "tensorboard", "TensorBoardSink")
        self._log_dir = Path(log_dir).expanduser().absolute()
        self._events: Any = None
        self._pid = 0

    @property
    def target(self) -> str:
        """``tensorboard:/path``, by which a later process opens it again."""
        return f"tensorboard:{self._log_dir}"

    def open(self, session: Mapping[str, Any]) -> None:
        """Starts an event file."""
        from torch.utils.tensorboard import SummaryWriter

        if self._events is not None and self._pid != os.getpid():
            _abandoned.append(self._events)
            self._events = None
        self.close()
        folder = re.sub(r"[/\0]|^\.+", "_", run_name(session))
        self._events = SummaryWriter(str(self._log_dir / folder))
        self._pid = os.getpid()

    def write_all(self, records: Sequence[Record]) -> None:
        """Adds every score and scalar, and flushes."""
        for record in records:
            for tag, value in curves(record):
                self._events.add_scalar(tag, value, record.step, walltime=record.time_ns / 1e9)
        self._events.flush()

    def close(self) -> None:
        """Ends the event file."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_events": None}


def from_target(target: str) -> TensorBoardSink:
    """The sink for ``tensorboard:DIR``."""
    return TensorBoardSink(folder_of(target))
