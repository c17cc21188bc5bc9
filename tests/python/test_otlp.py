"""OTLP over HTTP, into a receiver of OpenTelemetry's own generated protobuf classes behind an HTTP server."""

from __future__ import annotations

import gzip
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import rubriscope as rs
from engine_support import Collect, Echo, Raises, Value
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from rubriscope.targets import sink_for_target, target_of


class Receiver:
    """Takes what the specification allows and keeps it; refuses anything else with 400."""

    def __init__(self):
        self.points, self.spans, self.headers, self.answers, self.requests = [], [], [], [], []
        self.partial = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, len(body)))
                status = receiver.answers.pop(0) if receiver.answers else 200
                answer = b"try later"
                if status == 200:
                    try:
                        answer = receiver.take(self.path, dict(self.headers), body)
                    except Exception as error:
                        status, answer = 400, repr(error).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    def take(self, path, headers, body):
        assert headers["Content-Type"] == "application/x-protobuf" and headers["Content-Encoding"] == "gzip"
        self.headers.append(headers)
        body = gzip.decompress(body)
        if path == "/v1/metrics":
            request = metrics_service.ExportMetricsServiceRequest.FromString(body)
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        assert re.fullmatch(r"[A-Za-z][\w./-]{0,254}", metric.name)
                        assert metric.WhichOneof("data") == "gauge" and metric.gauge.data_points
                        for point in metric.gauge.data_points:
                            assert point.time_unix_nano > 0
                            self.points.append((metric.name, attributes(resource.resource), point))
            answer = metrics_service.ExportMetricsServiceResponse()
            if self.partial:
                answer.partial_success.rejected_data_points = self.partial
                answer.partial_success.error_message = "too many"
            return answer.SerializeToString()
        assert path == "/v1/traces"
        request = trace_service.ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    assert len(span.trace_id) == 16 and any(span.trace_id)
                    assert len(span.span_id) == 8 and any(span.span_id)
                    assert len(span.parent_span_id) in (0, 8)
                    assert span.name and 0 < span.start_time_unix_nano <= span.end_time_unix_nano
                    assert span.kind == Span.SPAN_KIND_INTERNAL
                    self.spans.append((attributes(resource.resource), span))
        return trace_service.ExportTraceServiceResponse().SerializeToString()


def attributes(thing):
    found = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in thing.attributes}
    assert len(found) == len(thing.attributes)
    return found


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("ENDPOINT", "HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def test_scores_are_gauge_points_with_the_snapshots_time(receiver):
    collect = Collect()
    with rs.record(rs.OTLPSink(receiver.url), sinks=[collect], session="s") as recorder:
        tree = rs.Sequential(Echo(), Value(0.5))
        recorder.observe(tree)
        for step in range(700):  # more than one request
            recorder.step = step
            tree(step + 1.0, "o")
        recorder.log({"loss": 2.5, "nan": math.nan}, step=9)
    stats = recorder.stats().sinks[0]
    assert (stats.durable, stats.failed) == (701, 0)
    got = [
        (a["rubric.path"], p.time_unix_nano, p.as_double)
        for name, _, p in receiver.points
        if name == "rubriscope.score" and (a := attributes(p))
    ]
    assert got == [(path, s.time_ns, v) for s in collect.snapshots for path, v in s.scores.items()]
    steps = [attributes_of_exemplar(p) for name, _, p in receiver.points if name == "rubriscope.score"]
    assert steps == [{"rubriscope.step": s.step} for s in collect.snapshots for _ in s.scores]
    scalars = {
        attributes(p)["scalar.name"]: p.as_double for n, _, p in receiver.points if n == "rubriscope.scalar"
    }
    assert scalars["loss"] == 2.5 and math.isnan(scalars["nan"])
    (resource,) = {tuple(sorted(r.items())) for _, r, _ in receiver.points}
    assert (
        dict(resource).items()
        >= {
            "service.name": "rubriscope",
            "rubriscope.session.name": "s",
            "rubriscope.session.id": recorder.session_id,
            "service.instance.id": recorder.writer_id,
            "rubriscope.rank": 0,
        }.items()
    )


def attributes_of_exemplar(point):
    (exemplar,) = point.exemplars
    return {a.key: a.value.int_value for a in exemplar.filtered_attributes}


def test_a_call_is_a_trace(receiver):
    collect = Collect()
    with rs.record(rs.OTLPSink(receiver.url), sinks=[collect]) as recorder:
        shared = Value(0.25)
        inner = rs.WeightedSum([Echo(), shared], [0.5, 0.5])
        tree = rs.Sequential(inner, shared, Value(0.0), Value(1.0))
        recorder.observe(tree)
        with recorder.episode("ep", step=4, group_id=2, sample_index=1):
            tree(1.0, "o")
        broken = rs.Sequential(Raises(RuntimeError("no idea")))
        recorder.observe(broken)
        with pytest.raises(RuntimeError):
            broken("a", "o")
    traces: dict[bytes, list[Span]] = {}
    for _, span in receiver.spans:
        traces.setdefault(span.trace_id, []).append(span)
    assert len(traces) == len(collect.snapshots) == 2
    for spans, snapshot in zip(traces.values(), collect.snapshots, strict=True):
        by_id = {span.span_id: span for span in spans}
        by_path = {attributes(span)["rubric.path"]: span for span in spans}
        assert len(by_id) == len(spans)
        assert set(by_path) == set(snapshot.durations_ns)  # nodes that were skipped have none
        for path, span in by_path.items():
            assert span.end_time_unix_nano - span.start_time_unix_nano == snapshot.durations_ns[path]
            assert attributes(span).get("rubric.score") == snapshot.scores.get(path)
            if path == "root":
                assert span.parent_span_id == b"" and span.end_time_unix_nano == snapshot.time_ns
            else:
                above = by_id[span.parent_span_id]
                parent = path.rpartition(".")[0] or "root"
                assert attributes(above)["rubric.path"] == parent
                assert span.start_time_unix_nano >= above.start_time_unix_nano
    first, second = traces.values()
    labels = attributes(next(span for span in first if not span.parent_span_id))
    assert (labels["rubriscope.step"], labels["rubriscope.episode"]) == (4, "ep")
    assert (labels["rubriscope.group"], labels["rubriscope.sample"]) == (2, 1)
    assert all(span.status.code == Status.STATUS_CODE_ERROR for span in second)
    assert any("no idea" in span.status.message for span in second)
    ids = {span.span_id for _, span in receiver.spans}
    assert {p.exemplars[0].span_id for n, _, p in receiver.points if n == "rubriscope.score"} <= ids


def test_an_overloaded_receiver_gets_it_later_and_once(receiver):
    receiver.answers = [503, 200, 429, 502, 200]
    with rs.record(rs.OTLPSink(receiver.url)) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        for _ in range(600):
            tree("a", "o")
        recorder.flush(30)
    assert recorder.stats().sinks[0].failed == 0
    assert len(receiver.points) == len(receiver.spans) == 600
    assert len({span.span_id for _, span in receiver.spans}) == 600


def test_a_receiver_that_is_away_while_another_sink_goes_on(tmp_path):
    receiver = Receiver()
    url = receiver.url
    receiver.server.shutdown()
    receiver.server.server_close()
    with rs.record(tmp_path / "runs.db", sinks=[rs.OTLPSink(url)]) as recorder:
        recorder.log({"x": 1})
        with pytest.raises(TimeoutError, match=re.escape(f"otlp+{url}")):
            recorder.flush(0.5)
        database, away = recorder.stats().sinks
        assert (database.durable, away.durable, away.failing, away.failed) == (1, 0, True, 0)
        journal = recorder.journal_path
    assert journal.exists()


def test_what_is_refused_for_good_is_counted_and_the_rest_goes_on(receiver, capfd):
    receiver.answers = [400]
    with rs.record(rs.OTLPSink(receiver.url)) as recorder:
        recorder.log({"x": 1})
        recorder.flush()
        recorder.log({"x": 2})
        recorder.flush()
        stats = recorder.stats().sinks[0]
    assert (stats.durable, stats.failed) == (1, 1)
    assert [p.as_double for _, _, p in receiver.points] == [2.0]
    assert len(receiver.requests) == 2  # the refused one is not sent again
    assert "answered 400" in capfd.readouterr().err


def test_partial_success_is_said(receiver, capfd):
    receiver.partial = 3
    with rs.record(rs.OTLPSink(receiver.url)) as recorder:
        recorder.log({"x": 1})
    assert "rejected 3 points: too many" in capfd.readouterr().err


def test_headers_environment_and_kinds(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url + "/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, tenant=a")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "trainer")
    with rs.record(rs.OTLPSink(headers={"tenant": "b"}, resource={"team": 7}, traces=False)) as recorder:
        tree = Value(0.5)
        recorder.observe(tree)
        tree("a", "o")
    headers = {name.lower(): value for name, value in receiver.headers[0].items()}
    assert (headers["authorization"], headers["tenant"]) == ("Bearer x", "b")
    ((_, resource, _),) = receiver.points
    assert (resource["service.name"], resource["team"]) == ("trainer", 7)
    assert receiver.spans == []


def test_targets(receiver):
    sink = sink_for_target("otlp+http://collector:4318")
    assert target_of(sink) == "otlp+http://collector:4318" == target_of(sink_for_target(target_of(sink)))
    for wrong in ("collector:4318", "ftp://x", "http://me:secret@collector"):
        with pytest.raises(ValueError, match="without a user") as error:
            rs.OTLPSink(wrong)
        assert "secret" not in str(error.value)


def test_spans_of_the_tracer(receiver, tmp_path, capsys):
    from rubriscope.cli.app import run

    path = tmp_path / "t.jsonl"
    rs.tracer.enable(path)
    try:
        with (
            rs.record(sinks=[rs.OTLPSink(receiver.url)], session="s", journal_dir=tmp_path / "j"),
            rs.tracer.span("alt", "plan", "a.py", "in") as root,
            rs.tracer.focus.gate_check("W", "denied", "no") as gate,
            pytest.raises(ValueError),
            rs.tracer.span("mem", "write") as inner,
        ):
            raise ValueError("bad")
    finally:
        rs.tracer.disable()
    sent = {attributes(span)["rubriscope.trace_id"]: span for _, span in receiver.spans}
    assert list(sent) == [inner.trace_id, gate.trace_id, root.trace_id]
    assert {span.trace_id.hex() for span in sent.values()} == {root.w3c_trace_id}
    assert sent[inner.trace_id].parent_span_id == sent[gate.trace_id].span_id
    assert sent[gate.trace_id].parent_span_id == sent[root.trace_id].span_id
    assert sent[root.trace_id].parent_span_id == b""
    assert sent[root.trace_id].span_id.hex() == root.trace_id.rpartition("_")[2]
    assert sent[root.trace_id].name == "altitude.plan"
    assert attributes(sent[gate.trace_id])["rubriscope.metadata.reason"] == "no"
    assert (sent[inner.trace_id].status.code, sent[inner.trace_id].status.message) == (
        Status.STATUS_CODE_ERROR, "bad",
    )  # fmt: skip

    receiver.spans.clear()
    assert run(["trace", "export", "--otlp", receiver.url, str(path)]) == 0
    again = {attributes(span)["rubriscope.trace_id"]: span for _, span in receiver.spans}
    assert {name: (s.trace_id, s.span_id, s.parent_span_id, s.name) for name, s in again.items()} == {
        name: (s.trace_id, s.span_id, s.parent_span_id, s.name) for name, s in sent.items()
    }
    receiver.server.shutdown()
    receiver.server.server_close()
    assert run(["trace", "export", "--otlp", receiver.url, str(path)]) == 1
    assert "cannot be reached" in capsys.readouterr().err
