"""Traces across modalities: what an agent's text, vision, planning … did for one purpose, under one id."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from .. import _C
from ..snapshot import dump_json
from ._logging import emit
from ._modality import check_modality

Status = Literal["success", "error", "blocked"]
STATUSES = ("success", "error", "blocked")
TEXT_LIMIT = 4000  #: characters of an event's data, and of each metadata value, that are kept in memory

# One for all tracers, and reentrant: a destructor may trace. Nothing slow is done under it, and a fork
# waits for it, so that a child never finds it taken.
_lock = threading.RLock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)  # fmt: skip


@dataclass(frozen=True)
class TraceEvent:
    """What happened in a trace: an event that was added to it, or an observation of a sight point."""

    kind: Literal["event", "observation"]
    name: str  #: the event's type, or the sight point's name
    modality: str
    time_ns: int  #: wall clock at its end
    duration_ns: int
    status: str  #: success, error or blocked
    parent_id: str  #: the span it stands in: the trace itself, or a span of ``rs.tracer`` inside it
    #: an observation's metrics; an event's as JSON gives it back, its beginning where that is long
    data: Any


@dataclass(frozen=True)
class TraceView:
    """A trace as this process knows it."""

    trace_id: str
    parent_id: str | None  #: the span or trace it began in
    name: str
    modality: str | None
    status: str  #: open, success, error or blocked
    start_ns: int  #: wall clock
    duration_ns: int  #: so far, while it is open
    metadata: dict[str, Any]  #: as JSON gives it back; cut as an event's data
    events: list[TraceEvent]  #: by their end
    dropped: int  #: events added to it that are not in memory any more


@dataclass
class _Open:
    span: _C.Span
    name: str
    modality: str | None
    start_tick: int
    metadata: dict[str, Any]
    end_tick: int | None = None
    added: int = 0


@dataclass(frozen=True)
class _Added:
    trace_id: str
    tick: int
    event_type: str
    modality: str
    duration_ns: int
    status: str
    parent_id: str
    data: str


@dataclass(frozen=True)
class OpenTrace:
    """What ``with tracer.trace(…) as trace:`` gives."""

    tracer: MultimodalTracer = field(repr=False)
    trace_id: str

    def add_event(self, modality: str, event_type: str, data: Any = None, **options: Any) -> bool:
        """:meth:`MultimodalTracer.add_event` for this trace."""
        return self.tracer.add_event(self.trace_id, modality, event_type, data, **options)


class MultimodalTracer:
    """Traces that sight points of every modality join by themselves.

    A trace is open in the context that started it and in what that starts (asyncio tasks; threads through
    ``rs.tracer.wrap``), as a span of ``rs.tracer`` is: it *is* one, entered whether the tracer is on or not.
    Observations, and what ``log_*`` records there, carry its id.

    Args:
        max_traces: How many traces are kept in memory; beyond that the oldest that has ended goes, or the
            oldest.
        max_events: How many added events, of all its traces together. Observations come from the process's
            window of 10,000. The recording holds everything.

    Raises:
        ValueError: one of them is below 1.
    """

    def __init__(self, *, max_traces: int = 1000, max_events: int = 10_000) -> None:
        if max_traces < 1 or max_events < 1:
            raise ValueError(f"max_traces and max_events are 1 or more, got {max_traces} and {max_events}")
        self._max_traces = max_traces
        self._traces: dict[str, _Open] = {}
        self._events: deque[_Added] = deque(maxlen=max_events)
        self._dropped = 0

    @property
    def dropped_traces(self) -> int:
        """How many traces are not in memory any more."""
        return self._dropped

    @staticmethod
    def current_trace_id() -> str | None:
        """The id that an observation made here would carry: of the innermost open trace, else of the root of
        the tracer's spans; None where there is neither."""
        ids = _C._trace_ids()
        return None if ids is None else ids[0]

    def start_trace(self, name: str, modality: str | None = None, **metadata: Any) -> str:
        """Begins a trace in this context, inside the trace or span that is innermost there.

        Args:
            name: What it is for; may differ from trace to trace.
            modality: One of :class:`Modality`; None where it has several.
            metadata: Recorded at its beginning and its end, as JSON.

        Returns:
            Its id.

        Raises:
            ValueError: an unknown modality.
        """
        return self._start(name, modality, metadata).span.trace_id

    def add_event(
        self,
        trace_id: str,
        modality: str,
        event_type: str,
        data: Any = None,
        *,
        duration_ms: float = 0.0,
        status: Status = "success",
    ) -> bool:
        """Adds what is no sight point: a message that came, a decision. From any thread or task.

        Args:
            trace_id: Of a trace of this tracer that is open.
            modality: One of :class:`Modality`.
            event_type: What kind of event, such as ``"tool_call"``; a constant, as it becomes the event's
                name in the recording.
            data: Bytes are recorded as they are, everything else as JSON (what JSON has no word for as its
                ``str``).

        Returns:
            False when no recorder is open, or it refused.

        Raises:
            KeyError: no such trace, or it is not in memory any more.
            ValueError: the trace has ended, an unknown modality or status, or a negative duration.
        """
        known = check_modality(modality)
        if not isinstance(event_type, str) or not event_type:
            raise ValueError(f"an event's type is a str such as 'tool_call', got {event_type!r}")
        if status not in STATUSES:
            raise ValueError(f"status is one of {', '.join(STATUSES)}, got {status!r}")
        if not 0 <= duration_ms < 1e13:
            raise ValueError(f"duration_ms is from 0 milliseconds, got {duration_ms}")
        duration_ns = round(duration_ms * 1e6)
        if isinstance(data, (bytes, bytearray, memoryview)):
            data = bytes(data)
            kept = dump_json(f"{len(data)} bytes")
        else:
            kept = _cut(dump_json(data))
            if isinstance(data, str):
                data = data.encode(errors="replace").decode()
        ids = _C._trace_ids()
        parent_id = ids[1] if ids is not None and ids[0] == trace_id else trace_id
        with _lock:
            trace = self._known(trace_id)
            if trace.end_tick is not None:
                raise ValueError(f"the trace {trace_id} has ended")
            trace.added += 1
            self._events.append(
                _Added(trace_id, _C._ticks(), event_type, known, duration_ns, status, parent_id, kept)
            )
        return emit(
            "trace_event",
            event_type,
            {},
            {"data": data},
            status,
            modality=known,
            ids=(trace_id, parent_id),
            duration_ns=duration_ns,
        )

    def end_trace(self, trace_id: str, status: Status | None = None, **metadata: Any) -> None:
        """Ends a trace, from any thread or task; this context goes back to what was there before it.

        Args:
            status: Left out, ``success`` (or what ``rs.tracer.current_span()`` was given inside).
            metadata: Added to what :meth:`start_trace` was given.

        Raises:
            KeyError: no such trace, or it is not in memory any more.
            ValueError: it has ended already, or an unknown status.
        """
        if status is not None and status not in STATUSES:
            raise ValueError(f"status is one of {', '.join(STATUSES)}, got {status!r}")
        with _lock:
            trace = self._known(trace_id)
        if not self._end(trace, status, metadata):
            raise ValueError(f"the trace {trace_id} has ended already")

    @contextmanager
    def trace(self, name: str, modality: str | None = None, **metadata: Any) -> Iterator[OpenTrace]:
        """``with tracer.trace("answer") as trace:``: a trace around a block.

        An exception that leaves the block gives it the status ``error``. :meth:`end_trace` inside is allowed.
        """
        trace = self._start(name, modality, metadata)
        try:
            yield OpenTrace(self, trace.span.trace_id)
        except BaseException as error:
            self._end(trace, None, {}, error)
            raise
        self._end(trace, None, {})

    def get_trace(self, trace_id: str) -> TraceView:
        """A trace with its events of every modality in order, the observations of sight points among them.

        Raises:
            KeyError: no such trace, or it is not in memory any more.
        """
        with _lock:
            trace = self._known(trace_id)
            added = [event for event in self._events if event.trace_id == trace_id]
            count, metadata, end = trace.added, dict(trace.metadata), trace.end_tick
        found = [(event.tick, _as_event(event)) for event in added]
        for tick, (
            name,
            modality,
            time_ns,
            took,
            outcome,
            metrics,
            _,
            parent,
        ) in _C.sight_observations_of_trace(trace_id):
            event = TraceEvent("observation", name, modality, time_ns, took, outcome, parent, metrics)
            found.append((tick, event))
        found.sort(key=lambda pair: pair[0])
        start_ns = _C._wall_ns(trace.start_tick)
        return TraceView(
            trace_id=trace_id,
            parent_id=trace.span.parent_id,
            name=trace.name,
            modality=trace.modality,
            status="open" if end is None else trace.span.status,
            start_ns=start_ns,
            duration_ns=max(_C._wall_ns(_C._ticks() if end is None else end) - start_ns, 0),
            metadata=metadata,
            events=[event for _, event in found],
            dropped=count - len(added),
        )

    def trace_ids(self) -> list[str]:
        """The traces in memory, in the order in which they were started."""
        with _lock:
            return list(self._traces)

    # ---- inside

    def _start(self, name: str, modality: str | None, metadata: dict[str, Any]) -> _Open:
        if not isinstance(name, str):
            raise TypeError(f"a trace's name is a str, got {name!r}")
        known = None if modality is None else check_modality(modality)
        span = _C._trace_new(name, metadata if known is None else {"modality": known, **metadata})
        span.__enter__()
        trace = _Open(span, name, known, _C._ticks(), _kept(metadata))
        with _lock:
            self._traces[span.trace_id] = trace
            while len(self._traces) > self._max_traces:
                ended = (one for one, other in self._traces.items() if other.end_tick is not None)
                del self._traces[next(ended, next(iter(self._traces)))]
                self._dropped += 1
        emit(
            "trace_start",
            "trace",
            {},
            {"name": name.encode(errors="replace").decode(), "began_in": span.parent_id},
            modality=known,
            ids=(span.trace_id, span.trace_id),
            metadata_json=dump_json(metadata) if metadata else "",
        )
        return trace

    def _known(self, trace_id: str) -> _Open:
        trace = self._traces.get(trace_id)
        if trace is None:
            raise KeyError(f"no trace {trace_id!r}, or it is not in memory any more")
        return trace

    def _end(
        self,
        trace: _Open,
        status: str | None,
        metadata: dict[str, Any],
        error: BaseException | None = None,
    ) -> bool:
        """False where it had ended already."""
        with _lock:
            if trace.end_tick is not None:
                return False
            trace.end_tick = _C._ticks()
            trace.metadata |= _kept(metadata)
        span = trace.span
        span.set_output(**metadata)
        if status == "error":
            span.fail()
        elif status == "blocked":
            span.block()
        span.__exit__(None if error is None else type(error), error, None)
        return True


def _kept(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(_cut(dump_json(value))) for name, value in metadata.items()}


def _cut(text: str) -> str:
    """JSON of at most about TEXT_LIMIT characters: a longer one becomes a string of its beginning."""
    return text if len(text) <= TEXT_LIMIT else dump_json(text[:TEXT_LIMIT] + "…")


def _as_event(event: _Added) -> TraceEvent:
    return TraceEvent(
        "event",
        event.event_type,
        event.modality,
        _C._wall_ns(event.tick),
        event.duration_ns,
        event.status,
        event.parent_id,
        json.loads(event.data),
    )
