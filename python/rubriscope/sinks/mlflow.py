"""The MLflow sink: a run a writer."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ._common import Record, curves, need, run_name

#: The tags by which a run is found again.
SESSION_TAG, WRITER_TAG = "rubriscope.session_id", "rubriscope.writer_id"

_MOST_METRICS = 1000  # a call, says MLflow
_CONNECT_TIMEOUT_S = 2.0


class MLflowSink:
    """Logs scores as metrics ``rubric/<path>`` with the snapshot's step and time (MLflow keeps milliseconds);
    characters that MLflow does not allow in a metric's name become ``_``. A session's runs carry its UUID in
    the tag ``rubriscope.session_id``; a writer that opens again finds its run.

    MLflow keeps one of several metrics that are equal in key, step, millisecond and value, so what is
    delivered twice is there once.

    Args:
        experiment: The experiment's name, made where there is none.
        tracking_uri: A server or a store; left out, MLflow's own setting.

    Raises:
        ImportError: mlflow is missing: ``pip install 'rubriscope[mlflow]'``.
        ValueError: ``experiment`` contains an ``@``.
    """

    keeps_failed_batches = True

    def __init__(self, experiment: str = "Default", *, tracking_uri: str | None = None) -> None:
        mlflow = need("mlflow", "mlflow", "MLflowSink")
        if "@" in experiment:
            raise ValueError(f"an experiment's name without @ is expected, got {experiment!r}")
        self._experiment = experiment
        self._uri: str = tracking_uri or mlflow.get_tracking_uri()
        self._client: Any = None
        self._run_id = ""

    @property
    def target(self) -> str:
        """``mlflow:EXPERIMENT@STORE``, the store without user and password."""
        return f"mlflow:{self._experiment}@{re.sub('//[^/]*@', '//', self._uri)}"

    def open(self, session: Mapping[str, Any]) -> None:
        """Finds or makes the experiment and the writer's run."""
        from mlflow.tracking import MlflowClient

        self._reach_server()
        client = MlflowClient(tracking_uri=self._uri)
        found = client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else client.create_experiment(self._experiment)
        runs = client.search_runs([experiment], f"tags.`{WRITER_TAG}` = '{session['writer_id']}'")
        if runs:
            self._run_id = runs[0].info.run_id
            client.set_terminated(self._run_id, "RUNNING")
        else:
            tags = {SESSION_TAG: session["session_id"], WRITER_TAG: session["writer_id"]}
            self._run_id = client.create_run(
                experiment, session["created_ns"] // 1_000_000, tags, run_name(session)
            ).info.run_id
        self._client = client

    def write_all(self, records: Sequence[Record]) -> None:
        """Logs every score and scalar."""
        from mlflow.entities import Metric

        self._reach_server()
        metrics = [
            Metric(re.sub(r"[^\w\-. :/]", "_", key), value, record.time_ns // 1_000_000, record.step)
            for record in records
            for key, value in curves(record)
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics[start : start + _MOST_METRICS])

    def close(self) -> None:
        """Ends the run."""
        if self._client is not None:
            self._client.set_terminated(self._run_id)
            self._client = None

    def _reach_server(self) -> None:
        # MLflow's client tries for minutes before it says that a server is down, and other sinks would wait.
        parts = urlsplit(self._uri)
        if parts.scheme in ("http", "https") and parts.hostname:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT_S).close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}


def from_target(target: str) -> MLflowSink:
    """The sink for ``mlflow:EXPERIMENT`` or ``mlflow:EXPERIMENT@STORE``."""
    experiment, _, store = target.partition(":")[2].partition("@")
    return MLflowSink(experiment or "Default", tracking_uri=store or None)
