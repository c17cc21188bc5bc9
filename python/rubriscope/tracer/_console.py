"""The tree of spans on a terminal, as they end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from .._C import trace_layers
from ..event import Event
from ..render import colour_wanted, printable

#: Every field of trace.jsonl in its order, and what stands for it where there is none.
FIELDS: dict[str, Any] = {
    "trace_id": "",
    "parent_id": None,
    "timestamp": "",
    "hrm_layer": "",
    "operation": "",
    "component": "",
    "input_summary": "",
    "output_summary": "",
    "duration_ms": 0,
    "status": "",
    "metadata": {},
}

#: Spans waiting for the one they stand in; beyond that the oldest are shown as they are.
_MOST_WAITING = 10_000

_COLOURS = {"alt": 35, "foc": 36, "rsn": 34, "lrn": 32, "mem": 33}
_STATUS_COLOURS = {"error": 31, "blocked": 33}


def line(event: Mapping[str, Any], depth: int, colour: bool) -> str:
    """``    └─[mem] write: altitude.session → written (3ms) [saved 45 tokens]``.

    Args:
        event: A trace event by the names of trace.jsonl.
        depth: How many spans it stands in.
        colour: Whether to use ANSI colours.
    """
    name = str(event["hrm_layer"])
    code = {full: short for short, full in trace_layers()}.get(name, name)

    def paint(text: str, number: int | None) -> str:
        return f"\x1b[{number}m{text}\x1b[0m" if colour and number is not None else text

    text = " " * (4 * depth - 2) + "└─" if depth else ""
    text += paint(f"[{printable(code)}]", _COLOURS.get(code)) + f" {printable(event['operation'])}"
    if event["input_summary"]:
        text += f": {printable(event['input_summary'])}"
    if event["output_summary"]:
        text += f" → {printable(event['output_summary'])}"
    if event["duration_ms"]:
        text += f" ({milliseconds(event['duration_ms'])})"
    metadata = event["metadata"] if isinstance(event["metadata"], dict) else {}
    if event["status"] != "success":
        why = metadata.get("reason" if event["status"] == "blocked" else "error")
        said = event["status"] + (f": {printable(why, 100)}" if why else "")
        text += " " + paint(f"[{said}]", _STATUS_COLOURS.get(event["status"], 31))
    if metadata.get("tokens_saved"):
        text += f" [saved {printable(metadata['tokens_saved'])} tokens]"
    return text


def milliseconds(value: float) -> str:
    """``3ms``, ``0.12ms``, ``1200ms``."""
    return f"{value:.0f}ms" if value >= 10 else f"{value:.2g}ms"


def trace_event(event: Event) -> dict[str, Any]:
    """A span of a recording as trace.jsonl has it."""
    metadata = event.metadata
    if event.fields.get("remote"):
        metadata = {"w3c_trace_id": event.fields.get("w3c_trace_id", ""), **metadata}
    return {
        "trace_id": event.fields.get("trace_id", ""),
        "parent_id": event.fields.get("parent_id"),
        "timestamp": _began(event),
        "hrm_layer": event.attributes.get("layer", ""),
        "operation": event.attributes.get("operation", event.name),
        "component": event.attributes.get("component", ""),
        "input_summary": event.fields.get("input_summary", ""),
        "output_summary": event.fields.get("output_summary", ""),
        "duration_ms": _took(event),
        "status": event.outcome,
        "metadata": metadata,
    }


def observed_event(event: Event) -> dict[str, Any]:
    """An observation that stands in a trace, as if it were a span: its modality is the layer.

    The beginning of a MultimodalTracer's trace is that trace, as far as it is known.
    """
    fields = {name: value for name, value in event.fields.items() if name not in ("trace_id", "parent_id")}
    kind = event.attributes.get("type")
    found = {
        **FIELDS,
        "trace_id": event.id,
        "parent_id": event.fields.get("parent_id"),
        "timestamp": _began(event),
        "hrm_layer": event.attributes.get("modality") or kind or "observation",
        "operation": event.name,
        "output_summary": _summary(event.values or fields),
        "duration_ms": _took(event),
        "status": event.outcome,
        "metadata": {**event.values, **event.metadata},
    }
    if kind == "trace_start":
        found |= {
            "trace_id": event.fields["trace_id"],
            "parent_id": fields.get("began_in"),
            "hrm_layer": "multimodal",
            "input_summary": fields.get("name", ""),
            "output_summary": "",
            "status": "open",
        }
    return found


def _summary(values: Mapping[str, Any]) -> str:
    texts = (
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if not isinstance(value, bytes)
    )
    text = ", ".join(texts)
    return text if len(text) <= 100 else text[:99] + "…"


def _began(event: Event) -> str:
    seconds, ns = divmod(event.time_ns - event.duration_ns, 1_000_000_000)
    start = datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1000)
    return start.isoformat(timespec="microseconds")


def _took(event: Event) -> float:
    milliseconds, rest = divmod(event.duration_ns, 1_000_000)
    return event.duration_ns / 1e6 if rest else milliseconds


def _start(event: Mapping[str, Any]) -> str:
    return str(event["timestamp"])


def _key(identity: Any) -> str:
    """What an id is compared by: a parent in another process may be known by its W3C span id alone."""
    text = str(identity)
    random = text.rpartition("_")[2]
    return random if len(random) >= 16 else text


def forest(events: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The depth of each event and the event, below its parent where that is among them, by their start."""
    ordered = sorted(events, key=_start)
    known = {_key(event["trace_id"]) for event in ordered}
    roots: list[dict[str, Any]] = []
    below: dict[str, list[dict[str, Any]]] = {}
    for event in ordered:
        parent = None if event["parent_id"] is None else _key(event["parent_id"])
        if parent is None or parent not in known:
            roots.append(event)
        else:
            below.setdefault(parent, []).append(event)
    stack = [(0, root) for root in reversed(roots)]
    while stack:
        depth, event = stack.pop()
        yield depth, event
        stack.extend((depth + 1, child) for child in reversed(below.pop(_key(event["trace_id"]), [])))
    for ring in below.values():  # parents that are each other's
        yield from ((0, event) for event in ring)


class ConsoleTree:
    """A sink that prints each tree of spans when its outermost one has ended.

    A span ends after those inside it, so they wait for it. The parent of another process does not come here:
    its spans are shown when they have waited behind 10,000 others, or at the end.
    """

    wants_recovered = False

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._waiting: dict[str, list[dict[str, Any]]] = {}  # by the id of the span they stand in
        self._count = 0

    @property
    def file(self) -> TextIO:
        """Where it prints: standard error as it is now, unless one was given."""
        return self._file if self._file is not None else sys.stderr

    def write_all(self, records: Iterable[Any]) -> None:
        """Takes spans; other records are passed over."""
        for record in records:
            if isinstance(record, Event) and record.kind == "span":
                self._take(trace_event(record))
        self.file.flush()

    def _take(self, event: dict[str, Any]) -> None:
        parent = event["parent_id"]
        if parent is None:
            self._print(event)
            return
        self._waiting.setdefault(parent, []).append(event)
        self._count += 1
        if self._count > _MOST_WAITING:
            self._print_orphans(next(iter(self._waiting)))

    def _print(self, root: dict[str, Any]) -> None:
        colour = colour_wanted(self.file)
        for depth, event in self._walk(root):
            print(line(event, depth, colour), file=self.file)

    def _walk(self, root: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        stack = [(0, root)]
        while stack:
            depth, event = stack.pop()
            yield depth, event
            children = self._waiting.pop(event["trace_id"], [])
            self._count -= len(children)
            children.sort(key=_start)
            stack.extend((depth + 1, child) for child in reversed(children))

    def _print_orphans(self, parent: str) -> None:
        for event in self._waiting.pop(parent):
            self._count -= 1
            self._print(event)

    def close(self) -> None:
        """Prints what still waits."""
        inside = {event["trace_id"] for events in self._waiting.values() for event in events}
        for parent in [parent for parent in self._waiting if parent not in inside]:
            self._print_orphans(parent)
        self.file.flush()
