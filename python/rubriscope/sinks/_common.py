"""What the sinks for other people's stores share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ..event import Event
from ..snapshot import NeuralSnapshot, Scalars

#: What a snapshot's curves are called: ``rubric/root``, ``rubric/grounding.fuzzy``.
PREFIX = "rubric/"

Record = NeuralSnapshot | Scalars | Event


def need(module: str, extra: str, sink: str) -> Any:
    """Imports an optional library. Raises ImportError naming the extra that brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{sink} needs {error.name}, which is not installed: pip install 'rubriscope[{extra}]'"
        ) from error


def curves(record: Record) -> Iterator[tuple[str, float]]:
    """A record's numbers by key: a snapshot's scores (nodes without one left out), logged scalars, or an
    event's values and duration under its name."""
    if isinstance(record, Scalars):
        yield from record.values.items()
    elif isinstance(record, Event):
        prefix = f"{record.kind}/{record.name}/"
        for name, value in record.values.items():
            yield prefix + name, value
        if record.duration_ns:
            yield prefix + "duration_ms", record.duration_ns / 1e6
    else:
        for path, score in record.scores.items():
            yield PREFIX + path, score


def sequence_of(record: Record) -> int:
    """The record's number in its writer's stream."""
    return int(record.id.rpartition(":")[2])


def run_name(session: Mapping[str, Any]) -> str:
    """What a store calls one writer's run: the session, and its rank where there are several."""
    name = str(session["session_name"])
    return f"{name}-rank{session['rank']}" if session["world_size"] > 1 else name


def folder_of(target: str) -> str:
    """The folder in ``scheme:DIR``. Raises ValueError where there is none."""
    scheme, _, folder = target.partition(":")
    if folder.startswith("//"):
        folder = "/" + folder.lstrip("/")
    if not folder:
        raise ValueError(f"target {target!r} names no folder: expected {scheme}:path/to/folder")
    return folder
