"""The Weights & Biases sink: a run a writer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ._common import PREFIX, Record, curves, need, run_name

#: W&B's own step may only grow and holds one row: the records' steps are a metric, and the others' x axis.
STEP = "step"


class WandBSink:
    """Logs each snapshot and each logged scalar as a row of a run of its own: ``rubric/<path>``, ``step`` and
    ``_timestamp``, the record's time. A session's runs are one group.

    W&B's library takes a row without waiting for its server, and keeps it on disk until it is there.

    Args:
        project: W&B's project.
        run: A run of yours to log into instead. It should then be logged to without ``step=``: W&B drops
            what comes with a step smaller than one it has seen.
        init: What else ``wandb.init`` takes (``entity``, ``mode``, ``dir``, ``tags``, …).

    Raises:
        ImportError: wandb is missing: ``pip install 'rubriscope[wandb]'``.
        ValueError: ``run`` together with what only a new run takes.
    """

    keeps_failed_batches = True

    def __init__(self, project: str | None = None, *, run: Any = None, **init: Any) -> None:
        need("wandb", "wandb", "WandBSink")
        if run is not None and (project is not None or init):
            raise ValueError(f"a given run has its project already, got also {[project, *init]}")
        self._project = project
        self._given = run
        self._init = init
        self._run = run
        self._opened_as = ("", 0)

    @property
    def target(self) -> str:
        """``wandb:PROJECT``, or what says that a run of this process is meant."""
        return "python:WandBSink" if self._given is not None else f"wandb:{self._project or ''}"

    def open(self, session: Mapping[str, Any]) -> None:
        """Starts the writer's run, unless one was given or is going on."""
        import wandb

        identity = (str(session["writer_id"]), os.getpid())
        if self._opened_as == identity:
            return
        if self._given is None:
            if self._run is not None and self._opened_as[1] == identity[1]:
                self._run.finish()
            self._run = wandb.init(
                project=self._project,
                reinit="create_new",  # the user's own run stays the current one
                **{
                    "group": session["session_name"],
                    "name": run_name(session),
                    "config": {"rubriscope": {**session["metadata"], "session": session["session_id"]}},
                    # What the process prints belongs to the user's own run.
                    "settings": {"console": "off", "quiet": True},
                    **self._init,
                },
            )
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric(PREFIX + "*", step_metric=STEP)
        self._opened_as = identity

    def write_all(self, records: Sequence[Record]) -> None:
        """Logs a row a record."""
        for record in records:
            self._run.log({**dict(curves(record)), STEP: record.step, "_timestamp": record.time_ns / 1e9})

    def close(self) -> None:
        """Ends the run, unless it is the user's."""
        if self._given is None and self._run is not None:
            self._run.finish()
            self._run = None
            self._opened_as = ("", 0)

    def __getstate__(self) -> dict[str, Any]:
        if self._given is not None:
            raise TypeError("a WandBSink with a run of this process cannot go to another one: give a project")
        return {**self.__dict__, "_run": None, "_opened_as": ("", 0)}


def from_target(target: str) -> WandBSink:
    """The sink for ``wandb:PROJECT``."""
    return WandBSink(target.partition(":")[2].lstrip("/") or None)
