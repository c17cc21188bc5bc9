"""``rubriscope trace``: what the tracer wrote, as trees and figures, and to other tools."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .._postgres_url import is_postgres
from ..render import colour_wanted, printable
from ..snapshot import dump_json
from .common import FAILED, OK, CommandError, add_command, file_of, many, print_json, progress, split_target

if TYPE_CHECKING:
    from ..film import Film

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST_AT_ONCE = 10_000


def register(commands: Any) -> None:
    """Adds ``trace view``, ``trace stats`` and ``trace export``."""
    trace = commands.add_parser(
        "trace",
        help="view spans, their statistics, and send them to other tools",
        description="View what the tracer wrote, its statistics, and send it to other tools.",
    )
    below = trace.add_subparsers(dest="trace_command", metavar="COMMAND", title="commands", required=True)
    view = add_command(
        below,
        "view",
        run_view,
        help="spans as trees",
        description="Show spans as trees, the last 100 unless --last says otherwise.",
        epilog="examples:\n  rubriscope trace view\n  rubriscope trace view --status error --since 10m\n"
        "  rubriscope trace view --trace-id alt_1705180800_9f86d081884c7d65\n"
        "  rubriscope trace view runs.db:grpo --hrm mem --json",
    )
    _add_source(view)
    _add_filter(view, "show the last N events (100; 0: all)", 100)
    view.add_argument("--trace-id", metavar="ID", help="the whole tree that holds this id")
    view.add_argument("--follow", action="store_true", help="go on as events come, until interrupted")
    stats = add_command(
        below,
        "stats",
        run_stats,
        help="figures of each layer, and the slowest operations",
        description="Operations, mean, 95th percentile (within 1 %) and errors of each layer, and the\n"
        "slowest operations.",
        epilog="examples:\n  rubriscope trace stats\n  rubriscope trace stats --last 1000 other.jsonl",
    )
    _add_source(stats)
    _add_filter(stats, "of the last N events only", 0)
    stats.add_argument("--slowest", type=_count, default=10, metavar="N", help="how many to list (10)")
    export = add_command(
        below,
        "export",
        run_export,
        help="write spans for another tool",
        description="Write spans in Chrome's trace format, which ui.perfetto.dev opens, or send them to an\n"
        "OpenTelemetry receiver over OTLP/HTTP.",
        epilog="examples:\n  rubriscope trace export --perfetto out.json\n"
        "  rubriscope trace export --otlp http://localhost:4318",
    )
    _add_source(export)
    _add_filter(export, "of the last N events only", 0)
    where = export.add_mutually_exclusive_group(required=True)
    where.add_argument("--perfetto", metavar="FILE", help="the file to write")
    where.add_argument("--otlp", metavar="URL", help="the receiver; /v1/traces is added")


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _since(text: str) -> int:
    from .._C import read_timestamp

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match:
        return time.time_ns() - int(float(match[1]) * _UNITS[match[2]] * 1e9)
    at = read_timestamp(text if "T" in text or " " in text else text + "T00:00:00")
    if at is None:
        raise argparse.ArgumentTypeError(f"expected 30s, 10m, 2h, 1d or an ISO time (UTC), got {text!r}")
    return int(at)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        default="trace.jsonl",
        metavar="FILE|TARGET",
        help="a trace file (trace.jsonl), or a recording with spans (runs.db, postgresql://…)",
    )


def _add_filter(parser: argparse.ArgumentParser, last: str, default: int) -> None:
    parser.add_argument("--last", type=_count, default=default, metavar="N", help=last)
    parser.add_argument("--hrm", metavar="LAYER", help="of this layer, by name or code")
    parser.add_argument("--status", choices=("success", "error", "blocked"), help="of this status")
    parser.add_argument("--since", type=_since, metavar="TIME", help="since 30s, 10m, 2h, 1d or a time (UTC)")


class _Source:
    """Where events come from: a trace file or a recording."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from .._C import TraceFile, trace_layers

        self.layer: str = dict(trace_layers()).get(arguments.hrm, arguments.hrm) or ""
        self.status: str = arguments.status or ""
        self.since: int | None = arguments.since
        self.path: str = arguments.source
        self.film: tuple[Film, str | None] | None = None
        self.file: Any = None
        self._malformed = 0
        target, session = split_target(self.path)
        if is_postgres(self.path) or _is_recording(file_of(target)):
            from ..film import Film

            self.film = Film(target), session
        else:
            self.file = TraceFile(self.path)

    @property
    def corrupt(self) -> int:
        """Lines that are no events."""
        return self._malformed + (int(self.file.corrupt) if self.file is not None else 0)

    def read(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Lines with every field, whatever they leave out."""
        from ..tracer._console import FIELDS

        for line in lines:
            try:
                found = json.loads(line)
            except (
                ValueError
            ):  # brackets and quotes are right, which the file's reader looks at; a value is not
                self._malformed += 1
            else:
                yield {**FIELDS, **found}

    def last(self, count: int, report: Any) -> list[dict[str, Any]]:
        """The last events that the filter takes."""
        if self.file is not None:
            lines = self.file.last(count, self.layer, self.status, self.since, report)
            return list(self.read(lines))
        return list(deque(self.all(report), maxlen=count))

    def all(self, report: Any) -> Iterator[dict[str, Any]]:
        """All that the filter takes."""
        if self.film is not None:
            for event in self._recorded():
                if self._takes(event):
                    yield event
            return
        offset = 0
        while True:
            lines, end = self.file.batch(offset, _MOST_AT_ONCE, self.layer, self.status, self.since, report)
            yield from self.read(lines)
            if end == offset or not lines:
                return
            offset = end

    def tree(self, identity: str, report: Any) -> list[dict[str, Any]]:
        """The whole tree that holds an id.

        Raises:
            CommandError: nothing has this id.
        """
        if self.file is not None:
            found = list(self.read(self.file.tree(identity, report)))
        else:
            found = _tree_of(list(self._recorded()), identity)
            found += self._observed(found, identity)
        if not found:
            raise CommandError(f"{self.path}: no event has the id {identity}")
        return found

    def _observed(self, spans: list[dict[str, Any]], identity: str) -> list[dict[str, Any]]:
        """What sight points and ``log_*`` recorded inside these spans; all of a trace that has no span yet:
        it is open, or its process died."""
        from ..tracer._console import observed_event

        assert self.film is not None
        film, session = self.film
        ended = {event["trace_id"] for event in spans}
        wanted = ended | {identity}
        return [
            observed_event(event)
            for event in film.events(session, kind="observation")
            if (event.fields.get("parent_id") in wanted or event.fields.get("trace_id") == identity)
            and not (event.attributes.get("type") == "trace_start" and event.fields["trace_id"] in ended)
        ]

    def _recorded(self) -> Iterator[dict[str, Any]]:
        from ..tracer._console import trace_event

        assert self.film is not None
        film, session = self.film
        return map(trace_event, film.events(session, kind="span"))

    def _takes(self, event: dict[str, Any]) -> bool:
        from .._C import read_timestamp

        if self.layer and event["hrm_layer"] != self.layer:
            return False
        if self.status and event["status"] != self.status:
            return False
        return self.since is None or (read_timestamp(event["timestamp"]) or 0) >= self.since


def _is_recording(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(16)
    return start == b"SQLite format 3\0" or start.startswith(b'{"writer":')


def _tree_of(events: list[dict[str, Any]], identity: str) -> list[dict[str, Any]]:
    parents = {event["trace_id"]: event["parent_id"] for event in events}
    if identity not in parents:
        return []
    root, climbed = identity, {identity}
    while (parent := parents.get(root)) is not None and parent not in climbed:
        climbed.add(parent)
        root = parent
    inside, before = {root}, 0
    while len(inside) != before:
        before = len(inside)
        inside.update(one for one, parent in parents.items() if parent in inside)
    return [event for event in events if event["trace_id"] in inside]


# ---- view


def run_view(arguments: argparse.Namespace) -> int:
    """Shows spans."""
    source = _Source(arguments)
    end = source.file.size if arguments.follow and source.file is not None else 0
    if arguments.follow and source.file is None:
        raise CommandError(
            "--follow needs a trace file; a recording is followed with: rubriscope show --follow"
        )
    if arguments.trace_id is not None:
        with progress("reading") as report:
            found = source.tree(arguments.trace_id, report)
        _show(found, arguments.json)
    elif arguments.last:
        with progress("reading") as report:
            found = source.last(arguments.last, report)
        _show(found, arguments.json)
    elif arguments.json:
        _show(source.all(None), True)
    else:
        some: list[dict[str, Any]] = []
        for event in source.all(None):
            some.append(event)
            if len(some) == _MOST_AT_ONCE:
                _show(some, False)
                some = []
        _show(some, False)
    _note_corrupt(source.corrupt)
    if arguments.follow:
        _follow(source, end, arguments.json)
    return OK


def _show(events: Iterable[dict[str, Any]], as_json: bool) -> None:
    from ..tracer._console import forest, line

    if as_json:
        for event in events:
            print_json(event, indent=None)
        return
    colour = colour_wanted(sys.stdout)
    for depth, event in forest(events):
        print(line(event, depth, colour))


def _follow(source: _Source, offset: int, as_json: bool) -> None:
    from .._C import TraceFile

    while True:
        sys.stdout.flush()
        time.sleep(0.2)
        if not os.path.exists(source.path):
            continue
        file = TraceFile(source.path)  # by its name again: it may have been rotated
        if file.size < offset:
            offset = 0
        lines, offset = file.batch(offset, _MOST_AT_ONCE, source.layer, source.status, source.since, None)
        _show(source.read(lines), as_json)


def _note_corrupt(count: int) -> None:
    if count:
        print(f"rubriscope: {many(count, 'line')} could not be read and {'was' if count == 1 else 'were'} "
              "passed over", file=sys.stderr)  # fmt: skip


# ---- stats


def run_stats(arguments: argparse.Namespace) -> int:
    """Prints figures."""
    from .._C import TraceStats

    source, stats = _Source(arguments), TraceStats(arguments.slowest)
    with progress("reading") as report:
        if source.file is not None:
            count = source.file.stats(
                stats, arguments.last, source.layer, source.status, source.since, report
            )
        else:
            events = source.last(arguments.last, None) if arguments.last else source.all(None)
            count = 0
            for event in events:
                text = json.dumps(event, ensure_ascii=False)
                stats.add(event["hrm_layer"], event["status"], event["duration_ms"], text)
                count += 1
    layers = stats.layers()
    slowest = list(source.read(stats.slowest()))
    if arguments.json:
        print_json({"events": count, "corrupt": source.corrupt, "layers": layers, "slowest": slowest})
        return OK
    _note_corrupt(source.corrupt)
    for text in _layout(layers, slowest, count, arguments.last):
        print(text)
    return OK


def _layout(layers: dict[str, Any], slowest: list[dict[str, Any]], count: int, last: int) -> Iterator[str]:
    from .._C import trace_layers
    from ..tracer._console import milliseconds

    names = [name for _, name in trace_layers()]
    codes = {name: code for code, name in trace_layers()}
    yield f"HRM Layer Stats ({'last ' if last else ''}{many(count, 'event')}):"
    for name in sorted(layers, key=lambda one: (names.index(one) if one in names else len(names), one)):
        found = layers[name]
        errors = many(found["errors"], "error")
        blocked = f", {found['blocked']:,} blocked" if found["blocked"] else ""
        yield (
            f"- {printable(name)}: {found['operations']:,} ops, avg {milliseconds(found['average_ms'])}, "
            f"p95 {milliseconds(found['p95_ms'])}, {errors}{blocked}"
        )
    if slowest:
        yield ""
        yield "Slowest operations:"
    for place, event in enumerate(slowest, 1):
        layer = codes.get(event["hrm_layer"], event["hrm_layer"])
        summary = f" ({printable(event['input_summary'])})" if event["input_summary"] else ""
        took = milliseconds(event["duration_ms"])
        yield f"{place}. {printable(layer)}_{printable(event['operation'])}: {took}{summary}"


# ---- export


def run_export(arguments: argparse.Namespace) -> int:
    """Writes Chrome's trace format, or sends spans."""
    source = _Source(arguments)
    with progress("reading") as report:
        events = source.last(arguments.last, report) if arguments.last else source.all(report)
        if arguments.perfetto is not None:
            where, hint = arguments.perfetto, " (open it in ui.perfetto.dev)"
            count = _write_perfetto(events, arguments.perfetto)
        else:
            where, hint = arguments.otlp, ""
            count = _send(events, arguments.otlp)
    _note_corrupt(source.corrupt)
    if arguments.json:
        print_json({"events": count, "corrupt": source.corrupt, "to": where})
    else:
        print(f"{many(count, 'event')} → {where}{hint}")
    return OK if count else FAILED


def _send(events: Iterable[dict[str, Any]], url: str) -> int:
    """To an OpenTelemetry receiver. A span's tree is known by its root, so all are read first."""
    from .._C import trace_number_of_root
    from ..errors import SinkError
    from ..sinks.otlp import OTLPSink, span_of

    sink = OTLPSink(url, metrics=False)
    sink.open(
        {
            "writer_id": "rubriscope trace export",
            "host": None,
            "pid": None,
            "session_id": None,
            "session_name": None,
            "rank": None,
        }
    )
    known = {event["trace_id"]: event for event in events}

    def tree(event: dict[str, Any]) -> str:
        climbed = {event["trace_id"]}
        while True:
            remote = event["metadata"].get("w3c_trace_id")
            if isinstance(remote, str) and re.fullmatch("[0-9a-f]{32}", remote):
                return remote
            parent = event["parent_id"]
            if parent is None or parent in climbed:
                return str(trace_number_of_root(event["trace_id"]))
            if parent not in known:
                return str(trace_number_of_root(parent))
            climbed.add(parent)
            event = known[parent]

    try:
        sink.send_spans([span_of(event, tree(event)) for event in known.values()])
    except SinkError as error:
        raise CommandError(str(error), FAILED) from None
    return len(known)


def _write_perfetto(events: Iterable[dict[str, Any]], path: str) -> int:
    """One complete event ("X", times in µs) a span, an instant ("i") an event without a duration; a track a
    layer."""
    tracks: dict[str, int] = {}
    count = 0
    before = ""
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        for event in events:
            for one in _perfetto(event, tracks):
                file.write(before + dump_json(one))
                before = ",\n"
            count += 1
        file.write("\n]}\n")
    return count


def _perfetto(event: dict[str, Any], tracks: dict[str, int]) -> Iterator[dict[str, Any]]:
    from .._C import read_timestamp

    layer = str(event["hrm_layer"])
    if layer not in tracks:
        tracks[layer] = len(tracks) + 1
        yield {"ph": "M", "name": "thread_name", "pid": 1, "tid": tracks[layer], "args": {"name": layer}}
    kept = ("trace_id", "parent_id", "component", "input_summary", "output_summary", "status", "metadata")
    shape: dict[str, Any] = (
        {"ph": "X", "dur": event["duration_ms"] * 1000} if event["duration_ms"] else {"ph": "i", "s": "t"}
    )
    yield {
        **shape,
        "name": event["operation"],
        "cat": layer,
        "ts": (read_timestamp(event["timestamp"]) or 0) / 1000,
        "pid": 1,
        "tid": tracks[layer],
        "args": {name: event[name] for name in kept},
    }
