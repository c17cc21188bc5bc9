"""The OTLP sink: metrics and spans for any OpenTelemetry backend, over OTLP/HTTP."""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .. import _C
from .._version import __version__
from ..errors import SinkError
from ..event import Event
from ..snapshot import ROOT, NeuralSnapshot, Scalars, dump_json
from ..tracer._console import trace_event
from ._common import Record, need, sequence_of

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

#: The gauges: a rubric's score by ``rubric.path``, a logged scalar by ``scalar.name``.
SCORE, SCALAR = "rubriscope.score", "rubriscope.scalar"

_TIMEOUT_S = 5.0  # other sinks wait meanwhile
_RECORDS = 256  # a request: collectors refuse large ones
_TRY_AGAIN = (429, 502, 503, 504)  # says the OTLP specification; other answers are final


class RefusedError(SinkError):
    """The receiver will not take the data, now or later."""

    transient = False


class OTLPSink:
    """Sends each snapshot's scores as gauge points and its call as a trace: a span for each node that was
    called, in the tree's shape, with error status and the reason where it failed. Logged scalars are gauge
    points. Points carry the snapshot's time; the step is on the root's span, and on the points' exemplars,
    which name the span.

    A span's duration is measured; where it starts is laid out: children follow one another from their
    parent's start. Trace and span ids come from the snapshot's id, so what is sent twice can be recognised.

    A receiver that is away or overloaded gets it later; what it refuses for good is counted as failed.

    Args:
        endpoint: The receiver's base URL; ``/v1/metrics`` and ``/v1/traces`` are added. Left out,
            ``OTEL_EXPORTER_OTLP_ENDPOINT``, or ``http://localhost:4318``.
        headers: Added to every request, to those in ``OTEL_EXPORTER_OTLP_HEADERS``.
        resource: Attributes beside ``service.name`` (``OTEL_SERVICE_NAME``, or "rubriscope"), session, writer
            and rank.
        metrics, traces: Whether to send them: some receivers take one kind only.

    Raises:
        ImportError: ``pip install 'rubriscope[otlp]'``.
        ValueError: ``endpoint`` is no http URL.
    """

    keeps_failed_batches = True

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        resource: Mapping[str, str | int] | None = None,
        metrics: bool = True,
        traces: bool = True,
    ) -> None:
        need("opentelemetry.proto.trace.v1.trace_pb2", "otlp", "OTLPSink")
        self._endpoint = (
            endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
        ).rstrip("/")
        parts = urlsplit(self._endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            shown = f"{parts.scheme}://{parts.hostname or ''}"
            raise ValueError(f"an endpoint is http://host:port without a user, got {shown!r}")
        self._headers = {**_headers_of_environment(), **(headers or {})}
        self._more = dict(resource or {})
        self._resource: list[KeyValue] = []
        self._kinds = [("/v1/metrics", self._metrics)] * metrics + [("/v1/traces", self._spans)] * traces
        # By writer and path: the last sequence that was sent, and what was refused of this batch.
        self._sent: dict[tuple[str, str], int] = {}
        self._refused: dict[tuple[str, str, int], RefusedError] = {}

    @property
    def target(self) -> str:
        """``otlp+http://host:port``, by which a later process opens it again; headers then come from the
        environment."""
        return "otlp+" + self._endpoint

    def open(self, session: Mapping[str, Any]) -> None:
        """Notes who is sending."""
        self._resource = _attributes(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME", "rubriscope"),
                "service.instance.id": session["writer_id"],
                "host.name": session["host"],
                "process.pid": session["pid"],
                "rubriscope.session.id": session["session_id"],
                "rubriscope.session.name": session["session_name"],
                "rubriscope.rank": session["rank"],
                **self._more,
            }
        )

    def write_all(self, records: Sequence[Record]) -> None:
        """Sends metrics and spans in several requests; a second try begins where the first ended."""
        first = sequence_of(records[0])
        self._refused = {key: error for key, error in self._refused.items() if key[2] >= first}
        for start in range(0, len(records), _RECORDS):
            for path, make in self._kinds:
                self._send(path, records[start : start + _RECORDS], make)
        for error in self._refused.values():
            raise error

    def _send(
        self, path: str, records: Sequence[Record], make: Callable[[Sequence[Record]], Message | None]
    ) -> None:
        writer, last = records[0].id.rpartition(":")[0], sequence_of(records[-1])
        if self._sent.get((writer, path), -1) >= last:
            return
        request = make(records)
        if request is not None:
            try:
                self._post(path, request)
            except RefusedError as error:
                self._refused[writer, path, last] = error
        self._sent[writer, path] = last

    def _post(self, path: str, body: Message) -> None:
        url = self._endpoint + path
        request = urllib.request.Request(
            url,
            gzip.compress(body.SerializeToString(), compresslevel=1),
            {
                "Content-Type": "application/x-protobuf",
                "Content-Encoding": "gzip",
                "User-Agent": f"rubriscope/{__version__}",
                **self._headers,
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                self._look_at(url, answer.read(), path)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(200).decode(errors="replace")
            kind = SinkError if error.code in _TRY_AGAIN else RefusedError
            raise kind(f"{url} answered {error.code} {error.reason}: {said}") from None

    def _look_at(self, url: str, answer: bytes, path: str) -> None:
        """Says what a receiver took only in part: it will not take the rest later."""
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

        kind = (
            metrics.ExportMetricsServiceResponse
            if path == "/v1/metrics"
            else traces.ExportTraceServiceResponse
        )
        partial = kind.FromString(answer).partial_success
        rejected = partial.rejected_data_points if path == "/v1/metrics" else partial.rejected_spans
        if rejected:
            what = "points" if path == "/v1/metrics" else "spans"
            _C._report("warning", f"{url} rejected {rejected} {what}: {partial.error_message}")

    # ---- metrics

    def _metrics(self, records: Sequence[Record]) -> Message | None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        resource.resource.attributes.extend(self._resource)
        scope = resource.scope_metrics.add()
        scope.scope.name, scope.scope.version = "rubriscope", __version__
        scores = [point for r in records if isinstance(r, NeuralSnapshot) for point in _score_points(r)]
        scalars = [point for r in records if isinstance(r, Scalars) for point in _scalar_points(r)]
        for name, points in ((SCORE, scores), (SCALAR, scalars)):
            if points:
                scope.metrics.add(name=name, unit="1").gauge.data_points.extend(points)
        return request if scope.metrics else None

    # ---- spans

    def _spans(self, records: Sequence[Record]) -> Message | None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.extend(self._resource)
        scope = resource.scope_spans.add()
        scope.scope.name, scope.scope.version = "rubriscope", __version__
        for record in records:
            if isinstance(record, NeuralSnapshot):
                scope.spans.extend(_spans_of(record))
            elif isinstance(record, Event) and record.kind == "span":
                scope.spans.append(span_of(trace_event(record), str(record.fields.get("w3c_trace_id", ""))))
        return request if scope.spans else None

    def send_spans(self, spans: Sequence[Span]) -> None:
        """Sends spans that are made already, in requests of some hundred.

        Raises:
            SinkError: the receiver is away, or refuses them.
        """
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for start in range(0, len(spans), _RECORDS):
            request = ExportTraceServiceRequest()
            resource = request.resource_spans.add()
            resource.resource.attributes.extend(self._resource)
            scope = resource.scope_spans.add()
            scope.scope.name, scope.scope.version = "rubriscope", __version__
            scope.spans.extend(spans[start : start + _RECORDS])
            try:
                self._post("/v1/traces", request)
            except urllib.error.URLError as error:
                raise SinkError(f"{self._endpoint} cannot be reached: {error.reason}") from None

    def close(self) -> None:
        """Nothing is kept back."""
        self._sent.clear()


def _headers_of_environment() -> dict[str, str]:
    pairs = (item.partition("=") for item in os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(","))
    return {unquote(name.strip()): unquote(value.strip()) for name, equals, value in pairs if equals}


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    made = []
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool):
            any_value = AnyValue(bool_value=value)
        elif isinstance(value, int):
            any_value = AnyValue(int_value=value)
        elif isinstance(value, float):
            any_value = AnyValue(double_value=value)
        else:
            any_value = AnyValue(string_value=str(value))
        made.append(KeyValue(key=key, value=any_value))
    return made


def _trace_id(record: NeuralSnapshot) -> bytes:
    return hashlib.sha256(record.id.encode()).digest()[:16]


def _span_id(record: NeuralSnapshot, path: str) -> bytes:
    return hashlib.sha256(f"{record.id}:{path}".encode()).digest()[:8]


def _score_points(record: NeuralSnapshot) -> Iterator[NumberDataPoint]:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, NumberDataPoint

    for path, score in record.scores.items():
        exemplar = Exemplar(
            time_unix_nano=record.time_ns,
            as_double=score,
            trace_id=_trace_id(record),
            span_id=_span_id(record, path),
            filtered_attributes=_attributes({"rubriscope.step": record.step}),
        )
        yield NumberDataPoint(
            time_unix_nano=record.time_ns,
            as_double=score,
            attributes=_attributes({"rubric.path": path}),
            exemplars=[exemplar],
        )


def _scalar_points(record: Scalars) -> Iterator[NumberDataPoint]:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, NumberDataPoint

    for name, value in record.values.items():
        exemplar = Exemplar(
            time_unix_nano=record.time_ns,
            as_double=value,
            filtered_attributes=_attributes({"rubriscope.step": record.step}),
        )
        yield NumberDataPoint(
            time_unix_nano=record.time_ns,
            as_double=value,
            attributes=_attributes({"scalar.name": name}),
            exemplars=[exemplar],
        )


def _spans_of(record: NeuralSnapshot) -> Iterator[Span]:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    # Level by level, so that a parent's start is known before its children's: a node that hangs at several
    # places is listed under all of them where it came first.
    next_start = {"": record.time_ns - record.durations_ns.get(ROOT, 0)}
    for path, duration in sorted(record.durations_ns.items(), key=lambda item: item[0].count(".")):
        above = _parent(path, record.durations_ns)
        start = next_start[above]
        next_start[above] = start + duration
        next_start[path] = start
        failed = record.statuses[path] == "failed"
        labels: dict[str, Any] = {
            "rubric.path": path,
            "rubric.score": record.scores.get(path),
            "rubric.calls": record.calls.get(path),
            "rubric.explanation": record.explanations.get(path),
        }
        if not above:
            labels |= {
                "rubriscope.snapshot.id": record.id,
                "rubriscope.episode": record.episode_id,
                "rubriscope.step": record.step,
                "rubriscope.group": record.group_id,
                "rubriscope.sample": record.sample_index,
                "rubriscope.recovered": record.recovered or None,
            }
        yield Span(
            trace_id=_trace_id(record),
            span_id=_span_id(record, path),
            parent_span_id=_span_id(record, above) if above else b"",
            name=f"rubric {path}",
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=start,
            end_time_unix_nano=start + duration,
            attributes=_attributes(labels),
            status=Status(
                code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET,
                message=record.reasons.get(path, ""),
            ),
        )


def span_of(event: Mapping[str, Any], w3c_trace_id: str) -> Span:
    """A span of the tracer.

    Args:
        event: By the names of trace.jsonl.
        w3c_trace_id: 32 hex digits of its tree; "": it is taken to be a root.
    """
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    trace = w3c_trace_id or _C.trace_number_of_root(event["trace_id"])
    start = _C.read_timestamp(event["timestamp"]) or 0
    labels: dict[str, Any] = {
        "rubriscope.trace_id": event["trace_id"],
        "rubriscope.layer": event["hrm_layer"],
        "rubriscope.operation": event["operation"],
        "rubriscope.component": event["component"] or None,
        "rubriscope.input": event["input_summary"] or None,
        "rubriscope.output": event["output_summary"] or None,
        "rubriscope.status": event["status"],
    }
    for name, value in event["metadata"].items():
        plain = value if value is None or isinstance(value, (str, int, float)) else dump_json(value)
        labels[f"rubriscope.metadata.{name}"] = plain
    failed = event["status"] == "error"
    return Span(
        trace_id=bytes.fromhex(trace),
        span_id=_w3c_span_id(event["trace_id"]),
        parent_span_id=_w3c_span_id(event["parent_id"]) if event["parent_id"] else b"",
        name=f"{event['hrm_layer']}.{event['operation']}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=start + round(event["duration_ms"] * 1e6),
        attributes=_attributes(labels),
        status=Status(
            code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET,
            message=str(event["metadata"].get("error", "")) if failed else "",
        ),
    )


def _w3c_span_id(identity: str) -> bytes:
    """The random part of an id; of the origin's short ids, a hash."""
    random = identity.rpartition("_")[2]
    if len(random) == 16 and set(random) <= set("0123456789abcdef") and int(random, 16):
        return bytes.fromhex(random)
    return hashlib.sha256(identity.encode()).digest()[:8]


def _parent(path: str, known: Mapping[str, int]) -> str:
    """The path of the node above that was called, "" for the root."""
    if path == ROOT:
        return ""
    above = path.rpartition(".")[0]
    while above and above not in known:
        above = above.rpartition(".")[0]
    return above or ROOT


def from_target(target: str) -> OTLPSink:
    """The sink for ``otlp+http://host:port``."""
    return OTLPSink(target.removeprefix("otlp+"))
